"""Gauss-Legendre quadrature on panels: the rule behind every integral over a density."""

from functools import cache

import numpy as np
from numpy.typing import NDArray

ORDER = 16
"""Nodes in a panel by default."""


@cache
def rule(order: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Nodes and weights on [-1, 1], each (order,)."""
    nodes, weights = np.polynomial.legendre.leggauss(order)
    nodes.flags.writeable = weights.flags.writeable = False
    return nodes, weights


def panels(
    edges: NDArray[np.float64], order: int = ORDER
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Nodes, ascending, and weights of a composite rule, each (panels * order,).

    Edges are (panels + 1,); polynomials of degree ``2 order - 1`` on each panel are exact.
    ValueError for edges that do not increase.
    """
    if len(edges) < 2 or not (np.diff(edges) > 0).all():
        raise ValueError("the edges of quadrature panels must increase")
    nodes, weights = rule(order)
    half = np.diff(edges)[:, None] / 2
    return (edges[:-1, None] + half * (1 + nodes)).ravel(), (half * weights).ravel()


def grid(
    edges: list[NDArray[np.float64]], order: int = ORDER
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Nodes (n, dim) and weights (n,) of the product of composite rules, one for each dimension."""
    axes = [panels(axis, order) for axis in edges]
    nodes = np.stack(np.meshgrid(*(x for x, _ in axes), indexing="ij"), axis=-1)
    weights = axes[0][1]
    for _, more in axes[1:]:
        weights = np.multiply.outer(weights, more)
    return nodes.reshape(-1, len(axes)), weights.ravel()
