"""Reverse diffusion of Kadkhodaie & Simoncelli, by batches: docs/formulas.md#reverse-diffusion."""

from collections.abc import Sequence

import torch
from torch import Tensor

from twinscore.denoisers import Denoiser, denoise
from twinscore.sampling.noise import noise as step_noise
from twinscore.sampling.paths import Mean, ended, started
from twinscore.sampling.solvers import Callback

RUNAWAY_SIGMA = 2.0
"""Noise level above which a path has run away (times ``sigma_max``, if that is over 1)."""


@torch.no_grad()
def reverse_diffusion(
    denoiser: Denoiser,
    noise: Tensor,
    *,
    seeds: Sequence[int],
    mean: Mean = 0.0,
    callback: Callback | None = None,
    sigma_max: float = 1.0,
    sigma_min: float = 0.01,
    h0: float = 0.01,
    beta: float = 0.01,
    max_steps: int = 2000,
    padded: bool = False,
) -> Tensor:
    """Climb the score with coarse-to-fine steps and injected noise.

    Kadkhodaie & Simoncelli 2021, algorithm 1. At step t, ``d = f(y) - y``,
    ``sigma_t = ||d|| / sqrt(d_pixels)``, ``h_t = h0 t / (1 + h0 (t - 1))`` and
    ``y <- y + h_t d + gamma_t z`` with ``gamma_t^2 = ((1 - beta h_t)^2 - (1 - h_t)^2) sigma_t^2``,
    until ``sigma_t <= sigma_min``. Every image has its own noise level, stopping and noise; those
    that are finished leave the batch. Non-blind denoisers are given the tracked level
    ``sigma <- (1 - beta h) sigma``.

    Parameters
    ----------
    denoiser, noise, seeds, mean, callback, sigma_max, sigma_min
        As for every :class:`Sampler`; the callback is given the tracked level, and y of the images
        that are still in the batch.
    h0 : float
        First step, in (0, 1].
    beta : float
        In (0, 1]: 1 adds no noise (probability flow), 1/2 is the reverse SDE, less adds Langevin.
    max_steps : int
        Images still above ``sigma_min`` then have not converged.
    padded : bool
        Finished images stay in the batch, evaluated but not used, so that a seed gives the same
        bits in any batch of this size. Otherwise they leave, and batches of another size may
        round differently (within 1e-4, except where a path passes between two images).

    Returns
    -------
    Tensor
        Samples, (B, C, H, W), the last estimate of each path; all NaN where it did not converge,
        or was stopped: above sigma 2 (or ``2 sigma_max``, if that is more) or at NaN it ran away.

    Raises
    ------
    ValueError
        As for every :class:`Sampler`.
    """
    if not (0 < h0 <= 1 and 0 < beta <= 1 and 0 < sigma_min < sigma_max and max_steps >= 1):
        raise ValueError(
            "need 0 < h0 <= 1, 0 < beta <= 1, 0 < sigma_min < sigma_max, max_steps >= 1; got "
            f"{h0}, {beta}, {sigma_min}, {sigma_max}, {max_steps}"
        )
    y = started(denoiser, noise, seeds, mean, sigma_max)
    final, level = y.clone(), y.new_full((len(y),), sigma_max)
    passed = level.clone()
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
        final[running[now]], level[running[now]] = y[now], sigma[now]
        passed[running[now]] = tracked
        going &= ((sigma > sigma_min) & (sigma <= runaway)).cpu()
        if not going.any():
            break
        if not padded:
            running, y, going = running[going], y[going.to(y.device)], going[going]
    converged = (level <= sigma_min).view(-1, 1, 1, 1)
    return ended(denoiser, final, passed).masked_fill(~converged, torch.nan)
