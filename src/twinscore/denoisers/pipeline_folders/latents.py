"""Autoencoders of pipelines: images to latents, and back."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from twinscore.denoisers.pipeline_folders.reading import Config, loaded, read_json
from twinscore.errors import InputError

PARTS = ("vae", "vqvae")
CODERS = ("AutoencoderKL", "VQModel")

Map = Callable[[Tensor], Tensor]


def coder(path: Path, index: Config) -> tuple[nn.Module, Map, Map]:
    """The autoencoder of a pipeline in float32, and its :func:`maps`.

    Raises
    ------
    InputError
        If it is none of those known, or its weights cannot be used.
    """
    part = next(name for name in PARTS if name in index)
    config = read_json(path / part / "config.json")
    if config.get("_class_name") not in CODERS:
        raise InputError(
            f"{config.get('_class_name')} is not an autoencoder that is known; known are "
            f"{', '.join(CODERS)}"
        )
    network = loaded(path / part, config["_class_name"])
    return network, *maps(network)


def maps(network: Any) -> tuple[Map, Map]:
    """``encode`` and ``decode`` between images in [0, 1] and the latents that a network denoises.

    Latents are the mode of the encoder's distribution, less the shift, times the scaling factor;
    or standardised channel by channel, where the autoencoder says by what.
    """
    config = network.config
    scale, shift = torch.tensor(config.scaling_factor), torch.tensor(0.0)
    if config.get("latents_mean") is not None and config.get("latents_std") is not None:
        shift = torch.tensor(config.latents_mean).view(1, -1, 1, 1)
        scale = scale / torch.tensor(config.latents_std).view(1, -1, 1, 1)
    elif config.get("shift_factor") is not None:
        shift = torch.tensor(config.shift_factor)

    def encode(x: Tensor) -> Tensor:
        found = network.encode(2 * x - 1)
        mode = found.latent_dist.mode() if hasattr(found, "latent_dist") else found.latents
        return (mode - shift.to(x)) * scale.to(x)

    def decode(z: Tensor) -> Tensor:
        return (network.decode(z / scale.to(z) + shift.to(z)).sample + 1) / 2

    return encode, decode


def image_shape(network: Any, latents: tuple[int, ...]) -> tuple[int, int, int]:
    """(C, H, W) of the images that latents of a shape stand for."""
    fold = 2 ** (len(network.config.block_out_channels) - 1)
    return (network.config.out_channels, fold * latents[1], fold * latents[2])
