"""The KL bound of [GAHB] eq. 5, of a denoiser against its reference or its twin."""

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from twinscore.analysis.levels import (
    BATCH,
    TOLERANCE,
    Images,
    LevelIntegral,
    image_errors,
    integrate_levels,
    standard_errors,
)
from twinscore.analysis.optimality.gap import squares
from twinscore.denoisers import Denoiser, check


@dataclass(frozen=True, eq=False)
class KLBound(LevelIntegral):
    """The integral of eq. 5 from sigma_min to sigma_max, and what its upper end costs.

    Attributes
    ----------
    start : float
        ``tr Cov / (2 sigma_max^2)``, nats: at most what it costs to start the reverse SDE from
        ``N(mean, sigma_max^2)``. Not in ``value``; 0 if it starts from the exact law.
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

    A bound only if ``reference`` is the posterior mean of the density of ``images``; equal to
    ``KL(p_min || q_min) - KL(p_max || q_max)`` if ``denoiser`` is that of some density q. It holds
    for the exact reverse SDE alone, not for the probability flow or finite steps
    (docs/formulas.md#kl-bound).

    Each image keeps its noise at all levels. Fresh noise should make the standard error somewhat
    smaller, but then two rules would differ by Monte Carlo error.

    Parameters
    ----------
    denoiser, reference : Denoiser
        f and f*; sigma is passed.
    images : Images
        N clean images of the reference's density that neither was trained on: a tensor, an
        ImageSet, or :class:`LazyImages`.
    sigma_min, sigma_max : float
        Ends, image units. The bound is for the density at ``sigma_min``: at 0 it is infinite
        unless the gap falls faster than ``sigma^2``.
    tolerance : float
        Relative, for the quadrature; it stops earlier at a tenth of the standard error.
    seed, batch : int
        As for :func:`~twinscore.analysis.optimality.gaps`.

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
        return squares(check(denoiser, y, sigma) - check(reference, y, sigma))

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
    is the posterior mean of its own density. A trained network is that only approximately.

    The ``start`` of the bound belongs to a B that starts from the Gaussian while A starts from its
    own law; where both start from the same law, it is 0. Other parameters and errors as for
    :func:`kl_bound`.
    """
    ends = {"sigma_min": sigma_min, "sigma_max": sigma_max}
    return kl_bound(b, a, samples, **ends, tolerance=tolerance, seed=seed, batch=batch)


def _deviations(images: Images, batch: int) -> NDArray[np.float64]:
    """Squared distance of each image from the mean, (N,), whose average is ``tr Cov``, unbiased."""
    chunks = [slice(start, start + batch) for start in range(0, len(images), batch)]
    mean = sum(images[rows].double().sum(0) for rows in chunks) / len(images)
    deviations = torch.cat([squares(images[rows].double() - mean) for rows in chunks])
    return deviations.cpu().numpy() * len(images) / (len(images) - 1)
