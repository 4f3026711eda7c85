"""Targets of independent coordinates: boxes, and bounded supports in a few dimensions."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from twinscore.theory.processes import Process
from twinscore.theory.targets import Density, Target


@dataclass(frozen=True, eq=False)
class Product:
    """A density whose coordinates are independent; make one with :func:`product`.

    Noise is independent too, so that it stays a product at any time. Cost: that of its factors at
    the distinct values of their coordinates, which are few on a grid.

    Attributes
    ----------
    factors : tuple of Target
        The law of each coordinate, of one dimension.
    """

    factors: tuple[Target, ...]

    @property
    def dim(self) -> int:
        """Number of coordinates."""
        return len(self.factors)

    @property
    def width(self) -> float:
        """Smallest length over which the density rises or falls; 0 where it jumps."""
        return min(factor.width for factor in self.factors)

    def log_density(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Log density at points (n, dim), (n,), nats.

        Raises
        ------
        ValueError
            For points of the wrong dimension.
        """
        return sum(self._each(x, "log_density"))

    def density(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Density at points (n, dim), (n,); raises as :meth:`log_density`."""
        return np.exp(self.log_density(x))

    def score(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Gradient of the log density, (n, dim); raises as its factors and :meth:`log_density`."""
        return np.hstack(list(self._each(x, "score")))

    def draw(self, count: int, generator: np.random.Generator) -> NDArray[np.float64]:
        """Samples, (count, dim)."""
        return np.hstack([factor.draw(count, generator) for factor in self.factors])

    def at(self, process: Process, t: float) -> Density:
        """Density of x_t."""
        return Product(tuple(factor.at(process, t) for factor in self.factors))

    def edges(self) -> list[NDArray[np.float64]]:
        """Panel edges for each dimension."""
        return [edges for factor in self.factors for edges in factor.edges()]

    def entropy(self) -> float:
        """Differential entropy, nats, in any number of dimensions: the sum of its factors'."""
        return sum(factor.entropy() for factor in self.factors)

    def _each(self, x: NDArray[np.float64], method: str) -> Iterator[NDArray[np.float64]]:
        """What a method of every factor gives at its coordinate of points (n, dim)."""
        if x.ndim != 2 or x.shape[1] != self.dim:
            raise ValueError(f"points must be (n, {self.dim}), got {x.shape}")
        for factor, column in zip(self.factors, x.T, strict=True):
            values, back = np.unique(column, return_inverse=True)  # few, on a grid
            yield getattr(factor, method)(values[:, None])[back]


def product(factors: Sequence[Target]) -> Product:
    """The law of independent coordinates, each with its own target of one dimension.

    Raises
    ------
    ValueError
        For no factors, or one of more dimensions.
    """
    dims = [factor.dim for factor in factors]
    if not dims or set(dims) != {1}:
        raise ValueError(f"a product takes targets of one dimension, at least one; got {dims}")
    return Product(tuple(factors))
