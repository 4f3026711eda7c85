"""What samplers share: one signature, where their paths start, and that lost ones end as NaN."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from twinscore.denoisers import Denoiser, check, denoise
from twinscore.sampling.solvers import Callback

Mean = Tensor | float | Sequence[float]
"""Of the data: broadcast against images, or one number for each channel, as a Checkpoint has it."""


class Sampler(Protocol):
    """A function that draws an image from each noise image; options of its own have defaults."""

    def __call__(
        self,
        denoiser: Denoiser,
        noise: Tensor,
        *,
        seeds: Sequence[int],
        mean: Mean = 0.0,
        callback: Callback | None = None,
        sigma_max: float = 1.0,
        sigma_min: float = 0.01,
    ) -> Tensor:
        """Draw samples.

        Parameters
        ----------
        denoiser : Denoiser
            Blind or not; sigma is always passed.
        noise : Tensor
            Standard normal noise, (B, C, H, W); paths start at ``mean + sigma_max * noise``.
        seeds : sequence of int
            Seed of each image, (B,): noise added at step t is a function of (seed, t) only.
        mean : Tensor, float or sequence of float
            Mean of the data, broadcast against ``noise``, or one number for each channel.
        callback : callable, optional
            Called with (step, noise level, y) before each step.
        sigma_max, sigma_min : float
            Noise levels at which to start and to end, image units.

        Returns
        -------
        Tensor
            Samples, (B, C, H, W). One whose path became infinite or NaN, or did not converge, is
            all NaN; the others are as they would be without it.

        Raises
        ------
        ValueError
            For a denoiser that breaks the contract at the start, parameters out of range, or not
            one seed per image.
        """
        ...


def spread_out(mean: Mean, like: Tensor) -> Tensor | float:
    """A mean that can be added to images; numbers of channels become (C, 1, 1)."""
    if isinstance(mean, Tensor | int | float):
        return mean
    return torch.tensor(mean).to(like).view(-1, 1, 1)


def started(
    denoiser: Denoiser,
    noise: Tensor,
    seeds: Sequence[int] | None,
    mean: Mean,
    sigma: float,
) -> Tensor:
    """Where paths start, (B, C, H, W); refuses what a :class:`Sampler` refuses there."""
    if seeds is not None and len(seeds) != len(noise):
        raise ValueError(f"need one seed per image; got {len(seeds)} for {len(noise)} images")
    y = spread_out(mean, noise) + sigma * noise
    check(denoiser, y[:1], sigma)
    return y


def ended(denoiser: Denoiser, y: Tensor, sigma: float | Tensor) -> Tensor:
    """Last estimate of each path, (B, C, H, W); all NaN where it or ``y`` is not finite."""
    x_hat = denoise(denoiser, y, sigma)
    kept = (torch.isfinite(y) & torch.isfinite(x_hat)).flatten(1).all(1)
    return x_hat.masked_fill(~kept.view(-1, 1, 1, 1), torch.nan)
