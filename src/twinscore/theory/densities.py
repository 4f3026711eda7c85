"""Learned densities in one dimension, and how far they lie from their target."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline, PchipInterpolator

from twinscore.theory.coordinates import Grid

Scores = Callable[[float, NDArray[np.float64]], NDArray[np.float64]]
"""``scores(t, x)``: B scores in one dimension at points (n, 1), as (B, n)."""

_REFINED = 8
_RISE = 1e-10
_EDGE = 15 / 16
"""Share of the range of points beyond which mass counts as escaped."""


@dataclass(frozen=True, eq=False)
class Learned:
    """Densities of B score models on n points; made by the solvers of this room.

    Attributes
    ----------
    points, weights : array
        (n,): ``integral = weights @ values`` in x.
    log_density : array
        (B, n), nats, each of mass 1 on the points.
    target : array
        (n,): log density of the target at the same time.
    error : array
        (B,): estimated mean absolute error of the log density, the larger of those under the target
        and under the learned law, plus ``|log_mass|``.
    escaped : array
        (B,): mass on the outermost sixteenth of the points' range on either side. What reaches it
        may have gone further: take a grid of larger reach.
    log_mass : array
        (B,): logarithm of the mass that a solver found, which is divided out; 0 for an exact
        solution within the range of the points. Counted in ``error``.
    tolerance : float
        The error that was asked for.
    """

    points: NDArray[np.float64]
    weights: NDArray[np.float64]
    log_density: NDArray[np.float64]
    target: NDArray[np.float64]
    error: NDArray[np.float64]
    escaped: NDArray[np.float64]
    log_mass: NDArray[np.float64]
    tolerance: float

    @property
    def converged(self) -> NDArray[np.bool_]:
        """(B,): whether the error and the escaped mass are within the tolerance."""
        return (self.error <= self.tolerance) & (self.escaped <= self.tolerance)


@dataclass(frozen=True, eq=False)
class Divergences:
    """How far B learned densities lie from their target, each (B,); NaN where not converged.

    Attributes
    ----------
    direct, reverse : array
        ``KL(p || p_theta)`` and ``KL(p_theta || p)``, nats.
    total_variation : array
        Half the integral of ``|p - p_theta|``.
    wasserstein_1, wasserstein_2 : array
        In units of x.
    error : array
        Of the two divergences, see :class:`Learned`.
    converged : array
        Whether the error and the escaped mass are within the tolerance; if not, there is no result.
    """

    direct: NDArray[np.float64]
    reverse: NDArray[np.float64]
    total_variation: NDArray[np.float64]
    wasserstein_1: NDArray[np.float64]
    wasserstein_2: NDArray[np.float64]
    error: NDArray[np.float64]
    converged: NDArray[np.bool_]


def divergences(learned: Learned) -> Divergences:
    """Divergences and distances by quadrature on the points of the densities.

    The direct divergence sees only where the target has mass. The others do not see mass that a
    learned law puts beyond the points. A density that missed its tolerance has no divergence: NaN,
    and ``converged`` is false.
    """
    weights, log_p, log_q = learned.weights, learned.target, learned.log_density
    p, q = np.exp(log_p), np.exp(log_q)
    found = (
        (log_p - log_q) @ (weights * p),
        (q * (log_q - log_p)) @ weights,
        np.abs(p - q) @ weights / 2,
        *_wasserstein(learned),
    )
    known = learned.converged
    return Divergences(*(np.where(known, v, np.nan) for v in found), learned.error, known)


def integrated_score(
    scores: Scores,
    grid: Grid,
    *,
    interval: tuple[float, float] | None = None,
    intervals: int = 512,
    tolerance: float = 1e-3,
) -> Learned:
    """``exp`` of the integral of each score at the smallest time, as [GP] reads its densities.

    Not a law that any sampler draws from: only the last score counts. Where that score is wrong in
    a region without mass, the weights of the modes on either side are wrong.

    Parameters
    ----------
    scores : callable
        Evaluated once, on ``intervals + 1`` points.
    grid : Grid
        Of the target the scores were learned from.
    interval : pair of float, optional
        Range on which the density is normalised, [-10, 10] in [GP]; by default the grid's.
    intervals : int
        Even; the error is the difference from half as many.
    tolerance : float
        For the mean absolute error of the log density.

    Raises
    ------
    ValueError
        For a range that is empty, or scores that are not finite.
    """
    if interval is None:
        z, unit = grid.nodes(intervals), float(grid.unit(grid.start))
        points, weights = unit * z, unit * grid.weights(z)
    else:
        if not interval[0] < interval[1]:
            raise ValueError(f"the interval must be low < high, got {interval}")
        points = np.linspace(*interval, intervals + 1)
        weights = np.full(intervals + 1, points[1] - points[0])
        weights[[0, -1]] /= 2
    slopes = evaluated(scores, grid.start, points)
    log_density = CubicSpline(points, slopes, axis=1).antiderivative()(points)
    coarse = CubicSpline(points[::2], slopes[:, ::2], axis=1).antiderivative()(points)
    off = np.abs(log_density - coarse)
    log_density -= log_mass(log_density, weights)
    return settled(grid, points, weights, log_density, off, tolerance)


def evaluated(scores: Scores, t: float, x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scores at points (n,), (B, n).

    Raises
    ------
    ValueError
        For scores of the wrong shape, or not finite.
    """
    values = scores(t, x[:, None])
    if values.ndim != 2 or values.shape[1] != len(x) or not np.isfinite(values).all():
        raise ValueError(
            f"scores must be finite, (B, {len(x)}) at {len(x)} points; "
            f"got {values.shape} at time {t:.4g}"
        )
    return values


