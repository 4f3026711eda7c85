"""Samples of a trained denoiser as a spec asks for them: which sampler, which steps, in batches."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Literal, Self

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from twinscore import sampling
from twinscore.denoisers import Checkpoint, Denoiser, check
from twinscore.errors import InputError, one_line

Callback = sampling.Callback

QUALITIES: dict[str, dict[str, Any]] = {
    "draft": {"method": "flow", "solver": "dpm", "steps": 10},
    "standard": {"method": "flow", "solver": "dpm", "steps": 20},
    "exact": {"method": "flow", "solver": "dpm", "steps": 100},
}
"""What each quality means; chosen by measurement (docs/sampling.md)."""

SOLVERS = {"dpm": sampling.dpm, "heun": sampling.heun, "euler": sampling.euler}


class SamplingSpec(BaseModel):
    """How samples are drawn from a denoiser."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    quality: Literal["draft", "standard", "exact"] = "standard"
    """Stands for a method, solver and steps; each of them, where given, goes before."""
    method: Literal["flow", "ancestral", "langevin", "stochastic"] | None = None
    """Deterministic probability flow; ancestral sampling; the flow with Langevin corrections; or
    the stochastic reverse diffusion of the main study."""
    solver: Literal["dpm", "heun", "euler"] | None = None
    """flow: second order, one evaluation a step; second order, two; first order, one."""
    steps: int | None = Field(default=None, ge=1)
    """Noise levels (but not of the stochastic method, which chooses its own steps)."""
    rho: float = Field(default=7.0, gt=0)
    """Noise levels are evenly spaced in sigma^(1/rho)."""
    sigma_max: float = Field(default=2.0, gt=0)
    """Noise level at which sampling starts, image units. A bias-free network may start above the
    levels it was trained on; one that is not should start at the largest of them."""
    sigma_min: float = Field(default=0.01, gt=0)
    """Noise level at which sampling ends, image units."""
    h0: float = Field(default=0.01, gt=0, le=1)
    """stochastic: first step size."""
    beta: float = Field(default=0.1, gt=0, le=1)
    """stochastic: 1 adds no noise, less adds more."""
    max_steps: int = Field(default=2000, ge=1)
    """stochastic: steps after which a path counts as not converged."""

    @model_validator(mode="after")
    def _levels(self) -> Self:
        if self.sigma_min >= self.sigma_max:
            raise ValueError(
                f"sigma_min {self.sigma_min:g} is not below sigma_max {self.sigma_max:g}"
            )
        return self

    @property
    def resolved(self) -> "SamplingSpec":
        """The same with method, solver and steps in place of the quality."""
        preset = QUALITIES[self.quality]
        return self.model_copy(
            update={name: getattr(self, name) or value for name, value in preset.items()}
        )


def evaluations(spec: SamplingSpec) -> float:
    """Evaluations of the denoiser that a sample takes.

    Of the stochastic method as many as bring a noise level, which a step multiplies by
    ``1 - beta h``, from the first to the last; a path that does not converge takes more.
    """
    spec = spec.resolved
    if spec.method == "stochastic":
        sigma, step = spec.sigma_max, 1
        while sigma > spec.sigma_min and step < spec.max_steps:
            sigma *= 1 - spec.beta * spec.h0 * step / (1 + spec.h0 * (step - 1))
            step += 1
        return step + 1.0
    twice = spec.method == "langevin" or (spec.method == "flow" and spec.solver == "heun")
    return 2.0 * spec.steps - 1 if twice else float(spec.steps)


def model_digest(checkpoint: Checkpoint) -> str:
    """Sha256 (hex) of a model's weights and of what else it computes from, wherever they lie."""
    found = hashlib.sha256(checkpoint.content.encode())
    if isinstance(checkpoint.denoiser, nn.Module):
        for name, value in checkpoint.denoiser.state_dict().items():
            found.update(f"{name} {tuple(value.shape)} {value.dtype} ".encode())
            found.update(value.cpu().flatten().view(torch.uint8).numpy())
    return found.hexdigest()


