"""Products of a denoiser's Jacobian, and of its transpose, with many vectors at once."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from twinscore.analysis.jacobian.frozen import Frozen, freeze
from twinscore.denoisers import Denoiser, check, per_image

Operator = Callable[[Tensor], Tensor]
"""A (d, d) matrix as a function of (K, d): every row is multiplied by the matrix."""

_CHUNK_PIXELS = 2**15
"""Pixels of a batch: 8 MiB for a layer of 64 channels, about what stays in a cache."""


@dataclass(frozen=True, eq=False)
class Linearisation:
    """A denoiser around noisy images; made by :func:`linearise`.

    The vectors of a product have shape (K, B, C, H, W): K of them for each of the B images. Each
    image has its own Jacobian.

    Attributes
    ----------
    y : Tensor
        The images, (B, C, H, W).
    value : Tensor
        f(y), (B, C, H, W).
    push : callable
        ``J v`` of K vectors.
    pull : callable
        ``J' u`` of K vectors.
    """

    y: Tensor
    value: Tensor
    push: Operator
    pull: Operator

    @property
    def d(self) -> int:
        """Number of values of an image, C H W."""
        return self.y[0].numel()

    def forward(self, rows: Tensor) -> Tensor:
        """``J v`` for rows (K, d); one image only."""
        return self.push(self._images(rows)).flatten(1)

    def transposed(self, rows: Tensor) -> Tensor:
        """``J' u`` for rows (K, d); one image only."""
        return self.pull(self._images(rows)).flatten(1)

    def symmetric(self, rows: Tensor) -> Tensor:
        """``(J + J')/2 v`` for rows (K, d); one image only."""
        return (self.forward(rows) + self.transposed(rows)) / 2

    def _images(self, rows: Tensor) -> Tensor:
        if len(self.y) != 1:
            raise ValueError(f"linearise one image, (1, C, H, W), for this; got {len(self.y)}")
        return rows.reshape(-1, *self.y.shape)


def linearise(denoiser: Denoiser, y: Tensor, sigma: float | Tensor | None = None) -> Linearisation:
    """Jacobian of any denoiser at noisy images, as products.

    Where ReLU is the only operation that is not linear, as in the networks of this package, its
    masks at ``y`` are recorded once; a product then costs one pass of convolutions per vector
    (`benchmarks/harmonics.py` measures how near it comes). Other denoisers are differentiated by
    autograd, on as many copies of the images as there are vectors. Each product is tested with a
    random inner product, and computed by autograd where the test fails.

    Parameters
    ----------
    denoiser : Denoiser
        Differentiable by autograd; a module in evaluation mode.
    y : Tensor
        Noisy images, (B, C, H, W).
    sigma : float or Tensor or None
        Noise level, scalar or (B,), image units; the denoiser is given a tensor.

    Returns
    -------
    Linearisation
        Vectors are taken in chunks of ``_CHUNK_PIXELS`` pixels. Memory: one pass over a chunk,
        and what autograd keeps of such passes for as long as the linearisation lives.

    Raises
    ------
    ValueError
        For a denoiser that breaks the contract or is not differentiable. Products raise it where
        the derivative is NaN or infinite.
    """
    y = y.detach()
    with torch.no_grad():
        value = check(denoiser, y, sigma)
    level = per_image(sigma, y)

    def function(images: Tensor) -> Tensor:
        copies = len(images) // len(y)
        return denoiser(images, None if level is None else level.repeat(copies))

    frozen = freeze(function, y)
    curved = _curved_push(function, y)
    push = _frozen_push(frozen, curved) if frozen else curved
    pull = _pull(frozen.function if frozen else function, y)
    fitting = max(1, _CHUNK_PIXELS // (len(y) * y.shape[2] * y.shape[3]))
    chunk = 2 ** (fitting.bit_length() - 1)  # few sizes, and so few graphs, for blocks of 8
    return Linearisation(y, value, _chunked(push, y, chunk), _chunked(pull, y, chunk))


def doubled(values: Tensor) -> Tensor:
    """In float64; on the CPU, if the device (MPS) has none."""
    return (values.cpu() if values.device.type == "mps" else values).double()


def _frozen_push(frozen: Frozen, curved: Operator) -> Operator:
    """Products of the frozen function; where they fail its test, autograd's."""

    def push(v: Tensor) -> Tensor:
        found = frozen.push(v)
        return curved(v) if found is None else found

    return push


def _curved_push(function: Operator, y: Tensor) -> Operator:
    """``J v`` as the transpose of ``J' u``, which is linear in u: two reverse passes, no forward.

    (Forward differentiation would do as well, where every operation has a rule for it.)
    """

    @lru_cache(maxsize=2)
    def graph(count: int) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            copies = y.repeat(count, 1, 1, 1).requires_grad_()
            u = torch.zeros_like(copies, requires_grad=True)
            return u, torch.autograd.grad(function(copies), copies, u, create_graph=True)[0]

    def push(v: Tensor) -> Tensor:
        u, pulled = graph(len(v))
        return torch.autograd.grad(pulled, u, v.flatten(0, 1), retain_graph=True)[0].view_as(v)

    return push


def _pull(function: Operator, point: Tensor) -> Operator:
    @lru_cache(maxsize=2)  # full chunks, and the last one
    def graph(count: int) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            copies = point.repeat(count, 1, 1, 1).requires_grad_()
            return copies, function(copies)

    def pull(u: Tensor) -> Tensor:
        copies, out = graph(len(u))
        return torch.autograd.grad(out, copies, u.flatten(0, 1), retain_graph=True)[0].view_as(u)

    return pull


def _chunked(product: Operator, y: Tensor, chunk: int) -> Operator:
    def whole(v: Tensor) -> Tensor:
        if v.ndim != 5 or v.shape[1:] != y.shape or v.dtype != y.dtype:
            raise ValueError(
                f"vectors must be {y.dtype} of shape (K, {', '.join(map(str, y.shape))}), "
                f"got {v.dtype} {tuple(v.shape)}"
            )
        found = torch.cat([product(part) for part in v.split(chunk)]) if len(v) else v
        if not torch.isfinite(found).all():
            raise ValueError("a product with the denoiser's Jacobian holds NaN or infinity")
        return found

    return whole
