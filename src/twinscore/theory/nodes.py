"""Where a score-matching loss is evaluated: weighted points of noised data, with targets.

The lambda-weighted loss of a score model s is, with t uniform on [start, T],

    L = E_t lambda(t) E || s(t, x_t) - grad log p_t(x_t) ||^2.

Denoising score matching puts ``-z / deviation(t)`` in place of the score, which adds a constant
(the *floor*). Each function here turns a law of x_0 into points, weights and targets such that L is
a weighted sum of squares, one block of points at a time.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from twinscore.theory.processes import Process, Schedule
from twinscore.theory.quadrature import grid
from twinscore.theory.targets import Target

_CHUNK = 2**22
"""Numbers held at a time, for (points, atoms) and (samples, draws) arrays."""
_REACH = 8.5
"""Deviations at which Gaussian kernels end, 2e-17 of their mass beyond."""
_BAND = 64
"""Neighbouring points, which take noise from the same part of the grid."""
_NEGLIGIBLE = 1e-20
"""Density, relative to the largest, below which a point is left out."""


@dataclass(frozen=True, eq=False)
class TimeRule:
    """Times of a loss; make one with :func:`time_rule`.

    Attributes
    ----------
    times : array
        Increasing, (K,).
    weights : array
        (K,): quadrature weight of each time, times ``lambda(t)``.
    """

    times: NDArray[np.float64]
    weights: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Nodes:
    """Points at one time, shared by D laws of x_0 that weigh them differently.

    Attributes
    ----------
    t : float
        The time.
    points : array
        (P, dim).
    weights : array
        (D, P), not negative: time weight, ``lambda(t)`` and probability.
    targets : array
        (D, P, dim): what the score model is compared with.
    floor : array
        (D,): what denoising score matching adds to the sum of squares.
    """

    t: float
    points: NDArray[np.float64]
    weights: NDArray[np.float64]
    targets: NDArray[np.float64]
    floor: NDArray[np.float64]


def time_rule(
    process: Process, *, weighting: Schedule | None = None, count: int = 32, start: float = 1e-3
) -> TimeRule:
    """Gauss-Legendre quadrature in log t of the mean over t uniform on [start, T].

    ``count`` times, from ``start`` since scores are unbounded at 0. The weighting is ``lambda(t)``,
    by default ``deviation(t)^2``, which counts noise levels equally; ``process.diffusion`` gives
    that of the likelihood bound. ValueError for no times, a start outside (0, T), or a weighting
    that is negative or not finite.
    """
    if count < 1 or not (0 < start < process.end):
        raise ValueError(
            f"need a count of times >= 1 and a start in (0, {process.end}), got {count}, {start}"
        )
    nodes, weights = np.polynomial.legendre.leggauss(count)
    half = np.log(process.end / start) / 2
    times = start * np.exp(half * (1 + nodes))
    weighted = weighting(times) if weighting else process.deviation(times) ** 2
    if not np.isfinite(weighted).all() or (weighted < 0).any():
        raise ValueError("the weighting must be finite and not negative")
    return TimeRule(times, half * weights * times / (process.end - start) * weighted)


def population_nodes(
    target: Target, process: Process, rule: TimeRule, *, widest: float = 1.5
) -> Iterator[Nodes]:
    """The loss of infinitely many samples, by Gauss quadrature of p_t; targets are its score.

    Gives one block for each time, of one law in one dimension, or a few: the points form a product.
    ``widest`` is the width of the widest panel of 16 points. Panels resolve p_t by themselves; this
    one makes them resolve the features: at 1.5 a smooth activation of weight 3 is exact to about
    1e-8. Where a ReLU bends within a panel the error is of second order in the spacing.
    """
    for t, weight in zip(rule.times, rule.weights, strict=True):
        law = target.at(process, float(t))
        points, volume = grid([_split(edges, widest) for edges in law.edges()])
        weights = weight * volume * law.density(points)
        kept = weights > _NEGLIGIBLE * weights.max()
        points, weights = points[kept], weights[kept][None]
        targets = law.score(points)[None]
        yield Nodes(float(t), points, weights, targets, _floor(process, t, weights, targets))


def empirical_nodes(
    samples: Sequence[NDArray[np.float64]],
    process: Process,
    rule: TimeRule,
    *,
    resolution: float = 1.25,
    spacing: float = 0.15,
) -> Iterator[Nodes]:
    """The losses of D data sets in one dimension, their noise integrated; targets are scores.

    The noised samples have the density ``mean_i N(x; scale x_i, deviation^2)``. It is computed in
    two steps, since noise may be added twice: the samples, blurred with half the smallest noise
    variance, become weights on a uniform grid, and a matrix product adds the rest at each
    time. Points are evenly spaced, where the trapezoid rule converges faster than any power of the
    spacing for smooth activations (for ReLU, whose kinks fall between points, at second order).

    Parameters
    ----------
    samples : sequence of array
        D arrays (n, 1); n may differ.
    process, rule : Process, TimeRule
        The noise and the times.
    resolution : float
        Points within a deviation of the noise: at 1.25 the density is exact to 1e-13.
    spacing : float
        Largest distance of points, which must resolve the features: at 0.15, a smooth activation
        of weight 3 is exact to about 1e-8.

    Yields
    ------
    Nodes
        One block for each time. Cost: of order 40 n for each data set, and a product of (points,
        grid) by (grid, D) matrices at each time, for any n.

    Raises
    ------
    ValueError
        For no data set, or one that is empty, not (n, 1) or not finite.
    """
    _check_samples(samples, dim=1)
    narrowest = (process.deviation(rule.times) / process.scale(rule.times)).min() / np.sqrt(2)
    atoms, masses = _condensed(samples, narrowest)
    for t, weight in zip(rule.times, rule.weights, strict=True):
        scale, noise = float(process.scale(t)), float(process.deviation(t))
        left = np.sqrt(noise**2 - (scale * narrowest) ** 2)
        low, high = scale * atoms[0] - _REACH * left, scale * atoms[-1] + _REACH * left
        step = min(noise / resolution, spacing)
        points = np.arange(low, high + step, step)
        density, slope = _convolved(points, scale * atoms, masses, left)
        kept = density.max(1) > _NEGLIGIBLE * density.max()
        points, density, slope = points[kept], density[kept], slope[kept]
        score = np.divide(slope, density, out=np.zeros_like(slope), where=density > 0)
        weights, targets = weight * step * density.T, score.T[..., None]
        floor = _floor(process, t, weights, targets)
        yield Nodes(float(t), points[:, None], weights, targets, floor)


def sampled_nodes(
    samples: NDArray[np.float64], process: Process, rule: TimeRule, *, draws: int = 1, seed: int
) -> Iterator[Nodes]:
    """The denoising loss of one data set (n, dim) in any dimension, by random numbers.

    The noise depends on seed, time and sample only: all models and coefficients see the same random
    numbers, and so do two data sets for the samples that both begin with. Each sample has ``draws``
    pairs of noise vectors at each time: every draw z comes with -z, so that the variance of the
    gradient stays bounded where the noise vanishes.

    Gives blocks of bounded size, of one law; 2 n draws points for each time. ValueError for no
    samples or draws, or samples that are not finite.
    """
    _check_samples([samples])
    if draws < 1:
        raise ValueError(f"need at least one draw of noise for each sample, got {draws}")
    size = max(1, _CHUNK // (2 * draws * samples.shape[1]))
    for k, (t, weight) in enumerate(zip(rule.times, rule.weights, strict=True)):
        generator = np.random.default_rng([seed, k])
        scale, noise = float(process.scale(t)), float(process.deviation(t))
        for first in range(0, len(samples), size):
            part = samples[first : first + size]
            z = generator.standard_normal((len(part), draws, samples.shape[1]))
            z = np.concatenate([z, -z], axis=1)
            points = (scale * part[:, None] + noise * z).reshape(-1, samples.shape[1])
            weights = np.full((1, len(points)), weight / (2 * draws * len(samples)))
            targets = -z.reshape(1, *points.shape) / noise
            yield Nodes(float(t), points, weights, targets, np.zeros(1))


def _floor(
    process: Process, t: float, weights: NDArray[np.float64], targets: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Mean squared distance of ``-z / deviation`` from the score, weighted, (D,)."""
    total = weights.sum(1) * targets.shape[2] / process.deviation(t) ** 2
    return total - (weights * (targets**2).sum(2)).sum(1)


