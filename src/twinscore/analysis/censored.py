"""Slopes of values of which some are only known to lie beyond a bound."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq, minimize, minimize_scalar
from scipy.stats import norm, t

from twinscore.analysis.statistics import LEVEL

_FARTHEST = 2.0**10  # an end of the interval is sought up to there, in natural units of the slope


def censored_slope(
    x: ArrayLike, y: ArrayLike, side: ArrayLike, others: ArrayLike = (), level: float = LEVEL
) -> tuple[float, float, float] | None:
    """Slope of a line with normal scatter, some of whose values are censored (Tobin 1958).

    ``x``, ``y`` and ``side`` are (n,): regressor; value or bound; 0 for a value, 1 or -1 where the
    truth is above or below. ``others``, (k, n), and a constant are fitted with it. By maximum
    likelihood. The interval, whose ends may be infinite, holds the slopes whose profile
    log-likelihood is at most ``m log(1 + t^2/(m - p)) / 2`` below the largest, with Student's t, m
    exact values and p coefficients: without bounds it is the usual one of least squares. None
    where a plane through all exact values exists, or x varies among them only with the others.
    """
    x, y, side = (np.asarray(values, dtype=np.float64) for values in (x, y, side))
    rest, exact = np.vstack([np.ones_like(x), *np.reshape(others, (-1, len(x)))]).T, side == 0
    design, m, p = np.column_stack([x, rest])[exact], int(exact.sum()), rest.shape[1] + 1
    if m <= p or np.linalg.matrix_rank(design) < p:
        return None
    fit, (squares, *_) = np.linalg.lstsq(design, y[exact])[:2]
    scatter = max(np.sqrt(squares / m), 1e-12 * np.ptp(y))
    unit = scatter * np.sqrt(np.linalg.inv(design.T @ design)[0, 0])

    def loss(step: float) -> float:
        """Negative log-likelihood of a slope so many units from least squares, at its best."""
        left = (y - (fit[0] + step * unit) * x) / scatter

        def negative(free: NDArray) -> float:
            z = (left - rest @ free[:-1]) * np.exp(-free[-1])
            likelihood = np.where(exact, norm.logpdf(z) - free[-1], norm.logcdf(-side * z))
            return -likelihood.sum()

        return float(minimize(negative, np.append(fit[1:] / scatter, 0.0), method="BFGS").fun)

    best = minimize_scalar(loss, bracket=(-1.0, 1.0))
    quantile = t.ppf((1 + level) / 2, m - p)
    most = best.fun + m * np.log1p(quantile**2 / (m - p)) / 2

    def end(sign: int) -> float:
        reach = 1.0
        while loss(best.x + sign * reach) < most:
            reach *= 2
            if reach > _FARTHEST:
                return sign * np.inf
        found = brentq(lambda s: loss(s) - most, best.x, best.x + sign * reach, xtol=1e-4)
        return float(fit[0] + unit * found)

    return float(fit[0] + unit * best.x), end(-1), end(1)
