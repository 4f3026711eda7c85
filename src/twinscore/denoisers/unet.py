"""The bias-free UNet of the main study: a universal blind denoiser."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from twinscore.denoisers.layers import (
    BiasFreeNorm,
    Convolution,
    Upsample,
    cropped,
    generator_of,
    padded,
)


class UNet(nn.Module):
    """Bias-free UNet that predicts the noise and returns the clean estimate.

    ``levels`` encoder blocks, one middle block and ``levels`` decoder blocks, each of
    ``convolutions`` 3x3 convolutions with ``BiasFreeNorm`` and ReLU; average pooling 2x2 on
    the way down, transposed convolution 2x2 up, skip concatenation, channels doubling per level.
    No additive term anywhere, no normalisation after the first convolution, the last one maps
    straight to the image. With its defaults it is the network of [GAHB]: 7,659,264 parameters.
    Blind: ``sigma`` is accepted and ignored.

    Parameters
    ----------
    channels : int
        Image channels C.
    width : int
        Channels of the first block.
    levels : int
        Number of poolings, at least 1.
    convolutions : int
        Convolutions per block, at least 2.
    seed : int
        Seed of the initial weights (He normal); the global random state is left alone.

    Raises
    ------
    ValueError
        If a size is below its minimum.
    """

    def __init__(
        self,
        channels: int = 1,
        width: int = 64,
        levels: int = 3,
        convolutions: int = 2,
        seed: int = 0,
    ) -> None:
        if min(channels, width, levels) < 1 or convolutions < 2:
            raise ValueError(
                "UNet needs channels, width, levels >= 1 and convolutions >= 2; got "
                f"{channels}, {width}, {levels}, {convolutions}"
            )
        super().__init__()
        self.levels = levels
        generator = generator_of(seed)
        w = [width * 2**b for b in range(levels + 1)]

        def block(c_in: int, c_out: int, count: int = convolutions) -> nn.Sequential:
            layers: list[nn.Module] = []
            for a, b in pairwise([c_in] + [c_out] * count):
                layers += [Convolution(a, b, generator), BiasFreeNorm(b)]
            return nn.Sequential(*layers)

        self.first = Convolution(channels, width, generator)
        self.encoder = nn.ModuleList([block(width, width, convolutions - 1)])
        self.encoder.extend(block(w[b - 1], w[b]) for b in range(1, levels))
        self.middle = block(w[levels - 1], w[levels])
        self.up = nn.ModuleList(Upsample(w[b + 1], w[b], generator) for b in range(levels))
        self.decoder = nn.ModuleList(
            block(2 * w[b], w[b], convolutions if b else convolutions - 1) for b in range(levels)
        )
        self.last = Convolution(width, channels, generator)

    def forward(self, y: Tensor, sigma: float | Tensor | None = None) -> Tensor:
        """Clean estimate of ``y``, (B, C, H, W).

        Where ``2**levels`` does not divide H or W, the image is padded inside by repeating its
        last row and column, and the result is cropped.
        """
        return y - cropped(self._noise(padded(y, 2**self.levels)), y)

    def _noise(self, y: Tensor) -> Tensor:
        x = F.relu(self.first(y))
        skips = []
        for block in self.encoder:
            skips.append(block(x))
            x = F.avg_pool2d(skips[-1], 2)
        x = self.middle(x)
        for b in reversed(range(self.levels)):
            x = self.decoder[b](torch.cat([self.up[b](x), skips[b]], dim=1))
        return self.last(x)
