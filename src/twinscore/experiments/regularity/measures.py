"""What is measured on the test images of one replicate: the network, the baselines, two bases."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from twinscore.analysis.denoising import psnr_table
from twinscore.analysis.jacobian import full, linearise, symmetric_basis
from twinscore.denoisers import Checkpoint, Denoiser, denoise
from twinscore.denoisers.shrinkage import (
    Bandlets,
    Cosines,
    Thresholding,
    Wavelets,
    largest_vectors,
    oracle_risk,
)
from twinscore.execution import Report, torch_threads
from twinscore.experiments.folders import remembered
from twinscore.experiments.trials import Trial, open_images, train
from twinscore.runs import derive_seed
from twinscore.training import single_device

NETWORK = "network"
ORACLES = {
    "cosines oracle": Cosines(block=8),
    "wavelets oracle": Wavelets(),
    "best-basis oracle": Bandlets(geometry_cost=0),
}
"""Keep-or-kill, with the clean image's coefficients."""
ESTIMATORS = {
    "cosines": Thresholding(Cosines(block=8), multiple=3.0),
    "wavelets": Thresholding(Wavelets(), multiple=3.0),
    "best basis": Thresholding(Bandlets(geometry_cost=2), multiple=3.0),
}
"""Hard thresholds at 3 sigma on noisy images, as in docs/shrinkage.md."""
METHODS = (NETWORK, *ESTIMATORS, *ORACLES)
MEASURES_VERSION = 2
"""Bumped when the same trial gives other measures."""


_TIMED = 2**14
"""Pixels on which the baselines are timed, of at least one image."""


@dataclass(frozen=True)
class Task:
    """A trial and what is measured on it; runs in a worker.

    ``sigma`` is the noise level at which its eigenvectors are shown, none if ``eigenvectors`` is 0.
    """

    trial: Trial
    sigmas: list[float]
    sigma: float
    eigenvectors: int


def work(task: Task, report: Report) -> dict[str, NDArray]:
    """Train a trial and measure it, or read what was measured.

    Returns
    -------
    dict
        ``mse/<method>`` for each of ``METHODS``, (K, T): squared error per pixel of each test image
        at each noise level, expected for oracles; and, where eigenvectors are asked for, what
        :func:`compare_bases` gives.
    """
    checkpoint = train(task.trial, report)
    key = {
        "version": MEASURES_VERSION,
        "test": task.trial.test.tolist(),
        "sigmas": task.sigmas,
        "sigma": task.sigma,
        "eigenvectors": task.eigenvectors,
    }
    return remembered(task.trial.path, "measures", key, lambda: _measure(task, checkpoint, report))


def _measure(task: Task, checkpoint: Checkpoint, report: Report) -> dict[str, NDArray]:
    trial = task.trial
    report(trial.name, {"text": "trained; measuring"})
    device = single_device(trial.device).device
    network = checkpoint.on(device)
    x = open_images(trial.source)[trial.test].to(device)
    seed = derive_seed(trial.seed, "psnr", trial.replicate)
    denoisers = {NETWORK: network} | ESTIMATORS
    measured = {name: errors(d, x, task.sigmas, seed=seed) for name, d in denoisers.items()}
    for name, dictionary in ORACLES.items():
        risks = [oracle_risk(x, s, dictionary) / x[0].numel() for s in task.sigmas]
        measured[name] = torch.stack(risks).cpu().double().numpy()
    arrays = {f"mse/{name}": values for name, values in measured.items()}
    if task.eigenvectors:
        noise = torch.randn(x[:1].shape, generator=torch.Generator().manual_seed(seed)).to(x)
        arrays |= compare_bases(network, x[:1], noise, task.sigma, task.eigenvectors)
    return arrays


