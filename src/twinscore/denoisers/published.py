"""The main study's published checkpoints: state dicts of its UNet and BF-CNN, mapped onto ours.

A published ``model.pt`` holds tensors only; what network they belong to is read off their names and
shapes. Nothing else of the published folder is opened (its ``exp_arguments.pkl`` could run code).
"""

import re
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional as F

from twinscore.denoisers import tensor_files
from twinscore.denoisers.bf_cnn import BFCNN
from twinscore.denoisers.checkpoint import Checkpoint
from twinscore.denoisers.spec import NetworkSpec, filled, outlined
from twinscore.denoisers.unet import UNet
from twinscore.errors import InputError

State = dict[str, Tensor]

WEIGHTS = "model.pt"
UNKNOWN_MEAN = 0.5
"""Mean intensity assumed of the data, which the checkpoint does not hold."""

_NAMES = {"weight": "weight", "gammas": "gain", "running_sd": "running_sd"}


def read(path: Path, *, first_relu: bool = False) -> Checkpoint:
    """Read a published checkpoint: ``model.pt``, or the folder it lies in.

    With ``first_relu`` a ReLU follows the first convolution of a BF-CNN: the published code has
    both forms, the tensors are the same. Only the channels of the images are known, and
    ``UNKNOWN_MEAN`` stands for their mean. Average pooling is taken to be over 2x2 pixels.
    InputError if there is no such file, or it is not a state dict of these networks.
    """
    file = path / WEIGHTS if path.is_dir() else path
    try:
        network = network_of(_tensors(file), first_relu=first_relu)
    except InputError as error:
        raise InputError(f"{file}: {error}") from None
    channels = network.last.weight.shape[0]
    return Checkpoint(network, (channels, None, None), (UNKNOWN_MEAN,) * channels)


def network_of(state: State, *, first_relu: bool = False) -> UNet | BFCNN:
    """Network of a published state dict, in evaluation mode.

    Parameters
    ----------
    state : dict of str to Tensor
        Its keys may have the prefix ``module.`` of a data-parallel network.
    first_relu : bool
        See :func:`read`.

    Raises
    ------
    InputError
        If the tensors are not those of a UNet or BF-CNN that this package has.
    """
    state = {key.removeprefix("module."): value for key, value in state.items()}
    try:
        if "encoder.0.0.weight" in state:
            sizes, renamed = _unet(state)
        elif "conv_layers.0.weight" in state:
            sizes, renamed = _bf_cnn(state)
        else:
            raise InputError("holds neither encoder.* nor conv_layers.*: not a published network")
        if len(renamed) != len(state):
            more = len(state) - len(renamed)
            raise InputError(
                f"holds {more} tensors more than a published UNet or BF-CNN of its size"
            )
        channels = renamed["first.weight"].shape[1]
        network = filled(outlined(NetworkSpec(**sizes), channels), renamed)
    except ValidationError as error:
        first = error.errors()[0]
        sizes = f"{'.'.join(map(str, first['loc']))}: {first['msg']}, got {first['input']}"
        raise InputError(f"is not a UNet or BF-CNN of this package: {sizes}") from None
    except (KeyError, IndexError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"is not a complete UNet or BF-CNN: {error}") from None
    except RuntimeError as error:
        reason = shorten(str(error), 300, placeholder=" ...")
        raise InputError(f"is not a UNet or BF-CNN of this package: {reason}") from None
    if first_relu:
        if not isinstance(network, BFCNN):
            raise InputError("first=relu is for BF-CNN; this is a UNet, which always has that ReLU")
        network.first = nn.Sequential(network.first, nn.ReLU())
    return network.to(memory_format=torch.channels_last).eval()


def _tensors(file: Path) -> State:
    if not file.is_file():
        raise InputError(f"not found; give a published {WEIGHTS} or the folder it lies in")
    state = tensor_files.read(file)
    if not isinstance(state, dict) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()
    ):
        raise InputError("not a state dict: a dict of tensors, each under the name of its layer")
    if sum(value.nbytes for value in state.values()) > file.stat().st_size:
        raise InputError("several of its tensors are the same numbers, which a network's are not")
    return state


def _unet(state: State) -> tuple[dict[str, Any], State]:
    """Sizes of the UNet, and its tensors by our names."""
    levels = len({key.split(".")[1] for key in state if key.startswith("encoder.")})
    width, _ = state["encoder.0.0.weight"].shape[:2]
    blocks = {f"encoder.{b}": f"encoder.{b}" for b in range(levels)}
    blocks |= {"mid_block": "middle"} | {f"decoder.{b}": f"decoder.{b}" for b in range(levels)}
    counts = {name: _convolutions(state, name) for name in blocks}
    count = counts["mid_block"]
    if set(counts.values()) != {count}:
        raise InputError(
            f"its blocks have {', '.join(map(str, sorted(set(counts.values()))))} convolutions; "
            "the UNet of this package has the same number in each"
        )
    renamed = {f"up.{b}.weight": state[f"upsample.{b}.weight"] for b in range(levels)}
    for theirs, ours in blocks.items():
        layers = _layers(state, theirs)
        if theirs == "encoder.0":
            renamed |= _renamed(layers.pop(0), "first")
        if theirs == "decoder.0":
            renamed |= _renamed(layers.pop(), "last")
        renamed |= _numbered(layers, ours)
    return {"width": width, "levels": levels, "convolutions": count}, renamed


def _layers(state: State, block: str) -> list[State]:
    """Convolutions and normalisations of a published block, in order; its ReLUs hold nothing."""
    found: dict[int, State] = {}
    for key, value in state.items():
        match = re.fullmatch(rf"{re.escape(block)}\.(\d+)\.(\w+)", key)
        if match:
            found.setdefault(int(match[1]), {})[match[2]] = value
    return [found[i] for i in sorted(found)]


def _convolutions(state: State, block: str) -> int:
    return sum("weight" in layer for layer in _layers(state, block))


def _renamed(layer: State, ours: str) -> State:
    """Our names of a layer's tensors; a foreign one stays as it is, for the network to refuse."""
    return {f"{ours}.{_NAMES.get(name, name)}": value for name, value in layer.items()}


def _numbered(layers: list[State], ours: str) -> State:
    return {
        k: v for i, layer in enumerate(layers) for k, v in _renamed(layer, f"{ours}.{i}").items()
    }


def _bf_cnn(state: State) -> tuple[dict[str, Any], State]:
    """Sizes of the BF-CNN, and its tensors by our names."""
    convolutions, norms = _layers(state, "conv_layers"), _layers(state, "BN_layers")
    width, _ = convolutions[0]["weight"].shape[:2]
    first, *inner, last = convolutions
    if len(norms) != len(inner):
        raise InputError(
            f"has {len(norms)} normalisations for {len(inner)} inner convolutions, not one each"
        )
    middle = [layer for pair in zip(map(_widened, inner), norms, strict=True) for layer in pair]
    renamed = _renamed(first, "first") | _numbered(middle, "inner") | _renamed(last, "last")
    return {"kind": "bf_cnn", "width": width, "layers": len(convolutions)}, renamed


def _widened(convolution: State) -> State:
    """A 1x1 convolution as the same 3x3 one (1x1 is used where the receptive field is smaller)."""
    if convolution["weight"].shape[2:] != (1, 1):
        return convolution
    return convolution | {"weight": F.pad(convolution["weight"], (1, 1, 1, 1))}
