"""From which images the patches of samples come: training images, or as many held-out ones."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from twinscore.analysis.redealing import redeal

_CHUNK = 2**22
"""Distances held at a time."""

TIES = 1e-9
"""Squared distances that differ by less, relative to the norms, are equal up to rounding."""


@dataclass(frozen=True, eq=False)
class Traced:
    """Nearest patches of S samples of U patches, in a pool of P images, half of them trained on.

    Attributes
    ----------
    votes : array
        (S, P): the share of a sample's patches whose nearest patch is in an image; ties are shared.
        The first half of the images are those that were trained on.
    images : array
        (S, 2, U) int64: the image of the nearest patch in either half, as a place in that half.
    mosaics : array
        (S, 2, C, H, W): those patches in place of the sample's own, averaged where they overlap.
    distances : array
        (S, 2, U): root mean squared difference to it, a pixel.
    """

    votes: NDArray[np.float64]
    images: NDArray[np.int64]
    mosaics: NDArray[np.float32]
    distances: NDArray[np.float64]

    @property
    def near(self) -> NDArray[np.float64]:
        """Share of each sample's patches that are nearer to the first half, (S,)."""
        return self.votes[:, : self.votes.shape[1] // 2].sum(1)

    def p(self, seed: int) -> float:
        """One-sided p that as many patches are nearer to the first half.

        By dealing the images out again: exact where a fair coin said which were trained on, since
        votes do not know. (Of a single sample it says little: a copy of one image is one toss.)
        """
        labels = np.arange(self.votes.shape[1]) < self.votes.shape[1] // 2
        alike = np.zeros(len(labels), np.int64)
        return float(redeal(self.votes.sum(0)[:, None], labels, alike, seed=seed).p[0])

    def sources(self, half: int) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray]:
        """Of each sample the image with most of its nearest patches in a half, their share, (S,).

        And the effective number of images they lie in, ``1 / sum_i share_i^2``.
        """
        count = self.votes.shape[1] // 2
        tally = np.stack([np.bincount(row, minlength=count) for row in self.images[:, half]])
        shares = tally / tally.sum(1, keepdims=True)
        return shares.argmax(1), shares.max(1), 1 / np.square(shares).sum(1)


def traced(samples: Tensor, pool: Tensor, side: int) -> Traced:
    """Find the nearest patch, anywhere in each image of a pool, of every patch of samples.

    Parameters
    ----------
    samples : Tensor
        (S, C, H, W).
    pool : Tensor
        (P, C, H, W), P even: training images, then as many that were held out.
    side : int
        Of the patches, odd, at most that of the images.

    Returns
    -------
    Traced
        In float64. Cost: ``2 S P U^2 C side^2`` flops, ``U = (H - side + 1) (W - side + 1)``.
    """
    unfolded = F.unfold(samples.double(), side)
    found = [_of_one(one, pool.double(), side) for one in unfolded]
    return Traced(*(np.stack(part) for part in zip(*found, strict=True)))


def _of_one(queries: Tensor, pool: Tensor, side: int) -> tuple[NDArray, ...]:
    """Votes, images, mosaics and distances of one sample's patches (C side^2, U)."""
    step = max(1, _CHUNK // queries.shape[1] ** 2)
    squares, places = [], []
    for part in pool.split(step):
        patches = F.unfold(part, side)
        products = torch.einsum("pu,npv->nuv", queries, patches)
        norms = patches.square().sum(1)[:, None] + queries.square().sum(0)[:, None]
        least = (norms - 2 * products).min(2)
        squares.append(least.values)
        places.append(least.indices)
    table, places = torch.cat(squares).clamp_min(0).T, torch.cat(places).T  # (U, P)
    slack = TIES * (1 + queries.square().sum(0))[:, None]
    tied = (table <= table.amin(1, keepdim=True) + slack).double()
    votes = (tied / tied.sum(1, keepdim=True)).mean(0)
    images, mosaics, distances = [], [], []
    half = len(pool) // 2
    for start in (0, half):
        best = table[:, start : start + half].min(1)
        place = places.gather(1, (start + best.indices)[:, None])[:, 0]
        images.append(best.indices)
        mosaics.append(_mosaic(pool[start + best.indices], place, side))
        distances.append((best.values / len(queries)).sqrt())
    stacked = (torch.stack(part).cpu().numpy() for part in (images, mosaics, distances))
    return votes.cpu().numpy(), *stacked


def _mosaic(images: Tensor, places: Tensor, side: int) -> Tensor:
    """One patch of each of U images (U, C, H, W), put side by side, (C, H, W)."""
    patches = F.unfold(images, side).gather(
        2, places[:, None, None].expand(-1, images.shape[1] * side**2, 1)
    )[:, :, 0]
    shape = images.shape[2:]
    total = F.fold(patches.T[None], shape, side)
    return (total / F.fold(torch.ones_like(patches.T[None]), shape, side))[0].float()
