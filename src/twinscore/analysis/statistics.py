"""Intervals for every number: the bootstrap, Student's t, and where two curves cross."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

RESAMPLES = 2000
LEVEL = 0.95
_CHUNK_VALUES = 2**24

Statistic = Callable[..., NDArray[np.float64]]
"""A function of ``(values, axis=)`` such as ``numpy.median``."""


def resampled(
    values: NDArray, statistic: Statistic, *, seed: int, resamples: int = RESAMPLES
) -> NDArray[np.float64]:
    """Bootstrap distribution of a statistic.

    Parameters
    ----------
    values : array
        (R, S, ...): R replicates of S samples. Replicates are drawn with replacement first, then
        the samples within each; with R = 1 the interval covers the samples only. Values along
        further axes belong to one sample and are drawn together.
    statistic : callable
        Of (B, R * S, ...) values with ``axis=1``, giving (B,).
    seed : int
        Seed of the draws.
    resamples : int
        Number of draws B.

    Returns
    -------
    array
        (B,). Memory is bounded by chunks of draws.
    """
    replicates, samples = values.shape[:2]
    generator = np.random.default_rng(seed)
    out = np.empty(resamples)
    chunk = max(1, _CHUNK_VALUES // values.size)
    for start in range(0, resamples, chunk):
        count = min(chunk, resamples - start)
        rows = generator.integers(replicates, size=(count, replicates, 1))
        columns = generator.integers(samples, size=(count, replicates, samples))
        drawn = values[rows, columns].reshape(count, replicates * samples, *values.shape[2:])
        out[start : start + count] = statistic(drawn, axis=1)
    return out


def interval(draws: NDArray, level: float = LEVEL) -> tuple[float, float]:
    """Percentile interval of bootstrap draws."""
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def mean_interval(values: NDArray, level: float = LEVEL) -> tuple[float, float, float]:
    """Mean of a few independent values (R,), low and high end of Student's t interval.

    The bootstrap of three or five values is far too narrow; this is exact where they are normal.
    ``level`` is its coverage. ValueError for fewer than two values.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or len(values) < 2:
        raise ValueError(f"need a row of at least 2 values; got shape {values.shape}")
    mean = float(values.mean())
    error = float(values.std(ddof=1)) / len(values) ** 0.5
    reach = float(stdtrit(len(values) - 1, (1 + level) / 2)) * error
    return mean, mean - reach, mean + reach


def over_replicates(
    values: NDArray,
    statistic: Statistic,
    *,
    seed: int,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> tuple[float, float, float]:
    """Mean over replicates of a statistic of their samples, and its interval, low and high.

    Two or more replicates give Student's t interval of :func:`mean_interval`: it covers everything
    that differs between replicates, samples included, and a bootstrap of few replicates does not.
    One replicate gives the bootstrap interval over its samples, which covers nothing else.

    Parameters
    ----------
    values : array
        (R, S, ...): R replicates of S samples, as for :func:`resampled`. Values along further
        axes are paired.
    statistic : callable
        Of (B, S, ...) values with ``axis=1``, giving (B,).
    seed, resamples : int
        Of the bootstrap.
    level : float
        Coverage.
    """
    by_replicate = statistic(values, axis=1)
    if len(by_replicate) > 1:
        return mean_interval(by_replicate, level)
    draws = resampled(values, statistic, seed=seed, resamples=resamples)
    return float(by_replicate[0]), *interval(draws, level)


def crossing(sizes: Sequence[int], gaps: NDArray) -> NDArray[np.float64]:
    """Size N at which a gap turns positive for good, linear in log N between the sizes.

    Parameters
    ----------
    sizes : sequence of int
        Increasing sizes N, (L,).
    gaps : array
        (B, L): the gap at each size, for B bootstrap draws.

    Returns
    -------
    array
        (B,): the crossing; 0 where every gap is positive (it lies below the smallest size), inf
        where the last one is not (it lies above the largest).
    """
    logs = np.log(np.asarray(sizes, dtype=np.float64))
    negative = gaps <= 0
    out = np.empty(len(gaps))
    for i, row in enumerate(gaps):
        if negative[i, -1]:
            out[i] = np.inf
        elif not negative[i].any():
            out[i] = 0.0
        else:
            last = int(np.flatnonzero(negative[i])[-1])
            share = -row[last] / (row[last + 1] - row[last])
            out[i] = np.exp(logs[last] + share * (logs[last + 1] - logs[last]))
    return out
