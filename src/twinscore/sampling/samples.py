"""Samples of a trained denoiser as a spec asks for them: which sampler, which steps, in batches."""

from functools import partial

import numpy as np
import torch

from twinscore.denoisers import Checkpoint
from twinscore.execution import settled_torch
from twinscore.sampling.flow import probability_flow
from twinscore.sampling.noise import noise
from twinscore.sampling.paths import Sampler
from twinscore.sampling.reverse_diffusion import reverse_diffusion
from twinscore.sampling.solvers import Callback, dpm, euler, heun
from twinscore.sampling.spec import SamplingSpec
from twinscore.sampling.stochastic import ancestral, langevin_corrected

SOLVERS = {"dpm": dpm, "heun": heun, "euler": euler}

BATCH, PIXELS = 128, 2**20
"""Most images, and most pixels, denoised at a time. The default network takes 1.8 kB a pixel."""


def batch_for(shape: tuple[int, int, int]) -> int:
    """Images of ``shape`` (C, H, W) to draw at a time, so that memory stays below 2 GB or so.

    A function of the shape alone: samples depend on the batch in their last bits.
    """
    return max(1, min(BATCH, PIXELS // (shape[1] * shape[2])))


def draw(
    checkpoint: Checkpoint,
    seeds: np.ndarray,
    spec: SamplingSpec,
    *,
    batch: int,
    device: torch.device | str = "cpu",
) -> tuple[np.ndarray, int]:
    """Draw one sample per seed, ``batch`` at a time; see :func:`draw_batch`.

    Returns
    -------
    samples : array
        (S, C, H, W) float32, not clipped.
    unfinished : int
        How many paths were lost.
    """
    size = min(batch, len(seeds))
    parts = [
        draw_batch(checkpoint, seeds[start : start + size], spec, size=size, device=device)
        for start in range(0, len(seeds), size)
    ]
    return np.concatenate([x for x, _ in parts]), sum(unfinished for _, unfinished in parts)


@settled_torch()
def draw_batch(
    checkpoint: Checkpoint,
    seeds: np.ndarray,
    spec: SamplingSpec,
    *,
    size: int,
    device: torch.device | str = "cpu",
    callback: Callback | None = None,
) -> tuple[np.ndarray, int]:
    """Draw one sample per seed, in a batch of ``size``.

    Fewer seeds are filled up with the first of them, so that a seed gives the same bits in any
    batch of that size.

    Parameters
    ----------
    checkpoint : Checkpoint
        The denoiser, and the shape (all of it, see :func:`~twinscore.denoisers.checkpoint.sized`)
        and mean of its images.
    seeds : array
        (S,) int64, S at most ``size``.
    spec : SamplingSpec
        Which sampler.
    size : int
        Images in the batch.
    device : torch.device or str
        Where the denoiser runs.
    callback : callable, optional
        The sampler's; called with (step, sigma, y) before each step.

    Returns
    -------
    samples : array
        (S, C, H, W) float32, not clipped; a lost one is black, which is similar to nothing.
    unfinished : int
        How many paths were lost: did not converge, ran away or became NaN.
    """
    filled = [*seeds.tolist(), *seeds[:1].tolist() * (size - len(seeds))]
    space, settled = checkpoint.within(device), settled_for(checkpoint, spec)
    if settled.method == "own":
        x = checkpoint.sampler.draw(filled, checkpoint.shape, settled.steps, device)
    else:
        z, own = noise(filled, space.shape).to(device), {"seeds": filled, "callback": callback}
        start = (0.0,) if checkpoint.latents else checkpoint.mean
        mean = torch.tensor(start, device=device).view(-1, 1, 1)
        with torch.no_grad():
            x = space.decode(_sampler(settled)(space.denoiser, z, mean=mean, **own))
    x = x[: len(seeds)]
    lost = x.isnan().flatten(1).any(1)
    return x.nan_to_num().cpu().numpy(), int(lost.sum())


def settled_for(checkpoint: Checkpoint, spec: SamplingSpec) -> SamplingSpec:
    """How a model's samples are drawn, every default in its place; InputError as there."""
    return spec.settled(checkpoint.sampler.steps if checkpoint.sampler else None)


def _sampler(spec: SamplingSpec) -> Sampler:
    """The sampler that a resolved spec names, with its options."""
    schedule = {"steps": spec.steps, "rho": spec.rho}
    own = {"h0": spec.h0, "beta": spec.beta, "max_steps": spec.max_steps, "padded": True}
    sampler, options = {
        "flow": (probability_flow, schedule | {"solver": SOLVERS[spec.solver]}),
        "ancestral": (ancestral, schedule),
        "langevin": (langevin_corrected, schedule),
        "stochastic": (reverse_diffusion, own),
    }[spec.method]
    return partial(sampler, sigma_max=spec.sigma_max, sigma_min=spec.sigma_min, **options)
