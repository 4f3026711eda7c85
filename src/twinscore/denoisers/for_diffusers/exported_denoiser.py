"""A denoiser in a file of ``torch.export``; copied into a folder that diffusers reads."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor


class ExportedDenoiser(ModelMixin, ConfigMixin):
    """``denoiser(y, sigma)``: (B, C, H, W) of intensities in [0, 1] and (B,) to the clean estimate.

    Parameters
    ----------
    shape : list of (int or None)
        (C, H, W) of its images.
    mean : list of float
        Their mean intensity, per channel or one for all.
    """

    config_name = "config.json"

    @register_to_config
    def __init__(
        self, shape: Sequence[int | None] = (1, None, None), mean: Sequence[float] = (0.5,)
    ) -> None:
        super().__init__()
        self.graph: Any = None

    @classmethod
    def from_pretrained(cls, folder: str | Path, **options: Any) -> "ExportedDenoiser":
        """Read the folder ``denoiser``, or one that has it: nothing is fetched."""
        folder = Path(folder, options.get("subfolder") or "")
        made = cls.from_config(cls.load_config(folder))
        made.graph = torch.export.load(folder / "denoiser.pt2").module()
        return made

    def forward(self, y: Tensor, sigma: Tensor) -> Tensor:
        """Clean estimate of ``y``."""
        return self.graph(y, sigma)
