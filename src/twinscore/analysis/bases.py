"""Eigenvectors of a denoiser next to the basis that is best for an image."""

import torch
from numpy.typing import NDArray
from torch import Tensor

from twinscore.analysis.jacobian import decompose, linearise
from twinscore.denoisers import Denoiser, denoise
from twinscore.denoisers.shrinkage import Bandlets, Cosines, Wavelets, largest_vectors


def compare_bases(
    denoiser: Denoiser, x: Tensor, noise: Tensor, sigma: float, count: int
) -> dict[str, NDArray]:
    """Eigenvectors of a denoiser at a noisy image and vectors of the image's best basis.

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
    whole = decompose(linearise(denoiser, y, sigma))
    eigenvectors = whole.vectors.to(y)
    adapted = {
        "best basis": Bandlets(geometry_cost=0).adapted(x, sigma),
        "wavelets": Wavelets(),
        "cosines": Cosines(block=8),
    }
    coefficients = {name: basis.forward(x).flatten() for name, basis in adapted.items()}
    coefficients["eigenvectors"] = eigenvectors @ x.flatten()
    with torch.no_grad():
        denoised = denoise(denoiser, y, sigma)
    arrays = {
        "clean": x[0],
        "noisy": y[0],
        "denoised": denoised[0],
        "eigenvalues": whole.values.float(),
        "asymmetry": whole.asymmetry.float(),
        "eigenvectors": eigenvectors[:count].view(count, *x.shape[1:]),
        "best_basis": largest_vectors(adapted["best basis"], x[0], count)[0],
    }
    arrays |= {f"residual/{name}": _residuals(c) for name, c in coefficients.items()}
    return {name: value.detach().cpu().numpy() for name, value in arrays.items()}


def _residuals(coefficients: Tensor) -> Tensor:
    """Energy that the k largest coefficients leave, k = 1 ... d."""
    energy = coefficients.cpu().double().square().sort(descending=True).values
    return (energy.sum() - energy.cumsum(0)).clamp_min(0)
