"""Solvers of the probability flow ``dy/dsigma = (y - f(y, sigma)) / sigma`` along noise levels.

All are ``solver(denoiser, y, levels, callback) -> y`` at the last level, whether the levels fall
(sampling) or rise (encoding). ``f`` held constant moves ``y`` along the line to it:
``y' = f + (sigma'/sigma) (y - f)``.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor

from twinscore.denoisers import Denoiser, denoise

Callback = Callable[[int, float, Tensor], None]
"""Called with (step, noise level, y) before each step."""


class Solver(Protocol):
    """One of the functions below."""

    def __call__(
        self,
        denoiser: Denoiser,
        y: Tensor,
        levels: Sequence[float],
        callback: Callback | None = None,
    ) -> Tensor:
        """``y`` at the last of ``levels``."""
        ...


def noise_levels(
    steps: int, sigma_max: float, sigma_min: float, rho: float = 7.0
) -> tuple[float, ...]:
    """Decreasing noise levels, evenly spaced in ``sigma^(1/rho)``.

    Karras et al. 2022, eq. 5 (``rho`` 7); other powers; ``math.inf`` is the limit, evenly spaced
    in ``log sigma``.

    Parameters
    ----------
    steps : int
        Number of levels, at least 1.
    sigma_max, sigma_min : float
        First and last level, image units.
    rho : float
        Curvature, positive; large values put more levels at low noise.

    Returns
    -------
    tuple of float
        ``steps`` levels.

    Raises
    ------
    ValueError
        If not ``0 < sigma_min <= sigma_max < inf``, ``steps < 1`` or ``rho <= 0``.

    Examples
    --------
    >>> from twinscore.sampling import noise_levels
    >>> [round(sigma, 3) for sigma in noise_levels(4, 1.0, 0.01)]
    [1.0, 0.293, 0.066, 0.01]
    """
    if not (0 < sigma_min <= sigma_max < math.inf and steps >= 1 and rho > 0):
        raise ValueError(
            "need 0 < sigma_min <= sigma_max, steps >= 1 and rho > 0; "
            f"got {sigma_min}, {sigma_max}, {steps}, {rho}"
        )
    parts = [i / max(steps - 1, 1) for i in range(steps)]
    if rho == math.inf:
        return tuple(sigma_max ** (1 - part) * sigma_min**part for part in parts)
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return tuple((high + part * (low - high)) ** rho for part in parts)


def euler(
    denoiser: Denoiser, y: Tensor, levels: Sequence[float], callback: Callback | None = None
) -> Tensor:
    """First order; one evaluation per step. Karras et al. 2022, algorithm 1 without correction."""
    for step, (sigma, after) in enumerate(pairwise(levels)):
        _tell(callback, step, sigma, y)
        y = torch.lerp(denoise(denoiser, y, sigma), y, after / sigma)
    return y


def heun(
    denoiser: Denoiser, y: Tensor, levels: Sequence[float], callback: Callback | None = None
) -> Tensor:
    """Second order; two evaluations per step. Karras et al. 2022, algorithm 1."""
    for step, (sigma, after) in enumerate(pairwise(levels)):
        _tell(callback, step, sigma, y)
        slope = (y - denoise(denoiser, y, sigma)) / sigma
        ahead = y + (after - sigma) * slope
        slope_ahead = (ahead - denoise(denoiser, ahead, after)) / after
        y = y + (after - sigma) / 2 * (slope + slope_ahead)
    return y


def dpm(
    denoiser: Denoiser, y: Tensor, levels: Sequence[float], callback: Callback | None = None
) -> Tensor:
    """Second order; one evaluation per step, extrapolating from the one before.

    DPM-Solver++(2M), Lu et al. 2022, algorithm 2, for ``alpha = 1``: linear extrapolation of ``f``
    in ``log sigma``. The first step is an Euler step.
    """
    before: tuple[Tensor, float] | None = None
    for step, (sigma, after) in enumerate(pairwise(levels)):
        _tell(callback, step, sigma, y)
        x_hat, width = denoise(denoiser, y, sigma), math.log(sigma / after)
        middle = x_hat
        if before is not None:
            middle = x_hat + (x_hat - before[0]) * (width / (2 * before[1]))
        y = torch.lerp(middle, y, after / sigma)
        before = x_hat, width
    return y


def _tell(callback: Callback | None, step: int, sigma: float, y: Tensor) -> None:
    if callback:
        callback(step, sigma, y)
