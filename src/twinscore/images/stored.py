"""Array files, opened without being read: ``.npy``, ``.npz``, ``.safetensors``, ``.pt``.

What a header declares is checked against the size of the file before anything is allocated, and an
array that lies uncompressed in its file is memory-mapped.
"""

import io
import json
import math
import struct
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from pickle import UnpicklingError
from typing import IO

import numpy as np
import torch
from safetensors import safe_open

from twinscore.errors import InputError, one_line
from twinscore.images.mapping import OpenFile
from twinscore.images.pickles import require_tensors
from twinscore.images.quiet import quiet

MAX_UNPACKED = 2**32
"""Bytes that a compressed array may unpack to, since it must be held in memory."""

_NPY_HEADER = 10_000
_STEP = 2**20
_MOST_INFLATED = 1032  # bytes that deflate can make of one
SAFETENSORS = {
    "BOOL": "?",
    "U8": "u1",
    "U16": "<u2",
    "U32": "<u4",
    "U64": "<u8",
    "I8": "i1",
    "I16": "<i2",
    "I32": "<i4",
    "I64": "<i8",
    "F16": "<f2",
    "F32": "<f4",
    "F64": "<f8",
}
"""What a type of the safetensors format is in numpy."""


@dataclass(frozen=True)
class Stored:
    """An array in a file.

    Attributes
    ----------
    path : Path
        The file.
    shape : tuple of int
        What its header declares.
    dtype : numpy.dtype
        The same; no Python objects.
    access : callable
        Gives the array: a memory map where the file holds it uncompressed.
    file : OpenFile or None
        What is mapped, if it is.
    """

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype
    access: Callable[[], np.ndarray]
    file: OpenFile | None = None

    def read(self) -> np.ndarray:
        """The array, memory-mapped if possible; InputError if the file does not hold it."""
        with reading(self.path, "repair it, or save it again"):
            if self.file is not None:
                self.file.require_unchanged()
            return self.access()


@contextmanager
def reading(path: Path, advice: str) -> Iterator[None]:
    """Turn whatever a reader raises on a broken file into an InputError of one line.

    It names the file, and ends with the advice: what would be right.
    """
    try:
        yield
    except InputError:
        raise
    except UnpicklingError:
        raise InputError(f"{str(path)!r}: holds something other than tensors; {advice}") from None
    except Exception as error:  # libraries may raise nearly anything on broken files
        reason = getattr(error, "strerror", None) or one_line(error)
        raise InputError(f"{str(path)!r}: cannot be read ({reason}); {advice}") from None


def open_arrays(path: Path) -> dict[str, Stored]:
    """Open the arrays of a file, by name; one without a name is called ``images``.

    ``.npy``, ``.npz``, ``.safetensors``, ``.pt`` or ``.pth``; the last two are read with
    ``weights_only=True``. InputError when the file cannot be read, declares more than it holds, or
    holds something else.
    """
    opener, advice = _FORMATS[path.suffix.lower()]
    with reading(path, advice):
        return opener(OpenFile(path))


def mapped(
    file: OpenFile, offset: int, shape: tuple[int, ...], dtype: np.dtype, order: str = "C"
) -> Stored:
    """An array that lies uncompressed in a file from byte ``offset`` on: a read-only memory map.

    ValueError when the file ends before the array does.
    """
    require_size(shape, dtype, file.status.st_size - offset, at_least=True)
    return Stored(file.path, shape, dtype, lambda: file.map(offset, shape, dtype, order), file=file)


def require_size(
    shape: tuple[int, ...], dtype: np.dtype, available: int, *, at_least: bool = False
) -> None:
    """Check the declared size of an array against the bytes that are there.

    Raises
    ------
    ValueError
        When they are fewer; when they are more, unless ``at_least``.
    """
    declared = math.prod(shape) * dtype.itemsize
    if available < declared or (available > declared and not at_least):
        raise ValueError(
            f"its header declares {declared} bytes of pixels or labels, {available} are there"
        )


def unpack(
    stream: IO[bytes],
    compressed: int,
    shape: tuple[int, ...],
    dtype: np.dtype,
    order: str = "C",
    *,
    at_least: bool = False,
) -> np.ndarray:
    """Read an array from a deflated stream, which stands at its first byte and ends with it.

    ValueError when the stream, of ``compressed`` bytes, cannot hold the array, is shorter or (but
    for ``at_least``) longer than it, or the array is larger than :data:`MAX_UNPACKED`.
    """
    size = math.prod(shape) * dtype.itemsize
    if size > MAX_UNPACKED:
        raise ValueError(
            f"it unpacks to {size} bytes, at most {MAX_UNPACKED} are held in memory; "
            "store it uncompressed, which is memory-mapped"
        )
    if size > _MOST_INFLATED * compressed:
        raise ValueError(
            f"its header declares {size} bytes, {compressed} compressed ones cannot hold them"
        )
    content = np.empty(size, dtype=np.uint8)
    filled = 0
    while filled < size:
        part = stream.read(min(_STEP, size - filled))
        if not part:
            raise ValueError(f"it ends after {filled} of {size} bytes")
        content[filled : filled + len(part)] = np.frombuffer(part, dtype=np.uint8)
        filled += len(part)
    if not at_least and stream.read(1):
        raise ValueError(f"it goes on after the {size} bytes that its header declares")
    return content.view(dtype).reshape(shape, order=order)


