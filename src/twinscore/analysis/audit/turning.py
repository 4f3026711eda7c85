"""Two moments of a training: when its model was as good as it gets, and when memory set in."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

SIGNIFICANCE = 0.05


def relative(errors: NDArray) -> NDArray[np.float64]:
    """Errors of every image in units of the best checkpoint's at each level, (C, P).

    Of errors (C, P, K) of C checkpoints; the mean over the K levels of each error over the smallest
    mean of any checkpoint at that level. So no level counts more than another.
    """
    best = np.maximum(errors.mean(1).min(0), np.finfo(np.float64).tiny)
    return (errors / best).mean(2)


def reached(values: NDArray, lows: NDArray) -> NDArray[np.bool_]:
    """Which checkpoints cannot be told from the best, (C,): their interval begins at it, or below.

    Small values are good; NaN is never good.
    """
    return lows <= np.nanmin(values) if np.isfinite(values).any() else np.zeros(len(lows), bool)


def turned(p: Sequence[float], level: float = SIGNIFICANCE) -> int:
    """The first of the last checkpoints that are all rejected, in order of training; C if none is.

    Hypotheses are tested in a sequence that is fixed beforehand, the last checkpoint first, each at
    the full level, until the first that is not rejected. So with a probability of at most
    ``level`` any checkpoint is wrongly said to depend on its training images, however many there
    are (Maurer, Hothorn & Lehmacher 1995).
    """
    first = len(p)
    while first and p[first - 1] <= level:
        first -= 1
    return first
