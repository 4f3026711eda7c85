"""Reverse diffusion of Kadkhodaie & Simoncelli, by batches: docs/formulas.md#reverse-diffusion."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from twinscore.denoisers import Denoiser, check, denoise
from twinscore.sampling.noise import noise as step_noise
from twinscore.sampling.solvers import Callback

RUNAWAY_SIGMA = 2.0
"""Noise level above which a path has run away (times ``sigma_max``, if that is over 1)."""


@dataclass(frozen=True)
class Diffused:
    """What reverse diffusion returns.

    Attributes
    ----------
    samples : Tensor
        Denoised end of each path, (B, C, H, W).
    converged : Tensor
        (B,) bool: reached ``sigma_min``. The others ran away or ran out of steps.
    steps : Tensor
        (B,) int64: steps taken.
    sigma : Tensor
        (B,): noise level estimated at the last step, image units.
    """

    samples: Tensor
    converged: Tensor
    steps: Tensor
    sigma: Tensor


@torch.no_grad()
def reverse_diffusion(
    denoiser: Denoiser,
    noise: Tensor,
    *,
    seeds: Sequence[int],
    mean: Tensor | float = 0.0,
    sigma_max: float = 1.0,
    sigma_min: float = 0.01,
    h0: float = 0.01,
    beta: float = 0.01,
    max_steps: int = 2000,
    padded: bool = False,
    callback: Callback | None = None,
) -> Diffused:
    """Climb the score with coarse-to-fine steps and injected noise.

    Kadkhodaie & Simoncelli 2021, algorithm 1. At step t, ``d = f(y) - y``,
    ``sigma_t = ||d|| / sqrt(d_pixels)``, ``h_t = h0 t / (1 + h0 (t - 1))`` and
    ``y <- y + h_t d + gamma_t z`` with ``gamma_t^2 = ((1 - beta h_t)^2 - (1 - h_t)^2) sigma_t^2``,
    until ``sigma_t <= sigma_min``. Every image has its own noise level, stopping and noise; those
    that are finished leave the batch. Non-blind denoisers are given the tracked level
    ``sigma <- (1 - beta h) sigma``.

    Parameters
    ----------
    denoiser : Denoiser
        Any denoiser.
    noise : Tensor
        Standard normal noise, (B, C, H, W); paths start at ``mean + sigma_max * noise``.
    seeds : sequence of int
        Seed of each image, (B,): noise at step t is a function of (seed, t) only.
    mean : Tensor or float
        Mean of the data, broadcast against ``noise``.
    sigma_max, sigma_min : float
        Noise levels at which to start and stop, image units.
    h0 : float
        First step, in (0, 1].
    beta : float
        In (0, 1]: 1 adds no noise (probability flow), 1/2 is the reverse SDE, less adds Langevin.
    max_steps : int
        Images still above ``sigma_min`` then are returned as not converged.
    padded : bool
        Finished images stay in the batch, evaluated but not used, so that a seed gives the same
        bits in any batch of this size. Otherwise they leave, and batches of another size may
        round differently (within 1e-4, except where a path passes between two images).
    callback : callable, optional
        Called with (step, tracked level, y of the batch) before each step.

    Returns
    -------
    Diffused
        Samples and which of them converged. An image above sigma 2 (or ``2 sigma_max``, if that
        is more) or at NaN has run away and is stopped.

    Raises
    ------
    ValueError
        For parameters out of range, another number of seeds than images, or a denoiser that
        breaks the contract.
    """
    if not (0 < h0 <= 1 and 0 < beta <= 1 and 0 < sigma_min < sigma_max and max_steps >= 1):
        raise ValueError(
            "need 0 < h0 <= 1, 0 < beta <= 1, 0 < sigma_min < sigma_max, max_steps >= 1; got "
            f"{h0}, {beta}, {sigma_min}, {sigma_max}, {max_steps}"
        )
    if len(seeds) != len(noise):
        raise ValueError(f"need one seed per image; got {len(seeds)} for {len(noise)} images")
    y = mean + sigma_max * noise
    check(denoiser, y[:1], sigma_max)
    final, level = y.clone(), y.new_full((len(y),), sigma_max)
    passed = level.clone()
    steps = torch.zeros(len(y), dtype=torch.int64)
    running = torch.arange(len(y))
    going = torch.ones(len(y), dtype=torch.bool)
    tracked = sigma_max
    runaway = RUNAWAY_SIGMA * max(1.0, sigma_max)
    for t in range(1, max_steps + 1):
        if callback:
            callback(t - 1, tracked, y)
        d = denoise(denoiser, y, tracked) - y
        sigma = d.square().flatten(1).mean(1).sqrt()
        h = h0 * t / (1 + h0 * (t - 1))
        gamma = ((1 - beta * h) ** 2 - (1 - h) ** 2) ** 0.5
        z = step_noise([seeds[i] for i in running.tolist()], tuple(y.shape[1:]), t).to(y)
        y = y + h * d + gamma * sigma.view(-1, 1, 1, 1) * z
        tracked *= 1 - beta * h
        now = going.nonzero().squeeze(1)
        final[running[now]], level[running[now]], steps[running[now]] = y[now], sigma[now], t
        passed[running[now]] = tracked
        going &= ((sigma > sigma_min) & (sigma <= runaway)).cpu()
        if not going.any():
            break
        if not padded:
            running, y, going = running[going], y[going.to(y.device)], going[going]
    samples = denoise(denoiser, final, passed)
    return Diffused(samples, (level <= sigma_min).cpu(), steps, level)
