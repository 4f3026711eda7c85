"""The network's spec, and the network it builds."""

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_serializer, model_validator
from torch import nn

from twinscore.denoisers.bf_cnn import BFCNN
from twinscore.denoisers.unet import UNet

DEFAULTS = {
    "unet": {"width": 64, "levels": 3, "convolutions": 2},
    "bf_cnn": {"width": 64, "layers": 21},
}
NETWORKS = {"unet": UNet, "bf_cnn": BFCNN}


class NetworkSpec(BaseModel):
    """Which network to train; the defaults are the published ones.

    Fields that a kind does not have stay empty; giving one is an error.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["unet", "bf_cnn"] = "unet"
    """Architecture."""
    width: int | None = Field(default=None, ge=1)
    """Channels of the first block (default 64)."""
    levels: int | None = Field(default=None, ge=1)
    """unet: number of poolings (default 3)."""
    convolutions: int | None = Field(default=None, ge=2)
    """unet: 3x3 convolutions per block (default 2)."""
    layers: int | None = Field(default=None, ge=2)
    """bf_cnn: number of convolutions (default 21)."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        known = DEFAULTS[self.kind]
        for name in ("width", "levels", "convolutions", "layers"):
            if getattr(self, name) is not None and name not in known:
                raise ValueError(f"{self.kind} has no field {name}; it has {', '.join(known)}")
        return self

    @property
    def sizes(self) -> dict[str, int]:
        """The fields that this kind has, defaults filled in."""
        given = {name: getattr(self, name) for name in DEFAULTS[self.kind]}
        return DEFAULTS[self.kind] | {k: v for k, v in given.items() if v is not None}

    @model_serializer
    def _dump(self) -> dict[str, Any]:
        return {"kind": self.kind} | self.sizes


def build(spec: NetworkSpec, channels: int, seed: int) -> nn.Module:
    """Network of ``spec`` for images of ``channels`` channels, weights drawn from ``seed``."""
    return NETWORKS[spec.kind](channels=channels, seed=seed, **spec.sizes)
