"""A UNet that is told the noise level, preconditioned as diffusion models are (EDM)."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from twinscore.denoisers.base import per_image
from twinscore.denoisers.layers import Convolution, Upsample, cropped, generator_of, padded

CENTRE, SPREAD = 0.5, 0.25
"""Mean and standard deviation that the preconditioning takes pixels of images in [0, 1] to have."""

LEAST_SIGMA = 1e-4
"""Noise level that smaller ones are taken for where their logarithm is needed."""

_GROUPS = 8
_WAVES = 32


class ConditionedUNet(nn.Module):
    """UNet of residual blocks that the noise level scales and shifts, with EDM's preconditioning.

    ``D(y, sigma) = m + c_skip (y - m) + c_out F(c_in (y - m), ln(sigma) / 4)``, with
    ``c_skip = s^2 / (sigma^2 + s^2)``, ``c_out = sigma s c_in``, ``c_in = (sigma^2 + s^2)^(-1/2)``
    (Karras et al. 2022, table 1), m = ``CENTRE`` and s = ``SPREAD``. Of an untrained network F is
    0, and D the best denoiser of pixels that are independent with this mean and deviation.

    A residual block normalises its input over groups of channels, and adds two 3x3 convolutions
    with SiLU. The noise level's waves pass two linear layers, and then one for each block, which
    gives a scale and a shift after its second normalisation.

    Parameters
    ----------
    channels : int
        Image channels C.
    width : int
        Channels of the first block; they double per level.
    levels : int
        Number of poolings, at least 1.
    blocks : int
        Residual blocks per level, down and up.
    seed : int
        Seed of the initial weights; the global random state is left alone.

    Raises
    ------
    ValueError
        If a size is below 1.
    """

    def __init__(
        self, channels: int = 1, width: int = 64, levels: int = 3, blocks: int = 1, seed: int = 0
    ) -> None:
        if min(channels, width, levels, blocks) < 1:
            raise ValueError(
                "ConditionedUNet needs channels, width, levels, blocks >= 1; got "
                f"{channels}, {width}, {levels}, {blocks}"
            )
        super().__init__()
        self.levels = levels
        generator, told = generator_of(seed), 4 * width
        w = [width * 2**b for b in range(levels + 1)]

        def several(c_in: int, c_out: int) -> nn.ModuleList:
            sizes = [c_in] + [c_out] * (blocks - 1)
            return nn.ModuleList(_Block(a, c_out, told, generator) for a in sizes)

        self.told = nn.Sequential(
            _Linear(2 * _WAVES, told, generator), nn.SiLU(), _Linear(told, told, generator)
        )
        self.first = Convolution(channels, width, generator)
        self.encoder = nn.ModuleList(several(w[max(b - 1, 0)], w[b]) for b in range(levels))
        self.middle = several(w[levels - 1], w[levels])
        self.up = nn.ModuleList(Upsample(w[b + 1], w[b], generator) for b in range(levels))
        self.decoder = nn.ModuleList(several(2 * w[b], w[b]) for b in range(levels))
        self.norm = _norm(width)
        self.last = Convolution(width, channels, generator)
        nn.init.zeros_(self.last.weight)

    def forward(self, y: Tensor, sigma: float | Tensor | None = None) -> Tensor:
        """Clean estimate of ``y``, (B, C, H, W); ``sigma`` is a number or (B,).

        Where ``2**levels`` does not divide H or W, the image is padded inside by repeating its
        last row and column, and the result is cropped. ValueError without a noise level.
        """
        level = per_image(sigma, y)
        if level is None:
            raise ValueError("a conditioned network needs the noise level sigma")
        total = level.square() + SPREAD**2
        c_skip, c_in = SPREAD**2 / total, total.rsqrt()
        c_skip, c_in, c_out = (c.view(-1, 1, 1, 1) for c in (c_skip, c_in, level * SPREAD * c_in))
        centred = y - CENTRE
        return CENTRE + c_skip * centred + c_out * self._padded(c_in * centred, level)

    def _padded(self, x: Tensor, level: Tensor) -> Tensor:
        inner = self._inner(padded(x, 2**self.levels), self.told(_waves(level)))
        return cropped(inner, x)

    def _inner(self, x: Tensor, told: Tensor) -> Tensor:
        x = self.first(x)
        skips = []
        for blocks in self.encoder:
            x = _through(blocks, x, told)
            skips.append(x)
            x = F.avg_pool2d(x, 2)
        x = _through(self.middle, x, told)
        for b in reversed(range(self.levels)):
            x = _through(self.decoder[b], torch.cat([self.up[b](x), skips[b]], dim=1), told)
        return self.last(F.silu(self.norm(x)))


class _Block(nn.Module):
    """A residual block, (B, c_in, H, W) and what is told (B, E) to (B, c_out, H, W)."""

    def __init__(self, c_in: int, c_out: int, told: int, generator: torch.Generator) -> None:
        super().__init__()
        self.before, self.after = _norm(c_in), _norm(c_out)
        self.one = Convolution(c_in, c_out, generator)
        self.two = Convolution(c_out, c_out, generator)
        self.affine = _Linear(told, 2 * c_out, generator)
        self.skip = nn.Identity() if c_in == c_out else _Pointwise(c_in, c_out, generator)

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        scale, shift = self.affine(F.silu(told))[:, :, None, None].chunk(2, dim=1)
        inner = self.one(F.silu(self.before(x)))
        inner = F.silu(self.after(inner) * (1 + scale) + shift)
        return (self.skip(x) + self.two(inner)) / math.sqrt(2)


class _Linear(nn.Module):
    """(B, n_in) to (B, n_out), with a bias that begins at 0."""

    def __init__(self, n_in: int, n_out: int, generator: torch.Generator) -> None:
        super().__init__()
        weight = torch.randn(n_out, n_in, generator=generator) / math.sqrt(n_in)
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(torch.zeros(n_out))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


class _Pointwise(nn.Module):
    """1x1 convolution without bias."""

    def __init__(self, c_in: int, c_out: int, generator: torch.Generator) -> None:
        super().__init__()
        weight = torch.randn(c_out, c_in, 1, 1, generator=generator) / math.sqrt(c_in)
        self.weight = nn.Parameter(weight)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight)


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(math.gcd(channels, _GROUPS), channels)


def _through(blocks: nn.ModuleList, x: Tensor, told: Tensor) -> Tensor:
    for block in blocks:
        x = block(x, told)
    return x


def _waves(level: Tensor) -> Tensor:
    """Cosines and sines of ``ln(sigma) / 4``, (B, 2 ``_WAVES``), of frequencies from 1 to 100."""
    at = level.clamp_min(LEAST_SIGMA).log() / 4
    frequency = torch.logspace(0, 2, _WAVES, device=level.device, dtype=level.dtype)
    phase = at[:, None] * frequency
    return torch.cat([phase.cos(), phase.sin()], dim=1)
