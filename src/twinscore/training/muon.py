"""Muon: momentum made orthogonal before each step (Jordan et al. 2024), for kernels of one size."""

from collections import defaultdict
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from twinscore.denoisers.layers import Convolution, Upsample

MOMENTUM = 0.95
COEFFICIENTS = 3.4445, -4.7750, 2.0315
"""Of the odd polynomial ``a s + b s^3 + c s^5``, which takes singular values towards 1."""
ITERATIONS = 5
NARROW = 4
"""Kernels with no more rows or columns, from and to the channels of images, are left out."""


def kernels(network: nn.Module) -> list[nn.Parameter]:
    """Kernels between features in twinscore's own networks, whose size a normalisation cancels.

    Those of other people's layers are not among them: nothing is known of their size.
    """
    layers = (m for m in network.modules() if isinstance(m, Convolution | Upsample))
    return [layer.weight for layer in layers if min(layer.weight.shape[:2]) > NARROW]


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, made orthogonal; every kernel keeps its Frobenius norm.

    A kernel (c_out, c_in, k, k) is a matrix of m = c_out rows and n columns. Its step is ``lr
    sqrt(max(1, m/n))`` times the polar factor of its momentum, so that every direction in which it
    learns counts alike. Then it is scaled back to its first norm: were it to grow, as it does where
    its size does not matter, the same step would turn it less and less.

    Parameters
    ----------
    parameters : iterable of nn.Parameter
        Kernels that are not 0.
    lr : float
        Size of a step, relative to that of an orthogonal matrix.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float) -> None:
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move every kernel; those of one shape together."""
        for group in self.param_groups:
            alike = defaultdict(list)
            for parameter in group["params"]:
                alike[parameter.shape].append(parameter)
            for parameters in alike.values():
                self._move(parameters, group["lr"])

    def _move(self, parameters: list[nn.Parameter], lr: float) -> None:
        for parameter in parameters:
            if not self.state[parameter]:
                norm = torch.linalg.vector_norm(parameter)
                self.state[parameter] = {"momentum": torch.zeros_like(parameter), "norm": norm}
        momenta = [self.state[parameter]["momentum"] for parameter in parameters]
        gradients = [parameter.grad for parameter in parameters]
        torch._foreach_lerp_(momenta, gradients, 1 - MOMENTUM)
        ahead = torch._foreach_lerp(gradients, momenta, MOMENTUM)
        # pixels before inputs, as they lie in channels-last memory: the order of columns is free
        turns = orthogonal(torch.stack([each.movedim(1, -1).flatten(1) for each in ahead]))
        size = lr * max(1.0, turns.shape[1] / turns.shape[2]) ** 0.5
        for parameter, turn in zip(parameters, turns, strict=True):
            moved = parameter.movedim(1, -1)
            moved.sub_(turn.view(moved.shape), alpha=size)
            parameter.mul_(self.state[parameter]["norm"] / torch.linalg.vector_norm(parameter))


def orthogonal(matrices: Tensor) -> Tensor:
    """Polar factors of matrices (K, m, n), about: singular values between 0.68 and 1.14.

    Those below a hundredth of the Frobenius norm may end lower; matrices of zeros stay. Newton and
    Schulz' iteration, by products of the smaller Gram matrix alone, with which everything commutes:
    with s = min(m, n) it takes ``8 ITERATIONS s^3`` operations, and ``4 s m n`` around them.
    """
    if matrices.shape[1] > matrices.shape[2]:
        return orthogonal(matrices.mT).mT
    a, b, c = COEFFICIENTS
    norms = torch.linalg.matrix_norm(matrices, keepdim=True)
    x = matrices / norms.clamp_min(torch.finfo(matrices.dtype).tiny)
    gram = x @ x.mT
    one = torch.eye(gram.shape[-1], dtype=x.dtype, device=x.device)
    total = one
    for left in reversed(range(ITERATIONS)):
        factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c) + a * one
        total = factor @ total
        if left:
            gram = factor @ gram @ factor
    return total @ x
