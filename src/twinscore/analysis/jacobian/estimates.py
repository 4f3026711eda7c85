"""Trace, asymmetry and effective rank of a Jacobian from a few products, with standard errors."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from twinscore.analysis.jacobian.matrix import unit_vectors
from twinscore.analysis.jacobian.products import Linearisation, doubled
from twinscore.runs import derive_seed


@dataclass(frozen=True)
class Estimate:
    """A number and the standard error of its estimate (0 where it is exact)."""

    value: float
    standard_error: float


def trace(linearisation: Linearisation, *, products: int = 96, seed: int = 0) -> Estimate:
    """Trace of J at one image by Hutch++ (Meyer, Musco, Musco & Woodruff 2021, algorithm 1).

    A third of the products finds a subspace Q that holds most of J, a third takes its trace there
    exactly, a third estimates the rest, ``tr (I - Q Q') J (I - Q Q')``, by Hutchinson's method.

    Parameters
    ----------
    linearisation : Linearisation
        Of one image.
    products : int
        Forward products, at least 6. With 3 d of them or more the trace is exact, and d are used.
    seed : int
        Seed of the random signs.

    Returns
    -------
    Estimate
        Unbiased; the standard error is that of the third part, from its scatter.

    Raises
    ------
    ValueError
        For fewer than 6 products, or several images.

    Examples
    --------
    >>> import torch
    >>> from twinscore.analysis.jacobian import linearise, trace
    >>> half = linearise(lambda y, sigma: 0.5 * y, torch.rand(1, 1, 8, 8), 0.1)
    >>> round(trace(half, products=192).value, 4)  # d / 2: exact with 3 d products
    32.0
    """
    if products < 6:
        raise ValueError(f"Hutch++ needs at least 6 products, got {products}")
    d, part = linearisation.d, products // 3
    if part >= d:
        units = unit_vectors(linearisation.y, 0, d)
        return Estimate(_inner(linearisation.forward(units), units).sum().item(), 0.0)
    signs = _signs((2 * part, d), seed, linearisation.y)
    basis = torch.linalg.qr(linearisation.forward(signs[:part]).T).Q.T
    rest = signs[part:] - (signs[part:] @ basis.T) @ basis
    samples = _inner(linearisation.forward(rest), rest)
    value = _inner(linearisation.forward(basis), basis).sum() + samples.mean()
    return Estimate(value.item(), samples.std().item() / math.sqrt(part))


def traces(linearisation: Linearisation, *, probes: int | None = None, seed: int = 0) -> Tensor:
    """Trace of the Jacobian of each image, (B,) float64.

    Parameters
    ----------
    linearisation : Linearisation
        Of any number of images.
    probes : int, optional
        Random signs for Hutchinson's estimate, the mean of ``v' J v``; by default the trace is
        exact, from d products per image.
    seed : int
        Seed of the signs.

    Raises
    ------
    ValueError
        If ``probes`` is not positive.
    """
    y, d = linearisation.y, linearisation.d
    if probes is not None:
        if probes < 1:
            raise ValueError(f"probes must be at least 1, got {probes}")
        v = _signs((probes, *y.shape), seed, y)
        return _inner(linearisation.push(v), v).mean(0)
    total = doubled(y.new_zeros(len(y)))
    at_once = max(1, 2**24 // y.numel())
    for start in range(0, d, at_once):
        units = unit_vectors(y, start, min(d, start + at_once))
        v = units.view(-1, 1, *y.shape[1:]).expand(-1, *y.shape)
        total += _inner(linearisation.push(v), v).sum(0)
    return total


def asymmetry(linearisation: Linearisation, *, probes: int = 32, seed: int = 0) -> Estimate:
    """Degree of asymmetry ``|J - J'|_F / |J|_F`` at one image: 0 to 2, 0 for a symmetric J.

    Both norms from the same random normal vectors, ``E|A z|^2 = |A|_F^2``, the lower one from J
    and J'. The standard error of their ratio is that of first order (delta method).

    Parameters
    ----------
    linearisation : Linearisation
        Of one image.
    probes : int
        Random vectors, at least 2; each takes one forward and one reverse product.
    seed : int
        Their seed.

    Raises
    ------
    ValueError
        For fewer than 2 probes, several images, or a Jacobian that is zero.
    """
    if probes < 2:
        raise ValueError(f"a standard error needs at least 2 probes, got {probes}")
    z = _normal((probes, linearisation.d), seed, linearisation.y)
    forward, reverse = doubled(linearisation.forward(z)), doubled(linearisation.transposed(z))
    above = (forward - reverse).square().sum(1)
    below = (forward.square().sum(1) + reverse.square().sum(1)) / 2
    if not below.sum() > 0:
        raise ValueError("the Jacobian is zero: it has no degree of asymmetry")
    ratio = above.mean() / below.mean()
    error = ((above - ratio * below) / below.mean()).std() / math.sqrt(probes)
    value = ratio.sqrt().item()
    return Estimate(value, (error / (2 * ratio.sqrt())).item() if value else 0.0)


def effective_rank(linearisation: Linearisation, *, products: int = 96, seed: int = 0) -> Estimate:
    """``(tr J)^2 / |J|_F^2`` at one image: r for a projection on r dimensions.

    The trace by :func:`trace`, the norm from ``products // 3`` random normal vectors; standard
    error of first order, from both.

    Parameters, errors as :func:`trace`. Cost: ``products * 4 / 3`` forward products.
    """
    return trace_and_rank(linearisation, products=products, seed=seed)[1]


def trace_and_rank(
    linearisation: Linearisation, *, products: int = 96, seed: int = 0
) -> tuple[Estimate, Estimate]:
    """What :func:`trace` and :func:`effective_rank` give, at the cost of the latter."""
    total = trace(linearisation, products=products, seed=seed)
    z = _normal((products // 3, linearisation.d), seed + 1, linearisation.y)
    squares = doubled(linearisation.forward(z)).square().sum(1)
    energy, scatter = squares.mean().item(), squares.std().item() / math.sqrt(len(z))
    if not energy > 0:
        raise ValueError("the Jacobian is zero: it has no effective rank")
    value = total.value**2 / energy
    from_trace = 2 * total.value * total.standard_error / energy
    return total, Estimate(value, math.hypot(from_trace, value * scatter / energy))


def _inner(a: Tensor, b: Tensor) -> Tensor:
    """Inner products of rows (K, d), or of images (K, B, C, H, W); float64."""
    products = doubled(a) * doubled(b)
    return products.flatten(2).sum(2) if products.ndim > 2 else products.sum(1)


def _normal(shape: tuple[int, ...], seed: int, like: Tensor) -> Tensor:
    """Normal numbers that are unrelated to noise that a caller drew from the same seed."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "probes"))
    return torch.randn(shape, generator=generator).to(like)


def _signs(shape: tuple[int, ...], seed: int, like: Tensor) -> Tensor:
    return _normal(shape, seed, like).sign()
