"""The whole Jacobian at one image, for sizes where it fits."""

import torch
from torch import Tensor

from twinscore.analysis.jacobian.products import Linearisation

_CHUNK_VALUES = 2**24
"""Entries of the unit vectors made at once (64 MiB of float32)."""


def full(linearisation: Linearisation) -> Tensor:
    """Jacobian at one image.

    Parameters
    ----------
    linearisation : Linearisation
        Of one image.

    Returns
    -------
    Tensor
        (d, d); entry (i, j) is the derivative of output i by input j. Cost: d forward products.
        Memory: d^2 values, and chunks.

    Raises
    ------
    ValueError
        If there are several images.
    """
    d = linearisation.d
    columns = linearisation.y.new_empty(d, d)
    rows = max(1, _CHUNK_VALUES // d)
    for start in range(0, d, rows):
        units = unit_vectors(linearisation.y, start, min(d, start + rows))
        columns[start : start + rows] = linearisation.forward(units)
    return columns.T


def symmetric_basis(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenbasis of ``(J + J')/2``.

    Parameters
    ----------
    matrix : Tensor
        (d, d), see :func:`full`.

    Returns
    -------
    values : Tensor
        (d,) float64 on the CPU, falling.
    vectors : Tensor
        (d, d), orthonormal, a row each.
    """
    matrix = matrix.detach().cpu().double()
    values, columns = torch.linalg.eigh((matrix + matrix.T) / 2)
    return values.flip(0), columns.T.flip(0).contiguous()


def unit_vectors(y: Tensor, start: int, stop: int) -> Tensor:
    """Rows ``start .. stop - 1`` of the identity of d = C H W dimensions, like ``y``."""
    units = y.new_zeros(stop - start, y[0].numel())
    units.diagonal(start).fill_(1)
    return units
