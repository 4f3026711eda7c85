"""The coin toss of an audit: training set T against held-out set H, by the strongest votes.

T and H were dealt at random from one pool, n units and m, so that held-out ones are decoys: where
samples do not depend on T, the labels of the ranked units are those of a random deal.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import hypergeom

from twinscore.analysis.redealing import REDEALINGS, redeal


@dataclass(frozen=True, eq=False)
class Ranking:
    """Units that have a vote, the one with the strongest vote first.

    Attributes
    ----------
    unit : array
        (U,) int64.
    trained : array
        (U,) bool: in T.
    votes : array
        (U,): how many.
    n, m : int
        Units in T and in H, with a vote or without.
    """

    unit: NDArray[np.int64]
    trained: NDArray[np.bool_]
    votes: NDArray[np.int64]
    n: int
    m: int

    @property
    def above_decoys(self) -> int:
        """How many units of T are ranked above the first decoy."""
        decoys = np.flatnonzero(~self.trained)
        return int(decoys[0]) if len(decoys) else len(self.trained)


def depths(units: int) -> NDArray[np.int64]:
    """How many of the strongest units are looked at: 5, 10, 20, ..., and all."""
    found = 5 * 2 ** np.arange(40)
    return np.append(found[found < units], units)


@dataclass(frozen=True, eq=False)
class Dependence:
    """The global test.

    Attributes
    ----------
    p : float
        Of any depth and kind: the smallest of ``by_depth``, corrected for their number.
    by_depth : list of (str, int or None, float, float)
        Kind; depth K; units x of T among the K strongest; and ``p = P[Hypergeometric(n + m, n, K)
        >= x]``, not corrected. Where K is None, x are votes for T, and p is by dealing again.
    """

    p: float
    by_depth: list[tuple[str, int | None, float, float]]


def dependence(
    rankings: dict[str, Ranking], *, seed: int, redealings: int = REDEALINGS
) -> Dependence:
    """Whether samples depend on T: do the strongest units lie in T more often than a coin says?

    Exact for a random deal of units, whatever the samples and the votes. What it says is that the
    samples depend on T. A Gaussian fitted to T depends on it too, without a single copy.

    Parameters
    ----------
    rankings : dict
        By kind, of one deal.
    seed, redealings : int
        As for :func:`~twinscore.analysis.redealing.redeal`; p is that of the largest standardised
        count over all depths and kinds.
    """
    n, m = next((of.n, of.m) for of in rankings.values())
    units = np.unique(np.concatenate([of.unit for of in rankings.values()]))
    trained = np.zeros(len(units), dtype=bool)
    columns, rows = [], []
    for kind, of in rankings.items():
        at = np.searchsorted(units, of.unit)
        trained[at] = of.trained
        for depth in (*depths(len(of.unit)).tolist(), None):
            column = np.zeros(len(units))
            column[at[:depth]] = 1 if depth else of.votes
            columns.append(column)
            rows.append((kind, depth))
    silent = n + m - len(units)
    labels = np.concatenate([trained, np.arange(silent) < n - trained.sum()])
    weights = np.concatenate([np.stack(columns, 1), np.zeros((silent, len(columns)))])
    dealt = redeal(weights, labels, np.zeros(n + m), seed=seed, redealings=redealings)
    counts = labels @ weights
    by_depth = [
        (*row, float(x), float(p if row[1] is None else hypergeom.sf(x - 1, n + m, n, row[1])))
        for row, x, p in zip(rows, counts, dealt.p, strict=True)
    ]
    return Dependence(float(dealt.corrected.min()), by_depth)


def listed(ranking: Ranking, q: float, most: int | None = None) -> int:
    """Length of the longest prefix whose false-discovery rate is at most q; 0 if there is none.

    It has at most ``most`` units, a number that must not depend on the sets.

    The largest k with ``(1 + H_k) (n / m) <= q T_k``, of T_k and H_k units of either set among the
    k strongest. Units of T in it are reported; on average at most a share q of them is there by
    chance (Barber & Candès 2015, with unequal numbers of decoys).
    """
    t = ranking.trained.cumsum()
    h = (~ranking.trained).cumsum()
    good = np.flatnonzero(((1 + h) * ranking.n <= q * ranking.m * t)[:most])
    return int(good[-1]) + 1 if len(good) else 0


@dataclass(frozen=True)
class Power:
    """What an audit could have seen, in distinct copied units.

    Attributes
    ----------
    for_p : int
        Copies, stronger than any decoy, from which p can be at most 0.05.
    for_list : int
        Copies from which a list at q can begin.
    """

    for_p: int
    for_list: int


def power(n: int, m: int, q: float, significance: float = 0.05) -> Power:
    """Of n units in T and m in H."""
    i = np.arange(n)
    all_trained = np.log((n - i) / (n + m - i)).cumsum()  # of the i + 1 strongest
    enough = np.flatnonzero(all_trained <= np.log(significance) + 1e-9)
    for_p = int(enough[0]) + 1 if len(enough) else n + 1
    return Power(for_p, int(np.ceil(n / (m * q) - 1e-9)))
