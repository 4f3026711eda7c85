"""Which image of a pool a sample is most similar to: its vote, by several similarities."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from twinscore.analysis.similarity import CHUNK_VALUES, unit

TIES = 1e-6
"""Similarities that differ by less are equal up to the rounding of float32."""

SHIFT = 2
"""Pixels by which *shifts* moves a sample, up, down and to the sides."""

View = Callable[[Tensor], Tensor]
"""Images (N, C, H, W) to vectors of unit norm, or zeros, (N, k)."""


def shifted(images: Tensor, down: int, right: int, mirror: bool) -> Tensor:
    """Unit vectors of images moved by a few pixels and perhaps mirrored; edges are repeated."""
    height, width = images.shape[-2:]
    padded = F.pad(images, (SHIFT,) * 4, mode="replicate")
    moved = padded[..., SHIFT - down :, SHIFT - right :][..., :height, :width]
    return unit(moved.flip(-1) if mirror else moved)


def patch(images: Tensor, row: int, column: int) -> Tensor:
    """Unit vectors of the patch of half the side at one of 3 x 3 places, (0, 0) to (2, 2)."""
    height, width = images.shape[-2:]
    h, w = (height + 1) // 2, (width + 1) // 2
    top, left = row * (height - h) // 2, column * (width - w) // 2
    return unit(images[..., top : top + h, left : left + w])


_MOVES = range(-SHIFT, SHIFT + 1)

SIMILARITIES: dict[str, tuple[tuple[View, View], ...]] = {
    "pixels": ((unit, unit),),
    "shifts": tuple(
        (partial(shifted, down=down, right=right, mirror=mirror), unit)
        for mirror in (False, True)
        for down in _MOVES
        for right in _MOVES
    ),
    "patches": tuple(
        (view, view)
        for view in (partial(patch, row=i, column=j) for i in range(3) for j in range(3))
    ),
}
"""Views of sample and pool image; the similarity is the largest cosine of any pair of views."""


@dataclass(frozen=True, eq=False)
class Votes:
    """For each of S samples the nearest of P images.

    Attributes
    ----------
    sample, image : array
        (K,) int64. Who votes for which image, by sample; several rows where images tie. A sample
        that is as similar to every image (a constant one is, and one that is NaN) has no row.
    share : array
        (K,): 1, or the part of a tied vote; the shares of a sample sum to 1.
    similarity : array
        (S,), to the nearest image.
    images : int
        P.
    """

    sample: NDArray[np.int64]
    image: NDArray[np.int64]
    share: NDArray[np.float64]
    similarity: NDArray[np.float64]
    images: int

    def moved(self, by: int, images: int) -> "Votes":
        """The same votes in a larger pool of ``images``, where these begin at place ``by``."""
        return Votes(self.sample, self.image + by, self.share, self.similarity, images)


def votes(samples: Tensor, pool: Tensor, similarity: str = "pixels") -> Votes:
    """Let each sample, of (S, C, H, W), vote for the most similar image of a pool (P, C, H, W).

    Parameters
    ----------
    samples, pool : Tensor
        Images of one shape.
    similarity : str
        A name in ``SIMILARITIES``: *pixels*, the cosine with the mean removed; *shifts*, its
        maximum over the sample mirrored or not and moved by up to ``SHIFT`` pixels; *patches*, the
        largest such cosine of a patch of half the side at one of nine places.

    Returns
    -------
    Votes
        Cost: S P d products for each pair of views, of which there are 1, 50 and 9; memory bounded
        by ``CHUNK_VALUES``.
    """
    views = SIMILARITIES[similarity]
    rows = max(1, CHUNK_VALUES // len(pool))
    found: tuple[list[Tensor], ...] = ([], [], [], [])
    for start in range(0, len(samples), rows):
        table = _table(samples[start : start + rows], pool, views)
        top = table.amax(1)
        tied = table >= (top - TIES)[:, None]
        tied &= ~tied.all(1, keepdim=True)
        sample, image = tied.nonzero(as_tuple=True)
        share = 1 / tied.sum(1).double()[sample]
        for column, part in zip(found, (sample + start, image, share, top.double()), strict=True):
            column.append(part.cpu())
    sample, image, share, top = (torch.cat(column).numpy() for column in found)
    return Votes(sample, image, share, top.clip(-1, 1), len(pool))


def _table(samples: Tensor, pool: Tensor, views: Sequence[tuple[View, View]]) -> Tensor:
    """Similarity of each sample to each pool image, (S, P)."""
    blocks = []
    for block in pool.split(max(1, CHUNK_VALUES // pool[0].numel())):
        best = None
        for of_sample, of_image in views:
            cosine = of_sample(samples) @ of_image(block).T
            best = cosine if best is None else torch.maximum(best, cosine)
        blocks.append(best)
    return torch.cat(blocks, 1)
