"""How many samples are copies, and how many images could be drawn out of a model."""

import numpy as np
from numpy.typing import NDArray

from twinscore.analysis.audit.ballots import Ballots
from twinscore.analysis.statistics import RESAMPLES, clopper_pearson

TAIL = 0.025
_CHUNK_VALUES = 2**24


def copy_rate(
    best: Ballots,
    trained: NDArray[np.bool_],
    unit: NDArray,
    n: int,
    m: int,
    samples: int,
    *,
    cut: float,
    bound: float,
    seed: int,
) -> tuple[float, float, float]:
    """Share of samples that are copies, low and high end of its 95 % interval.

    The value is the share of samples whose strongest vote is for T and as strong as any that is
    listed, less ``n / m`` times that for H, which chance explains. Its ends are those of a
    bootstrap in which units get Poisson weights that their votes inherit; the high end is at least
    ``bound``.

    Parameters
    ----------
    best : Ballots
        The strongest vote of each sample.
    trained : array
        (B,) bool: whether each of these is for an image of T.
    unit : array
        (B,): of the image.
    n, m : int
        Units in T and in H.
    samples : int
        Including those without a vote.
    cut : float
        Strength of the weakest vote that is listed; inf where nothing is, and the value 0.
    bound : float
        Of :func:`most_copies`.
    seed : int
        Of the bootstrap.
    """
    counts = (best.strength >= cut) * np.where(trained, 1.0, -n / m)
    value = float(np.clip(counts.sum() / samples, 0, 1))
    total = np.bincount(np.unique(unit, return_inverse=True)[1], counts, minlength=1)
    total = total[total != 0]
    generator, draws = np.random.default_rng(seed), np.zeros(RESAMPLES)
    rows = max(1, _CHUNK_VALUES // max(1, len(total)))
    for start in range(0, RESAMPLES if len(total) else 0, rows):
        weights = generator.poisson(1, size=(min(rows, RESAMPLES - start), len(total)))
        draws[start : start + len(weights)] = weights @ total
    low, high = np.quantile(draws / samples, [TAIL, 1 - TAIL])
    return value, float(np.clip(low, 0, value)), float(np.clip(max(high, bound), value, 1))


def most_copies(above: int, samples: int, seen: float) -> float:
    """Upper bound on the share of samples that are copies, of which ``above`` are seen.

    Clopper and Pearson's of ``above`` over the share of copies that is seen, or its lower end: of
    both ends, each is wrong with at most the probability ``TAIL``.
    """
    bound = clopper_pearson(above, samples, TAIL)[1]
    return min(1.0, bound / seen) if seen else 1.0


def extractable(counts: NDArray, decoys: float, samples: int, more: float = 1.0) -> float:
    """Lower bound on how many distinct images ``1 + more`` times as many samples would repeat.

    Chao's estimator (1984, bias-corrected) of images not yet seen, from those seen once and twice,
    and the extrapolation of Chao et al. (2014, eq. 9), which holds to about twice the samples.

    Parameters
    ----------
    counts : array
        (T,): how many samples repeat each listed image.
    decoys : float
        How many of the listed are there by chance; taken off those seen once.
    samples : int
        S.
    more : float
        Further samples, in parts of S; at most 1.
    """
    once, twice = max(0.0, (counts == 1).sum() - decoys), float((counts == 2).sum())
    seen = max(0.0, len(counts) - decoys)
    unseen = (samples - 1) / samples * once * max(0.0, once - 1) / (2 * (twice + 1))
    if not unseen:
        return seen
    grown = 1 - (1 - once / (samples * unseen + once)) ** (more * samples)
    return seen + unseen * grown
