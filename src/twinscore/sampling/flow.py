"""Deterministic sampling: the probability flow ODE on a schedule of noise levels."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from twinscore.denoisers import Denoiser, check


def noise_levels(steps: int, sigma_max: float, sigma_min: float, rho: float = 7.0) -> list[float]:
    """Decreasing noise levels of Karras et al. 2022, eq. 5.

    Parameters
    ----------
    steps : int
        Number of levels, at least 1.
    sigma_max, sigma_min : float
        First and last level, image units.
    rho : float
        Curvature; large values put more levels at low noise.

    Returns
    -------
    list of float
        ``steps`` levels.

    Raises
    ------
    ValueError
        If not ``0 < sigma_min <= sigma_max < inf`` or ``steps < 1``.
    """
    if not 0 < sigma_min <= sigma_max < math.inf or steps < 1:
        raise ValueError(
            f"need 0 < sigma_min <= sigma_max and steps >= 1; got {sigma_min}, {sigma_max}, {steps}"
        )
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return [(high + i / max(steps - 1, 1) * (low - high)) ** rho for i in range(steps)]


@torch.no_grad()
def probability_flow(
    denoiser: Denoiser,
    noise: Tensor,
    *,
    mean: Tensor | float = 0.0,
    steps: int = 60,
    sigma_max: float = 1.0,
    sigma_min: float = 0.01,
    callback: Callable[[int, Tensor], None] | None = None,
) -> Tensor:
    """Follow ``dy/dsigma = (y - f(y, sigma)) / sigma`` down by Euler steps, then denoise.

    Karras et al. 2022, eq. 3 and algorithm 1 without its correction; Euler in sigma moves ``y``
    along the line to ``f(y)``. First order: the error halves when ``steps`` doubles.

    Parameters
    ----------
    denoiser : Denoiser
        Blind or not; sigma is always passed.
    noise : Tensor
        Standard normal noise, (B, C, H, W); the path starts at ``mean + sigma_max * noise``.
    mean : Tensor or float
        Mean of the data, broadcast against ``noise``.
    steps : int
        Evaluations of the denoiser, the last one at ``sigma_min`` being the returned estimate.
    sigma_max, sigma_min : float
        First and last noise level, image units.
    callback : callable, optional
        Called with (step, y) before each evaluation.

    Returns
    -------
    Tensor
        Samples, (B, C, H, W). Cost: ``steps`` evaluations.

    Raises
    ------
    ValueError
        For a denoiser that breaks the contract (NaN on the way shows at the last step), or an
        impossible schedule.
    """
    levels = noise_levels(steps, sigma_max, sigma_min)
    y = mean + sigma_max * noise
    x_hat = y
    for step, sigma in enumerate(levels):
        if callback:
            callback(step, y)
        x_hat = check(denoiser, y, sigma) if step in (0, steps - 1) else denoiser(y, sigma)
        if step + 1 < len(levels):
            y = torch.lerp(x_hat, y, levels[step + 1] / sigma)
    return x_hat
