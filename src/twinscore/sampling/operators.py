"""Linear measurements of images, ``m = A x``, with their adjoints: what restoration starts from."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator
from torch import Tensor

ADJOINT_TOLERANCE = 1e-4
"""Largest ``|<A x, u> - <x, A' u>| / (|A x| |u|)``: float32 rounding stays well below."""


@dataclass(frozen=True, eq=False)
class Operator:
    """A linear map from images to measurements; make your own with ``operators.from_callables``.

    Attributes
    ----------
    measure : callable
        (B, C, H, W) to (B, m).
    adjoint : callable
        (B, m) to (B, C, H, W), with ``<measure(x), u> = <x, adjoint(u)>``.
    shape : tuple of int
        (C, H, W).
    size : int
        m, the number of measurements of an image.
    orthonormal : bool
        ``A A' = I``, so that ``A' m`` is an image with these measurements.
    """

    measure: Callable[[Tensor], Tensor]
    adjoint: Callable[[Tensor], Tensor]
    shape: tuple[int, int, int]
    size: int
    orthonormal: bool


def inpainting(mask: Tensor) -> Operator:
    """The pixels where ``mask`` (C, H, W), bool, is true; the others are missing.

    Raises
    ------
    ValueError
        If the mask is not a (C, H, W) bool tensor, or nothing or everything is measured.
    """
    if mask.ndim != 3 or mask.dtype != torch.bool:
        raise ValueError(f"mask must be bool (C, H, W), got {mask.dtype} {tuple(mask.shape)}")
    size = int(mask.sum())
    if size in (0, mask.numel()):
        what = "nothing" if size == 0 else "everything"
        raise ValueError(f"mask: {what} is measured; some pixels must be true, some false")
    where = mask.flatten().nonzero().squeeze(1)
    return _selection(where, tuple(mask.shape), lambda x: x.flatten(1), lambda x: x)


def random_pixels(shape: tuple[int, int, int], fraction: float, seed: int = 0) -> Operator:
    """A random ``fraction`` of the pixel positions, all channels of each.

    Raises
    ------
    ValueError
        If the fraction measures no position or all.

    Examples
    --------
    >>> import torch
    >>> from twinscore.sampling import operators
    >>> kept = operators.random_pixels((1, 8, 8), 0.25)
    >>> kept.measure(torch.rand(2, 1, 8, 8)).shape, kept.orthonormal
    (torch.Size([2, 16]), True)
    """
    _, height, width = shape
    count = round(fraction * height * width)
    if not 0 < count < height * width:
        raise ValueError(f"fraction: {fraction} of {height}x{width} pixels leaves none or all")
    order = torch.randperm(height * width, generator=torch.Generator().manual_seed(seed))
    mask = torch.zeros(height * width, dtype=torch.bool)
    mask[order[:count]] = True
    return inpainting(mask.view(1, height, width).expand(shape).contiguous())


def super_resolution(shape: tuple[int, int, int], factor: int) -> Operator:
    """Averages over blocks of ``factor x factor`` pixels, times ``factor`` (so that A A' = I).

    Raises
    ------
    ValueError
        If the factor is below 2 or does not divide height and width.
    """
    channels, height, width = shape
    if factor < 2 or height % factor or width % factor:
        raise ValueError(f"factor: {factor} must be at least 2 and divide {height} and {width}")
    small = (channels, height // factor, width // factor)

    def measure(x: Tensor) -> Tensor:
        blocks = x.reshape(-1, channels, small[1], factor, small[2], factor)
        return blocks.sum((3, 5)).flatten(1) / factor

    def adjoint(m: Tensor) -> Tensor:
        blocks = m.view(-1, channels, small[1], 1, small[2], 1) / factor
        return blocks.expand(-1, -1, -1, factor, -1, factor).reshape(-1, *shape)

    return Operator(measure, adjoint, shape, math.prod(small), True)


def spectral_deblurring(shape: tuple[int, int, int], fraction: float) -> Operator:
    """The lowest spatial frequencies, about ``fraction`` of them: an ideal blur.

    Coefficients of the Hartley transform, the real orthonormal form of the Fourier transform;
    frequencies are taken in whole pairs, so that they span what the Fourier ones do.

    Raises
    ------
    ValueError
        If the fraction measures every frequency.
    """
    height, width = shape[1:]
    rows, columns = torch.fft.fftfreq(height)[:, None], torch.fft.fftfreq(width)[None]
    distance = (rows.square() + columns.square()).double()
    cutoff = distance.flatten().sort().values[max(0, round(fraction * height * width) - 1)]
    mask = (distance <= cutoff + 1e-12).expand(shape)
    if not 0 < fraction < 1 or mask.all():
        raise ValueError(f"fraction: {fraction} must be above 0 and leave some frequencies out")

    def hartley(x: Tensor) -> Tensor:
        spectrum = torch.fft.fft2(x, norm="ortho")
        return spectrum.real - spectrum.imag

    where = mask.flatten().nonzero().squeeze(1)
    return _selection(where, shape, lambda x: hartley(x).flatten(1), hartley)


def compressive_sensing(shape: tuple[int, int, int], fraction: float, seed: int = 0) -> Operator:
    """Inner products with ``fraction d`` random orthonormal images. Memory: ``fraction d^2``.

    Raises
    ------
    ValueError
        If the fraction is not between 0 and 1.
    """
    d = math.prod(shape)
    size = round(fraction * d)
    if not 0 < size < d:
        raise ValueError(f"fraction: {fraction} of {d} dimensions leaves none or all")
    generator = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(d, size, generator=generator, dtype=torch.float64)).Q
    return Operator(
        lambda x: x.flatten(1) @ basis.to(x),
        lambda m: (m @ basis.T.to(m)).view(-1, *shape),
        shape,
        size,
        True,
    )


