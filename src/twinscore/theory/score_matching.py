"""The score-matching loss of a random-feature model: a quadratic form in its coefficients."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from twinscore.theory.nodes import Nodes
from twinscore.theory.random_features import RandomFeatures, check_width

_CHUNK = 2**23
"""Numbers held at a time, for (points, features) arrays."""


@dataclass(frozen=True, eq=False)
class QuadraticLoss:
    """``L(A) = tr(A G A^T) / m^2 - 2 tr(A H) / m + c``; made by :func:`quadratic_losses`.

    Attributes
    ----------
    gram : array
        G (m, m): weighted mean of ``phi phi^T``.
    cross : array
        H (m, dim): weighted mean of ``phi`` times the targets.
    constant : float
        c: the loss of the model that is 0.
    floor : float
        What denoising score matching adds; 0 where the targets are the noise itself, whose loss
        includes it.
    """

    gram: NDArray[np.float64]
    cross: NDArray[np.float64]
    constant: float
    floor: float

    @property
    def width(self) -> int:
        """Number of features m."""
        return len(self.gram)

    def narrowed(self, width: int) -> "QuadraticLoss":
        """The loss of the model that has the first features only.

        Raises
        ------
        ValueError
            For a width below 1 or above m.
        """
        check_width(width, self.width)
        few = slice(width)
        return QuadraticLoss(self.gram[few, few], self.cross[few], self.constant, self.floor)

    def __call__(self, A: NDArray[np.float64]) -> NDArray[np.float64]:
        """Loss of coefficients (..., dim, m), (...). Cost: ``2 m^2 dim`` flops for each."""
        m = self.width
        square = ((A @ self.gram) * A).sum((-2, -1)) / m**2
        return square - 2 * (A * self.cross.T).sum((-2, -1)) / m + self.constant

    def gradient(self, A: NDArray[np.float64]) -> NDArray[np.float64]:
        """Gradient in the coefficients, of the shape of ``A``."""
        m = self.width
        return 2 * (A @ self.gram / m - self.cross.T) / m


def quadratic_losses(features: RandomFeatures, nodes: Iterable[Nodes]) -> list[QuadraticLoss]:
    """The losses of the D laws that share the nodes, which are consumed block by block.

    Cost: for P points in all, P m activations and ``P m^2 D`` flops; memory is the D Gram matrices
    and a chunk of features. ValueError for no nodes, or nodes of the wrong dimension.
    """
    m, size = features.width, max(1, _CHUNK // features.width)
    grams = crosses = constants = floors = None
    for block in nodes:
        if grams is None:
            laws = len(block.weights)
            grams, crosses = np.zeros((laws, m, m)), np.zeros((laws, m, features.dim))
            constants, floors = np.zeros(laws), np.zeros(laws)
        floors += block.floor
        for first in range(0, len(block.points), size):
            part = slice(first, first + size)
            phi = features(block.t, block.points[part])
            for d, weights in enumerate(np.sqrt(block.weights[:, part, None])):
                rows, targets = weights * phi, weights * block.targets[d, part]
                grams[d] += rows.T @ rows
                crosses[d] += rows.T @ targets
                constants[d] += (targets**2).sum()
    if grams is None:
        raise ValueError("a loss needs nodes")
    return [
        QuadraticLoss(*parts)
        for parts in zip(grams, crosses, constants.tolist(), floors.tolist(), strict=True)
    ]
