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
        mean, variance = _moments(x)
        sd = variance.add_(EPSILON).sqrt_()
        y = (x * (gain / sd)).relu_()
        ctx.save_for_backward(x, y, gain, mean, sd)
        ctx.mark_non_differentiable(sd)
        return y, sd

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, Tensor]:
        x, y, gain, mean, sd = ctx.saved_tensors
        grad = torch.ops.aten.threshold_backward(grad, y, 0)
        along_x = _inner_products(grad, x)
        # d sd / d x = (x - mean) / (n sd), with n = B H W values in a channel
        pull = along_x * gain / (sd**3 * (x.numel() / x.shape[1]))
        grad = grad.mul_(gain / sd).addcmul_(x, pull, value=-1).add_(pull * mean)
        return grad, along_x / sd


def _fused_sums(x: Tensor) -> bool:
    """Whether the sums inside the library's batch normalisation are available: CPU, full floats."""
    return x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64)


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and (biased) variance of each channel, each (1, C, 1, 1)."""
    if not _fused_sums(x):
        variance, mean = torch.var_mean(x, PIXELS, correction=0, keepdim=True)
        return mean, variance
    mean, variance = torch.ops.aten.batch_norm_update_stats(x, None, None, 0.0)
    return mean.view(1, -1, 1, 1), variance.view(1, -1, 1, 1)


def _inner_products(a: Tensor, b: Tensor) -> Tensor:
    """Sum of ``a * b`` over each channel, (1, C, 1, 1): what batch normalisation's gain gets."""
    if not (_fused_sums(a) and a.dtype == b.dtype):
        return (a * b).sum(PIXELS, keepdim=True)
    zero, one = a.new_zeros(a.shape[1]), a.new_ones(a.shape[1])
    only_gain = [False, True, False]
    _, sums, _ = torch.ops.aten.native_batch_norm_backward(
        a, b, None, None, None, zero, one, True, 0.0, only_gain
    )
    return sums.view(1, -1, 1, 1)


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
    # in order: no bias; stride, padding, dilation 1; not transposed, no output padding; one group
    return torch.ops.aten.convolution_backward(
        grad, x, weight, None, one, one, one, False, zero, 1, wanted
    )[which]


ROW_PIXELS = 1024
PATCH_BYTES = 16 * 2**20
LONG_SUM = 2000


def weight_gradient(x: Tensor, grad: Tensor) -> Tensor:
    """Gradient of a 3x3 convolution (stride 1, padding 1) with respect to its weight.

    By matrix products over unfolded patches where they beat the library: for 64 output channels and
    more, or 32 for large images. Of the input, (B, c_in, H, W), and the gradient of the output, (B,
    c_out, H, W): (c_out, c_in, 3, 3). Cost: 18 B H W c_in c_out flops; memory: a padded copy of
    ``x`` and ``PATCH_BYTES`` of patches (or those of one image).
    """
    c_in, c_out = x.shape[1], grad.shape[1]
    large = x.shape[2] * x.shape[3] >= ROW_PIXELS
    if c_out >= (32 if large else 64):
        return _by_unfolding(x, grad, 1 if large else 3)
    return _library_gradients(x, grad, x.new_empty(c_out, c_in, 3, 3), 1)


def _by_unfolding(x: Tensor, grad: Tensor, rows: int) -> Tensor:
    """As many images at a time as stay in the cache.

    Patches of 3x3 pixels (``rows`` 3) make one product. Patches of 1x3 (``rows`` 1) are a third
    of the copying; the rows above and below are then products at an offset in memory.
    """
    batch, c_in, height, width = x.shape
    c_out, pixels = grad.shape[1], height * width
    tall = height + 3 - rows  # patches per column: 1x3 ones lie on the two rows of padding too
    # (B, H + 2, W + 2, C): channels last, so that a patch's row is one run of 3 C values in memory
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))
    b, h, w, c = padded.stride()
    grad = grad.permute(0, 2, 3, 1).reshape(batch, pixels, c_out)
    # 4 bytes per value, tall x width patches of rows x 3 pixels per image
    images = max(1, PATCH_BYTES // (4 * tall * width * rows * 3 * c_in))
    total = []
    for start in range(0, batch, images):
        some, there = padded[start : start + images], grad[start : start + images]
        shape = (len(some), tall, width, rows, 3, c_in)
        # a patch steps through the same rows and columns as the pixels inside it: h and w twice
        patches = some.as_strided(shape, (b, h, w, h, w, c), some.storage_offset())
        patches = patches.reshape(len(some), tall * width, -1)
        # kernel row k meets the pixels k image rows further down; 3x3 patches hold all three rows
        windows = (patches[:, k * width : k * width + pixels] for k in range(4 - rows))
        part = [_product(window, there) for window in windows]
        total = [a.add_(b) for a, b in zip(total, part, strict=True)] if total else part
    # kernel row, column, channel in, channel out
    taps = total[0] if rows == 3 else torch.stack(total)
    return taps.reshape(3, 3, c_in, c_out).permute(3, 2, 0, 1)


def _product(a: Tensor, b: Tensor) -> Tensor:
    """Sum over images and pixels of outer products: (B, P, m), (B, P, n) to (m, n).

    A long sum is a tenth faster in this order; a short one is not worth the transposed copy that
    a weight's gradient then needs.
    """
    if not a.is_contiguous():  # windows of several images: flattened, they would be copied
        return torch.bmm(a.transpose(1, 2), b).sum(0)
    a, b = a.flatten(0, 1), b.flatten(0, 1)
    return a.t() @ b if len(a) >= LONG_SUM else (b.t() @ a).t()


def padded(x: Tensor, step: int) -> Tensor:
    """An image whose last row and column are repeated until ``step`` divides both sides."""
    height, width = ((side + step - 1) // step * step for side in x.shape[-2:])
    if torch.compiler.is_compiling():
        return _taken(x, height, width)
    if (height, width) == tuple(x.shape[-2:]):
        return x
    return F.pad(x, (0, width - x.shape[-1], 0, height - x.shape[-2]), mode="replicate")


def cropped(x: Tensor, like: Tensor) -> Tensor:
    """The part of an image that is as large as another."""
    height, width = like.shape[-2:]
    return _taken(x, height, width) if torch.compiler.is_compiling() else x[..., :height, :width]


def _taken(x: Tensor, height: int, width: int) -> Tensor:
    """So many rows and columns, the last ones repeated.

    By indices: a graph of it does for every size, also where nothing is added or left out.
    """
    for axis, side in ((-2, height), (-1, width)):
        indices = torch.arange(side, device=x.device).clamp(max=x.shape[axis] - 1)
        x = x.index_select(axis, indices)
    return x


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
        # (B, H, W, c_in) by (c_in, 2 2 c_out): the block of each pixel, then rows next to rows
        blocks = x.permute(0, 2, 3, 1) @ self.weight.permute(0, 2, 3, 1).flatten(1)
        blocks = blocks.view(batch, height, width, 2, 2, c_out).permute(0, 1, 3, 2, 4, 5)
        # the one copy; the result is channels-last in memory, like the skip it is joined to
        return blocks.reshape(batch, 2 * height, 2 * width, c_out).permute(0, 3, 1, 2)
