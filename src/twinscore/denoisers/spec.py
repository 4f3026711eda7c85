"""The network's spec, one model for each kind, and the network that it builds."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, RootModel, model_validator
from torch import Tensor, nn

from twinscore.denoisers.bf_cnn import BFCNN
from twinscore.denoisers.conditioned_unet import ConditionedUNet
from twinscore.denoisers.unet import UNet
from twinscore.execution import settled_torch

MOST_WIDTH = 4096
MOST_LEVELS = 10

_FIELDS = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class UNetSpec(BaseModel):
    """Sizes of a :class:`UNet`."""

    model_config = _FIELDS

    kind: Literal["unet"] = "unet"
    width: int = Field(default=64, ge=1, le=MOST_WIDTH)
    """channels of the first block"""
    levels: int = Field(default=3, ge=1, le=MOST_LEVELS)
    """number of poolings"""
    convolutions: int = Field(default=2, ge=2, le=32)
    """3x3 convolutions per block"""


class BFCNNSpec(BaseModel):
    """Sizes of a :class:`BFCNN`."""

    model_config = _FIELDS

    kind: Literal["bf_cnn"] = "bf_cnn"
    width: int = Field(default=64, ge=1, le=MOST_WIDTH)
    """channels of the inner layers"""
    layers: int = Field(default=21, ge=2, le=200)
    """number of convolutions"""


class ConditionedUNetSpec(BaseModel):
    """Sizes of a :class:`ConditionedUNet`."""

    model_config = _FIELDS

    kind: Literal["conditioned_unet"] = "conditioned_unet"
    width: int = Field(default=64, ge=1, le=MOST_WIDTH)
    """channels of the first block"""
    levels: int = Field(default=3, ge=1, le=MOST_LEVELS)
    """number of poolings"""
    blocks: int = Field(default=1, ge=1, le=32)
    """residual blocks per level, down and up"""


NETWORKS = {
    "unet": (UNetSpec, UNet),
    "bf_cnn": (BFCNNSpec, BFCNN),
    "conditioned_unet": (ConditionedUNetSpec, ConditionedUNet),
}


class NetworkSpec(RootModel):
    """Which network to train; the defaults are the published ones.

    Takes the fields of one kind, None for its default; a field of another kind is an error.
    """

    model_config = ConfigDict(frozen=True)

    root: UNetSpec | BFCNNSpec | ConditionedUNetSpec = Field(
        default=UNetSpec(), discriminator="kind"
    )

    @model_validator(mode="before")
    @classmethod
    def _of_kind(cls, given: Any) -> Any:
        """Model of the kind alone: error messages then name ``width``, not ``unet.width``."""
        if not isinstance(given, dict):
            return given
        given = {name: value for name, value in given.items() if value is not None}
        kind = given.get("kind", "unet")
        if kind not in [*NETWORKS]:
            raise ValueError(f"kind must be one of {', '.join(NETWORKS)}; got {kind!r}")
        own, _ = NETWORKS[kind]
        for other, _ in NETWORKS.values():
            foreign = [n for n in other.model_fields if n in given and n not in own.model_fields]
            if foreign:
                _, *known = own.model_fields
                raise ValueError(f"{kind} has no field {foreign[0]}; it has {', '.join(known)}")
        return own.model_validate(given)


@settled_torch()
def build(spec: NetworkSpec, channels: int, seed: int) -> nn.Module:
    """Network of ``spec`` for images of ``channels`` channels, weights drawn from ``seed``."""
    return _made(spec, channels, seed)


@settled_torch()
def outlined(spec: NetworkSpec, channels: int) -> nn.Module:
    """The same network on torch's *meta* device: names and shapes of its weights, no memory."""
    with torch.device("meta"):
        return _made(spec, channels, seed=0)


def _made(spec: NetworkSpec, channels: int, seed: int) -> nn.Module:
    _, network = NETWORKS[spec.root.kind]
    return network(channels=channels, seed=seed, **spec.root.model_dump(exclude={"kind"}))


def filled(network: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    """An outlined network with values, on the CPU; RuntimeError if names or shapes do not fit."""
    network.load_state_dict({name: value.to("meta") for name, value in state.items()})
    network.to_empty(device="cpu").load_state_dict(state)
    return network
