"""What is measured on the test discs of one replicate: errors, and the Jacobian's eigenbasis."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from twinscore.analysis.jacobian import decompose, linearise, symmetric_basis
from twinscore.denoisers import Denoiser, check
from twinscore.denoisers.closed_form import Disc, LinearSubspace, disc_tangent
from twinscore.execution import Report
from twinscore.experiments.manifold.spec import Spec
from twinscore.experiments.trials import Trial, remembered, train
from twinscore.images.synthetic import discs
from twinscore.runs import derive_seed
from twinscore.training import single_device

DIMENSION = 5
"""Of the manifold of discs: centre, radius, foreground, background."""
LARGEST = 64
"""Eigenvalues that are kept of each Jacobian."""
SHOWN = 10
"""Eigenvectors that are shown at each noise level."""
NEAR_ONE = 0.9
"""An eigenvalue above it is near 1: next to nothing of its direction is taken away."""
MEASURES_VERSION = 2
"""Bumped when the same trial gives other measures."""

Measured = dict[str, NDArray]


@dataclass(frozen=True)
class Task:
    """A trial and the study it belongs to; runs in a worker."""

    trial: Trial
    spec: Spec


def work(task: Task, report: Report) -> Measured:
    """Train a trial and measure it, or read what was measured; see :func:`measure`."""
    trial, spec = task.trial, task.spec
    checkpoint = train(trial, report)
    key = {"version": MEASURES_VERSION} | spec.model_dump(
        mode="json", include={"size", "radius", "edge", "exact", "bases", "levels", "threshold"}
    )
    key |= {"test": trial.test.tolist()}

    def make() -> Measured:
        report(trial.name, {"text": "trained; measuring"})
        device = single_device(trial.device).device
        seed = derive_seed(trial.seed, "noise", trial.replicate)
        network = checkpoint.on(device)
        return measure(network, spec, trial.test, seed=seed, device=device, report=report)

    return remembered(trial, "measures", key, make)


def measure(
    denoiser: Denoiser,
    spec: Spec,
    rows: NDArray[np.int64],
    *,
    seed: int,
    device: torch.device | str = "cpu",
    report: Report = lambda name, event: None,
) -> Measured:
    """Set a denoiser beside the optimum, on the same noisy discs.

    Parameters
    ----------
    denoiser : Denoiser
        Any, differentiable by autograd.
    spec : Spec
        Which discs and noise levels (K), and of how many discs: E = ``exact``, J = ``bases``.
    rows : array
        (T,) numbers of the discs.
    seed : int
        Seed of the noise. A disc has the same noise, times sigma, at every level.
    device : torch.device or str
        Where the denoiser is; what needs float64, which not every device has, is computed on the
        CPU.
    report : callable
        Told of every level.

    Returns
    -------
    dict
        ``mse/network``, ``mse/tangent`` (K, T), ``mse/exact`` (K, E): squared error per pixel of
        the denoiser, of the projection on the tangent at the true disc, of the exact posterior
        mean. ``eigenvalues/network`` (K, J, 64) and ``eigenvalues/exact`` (K, min(E, J), 64): the
        largest of the symmetric part, falling. ``kept/network`` and ``kept/exact``: how many exceed
        the threshold; ``near_one/...``: how many exceed 0.9. ``cosines`` (K, J, 5): of the
        principal angles between the tangent and the span of the kept eigenvectors, falling, 0 where
        there are fewer. ``shown/...``: pictures at the disc of most contrast among the J.
    """
    x, parameters = discs(
        rows, size=spec.size, radius=spec.radius, edge=spec.edge, seed=spec.seed, device=device
    )
    z = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed)).to(x)
    planes = [disc_tangent(p, spec.size, edge=spec.edge) for p in parameters.cpu().double()]
    contrast = (parameters[: spec.bases, 3] - parameters[: spec.bases, 4]).abs()
    chosen = int(contrast.argmax())
    levels = []
    for level, sigma in zip(spec.levels, spec.sigmas, strict=True):
        report("measuring", {"text": f"input PSNR {level:g} dB"})
        y = x + sigma * z
        found = _errors(denoiser, x, y, sigma, planes, spec)
        levels.append(found | _bases(denoiser, y, sigma, planes, spec, chosen))
    arrays = {name: np.stack([level[name] for level in levels]) for name in levels[0]}
    shown = {"shown/clean": x[chosen], "shown/tangent": planes[chosen].basis}
    return arrays | {name: _array(value) for name, value in shown.items()}


def _errors(
    denoiser: Denoiser, x: Tensor, y: Tensor, sigma: float, planes: list[LinearSubspace], spec: Spec
) -> Measured:
    """Squared error per pixel of each method on each disc."""
    with torch.no_grad():
        parts = y.split(spec.training.batch)
        found = {"network": torch.cat([check(denoiser, part, sigma) for part in parts])}
    found["tangent"] = torch.cat([f(one[None], sigma) for f, one in zip(planes, y, strict=True)])
    if spec.exact:
        found["exact"] = _optimum(spec)(y[: spec.exact].cpu().double(), sigma)
    return {
        f"mse/{name}": _array((f.cpu() - x[: len(f)].cpu()).double().square().flatten(1).mean(1))
        for name, f in found.items()
    }


def _bases(
    denoiser: Denoiser,
    y: Tensor,
    sigma: float,
    planes: list[LinearSubspace],
    spec: Spec,
    chosen: int,
) -> Measured:
    """Eigenbases of the denoiser's Jacobian and of the optimum's, on the first discs."""
    spectra: dict[str, list[Tensor]] = {"network": [], "exact": []}
    cosines, shown = [], {}
    for i, plane in enumerate(planes[: spec.bases]):
        here, tangent = y[i : i + 1], plane.basis.flatten(1)
        whole = decompose(linearise(denoiser, here, sigma))
        values, vectors = whole.values, whole.vectors
        spectra["network"].append(values)
        cosines.append(principal_cosines(vectors[values > spec.threshold], tangent))
        if i < spec.exact:
            optimal = _optimum(spec).jacobian(here.cpu().double(), sigma)[0]
            spectra["exact"].append(torch.linalg.eigvalsh(optimal).flip(0))
        if i == chosen:
            pairs = {
                "eigen": (values, vectors),
                "extra": extra_directions(whole.symmetric, tangent),
            }
            shown = {"noisy": here[0], "denoised": denoiser(here, sigma)[0]}
            for name, (shares, directions) in pairs.items():
                shown[f"{name}values"] = shares[:SHOWN]
                shown[f"{name}vectors"] = directions[:SHOWN].view(-1, *here.shape[1:])
    found = {"cosines": torch.stack(cosines)}
    for name, of in spectra.items():
        if of:
            stacked = torch.stack(of)
            found[f"eigenvalues/{name}"] = stacked[:, :LARGEST]
            found[f"kept/{name}"] = (stacked > spec.threshold).sum(1).double()
            found[f"near_one/{name}"] = (stacked > NEAR_ONE).sum(1).double()
    found |= {f"shown/{name}": value for name, value in shown.items()}
    return {name: _array(value) for name, value in found.items()}


def principal_cosines(a: Tensor, tangent: Tensor) -> Tensor:
    """Cosines of the principal angles between two spans (Björck & Golub 1973), falling, (5,).

    Both are given by orthonormal rows; angles that fewer rows leave undefined are right angles.
    """
    cosines = torch.linalg.svdvals(a.to(tangent) @ tangent.T)
    return torch.nn.functional.pad(cosines, (0, DIMENSION - len(cosines)))


def extra_directions(symmetric: Tensor, tangent: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenpairs of a symmetric matrix confined to the complement of the tangent, falling.

    What is kept of the noise beyond the tangent: the optimum, at small noise, has none.
    """
    along = symmetric @ tangent.T @ tangent
    confined = symmetric - along - along.T + tangent.T @ (tangent @ along)
    return symmetric_basis(confined)


def _optimum(spec: Spec) -> Disc:
    return Disc(spec.size, spec.radius, spec.edge)


def _array(values: Tensor) -> NDArray:
    return values.detach().cpu().numpy()
