"""Images that stay in their file: memory maps, and what tells that the file was changed."""

import os
import stat
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from twinscore.errors import InputError


class OpenFile:
    """A file that stays open, and what it was when it was opened.

    What is mapped is the file itself: its name may go, or come to mean another one.

    Attributes
    ----------
    path : Path
        Its name.
    status : os.stat_result
        What it was.
    """

    def __init__(self, path: Path) -> None:
        """Open a file; ValueError when it is not a regular one, or OSError."""
        require_regular(path)
        self.path = path
        self._descriptor = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._descriptor)
        self.status = os.fstat(self._descriptor)

    def map(
        self, offset: int, shape: tuple[int, ...], dtype: np.dtype, order: str = "C"
    ) -> np.ndarray:
        """Map an array that begins at byte ``offset``, read-only.

        ValueError when the file ends before the array does.
        """
        with os.fdopen(os.dup(self._descriptor), "rb") as file:
            return np.asarray(np.memmap(file, dtype, "r", offset, shape, order))

    def require_unchanged(self) -> None:
        """Refuse to go on with a file that was written to or cut off; costs one system call.

        To read what a map had beyond the new end would kill the process.

        Raises
        ------
        InputError
            When its size or the time of its last change is not what it was.
        """
        now = os.fstat(self._descriptor)
        if (now.st_size, now.st_mtime_ns) != (self.status.st_size, self.status.st_mtime_ns):
            raise InputError(
                f"{str(self.path)!r}: changed while it was being read; start again with a file "
                "that nothing writes to"
            )


@dataclass(frozen=True, eq=False)
class MappedPixels:
    """Packed images in a file, which is looked at before each access.

    Attributes
    ----------
    array : numpy.ndarray
        ``(N, C, H, W)``, a view of a map of the file.
    file : OpenFile
        Where they are.
    """

    array: np.ndarray
    file: OpenFile

    @property
    def shape(self) -> tuple[int, ...]:
        """``(N, C, H, W)``."""
        return self.array.shape

    @property
    def dtype(self) -> np.dtype:
        """Type of the numbers, in any byte order."""
        return self.array.dtype

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, indices: Any, /) -> np.ndarray:
        self.file.require_unchanged()
        return self.array[indices]

    def __reduce__(self) -> tuple[Any, ...]:
        return np.array, (self[:],)


def require_regular(path: Path) -> None:
    """Refuse what is not a file, such as a pipe, which could be waited for without end.

    Raises
    ------
    ValueError
        When it is something else; OSError when there is nothing.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError("it is not a regular file")
