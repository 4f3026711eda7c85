"""Images in IDX files, the format of MNIST and others like it, gzipped or not.

Layout (LeCun, Cortes and Burges, The MNIST database): two zero bytes, a code for the dtype, the
number of axes, each axis as a big-endian 32-bit integer, then the numbers, big-endian, last axis
fastest. Nothing is allocated because a header alone asks for it.
"""

import gzip
import struct
from pathlib import Path
from typing import IO

import numpy as np

from twinscore.errors import InputError
from twinscore.images.arrays import from_stored
from twinscore.images.imageset import ImageSet
from twinscore.images.mapping import OpenFile, require_regular
from twinscore.images.stored import Stored, mapped, reading, require_size, unpack
from twinscore.images.transforms import Options

_DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_MAX_AXES = 4
_GZIP = b"\x1f\x8b"
_ADVICE = "give an IDX file such as train-images-idx3-ubyte.gz"


def load_idx(body: str, options: Options) -> ImageSet:
    """Load the source ``idx:PATH`` or ``idx:PATH,labels=PATH``, see :func:`load_idx_file`.

    InputError when no file is named, or either cannot be used.
    """
    if not body:
        raise InputError("'idx:': names no file; give idx:PATH")
    labels = options.extra.get("labels")
    if labels == "":
        raise InputError(f"'idx:{body}': labels='' names no file; give labels=PATH")
    return load_idx_file(Path(body), options, labels=None if labels is None else Path(labels))


def load_idx_file(path: Path, options: Options, labels: Path | None = None) -> ImageSet:
    """Load images, and labels if there are any, from IDX files.

    A file that is not gzipped is memory-mapped; a gzipped one is unpacked into memory once.

    Parameters
    ----------
    path : Path
        Images of any layout and dtype that :func:`twinscore.images.arrays.from_stored` takes.
    options : Options
        Applied to every image.
    labels : Path, optional
        ``(N,)`` integers, which become int64. By default the file next to the images that MNIST's
        names imply: *labels* for *images* and *idx1* for *idx3*, packed the same way or else the
        other way; none if there is none.

    Raises
    ------
    InputError
        When a file cannot be read or is not an IDX file, is shorter or longer than its header
        declares, or holds no images; when there is not one label per image.
    """
    labels = _labels_beside(path) if labels is None else labels
    return from_stored(open_idx(path), None if labels is None else open_idx(labels), options)


def _labels_beside(images: Path) -> Path | None:
    name = images.name.replace("images", "labels").replace("idx3", "idx1")
    if name == images.name:
        return None
    other = name.removesuffix(".gz") if name.endswith(".gz") else f"{name}.gz"
    beside = (images.with_name(name), images.with_name(other))
    return next((path for path in beside if path.is_file()), None)


def is_idx(path: Path) -> bool:
    """Whether a file begins as IDX files do; False as well if it cannot be read."""
    try:
        with _opened(path) as stream:
            head = stream.read(4)
    except Exception:  # gzip raises several kinds of error on broken files
        return False
    return (
        len(head) == 4 and head[:2] == b"\0\0" and head[2] in _DTYPES and 1 <= head[3] <= _MAX_AXES
    )


def open_idx(path: Path) -> Stored:
    """Read the header of an IDX file; memory-mapped unless its first bytes say that it is gzipped.

    InputError when the file cannot be read, does not begin as IDX files do, or is not as long as
    its header declares; for a gzipped one the length shows when it is read.
    """
    with reading(path, _ADVICE), _opened(path) as stream:
        shape, dtype = _header(stream)
        offset = stream.tell()
        if not isinstance(stream, gzip.GzipFile):
            file = OpenFile(path)
            require_size(shape, dtype, file.status.st_size - offset)
            return mapped(file, offset, shape, dtype)

    def access() -> np.ndarray:
        with _opened(path) as again:
            again.read(offset)
            return unpack(again, path.stat().st_size, shape, dtype)

    return Stored(path, shape, dtype, access)


def _opened(path: Path) -> IO[bytes]:
    require_regular(path)
    with path.open("rb") as file:
        packed = file.read(2) == _GZIP
    return gzip.open(path) if packed else path.open("rb")


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    head = stream.read(4)
    if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in _DTYPES:
        raise ValueError(f"it begins with {head.hex(' ') or 'nothing'}, not with an IDX header")
    number = head[3]
    if not 1 <= number <= _MAX_AXES:
        raise ValueError(f"its header declares {number} axes")
    axes = stream.read(4 * number)
    if len(axes) < 4 * number:
        raise ValueError(f"its header is cut off within the {number} axes")
    return struct.unpack(f">{number}I", axes), np.dtype(_DTYPES[head[2]])
