"""Targets: densities known exactly, and what a forward process makes of them.

Points are (n, dim) arrays; everything is evaluated in the log domain, so that modes any distance
apart keep their scores.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import entr, logsumexp, softmax

from twinscore.theory.processes import Process
from twinscore.theory.quadrature import grid, panels, rule

REACH = 9.0
"""Standard deviations beyond a mean at which quadrature ends; 2e-19 of the mass lies outside."""

_STEPS = np.linspace(-REACH, REACH, 13)
_CHUNK = 2**22
"""Numbers held at a time, for (points, components) arrays."""
_WINDOW = 12.0
"""Standard deviations of the noise within which a bounded support is integrated over."""
_NODES = 128
_CELLS = 4096


class Density(Protocol):
    """A density on a space of ``dim`` dimensions."""

    dim: int

    def density(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Density at points (n, dim), (n,)."""

    def log_density(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Log density at points (n, dim), (n,), nats."""

    def score(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Gradient of the log density at points (n, dim), (n, dim)."""

    def edges(self) -> list[NDArray[np.float64]]:
        """For each dimension, edges of panels on which Gauss quadrature of the density is exact."""

    @property
    def width(self) -> float:
        """Smallest length over which the density rises or falls; 0 where it jumps."""


class Target(Density, Protocol):
    """A density to learn."""

    def draw(self, count: int, generator: np.random.Generator) -> NDArray[np.float64]:
        """Samples, (count, dim)."""

    def at(self, process: Process, t: float) -> Density:
        """Density of x_t when x_0 is drawn from the target."""

    def entropy(self) -> float:
        """Differential entropy, nats."""


@dataclass(frozen=True, eq=False)
class Mixture:
    """``sum_k w_k N(m_k, diag v_k)``; make one with a function of this module.

    Cost of a call on n points: of order n K dim; memory is bounded by chunks of points.

    Attributes
    ----------
    weights : array
        (K,), positive, summing to 1.
    means, variances : array
        (K, dim). Variances of 0 (an empirical law) have a density only once noise is added.
    """

    weights: NDArray[np.float64]
    means: NDArray[np.float64]
    variances: NDArray[np.float64]

    @property
    def dim(self) -> int:
        """Dimension of a point."""
        return self.means.shape[1]

    @property
    def width(self) -> float:
        """Smallest standard deviation of a component."""
        return float(np.sqrt(self.variances.min()))

    def log_density(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Log density at points (n, dim), (n,), nats.

        Raises
        ------
        ValueError
            For points of the wrong dimension, or where a variance is 0.
        """
        parts = [logsumexp(self._log_joint(part), axis=1) for part in self._parts(x)]
        return np.concatenate(parts)

    def density(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Density at points (n, dim), (n,); raises as :meth:`log_density`."""
        return np.exp(self.log_density(x))

    def score(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Gradient of the log density, (n, dim); raises as :meth:`log_density`."""
        parts = []
        for part in self._parts(x):
            chosen = softmax(self._log_joint(part), axis=1)
            parts.append(
                chosen @ (self.means / self.variances) - part * (chosen @ (1 / self.variances))
            )
        return np.concatenate(parts)

    def draw(self, count: int, generator: np.random.Generator) -> NDArray[np.float64]:
        """Samples, (count, dim)."""
        chosen = generator.choice(len(self.weights), size=count, p=self.weights)
        z = generator.standard_normal((count, self.dim))
        return self.means[chosen] + np.sqrt(self.variances[chosen]) * z

    def at(self, process: Process, t: float) -> "Mixture":
        """Density of x_t: each component scaled and widened."""
        scale, noise = float(process.scale(t)), float(process.deviation(t)) ** 2
        return Mixture(self.weights, scale * self.means, scale**2 * self.variances + noise)

    def edges(self) -> list[NDArray[np.float64]]:
        """Panel edges for each dimension, out to 9 deviations beyond every mean."""
        deviations = np.sqrt(self.variances)
        return [
            _thinned(m[:, None] + s[:, None] * _STEPS, s.min())
            for m, s in zip(self.means.T, deviations.T, strict=True)
        ]

    def entropy(self) -> float:
        """Differential entropy, nats, by quadrature in up to 3 dimensions.

        Raises
        ------
        ValueError
            In more dimensions, or where a variance is 0.
        """
        return _entropy(self)

    def _parts(self, x: NDArray[np.float64]) -> list[NDArray[np.float64]]:
        if x.ndim != 2 or x.shape[1] != self.dim:
            raise ValueError(f"points must be (n, {self.dim}), got {x.shape}")
        if not (self.variances > 0).all():
            raise ValueError("a law of points has no density before noise is added: take t > 0")
        size = max(1, _CHUNK // self.means.size)
        return [x[i : i + size] for i in range(0, max(len(x), 1), size)]

    def _log_joint(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """``log w_k N(x; m_k, v_k)``, (n, K)."""
        energy = ((x[:, None] - self.means) ** 2 / self.variances).sum(2)
        norm = np.log(2 * np.pi * self.variances).sum(1)
        return np.log(self.weights) - (energy + norm) / 2


def gaussian_mixture(weights: ArrayLike, means: ArrayLike, variances: ArrayLike) -> Mixture:
    """A Gaussian mixture of K components with diagonal covariances.

    Parameters
    ----------
    weights : array
        (K,), positive, summing to 1.
    means : array
        (K,) in one dimension, or (K, dim).
    variances : array
        Positive: one number, (K,), or (K, dim).

    Raises
    ------
    ValueError
        For weights that are not positive or do not sum to 1, variances that are not positive, means
        that are not finite, or shapes that disagree.
    """
    w, m, v = (np.asarray(a, dtype=np.float64) for a in (weights, means, variances))
    m = m[:, None] if m.ndim == 1 else m
    v = v[:, None] if v.ndim == 1 else v
    if w.ndim != 1 or m.ndim != 2 or len(m) != len(w) or v.shape not in ((), (len(w), 1), m.shape):
        raise ValueError(
            "a mixture takes weights (K,), means (K,) or (K, dim), and variances of that shape, "
            f"(K,) or one number; got {np.shape(weights)}, {np.shape(means)}, {np.shape(variances)}"
        )
    if not (w > 0).all() or abs(w.sum() - 1) > 1e-9:
        raise ValueError(f"the weights of a mixture must be positive and sum to 1, got {w}")
    if not ((v > 0) & np.isfinite(v)).all():
        raise ValueError(f"the variances of a mixture must be positive, got {np.ravel(variances)}")
    if not np.isfinite(m).all():
        raise ValueError("the means of a mixture must be finite")
    return Mixture(w / w.sum(), m, np.broadcast_to(v, m.shape).copy())


def two_modes(mu: float, weights: Sequence[float] = (0.5, 0.5)) -> Mixture:
    """``q_1 N(-mu, 1) + q_2 N(mu, 1)``, the target of the modes-shift study ([GP]).

    Examples
    --------
    >>> from twinscore.theory.targets import two_modes
    >>> two_modes(3.0).means.ravel()
    array([-3.,  3.])
    """
    return gaussian_mixture(weights, [-mu, mu], 1.0)


def prior(process: Process, dim: int = 1) -> Mixture:
    """The centred Gaussian pi from which the reverse process starts."""
    return gaussian_mixture([1.0], np.zeros((1, dim)), process.prior)


def empirical(points: NDArray[np.float64]) -> Mixture:
    """The law of n equally probable points (n, dim): with noise, a mixture of n Gaussians.

    Raises
    ------
    ValueError
        For no points, or points that are not finite.
    """
    if points.ndim != 2 or not len(points) or not np.isfinite(points).all():
        raise ValueError(f"need finite points (n, dim), n >= 1, got {points.shape}")
    return Mixture(np.full(len(points), 1 / len(points)), points, np.zeros_like(points))


@dataclass(frozen=True, eq=False)
class Bounded:
    """A density on [lower, upper], smooth inside; make one with :func:`bounded`.

    With noise, an integral over the points of the support within 12 deviations, by Gauss quadrature
    of 128 nodes: exact to rounding for a log density that is smooth at that scale. Cost of a call
    on n points: 128 n evaluations.

    Attributes
    ----------
    function : callable
        Log density up to ``log_mass``, elementwise.
    lower, upper : float
        Ends of the support.
    log_mass : float
        Log of the integral of ``exp(function)``.
    scale, deviation : float
        ``x = scale y + deviation z`` with y from the density on the support; 1 and 0 at time 0.
    """

    function: Callable[[NDArray[np.float64]], NDArray[np.float64]]
    lower: float
    upper: float
    log_mass: float
    scale: float = 1.0
    deviation: float = 0.0

    dim = 1

    @property
    def width(self) -> float:
        """Standard deviation of the noise that rounds the ends."""
        return self.deviation

    def log_density(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Log density at points (n, 1), (n,), nats; -inf outside the support without noise.

        Raises
        ------
        ValueError
            For points of the wrong dimension.
        """
        if x.ndim != 2 or x.shape[1] != 1:
            raise ValueError(f"points must be (n, 1), got {x.shape}")
        if self.deviation == 0:
            y = x[:, 0] / self.scale
            inside = (y >= self.lower) & (y <= self.upper)
            values = self.function(np.clip(y, self.lower, self.upper)) - self.log_mass
            return np.where(inside, values - np.log(self.scale), -np.inf)
        parts = [logsumexp(self._log_joint(part)[0], axis=1) for part in self._parts(x)]
        return np.concatenate(parts)

    def density(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Density at points (n, 1), (n,); raises as :meth:`log_density`."""
        return np.exp(self.log_density(x))

    def score(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Gradient of the log density at points (n, 1), (n, 1).

        Raises
        ------
        ValueError
            Without noise, where the density ends abruptly.
        """
        if self.deviation == 0:
            raise ValueError("a density of bounded support has a score only with noise: take t > 0")
        parts = []
        for part in self._parts(x):
            log_joint, y = self._log_joint(part)
            pull = (self.scale * y - part) / self.deviation**2
            parts.append((softmax(log_joint, axis=1) * pull).sum(1))
        return np.concatenate(parts)[:, None]

    def draw(self, count: int, generator: np.random.Generator) -> NDArray[np.float64]:
        """Samples (count, 1): the distribution function inverted on 4096 cells of exact mass."""
        cells = np.linspace(self.lower, self.upper, _CELLS + 1)
        nodes, weights = panels(cells, 4)
        mass = (weights * np.exp(self.function(nodes) - self.log_mass)).reshape(_CELLS, -1).sum(1)
        cumulative = np.append(0.0, np.cumsum(mass)) / mass.sum()
        y = np.interp(generator.random(count), cumulative, cells)
        z = generator.standard_normal(count)
        return (self.scale * y + self.deviation * z)[:, None]

    def at(self, process: Process, t: float) -> "Bounded":
        """Density of x_t; if the law already has noise, the variances add up."""
        scale, noise = float(process.scale(t)), float(process.deviation(t))
        return Bounded(
            self.function,
            self.lower,
            self.upper,
            self.log_mass,
            scale * self.scale,
            float(np.hypot(scale * self.deviation, noise)),
        )

    def edges(self) -> list[NDArray[np.float64]]:
        """Panel edges: across the support, finer where noise rounds its ends."""
        lower, upper = self.scale * self.lower, self.scale * self.upper
        inner = np.linspace(lower, upper, 17)
        if self.deviation == 0:
            return [inner]
        ends = np.array([[lower], [upper]]) + self.deviation * _STEPS
        return [_thinned(np.append(inner, ends), self.deviation)]

    def entropy(self) -> float:
        """Differential entropy, nats, by quadrature."""
        return _entropy(self)

    def _parts(self, x: NDArray[np.float64]) -> list[NDArray[np.float64]]:
        size = _CHUNK // _NODES
        return [x[i : i + size] for i in range(0, max(len(x), 1), size)]

    def _log_joint(self, x: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Log of weight, density and noise kernel, and the points y of the support, (n, nodes)."""
        nodes, weights = rule(_NODES)
        centre = np.clip(x / self.scale, self.lower, self.upper)
        width = _WINDOW * self.deviation / self.scale
        low = np.maximum(self.lower, centre - width)
        half = (np.minimum(self.upper, centre + width) - low) / 2
        y = low + half * (1 + nodes)
        energy = ((x - self.scale * y) / self.deviation) ** 2 + np.log(2 * np.pi)
        log_kernel = -energy / 2 - np.log(self.deviation)
        return np.log(half * weights) + self.function(y) - self.log_mass + log_kernel, y


def bounded(
    function: Callable[[NDArray[np.float64]], NDArray[np.float64]], lower: float, upper: float
) -> Bounded:
    """Density proportional to ``exp(function)`` on [lower, upper].

    Raises
    ------
    ValueError
        For ends that are not finite or do not increase, or a function without a finite integral.
    """
    if not (-np.inf < lower < upper < np.inf):
        raise ValueError(f"the support must be finite, lower < upper; got [{lower}, {upper}]")
    nodes, weights = panels(np.linspace(lower, upper, 65))
    log_mass = float(logsumexp(function(nodes), b=weights))
    if not np.isfinite(log_mass):
        raise ValueError("exp of the log density must have a finite, positive integral")
    return Bounded(function, lower, upper, log_mass)


def uniform(lower: float, upper: float) -> Bounded:
    """The uniform density on [lower, upper]; raises as :func:`bounded`."""
    return bounded(np.zeros_like, lower, upper)


def _thinned(values: NDArray[np.float64], deviation: float) -> NDArray[np.float64]:
    """Sorted values, the first and last kept, those less than half a deviation apart dropped."""
    ordered = np.unique(values)
    bins = np.floor((ordered - ordered[0]) / (deviation / 2))
    _, first = np.unique(bins, return_index=True)
    return np.append(ordered[first[:-1]], ordered[-1])


def _entropy(density: Density) -> float:
    if density.dim > 3:
        raise ValueError(f"entropy is by quadrature in up to 3 dimensions, got {density.dim}")
    nodes, weights = grid(density.edges())
    return float(weights @ entr(density.density(nodes)))
