"""Eigenpairs at either end of the spectrum by a block Krylov method that checks its residuals.

A basis starts with a random block and grows by the residuals of the first wanted pairs that have
not converged, a block of them at a time (Davidson 1975 without a preconditioner: block Lanczos or
Arnoldi whose last blocks go where they are needed). Blocks make it fast: one product with many
vectors costs less than many products with one. The pairs found have to survive a fresh start, since
a Krylov space holds no more copies of an eigenvalue than it has starting vectors: a few new random
vectors and their Krylov space, narrow and so of a high degree, in which a missed one stands out.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from twinscore.analysis.jacobian.products import Linearisation, Operator, doubled

End = Literal["largest", "smallest"]

Decomposition = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Eigenvalues (m,) and eigenvectors (m, m), in columns, of a small matrix."""

_BLOCK = 8
"""Vectors per step: wider blocks need more products, narrower ones have slower products."""

_FRESH, _DEGREE = 2, 12
"""Random vectors of a fresh start, and steps of their Krylov space: for a given number of products,
few vectors and many steps are most likely to find what was missed."""

_GROWTH = 80
"""Vectors in the basis for each block that a step adds, since a step decomposes a matrix of their
number."""


@dataclass(frozen=True, eq=False)
class Eigenpairs:
    """Eigenvalues, from the wanted end on, with unit eigenvectors and their residuals.

    Attributes
    ----------
    values : Tensor
        (k,) float64, or complex128 for the Jacobian itself. Complex pairs are kept; the last
        value may lack its conjugate.
    vectors : Tensor
        (k, d), unit rows of the same precision. For the symmetric part orthonormal.
    residuals : Tensor
        (k,) ``|A e - lambda e|`` over the largest magnitude among the eigenvalues met on the way.
    products : int
        Products with the matrix that were needed.
    tolerance : float
        Residual that was asked for.
    survived : bool
        Whether a fresh start found no other pairs, or the basis spans everything; if not, some
        of several equal eigenvalues may have been missed.
    """

    values: Tensor
    vectors: Tensor
    residuals: Tensor
    products: int
    tolerance: float
    survived: bool

    @property
    def converged(self) -> bool:
        """Whether every residual is within the tolerance, and the pairs survived a fresh start."""
        return self.survived and bool((self.residuals <= self.tolerance).all())


