"""Networks of diffusers that know classes, or nothing but the image: as conventions call them."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from twinscore.denoisers.pipeline_folders.asked import Asked
from twinscore.denoisers.pipeline_folders.reading import Config
from twinscore.errors import InputError

NETWORKS = ("UNet2DModel", "DiTTransformer2DModel")

Call = Callable[[Tensor, Tensor], Tensor]
"""Images and (B,) times to what the network returns."""

Shape = tuple[int, int | None, int | None]


def shape_of(network: Config) -> Shape:
    """(C, H, W) of what it denoises; InputError for another network, or other channels out."""
    kind = network.get("_class_name")
    if kind not in NETWORKS:
        raise InputError(f"{kind} is not a network that is known; known are {', '.join(NETWORKS)}")
    channels = network.get("in_channels", 3)
    returned = network.get("out_channels") or channels
    if returned not in (channels, 2 * channels):
        raise InputError(
            f"its network takes {channels} channels and returns {returned}; known are as many, or "
            "twice as many with a learned variance"
        )
    side = network.get("sample_size")
    height, width = side if isinstance(side, list | tuple) else (side, side)
    return channels, height, width


def classes(network: Config, asked: Asked) -> tuple[int | None, int | None]:
    """The class that is asked for, and the one that stands for none; None for what there is not.

    Raises
    ------
    InputError
        If a class is missing, too many, or none of the network's; or it cannot be guided.
    """
    if asked.prompt is not None:
        raise InputError("its network takes no prompt; leave out prompt=")
    count, null, kind = _known(network, asked)
    if count is None and kind is None:
        for name, value in (("class", asked.label), ("guidance", asked.guidance)):
            if value is not None:
                raise InputError(f"its network knows no classes; leave out {name}={value:g}")
        return None, None
    if asked.null is not None and asked.guidance is None:
        raise InputError(f"null={asked.null} goes with guidance=; leave it out, or add that")
    most = "a number" if count is None else f"0 to {count - 1}"
    own = kind == "dit"
    most += f" ({count} for none of them)" if own else ""
    if asked.label is None or (count is not None and asked.label >= count + own):
        given = "none is given" if asked.label is None else f"class={asked.label} is none of them"
        raise InputError(f"its network knows classes, and {given}; add ,class=K, {most}")
    if asked.guided and null is None:
        raise InputError(
            "guidance= needs a class that stands for none, and this network has none of its own; "
            f"if one was trained so, add ,null=K, {most}"
        )
    if null is not None and count is not None and null >= count + own:
        raise InputError(f"null={null} is none of its classes, {most}")
    return asked.label, null


def _known(network: Config, asked: Asked) -> tuple[int | None, int | None, str | None]:
    """How many classes, which one stands for none, and how they are given to the network."""
    if network["_class_name"] == "DiTTransformer2DModel":
        count = network.get("num_embeds_ada_norm", 1000)
        return count, count if asked.null is None else asked.null, "dit"
    kind = network.get("class_embed_type")
    if kind not in (None, "timestep"):
        raise InputError(f"classes as {kind!r} are not known; known are those with numbers")
    return network.get("num_class_embeds"), asked.null, kind


def of_class(network: nn.Module, number: int | None) -> Call:
    """The network, told a class where there are any."""

    def call(x: Tensor, t: Tensor) -> Tensor:
        labels = None if number is None else torch.full_like(t, number, dtype=torch.long)
        return network(x, t, class_labels=labels, return_dict=False)[0]

    return call


def guided(own: Call, plain: Call, weight: float | None, channels: int) -> Call:
    """Classifier-free guidance of Ho and Salimans 2022, ``plain + weight (own - plain)``.

    Weight 1, or None, is the network itself. A learned variance, after the first channels, stays
    that of ``own``.
    """
    if weight in (None, 1.0):
        return own

    def call(x: Tensor, t: Tensor) -> Tensor:
        with_it, without = own(x, t), plain(x, t)[:, :channels]
        mean = without + weight * (with_it[:, :channels] - without)
        return torch.cat([mean, with_it[:, channels:]], dim=1)

    return call


def mean_of(call: Call, channels: int) -> Call:
    """Without a learned variance."""
    return lambda x, t: call(x, t)[:, :channels]