def _split(edges: NDArray[np.float64], widest: float) -> NDArray[np.float64]:
    """Panel edges with more of them, evenly, between those further apart than ``widest``."""
    parts = np.ceil(np.diff(edges) / widest).astype(int)
    starts, steps = edges[:-1], np.diff(edges) / parts
    within = np.concatenate([np.arange(count) for count in parts])
    return np.append(np.repeat(starts, parts) + within * np.repeat(steps, parts), edges[-1])


def _condensed(
    samples: Sequence[NDArray[np.float64]], deviation: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A uniform grid (J,) and masses on it (J, D): the laws of the samples with noise added."""
    step = deviation / 2
    reach = int(np.ceil(_REACH * deviation / step))
    low = min(s.min() for s in samples) - (reach + 1) * step
    high = max(s.max() for s in samples) + (reach + 1) * step
    atoms = low + step * np.arange(int(np.ceil((high - low) / step)) + 1)
    offsets = np.arange(-reach, reach + 1)
    masses = np.zeros((len(atoms), len(samples)))
    size = max(1, _CHUNK // len(offsets))
    for d, column in enumerate(samples):
        for first in range(0, len(column), size):
            x = column[first : first + size]
            near = np.rint((x - low) / step).astype(int) + offsets
            kernel = np.exp(-(((atoms[near] - x) / deviation) ** 2) / 2)
            masses[:, d] += np.bincount(near.ravel(), kernel.ravel(), len(atoms))
        masses[:, d] *= step / (np.sqrt(2 * np.pi) * deviation * len(column))
    return atoms, masses


def _convolved(
    points: NDArray[np.float64],
    atoms: NDArray[np.float64],
    masses: NDArray[np.float64],
    deviation: float,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Density and its derivative, each (P, D), of the masses at the atoms with noise added."""
    masses = masses / (np.sqrt(2 * np.pi) * deviation)
    density = np.empty((len(points), masses.shape[1]))
    slope = np.empty_like(density)
    for first in range(0, len(points), _BAND):
        part = slice(first, first + _BAND)
        ends = points[part][[0, -1]] + np.array([-1, 1]) * _REACH * deviation
        near = slice(*np.searchsorted(atoms, ends))
        away = (points[part, None] - atoms[near]) / deviation
        kernel = np.exp(-(away**2) / 2)
        density[part] = kernel @ masses[near]
        slope[part] = -(kernel * away) @ masses[near] / deviation
    return density, slope


def _check_samples(samples: Sequence[NDArray[np.float64]], dim: int | None = None) -> None:
    if not samples:
        raise ValueError("need at least one data set")
    for one in samples:
        if one.ndim != 2 or not one.size or (dim is not None and one.shape[1] != dim):
            raise ValueError(f"samples must be (n, {dim or 'dim'}) with n >= 1, got {one.shape}")
        if not np.isfinite(one).all():
            raise ValueError("samples must be finite")
