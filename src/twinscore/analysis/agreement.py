"""How far twins draw the same sample from the same noise, beyond what all their samples share.

With the mean cosine similarity of A's and B's samples from the same noise, *paired*, and from
different noise, *unpaired*,

    G = (paired - unpaired) / (1 - unpaired):

0 where the noise does not matter, 1 where the twins are the same function.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from twinscore.analysis.similarity import unit
from twinscore.analysis.statistics import (
    RESAMPLES,
    Estimate,
    clopper_pearson,
    mean_interval,
    seed_counts,
)

ALIKE = 0.9
"""Similarity above which twins agree on a seed."""

INDISTINCT = 1e-6
"""Where samples of different noise are this similar, G is 0."""

_CHUNK_VALUES = 2**24


def agreement(
    pairs: Sequence[tuple[Tensor, Tensor]], *, seed: int, resamples: int = RESAMPLES
) -> Estimate:
    """The agreement index G of R replicates.

    All pairs from different noise are counted by the sum of the unit vectors, at cost S d.

    Parameters
    ----------
    pairs : sequence of (Tensor, Tensor)
        For each replicate the samples of A and of B, (S, C, H, W), from the same S >= 2 seeds.
    seed : int
        Of the bootstrap over seeds of a single replicate (cost: ``resamples`` times 2 S d), which
        draws those that :func:`~twinscore.analysis.coin_toss.memorisation` draws.
    resamples : int
        Number of draws.

    Raises
    ------
    ValueError
        If shapes differ, or there are fewer than two samples.
    """
    units = [_units(a, b) for a, b in pairs]
    values = np.array([_index(np.ones((1, len(a))), a, b)[0] for a, b in units])
    if len(units) > 1:
        return Estimate(values)
    [(a, b)] = units
    rows = max(1, _CHUNK_VALUES // a.shape[1])
    draws = [
        _index(counts[start : start + rows], a, b)
        for counts in seed_counts(len(a), seed, resamples)
        for start in range(0, len(counts), rows)
    ]
    return Estimate(values, (np.concatenate(draws),))


def _units(a: Tensor, b: Tensor) -> tuple[NDArray, NDArray]:
    if a.shape != b.shape or len(a) < 2:
        raise ValueError(
            f"need two or more samples of each twin, of one shape; got {tuple(a.shape)} "
            f"and {tuple(b.shape)}"
        )
    return tuple(unit(x.double()).cpu().numpy() for x in (a, b))


def _index(counts: NDArray, a: NDArray, b: NDArray) -> NDArray[np.float64]:
    """G where seed i counts ``counts[:, i]`` times, (B,)."""
    same = (a * b).sum(1)
    samples = counts.sum(1)
    squares = np.square(counts)
    paired = counts @ same / samples
    every = ((counts @ a) * (counts @ b)).sum(1) - squares @ same
    others = samples**2 - squares.sum(1)
    unpaired = np.divide(every, others, out=np.ones_like(every), where=others > 0)
    room = 1 - unpaired
    return np.where(room < INDISTINCT, 0.0, (paired - unpaired) / np.maximum(room, INDISTINCT))


def alike(similarities: Sequence[NDArray] | NDArray) -> tuple[float, float, float]:
    """Share of seeds on which twins agree, of similarities (S,) of R replicates, 95 % interval.

    Student's t over replicates, cut to [0, 1]; of a single one Clopper and Pearson's.
    """
    agree = [np.asarray(of) > ALIKE for of in similarities]
    if len(agree) > 1:
        value, low, high = mean_interval(np.array([of.mean() for of in agree]))
        return value, max(0.0, low), min(1.0, high)
    count, samples = int(agree[0].sum()), agree[0].size
    return count / samples, *clopper_pearson(count, samples, 0.025)
