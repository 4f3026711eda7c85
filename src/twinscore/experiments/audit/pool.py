"""The pool of an audit: training images first, then held-out ones, and the units they form."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from twinscore.analysis.audit.views import reduced
from twinscore.errors import InputError
from twinscore.experiments.audit.spec import Spec
from twinscore.experiments.folders import require
from twinscore.experiments.trials import open_images
from twinscore.images import ImageSet

BLOCK = 8192
"""Images of the pool that are held at once, as they are compared."""

_PIXELS = 2**24


@dataclass(frozen=True, eq=False)
class Sets:
    """Samples, training images and held-out images, all of one shape; held_out may be missing."""

    samples: ImageSet
    train: ImageSet
    held_out: ImageSet | None

    @property
    def pool(self) -> list[ImageSet]:
        """Training images, then held-out ones."""
        return [self.train] if self.held_out is None else [self.train, self.held_out]

    @property
    def images(self) -> int:
        """How many the pool has."""
        return sum(map(len, self.pool))

    def name(self, image: int) -> str:
        """Of an image of the pool."""
        inside = image - len(self.train)
        return self.train.names[image] if inside < 0 else self.held_out.names[inside]

    def image(self, image: int) -> Tensor:
        """An image of the pool, (C, H, W)."""
        inside = image - len(self.train)
        return self.train[image] if inside < 0 else self.held_out[inside]

    def images_of(self, rows: Iterable[int]) -> Tensor:
        """Images of the pool, (N, C, H, W)."""
        return torch.stack([self.image(int(row)) for row in rows])


def opened(spec: Spec) -> Sets:
    """Open the images of a spec.

    Raises
    ------
    InputError
        If samples or training images are not given, or shapes differ.
    """
    require(spec, "samples", "the images that the model made")
    require(spec, "train", "the images that it was trained on")
    held_out = open_images(spec.held_out) if spec.held_out else None
    sets = Sets(open_images(spec.samples), open_images(spec.train), held_out)
    for name, images in (("samples", sets.samples), ("held_out", held_out)):
        if images is not None and images.shape != sets.train.shape:
            raise InputError(_another_shape(name, images.shape, spec.train, sets.train.shape))
    return sets


def _another_shape(name: str, shape: tuple, train: str, wanted: tuple) -> str:
    (channels, height, width), (own, *size) = shape, wanted
    text = f"{name}: {channels} x {height} x {width} (channels, height, width), and {train} has "
    text += f"{own} x {size[0]} x {size[1]}; "
    if channels != own:
        return text + "add ,gray to both, or give images of as many channels"
    return text + f"add ,size={size[0]} or give them at one size"


Look = Callable[[Tensor], Tensor]
"""What is compared of images, (N, C, H, W)."""


def blocks(sets: Sets, start: int, stop: int, look: Look) -> Iterator[tuple[int, Tensor]]:
    """Images ``start`` to ``stop`` of the pool, with the index of the first of a block."""
    offset = 0
    for images in sets.pool:
        low, high = max(start - offset, 0), min(stop - offset, len(images))
        for first in range(low, high, BLOCK):
            yield offset + first, seen(images, first, min(first + BLOCK, high), look)
        offset += len(images)


def seen(images: ImageSet, start: int, stop: int, look: Look) -> Tensor:
    """What is compared of images ``start`` to ``stop``, read a few at a time."""
    rows = max(1, _PIXELS // int(np.prod(images.shape)))
    parts = range(start, stop, rows)
    return torch.cat([look(images[i : min(i + rows, stop)]) for i in parts])


def some(images: ImageSet, most: int, side: int, seed: int) -> Tensor:
    """Reduced images, drawn at random where there are more than ``most``."""
    rows = np.sort(np.random.default_rng(seed).permutation(len(images))[:most])
    return seen(images.take(rows), 0, len(rows), partial(reduced, side=side))


@dataclass(frozen=True, eq=False)
class Units:
    """What was dealt: groups, or images with their near-duplicates.

    Attributes
    ----------
    of : array
        (P,) int64: the unit of each image of the pool.
    trained : array
        (U,) bool: whether a unit was trained on.
    kept : array
        (P,) bool: images that take part; others had a near-duplicate on the other side.
    by : str
        *group* or *image*.
    """

    of: NDArray[np.int64]
    trained: NDArray[np.bool_]
    kept: NDArray[np.bool_]
    by: str

    @property
    def counts(self) -> tuple[int, int]:
        """Units that take part, of the training set and of the held-out set."""
        there = np.unique(self.of[self.kept])
        return int(self.trained[there].sum()), int((~self.trained[there]).sum())


def units(sets: Sets, pairs: NDArray, spanning: NDArray) -> Units:
    """Join groups, mirrored copies and near-duplicates of one set.

    Units with a near-duplicate in the other set are dropped.

    Parameters
    ----------
    sets : Sets
        The images. They go by group where both sets have groups.
    pairs, spanning : array
        (K, 2): near-duplicates within a set, and of a held-out with a training image, by their
        numbers in the pool. ``spanning`` is empty where they are to stay.
    """
    n, count = len(sets.train), sets.images
    joined, by = [pairs.reshape(-1, 2), _copies(sets)], "image"
    if sets.held_out is not None and all(x.groups is not None for x in sets.pool):
        names = np.concatenate([np.array([str(g) for g in x.groups]) for x in sets.pool])
        own = np.unique(names, return_inverse=True)[1] * 2 + (np.arange(count) >= n)
        first = np.unique(own, return_index=True, return_inverse=True)
        joined.append(np.stack([np.arange(count), first[1][first[2]]], 1))
        by = "group"
    links = np.concatenate(joined)
    graph = coo_matrix((np.ones(len(links)), (links[:, 0], links[:, 1])), shape=(count, count))
    of = connected_components(graph, directed=False)[1].astype(np.int64)
    trained = np.zeros(of.max() + 1, dtype=bool)
    trained[of[:n]] = True
    kept = ~np.isin(of, of[spanning.ravel()])
    return Units(of, trained, kept, by)


def _copies(sets: Sets) -> NDArray:
    """Pairs of images of one original, (K, 2), by their numbers in the pool."""
    links, offset = [np.empty((0, 2), np.int64)], 0
    for images in sets.pool:
        if images.originals is not None:
            first, of = np.unique(images.originals, return_index=True, return_inverse=True)[1:]
            links.append(np.stack([np.arange(len(images)), first[of]], 1) + offset)
        offset += len(images)
    return np.concatenate(links)


def shared_groups(sets: Sets) -> list[str]:
    """Groups of which some images were trained on and some held out."""
    if sets.held_out is None or any(x.groups is None for x in sets.pool):
        return []
    train, held_out = (set(map(str, x.groups)) for x in sets.pool)
    return sorted(train & held_out)
