"""Slopes of values that are partly known to lie beyond a bound only."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq, minimize
from scipy.special import log_ndtr, stdtrit

from twinscore.analysis.statistics import LEVEL

LEAST_EXACT = 3
"""Values that must be known exactly: through two, a line always fits without scatter."""
_FARTHEST = 1e3
"""How far an end of the interval is sought, in units of the slope's natural scale."""


@dataclass(frozen=True)
class CensoredSlope:
    """A slope and its interval; an end is infinite where the values do not bound it."""

    slope: float
    low: float
    high: float


def censored_slope(
    x: NDArray, y: NDArray, side: NDArray, level: float = LEVEL
) -> CensoredSlope | None:
    """Slope of a line with normal scatter through values some of which are censored (Tobin 1958).

    Maximum likelihood; the interval holds the slopes whose profile likelihood is not too far below
    the largest. Its threshold, ``m log(1 + t^2/(m - 2))`` with Student's t of m - 2 degrees of
    freedom and m the number of exact values, makes it the usual interval of least squares where
    nothing is censored, and is chosen for few values otherwise.

    Parameters
    ----------
    x, y : array
        (n,): where, and the value or the bound.
    side : array
        (n,) int: 0 for a value, 1 where the truth is above ``y``, -1 where it is below.
    level : float
        Coverage.

    Returns
    -------
    CensoredSlope or None
        None for fewer than three exact values, or where all of them are at one x.
    """
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    side = np.asarray(side)
    exact = side == 0
    m = int(exact.sum())
    if m < LEAST_EXACT or np.ptp(x[exact]) == 0:
        return None
    start, residual = _least_squares(x[exact], y[exact])
    if residual <= 1e-12 * max(np.ptp(y[exact]), 1.0):
        return CensoredSlope(start, start, start)
    unit = residual / np.std(x[exact])

    def profile(step: float) -> float:
        return _log_likelihood(y - (start + step * unit) * x, side, residual)

    best = minimize(lambda step: -profile(float(step[0])), [0.0], method="Nelder-Mead")
    step, most = float(best.x[0]), -float(best.fun)
    t = float(stdtrit(m - 2, (1 + level) / 2))
    drop = m * np.log1p(t**2 / (m - 2)) / 2

    def short(step: float) -> float:
        return profile(step) - most + drop

    low, high = (_end(short, step, direction) for direction in (-1, 1))
    return CensoredSlope(*(start + unit * s for s in (step, low, high)))


def _least_squares(x: NDArray, y: NDArray) -> tuple[float, float]:
    """Slope, and root mean square of the residuals."""
    centred = x - x.mean()
    slope = float(centred @ y / (centred @ centred))
    return slope, float(np.std(y - slope * x))


def _log_likelihood(y: NDArray, side: NDArray, unit: float) -> float:
    """Of the best mean and scatter of y; concave in mean / scatter and 1 / scatter (Olsen 1978)."""
    exact, bounds, signs = y[side == 0] / unit, y[side != 0] / unit, side[side != 0]

    def negative(parameters: NDArray) -> tuple[float, NDArray]:
        mean, log_scale = parameters
        scale = np.exp(log_scale)
        z, away = scale * exact - mean, signs * (mean - scale * bounds)
        value = log_scale * len(exact) - 0.5 * z @ z + log_ndtr(away).sum()
        hazard = signs * np.exp(-0.5 * away**2 - 0.5 * np.log(2 * np.pi) - log_ndtr(away))
        slope = np.array(
            [z.sum() + hazard.sum(), len(exact) - scale * (z @ exact + hazard @ bounds)]
        )
        return -value, -slope

    spread = max(float(np.std(exact)), 1e-9)
    start = np.array([exact.mean() / spread, -np.log(spread)])
    return -float(minimize(negative, start, jac=True, method="BFGS").fun)


def _end(short: Callable[[float], float], inside: float, direction: int) -> float:
    """Where a function that is positive ``inside`` turns negative; infinite if nowhere."""
    reach = 1.0
    while short(inside + direction * reach) > 0:
        reach *= 2
        if reach > _FARTHEST:
            return direction * np.inf
    return brentq(short, inside, inside + direction * reach, xtol=1e-6)