def from_callables(
    measure: Callable[[Tensor], Tensor],
    adjoint: Callable[[Tensor], Tensor],
    shape: tuple[int, int, int],
) -> Operator:
    """Operator of any pair of callables, once checked to be adjoint on random vectors.

    Parameters
    ----------
    measure, adjoint, shape
        As for :class:`Operator`; float32 comes in and goes out.

    Raises
    ------
    ValueError
        If the shapes do not fit, or the pair is not adjoint; gives the discrepancy.
    """
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, *shape, generator=generator)
    measured = measure(x)
    if measured.ndim != 2 or len(measured) != 3:
        raise ValueError(f"measure must return (B, m), got {tuple(measured.shape)} for B = 3")
    u = torch.randn(measured.shape, generator=generator)
    back = adjoint(u)
    if back.shape != x.shape:
        raise ValueError(f"adjoint must return {tuple(x.shape)}, got {tuple(back.shape)}")
    there, again = (measured * u).sum(1), (x * back).flatten(1).sum(1)
    scale = measured.norm(dim=1) * u.norm(dim=1) + torch.finfo(torch.float32).tiny
    gap = ((there - again).abs() / scale).max().item()
    if not gap < ADJOINT_TOLERANCE:
        raise ValueError(
            f"measure and adjoint are not a pair: <A x, u> and <x, A' u> differ by {gap:.2g} of "
            f"their norms, {ADJOINT_TOLERANCE:g} is allowed"
        )
    doubled = measure(adjoint(u))
    orthonormal = bool((doubled - u).norm() < ADJOINT_TOLERANCE * u.norm())
    return Operator(measure, adjoint, shape, measured.shape[1], orthonormal)


def from_scipy(matrix: LinearOperator, shape: tuple[int, int, int]) -> Operator:
    """Operator of a ``scipy.sparse.linalg.LinearOperator`` of (m, d), on the CPU.

    Raises
    ------
    ValueError
        If its columns are not the pixels, or ``rmatmat`` is not the adjoint of ``matmat``.
    """
    d = math.prod(shape)
    if matrix.shape[1] != d:
        raise ValueError(f"the operator takes {matrix.shape[1]} numbers, images have {d}")

    def applied(function: Callable[[np.ndarray], np.ndarray], x: Tensor) -> Tensor:
        columns = function(x.detach().cpu().double().numpy().T)
        return torch.from_numpy(np.ascontiguousarray(columns.T)).to(x)

    return from_callables(
        lambda x: applied(matrix.matmat, x.flatten(1)),
        lambda m: applied(matrix.rmatmat, m).view(-1, *shape),
        shape,
    )


def _selection(
    where: Tensor,
    shape: tuple[int, int, int],
    transform: Callable[[Tensor], Tensor],
    inverse: Callable[[Tensor], Tensor],
) -> Operator:
    """Some coefficients (positions ``where``) of an orthonormal transform."""

    def adjoint(m: Tensor) -> Tensor:
        full = m.new_zeros(len(m), math.prod(shape))
        full[:, where.to(m.device)] = m
        return inverse(full.view(-1, *shape))

    return Operator(lambda x: transform(x)[:, where.to(x.device)], adjoint, shape, len(where), True)
