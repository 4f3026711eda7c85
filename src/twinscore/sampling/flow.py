"""Deterministic sampling by the probability flow, and its reverse: encoding images as noise."""

from collections.abc import Sequence

import torch
from torch import Tensor

from twinscore.denoisers import Denoiser, check, denoise
from twinscore.sampling.solvers import Callback, Solver, dpm, heun, noise_levels


@torch.no_grad()
def probability_flow(
    denoiser: Denoiser,
    noise: Tensor,
    *,
    mean: Tensor | float = 0.0,
    steps: int = 30,
    sigma_max: float = 1.0,
    sigma_min: float = 0.01,
    rho: float = 7.0,
    solver: Solver = dpm,
    callback: Callback | None = None,
) -> Tensor:
    """Follow ``dy/dsigma = (y - f(y, sigma)) / sigma`` down the noise levels, then denoise.

    Karras et al. 2022, eq. 3.

    Parameters
    ----------
    denoiser : Denoiser
        Blind or not; sigma is always passed.
    noise : Tensor
        Standard normal noise, (B, C, H, W); the path starts at ``mean + sigma_max * noise``.
    mean : Tensor or float
        Mean of the data, broadcast against ``noise``.
    steps : int
        Noise levels, ``steps - 1`` solver steps and one last estimate at ``sigma_min``.
    sigma_max, sigma_min : float
        First and last noise level, image units.
    rho : float
        Schedule, see :func:`noise_levels`.
    solver : Solver
        ``euler``, ``heun`` or ``dpm``.
    callback : callable, optional
        Called with (step, sigma, y) before each step and before the last estimate.

    Returns
    -------
    Tensor
        Samples, (B, C, H, W); one whose path became infinite or NaN is all NaN, and the others are
        as they would be without it. Cost: ``steps`` evaluations of the denoiser (``heun``:
        ``2 steps - 1``).

    Raises
    ------
    ValueError
        For a denoiser that breaks the contract at the start, or an impossible schedule.
    """
    levels = noise_levels(steps, sigma_max, sigma_min, rho)
    y = mean + sigma_max * noise
    check(denoiser, y[:1], sigma_max)
    y = solver(denoiser, y, levels, callback)
    if callback:
        callback(steps - 1, levels[-1], y)
    x_hat = denoise(denoiser, y, levels[-1])
    lost = ~torch.isfinite(x_hat).flatten(1).all(1)
    return x_hat.masked_fill(lost.view(-1, 1, 1, 1), torch.nan)


@torch.no_grad()
def encode(
    denoiser: Denoiser,
    images: Tensor,
    *,
    mean: Tensor | float = 0.0,
    steps: int = 30,
    sigma_max: float = 1.0,
    sigma_min: float = 0.01,
    rho: float = 7.0,
    solver: Solver = heun,
) -> Tensor:
    """Follow the probability flow up: the noise from which sampling leads to the images.

    Parameters
    ----------
    denoiser : Denoiser
        Blind or not; sigma is always passed.
    images : Tensor
        (B, C, H, W), taken for points of the density at ``sigma_min``.
    mean, steps, sigma_max, sigma_min, rho, solver
        As for :func:`probability_flow`.

    Returns
    -------
    Tensor
        ``(y - mean) / sigma_max`` at ``sigma_max``, (B, C, H, W): standard normal where the density
        is broader than the data's. Cost: as for sampling.

    Raises
    ------
    ValueError
        For a denoiser that breaks the contract, or an impossible schedule.
    """
    check(denoiser, images[:1], sigma_min)
    rising = noise_levels(steps, sigma_max, sigma_min, rho)[::-1]
    return (solver(denoiser, images, rising) - mean) / sigma_max


@torch.no_grad()
def round_trip_error(
    denoiser: Denoiser,
    images: Tensor,
    *,
    levels: Sequence[float],
    solver: Solver = heun,
) -> Tensor:
    """Root mean squared error per pixel of going up the noise levels and down again, (B,).

    Parameters
    ----------
    denoiser : Denoiser
        Any denoiser.
    images : Tensor
        (B, C, H, W), taken for points of the density at the last level.
    levels : sequence of float
        Falling noise levels, see :func:`noise_levels`.
    solver : Solver
        Used both ways.
    """
    up = solver(denoiser, images, levels[::-1])
    back = solver(denoiser, up, levels)
    return (back - images).square().flatten(1).mean(1).sqrt()