def settled(
    grid: Grid,
    points: NDArray[np.float64],
    weights: NDArray[np.float64],
    log_density: NDArray[np.float64],
    off: NDArray[np.float64],
    tolerance: float,
) -> Learned:
    """Log densities (B, n) brought to mass 1, with their errors ``off`` (B, n) averaged."""
    mass = log_mass(log_density, weights)[:, 0]
    log_target = grid.target.at(grid.process, grid.start).log_density(points[:, None])
    log_density = log_density - mass[:, None]
    q, p = np.exp(log_density), np.exp(log_target)
    error = np.maximum(off @ (weights * p), (off * q) @ weights) + np.abs(mass)
    middle, half = (points[0] + points[-1]) / 2, (points[-1] - points[0]) / 2
    escaped = q @ (weights * (np.abs(points - middle) > _EDGE * half))
    return Learned(points, weights, log_density, log_target, error, escaped, mass, tolerance)


def log_mass(log_density: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log of the integral of each density (B, n), (B, 1)."""
    top = log_density.max(1, keepdims=True)
    return np.log(np.exp(log_density - top) @ weights)[:, None] + top


def _wasserstein(learned: Learned) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Distances of order 1 and 2, from distribution functions on points 8 times as dense."""
    index = np.arange(len(learned.points))
    fine = np.linspace(0, index[-1], index[-1] * _REFINED + 1)
    x = CubicSpline(index, learned.points)(fine)
    p = np.exp(PchipInterpolator(index, learned.target)(fine))
    q = np.exp(PchipInterpolator(index, learned.log_density, axis=1)(fine))
    gaps = np.diff(x)
    below, below_learned = (_cumulative(density, gaps) for density in (p[None], q))
    apart = np.abs(below - below_learned)
    first = (apart[:, 1:] + apart[:, :-1]) @ gaps / 2
    moved = np.stack([np.interp(below[0], row, x) for row in below_learned])
    mass = np.gradient(below[0])
    second = np.sqrt((moved - x) ** 2 @ mass)
    return first, second


def _cumulative(density: NDArray[np.float64], gaps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distribution functions (B, n) by the trapezoid rule, ending at 1.

    They rise everywhere, by a share too small to matter, so that they can be inverted.
    """
    density = density + _RISE / gaps.sum()
    out = np.zeros_like(density)
    np.cumsum((density[:, 1:] + density[:, :-1]) / 2 * gaps, axis=1, out=out[:, 1:])
    return out / out[:, -1:]
