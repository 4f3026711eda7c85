"""Forward processes: linear diffusions that turn a density into noise.

``dx = f(t) x dt + g(t) dw`` on [0, T], whose law at t given x_0 is ``N(scale x_0, deviation^2)``.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Schedule = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""A function of time, elementwise on arrays of any shape."""

Score = Callable[[float, NDArray[np.float64]], NDArray[np.float64]]
"""``score(t, x)``: gradient of a log density at time t, (n, dim) for points x (n, dim)."""

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(64)
_CHECKED = 257
"""Times in [0, T] at which a schedule is checked."""


@dataclass(frozen=True)
class Process:
    """A linear diffusion ``dx = f(t) x dt + g(t) dw``, and what it does to a point.

    ``x_t = scale(t) x_0 + deviation(t) z`` with z standard normal. The four functions of time take
    floats or arrays of any shape and return arrays of that shape. Make one with
    :func:`variance_preserving` or :func:`variance_exploding`.

    Attributes
    ----------
    scale, deviation : callable
        Factor of x_0 and standard deviation of the noise, at time t.
    drift, diffusion : callable
        ``f(t)`` and ``g(t)^2``.
    end : float
        Last time T.
    prior : float
        Variance of pi, the centred Gaussian from which the reverse process starts at T: 1 where
        the variance is preserved, ``deviation(T)^2`` where it explodes.
    """

    scale: Schedule
    deviation: Schedule
    drift: Schedule
    diffusion: Schedule
    end: float
    prior: float


def ramp(low: float, high: float, end: float = 1.0) -> Schedule:
    """``low + (high - low) t / end``; ``ramp(0, 2)`` gives the exploding ``deviation(t) = t``."""
    return lambda t: low + (high - low) * np.asarray(t, dtype=np.float64) / end


def geometric(base: float) -> Schedule:
    """``base^(2 t)``, the usual diffusion of a variance that explodes."""
    return lambda t: np.power(base, 2 * np.asarray(t, dtype=np.float64))


def variance_preserving(rate: Schedule | None = None, *, end: float = 1.0) -> Process:
    """``dx = -beta(t)/2 x dt + sqrt(beta(t)) dw`` (Song et al. 2021, eq. 11).

    ``rate`` is ``beta(t)``, smooth, not negative; by default it rises from 0.1 to 20 until ``end``,
    T. It is integrated by Gauss quadrature of 64 nodes: to rounding error for smooth rates, and 64
    evaluations of the rate for each time. ValueError for an end that is not positive, or a rate
    that is negative or not finite.
    """
    beta = _checked("rate", rate or ramp(0.1, 20.0, end), end)
    return Process(
        scale=lambda t: np.exp(-_integral(beta, t) / 2),
        deviation=lambda t: np.sqrt(-np.expm1(-_integral(beta, t))),
        drift=lambda t: -beta(t) / 2,
        diffusion=beta,
        end=end,
        prior=1.0,
    )


def variance_exploding(diffusion: Schedule | None = None, *, end: float = 1.0) -> Process:
    """``dx = g(t) dw`` (Song et al. 2021, eq. 9 with the variance starting at 0).

    ``diffusion`` is ``g(t)^2``, smooth, not negative; by default ``25^(2 t)``, until ``end``, T.
    ``ramp(0, 2)`` makes time the noise level itself. The variance comes from Gauss quadrature of 64
    nodes. ValueError for an end that is not positive, or a diffusion that is negative or not
    finite.

    Examples
    --------
    >>> from twinscore.theory.processes import ramp, variance_exploding
    >>> process = variance_exploding(ramp(0, 2))  # g^2 = 2 t: time is the noise level
    >>> round(float(process.deviation(0.5)), 6)
    0.5
    """
    squared = _checked("diffusion", diffusion or geometric(25.0), end)
    return Process(
        scale=lambda t: np.ones_like(t, dtype=np.float64),
        deviation=lambda t: np.sqrt(_integral(squared, t)),
        drift=lambda t: np.zeros_like(t, dtype=np.float64),
        diffusion=squared,
        end=end,
        prior=float(_integral(squared, end)),
    )


def _checked(name: str, schedule: Schedule, end: float) -> Schedule:
    """The schedule as a function of float64 arrays, after a check of its values on [0, T]."""
    if not (0 < end < np.inf):
        raise ValueError(f"the end of a process must be positive and finite, got {end}")

    def fed(t: ArrayLike) -> NDArray[np.float64]:
        at = np.asarray(t, dtype=np.float64)
        return np.broadcast_to(np.asarray(schedule(at), dtype=np.float64), at.shape)

    values = fed(np.linspace(0.0, end, _CHECKED))
    if not np.isfinite(values).all() or (values < 0).any() or not (values > 0).any():
        raise ValueError(f"the {name} of a process must be finite and not negative on [0, {end}]")
    return fed


def _integral(schedule: Schedule, t: ArrayLike) -> NDArray[np.float64]:
    """Integral from 0 to each t."""
    half = np.asarray(t, dtype=np.float64)[..., None] / 2
    return (half * schedule(half * (1 + _NODES)) * _WEIGHTS).sum(-1)
