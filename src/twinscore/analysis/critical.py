"""Critical N: where agreement overtakes memory, as an interval between the sizes tried."""

import math
from collections.abc import Collection, Sequence
from itertools import pairwise

import numpy as np

from twinscore.analysis.statistics import crossing
from twinscore.results.base import Interval
from twinscore.results.transition import CriticalN


def bracket(sizes: Sequence[int], gaps: Sequence[Interval]) -> CriticalN | None:
    """Where the gap turns positive, of gaps at increasing sizes.

    *low* is the largest size at which the whole interval of the gap is below 0; *high* the smallest
    one from which on all of them are above 0. So it is missed only if an interval is wrong, and it
    is never narrower than what was tried. None if the last gap found is not above 0.
    """
    at = crossing(sizes, np.array([[gap.value for gap in gaps]]))[0]
    if math.isinf(at):
        return None
    below = [n for n, gap in zip(sizes, gaps, strict=True) if gap.high < 0]
    above = [n for n, gap in zip(sizes, gaps, strict=True) if gap.low > 0]
    high = None
    for n, gap in zip(reversed(sizes), reversed(gaps), strict=True):
        if gap.low <= 0:
            break
        high = n
    low = below[-1] if below else None
    lost = bool(below and above and above[0] < below[-1])
    return CriticalN(value=float(at) or None, low=low, high=high, lost=lost)


def critical_n(
    sizes: Sequence[int], gaps: Sequence[Interval], learned: Collection[int]
) -> tuple[CriticalN | None, str]:
    """Critical N and a phrase for it; None unless some size at or above it has learned.

    Parameters
    ----------
    sizes : sequence of int
        Increasing.
    gaps : sequence of Interval
        G - M at each of them, of :func:`~twinscore.analysis.statistics.difference`.
    learned : collection of int
        Sizes at which the twins have learned.
    """
    found = bracket(sizes, gaps)
    if found is None:
        if gaps[-1].high >= 0:
            return None, f"not decided: the gap may be above or below 0 at {sizes[-1]:,} images"
        lost = "crossed, then lost again; " if any(gap.low > 0 for gap in gaps) else ""
        return None, f"not reached: {lost}needs more than {sizes[-1]:,} images"
    if not any(n >= (found.value or 0) for n in learned):
        return None, "not known: no size at or above it has learned"
    return found, _phrase(found, sizes)


def _phrase(found: CriticalN, sizes: Sequence[int]) -> str:
    low, high = ("open" if end is None else f"{end:,.0f}" for end in (found.low, found.high))
    lost = "; crossed before, then lost again" if found.lost else ""
    if found.value is None:
        return f"below the smallest size tried, {sizes[0]:,} images (high end {high}){lost}"
    return f"about {found.value:,.0f} images (between {low} and {high}){lost}"


def refined(found: CriticalN, sizes: Sequence[int], ratio: float) -> int | None:
    """The size to try next, or None where the bracket is narrow enough or cannot be narrowed.

    The geometric middle of the two neighbouring sizes in the bracket that are the farthest apart in
    ratio. Not where an end is open or nothing lies between them; nor where no two are more than
    the root of ``ratio`` apart, since then more samples or replicates are needed.
    """
    if found.low is None or found.high is None or found.high <= ratio * found.low:
        return None
    inside = [n for n in sizes if found.low <= n <= found.high]
    low, high = max(pairwise(inside), key=lambda pair: pair[1] / pair[0])
    middle = round(math.sqrt(low * high))
    return middle if high**2 > ratio * low**2 and low < middle < high else None
