"""Layers without additive terms, with the gradients written out where autograd is slow.

Everything here is homogeneous in evaluation: scaling the input by ``a > 0`` scales the output.
In training on a CPU, two hand-written gradients replace the library's: the weight gradient of a
3x3 convolution as matrix products (oneDNN's runs at half the rate of its forward pass), and the
normalisation fused with its ReLU (``Tensor.var`` costs as much as a convolution). The mathematics
is the same; `benchmarks/training.py` measures the gain.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

EPSILON = 1e-5
MOMENTUM = 0.1
PIXELS = (0, 2, 3)


def generator_of(seed: int) -> torch.Generator:
    """CPU generator seeded with ``seed``."""
    return torch.Generator().manual_seed(seed)


class BiasFreeNorm(nn.Module):
    """Batch normalisation that never adds, then ReLU: ``relu(x * gain / sd)``, per channel.

    No mean is subtracted and no shift is added. The standard deviation itself is taken about the
    channel's mean, over batch and pixels (biased estimate, ``EPSILON`` inside the root); in
    evaluation it is the running one (momentum ``MOMENTUM``). [GAHB] appendix.

    Parameters
    ----------
    channels : int
        Number of channels C of the (B, C, H, W) input.
    """

    running_sd: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.register_buffer("running_sd", torch.ones(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise and rectify ``x``; in training mode also update the running deviation."""
        if not self.training:
            return F.relu(x * (self.gain / self.running_sd), inplace=True)
        y, sd = _NormRelu.apply(x, self.gain)
        with torch.no_grad():
            self.running_sd.lerp_(sd.to(self.running_sd.dtype), MOMENTUM)
        return y


class _NormRelu(Function):
    """``relu(x * gain / sd(x))`` and ``sd(x)``; the gradient runs through the deviation."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor) -> tuple[Tensor, Tensor]:
        mean = x.mean(PIXELS, keepdim=True)
        sd = (x - mean).square_().mean(PIXELS, keepdim=True).add_(EPSILON).sqrt_()
        y = (x * (gain / sd)).relu_()
        ctx.save_for_backward(x, y, gain, mean, sd)
        ctx.mark_non_differentiable(sd)
        return y, sd

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, Tensor]:
        x, y, gain, mean, sd = ctx.saved_tensors
        grad = torch.ops.aten.threshold_backward(grad, y, 0)
        along_x = (grad * x).sum(PIXELS, keepdim=True)
        pull = along_x * gain / (sd**3 * (x.numel() / x.shape[1]))
        grad = grad.mul_(gain / sd).addcmul_(x, pull, value=-1).add_(pull * mean)
        return grad, along_x / sd


class Convolution(nn.Module):
    """3x3 convolution with zero padding and no bias, He-normal initial weights.

    Parameters
    ----------
    c_in, c_out : int
        Channels in and out.
    generator : torch.Generator
        Draws the initial weights; the global random state is left alone.
    """

    def __init__(self, c_in: int, c_out: int, generator: torch.Generator) -> None:
        super().__init__()
        scale = math.sqrt(2 / (9 * c_in))
        self.weight = nn.Parameter(torch.randn(c_out, c_in, 3, 3, generator=generator) * scale)

    def forward(self, x: Tensor) -> Tensor:
        """(B, c_in, H, W) to (B, c_out, H, W)."""
        if self.training and x.device.type == "cpu" and not torch.is_autocast_enabled("cpu"):
            return _Conv3x3.apply(x, self.weight)
        return F.conv2d(x, self.weight, padding=1)


class _Conv3x3(Function):
    """3x3 convolution, stride 1, zero padding 1, with :func:`weight_gradient`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.conv2d(x, weight, padding=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor]:
        x, weight = ctx.saved_tensors
        grad_x = _library_gradients(x, grad, weight, 0) if ctx.needs_input_grad[0] else None
        return grad_x, weight_gradient(x, grad)


def _library_gradients(x: Tensor, grad: Tensor, weight: Tensor, which: int) -> Tensor:
    """Gradient of the input (``which`` 0) or of the weight (1), by the library."""
    one, zero = [1, 1], [0, 0]
    wanted = [which == 0, which == 1, False]
    return torch.ops.aten.convolution_backward(
        grad, x, weight, None, one, one, one, False, zero, 1, wanted
    )[which]


SHIFT_PIXELS = 400
UNFOLD_PIXELS = 144
UNFOLD_CHANNELS = 128
TINY_PIXELS = 16


