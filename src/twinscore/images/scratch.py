"""Space for packed pixels: in memory while they are few, otherwise in a file without a name."""

import math
import mmap
import os
import tempfile

import numpy as np

from twinscore.errors import InputError

IN_MEMORY = 2**28
"""Bytes up to which an array is kept in memory."""


def scratch(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Make an array to write into, of undefined content and any size the disk can hold.

    Beyond ``IN_MEMORY`` bytes it is a memory map of a temporary file, in the folder that ``TMPDIR``
    names, already unlinked: the system frees the space when the array goes, however the process
    ends. Its dtype has no objects. InputError when the disk cannot hold it.
    """
    size = math.prod(shape) * dtype.itemsize
    if size <= IN_MEMORY:
        memory = mmap.mmap(-1, max(size, 1))
        return np.frombuffer(memory, dtype=dtype, count=math.prod(shape)).reshape(shape)
    try:
        with tempfile.TemporaryFile(prefix="twinscore-") as file:
            _reserve(file.fileno(), size)
            return np.memmap(file, dtype=dtype, mode="r+", shape=shape)
    except OSError as error:
        raise InputError(
            f"{tempfile.gettempdir()}: no room for {size / 1e9:.1f} GB of pixels "
            f"({error.strerror or error}); point TMPDIR to a larger disk or give a smaller size"
        ) from None


def _reserve(file: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):  # or a full disk would kill the process at a later write
        os.posix_fallocate(file, 0, size)
    else:
        os.ftruncate(file, size)
