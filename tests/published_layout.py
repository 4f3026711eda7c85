"""State dicts in the published names and layout, and what those networks compute, in functions."""

import torch
from torch.nn import functional as F

from twinscore.denoisers.layers import generator_of


def unet(channels=1, width=4, levels=2, convolutions=2, seed=0):
    """Tensors of a UNet: Sequential blocks of convolution, normalisation, ReLU, numbered from 0."""
    draw, state = generator_of(seed), {}
    w = [width * 2**b for b in range(levels + 1)]

    def block(name, sizes, bare):
        """``bare``: numbers of the convolutions that no normalisation follows."""
        position = 0
        for k, (a, b) in enumerate(sizes):
            state[f"{name}.{position}.weight"] = kernel(draw, a, b)
            if k not in bare:
                _norm(state, f"{name}.{position + 1}", b, draw)
            position += 2 if k in bare else 3

    def inner(a, b):
        return [(a, b)] + [(b, b)] * (convolutions - 1)

    block("encoder.0", inner(channels, width), {0})
    for b in range(1, levels):
        block(f"encoder.{b}", inner(w[b - 1], w[b]), ())
    block("mid_block", inner(w[levels - 1], w[levels]), ())
    for b in reversed(range(levels)):
        state[f"upsample.{b}.weight"] = torch.randn(w[b + 1], w[b], 2, 2, generator=draw) / w[b]
        if b:
            block(f"decoder.{b}", inner(2 * w[b], w[b]), ())
    last = [*inner(2 * width, width)[:-1], (width, channels)]
    block("decoder.0", last, {convolutions - 1})
    return state


def bf_cnn(channels=1, width=5, layers=6, points=(), seed=0):
    """Tensors of a BF-CNN; ``points`` are the numbers of the convolutions that are 1x1."""
    draw, state = generator_of(seed), {}
    sizes = [channels] + [width] * (layers - 1) + [channels]
    for k in range(layers):
        side = 1 if k in points else 3
        state[f"conv_layers.{k}.weight"] = kernel(draw, sizes[k], sizes[k + 1], side)
    for k in range(layers - 2):
        _norm(state, f"BN_layers.{k}", width, draw)
    return state


def kernel(draw, c_in, c_out, side=3):
    return torch.randn(c_out, c_in, side, side, generator=draw) * (2 / (side**2 * c_in)) ** 0.5


def _norm(state, name, channels, draw):
    state[f"{name}.gammas"] = 0.5 + torch.rand(1, channels, 1, 1, generator=draw)
    state[f"{name}.running_sd"] = 0.5 + torch.rand(1, channels, 1, 1, generator=draw)


def _norm_relu(state, name, x):
    return F.relu(x / state[f"{name}.running_sd"] * state[f"{name}.gammas"])


def unet_residual(state, y, levels=2, convolutions=2):
    """What the published UNet returns: the noise in ``y``."""

    def block(name, x, bare_first=False, bare_last=False):
        position = 0
        for k in range(convolutions):
            x = F.conv2d(x, state[f"{name}.{position}.weight"], padding=1)
            if bare_first and k == 0:
                x, position = F.relu(x), position + 2
            elif not (bare_last and k == convolutions - 1):
                x, position = _norm_relu(state, f"{name}.{position + 1}", x), position + 3
        return x

    skips, x = [], y
    for b in range(levels):
        skips.append(block(f"encoder.{b}", x, bare_first=b == 0))
        x = F.avg_pool2d(skips[-1], 2)
    x = block("mid_block", x)
    for b in reversed(range(levels)):
        x = F.conv_transpose2d(x, state[f"upsample.{b}.weight"], stride=2)
        x = block(f"decoder.{b}", torch.cat([x, skips[b]], 1), bare_last=b == 0)
    return x


def bf_cnn_residual(state, y, layers=6, first_relu=False):
    """What the published BF-CNN returns: the noise in ``y``."""
    for k in range(layers):
        weight = state[f"conv_layers.{k}.weight"]
        y = F.conv2d(y, weight, padding=weight.shape[-1] // 2)
        if 0 < k < layers - 1:
            y = _norm_relu(state, f"BN_layers.{k - 1}", y)
        elif k == 0 and first_relu:
            y = F.relu(y)
    return y
