"""Deterministic sampling by the probability flow, and its reverse: encoding images as noise."""

from collections.abc import Sequence

import torch
from torch import Tensor

from twinscore.denoisers import Denoiser, check
from twinscore.sampling.paths import Mean, ended, spread_out, started
from twinscore.sampling.solvers import Callback, Solver, dpm, heun, noise_levels


@torch.no_grad()
def probability_flow(
    denoiser: Denoiser,
    noise: Tensor,
    *,
    seeds: Sequence[int] | None = None,
    mean: Mean = 0.0,
    callback: Callback | None = None,
    sigma_max: float = 1.0,
    sigma_min: float = 0.01,
    steps: int = 30,
    rho: float = 7.0,
    solver: Solver = dpm,
) -> Tensor:
    """Follow ``dy/dsigma = (y - f(y, sigma)) / sigma`` down the noise levels, then denoise.

    Karras et al. 2022, eq. 3.

    Parameters
    ----------
    denoiser, noise, mean, callback, sigma_max, sigma_min
        As for every :class:`Sampler`; the callback is also called before the last estimate.
    seeds : sequence of int, optional
        Not used: the flow adds no noise. Accepted so that all samplers are called the same way.
    steps : int
        Noise levels, ``steps - 1`` solver steps and one last estimate at ``sigma_min``.
    rho : float
        Schedule, see :func:`noise_levels`.
    solver : Solver
        ``euler``, ``heun`` or ``dpm``.

    Returns
    -------
    Tensor
        Samples, (B, C, H, W), all NaN where a path was lost. Cost: ``steps`` evaluations of the
        denoiser (``heun``: ``2 steps - 1``).

    Raises
    ------
    ValueError
        As for every :class:`Sampler`.

    Examples
    --------
    >>> import torch
    >>> from twinscore.denoisers import load
    >>> from twinscore.sampling import noise, probability_flow
    >>> start = noise([0, 1], (1, 8, 8))
    >>> probability_flow(load("empirical:digits"), start, mean=0.3, steps=10).shape
    torch.Size([2, 1, 8, 8])
    """
    levels = noise_levels(steps, sigma_max, sigma_min, rho)
    y = solver(denoiser, started(denoiser, noise, seeds, mean, sigma_max), levels, callback)
    if callback:
        callback(steps - 1, levels[-1], y)
    return ended(denoiser, y, levels[-1])


@torch.no_grad()
def encode(
    denoiser: Denoiser,
    images: Tensor,
    *,
    mean: Mean = 0.0,
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
        (B, C, H, W), assumed to be points of the density at ``sigma_min``.
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
    return (solver(denoiser, images, rising) - spread_out(mean, images)) / sigma_max


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
        (B, C, H, W), assumed to be points of the density at the last level.
    levels : sequence of float
        Falling noise levels, see :func:`noise_levels`.
    solver : Solver
        Used both ways.
    """
    up = solver(denoiser, images, levels[::-1])
    back = solver(denoiser, up, levels)
    return (back - images).square().flatten(1).mean(1).sqrt()
