"""Geometry-adaptive best basis: wavelets followed, where it pays, along the lines of an image.

Discrete orthogonal bandlets (Peyre & Mallat 2008). Around an edge the wavelet coefficients of a
band vary slowly along it. A dyadic square of a band may therefore choose a direction: its
coefficients are sorted by the line they lie on, and go through a 1-D Haar transform. Sorting and
Haar transform are orthonormal, so any choice of disjoint squares and directions gives an
orthonormal basis; no square at all gives the wavelets. The best choice is found from the smallest
squares up (Coifman & Wickerhauser 1992).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from twinscore.denoisers.closed_form.level import Level, variance_of
from twinscore.denoisers.shrinkage.transforms import Basis, Wavelets

_SYM4 = Wavelets("sym4")
_VALUES_AT_A_TIME = 2**20


class Square(NamedTuple):
    """A square that follows a direction, in the array of wavelet coefficients."""

    row: int
    column: int
    side: int
    angle: float
    """Of its lines, radians in [0, pi), from the row axis towards larger row numbers."""


@dataclass(frozen=True, kw_only=True)
class Bandlets:
    """The family of bases; ``adapted`` finds the best of an image.

    Attributes
    ----------
    geometry_cost : float
        Cost of a square's direction, in kept coefficients: 0 finds the best basis of a clean image;
        for a noisy one 2 or so, or squares would follow the noise.
    wavelets : Wavelets
        The wavelets that are followed.
    directions : int
        Directions a square chooses from, evenly spaced.
    sides : tuple of int
        Sides of the squares, ascending powers of two. Those that divide the image tile it, and a
        square that lies across bands is not used: at 80x80, whose bands have sides 40, 20, 10 and
        5, the smaller squares in it take its place.

    Raises
    ------
    ValueError
        If the cost is negative, there is no direction, or the sides are not as above.
    """

    geometry_cost: float
    wavelets: Wavelets = _SYM4
    directions: int = 16
    sides: tuple[int, ...] = (4, 8, 16)

    def __post_init__(self) -> None:
        if not 0 <= self.geometry_cost < math.inf:
            raise ValueError(f"geometry_cost must be 0 or more, got {self.geometry_cost}")
        if self.directions < 1:
            raise ValueError(f"directions must be at least 1, got {self.directions}")
        powers = all(side >= 2 and side & (side - 1) == 0 for side in self.sides)
        if not powers or not all(a < b for a, b in pairwise(self.sides)):
            raise ValueError(f"sides must be ascending powers of two from 2, got {self.sides}")

    @torch.no_grad()
    def adapted(self, x: Tensor, threshold: Level) -> "BandletBasis":
        """The basis of least cost ``sum_k min(c_k^2, T^2) + geometry_cost T^2 (directed squares)``.

        At ``T = sigma`` the first term is the keep-or-kill oracle's risk; it is also the Lagrangian
        ``|x - x_T|^2 + T^2 (kept coefficients)`` of hard thresholding. Wavelets are among the
        choices, and cost nothing extra: the basis never has a larger risk.

        Parameters
        ----------
        x : Tensor
            Images, (B, C, H, W), clean or noisy; each channel chooses for itself.
        threshold : float or Tensor
            T, scalar or (B,), image units.

        Raises
        ------
        ValueError
            If the threshold is not positive, or a side of the image is odd.

        Notes
        -----
        Time: ``2 d s^2`` flops for each direction and side s of squares. Memory: some 90 MB in
        float64, or ten numbers per pixel and direction of one image.
        """
        coefficients = self.wavelets.forward(x)
        squared = variance_of(threshold, x).view(-1, 1, 1, 1).expand(len(x), -1, -1, -1)
        sides = [side for side in self.sides if not any(n % side for n in x.shape[-2:])]
        chunk = max(1, _VALUES_AT_A_TIME // (self.directions * x.shape[1:].numel()))
        parts = zip(coefficients.split(chunk), squared.split(chunk), strict=True)
        found = [self._search(c, t, sides) for c, t in parts]
        choices = [torch.cat(maps) for maps in zip(*found, strict=True)]
        return BandletBasis(self.wavelets, self.directions, dict(zip(sides, choices, strict=True)))

    def _search(self, coefficients: Tensor, squared: Tensor, sides: list[int]) -> list[Tensor]:
        """Each side's map of chosen directions, -1 for none, from the smallest squares up."""
        best = torch.minimum(coefficients.square(), squared)
        bands = _bands(*best.shape[-2:], self.wavelets).to(best.device)
        chosen = []
        for side, before in zip(sides, [1, *sides], strict=False):
            children = _split(best, side // before).sum(-1)
            orders = _orders(side, self.directions).to(best.device)
            along = _split(coefficients, side)[..., orders] @ _haar(side * side).to(best).T
            costs = torch.minimum(along.square(), squared[..., None, None]).sum(-1)
            cost, direction = costs.min(-1)
            cost = cost + self.geometry_cost * squared
            of_band = _split(bands[None, None], side)
            directed = (cost < children) & (of_band.amin(-1) == of_band.amax(-1))
            best = torch.where(directed, cost, children)
            chosen.append(torch.where(directed, direction, -1))
        return _pruned(chosen)


@dataclass(frozen=True, eq=False)
class BandletBasis(Basis):
    """An orthonormal basis out of ``Bandlets``, one for each image of a batch.

    A basis of one image serves a batch of any size.

    Attributes
    ----------
    wavelets : Wavelets
        The wavelets that are followed.
    directions : int
        Directions that squares chose from.
    choices : dict of int to Tensor
        For each side of squares the direction of each, (B, C, H/side, W/side) integers; -1 where
        there is no square. Squares of different sides do not overlap.
    """

    wavelets: Wavelets
    directions: int
    choices: dict[int, Tensor]

    def forward(self, x: Tensor) -> Tensor:
        """Coefficients (B, C, H, W); those of a square lie in the square."""
        out = self.wavelets.forward(x)
        for side, choice in self.choices.items():
            plain = _split(out, side)
            order = _orders(side, self.directions).to(choice.device)[choice.clamp_min(0)]
            along = plain.take_along_dim(order, -1) @ _haar(side * side).to(x).T
            out = _joined(torch.where(choice[..., None] < 0, plain, along), side)
        return out

    def inverse(self, coefficients: Tensor) -> Tensor:
        """Images (B, C, H, W)."""
        out = coefficients
        for side, choice in self.choices.items():
            along = _split(out, side)
            places = _orders(side, self.directions).argsort(-1).to(choice.device)
            plain = (along @ _haar(side * side).to(out)).take_along_dim(
                places[choice.clamp_min(0)], -1
            )
            out = _joined(torch.where(choice[..., None] < 0, along, plain), side)
        return self.wavelets.inverse(out)

    def squares(self, image: int = 0, channel: int = 0) -> Iterator[Square]:
        """The directed squares of one image's channel, the small ones first."""
        for side, choice in self.choices.items():
            directions = choice[image, channel]
            for row, column in (directions >= 0).nonzero().tolist():
                angle = math.pi * directions[row, column].item() / self.directions
                yield Square(row * side, column * side, side, angle)


def _pruned(chosen: list[Tensor]) -> list[Tensor]:
    """Maps of directions without the squares that lie inside a larger chosen one."""
    kept = chosen[-1:]
    covered = None
    for larger, smaller in pairwise(reversed(chosen)):
        covered = larger >= 0 if covered is None else covered | (larger >= 0)
        ratio = smaller.shape[-1] // larger.shape[-1]
        covered = covered.repeat_interleave(ratio, -1).repeat_interleave(ratio, -2)
        kept.append(torch.where(covered, -1, smaller))
    return kept[::-1]


def _split(values: Tensor, side: int) -> Tensor:
    """Squares of an array: (B, C, H, W) to (B, C, H/side, W/side, side^2)."""
    tiles = values.unflatten(-1, (-1, side)).unflatten(-3, (-1, side))
    return tiles.transpose(-2, -3).flatten(-2)


def _joined(squares: Tensor, side: int) -> Tensor:
    """Inverse of :func:`_split`."""
    return squares.unflatten(-1, (side, side)).transpose(-2, -3).flatten(-4, -3).flatten(-2)


def _bands(height: int, width: int, wavelets: Wavelets) -> Tensor:
    """A number for each band of the wavelet coefficients, (H, W)."""
    rows, columns = np.indices((height, width))
    levels = wavelets.levels(height, width)
    row_levels, column_levels = (
        sum((index >= side >> j).astype(int) for j in range(1, levels + 1))
        for index, side in ((rows, height), (columns, width))
    )
    level = np.maximum(row_levels, column_levels)
    return torch.from_numpy(3 * level + (row_levels == level) + 2 * (column_levels == level))


@lru_cache(maxsize=32)
def _orders(side: int, directions: int) -> Tensor:
    """Pixels of a square sorted by line, and along it: (directions, side^2), each row-major."""
    rows, columns = np.divmod(np.arange(side * side), side)
    orders = []
    for angle in np.pi * np.arange(directions) / directions:
        line = np.round(rows * np.cos(angle) - columns * np.sin(angle), 9)
        orders.append(np.lexsort((rows * np.sin(angle) + columns * np.cos(angle), line)))
    return torch.from_numpy(np.stack(orders))


@lru_cache(maxsize=8)
def _haar(size: int) -> Tensor:
    """Orthonormal 1-D Haar transform of a power of two, (size, size) float64."""
    matrix = torch.ones(1, 1, dtype=torch.float64)
    while len(matrix) < size:
        details = torch.eye(len(matrix), dtype=torch.float64)
        coarse = matrix.repeat_interleave(2, 1)
        fine = torch.stack([details, -details], -1).flatten(1)
        matrix = torch.cat([coarse, fine]) / math.sqrt(2)
    return matrix
