"""What K twins tell about their errors where the optimal denoiser is unknown."""

from collections.abc import Sequence
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
)
from twinscore.analysis.optimality.gap import Estimates, means, squares
from twinscore.denoisers import Denoiser, check


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

    For twins that are independent and of one law (data, initial weights, order), with mean f over
    all that could have been trained (docs/formulas.md#variance-of-twins),

    - ``E||f_k - x||^2 = Var + bias^2 + MSE*``, where ``bias^2 = E||mean f - f*||^2``;
    - ``Var`` is the unbiased variance across twins, for two of them ``1/2 E||f_A - f_B||^2``;
    - the error of the twins' average is ``Var/K + bias^2 + MSE*``.

    So ``Var`` and the sum ``bias^2 + MSE*`` are identifiable, unbiased for every K of 2 or more.
    ``bias^2`` alone is not: twins that miss the optimum in the same way agree. It lies between 0
    and the sum. The intervals are over images, for these twins; K other twins may differ by more.

    Images, sigmas, seed and batch are as for :func:`~twinscore.analysis.optimality.gaps`; memory is
    for K batches. ValueError for fewer than two twins or images, impossible levels, or a denoiser
    that breaks the contract.
    """

    def errors(x: Tensor, y: Tensor, sigma: float) -> Tensor:
        estimates = _estimates(twins, y, sigma)
        variance = _variance(estimates)
        return torch.stack([variance, squares(estimates.mean(0) - x) - variance / len(twins)], 1)

    found = image_errors(errors, images, sigmas, seed=seed, batch=batch)
    variance, common = (means(part) for part in np.moveaxis(found, 2, 0))
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

    ``int Var sigma^-3 dsigma``. On average over twins the bound of one of them is this plus ``int
    bias^2 sigma^-3 dsigma``: so this is how large the bound is *at least* on average. It does not
    bound a divergence from above: twins that err in the same way agree.

    The ``gaps`` of the integral are the variance. Cost: 17 to 129 evaluations of each twin on each
    image. Parameters and errors as for :func:`twin_errors` and
    :func:`~twinscore.analysis.optimality.kl_bound`.
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