def symmetric_eigenpairs(
    linearisation: Linearisation,
    k: int,
    *,
    end: End = "largest",
    tolerance: float = 1e-3,
    max_products: int = 1000,
    seed: int = 0,
) -> Eigenpairs:
    """Eigenpairs of ``(J + J')/2`` at one image, k of them from one end of the spectrum.

    Parameters
    ----------
    tolerance : float
        Residual, relative to the largest magnitude of an eigenvalue, at which a pair counts as
        found. In float32 not below about 1e-5.
    max_products : int
        Largest number of products; after it the pairs are returned as they are: see ``converged``.
    seed : int
        Seed of the first block.

    Returns
    -------
    Eigenpairs
        Cost: its ``products``, each one forward and one reverse product. Memory: two float64
        vectors for each product.

    Raises
    ------
    ValueError
        If ``k`` is not within 1 and d, ``max_products`` under k, or there are several images.

    Notes
    -----
    A residual r proves that some eigenvalue lies within r of a value, not that none was missed. To
    find missed ones, 2 random vectors and 12 steps of their Krylov space are added until the values
    no longer change. By Kuczynski and Wozniakowski (1992) the Krylov space of either vector falls
    short of the largest eigenvalue that is missing by more than a share e of the width of the
    remaining spectrum with a probability of at most ``1.648 sqrt(d) exp(-23 sqrt(e))``; at e = 0.1
    and d = 1600 that of both is 0.2 % for any spectrum. A missed eigenvalue that is larger than the
    k-th by less can go unseen, though mostly it does not where few eigenvalues lie between.
    """
    _check(linearisation, k, max_products)
    wanted = _Wanted(k, 1 if end == "largest" else -1, tolerance, max_products, seed)
    return _krylov(linearisation.symmetric, linearisation.y, wanted, _hermitian)


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
    eigenvalues only through the condition of the eigenvectors, and the probability that the fresh
    start misses one is not known.
    """
    _check(linearisation, k, max_products)
    wanted = _Wanted(k, 1 if end == "largest" else -1, tolerance, max_products, seed)
    return _krylov(linearisation.forward, linearisation.y, wanted, torch.linalg.eig)


@dataclass(frozen=True)
class _Wanted:
    """Which pairs, how exactly, and at what cost; ``sign`` -1 for the low end."""

    k: int
    sign: int
    tolerance: float
    max_products: int
    seed: int


def _check(linearisation: Linearisation, k: int, max_products: int) -> None:
    if not 1 <= k <= linearisation.d:
        raise ValueError(f"k must be from 1 to the {linearisation.d} values of an image, got {k}")
    if max_products < k:
        raise ValueError(f"max_products must be at least k = {k}, got {max_products}")


def _krylov(operator: Operator, y: Tensor, wanted: _Wanted, decompose: Decomposition) -> Eigenpairs:
    """Grow a basis until the wanted pairs are found and survive, or no product is left."""
    d, most = y.numel(), min(wanted.max_products, y.numel())
    generator = torch.Generator().manual_seed(wanted.seed)
    basis = images = doubled(y.new_zeros(0, d))
    settled = basis.new_full((wanted.k,), torch.inf)
    block, degree = torch.randn(_BLOCK, d, generator=generator).to(basis), 1
    while True:
        before = len(basis)
        for _ in range(degree):
            block = _new_directions(block, basis)[: most - len(basis)]
            basis = torch.cat([basis, block])
            block = doubled(operator(block.to(y)))
            images = torch.cat([images, block])
        values, vectors, gaps, scale = _ritz(basis, images, wanted, decompose)
        residuals = torch.linalg.vector_norm(gaps, dim=1)
        step = _BLOCK * max(1, len(basis) // _GROWTH)
        block, degree = _real(gaps[residuals > wanted.tolerance])[:step], 1
        found = len(values) == wanted.k and not len(block)
        stays = found and (values.real - settled).abs().max() <= wanted.tolerance * scale
        spent = len(basis) == most  # and so the fresh start may have been cut short
        survived = len(basis) == d or bool(stays and not spent)
        if survived or spent:
            return Eigenpairs(values, vectors, residuals, len(basis), wanted.tolerance, survived)
        if found:
            settled = values.real
        if not len(block) or len(basis) == before:
            block, degree = torch.randn(_FRESH, d, generator=generator).to(basis), _DEGREE


def _ritz(
    basis: Tensor, images: Tensor, wanted: _Wanted, decompose: Decomposition
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Wanted values, unit vectors, relative residual vectors in the span of a basis, and scale.

    The scale, to which residuals are relative, is the largest magnitude of all its values.
    """
    values, mixing = decompose(basis @ images.T)
    order = (wanted.sign * values.real).argsort(descending=True)[: wanted.k]
    scale = values.abs().max().clamp_min(torch.finfo(torch.float64).tiny)
    values, mixing = values[order], mixing[:, order].T
    vectors = mixing @ basis.to(mixing)
    gaps = mixing @ images.to(mixing) - values[:, None] * vectors
    return values, vectors, gaps / scale, scale


def _hermitian(projected: Tensor) -> tuple[Tensor, Tensor]:
    return torch.linalg.eigh((projected + projected.T) / 2)


def _real(rows: Tensor) -> Tensor:
    """Real rows that span the same space: a complex one becomes two."""
    return torch.cat([rows.real, rows.imag]) if rows.is_complex() else rows


def _new_directions(block: Tensor, basis: Tensor) -> Tensor:
    """Orthonormal rows that a block adds to a basis; projected twice against rounding."""
    norms = torch.linalg.vector_norm(block, dim=1, keepdim=True)
    block = (block / norms)[norms[:, 0] > 0]
    for _ in range(2):
        block = block - (block @ basis.T) @ basis
        _, sizes, rows = torch.linalg.svd(block, full_matrices=False)
        block = rows[sizes > torch.finfo(sizes.dtype).eps ** 0.5]
    return block
