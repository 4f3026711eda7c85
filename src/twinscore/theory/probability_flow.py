"""Density of what a score model generates with the probability flow, by change of variables.

In standard coordinates (:mod:`twinscore.theory.coordinates`) the flow of a score s is
``dz/dlambda = -(scale c s + z)/2`` with lambda = log(C^2 + h); densities follow its divergence
(Chen et al. 2018; Song et al. 2021, eq. 39).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from twinscore.theory.coordinates import Grid
from twinscore.theory.densities import Learned, Scores, evaluated, settled
from twinscore.theory.targets import Density, prior

INTERVALS = 128
STEPS = 32
TOLERANCE = 5e-3
_SHARE = 1 / 3
"""Share of a change by doubling that counts as error: that of order 2; the method has 3 or more."""
_LOST = 1e5
"""Minus the log density of a point whose path runs away, and the error that it counts as."""


def probability_flow(
    scores: Scores,
    grid: Grid,
    *,
    initial: Density | None = None,
    tolerance: float = TOLERANCE,
    doublings: int = 3,
) -> Learned:
    """Densities at the grid's smallest time of the probability flow driven by B scores.

    ``dx/dt = f x - g^2 s / 2``, followed from each point of the grid up to T by classical
    Runge-Kutta steps of order 4 on scores interpolated by cubic splines in x. The whole is
    repeated with twice the steps and intervals until the difference is within the tolerance.

    On 129 points, with an error for each score, large for those whose paths run away. Cost: of
    order 10 ms per score on one core. Scores are evaluated at T too; other parameters and errors as
    for :func:`~twinscore.theory.fokker_planck.reverse_sde`.
    """
    law = initial or prior(grid.process)
    z, unit = grid.nodes(INTERVALS), float(grid.unit(grid.start))
    points, weights = unit * z, unit * grid.weights(z)
    coarse = _carried(scores, grid, law, INTERVALS // 2, STEPS // 2, slice(None))
    log_density = _carried(scores, grid, law, INTERVALS, STEPS, slice(None))
    off = _changed(coarse, log_density)
    out = settled(grid, points, weights, log_density, off, tolerance)
    for doubling in range(1, doublings + 1):
        rest = np.flatnonzero(out.error > tolerance)
        if not len(rest):
            break
        factor = 2**doubling
        finer = _carried(scores, grid, law, factor * INTERVALS, factor * STEPS, rest)
        off[rest] = _changed(log_density[rest], finer)
        log_density[rest] = finer
        out = settled(grid, points, weights, log_density, off, tolerance)
    return out


@dataclass(frozen=True, eq=False)
class _Velocity:
    """Velocity of the flow at one time, as cubic pieces, for B scores."""

    z: NDArray[np.float64]
    coefficients: NDArray[np.float64]

    def __call__(self, at: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Velocity and divergence at points (B, n); linear beyond the ends."""
        inside = np.clip(at, self.z[0], self.z[-1])
        piece = np.clip(np.searchsorted(self.z, inside) - 1, 0, len(self.z) - 2)
        a, b, c, d = self.coefficients[:, piece, np.arange(len(at))[:, None]]
        u = inside - self.z[piece]
        slope = (3 * a * u + 2 * b) * u + c
        return ((a * u + b) * u + c) * u + d + slope * (at - inside), slope


def _carried(
    scores: Scores,
    grid: Grid,
    initial: Density,
    intervals: int,
    steps: int,
    chosen: NDArray[np.intp] | slice,
) -> NDArray[np.float64]:
    """Log densities of x at the nodes of the coarsest grid, (B, INTERVALS + 1)."""
    falling = grid.times(2 * steps)
    times, rates = falling[::-1], grid.pace(falling)[::-1] / steps
    nodes, units = grid.nodes(intervals), grid.unit(times)

    def velocity(k: int) -> _Velocity:
        pull = units[k] * evaluated(scores, float(times[k]), units[k] * nodes)[chosen] + nodes
        return _Velocity(nodes, CubicSpline(nodes, -rates[k] / 2 * pull, axis=1).c)

    before = velocity(0)
    z = np.tile(grid.nodes(INTERVALS), (before.coefficients.shape[2], 1))
    spread = np.zeros_like(z)
    with np.errstate(over="ignore", invalid="ignore"):
        for k in range(0, 2 * steps, 2):
            middle, after = velocity(k + 1), velocity(k + 2)
            z1, s1 = before(z)
            z2, s2 = middle(z + z1 / 2)
            z3, s3 = middle(z + z2 / 2)
            z4, s4 = after(z + z3)
            z = z + (z1 + 2 * z2 + 2 * z3 + z4) / 6
            spread = spread + (s1 + 2 * s2 + 2 * s3 + s4) / 6
            before = after
        end = initial.log_density((units[-1] * z).reshape(-1, 1)).reshape(z.shape)
        log_density = end + np.log(units[-1]) + spread - np.log(units[0])
    return np.where(np.abs(log_density) < _LOST, log_density, -_LOST)


def _changed(before: NDArray[np.float64], after: NDArray[np.float64]) -> NDArray[np.float64]:
    """Error of the finer of two log densities; a path lost in both counts as an error."""
    return np.where(after == -_LOST, _LOST, _SHARE * np.abs(after - before))
