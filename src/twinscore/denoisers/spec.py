"""The network's spec, one model for each kind, and the network that it builds."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, RootModel, model_validator
from torch import Tensor, nn

from twinscore import runs
from twinscore.denoisers.bf_cnn import BFCNN
from twinscore.denoisers.conditioned_unet import ConditionedUNet
from twinscore.denoisers.unet import UNet
from twinscore.denoisers.user_files import NetworkClass
from twinscore.errors import InputError
from twinscore.execution import settled_torch

MOST_WIDTH = 4096
MOST_LEVELS = 10

_TOLD = ("conditioned_unet",)
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


class OwnSpec(BaseModel):
    """A class of the user's own: what it is called with, :class:`NetworkClass` says.

    Its file is run, and its signature checked, when the spec is made.
    """

    model_config = _FIELDS

    kind: Literal["own"] = "own"
    source: str = ""
    """FILE.py:CLASS, made as CLASS(channels) and called with (y, sigma), or (y); on the command
    line, --network FILE.py:CLASS says the same"""
    source_digest: str | None = None
    """of the code of the class and of all that it refers to; where it is given, other code is
    refused"""

    @model_validator(mode="before")
    @classmethod
    def _known(cls, given: Any) -> Any:
        """Say which code it is."""
        if not (isinstance(given, dict) and isinstance(given.get("source"), str)):
            raise ValueError("own needs a source, FILE.py:CLASS; give --network FILE.py:CLASS")
        known, stated = NetworkClass(given["source"]), given.get("source_digest")
        if stated not in (None, known.digest):
            raise ValueError(
                f"{given['source']} was changed: its code has the digest {known.digest[:8]}..., "
                f"not {str(stated)[:8]}...; bring the old one back, or train anew"
            )
        return given | {"source_digest": known.digest}


NETWORKS = {
    "unet": (UNetSpec, UNet),
    "bf_cnn": (BFCNNSpec, BFCNN),
    "conditioned_unet": (ConditionedUNetSpec, ConditionedUNet),
}
_SPECS = {kind: spec for kind, (spec, _) in NETWORKS.items()} | {"own": OwnSpec}


class NetworkSpec(RootModel):
    """Which network to train; the defaults are the published ones.

    Takes the fields of one kind, None for its default; a field of another kind is an error. A text,
    ``FILE.py:CLASS``, is a class of the user's own.
    """

    model_config = ConfigDict(frozen=True)

    root: UNetSpec | BFCNNSpec | ConditionedUNetSpec | OwnSpec = Field(
        default=UNetSpec(), discriminator="kind"
    )

    @property
    def told(self) -> bool:
        """Whether it takes the noise level, and so knows only levels that it was trained on."""
        own = self.root
        return NetworkClass(own.source).told if own.kind == "own" else own.kind in _TOLD

    @property
    def placed(self) -> "NetworkSpec":
        """The same with the whole path of a file of the user's, to be found from any folder."""
        if self.root.kind != "own":
            return self
        whole = {"source": NetworkClass(self.root.source).source}
        return self.model_construct(self.root.model_copy(update=whole))

    @property
    def identity(self) -> dict[str, Any]:
        """What weights depend on: of a network of the user's own its code, not where it lies."""
        return runs.identity(self.model_dump())

    @model_validator(mode="before")
    @classmethod
    def _of_kind(cls, given: Any) -> Any:
        """Model of the kind alone: error messages then name ``width``, not ``unet.width``."""
        given = {"source": given} if isinstance(given, str) else given
        if not isinstance(given, dict):
            return given
        given = {name: value for name, value in given.items() if value is not None}
        kind = given.get("kind", "own" if "source" in given else "unet")
        if kind not in [*_SPECS]:
            raise ValueError(f"kind must be one of {', '.join(_SPECS)}; got {kind!r}")
        own = _SPECS[kind]
        for other in _SPECS.values():
            foreign = [n for n in other.model_fields if n in given and n not in own.model_fields]
            if foreign:
                _, *known = own.model_fields
                raise ValueError(f"{kind} has no field {foreign[0]}; it has {', '.join(known)}")
        return own.model_validate(given)


@settled_torch()
def build(spec: NetworkSpec, channels: int, seed: int) -> nn.Module:
    """Network of ``spec`` for images of ``channels`` channels, weights drawn from ``seed``.

    Examples
    --------
    >>> from twinscore.denoisers import NetworkSpec, build
    >>> network = build(NetworkSpec(), channels=1, seed=0)
    >>> sum(weights.numel() for weights in network.parameters())
    7659264
    """
    return _made(spec, channels, seed)


@settled_torch()
def outlined(spec: NetworkSpec, channels: int) -> nn.Module:
    """The same network on torch's *meta* device: names and shapes of its weights, no memory.

    A class of the user's own may need memory, and gets it then.
    """
    with suppress(InputError), torch.device("meta"):
        return _made(spec, channels, seed=0)
    return _made(spec, channels, seed=0)


def _made(spec: NetworkSpec, channels: int, seed: int) -> nn.Module:
    if spec.root.kind == "own":
        return _own(spec.root).made(channels, seed)
    _, network = NETWORKS[spec.root.kind]
    return network(channels=channels, seed=seed, **spec.root.model_dump(exclude={"kind"}))


def _own(spec: OwnSpec) -> NetworkClass:
    known = NetworkClass(spec.source)
    if known.digest != spec.source_digest:
        raise InputError(f"network: {spec.source} was changed while the run was going on")
    return known


def filled(network: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    """An outlined network with values, on the CPU; RuntimeError if names or shapes do not fit."""
    network.load_state_dict({name: value.to("meta") for name, value in state.items()})
    network.to_empty(device="cpu").load_state_dict(state)
    return network
