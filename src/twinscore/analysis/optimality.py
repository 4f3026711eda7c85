r"""How close a denoiser comes to the best one: gaps in mean squared error, and the KL bound.

[GAHB] eq. 5, with the two ends that make it a number (STUDIES section 1):

.. math:: KL(p_{min} \| p_{\theta,min}) \le
    \int_{\sigma_{min}}^{\sigma_{max}} E\|f - f^*\|^2\, \sigma^{-3} d\sigma
    + \frac{\mathrm{tr}\,\mathrm{Cov}\,x}{2 \sigma_{max}^2}.

p_min is the density of ``x + sigma_min z``, ``f*`` its posterior mean, and p_theta what the *exact
reverse SDE* of f makes of ``N(mean, sigma_max^2)``. The probability flow of the same f may lie far
beyond. Squared errors are summed over pixels here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from twinscore.analysis.levels import (
    BATCH,
    Drawn,
    Images,
    LevelIntegral,
    image_errors,
    integrate_levels,
    interval_factor,
    standard_errors,
)
from twinscore.denoisers import Denoiser, check

__all__ = [
    "Drawn",
    "Estimates",
    "Gaps",
    "KLBound",
    "LevelIntegral",
    "TwinErrors",
    "gaps",
    "kl_bound",
    "kl_bound_between_twins",
    "twin_errors",
    "variance_integral",
]

TOLERANCE = 1e-3


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
        ``E||f - x||^2 - E||f* - x||^2``. Negative where the reference is the worse of the two: it
        is then not the optimal denoiser of these images.
    decibels : Estimates
        The same as a loss in PSNR of the mean MSE, ``10 log10`` of the ratio of the two.
    distance : Estimates
        ``E||f - f*||^2``. If the reference is the posterior mean, it equals ``mse`` on average, and
        is the better estimate: what x has beyond f* cancels in ``mse`` only on average.
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
    """Gap between a denoiser and a reference, at given noise levels.

    Parameters
    ----------
    denoiser, reference : Denoiser
        f and f*. Both see the same noisy images; sigma is passed.
    images : Images
        N clean images that f was not trained on.
    sigmas : sequence of float
        Noise levels, image units, (K,).
    seed : int
        Of the noise.
    batch : int
        Images denoised at once; bounds memory.

    Returns
    -------
    Gaps
        Never clipped. Cost: K evaluations of either denoiser on each image.

    Raises
    ------
    ValueError
        For fewer than two images, impossible levels, or a denoiser that breaks the contract.
    """

    def errors(x: Tensor, y: Tensor, sigma: float) -> Tensor:
        f, best = check(denoiser, y, sigma), check(reference, y, sigma)
        return torch.stack([_square(f - x), _square(best - x), _square(f - best)], 1)

    found = image_errors(errors, images, sigmas, seed=seed, batch=batch)
    own, best, apart = np.moveaxis(found, 2, 0)
    return Gaps(
        np.asarray(sigmas, dtype=np.float64),
        _means(own - best),
        _decibels(own, best),
        _means(apart),
    )


@dataclass(frozen=True, eq=False)
class KLBound(LevelIntegral):
    """The integral of eq. 5 from sigma_min to sigma_max, and what its upper end costs.

    Attributes
    ----------
    start : float
        ``tr Cov / (2 sigma_max^2)``, nats: at most what it costs to start the reverse SDE from
        ``N(mean, sigma_max^2)``. Not in ``value``; nothing if it starts from the exact law.
    start_error : float
        Its standard error.
    """

    start: float
    start_error: float

    @property
    def total(self) -> float:
        """``value + start``: the bound for a reverse SDE that starts from the Gaussian."""
        return self.value + self.start


def kl_bound(
    denoiser: Denoiser,
    reference: Denoiser,
    images: Images,
    *,
    sigma_min: float,
    sigma_max: float,
    tolerance: float = TOLERANCE,
    seed: int = 0,
    batch: int = BATCH,
) -> KLBound:
    """Bound on the divergence of what a denoiser generates from what it should, [GAHB] eq. 5.

    A bound only if ``reference`` is the posterior mean of the density of ``images``. An equality
    with ``KL(p_min || q_min) - KL(p_max || q_max)`` if ``denoiser`` is that of some density q. It
    holds for the exact reverse SDE alone, not for the probability flow, nor for finite steps.

    Each image keeps its noise at all levels. Fresh noise should make the standard error somewhat
    smaller, but then no two rules could be told apart below the Monte Carlo error.

    Parameters
    ----------
    denoiser, reference : Denoiser
        f and f*; sigma is passed.
    images : Images
        N clean images of the reference's density that neither was trained on: a tensor, an
        ImageSet, or :class:`Drawn`.
    sigma_min, sigma_max : float
        Ends, image units. The statement is about the density at ``sigma_min``: there is none at 0
        unless the gap falls faster than ``sigma^2``.
    tolerance : float
        Relative, for the quadrature; it stops earlier at a tenth of the standard error.
    seed : int
        Of the noise.
    batch : int
        Images denoised at once; bounds memory.

    Returns
    -------
    KLBound
        Cost: 17 to 129 evaluations of either denoiser on each image.

    Raises
    ------
    ValueError
        For fewer than two images, impossible ends, or a denoiser that breaks the contract.
    """

    def apart(x: Tensor, y: Tensor, sigma: float) -> Tensor:
        return _square(check(denoiser, y, sigma) - check(reference, y, sigma))

    measure = partial(image_errors, apart, images, seed=seed, batch=batch)
    found = integrate_levels(measure, sigma_min, sigma_max, tolerance=tolerance)
    spread = _deviations(images, batch) / (2 * sigma_max**2)
    start, start_error = spread.mean().item(), standard_errors(spread).item()
    return KLBound(**vars(found), start=start, start_error=start_error)


def kl_bound_between_twins(
    a: Denoiser,
    b: Denoiser,
    samples: Images,
    *,
    sigma_min: float,
    sigma_max: float,
    tolerance: float = TOLERANCE,
    seed: int = 0,
    batch: int = BATCH,
) -> KLBound:
    """Bound on ``KL(p_A || p_B)``, the densities that two denoisers generate.

    Eq. 5 with twin A for reference. The expectation is over A's own density, so y is made of
    *samples of A*, ``y = x_A + sigma z``: noisy photographs would bound nothing. The bound is not
    symmetric; ``KL(p_B || p_A)`` needs samples of B. The assumption, which nothing here can check:
    at every level the law of A's reverse SDE is that of its samples with noise added, as it is if A
    is the posterior mean of its own density. A trained network is so only nearly.

    Parameters
    ----------
    a, b : Denoiser
        The twins.
    samples : Images
        N samples drawn with ``a``.
    sigma_min, sigma_max, tolerance, seed, batch
        As for :func:`kl_bound`.

    Returns
    -------
    KLBound
        Its ``start`` belongs to a B that starts from the Gaussian while A starts from its own
        law; where both start from the same law, there is no such cost.

    Raises
    ------
    ValueError
        As for :func:`kl_bound`.
    """
    ends = {"sigma_min": sigma_min, "sigma_max": sigma_max}
    return kl_bound(b, a, samples, **ends, tolerance=tolerance, seed=seed, batch=batch)


@dataclass(frozen=True, eq=False)
class TwinErrors:
    """What K twins tell about their errors at each level, squared errors summed over pixels.

    Attributes
    ----------
    sigmas : array
        Noise levels, image units.
    variance : Estimates
        Of one twin about the mean over all twins that could have been trained.
    common : Estimates
        ``bias^2 + MSE*``, the error of that mean; the two parts cannot be told apart.
    """

    sigmas: NDArray[np.float64]
    variance: Estimates
    common: Estimates


def twin_errors(
    twins: Sequence[Denoiser],
    images: Images,
    sigmas: Sequence[float],
    *,
    seed: int = 0,
    batch: int = BATCH,
) -> TwinErrors:
    """Split the error of K twins, where the optimal denoiser is unknown.

    For twins that are independent and alike in law (data, initial weights, order), with mean f over
    all that could have been trained,

    - ``E||f_k - x||^2 = Var + bias^2 + MSE*``, where ``bias^2 = E||mean f - f*||^2``;
    - ``Var`` is the unbiased variance across twins, for two of them ``1/2 E||f_A - f_B||^2``;
    - the error of the twins' average is ``Var/K + bias^2 + MSE*``.

    So ``Var`` and the sum ``bias^2 + MSE*`` are identifiable, unbiased for every K of 2 or more.
    ``bias^2`` alone is not: twins that miss the optimum together agree. It lies between 0 and the
    sum.

    Parameters
    ----------
    twins : sequence of Denoiser
        K, at least 2; sigma is passed.
    images : Images
        N clean images that no twin was trained on.
    sigmas : sequence of float
        Noise levels, image units.
    seed : int
        Of the noise.
    batch : int
        Images denoised at once; memory is for K times as many.

    Returns
    -------
    TwinErrors
        The intervals are over images, for these twins; another K twins would differ by more.

    Raises
    ------
    ValueError
        For fewer than two twins or images, impossible levels, or a denoiser that breaks the
        contract.
    """

    def errors(x: Tensor, y: Tensor, sigma: float) -> Tensor:
        estimates = _estimates(twins, y, sigma)
        variance = _variance(estimates)
        return torch.stack([variance, _square(estimates.mean(0) - x) - variance / len(twins)], 1)

    found = image_errors(errors, images, sigmas, seed=seed, batch=batch)
    variance, common = (_means(part) for part in np.moveaxis(found, 2, 0))
    return TwinErrors(np.asarray(sigmas, dtype=np.float64), variance, common)


def variance_integral(
    twins: Sequence[Denoiser],
    images: Images,
    *,
    sigma_min: float,
    sigma_max: float,
    tolerance: float = TOLERANCE,
    seed: int = 0,
    batch: int = BATCH,
) -> LevelIntegral:
    """Share of the twins' variance in the bound of eq. 5, where the reference is unknown.

    ``int Var sigma^-3 dsigma``. On average over twins the bound of one of them is this plus
    ``int bias^2 sigma^-3 dsigma``: so this is how large the bound is *at least* on average. It
    bounds no divergence from above: twins that err together agree.

    Parameters
    ----------
    twins, images
        As for :func:`twin_errors`.
    sigma_min, sigma_max, tolerance, seed, batch
        As for :func:`kl_bound`.

    Returns
    -------
    LevelIntegral
        Its ``gaps`` are the variance. Cost: 17 to 129 evaluations of each twin on each image.

    Raises
    ------
    ValueError
        As for :func:`twin_errors` and :func:`kl_bound`.
    """

    def variance(x: Tensor, y: Tensor, sigma: float) -> Tensor:
        return _variance(_estimates(twins, y, sigma))

    measure = partial(image_errors, variance, images, seed=seed, batch=batch)
    return integrate_levels(measure, sigma_min, sigma_max, tolerance=tolerance)


def _estimates(twins: Sequence[Denoiser], y: Tensor, sigma: float) -> Tensor:
    """Clean estimates of all twins, (K, B, C, H, W)."""
    if len(twins) < 2:
        raise ValueError(f"a variance across twins needs at least 2 of them, got {len(twins)}")
    return torch.stack([check(twin, y, sigma) for twin in twins])


def _variance(estimates: Tensor) -> Tensor:
    """Unbiased variance across (K, B, C, H, W) estimates, summed over pixels, (B,)."""
    return estimates.double().var(0).flatten(1).sum(1)


def _square(difference: Tensor) -> Tensor:
    return difference.double().square().flatten(1).sum(1)


def _means(samples: NDArray[np.float64]) -> Estimates:
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


def _deviations(images: Images, batch: int) -> NDArray[np.float64]:
    """Squared distance of each image from the mean, (N,), whose average is ``tr Cov``, unbiased."""
    chunks = [slice(start, start + batch) for start in range(0, len(images), batch)]
    mean = sum(images[rows].double().sum(0) for rows in chunks) / len(images)
    squares = torch.cat([_square(images[rows].double() - mean) for rows in chunks])
    return squares.cpu().numpy() * len(images) / (len(images) - 1)
