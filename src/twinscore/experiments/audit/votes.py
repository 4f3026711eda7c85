"""From the nearest images of every sample to votes, and to ranked units of the pool."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from twinscore.analysis.audit.ballots import Ballots, ballots, ranked, strongest, without
from twinscore.analysis.audit.ranking import Ranking
from twinscore.analysis.audit.search import Near, merged
from twinscore.experiments.audit.pool import Units
from twinscore.experiments.study import Arrays


@dataclass(frozen=True, eq=False)
class Votes:
    """Every vote, and the units of the pool in the order of their strongest.

    Attributes
    ----------
    all : Ballots
        Of all kinds.
    trained : array
        (V,) bool: whether each is for a training image.
    order : array
        (U,): the row of the strongest vote for each unit that has one, strongest first.
    by_kind : dict of Ranking
        The same for each kind, and for *all* of them.
    best : array
        (B,): the row of the strongest vote of each sample that has one.
    """

    all: Ballots
    trained: NDArray[np.bool_]
    order: NDArray[np.int64]
    by_kind: dict[str, Ranking]
    best: NDArray[np.int64]

    @property
    def ranking(self) -> Ranking:
        """By votes of all kinds."""
        return self.by_kind["all"]


def together(parts: Sequence[Arrays], kinds: Sequence[str], under: str = "") -> dict[str, Near]:
    """The nearest images of the whole pool, by kind, from those of its parts."""
    names = vars(Near(np.empty(0), np.empty(0)))
    return {
        kind: merged(
            Near(**{name: part[f"{under}{kind}/{name}"] for name in names}) for part in parts
        )
        for kind in kinds
    }


def cast(near: Mapping[str, Near], units: Units, samples: int, seed: int) -> Votes:
    """Let every sample vote among the images that take part; ties are broken by lot."""
    found = {name: without(of, units.kept) for name, of in near.items()}
    votes = ballots(found, samples)
    by_kind, order = {}, np.empty(0, dtype=np.int64)
    for number, name in enumerate([*near, "all"]):
        rows = np.flatnonzero(votes.kind == number) if name in near else np.arange(len(votes.kind))
        by_kind[name], order = _ranked(votes, rows, units, seed)
    best = strongest(votes, votes.sample, samples, seed)
    trained = units.trained[units.of[votes.image]]
    return Votes(votes, trained, order, by_kind, best[best >= 0])


def _ranked(
    votes: Ballots, rows: NDArray, units: Units, seed: int
) -> tuple[Ranking, NDArray[np.int64]]:
    """Units ranked by some of the votes, and the row of the strongest one of each."""
    own = votes.of(rows)
    unit = units.of[own.image]
    best = strongest(own, unit, len(units.trained), seed)
    voted = np.flatnonzero(best >= 0)
    voted = voted[ranked(own.strength[best[voted]], seed)]
    count = np.bincount(unit, minlength=len(units.trained))[voted]
    return Ranking(voted, units.trained[voted], count, *units.counts), rows[best[voted]]