def baseline_seconds(size: int, device: str) -> float:
    """Time of all baselines and oracles at one noise level, on one core or the device.

    Parameters
    ----------
    size : int
        Side of the images, pixels.
    device : str
        Where they run.

    Returns
    -------
    float
        Seconds for each image, from a few at once.
    """
    count = max(1, _TIMED // size**2)
    x = torch.rand((count, 1, size, size), generator=torch.Generator().manual_seed(0))
    x = x.to(single_device(device).device)
    with torch_threads(1):
        _baselines(x)  # tables of the transforms are made once
        started = time.perf_counter()
        _baselines(x)
        return (time.perf_counter() - started) / count


def _baselines(x: Tensor) -> None:
    for estimator in ESTIMATORS.values():
        estimator(x, 0.1)
    for dictionary in ORACLES.values():
        oracle_risk(x, 0.1, dictionary).cpu()  # waits for the device


def errors(
    denoiser: Denoiser, x: Tensor, sigmas: Sequence[float], *, seed: int
) -> NDArray[np.float64]:
    """Squared error of each denoised image at each noise level, per pixel, (K, N).

    The slope of its mean over images is what the theory speaks of; the mean of its logarithm is
    the published curve. Parameters and noise as for
    :func:`~twinscore.analysis.denoising.psnr_table`.
    """
    return 10 ** (-psnr_table(denoiser, x, sigmas, seed=seed).double().numpy() / 10)


def compare_bases(
    denoiser: Denoiser, x: Tensor, noise: Tensor, sigma: float, count: int
) -> dict[str, NDArray]:
    """Eigenvectors of a denoiser at a noisy image beside vectors of the image's best basis.

    Parameters
    ----------
    denoiser : Denoiser
        Any differentiable denoiser.
    x, noise : Tensor
        Clean image and standard normal noise, (1, C, H, W).
    sigma : float
        Noise level, image units.
    count : int
        Vectors of each basis.

    Returns
    -------
    dict
        ``clean``, ``noisy``, ``denoised`` (C, H, W); ``eigenvalues`` (d,) of the Jacobian's
        symmetric part, falling; ``asymmetry``, ``|J - J'| / |J|`` in Frobenius norms, 0 to 2;
        ``eigenvectors`` and ``best_basis``, (count, C, H, W): those with the largest eigenvalues,
        and those with the largest coefficients in the clean image's best basis, which is that of
        the best-basis oracle at this noise level;
        ``residual/<basis>`` (d,): squared norm of what the k largest coefficients of the clean
        image leave, k = 1 ... d, in the basis of eigenvectors, the best basis, wavelets, cosines.
    """
    y = x + sigma * noise
    eigenvalues, eigenvectors, asymmetry = _eigenbasis(denoiser, y, sigma)
    adapted = {
        "best basis": ORACLES["best-basis oracle"].adapted(x, sigma),
        "wavelets": Wavelets(),
        "cosines": Cosines(block=8),
    }
    coefficients = {name: basis.forward(x).flatten() for name, basis in adapted.items()}
    coefficients["eigenvectors"] = eigenvectors @ x.flatten()
    with torch.no_grad():
        denoised = denoise(denoiser, y, sigma)
    vectors, _ = largest_vectors(adapted["best basis"], x[0], count)
    arrays = {
        **{"clean": x[0], "noisy": y[0], "denoised": denoised[0]},
        **{"eigenvalues": eigenvalues, "asymmetry": asymmetry},
        "eigenvectors": eigenvectors[:count].view(count, *x.shape[1:]),
        "best_basis": vectors,
    }
    arrays |= {f"residual/{name}": _residuals(c) for name, c in coefficients.items()}
    return {name: value.detach().cpu().numpy() for name, value in arrays.items()}


def _residuals(coefficients: Tensor) -> Tensor:
    """Energy that the k largest coefficients leave, k = 1 ... d."""
    energy = coefficients.cpu().double().square().sort(descending=True).values
    return (energy.sum() - energy.cumsum(0)).clamp_min(0)


def _eigenbasis(denoiser: Denoiser, y: Tensor, sigma: float) -> tuple[Tensor, Tensor, Tensor]:
    """Eigenvalues (d,), falling, eigenvectors (d, d), a row each, and the Jacobian's asymmetry.

    The Jacobian is formed whole: d^2 numbers, and d forward products.
    """
    matrix = full(linearise(denoiser, y, sigma)).detach().cpu().double()
    values, vectors = symmetric_basis(matrix)
    asymmetry = (matrix - matrix.T).norm() / matrix.norm()
    return values.float(), vectors.to(y), asymmetry.float()
