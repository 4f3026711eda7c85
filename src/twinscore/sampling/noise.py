"""Noise that depends on the image's seed alone, in any batch."""

from collections.abc import Sequence

import torch
from torch import Tensor

from twinscore.runs import derive_seed


def noise(seeds: Sequence[int], shape: tuple[int, int, int], step: int = 0) -> Tensor:
    """Standard normal noise, one image per seed.

    Parameters
    ----------
    seeds : sequence of int
        Seed of each image; image i is a function of ``(seeds[i], step)`` only, bit for bit.
    shape : tuple of int
        (C, H, W).
    step : int
        Step of a sampler; 0 is where it starts.

    Returns
    -------
    Tensor
        (B, C, H, W), float32, on the CPU.

    Examples
    --------
    >>> from twinscore.sampling import noise
    >>> bool((noise([3, 5], (1, 8, 8))[1] == noise([5], (1, 8, 8))[0]).all())
    True
    """
    out = torch.empty(len(seeds), *shape)
    generator = torch.Generator()
    for image, seed in zip(out, seeds, strict=True):
        generator.manual_seed(derive_seed("sample", int(seed), step))
        torch.randn(shape, generator=generator, out=image)
    return out
