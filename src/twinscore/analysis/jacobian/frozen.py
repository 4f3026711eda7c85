"""A network of linear operations and ReLU, made linear: every ReLU replaced by its mask at y.

The network itself then computes Jacobian products, for as many vectors as there are images in a
batch, at the cost of one pass a vector. Any module or function qualifies that passes the test of
:func:`freeze`, affine denoisers among them; nothing is told about its layers.
"""

from collections.abc import Callable, Iterator
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


def freeze(function: Function, y: Tensor) -> Function | None:
    """The affine function that agrees with ``function`` around ``y``, if ReLU is all that bends it.

    Parameters
    ----------
    function : callable
        (K B, C, H, W) to the same shape, image by image; differentiable by autograd.
    y : Tensor
        (B, C, H, W).

    Returns
    -------
    callable or None
        Of batches that hold B images K times over. None where ``function`` is not piecewise
        linear by ReLU alone: where, masks fixed, it is not affine on random images, or where a
        random reverse product differs from autograd's. Cost: 5 passes and two reverse products.

    Raises
    ------
    ValueError
        If autograd cannot see through the function.
    """
    with torch.no_grad(), _Record() as record:
        function(y)

    def frozen(v: Tensor) -> Tensor:
        with _Replay(record.masks):
            return function(v)

    generator = torch.Generator().manual_seed(0)
    a, b, u = (torch.randn(y.shape, generator=generator).to(y) for _ in range(3))
    exact = _reverse_product(function, y, u)
    with torch.no_grad():
        offset, at_a, at_b = frozen(torch.zeros_like(y)), frozen(a), frozen(b)
        bent = frozen(a - 2 * b) - (at_a - 2 * at_b + 2 * offset)
    tolerance = 10 * torch.finfo(y.dtype).eps ** 0.75
    if not bent.norm() <= tolerance * (at_a.norm() + at_b.norm() + offset.norm()):
        return None
    found = _reverse_product(frozen, y, u)
    return frozen if (found - exact).norm() <= tolerance * exact.norm() else None


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