def weight_gradient(x: Tensor, grad: Tensor) -> Tensor:
    """Gradient of a 3x3 convolution (stride 1, padding 1) with respect to its weight.

    By matrix products where they beat the library: nine over shifted images for large ones, one
    over unfolded patches for small ones with many channels (or tiny ones).

    Parameters
    ----------
    x : Tensor
        The input, (B, c_in, H, W).
    grad : Tensor
        Gradient of the output, (B, c_out, H, W).

    Returns
    -------
    Tensor
        (c_out, c_in, 3, 3). Cost: 18 B H W c_in c_out flops; memory: nine copies of ``x`` where
        patches are unfolded, B weights where images are shifted.
    """
    c_in, c_out = x.shape[1], grad.shape[1]
    pixels = x.shape[2] * x.shape[3]
    if pixels >= SHIFT_PIXELS:
        return _by_shifting(x, grad)
    if pixels <= TINY_PIXELS or (pixels <= UNFOLD_PIXELS and c_out >= UNFOLD_CHANNELS):
        return _by_unfolding(x, grad)
    return _library_gradients(x, grad, x.new_empty(c_out, c_in, 3, 3), 1)


def _by_unfolding(x: Tensor, grad: Tensor) -> Tensor:
    batch, c_in, height, width = x.shape
    c_out = grad.shape[1]
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))
    b, h, w, c = padded.stride()
    shape = (batch, height, width, 3, 3, c_in)
    patches = padded.as_strided(shape, (b, h, w, h, w, c)).reshape(-1, 9 * c_in)
    product = grad.permute(0, 2, 3, 1).reshape(-1, c_out).t() @ patches
    return product.view(c_out, 3, 3, c_in).permute(0, 3, 1, 2)


def _by_shifting(x: Tensor, grad: Tensor) -> Tensor:
    """A shift of the image is an offset in memory, where rows run on into the next one.

    Each tap is a product over all pixels at its offset, less what a step to the left or right
    wrongly took from the neighbouring row.
    """
    batch, c_in, height, width = x.shape
    x, grad = x.permute(0, 2, 3, 1), grad.permute(0, 2, 3, 1)
    flat_x, flat_grad = (t.reshape(batch, height * width, -1) for t in (x, grad))
    taps = []
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            offset = dy * width + dx
            here, there = _overlap(height * width, offset)
            tap = _product(flat_grad[:, here], flat_x[:, there])
            if dx:
                here, there = _overlap(height, dy + dx)
                last, first = (-1, 0) if dx > 0 else (0, -1)
                tap -= _product(grad[:, here, last], x[:, there, first])
            taps.append(tap)
    return torch.stack(taps, dim=-1).view(-1, c_in, 3, 3)


def _overlap(length: int, offset: int) -> tuple[slice, slice]:
    """Where i and i + offset are both in range(length): the slices of i and of i + offset."""
    start = max(0, -offset)
    stop = max(start, length - max(0, offset))
    return slice(start, stop), slice(start + offset, stop + offset)


def _product(grad: Tensor, x: Tensor) -> Tensor:
    """Sum over images and pixels of outer products: (B, P, c_out), (B, P, c_in)."""
    return torch.bmm(grad.transpose(1, 2), x).sum(0)


class Upsample(nn.Module):
    """Transposed convolution 2x2, stride 2, no bias: (B, c_in, H, W) to (B, c_out, 2H, 2W).

    As one matrix product and a shuffle of pixels, whose gradients are products too.

    Parameters
    ----------
    c_in, c_out : int
        Channels in and out.
    generator : torch.Generator
        Draws the initial weights (He normal), (c_in, c_out, 2, 2).
    """

    def __init__(self, c_in: int, c_out: int, generator: torch.Generator) -> None:
        super().__init__()
        scale = math.sqrt(2 / c_in)
        self.weight = nn.Parameter(torch.randn(c_in, c_out, 2, 2, generator=generator) * scale)

    def forward(self, x: Tensor) -> Tensor:
        """Each pixel becomes a 2x2 block."""
        if not (self.training and x.device.type == "cpu"):
            return F.conv_transpose2d(x, self.weight, stride=2)
        batch, _, height, width = x.shape
        c_out = self.weight.shape[1]
        blocks = x.permute(0, 2, 3, 1) @ self.weight.permute(0, 2, 3, 1).flatten(1)
        blocks = blocks.view(batch, height, width, 2, 2, c_out).permute(0, 1, 3, 2, 4, 5)
        return blocks.reshape(batch, 2 * height, 2 * width, c_out).permute(0, 3, 1, 2)
