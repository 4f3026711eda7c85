"""What a whole pipeline has besides a denoiser: a sampler of its own, and a space of latents."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from twinscore.denoisers.base import Denoiser
from twinscore.denoisers.closed_form.level import Level
from twinscore.errors import InputError


@dataclass(frozen=True)
class OwnSampler:
    """How a pipeline draws samples itself, with whatever it does to them.

    Attributes
    ----------
    draw : callable
        ``draw(seeds, shape, steps, device)``: one image for each seed, (B, C, H, W) in [0, 1], of
        the shape (C, H, W). The networks are on that device.
    steps : int
        As many as the pipeline takes by itself.
    about : mapping
        What else its samples depend on: scheduler, guidance.
    """

    draw: Callable[[Sequence[int], tuple[int, int, int], int, torch.device | str], Tensor]
    steps: int
    about: Mapping[str, Any]


@dataclass(frozen=True)
class Latents:
    """Where a model denoises: the latents of a pipeline that codes its images, or its images.

    Attributes
    ----------
    denoiser : Denoiser
        Of latents, in their own units; its noise level too.
    shape : tuple of (int or None)
        (C, H, W) of the latents.
    encode : callable
        Images (B, C, H, W) in [0, 1] to latents, the mode of their distribution.
    decode : callable
        Latents to images, not clipped.
    """

    denoiser: Denoiser
    shape: tuple[int | None, int | None, int | None]
    encode: Callable[[Tensor], Tensor]
    decode: Callable[[Tensor], Tensor]


class NotInPixels(nn.Module):
    """The networks of a pipeline that has no denoiser of images; called, it says why.

    Parameters
    ----------
    why : str
        Of what it is a denoiser instead.
    networks : nn.Module
        All whose state counts.
    """

    def __init__(self, why: str, *networks: nn.Module) -> None:
        super().__init__()
        self.why, self.parts = why, nn.ModuleList(networks)

    def forward(self, y: Tensor, sigma: Level = None) -> Tensor:
        """Raise InputError."""
        raise InputError(self.why)
