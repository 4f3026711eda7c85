"""Nodes and weights for integrals of densities that may be narrow: only where they have mass."""

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from torch import Tensor

_FIRST = 3
"""Cells along each side of the cube at the start."""

_MOST = 2**18
"""Number of cells beyond which an integral is given up."""

_DEPTH = 18.0
"""How far, in nats, a window reaches below the density's maximum."""

_LEAST = 1e-300
"""Length of a window that rounds to zero."""


def adaptive_nodes(
    log_density: Callable[[Tensor], Tensor], dimension: int, tolerance: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gauss-Legendre nodes in cells of the unit cube, cut where an integrand needs it.

    Every cell has three nodes per side. For ``exp(a t)`` along one side their relative error is
    ``r^6 / 435000``, r the range of exponents between nodes. These errors, summed over sides and
    raised by ``exp(R / 4)`` for what may hide between the nodes, R the range within the cell, are
    brought below the tolerance by halving the cells that have most of them.

    Parameters
    ----------
    log_density : callable
        Points (M, dimension) float64 to the logarithm of the integrand, (M,).
    dimension : int
        Of the cube.
    tolerance : float
        Largest estimated error, relative to the integral.

    Returns
    -------
    points : Tensor
        (M, dimension) float64.
    log_weights : Tensor
        (M,) float64: logarithms of the nodes' volumes, which sum to 1.
    values : Tensor
        (M,) float64, the logarithm of the integrand at the points.

    Raises
    ------
    RuntimeError
        If 2^18 cells do not reach the tolerance.
    """
    corners = _grid(_FIRST, dimension) / _FIRST
    widths = torch.full((len(corners),), 1 / _FIRST, dtype=torch.float64)
    inner = 0.5 + (_grid(3, dimension) - 1) * math.sqrt(0.15)
    shares = (_grid(3, dimension) - 1).abs().mul(-3 / 18).add(8 / 18).log().sum(1)
    halves = _grid(2, dimension) / 2
    values = log_density(_points(corners, widths, inner)).view(len(corners), -1)
    while True:
        integrals = (values + shares).logsumexp(1) + dimension * widths.log()
        errors = integrals - integrals.logsumexp(0) + _log_errors(values, dimension)
        if errors.logsumexp(0) <= math.log(tolerance):
            break
        if len(values) > _MOST:
            raise RuntimeError(f"{len(values)} cells do not reach the tolerance {tolerance:g}")
        ascending = errors.sort()
        fine = ascending.values.logcumsumexp(0) <= math.log(tolerance / 2)
        cut = torch.ones_like(fine).index_fill(0, ascending.indices[fine], False)
        new = (corners[cut, None] + widths[cut, None, None] * halves).flatten(0, 1)
        new_widths = (widths[cut] / 2).repeat_interleave(len(halves))
        new_values = log_density(_points(new, new_widths, inner)).view(len(new), -1)
        corners, widths = torch.cat([corners[~cut], new]), torch.cat([widths[~cut], new_widths])
        values = torch.cat([values[~cut], new_values])
    volumes = dimension * widths.log()[:, None] + shares
    points = _points(corners, widths, inner)
    return points, volumes.flatten(), values.flatten()


def window(mean: Tensor, deviation: Tensor) -> tuple[Tensor, Tensor]:
    """Nodes and log weights on the part of [0, 1] where a normal density matters, (..., 20).

    The part reaches 18 nats below the density's maximum on [0, 1], which may lie at an end.
    """
    top = mean.clamp(0, 1)
    reach = ((top - mean).square() + 2 * _DEPTH * deviation.square()).sqrt()
    low, high = (mean - reach).clamp(0, 1), (mean + reach).clamp(0, 1)
    at, weights = (part.to(mean.device) for part in _legendre())
    length = (high - low).clamp_min(_LEAST)[..., None]
    return low[..., None] + length * at, (length * weights).log()


def cut_normal(mean: Tensor, deviation: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Log probability of [0, 1] under a normal law, and its moments on that interval.

    Exact in both tails: the law is mirrored to have its mean below 1/2.

    Returns
    -------
    log_mass, mean, variance, skew : Tensor
        The moments are of order 1 to 3, the last two central.
    """
    mirrored = mean > 0.5
    near = torch.where(mirrored, 1 - mean, mean)
    low, high = -near / deviation, (1 - near) / deviation
    above, beyond = torch.special.log_ndtr(-low), torch.special.log_ndtr(-high)
    log_mass = above + torch.log1p(-(beyond - above).exp())
    at_low, at_high = (
        (-(end**2) / 2 - log_mass).exp() / math.sqrt(2 * math.pi) for end in (low, high)
    )
    shift = at_low - at_high
    first = near + deviation * shift
    second = 1 + low * at_low - high * at_high
    third = 2 * shift + low**2 * at_low - high**2 * at_high
    variance = deviation**2 * (second - shift**2)
    skew = deviation**3 * (third - shift * (3 * second - 2 * shift**2))
    return (
        log_mass,
        torch.where(mirrored, 1 - first, first),
        variance.clamp_min(0),
        torch.where(mirrored, -skew, skew),
    )


@cache
def _legendre() -> tuple[Tensor, Tensor]:
    nodes, weights = np.polynomial.legendre.leggauss(20)
    return torch.from_numpy(0.5 + nodes / 2), torch.from_numpy(weights / 2)


def _log_errors(values: Tensor, dimension: int) -> Tensor:
    """Log error estimate of each cell, relative to its integral; (M, nodes) to (M,)."""
    cells = values.unflatten(1, (3,) * dimension)
    axes = range(1, dimension + 1)
    ranges = [(cells.amax(k) - cells.amin(k)).flatten(1).amax(1) for k in axes]
    total = values.amax(1) - values.amin(1)
    return (6 * torch.stack(ranges).log()).logsumexp(0) + total / 4 - math.log(435_000)


def _grid(side: int, dimension: int) -> Tensor:
    """Integer points of a cube, (side^dimension, dimension)."""
    line = torch.arange(side, dtype=torch.float64)
    return torch.cartesian_prod(*[line] * dimension).view(-1, dimension)


def _points(corners: Tensor, widths: Tensor, inner: Tensor) -> Tensor:
    return (corners[:, None] + widths[:, None, None] * inner).flatten(0, 1)
