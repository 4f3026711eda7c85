"""Stochastic sampling on a schedule of noise levels: ancestral steps, Langevin corrections."""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from twinscore.denoisers import Denoiser, denoise
from twinscore.sampling.noise import noise as step_noise
from twinscore.sampling.paths import Mean, ended, started
from twinscore.sampling.solvers import Callback, noise_levels


@torch.no_grad()
def ancestral(
    denoiser: Denoiser,
    noise: Tensor,
    *,
    seeds: Sequence[int],
    mean: Mean = 0.0,
    callback: Callback | None = None,
    sigma_max: float = 1.0,
    sigma_min: float = 0.01,
    steps: int = 60,
    rho: float = 7.0,
    eta: float = 1.0,
) -> Tensor:
    """Step towards the estimate, below the next noise level, and add noise up to it.

    From sigma to sigma': ``up^2 = eta^2 sigma'^2 (sigma^2 - sigma'^2) / sigma^2``,
    ``down^2 = sigma'^2 - up^2``, ``y <- f + (down / sigma) (y - f) + up z``. With ``eta`` 1 the
    step is exact for a point mass (Song et al. 2021, DDPM's posterior); with 0 it is the Euler
    step of the probability flow.

    Parameters
    ----------
    denoiser, noise, seeds, mean, callback, sigma_max, sigma_min
        As for every :class:`Sampler`.
    steps, rho
        As for :func:`probability_flow`.
    eta : float
        In [0, 1]: share of noise that is renewed.

    Returns
    -------
    Tensor
        Samples, (B, C, H, W), the last estimate at ``sigma_min``, all NaN where a path was lost.
        Cost: ``steps`` evaluations.

    Raises
    ------
    ValueError
        As for every :class:`Sampler`.
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"need 0 <= eta <= 1; got {eta}")
    levels = noise_levels(steps, sigma_max, sigma_min, rho)
    y = started(denoiser, noise, seeds, mean, levels[0])
    for t, (sigma, after) in enumerate(pairwise(levels)):
        if callback:
            callback(t, sigma, y)
        up = eta * after * math.sqrt(max(0.0, 1 - (after / sigma) ** 2))
        down = math.sqrt(after**2 - up**2)
        y = torch.lerp(denoise(denoiser, y, sigma), y, down / sigma)
        y = y + up * _renewed(seeds, y, t + 1)
    return ended(denoiser, y, levels[-1])


@torch.no_grad()
def langevin_corrected(
    denoiser: Denoiser,
    noise: Tensor,
    *,
    seeds: Sequence[int],
    mean: Mean = 0.0,
    callback: Callback | None = None,
    sigma_max: float = 1.0,
    sigma_min: float = 0.01,
    steps: int = 30,
    rho: float = 7.0,
    corrections: int = 1,
    size: float = 0.1,
) -> Tensor:
    """Euler steps of the probability flow, each followed by Langevin steps at the level reached.

    Song et al. 2021, algorithm 4 (predictor-corrector). A correction at level sigma is
    ``y <- y + size (f - y) + sqrt(2 size) sigma z``: a Langevin step of ``size sigma^2``, whose
    law is the density at that level up to an error of order ``size``.

    Parameters
    ----------
    denoiser, noise, seeds, mean, callback, sigma_max, sigma_min, steps, rho
        As for :func:`ancestral`.
    corrections : int
        Langevin steps at each level, 0 or more.
    size : float
        Their size, in units of ``sigma^2``, in (0, 1].

    Returns
    -------
    Tensor
        Samples, (B, C, H, W), the last estimate at ``sigma_min``, all NaN where a path was lost.
        Cost: ``(steps - 1) (1 + corrections) + 1`` evaluations.

    Raises
    ------
    ValueError
        As for every :class:`Sampler`.
    """
    if not (0 < size <= 1 and corrections >= 0):
        raise ValueError(f"need 0 < size <= 1 and corrections >= 0; got {size}, {corrections}")
    levels = noise_levels(steps, sigma_max, sigma_min, rho)
    y = started(denoiser, noise, seeds, mean, levels[0])
    draws = 0
    for t, (sigma, after) in enumerate(pairwise(levels)):
        if callback:
            callback(t, sigma, y)
        y = torch.lerp(denoise(denoiser, y, sigma), y, after / sigma)
        for _ in range(corrections):
            draws += 1
            kick = math.sqrt(2 * size) * after * _renewed(seeds, y, draws)
            y = torch.lerp(y, denoise(denoiser, y, after), size) + kick
    return ended(denoiser, y, levels[-1])


def _renewed(seeds: Sequence[int], y: Tensor, step: int) -> Tensor:
    return step_noise(seeds, tuple(y.shape[1:]), step).to(y)
