"""Training by gradient flow, ``dA/dtau = -grad L(A)``, solved exactly for a quadratic loss."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from twinscore.theory.score_matching import QuadraticLoss


@dataclass(frozen=True, eq=False)
class GradientFlow:
    """The path A(tau) from some A(0); make one with :func:`gradient_flow`.

    Each eigenvector v of the Gram matrix is learned on its own, at the rate ``2 g / m^2`` for its
    eigenvalue g (of order m, so that the function moves at rate tau / m):
    ``A v = exp(-rate tau) A(0) v + (1 - exp(-rate tau)) A_inf v``.

    Attributes
    ----------
    vectors : array
        Eigenvectors in columns, (m, m).
    rates : array
        (m,), ascending; 0 for directions that the loss cannot see.
    start, slope : array
        A(0), and what drives it, ``2 H^T / m``, in the eigenvectors' coordinates, (dim, m).
    """

    vectors: NDArray[np.float64]
    rates: NDArray[np.float64]
    start: NDArray[np.float64]
    slope: NDArray[np.float64]

    def at(self, taus: ArrayLike) -> NDArray[np.float64]:
        """A(tau) at increasing times (K,), not negative, infinity included: (K, dim, m).

        Cost: ``2 K m^2 dim`` flops.

        Raises
        ------
        ValueError
            For times that are negative or do not increase.
        """
        return self._coordinates(checked_times(taus)) @ self.vectors.T

    def loss_above_limit(self, taus: ArrayLike) -> NDArray[np.float64]:
        """``L(A(tau)) - L(A(inf))``, (K,), without the cancellation of a difference.

        Raises
        ------
        ValueError
            For times that are negative or do not increase.
        """
        away = (self.start - self._limit)[None] * self._remains(checked_times(taus))
        return (away**2 * self.rates).sum((1, 2)) / 2

    @cached_property
    def _limit(self) -> NDArray[np.float64]:
        """A(inf) in the eigenvectors' coordinates, (dim, m)."""
        seen = self.rates > 0
        return np.where(seen, self.slope / np.where(seen, self.rates, 1.0), self.start)

    def _remains(self, taus: NDArray[np.float64]) -> NDArray[np.float64]:
        """Share of the way that is left, (K, 1, m)."""
        seen = self.rates > 0
        left = np.ones((len(taus), 1, len(seen)))
        left[:, 0, seen] = np.exp(-taus[:, None] * self.rates[seen])
        return left

    def _coordinates(self, taus: NDArray[np.float64]) -> NDArray[np.float64]:
        seen = self.rates > 0
        moved = np.zeros((len(taus), 1, len(seen)))
        moved[:, 0, seen] = -np.expm1(-taus[:, None] * self.rates[seen])
        return self.start + moved * (self._limit - self.start)


def gradient_flow(loss: QuadraticLoss, start: NDArray[np.float64] | None = None) -> GradientFlow:
    """Solve the gradient flow of a loss of any law: samples, population, or random numbers.

    ``start`` is A(0), (dim, m), by default 0. Exact up to rounding: directions whose eigenvalue is
    below the rounding of the largest, ``m eps g_max``, are left as they were; they would start to
    move at ``tau ~ m / (2 eps g_max)``. Cost: one eigendecomposition, about ``10 m^3`` flops.
    ValueError for a start of the wrong shape, or a loss that is not finite.
    """
    m, dim = loss.cross.shape
    start = np.zeros((dim, m)) if start is None else np.asarray(start, dtype=np.float64)
    if start.shape != (dim, m):
        raise ValueError(f"A(0) must be ({dim}, {m}), got {start.shape}")
    if not (np.isfinite(loss.gram).all() and np.isfinite(loss.cross).all()):
        raise ValueError("the loss is not finite: its nodes or features overflow")
    values, vectors = np.linalg.eigh(loss.gram)
    seen = values > m * np.finfo(np.float64).eps * values[-1]
    rates = np.where(seen, 2 * values / m**2, 0.0)
    return GradientFlow(vectors, rates, start @ vectors, 2 * loss.cross.T @ vectors / m)


def checked_times(taus: ArrayLike) -> NDArray[np.float64]:
    """Training times (K,) as float64.

    Raises
    ------
    ValueError
        For times that are negative, not numbers, or do not increase.
    """
    times = np.asarray(taus, dtype=np.float64)
    if (
        times.ndim != 1
        or not len(times)
        or not (times >= 0).all()
        or not (np.diff(times) > 0).all()
    ):
        raise ValueError("training times tau must be a list of numbers >= 0 that increase")
    return times
