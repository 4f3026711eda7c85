"""The whole Jacobian at one image, for sizes where it fits."""

from dataclasses import dataclass

import torch
from torch import Tensor

from twinscore.analysis.jacobian.products import Linearisation

_CHUNK_VALUES = 2**24
"""Entries of the unit vectors made at once (64 MiB of float32)."""


def full(linearisation: Linearisation) -> Tensor:
    """Jacobian at one image, (d, d): entry (i, j) is the derivative of output i by input j.

    Cost: d forward products. Memory: d^2 values, and chunks. ValueError if there are several
    images.
    """
    d = linearisation.d
    columns = linearisation.y.new_empty(d, d)
    rows = max(1, _CHUNK_VALUES // d)
    for start in range(0, d, rows):
        units = unit_vectors(linearisation.y, start, min(d, start + rows))
        columns[start : start + rows] = linearisation.forward(units)
    return columns.T


@dataclass(frozen=True, eq=False)
class Decomposed:
    """The whole Jacobian at one image and the eigenbasis of its symmetric part, float64, CPU.

    Attributes
    ----------
    matrix, symmetric : Tensor
        J and ``(J + J')/2``, (d, d).
    values : Tensor
        (d,), falling.
    vectors : Tensor
        (d, d), orthonormal, one per row.
    """

    matrix: Tensor
    symmetric: Tensor
    values: Tensor
    vectors: Tensor

    @property
    def asymmetry(self) -> Tensor:
        """``|J - J'|_F / |J|_F``, 0 to 2; NaN where J is zero."""
        return (self.matrix - self.matrix.T).norm() / self.matrix.norm()


def decompose(linearisation: Linearisation) -> Decomposed:
    """Form the Jacobian whole and find its eigenbasis; costs, errors as :func:`full`."""
    matrix = full(linearisation).detach().cpu().double()
    symmetric = (matrix + matrix.T) / 2
    return Decomposed(matrix, symmetric, *symmetric_basis(symmetric))


def symmetric_basis(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenbasis of the symmetric part of a matrix (d, d), float64 on the CPU.

    Values, (d,), fall; vectors, (d, d), are orthonormal, one per row.
    """
    matrix = matrix.detach().cpu().double()
    values, columns = torch.linalg.eigh((matrix + matrix.T) / 2)
    return values.flip(0), columns.T.flip(0).contiguous()


def unit_vectors(y: Tensor, start: int, stop: int) -> Tensor:
    """Rows ``start .. stop - 1`` of the identity of d = C H W dimensions, like ``y``."""
    units = y.new_zeros(stop - start, y[0].numel())
    units.diagonal(start).fill_(1)
    return units
