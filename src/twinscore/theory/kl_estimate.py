"""Log-likelihood of points under a score model of a few dimensions; KL estimated from samples."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from twinscore.theory.coordinates import gained, reverse_times
from twinscore.theory.processes import Process, Score
from twinscore.theory.targets import Density, Target, prior

STEPS = 16
TOLERANCE = 1e-3
_ORDER = 4
_NUDGE = 1e-5
_RESAMPLES = 2000


@dataclass(frozen=True, eq=False)
class Likelihood:
    """Log-likelihood of points.

    Attributes
    ----------
    log_density : array
        (n,) nats; NaN where the error is beyond the tolerance.
    error : array
        (n,): estimated error, nats; inf for paths that ran away.
    tolerance : float
        The error that was asked for.
    """

    log_density: NDArray[np.float64]
    error: NDArray[np.float64]
    tolerance: float

    @property
    def converged(self) -> NDArray[np.bool_]:
        """(n,): whether the error is within the tolerance."""
        return self.error <= self.tolerance


@dataclass(frozen=True)
class Estimate:
    """``KL(p || p_theta)`` of the probability flow from samples of p.

    Attributes
    ----------
    value, low, high : float
        Mean log ratio and its 95 % bootstrap interval, nats.
    error : float
        Mean error of the log-likelihoods that are in the mean.
    samples : int
        Number of samples.
    failed : int
        Samples whose likelihood missed its tolerance, left out: the estimate counts as a result
        only if this is 0.
    """

    value: float
    low: float
    high: float
    error: float
    samples: int
    failed: int


def log_likelihood(
    score: Score,
    points: NDArray[np.float64],
    process: Process,
    *,
    start: float,
    width: float,
    initial: Density | None = None,
    tolerance: float = TOLERANCE,
    doublings: int = 5,
) -> Likelihood:
    """Log density at ``start`` of the probability flow of a score, at points (n, dim).

    ``dx/dt = f x - g^2 s / 2`` upwards, classical Runge-Kutta, with the exact trace of the score's
    Jacobian by central differences: ``4 (2 dim + 1)`` evaluations per step. Steps are doubled for
    the points whose log density still changes by more than 15 times the tolerance; those for which
    that does not suffice are NaN.

    Parameters
    ----------
    score : callable
        Smooth in x.
    points : array
        (n, dim).
    process : Process
        Forward process.
    start : float
        Smallest time, at which the points are given.
    width : float
        Smallest length of the target; with it steps are evenly spaced, see
        :func:`~twinscore.theory.coordinates.reverse_times`.
    initial : Density, optional
        Law at T; by default the prior.
    tolerance : float
        Of each log density, nats.
    doublings : int
        How often the steps may be doubled, from 16.

    Raises
    ------
    ValueError
        For points that are not (n, dim), or a score whose shape is not its points'.
    """
    if points.ndim != 2 or not np.isfinite(points).all():
        raise ValueError(f"points must be finite, (n, dim); got {points.shape}")
    law = initial or prior(process, points.shape[1])

    def at(where: NDArray[np.float64], steps: int) -> NDArray[np.float64]:
        times = reverse_times(process, start, 2 * steps, width)[::-1]
        return _carried(score, where, process, times, width, law)

    log_density, finer = at(points, STEPS), at(points, 2 * STEPS)
    error = _changed(log_density, finer)
    log_density = finer
    for doubling in range(2, doublings + 1):
        rest = np.flatnonzero(error > tolerance)
        if not len(rest):
            break
        finer = at(points[rest], STEPS * 2**doubling)
        error[rest] = _changed(log_density[rest], finer)
        log_density[rest] = finer
    log_density[~(error <= tolerance)] = np.nan
    return Likelihood(log_density, error, tolerance)


def kl_estimate(
    score: Score,
    target: Target,
    process: Process,
    *,
    start: float,
    count: int,
    generator: np.random.Generator,
    initial: Density | None = None,
    tolerance: float = TOLERANCE,
) -> Estimate:
    """``KL(p || p_theta)`` at ``start`` of the probability flow, in any dimension.

    The mean of ``log p - log p_theta`` over samples of p: no importance weights, so its variance is
    that of the log ratio. Parameters as for :func:`log_likelihood`; ``count`` samples are drawn.

    Raises
    ------
    ValueError
        For fewer than 2 samples, or if no likelihood reached its tolerance.
    """
    if count < 2:
        raise ValueError(f"an interval needs at least 2 samples, got {count}")
    noised = target.at(process, start)
    scale, deviation = float(process.scale(start)), float(process.deviation(start))
    drawn = target.draw(count, generator)
    points = scale * drawn + deviation * generator.standard_normal(drawn.shape)
    found = log_likelihood(
        score,
        points,
        process,
        start=start,
        width=target.width,
        initial=initial,
        tolerance=tolerance,
    )
    kept = found.converged
    if not kept.any():
        raise ValueError(f"no likelihood reached the tolerance of {tolerance}: the flow runs away")
    ratios = noised.log_density(points)[kept] - found.log_density[kept]
    shares = generator.multinomial(len(ratios), np.full(len(ratios), 1 / len(ratios)), _RESAMPLES)
    low, high = np.quantile(shares @ ratios / len(ratios), [0.025, 0.975])
    return Estimate(
        float(ratios.mean()),
        float(low),
        float(high),
        float(found.error[kept].mean()),
        count,
        int(count - kept.sum()),
    )


def _changed(before: NDArray[np.float64], after: NDArray[np.float64]) -> NDArray[np.float64]:
    """Error of the finer of two results with doubled steps."""
    with np.errstate(invalid="ignore"):
        error = np.abs(after - before) / (2**_ORDER - 1)
    return np.where(np.isfinite(error), error, np.inf)


def _carried(
    score: Score,
    points: NDArray[np.float64],
    process: Process,
    times: NDArray[np.float64],
    width: float,
    law: Density,
) -> NDArray[np.float64]:
    """Log density by Runge-Kutta steps over every second of the rising times.

    In ``y = x / scale``, where ``dy/dh = -scale s / 2``, each step even in ``log(width^2 + h)``.
    """
    scales, spread = process.scale(times), width**2 + gained(process, times)
    rates = -scales / 2 * spread * np.log(spread[-1] / spread[0]) * 2 / (len(times) - 1)

    def slope(k: int, y: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        values, trace = _with_trace(score, float(times[k]), scales[k] * y)
        return rates[k] * values, rates[k] * scales[k] * trace

    y, rise = points / scales[0], np.zeros(len(points))
    with np.errstate(over="ignore", invalid="ignore"):
        for k in range(0, len(times) - 1, 2):
            y1, s1 = slope(k, y)
            y2, s2 = slope(k + 1, y + y1 / 2)
            y3, s3 = slope(k + 1, y + y2 / 2)
            y4, s4 = slope(k + 2, y + y3)
            y = y + (y1 + 2 * y2 + 2 * y3 + y4) / 6
            rise = rise + (s1 + 2 * s2 + 2 * s3 + s4) / 6
        wider = points.shape[1] * np.log(scales[-1] / scales[0])
        return law.log_density(scales[-1] * y) + rise + wider


def _with_trace(
    score: Score, t: float, x: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Score (n, dim) and the trace of its Jacobian (n,), by central differences."""
    values = score(t, x)
    if values.shape != x.shape:
        raise ValueError(f"a score must have its points' shape {x.shape}, got {values.shape}")
    trace = np.zeros(len(x))
    for axis in range(x.shape[1]):
        nudge = np.zeros_like(x)
        nudge[:, axis] = _NUDGE * (1 + np.abs(x[:, axis]))
        rise = score(t, x + nudge)[:, axis] - score(t, x - nudge)[:, axis]
        trace += rise / (2 * nudge[:, axis])
    return values, trace
