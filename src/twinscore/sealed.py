"""Arrays that are read back: safetensors files with a checksum, bound to what they are.

It covers names, types, shapes, numbers and the rest of the metadata. Files of earlier versions have
none: weights are then used, and said to be unverified; measures are made again. (For JSON see
``runs.write_json``.)
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file
from safetensors.numpy import save as serialise

from twinscore.errors import Damaged, one_line
from twinscore.runs import SHA256, canonical_json, write_atomic

KEY = "key"
"""Where the metadata say what the file is: the digest of all that its numbers depend on."""

_CHUNK = 2**22
_LARGEST_HEADER = 2**27


def write(path: Path, encoded: bytes, key: str) -> str:
    """Write the bytes of a safetensors file with its ``key`` and checksum, which is returned.

    Errors as :func:`twinscore.runs.write_atomic`. Cost: one pass of SHA-256, some 1 GB/s.
    """
    length = int.from_bytes(encoded[:8], "little")
    header, data = json.loads(encoded[8 : 8 + length]), memoryview(encoded)[8 + length :]
    metadata = header.pop("__metadata__", {}) | {KEY: key}
    found = _started(header, metadata)
    found.update(data)
    metadata[SHA256] = found.hexdigest()
    text = json.dumps({"__metadata__": metadata} | header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)

    def fill(temporary: Path) -> None:
        with temporary.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            file.write(data)

    write_atomic(path, fill)
    return metadata[SHA256]


def check(path: Path, key: str | None = None) -> dict[str, str]:
    """Verify a safetensors file, and give its metadata.

    Reads the file once. Metadata without ``SHA256`` are those of an earlier version, of which
    nothing is verified.

    Raises
    ------
    Damaged
        If the file cannot be read, is not what was written, or has another key.
    """
    try:
        with path.open("rb") as file:
            header, metadata = _read_header(file)
            stated = metadata.pop(SHA256, None)
            if stated is None:
                return metadata
            found = _started(header, metadata)
            while chunk := file.read(_CHUNK):
                found.update(chunk)
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise Damaged(f"{path}: cannot be read as safetensors: {one_line(error)}") from None
    if found.hexdigest() != stated:
        raise Damaged(f"{path}: was changed after it was written: its checksum is another")
    if key is not None and metadata.get(KEY) != key:
        raise Damaged(f"{path}: belongs to something else than is asked for")
    return metadata | {SHA256: stated}


def write_arrays(path: Path, arrays: Mapping[str, Any], key: str = "") -> str:
    """Write arrays as :func:`write` does."""
    encoded = serialise({name: np.ascontiguousarray(value) for name, value in arrays.items()})
    return write(path, encoded, key)


def read_arrays(path: Path, key: str) -> dict[str, NDArray]:
    """Arrays of a file; Damaged as :func:`check`, and without a checksum."""
    if SHA256 not in check(path, key):
        raise Damaged(f"{path}: has no checksum")
    try:
        return load_file(path)
    except Exception as error:  # safetensors raises several kinds
        raise Damaged(f"{path}: cannot be read as safetensors: {one_line(error)}") from None


def _started(header: Mapping[str, Any], metadata: Mapping[str, str]) -> Any:
    """SHA-256 of all but the numbers."""
    return hashlib.sha256(canonical_json([header, metadata]).encode())


def _read_header(file: BinaryIO) -> tuple[dict[str, Any], dict[str, str]]:
    length = int.from_bytes(file.read(8), "little")
    if length > _LARGEST_HEADER:
        raise ValueError("it does not begin as a safetensors file")
    header = json.loads(file.read(length))
    return header, dict(header.pop("__metadata__", {}))
