"""Learned densities on a grid, and how far they lie from their target."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from twinscore.theory.coordinates import Grid


@dataclass(frozen=True, eq=False)
class Learned:
    """Densities of B score models on a grid of points; made by the solvers of this room.

    Attributes
    ----------
    points, weights : array
        (n,): ``integral = weights @ values`` in x.
    log_density : array
        (B, n), nats, each normalised on the grid.
    target : array
        (n,): log density of the target at the same time.
    error : array
        (B,): estimated mean absolute error of the log density, under the target and under the
        learned law, whichever is larger; inf where the solver failed.
    tolerance : float
        The error that was asked for.
    """

    points: NDArray[np.float64]
    weights: NDArray[np.float64]
    log_density: NDArray[np.float64]
    target: NDArray[np.float64]
    error: NDArray[np.float64]
    tolerance: float

    @property
    def converged(self) -> NDArray[np.bool_]:
        """(B,): whether the error is within the tolerance."""
        return self.error <= self.tolerance


def learned(
    grid: Grid, log_density: NDArray[np.float64], error: NDArray[np.float64], tolerance: float
) -> Learned:
    """Densities of z (B, n) brought back to x and normalised."""
    z = grid.nodes(log_density.shape[1] - 1)
    unit = float(grid.unit(grid.start))
    points, weights = unit * z, unit * grid.weights(z)
    top = log_density.max(1, keepdims=True)
    mass = np.log(np.exp(log_density - top) @ weights)[:, None] + top
    target = grid.target.at(grid.process, grid.start).log_density(points[:, None])
    return Learned(points, weights, log_density - mass, target, error, tolerance)
