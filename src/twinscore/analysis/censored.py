"""Slopes of values of which some are only known to lie beyond a bound."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq, minimize
from scipy.special import log_ndtr, stdtrit

from twinscore.analysis.statistics import LEVEL

_FARTHEST = 1e3  # an end of the interval is sought up to there, in residuals over the spread of x


@dataclass(frozen=True)
class CensoredSlope:
    """A slope and its interval; an end is infinite where the values do not bound it."""

    slope: float
    low: float
    high: float


def censored_slope(
    x: ArrayLike, y: ArrayLike, side: ArrayLike, others: ArrayLike = (), level: float = LEVEL
) -> CensoredSlope | None:
    """Slope of a line with normal scatter, some of whose values are censored (Tobin 1958).

    By maximum likelihood. The interval holds the slopes whose profile log-likelihood is at most
    ``m log(1 + t^2/(m - p)) / 2`` below the largest, with t of Student's distribution, m exact
    values and p regressors. Without censoring these are least squares and their usual interval.

    Parameters
    ----------
    x, y, side : array
        (n,): regressor; value or bound; 0 for a value, 1 or -1 where the truth is above or below.
    others : array
        (k, n): further regressors, fitted with it; a constant always is.
    level : float
        Coverage.

    Returns
    -------
    CensoredSlope or None
        None if the exact values, p = k + 2 or fewer, would be met whatever they are, or if x does
        not vary among them other than with the others.
    """
    x, y, side = (np.asarray(values, dtype=np.float64) for values in (x, y, side))
    constants = np.vstack([np.ones_like(x), *np.reshape(others, (-1, len(x)))]).T
    exact = side == 0
    m, p = int(exact.sum()), constants.shape[1] + 1
    design = np.column_stack([x, constants])
    if m <= p or np.linalg.matrix_rank(design[exact]) < p:
        return None
    own = x[exact] - _fitted(constants[exact], x[exact])
    start = float(own @ y[exact] / (own @ own))
    residual = float(np.std(y[exact] - _fitted(design[exact], y[exact])))
    if residual <= 1e-12 * max(np.ptp(y), 1.0):
        return CensoredSlope(start, start, start)
    unit = residual / float(np.std(own))

    def profile(step: float) -> float:
        return _log_likelihood((y - (start + step * unit) * x) / residual, side, constants)

    best = minimize(lambda step: -profile(float(step[0])), [0.0], method="Nelder-Mead")
    step, t = float(best.x[0]), float(stdtrit(m - p, (1 + level) / 2))
    least = -float(best.fun) - m * np.log1p(t**2 / (m - p)) / 2
    low, high = (_end(lambda s: profile(s) - least, step, sign) for sign in (-1, 1))
    return CensoredSlope(*(start + unit * s for s in (step, low, high)))


def _fitted(design: NDArray, y: NDArray) -> NDArray:
    return design @ np.linalg.lstsq(design, y, rcond=None)[0]


def _log_likelihood(y: NDArray, side: NDArray, constants: NDArray) -> float:
    """The largest; concave in coefficients / scatter and 1 / scatter (Olsen 1978)."""
    exact = side == 0
    values, bounds, signs = y[exact], y[~exact], side[~exact]
    at_values, at_bounds = constants[exact], constants[~exact]

    def negative(parameters: NDArray) -> tuple[float, NDArray]:
        coefficients, scale = parameters[:-1], np.exp(parameters[-1])
        z = scale * values - at_values @ coefficients
        away = signs * (at_bounds @ coefficients - scale * bounds)
        hazard = signs * np.exp(-0.5 * away**2 - 0.5 * np.log(2 * np.pi) - log_ndtr(away))
        value = parameters[-1] * len(z) - 0.5 * z @ z + log_ndtr(away).sum()
        slope = at_values.T @ z + at_bounds.T @ hazard
        return -value, -np.append(slope, len(z) - scale * (z @ values + hazard @ bounds))

    coefficients = np.linalg.lstsq(at_values, values, rcond=None)[0]
    scatter = max(float(np.std(values - at_values @ coefficients)), 1e-9)
    start = np.append(coefficients / scatter, -np.log(scatter))
    return -float(minimize(negative, start, jac=True, method="BFGS").fun)


def _end(above: Callable[[float], float], inside: float, sign: int) -> float:
    """Where a function that is positive ``inside`` turns negative; infinite if nowhere."""
    reach = 1.0
    while above(inside + sign * reach) > 0:
        reach *= 2
        if reach > _FARTHEST:
            return sign * np.inf
    return brentq(above, inside, inside + sign * reach, xtol=1e-6)
