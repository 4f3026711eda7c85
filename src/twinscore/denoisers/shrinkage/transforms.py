"""Orthonormal bases of images: the cosines, and the wavelets, of a periodic image.

A basis maps images (B, C, H, W) to as many coefficients of the same shape, channel by channel, and
back. Both are products with small orthonormal matrices: they keep energy up to rounding, run on any
device, and can be differentiated.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pywt
import torch
from scipy import fft
from torch import Tensor

from twinscore.denoisers.closed_form.level import Level


class Basis(ABC):
    """An orthonormal basis of images."""

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Coefficients <x, e_k>, (B, C, H, W), of images (B, C, H, W)."""

    @abstractmethod
    def inverse(self, coefficients: Tensor) -> Tensor:
        """Images (B, C, H, W) of coefficients (B, C, H, W)."""

    def adapted(self, x: Tensor, threshold: Level) -> "Basis":
        """The basis to take for images ``x``: a fixed basis takes itself."""
        return self


@dataclass(frozen=True)
class Cosines(Basis):
    """Discrete cosine transform of the whole image, or of each of its blocks (type II).

    Cost of a call: ``4 d s`` flops, s the side of the image or block.

    Attributes
    ----------
    block : int or None
        Side of the square blocks in pixels; None for the whole image.

    Raises
    ------
    ValueError
        If the block is smaller than 1, or (in a call) does not divide the image.
    """

    block: int | None = None

    def __post_init__(self) -> None:
        if self.block is not None and self.block < 1:
            raise ValueError(f"block must be at least 1, got {self.block}")

    def forward(self, x: Tensor) -> Tensor:
        """Coefficients (B, C, H, W); those of a block lie where the block does."""
        rows, columns = self._matrices(x)
        return self._on_blocks(x, rows, columns)

    def inverse(self, coefficients: Tensor) -> Tensor:
        """Images (B, C, H, W)."""
        rows, columns = self._matrices(coefficients)
        return self._on_blocks(coefficients, rows.T, columns.T)

    def _matrices(self, x: Tensor) -> tuple[Tensor, Tensor]:
        height, width = x.shape[-2:]
        if self.block and (height % self.block or width % self.block):
            raise ValueError(
                f"blocks of {self.block} do not tile {height}x{width} pixels; give a common divisor"
            )
        return (
            torch.from_numpy(_cosines(self.block or height)).to(x),
            torch.from_numpy(_cosines(self.block or width)).to(x),
        )

    @staticmethod
    def _on_blocks(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        tiles = x.unflatten(-1, (-1, len(columns))).unflatten(-3, (-1, len(rows)))
        blocks = tiles.transpose(-2, -3)  # (B, C, down, across, row, column)
        return (rows @ blocks @ columns.T).transpose(-2, -3).reshape(x.shape)


@dataclass(frozen=True)
class Wavelets(Basis):
    """Orthonormal wavelet basis of a periodic image, down to the last level its size allows.

    That is one level each time 2 divides both sides: 6 for 64x64, 4 for 80x80, whose coarsest
    approximation is 5x5. Coefficients lie as usual: the approximation in the upper left corner,
    each level's three bands around it. Periodic images that differ at opposite borders pay for the
    jump. Cost of a call: at most ``16/3 d max(H, W)`` flops.

    Attributes
    ----------
    wavelet : str
        PyWavelets' name of an orthogonal wavelet.

    Raises
    ------
    ValueError
        If there is no such wavelet or it is not orthogonal, or (in a call) a side is odd.
    """

    wavelet: str = "sym4"

    def __post_init__(self) -> None:
        if self.wavelet not in pywt.wavelist(kind="discrete"):
            raise ValueError(f"{self.wavelet!r} is not a wavelet of PyWavelets; try 'sym4'")
        if not pywt.Wavelet(self.wavelet).orthogonal:
            raise ValueError(f"{self.wavelet} is not orthogonal; give db, sym or coif, as 'sym4'")

    def levels(self, height: int, width: int) -> int:
        """Number of levels of an image of ``height x width`` pixels, at least 1."""
        both = int(np.gcd(height, width))
        if both % 2:
            raise ValueError(f"wavelets need even sides, got {height}x{width} pixels")
        return (both & -both).bit_length() - 1

    def forward(self, x: Tensor) -> Tensor:
        """Coefficients (B, C, H, W), the approximation in the upper left corner."""
        height, width = x.shape[-2:]
        out = x.clone()
        for _ in range(self.levels(height, width)):
            rows, columns = self._matrices(height, width, x)
            out[..., :height, :width] = rows @ out[..., :height, :width].clone() @ columns.T
            height, width = height // 2, width // 2
        return out

    def inverse(self, coefficients: Tensor) -> Tensor:
        """Images (B, C, H, W)."""
        out = coefficients.clone()
        for level in reversed(range(self.levels(*out.shape[-2:]))):
            height, width = (side >> level for side in out.shape[-2:])
            rows, columns = self._matrices(height, width, out)
            out[..., :height, :width] = rows.T @ out[..., :height, :width].clone() @ columns
        return out

    def _matrices(self, height: int, width: int, like: Tensor) -> tuple[Tensor, Tensor]:
        return (
            torch.from_numpy(_filter_bank(height, self.wavelet)).to(like),
            torch.from_numpy(_filter_bank(width, self.wavelet)).to(like),
        )


def largest_vectors(basis: Basis, image: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Vectors of a basis on which an image has its largest coefficients.

    A basis adapted to images must be adapted to this one alone. ValueError if ``count`` is out of
    its range, 1 to d.

    Returns
    -------
    vectors : Tensor
        (count, C, H, W), orthonormal.
    coefficients : Tensor
        (count,), of decreasing absolute value.
    """
    if not 1 <= count <= image.numel():
        raise ValueError(f"count must be 1 to {image.numel()}, got {count}")
    coefficients = basis.forward(image[None]).flatten()
    places = coefficients.abs().argsort(descending=True, stable=True)[:count]
    units = torch.zeros(count, image.numel()).to(image)
    units[torch.arange(count), places] = 1
    return basis.inverse(units.view(count, *image.shape)), coefficients[places]


@lru_cache(maxsize=16)
def _cosines(size: int) -> np.ndarray:
    """Orthonormal discrete cosine transform, (size, size), one frequency per row."""
    return fft.dct(np.eye(size), axis=0, norm="ortho")


@lru_cache(maxsize=64)
def _filter_bank(size: int, wavelet: str) -> np.ndarray:
    """One level of the periodic transform, (size, size): approximations, then details."""
    approximation, detail = pywt.dwt(np.eye(size), wavelet, mode="periodization", axis=0)
    return np.concatenate([approximation, detail])
