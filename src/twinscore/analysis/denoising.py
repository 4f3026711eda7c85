"""Denoising performance: the PSNR of every image at every noise level."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from twinscore.denoisers import Denoiser, check, psnr
from twinscore.runs import derive_seed


@torch.no_grad()
def psnr_table(
    denoiser: Denoiser,
    images: Tensor,
    sigmas: Sequence[float],
    *,
    seed: int = 0,
    batch: int = 128,
) -> Tensor:
    """PSNR of each denoised image at each noise level, (K, N) in dB, peak 1, MSE per pixel.

    Its mean over images is the published curve.

    Parameters
    ----------
    denoiser : Denoiser
        Any denoiser; sigma is passed.
    images : Tensor
        Clean images, (N, C, H, W).
    sigmas : sequence of float
        Noise levels, image units, (K,).
    seed : int
        The noise on image i at level k is a function of (seed, i, k) only.
    batch : int
        Images denoised at once; bounds memory.

    Raises
    ------
    ValueError
        For a denoiser that breaks the contract.
    """
    table = torch.empty(len(sigmas), len(images))
    generator = torch.Generator()
    for k, sigma in enumerate(sigmas):
        for start in range(0, len(images), batch):
            x = images[start : start + batch]
            z = torch.empty(x.shape)
            for i, image in enumerate(z, start):
                generator.manual_seed(derive_seed("psnr", seed, k, i))
                torch.randn(image.shape, generator=generator, out=image)
            x_hat = check(denoiser, x + sigma * z.to(x), sigma)
            table[k, start : start + len(x)] = psnr(x_hat, x).cpu()
    return table


def error_table(
    denoiser: Denoiser, images: Tensor, sigmas: Sequence[float], *, seed: int
) -> NDArray[np.float64]:
    """Squared error per pixel, (K, N), where :func:`psnr_table` gives the PSNR."""
    return 10 ** (-psnr_table(denoiser, images, sigmas, seed=seed).double().numpy() / 10)
