"""NIfTI volumes, by nibabel: their slices along an axis, in the units of the file."""

import gzip
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from twinscore.errors import InputError, one_line
from twinscore.images.extras import require
from twinscore.images.pictures import Picture, corrupt, require_few, require_picture_file
from twinscore.images.stored import MAX_UNPACKED, require_size, unpack
from twinscore.images.transforms import Options

_GZIP = b"\x1f\x8b"
_NIFTI_2 = (540).to_bytes(4, "little"), (540).to_bytes(4, "big")
_LAST = 2


def scan(path: Path, options: Options) -> tuple[int, str | None]:
    """How many slices a file holds, and that it does not say whom they show; as :func:`read`."""
    with _opened(path) as stream:
        shape, _ = _layout(_header(stream, path), path)
    return shape[_axis(options)], None


def read(path: Path, options: Options) -> Iterator[Picture]:
    """Read a volume, and give its slices along ``options.axis`` (by default the last), as stored.

    Values are those of the file's slope and intercept, where it has them. A slice is the volume
    without that axis, ``(1, H, W)``.

    Raises
    ------
    CorruptImageError
        When the file is broken.
    InputError
        When nibabel is not installed, or the file holds more than three axes or no plain numbers.
    """
    require_picture_file(path, most=MAX_UNPACKED)
    try:
        yield from _read(path, options)
    except InputError:
        raise
    except MemoryError:  # the file may be sound
        raise InputError(f"{str(path)!r}: does not fit into memory; make some free") from None
    except Exception as error:  # nibabel and gzip raise nearly anything on broken files
        raise corrupt(str(path), one_line(error)) from None


def _read(path: Path, options: Options) -> Iterator[Picture]:
    axis = _axis(options)
    with _opened(path) as stream:
        header = _header(stream, path)
        shape, dtype = _layout(header, path)
        require_few(math.prod(shape) // shape[axis], str(path))
        stream.seek(header.get_data_offset())
        available = path.stat().st_size
        if not isinstance(stream, gzip.GzipFile):
            require_size(shape, dtype, available - header.get_data_offset(), at_least=True)
        volume = unpack(stream, available, shape, dtype, order="F", at_least=True)
    slope, intercept = header.get_slope_inter()
    scaled = slope is not None and (slope, intercept) != (1, 0)
    codes = "".join(str(code or "?") for code in _codes(header))
    remarks = (f"slices along axis {axis} of 0, 1 and 2, as stored ({codes})",)
    for plane in np.moveaxis(volume, axis, 0):
        values = plane.astype(np.float64) * slope + intercept if scaled else plane
        yield Picture(np.ascontiguousarray(values)[None], remarks=remarks)


def _axis(options: Options) -> int:
    return _LAST if options.axis is None else options.axis


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    with path.open("rb") as file:
        packed = file.read(2) == _GZIP
    with gzip.open(path) if packed else path.open("rb") as stream:
        yield stream


def _header(stream: IO[bytes], path: Path) -> Any:
    """The header of either version; not checked, of which nibabel would write to stderr."""
    nibabel = require("nibabel", str(path), "medical")
    start = stream.read(4)
    stream.seek(0)
    kind = nibabel.Nifti2Header if start in _NIFTI_2 else nibabel.Nifti1Header
    return kind.from_fileobj(stream, check=False)


def _layout(header: Any, path: Path) -> tuple[tuple[int, int, int], np.dtype]:
    """Three axes, and the type of the numbers."""
    shape = tuple(int(length) for length in header.get_data_shape())
    if not shape or min(shape) < 1:
        raise ValueError(f"its shape is {shape}")
    if math.prod(shape[3:]) > 1:
        raise InputError(
            f"{str(path)!r}: has {len(shape)} axes, {shape}; give volumes of three, one a file"
        )
    dtype = header.get_data_dtype()
    if dtype.kind not in "iuf":
        raise InputError(f"{str(path)!r}: holds {dtype}; give plain numbers")
    height, width, depth = (*shape[:3], 1, 1)[:3]
    return (height, width, depth), dtype


def _codes(header: Any) -> tuple[str | None, ...]:
    import nibabel

    try:
        return nibabel.aff2axcodes(header.get_best_affine())
    except Exception:  # an odd orientation does not make pixels corrupt
        return ("?",) * 3