@torch.no_grad()
def sized(checkpoint: Checkpoint, side: int | None) -> Checkpoint:
    """The same model for images of ``side`` x ``side``; None keeps the size that it knows.

    Raises
    ------
    InputError
        If the model does not know its images' channels, or their size and none is given; or if it
        cannot denoise images of that size.
    """
    channels, height, width = checkpoint.shape
    if channels is None:
        raise InputError(
            "--model: does not say how many channels its images have; give a function that returns "
            "Checkpoint(denoiser, shape, mean) (docs/models.md)"
        )
    if side is None and (height is None or width is None):
        raise InputError("--size: not given, and the model does not say how large its images are")
    if side is None or (height, width) == (side, side):
        return checkpoint
    try:
        check(checkpoint.denoiser, torch.zeros(1, channels, side, side), 1.0)
    except (ValueError, RuntimeError) as error:
        raise InputError(f"--size: {side} does not suit the model: {one_line(error)}") from None
    return replace(checkpoint, shape=(channels, side, side))


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
        How many paths did not converge or became NaN.
    """
    size = min(batch, len(seeds))
    parts = [
        draw_batch(checkpoint, seeds[start : start + size], spec, size=size, device=device)
        for start in range(0, len(seeds), size)
    ]
    return np.concatenate([x for x, _ in parts]), sum(unfinished for _, unfinished in parts)


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
        The denoiser, and the shape (all of it, see :func:`sized`) and mean of its images.
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
        (S, C, H, W) float32, not clipped; one at NaN is black, which is similar to nothing.
    unfinished : int
        How many paths did not converge or became NaN.
    """
    filled = [*seeds.tolist(), *seeds[:1].tolist() * (size - len(seeds))]
    z = sampling.noise(filled, checkpoint.shape).to(device)
    mean = torch.tensor(checkpoint.mean, device=device).view(-1, 1, 1)
    sampler = _sampler(spec.resolved, callback)
    x, converged = sampler(checkpoint.on(device), z, seeds=filled, mean=mean)
    x, converged = x[: len(seeds)], converged[: len(seeds)]
    good = converged & torch.isfinite(x).flatten(1).all(1).cpu()
    x = torch.nan_to_num(x, posinf=0.0, neginf=0.0)
    return x.cpu().numpy(), int((~good).sum())


Sampler = Callable[..., tuple[Tensor, Tensor]]


def _sampler(spec: SamplingSpec, callback: Callback | None) -> Sampler:
    """``sampler(denoiser, z, seeds=, mean=) -> (samples, which converged)``."""
    levels = {"sigma_max": spec.sigma_max, "sigma_min": spec.sigma_min, "callback": callback}
    if spec.method == "stochastic":
        return partial(_stochastic, h0=spec.h0, beta=spec.beta, max_steps=spec.max_steps, **levels)
    levels |= {"steps": spec.steps, "rho": spec.rho}
    if spec.method == "ancestral":
        return partial(_scheduled, sampling.ancestral, **levels)
    if spec.method == "langevin":
        return partial(_scheduled, sampling.langevin_corrected, **levels)
    return partial(_flow, solver=SOLVERS[spec.solver], **levels)


def _stochastic(denoiser: Denoiser, z: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
    out = sampling.reverse_diffusion(denoiser, z, padded=True, **options)
    return out.samples, out.converged


def _scheduled(
    sampler: Callable[..., Tensor], denoiser: Denoiser, z: Tensor, **options: Any
) -> tuple[Tensor, Tensor]:
    return sampler(denoiser, z, **options), torch.ones(len(z), dtype=torch.bool)


def _flow(denoiser: Denoiser, z: Tensor, *, seeds: list[int], **options: Any) -> Any:
    return _scheduled(sampling.probability_flow, denoiser, z, **options)
