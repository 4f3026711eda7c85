"""The random numbers of image i: a function of the seed and of i alone.

All images of a seed share one PCG64-DXSM stream, and image i starts at position ``i * STRIDE`` of
it: so any image can be made alone, in any order and in batches of any size, bit for bit the same.
Skipping ahead costs a tenth of seeding a generator for every image.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from twinscore.errors import InputError

Indices = Sequence[int] | np.ndarray

STRIDE = 0x9E3779B97F4A7C15F39CC0605CEDC835
"""Odd, and the golden ratio of the period 2^128: the starts of n images are at least 2^126 / n
numbers apart, so that no two images overlap."""


def generators(indices: Indices, seed: int) -> Iterator[np.random.Generator]:
    """Give each image its generator, at the start of the image's numbers.

    Indices are in any order. It is the same object every time: use it before taking the next one.
    InputError when the seed or an index is negative, or they are not integers.
    """
    rows = _checked(indices, seed)
    bits = np.random.PCG64DXSM(np.random.SeedSequence(seed))
    start = bits.state
    generator = np.random.Generator(bits)
    for index in rows.tolist():
        bits.state = start
        bits.advance(index * STRIDE)
        yield generator


def shared(seed: int) -> np.random.Generator:
    """Generator of what all images of a seed share: means, a basis, a permutation.

    It is independent of the generators of the images. InputError when the seed is negative.
    """
    _require_seed(seed)
    return np.random.Generator(np.random.PCG64DXSM(np.random.SeedSequence(seed, spawn_key=(0,))))


def uniform(indices: Indices, count: int, seed: int) -> torch.Tensor:
    """Numbers uniform in [-1, 1], ``(n, count)`` float32 on the CPU, of 32 random bits each.

    At half the cost of the generator's own float32 numbers. Errors as for :func:`generators`.
    """
    words = np.empty((len(indices), -(-count // 2)), dtype=np.uint64)
    for row, generator in zip(words, generators(indices, seed), strict=True):
        row[:] = generator.bit_generator.random_raw(len(row))
    return torch.from_numpy(words.view(np.int32))[:, :count].float().mul_(2.0**-31)


def normal(indices: Indices, count: int, seed: int) -> torch.Tensor:
    """Standard normal numbers, ``(n, count)`` float32 on the CPU; errors as :func:`generators`."""
    numbers = np.empty((len(indices), count), dtype=np.float32)
    for row, generator in zip(numbers, generators(indices, seed), strict=True):
        generator.standard_normal(out=row, dtype=np.float32)
    return torch.from_numpy(numbers)


def _checked(indices: Indices, seed: int) -> np.ndarray:
    _require_seed(seed)
    rows = np.asarray(indices)
    if rows.size == 0:
        return np.empty(0, dtype=np.int64)
    if rows.ndim != 1 or rows.dtype.kind not in "iu":
        raise InputError(
            f"indices: {rows.dtype} of shape {rows.shape}; give a list of whole numbers"
        )
    if rows.min() < 0:
        raise InputError(f"indices: {rows.min()} is negative; give 0 or more")
    return rows


def _require_seed(seed: int) -> None:
    if seed < 0:
        raise InputError(f"seed: {seed} is negative; give 0 or more")
