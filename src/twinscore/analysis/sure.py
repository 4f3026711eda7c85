"""Stein's unbiased risk estimate: the error of a denoiser without the clean image."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from twinscore.analysis.jacobian import linearise, traces
from twinscore.analysis.jacobian.products import doubled
from twinscore.analysis.statistics import interval, resampled
from twinscore.denoisers import Denoiser, denoise

_BATCH, _PIXELS = 64, 2**15
"""Images, and their pixels, that are denoised and differentiated at once."""


def sure(
    denoiser: Denoiser, y: Tensor, sigma: float, *, probes: int | None = None, seed: int = 0
) -> Tensor:
    """Unbiased estimate of ``|f(y) - x|^2`` for each noisy image, from that image alone.

    ``2 sigma^2 tr J(y) + |y - f(y)|^2 - sigma^2 d``; Stein 1981, [GAHB] eq. 7. Too low for a
    denoiser that jumps, such as a hard threshold (docs/formulas.md#sure). Of images (B, C, H, W),
    whose noise has the standard deviation sigma, image units: (B,) float64, summed over pixels.

    ``probes`` random signs per image, drawn from ``seed``, estimate the trace (Hutchinson); by
    default it is exact. Cost: ``probes`` (or d) forward products per image. ValueError for a noise
    level that is not positive, or a denoiser that breaks the contract or is not differentiable by
    autograd.

    Examples
    --------
    >>> import torch
    >>> import twinscore as ts
    >>> keep = lambda y, sigma: y
    >>> ts.sure(keep, torch.rand(1, 1, 8, 8), 0.5).item()  # keeps all noise: sigma^2 d
    16.0
    """
    around = linearise(denoiser, y, sigma)
    residual = doubled(y - around.value).square().flatten(1).sum(1)
    spread = traces(around, probes=probes, seed=seed)
    return 2 * sigma**2 * spread + residual - sigma**2 * around.d


@dataclass(frozen=True)
class Mean:
    """An average over images with its 95 % bootstrap interval and standard error."""

    value: float
    low: float
    high: float
    standard_error: float


@dataclass(frozen=True)
class Risk:
    """SURE and the true error on the same noisy images, summed over pixels.

    Attributes
    ----------
    sure, mse : Mean
        Averages of the estimate and of ``|f(y) - x|^2``.
    difference : Mean
        Of the pairs, SURE minus error; 0 is expected.
    """

    sure: Mean
    mse: Mean
    difference: Mean


def risk(
    denoiser: Denoiser,
    images: Tensor,
    sigma: float,
    *,
    probes: int | None = 1,
    batch: int | None = None,
    seed: int = 0,
) -> Risk:
    """Average SURE against the true error on clean images with fresh noise.

    Parameters
    ----------
    denoiser : Denoiser
        Differentiable by autograd.
    images : Tensor
        Clean images, (N, C, H, W), N >= 2.
    sigma : float
        Noise level, image units.
    probes : int, optional
        As in :func:`sure`; None for exact traces.
    batch : int, optional
        Images at once; bounds memory. By default 64, or fewer that hold 2^15 pixels.
    seed : int
        Seed of noise, signs and bootstrap.

    Raises
    ------
    ValueError
        As :func:`sure`, or for fewer than two images, or none at once.
    """
    if len(images) < 2:
        raise ValueError(f"an interval needs at least 2 images, got {len(images)}")
    if batch is None:
        batch = max(1, min(_BATCH, _PIXELS // images[0, 0].numel()))
    if batch < 1:
        raise ValueError(f"batch must be at least 1, got {batch}")
    generator = torch.Generator().manual_seed(seed)
    estimates, errors = [], []
    for x in images.split(batch):
        y = x + sigma * torch.randn(x.shape, generator=generator).to(x)
        of_signs = int(torch.randint(2**62, (), generator=generator))  # not those of the noise
        estimates.append(sure(denoiser, y, sigma, probes=probes, seed=of_signs))
        with torch.no_grad():
            errors.append(doubled(denoise(denoiser, y, sigma) - x).square().flatten(1).sum(1))
    found, true = torch.cat(estimates).cpu().numpy(), torch.cat(errors).cpu().numpy()
    return Risk(_mean(found, seed), _mean(true, seed), _mean(found - true, seed))


def _mean(values: np.ndarray, seed: int) -> Mean:
    low, high = interval(resampled(values[None], np.mean, seed=seed))
    error = values.std(ddof=1) / len(values) ** 0.5
    return Mean(float(values.mean()), low, high, float(error))
