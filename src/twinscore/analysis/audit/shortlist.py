"""Search for moved images in large pools: first a coarse look at all, then exactly at a few."""

import math
from collections.abc import Iterable, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from twinscore.analysis.audit.search import Near
from twinscore.analysis.audit.views import Kind, Pair, moves, reduced, shown

CANDIDATES = 200
"""Images of a part of the pool that are compared exactly with each sample."""

SIDE = 8
"""Pixels of the coarse look."""

_ENTRIES = 2**24
"""Values of views held at once."""

_NOISE = 0.1
"""Standard deviation of the noise on a probe, in parts of its own."""


def coarse(shift: float) -> Kind:
    """Images of 8 x 8 pixels, moved and mirrored: a 16th of the products of *moved*."""
    look, reach = partial(reduced, side=SIDE), math.ceil(shift * SIDE)
    pairs = tuple(pair for pair in moves(SIDE, reach / SIDE) if pair.what["zoom"] == 1)
    return Kind("coarse", SIDE, ("whole",), (pairs,), look)


def among(
    samples: Tensor,
    blocks: Iterable[tuple[int, Tensor]],
    kind: Kind,
    candidates: NDArray[np.int64],
    count: int,
) -> Near:
    """As :func:`~twinscore.analysis.audit.search.search`, for each sample among some images.

    Parameters
    ----------
    samples, blocks, count
        As there.
    kind : Kind
        With one place.
    candidates : array
        (S, K): the images that are compared with each sample.
    """
    similarity = np.full(candidates.shape, -np.inf, dtype=np.float32)
    for first, block in blocks:
        inside = (candidates >= first) & (candidates < first + len(block))
        voter, column = np.nonzero(inside)
        image = candidates[voter, column] - first
        similarity[voter, column] = _best(samples, block, kind.pairs[0], voter, image)
    order = np.lexsort((candidates, -similarity), axis=1)[:, :count]
    return Near(*(np.take_along_axis(x, order, 1) for x in (similarity, candidates)))


def _best(
    samples: Tensor, block: Tensor, pairs: Sequence[Pair], voter: NDArray, image: NDArray
) -> NDArray[np.float32]:
    """The largest cosine over pairs of views of each sample with its image, (N,)."""
    rows, columns = (torch.from_numpy(x).to(samples.device) for x in (voter, image))
    best = torch.full((len(rows),), -torch.inf, device=samples.device)
    for pair in pairs:
        ours, theirs = pair.of_sample(samples), pair.of_image(block)
        step = max(1, _ENTRIES // ours.shape[1])
        for part in torch.arange(len(rows), device=samples.device).split(step):
            cosine = (ours[rows[part]] * theirs[columns[part]]).sum(1)
            best[part] = torch.maximum(best[part], cosine)
    return best.cpu().numpy()


def probes(images: Tensor, kind: Kind, generator: np.random.Generator) -> Tensor:
    """Samples that show images of a pool moved, (N, c, side, side), to see whether they are found.

    Each in a random way of those that the kind tries, with noise, and with another image at the
    edges.
    """
    pairs = kind.pairs[0]
    ways = generator.integers(len(pairs), size=len(images))
    noise = torch.from_numpy(generator.standard_normal(images.shape)).float()
    others = images.roll(1, 0)
    found = zip(images, others, ways, strict=True)
    probe = torch.stack([shown(image, other, pairs[way].what) for image, other, way in found])
    return probe + _NOISE * probe.std((1, 2, 3), keepdim=True) * noise
