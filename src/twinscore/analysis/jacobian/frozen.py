"""A network of linear operations and ReLU, made linear: every ReLU replaced by its mask at y.

The network itself then computes Jacobian products, for as many vectors as there are images in a
batch, at the cost of one pass per vector. Any module or function that passes the test of
:func:`freeze` qualifies. Nothing is known about its layers, so every product is tested too.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

Function = Callable[[Tensor], Tensor]

_RELU = frozenset({F.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_})


class _Record(TorchFunctionMode):
    """Note where each ReLU is positive, in the order of the calls."""

    def __init__(self) -> None:
        super().__init__()
        self.masks: list[Tensor] = []

    def __torch_function__(
        self, function: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        out = function(*args, **(kwargs or {}))
        if function in _RELU:
            self.masks.append((out > 0).to(out))
        return out


class _Replay(TorchFunctionMode):
    """Multiply by the masks instead of rectifying; a batch holds the images K times over."""

    def __init__(self, masks: list[Tensor]) -> None:
        super().__init__()
        self.masks: Iterator[Tensor] = iter(masks)

    def __torch_function__(
        self, function: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        if function not in _RELU:
            return function(*args, **(kwargs or {}))
        x, mask = args[0], next(self.masks)
        if len(mask) > 1:
            mask = mask.repeat(len(x) // len(mask), *[1] * (mask.ndim - 1))
        return x * mask


@dataclass(frozen=True, eq=False)
class Frozen:
    """A function whose masks are fixed at y, and what its products are tested with.

    Attributes
    ----------
    function : callable
        (K B, C, H, W) to the same shape, of batches that hold the B images K times over.
    offset : Tensor
        ``function(0)``, (B, C, H, W).
    u, pulled : Tensor
        A random vector for each image, and ``J(y)' u`` by autograd, (B, C, H, W).
    """

    function: Function
    offset: Tensor
    u: Tensor
    pulled: Tensor

    @torch.no_grad()
    def push(self, v: Tensor) -> Tensor | None:
        """``J v`` of K vectors, (K, B, C, H, W), or None where ``<u, J v> = <J' u, v>`` fails.

        A wrong product passes with a probability of the order of the tolerance. Cost: one pass per
        vector.
        """
        found = self.function(v.flatten(0, 1)).view_as(v) - self.offset
        gap = (found * self.u - v * self.pulled).flatten(2).sum(2).abs()
        size = _norms(self.u) * _norms(found) + _norms(self.pulled) * _norms(v)
        rounding = 10 * torch.finfo(v.dtype).eps * _norms(self.u) * _norms(self.offset)
        return found if (gap <= _tolerance(v) * size + rounding).all() else None


def freeze(function: Function, y: Tensor) -> Frozen | None:
    """The affine function that equals ``function`` around ``y``, if only ReLU makes it nonlinear.

    Parameters
    ----------
    function : callable
        (K B, C, H, W) to the same shape, image by image; differentiable by autograd.
    y : Tensor
        (B, C, H, W).

    Returns
    -------
    Frozen or None
        None where ``function`` is not piecewise linear by ReLU alone: where it calls no ReLU, or
        where, masks fixed, a product of a random vector or its reverse differs from autograd's.
        Cost: 4 passes and two reverse products.

    Raises
    ------
    ValueError
        If autograd cannot see through the function.
    """
    with torch.no_grad(), _Record() as record:
        function(y)

    def masked(v: Tensor) -> Tensor:
        with _Replay(record.masks):
            return function(v)

    generator = torch.Generator().manual_seed(0)
    u, far, near = (torch.randn(y.shape, generator=generator).to(y) for _ in range(3))
    exact = _reverse_product(function, y, u)
    if not record.masks:
        return None
    with torch.no_grad():
        frozen = Frozen(masked, masked(torch.zeros_like(y)), u, exact)
    unit = near / _norms(near).view(-1, 1, 1, 1)
    if frozen.push(torch.stack([far, unit])) is None:
        return None
    found = _reverse_product(masked, y, u)
    return frozen if (found - exact).norm() <= _tolerance(y) * exact.norm() else None


def _tolerance(like: Tensor) -> float:
    return 10 * torch.finfo(like.dtype).eps ** 0.75


def _norms(images: Tensor) -> Tensor:
    """Euclidean norm of each image of (..., C, H, W)."""
    return torch.linalg.vector_norm(images, dim=(-3, -2, -1))


def _reverse_product(function: Function, y: Tensor, u: Tensor) -> Tensor:
    """``J(y)' u`` by autograd, both (B, C, H, W)."""
    with torch.enable_grad():
        point = y.detach().requires_grad_()
        out = function(point)
        if not out.requires_grad:
            raise ValueError(
                "the denoiser is not differentiable by autograd; it must compute its estimate "
                "from y with torch operations, outside torch.no_grad()"
            )
        return torch.autograd.grad(out, point, u)[0]