def _open_npy(file: OpenFile) -> dict[str, Stored]:
    with file.path.open("rb") as stream:
        offset, shape, dtype, order = _npy_header(stream)
    require_size(shape, dtype, file.status.st_size - offset)
    return {"images": mapped(file, offset, shape, dtype, order)}


def _npy_header(file: IO[bytes]) -> tuple[int, tuple[int, ...], np.dtype, str]:
    head = io.BytesIO(file.read(_NPY_HEADER))  # the declared length of the header is not trusted
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    version = np.lib.format.read_magic(head)
    if version not in readers:
        raise ValueError(f"version {version[0]}.{version[1]} of the .npy format")
    with quiet():  # a header that Python 2 wrote
        shape, fortran, dtype = readers[version](head)
    if dtype.hasobject:
        raise ValueError("it holds Python objects")
    if min(shape, default=0) < 0:
        raise ValueError(f"its shape is {shape}")
    return head.tell(), shape, dtype, "F" if fortran else "C"


def _open_npz(file: OpenFile) -> dict[str, Stored]:
    arrays: dict[str, Stored] = {}
    with zipfile.ZipFile(file.path) as archive:
        for info in archive.infolist():
            name = _member_name(info)
            if name in arrays:
                raise ValueError(f"it holds {name!r} twice")
            arrays[name] = _member(file, archive, info)
    return arrays


def _member_name(info: zipfile.ZipInfo) -> str:
    place = PurePosixPath(info.filename)
    if place.is_absolute() or ".." in place.parts or "\\" in info.filename:
        raise ValueError(f"its member {info.filename!r} points out of the archive")
    if place.suffix != ".npy":
        raise ValueError(f"its member {info.filename!r} is not a .npy")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"its member {info.filename!r} is compressed, but not with deflate")
    return info.filename.removesuffix(".npy")


def _member(file: OpenFile, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Stored:
    with archive.open(info) as member:
        offset, shape, dtype, order = _npy_header(member)
    require_size(shape, dtype, info.file_size - offset)
    if info.compress_type == zipfile.ZIP_STORED:
        with file.path.open("rb") as stream:
            stream.seek(info.header_offset + 26)
            lengths = struct.unpack("<HH", stream.read(4))
        start = info.header_offset + 30 + sum(lengths)  # local header, name, extra field
        return mapped(file, start + offset, shape, dtype, order)

    def access() -> np.ndarray:
        with zipfile.ZipFile(file.path) as again, again.open(info) as member:
            member.read(offset)
            return unpack(member, info.compress_size, shape, dtype, order)

    return Stored(file.path, shape, dtype, access)


def _open_safetensors(file: OpenFile) -> dict[str, Stored]:
    with safe_open(file.path, framework="numpy"):  # checks the header: sizes, offsets, no overlap
        pass
    with file.path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(length))
    header.pop("__metadata__", None)
    arrays = {}
    for name, tensor in header.items():
        if tensor["dtype"] not in SAFETENSORS:
            raise ValueError(f"its tensor {name!r} is {tensor['dtype']}")
        dtype = np.dtype(SAFETENSORS[tensor["dtype"]])
        offset = 8 + length + tensor["data_offsets"][0]
        arrays[name] = mapped(file, offset, tuple(tensor["shape"]), dtype)
    return arrays


def _open_torch(file: OpenFile) -> dict[str, Stored]:
    with zipfile.ZipFile(file.path) as archive:
        for info in archive.infolist():
            if info.compress_type != zipfile.ZIP_STORED:
                raise ValueError("it is compressed")
            if PurePosixPath(info.filename).suffix == ".pkl":
                require_tensors(archive.read(info))
    with quiet():
        loaded = torch.load(file.path, weights_only=True, mmap=True, map_location="cpu")
    if isinstance(loaded, torch.Tensor):
        loaded = {"images": loaded}
    if not isinstance(loaded, dict):
        raise ValueError(f"it holds a {type(loaded).__name__}")
    return {
        str(name): _of_tensor(file, tensor)
        for name, tensor in loaded.items()
        if isinstance(tensor, torch.Tensor)
    }


def _of_tensor(file: OpenFile, tensor: torch.Tensor) -> Stored:
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise ValueError(f"its tensor of shape {tuple(tensor.shape)} repeats fewer numbers")
    array = tensor.detach().numpy()  # torch has mapped the file
    return Stored(file.path, array.shape, array.dtype, lambda: array, file=file)


_NUMPY = "save plain numbers with numpy.save or numpy.savez"
_TORCH = "save a tensor, or a dict with 'images' and 'labels', with torch.save"
_FORMATS: dict[str, tuple[Callable[[OpenFile], dict[str, Stored]], str]] = {
    ".npy": (_open_npy, _NUMPY),
    ".npz": (_open_npz, _NUMPY),
    ".pt": (_open_torch, _TORCH),
    ".pth": (_open_torch, _TORCH),
    ".safetensors": (_open_safetensors, "save plain numbers with safetensors.numpy.save_file"),
}
