"""Intervals for every number: the bootstrap, Student's t, and where two curves cross."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import zip_longest

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv, stdtrit

RESAMPLES = 2000
LEVEL = 0.95
_CHUNK_VALUES = 2**24
_KEPT_VALUES = 2**20

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


@dataclass(frozen=True, eq=False)
class Estimate:
    """An index of R replicates.

    Attributes
    ----------
    values : array
        (R,).
    draws : tuple of array
        Bootstrap distributions, (B,) each. Of a single replicate the first is over noise seeds,
        others over something else, such as images.
    """

    values: NDArray[np.float64]
    draws: tuple[NDArray[np.float64], ...] = ()


def bounds(
    estimate: Estimate, within: tuple[float, float] = (-np.inf, np.inf), level: float = LEVEL
) -> tuple[float, float, float]:
    """Value of an estimate, and the ends of its interval, cut to a range.

    The union of the percentile intervals of its bootstrap distributions and, of more than one
    replicate, Student's t interval.
    """
    value = low = high = float(np.mean(estimate.values))
    if len(estimate.values) > 1:
        value, low, high = mean_interval(estimate.values, level)
    ends = [(low, high), *(interval(draws, level) for draws in estimate.draws)]
    low, high = min(low for low, _ in ends), max(high for _, high in ends)
    return value, max(low, within[0]), min(high, within[1])


def difference(a: Estimate, b: Estimate) -> Estimate:
    """Of two indices of the same replicates, whose first draws are of the same noise seeds."""
    if len(a.values) > 1:
        return Estimate(a.values - b.values)
    pairs = zip_longest(a.draws, b.draws)
    draws = [(a.draws[0] if x is None else x) - (b.draws[0] if y is None else y) for x, y in pairs]
    return Estimate(a.values - b.values, tuple(draws))


def seed_counts(
    samples: int, seed: int | Sequence[int], resamples: int = RESAMPLES
) -> Iterator[NDArray[np.float64]]:
    """How often each of S samples is drawn by the bootstrap, in blocks of (B, S).

    The same seed and S give the same draws, for whatever is measured.
    """
    if samples * resamples <= _KEPT_VALUES:
        yield _kept_counts(samples, tuple(seed) if isinstance(seed, Sequence) else seed, resamples)
        return
    generator = np.random.default_rng(seed)
    chunk = max(1, _CHUNK_VALUES // samples)
    for start in range(0, resamples, chunk):
        yield _counts(generator, samples, min(chunk, resamples - start))


@lru_cache(maxsize=2)
def _kept_counts(samples: int, seed: int | tuple[int, ...], resamples: int) -> NDArray[np.float64]:
    """All of them, kept, since both twins and several measures are drawn alike."""
    counts = _counts(np.random.default_rng(seed), samples, resamples)
    counts.flags.writeable = False
    return counts


def _counts(generator: np.random.Generator, samples: int, draws: int) -> NDArray[np.float64]:
    even = np.full(samples, 1 / samples)
    return generator.multinomial(samples, even, size=draws).astype(np.float64)


def clopper_pearson(successes: int, trials: int, tail: float) -> tuple[float, float]:
    """Lower and upper bound of a rate; each is exceeded with at most the probability ``tail``.

    Clopper & Pearson 1934. ``tail`` 0.05 gives one-sided bounds of 95 %, 0.025 an interval of 95 %.
    ValueError unless ``0 <= successes <= trials`` and there is a trial.

    Examples
    --------
    >>> from twinscore.analysis.statistics import clopper_pearson
    >>> low, high = clopper_pearson(0, 100, 0.05)
    >>> low, round(high, 3)
    (0.0, 0.03)
    """
    if not 0 <= successes <= trials or trials < 1:
        raise ValueError(f"cannot have {successes} successes in {trials} trials")
    failures = trials - successes
    low = betaincinv(successes, failures + 1, tail) if successes else 0.0
    high = betaincinv(successes + 1, failures, 1 - tail) if failures else 1.0
    return float(low), float(high)


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
