"""From the nearest images of each sample to votes of one scale, blind to whose images they are."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from twinscore.analysis.audit.search import Near

AMONG = 5
"""The near image whose distance is compared with that of the nearest: a copied image may have a few
that are all but equal to it."""

_LEAST = 1e-3
"""Distance of unit vectors below which they are equal, in float32."""


@dataclass(frozen=True, eq=False)
class Ballots:
    """Votes of S samples, of all kinds and places, for P images.

    Attributes
    ----------
    sample, image : array
        (V,) int64: who votes, and for which image.
    strength : array
        (V,): how much nearer the image is than the sample's other near ones: :func:`strength`.
    kind, place : array
        (V,) int64: numbers of the kind and of the place within it.
    distance : array
        (V,): to the image, relative to the mean distance to the nearest ones; 0 if they are equal.
    """

    sample: NDArray[np.int64]
    image: NDArray[np.int64]
    strength: NDArray[np.float64]
    kind: NDArray[np.int64]
    place: NDArray[np.int64]
    distance: NDArray[np.float64]

    def of(self, rows: NDArray) -> "Ballots":
        """Some of the votes."""
        return Ballots(**{name: values[rows] for name, values in vars(self).items()})


def relative_distance(near: Near) -> NDArray[np.float64]:
    """Distance of each voter to its nearest image over the mean to all near ones, (V,), in [0, 1].

    So plain images, to which everything is near, do not attract. Distances are those of unit
    vectors, ``sqrt(2 - 2 cosine)``. NaN for a voter without contrast, which has no vote.
    """
    distances = _distances(near)
    mean = distances.mean(1)
    blank = ~near.similarity.any(1)
    ratio = np.divide(distances[:, 0], mean, out=np.ones_like(mean), where=mean > 0)
    return np.where(blank, np.nan, ratio)


def strength(near: Near) -> NDArray[np.float64]:
    """How far the nearest image stands out among the near ones, (V,): with distances d_1 ... d_k,

    ``D log(d_a / d_1)``, a = ``AMONG``, with the local dimension D of the others (Levina & Bickel
    2004, eq. 8): ``1 / D`` is the mean of ``log(d_k / d_j)``, j = a ... k - 1, over
    ``mean (j - a + 1) / j``.

    Where images have a smooth density around a voter and none was copied, D times the spacing of
    two log distances is exponential, with mean 1 over its rank, whatever the dimension, the metric
    and the voter: so votes of all kinds and of plain and rich samples have one scale. A copy leaves
    it, also one under noise, which adds the same to all squared distances.
    """
    distances = np.maximum(_distances(near), _LEAST)
    among = max(1, min(AMONG - 1, (distances.shape[1] - 1) // 2))
    if distances.shape[1] <= among + 1:
        return 1 - relative_distance(near)
    rank = np.arange(among + 1, distances.shape[1])
    expected = ((rank - among) / rank).mean()
    inverse = np.log(distances[:, -1:] / distances[:, among:-1]).mean(1) / expected
    return np.log(distances[:, among] / distances[:, 0]) / np.maximum(inverse, _LEAST)


def largest_by_chance(votes: int) -> float:
    """Strength that one of so many votes of chance exceeds on average.

    ``AMONG - 1`` exponentials of means 1, 1/2, ... sum up to the largest of as many of mean 1
    (Renyi 1953).
    """
    return -math.log1p(-((1 - min(1 / max(votes, 1), 0.5)) ** (1 / (AMONG - 1))))


def _distances(near: Near) -> NDArray[np.float64]:
    return np.sqrt(np.maximum(2 - 2 * near.similarity.astype(np.float64), 0))


def ballots(found: Mapping[str, Near], samples: int) -> Ballots:
    """Every voter that has contrast votes for its nearest image.

    Parameters
    ----------
    found : mapping
        For each kind what :func:`~twinscore.analysis.audit.search.search` found.
    samples : int
        S.
    """
    parts = []
    for number, near in enumerate(found.values()):
        distance = relative_distance(near)
        votes = np.flatnonzero(np.isfinite(distance))
        parts.append(
            Ballots(
                sample=votes % samples,
                image=near.image[votes, 0],
                strength=strength(near)[votes],
                kind=np.full(len(votes), number),
                place=votes // samples,
                distance=distance[votes],
            )
        )
    joined = {name: np.concatenate([vars(part)[name] for part in parts]) for name in vars(parts[0])}
    return Ballots(**joined)


def without(near: Near, kept: NDArray[np.bool_]) -> Near:
    """Near images with those that do not take part, of (P,) ``kept``, after all others."""
    order = np.argsort(~kept[near.image], axis=1, kind="stable")
    similarity, image = (np.take_along_axis(x, order, 1) for x in (near.similarity, near.image))
    return Near(np.where(kept[image], similarity, -1), image)


def strongest(votes: Ballots, of: NDArray, count: int, seed: int) -> NDArray[np.int64]:
    """The row of the strongest vote of each of ``count`` voters or images, (count,); -1 for none.

    ``of``, (V,), says whose each vote is. Of equal votes one is taken by lot.
    """
    order = ranked(votes.strength, seed)
    rows = np.full(count, -1, dtype=np.int64)
    rows[of[order[::-1]]] = order[::-1]
    return rows


def ranked(strength: NDArray, seed: int) -> NDArray[np.int64]:
    """Indices by strength, the largest first, equal ones in random order."""
    lot = np.random.default_rng(seed).random(len(strength))
    return np.lexsort((lot, -strength))
