"""Gaps in mean squared error between a denoiser and a reference, level by level."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from twinscore.analysis.levels import (
    BATCH,
    Images,
    image_errors,
    interval_factor,
    standard_errors,
)
from twinscore.denoisers import Denoiser, check


@dataclass(frozen=True, eq=False)
class Estimates:
    """Numbers with their 95 % intervals over images (Student), each (K,)."""

    value: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Gaps:
    """How far a denoiser is from a reference at K noise levels.

    Attributes
    ----------
    sigmas : array
        (K,), image units.
    mse : Estimates
        ``E||f - x||^2 - E||f* - x||^2``. Negative where the reference is worse: it is then not the
        optimal denoiser of these images.
    decibels : Estimates
        The same as a loss in PSNR of the mean MSE, ``10 log10`` of the ratio of the two.
    distance : Estimates
        ``E||f - f*||^2``. If the reference is the posterior mean, it equals ``mse`` on average, and
        is the better estimate: in ``mse`` the rest of x, beyond f*, cancels only on average.
    """

    sigmas: NDArray[np.float64]
    mse: Estimates
    decibels: Estimates
    distance: Estimates


def gaps(
    denoiser: Denoiser,
    reference: Denoiser,
    images: Images,
    sigmas: Sequence[float],
    *,
    seed: int = 0,
    batch: int = BATCH,
) -> Gaps:
    """Gap between a denoiser and a reference, at given noise levels; never clipped.

    Parameters
    ----------
    denoiser, reference : Denoiser
        f and f*. Both see the same noisy images; sigma is passed.
    images : Images
        N clean images that f was not trained on.
    sigmas : sequence of float
        Noise levels, image units, (K,): as many evaluations of either denoiser on each image.
    seed : int
        Of the noise.
    batch : int
        Images denoised at once; bounds memory.

    Raises
    ------
    ValueError
        For fewer than two images, impossible levels, or a denoiser that breaks the contract.
    """

    def errors(x: Tensor, y: Tensor, sigma: float) -> Tensor:
        f, best = check(denoiser, y, sigma), check(reference, y, sigma)
        return torch.stack([squares(f - x), squares(best - x), squares(f - best)], 1)

    found = image_errors(errors, images, sigmas, seed=seed, batch=batch)
    own, best, apart = np.moveaxis(found, 2, 0)
    return Gaps(
        np.asarray(sigmas, dtype=np.float64),
        means(own - best),
        _decibels(own, best),
        means(apart),
    )


def squares(difference: Tensor) -> Tensor:
    """Squared norms of (B, C, H, W), (B,) float64."""
    return difference.double().square().flatten(1).sum(1)


def means(samples: NDArray[np.float64]) -> Estimates:
    """Means of (K, N) samples over images."""
    return _estimated(samples.mean(1), samples)


def _decibels(own: NDArray[np.float64], best: NDArray[np.float64]) -> Estimates:
    """Ratio of the mean errors (K, N) of the same images, dB; the interval by linearisation."""
    first, second = own.mean(1), best.mean(1)
    relative = own / first[:, None] - best / second[:, None]
    return _estimated(10 * np.log10(first / second), 10 / np.log(10) * relative)


def _estimated(value: NDArray[np.float64], samples: NDArray[np.float64]) -> Estimates:
    half = interval_factor(samples.shape[1]) * standard_errors(samples)
    return Estimates(value, value - half, value + half)
