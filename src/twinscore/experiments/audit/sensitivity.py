"""What an audit could have seen: copies planted on purpose, and searched with the samples."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from twinscore.analysis.audit.ballots import ballots, strongest, without
from twinscore.analysis.audit.changes import CHANGES, changed
from twinscore.analysis.audit.rates import TAIL, most_copies
from twinscore.analysis.audit.search import Near
from twinscore.analysis.statistics import clopper_pearson
from twinscore.experiments.audit.pool import Look, Sets, Units
from twinscore.results.audit import Seen
from twinscore.results.base import Interval
from twinscore.runs import derive_seed

SOURCES = 32
"""Images of the pool that are planted, by each of the changes."""

LEAST_SEEN = 0.5
"""Share of the planted copies that must be seen, surely, for the upper bound to cover a change."""


@dataclass(frozen=True, eq=False)
class Planted:
    """Images near to the planted copies, R of them by each change, one change after another.

    ``near`` is by kind; ``source``, (R,), are the images of the pool that were copied.
    """

    near: Mapping[str, Near]
    source: NDArray[np.int64]


def sources(images: int, seed: int) -> NDArray[np.int64]:
    """Which images of a pool are planted: drawn from all of it, blind to the sets."""
    rng = np.random.default_rng(derive_seed(seed, "planted"))
    return np.sort(rng.choice(images, min(SOURCES, images), replace=False))


def probes(sets: Sets, seed: int, look: Look) -> Tensor:
    """What is compared of the planted copies; what they do not fill shows one of the samples."""
    images = torch.cat([sets.image(int(i))[None] for i in sources(sets.images, seed)])
    rng = np.random.default_rng(derive_seed(seed, "others"))
    others = torch.cat(
        [sets.samples[[i]] for i in rng.integers(len(sets.samples), size=len(images))]
    )
    return looked(images, others, seed, look)


def looked(images: Tensor, others: Tensor, seed: int, look: Look) -> Tensor:
    """The same of R images and as many samples, by each change: ``len(CHANGES) * R`` of them."""
    rng = np.random.default_rng(derive_seed(seed, "changes"))
    return torch.cat([look(changed(name, images, others, rng)) for name in CHANGES])


def split(near: Near, samples: int, planted: int) -> tuple[Near, Near]:
    """The images near to samples, and to what was planted, of a search for both at each place."""
    voters = samples + planted
    first = np.arange(len(near.image)) % voters < samples
    return tuple(Near(near.similarity[rows], near.image[rows]) for rows in (first, ~first))


def seen(
    planted: Planted, units: Units, *, least: float, above: int, samples: int, seed: int
) -> dict[str, Seen]:
    """The share of planted copies that is seen by each change, and the most copies of that kind.

    Seen is a copy whose strongest vote is for what was copied, and stronger than ``least``. Of
    sources in one unit one counts, and none of those that do not take part.

    Parameters
    ----------
    planted : Planted
        What the search found.
    units : Units
        How images were dealt; of their sets nothing is asked.
    least : float
        Strength of the strongest vote for a decoy, or of chance if that is larger.
    above, samples : int
        Samples whose vote is for T and stronger than ``least``, of how many.
    seed : int
        Of lots.
    """
    near = {name: without(of, units.kept) for name, of in planted.near.items()}
    copies = len(CHANGES) * len(planted.source)
    votes = ballots(near, copies)
    best = strongest(votes, votes.sample, copies, seed)
    right = units.of[votes.image[best]] == np.tile(units.of[planted.source], len(CHANGES))
    hit = ((best >= 0) & right & (votes.strength[best] > least)).reshape(len(CHANGES), -1)
    taking = np.flatnonzero(units.kept[planted.source])
    rows = taking[np.unique(units.of[planted.source[taking]], return_index=True)[1]]
    return {
        name: _seen(int(of.sum()), max(1, len(of)), above, samples)
        for name, of in zip(CHANGES, hit[:, rows], strict=True)
    }


def _seen(hits: int, trials: int, above: int, samples: int) -> Seen:
    low, high = clopper_pearson(hits, trials, TAIL)
    how = {"method": "Clopper-Pearson", "covers": "images"}
    share = Interval(value=hits / trials, low=low, high=high, **how)
    most = most_copies(above, samples, low)
    return Seen(share=share, high=most, covered=low >= LEAST_SEEN)
