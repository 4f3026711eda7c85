"""Eigenpairs at either end of the spectrum by a block Krylov method that checks its residuals.

A basis starts with a random block and grows by the residuals of those wanted pairs that have not
converged (Davidson 1975 without a preconditioner; for the first blocks this is block Lanczos or
Arnoldi). Blocks are what makes it fast: a product with many vectors costs far less than as many
products. The first block is wider than the number of wanted pairs, so that eigenvalues of any
multiplicity are found.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from twinscore.analysis.jacobian.products import Linearisation, Operator

End = Literal["largest", "smallest"]

Decomposition = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Eigenvalues (m,) and eigenvectors (m, m), in columns, of a small matrix."""

_SPARE = 8
"""Vectors of the first block beyond the wanted pairs."""


@dataclass(frozen=True, eq=False)
class Eigenpairs:
    """Eigenvalues, from the wanted end on, with unit eigenvectors and their residuals.

    Attributes
    ----------
    values : Tensor
        (k,) float64, or complex128 for the Jacobian itself. Complex pairs stand as they are; the
        last value may lack its conjugate.
    vectors : Tensor
        (k, d), unit rows of the same precision. For the symmetric part orthonormal.
    residuals : Tensor
        (k,) ``|A e - lambda e|`` over the largest magnitude among the eigenvalues met on the way.
    products : int
        Products with the matrix that were needed.
    tolerance : float
        Residual that was asked for.
    """

    values: Tensor
    vectors: Tensor
    residuals: Tensor
    products: int
    tolerance: float

    @property
    def converged(self) -> bool:
        """Whether every residual is within the tolerance."""
        return bool((self.residuals <= self.tolerance).all())


def symmetric_eigenpairs(
    linearisation: Linearisation,
    k: int,
    *,
    end: End = "largest",
    tolerance: float = 1e-3,
    max_products: int = 1000,
    seed: int = 0,
) -> Eigenpairs:
    """Eigenpairs of ``(J + J')/2`` at one image.

    Parameters
    ----------
    linearisation : Linearisation
        Of one image.
    k : int
        Number of pairs.
    end : {"largest", "smallest"}
        Which end of the spectrum.
    tolerance : float
        Residual, relative to the largest magnitude of an eigenvalue, at which a pair counts as
        found. In float32 not below about 1e-5.
    max_products : int
        Most products; when they are spent the pairs come back as they are: see ``converged``.
    seed : int
        Seed of the first block.

    Returns
    -------
    Eigenpairs
        Cost: its ``products``, each one forward and one reverse product. Memory: two vectors for
        each product.

    Raises
    ------
    ValueError
        If ``k`` is not within 1 and d, ``max_products`` is too small to hold k vectors, or there
        are several images.
    """
    start = _start(linearisation, k, max_products, seed)
    sign = 1 if end == "largest" else -1
    return _krylov(linearisation.symmetric, start, k, sign, tolerance, max_products, _hermitian)


def eigenpairs(
    linearisation: Linearisation,
    k: int,
    *,
    end: End = "largest",
    tolerance: float = 1e-3,
    max_products: int = 1000,
    seed: int = 0,
) -> Eigenpairs:
    """Eigenpairs of ``J`` itself at one image, by real part; complex ones are reported.

    Parameters, errors and memory as :func:`symmetric_eigenpairs`; each product is one forward
    product. The eigenvectors are right ones, and not orthogonal. Residuals bound the error of
    eigenvalues only through the condition of the eigenvectors.
    """
    start = _start(linearisation, k, max_products, seed)
    sign = 1 if end == "largest" else -1
    return _krylov(linearisation.forward, start, k, sign, tolerance, max_products, _general)


def _start(linearisation: Linearisation, k: int, max_products: int, seed: int) -> Tensor:
    d = linearisation.d
    if not 1 <= k <= d:
        raise ValueError(f"k must be from 1 to the {d} values of an image, got {k}")
    if max_products < k:
        raise ValueError(f"max_products must be at least k = {k}, got {max_products}")
    count = min(d, k + _SPARE, max_products)
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, d, generator=generator).to(linearisation.y)


def _hermitian(projected: Tensor) -> tuple[Tensor, Tensor]:
    return torch.linalg.eigh((projected + projected.T) / 2)


def _general(projected: Tensor) -> tuple[Tensor, Tensor]:
    return torch.linalg.eig(projected)


def _krylov(
    operator: Operator,
    block: Tensor,
    k: int,
    sign: int,
    tolerance: float,
    max_products: int,
    decompose: Decomposition,
) -> Eigenpairs:
    """Grow a basis from a block until the wanted pairs are found, it is full, or time is up."""
    basis = images = block[:0]
    most = min(max_products, block.shape[1])
    while True:
        block = _new_directions(block, basis)
        basis, images = torch.cat([basis, block]), torch.cat([images, operator(block)])
        values, vectors, gaps = _ritz(basis, images, k, sign, decompose)
        residuals = torch.linalg.vector_norm(gaps, dim=1)
        block = _real(gaps[residuals > tolerance]).to(basis)[: most - len(basis)]
        if not len(block):
            return Eigenpairs(values, vectors, residuals, len(basis), tolerance)


def _ritz(
    basis: Tensor, images: Tensor, k: int, sign: int, decompose: Decomposition
) -> tuple[Tensor, Tensor, Tensor]:
    """Wanted values, unit vectors and relative residual vectors within the span of a basis."""
    values, mixing = decompose(basis.double() @ images.double().T)
    order = (sign * values.real).argsort(descending=True)[:k]
    scale = values.abs().max().clamp_min(torch.finfo(torch.float64).tiny)
    values, mixing = values[order], mixing[:, order].T
    vectors = mixing @ basis.to(mixing)
    gaps = mixing @ images.to(mixing) - values[:, None] * vectors
    return values, vectors, gaps / scale


def _real(rows: Tensor) -> Tensor:
    """Unit rows that span the same space, real: a complex one becomes two."""
    parts = torch.cat([rows.real, rows.imag]) if rows.is_complex() else rows
    norms = torch.linalg.vector_norm(parts, dim=1, keepdim=True)
    return (parts / norms)[norms[:, 0] > 0]


def _new_directions(block: Tensor, basis: Tensor) -> Tensor:
    """Orthonormal rows that a block adds to a basis; projected twice against rounding."""
    for _ in range(2):
        block = block - (block @ basis.T) @ basis
        _, sizes, rows = torch.linalg.svd(block, full_matrices=False)
        block = rows[sizes > torch.finfo(sizes.dtype).eps ** 0.5 * sizes[0]]
    return block
