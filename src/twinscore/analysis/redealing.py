"""Exact tests of a coin toss: deal the labels out again, as the coin might have."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

REDEALINGS = 9999
_CHUNK_VALUES = 2**24
_ROUNDING = 1e-9


@dataclass(frozen=True, eq=False)
class Redealt:
    """K statistics as they were dealt, and as they might have been.

    Attributes
    ----------
    observed : array
        (K,).
    draws : array
        (T, K), by T other deals, or by every deal there is, the observed one included.
    deviation : array
        (K,): standard deviation over all deals, in closed form.
    deals : int
        How many deals there are.
    """

    observed: NDArray[np.float64]
    draws: NDArray[np.float64]
    deviation: NDArray[np.float64]
    deals: int

    @property
    def smallest(self) -> float:
        """The smallest p there can be."""
        return 1 / min(self.deals, self._out_of)

    @property
    def p(self) -> NDArray[np.float64]:
        """One-sided p of each statistic by itself, (K,): the share of deals that give as much."""
        return self._share(self.draws >= self.observed - _ROUNDING)

    @property
    def corrected(self) -> NDArray[np.float64]:
        """P of each among all, (K,): the share of deals whose largest statistic is as large.

        In units of the deviations (Westfall & Young 1993, single step).
        """
        scale = np.where(self.deviation > 0, self.deviation, np.inf)
        largest = (self.draws / scale).max(1, keepdims=True)
        return self._share(largest >= self.observed / scale - _ROUNDING)

    @property
    def _out_of(self) -> int:
        return len(self.draws) + (self.deals > len(self.draws))

    def _share(self, exceeds: NDArray[np.bool_]) -> NDArray[np.float64]:
        added = self._out_of - len(self.draws)
        return (exceeds.sum(0) + added) / self._out_of


def redeal(
    weights: NDArray,
    labels: NDArray,
    strata: NDArray,
    *,
    seed: int,
    redealings: int = REDEALINGS,
) -> Redealt:
    """Deal the labels of U units out again within their strata.

    The statistics are ``sum_i weights_ik (labels_i - mean label of the stratum of i)``; where the
    deal was fair and the weights do not depend on it, they have mean 0 and p is exact, whatever
    the weights.

    Parameters
    ----------
    weights : array
        (U, K).
    labels : array
        (U,) bool.
    strata : array
        (U,) int: labels are permuted among units of one stratum.
    seed : int
        Of the deals.
    redealings : int
        How many are drawn (p then counts the observed one too). Where there are no more, each is
        taken once.

    Returns
    -------
    Redealt
        Cost: ``redealings`` times the units of a weight other than 0, times K; memory in chunks.
    """
    weights, labels = np.asarray(weights, dtype=np.float64), np.asarray(labels, dtype=bool)
    members = _members(strata)
    deals = math.prod(math.comb(len(own), int(labels[own].sum())) for own in members)
    observed, variance = np.zeros((2, weights.shape[1]))
    expected = np.zeros(weights.shape[1])
    for own in members:
        share, w = labels[own].mean(), weights[own]
        observed += w[labels[own]].sum(0)
        expected += share * w.sum(0)
        spread = np.square(w - w.mean(0)).sum(0)
        variance += share * (1 - share) * len(own) / max(1, len(own) - 1) * spread
    if deals <= redealings + 1:
        blocks = _every(labels, members, weights, deals)
    else:
        blocks = _drawn(labels, members, weights, redealings, seed)
    draws = np.concatenate(list(blocks)) - expected
    return Redealt(observed - expected, draws, np.sqrt(variance), deals)


def _members(strata: NDArray) -> list[NDArray[np.int64]]:
    order = np.argsort(strata, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(np.asarray(strata)[order])) + 1)


def _every(
    labels: NDArray, members: list[NDArray], weights: NDArray, deals: int
) -> Iterator[NDArray[np.float64]]:
    """Sums of the labelled weights by every deal, (deals, K)."""
    sums, repeated = np.zeros((deals, weights.shape[1])), 1
    for own in members:
        chosen = list(itertools.combinations(own, int(labels[own].sum())))
        table = np.stack([weights[list(units)].sum(0) for units in chosen])
        sums += table[np.arange(deals) // repeated % len(table)]
        repeated *= len(table)
    yield sums


def _drawn(
    labels: NDArray, members: list[NDArray], weights: NDArray, redealings: int, seed: int
) -> Iterator[NDArray[np.float64]]:
    """The same by random deals, of units that weigh something only, (redealings, K)."""
    generator = np.random.default_rng(seed)
    weighs = weights.any(1)
    dealt = [(own[weighs[own]], int(labels[own].sum()), len(own)) for own in members]
    dealt = [of for of in dealt if len(of[0])]
    chunk = max(1, _CHUNK_VALUES // max([len(own) for own, _, _ in dealt], default=1))
    for start in range(0, redealings, chunk):
        count = min(chunk, redealings - start)
        sums = np.zeros((count, weights.shape[1]))
        for own, labelled, size in dealt:
            among = generator.hypergeometric(labelled, size - labelled, len(own), size=count)
            dealt_to = np.arange(len(own)) < among[:, None]
            sums += generator.permuted(dealt_to, axis=1) @ weights[own]
        yield sums
