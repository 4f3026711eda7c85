"""Packed files: one safetensors file of pixels and their manifest, memory-mapped when read.

Tensors of a packed file, in this order: ``pixels`` (N, C, H, W), uint8 where ``twinscore prepare``
wrote them; ``digests`` (N, 32) uint8; ``names``; where the images have them ``groups``, ``labels``
(N,), ``attributes`` (N, K) uint8 and ``originals`` (N,) int64. A list of texts called ``t`` is two
tensors, ``t.text`` (its UTF-8 bytes one after the other) and ``t.ends`` (int64, where each ends);
groups, and labels that are words, are a list of the distinct ones and ``t.codes`` (N,) int64. The
metadata hold ``twinscore_packed`` (the version of this layout), ``peak``, ``source`` and
``manifest_sha256``, of these two and all tensors but the pixels, which a file written by an older
version lacks.
"""

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from twinscore import runs
from twinscore.errors import InputError, one_line
from twinscore.images.arrays import require_images
from twinscore.images.imageset import (
    PEAKS,
    ImageSet,
    LazyPixels,
    chunks,
    digests_of,
    from_pixels,
)
from twinscore.images.mapping import MappedPixels, OpenFile
from twinscore.images.stored import SAFETENSORS
from twinscore.images.transforms import Options, silent, transform_all
from twinscore.images.verified import is_verified, remember

VERSION = 2
"""Of the layout; files without copies, of 8 bits, are of version 1."""
_ADVICE = "write it with twinscore prepare"
_BYTES = np.dtype(np.uint8)
_LARGEST_HEADER = 2**16
_ALIGNMENT = 64
_LONGEST_LABEL = 100
_LONGEST_SOURCE = 2000
_CODES = {np.dtype(dtype): code for code, dtype in SAFETENSORS.items()}


def to_uint8(images: ImageSet) -> ImageSet:
    """Round images to what a packed file holds.

    Parameters
    ----------
    images : ImageSet
        Any.

    Returns
    -------
    ImageSet
        The images themselves if they are uint8; else rounded to multiples of 1/255 when they are
        asked for, with the digests of the rounded ones (all are read once for these).
    """
    if images.pixels.dtype == np.uint8:
        return images
    scale = 255 / images.peak

    def rounded(rows: np.ndarray) -> np.ndarray:
        return np.rint(images.pixels[rows] * np.float64(scale)).astype(np.uint8)

    number, channels, height, width = images.pixels.shape
    return replace(
        from_pixels(
            LazyPixels((number, channels, height, width), np.dtype(np.uint8), rounded),
            names=images.names,
            labels=images.labels,
            groups=images.groups,
            attributes=images.attributes,
        ),
        originals=images.originals,
        skipped=images.skipped,
    )


def write(
    path: Path,
    images: ImageSet,
    *,
    source: str = "",
    progress: Callable[[int, int], None] = silent,
) -> None:
    """Write images to a packed file; the pixels pass through memory in chunks.

    Parameters
    ----------
    path : Path
        Written in one step at the end; an existing file is replaced.
    images : ImageSet
        Stored as they are; see :func:`to_uint8`.
    source : str
        Where they came from, for people to read.
    progress : callable
        ``progress(done, total)``, in images.

    Raises
    ------
    InputError
        When their labels are neither numbers nor words, or the file cannot be written.
    """
    manifest = _manifest(images, path)
    head = _header(images, manifest, source)

    def fill(temporary: Path) -> None:
        with temporary.open("wb") as file:
            file.write(head)
            for chunk in chunks(images.pixels):
                file.write(np.ascontiguousarray(images.pixels[chunk], dtype=_stored(images)).data)
                progress(chunk.stop, len(images))
            for tensor in manifest.values():
                file.write(tensor.tobytes())

    runs.write_atomic(path, fill)


def is_packed(path: Path) -> bool:
    """Whether a file announces itself as packed images; reads no more than its header."""
    try:
        metadata, _, _ = _read_header(path)
    except InputError:
        return False
    return not metadata.keys().isdisjoint(("twinscore_packed", "manifest_sha256"))


def load(path: Path, options: Options) -> ImageSet:
    """Load a packed file that :func:`write` wrote.

    Without options the pixels stay where they are, memory-mapped. Their digests are computed and
    held against the stored ones, once per file (see :mod:`twinscore.images.verified`): this reads
    the file whole, a gigabyte in about two seconds. The manifest is checked each time.

    Raises
    ------
    InputError
        When the file is not a packed file, truncated, of a newer version, its manifest does not fit
        its images, or either is not what was written; when an option cannot be applied.
    """
    metadata, entries, start = _read_header(path)
    try:
        if int(_take(metadata, "twinscore_packed")) > VERSION:
            raise InputError("was written by a newer version; upgrade twinscore")
        file = OpenFile(path)
        tensors = {name: _tensor(file, start, entries[name]) for name in entries}
        images = _assemble(metadata, tensors)
        _require_written(metadata, tensors)
        if not is_verified(file):
            _require_digests(images)
            _require_range(images)
            remember(file)
    except (ValueError, OSError, MemoryError) as error:  # InputError is a ValueError
        raise InputError(f"{str(path)!r}: {one_line(error)}; {_ADVICE}") from None
    pixels = transform_all(images.pixels, images.peak, options, repr(str(path)))
    if pixels is images.pixels:
        return images
    return replace(
        from_pixels(
            pixels,
            peak=images.peak,
            names=images.names,
            labels=images.labels,
            groups=images.groups,
            attributes=images.attributes,
        ),
        originals=images.originals,
    )


def _require_digests(images: ImageSet) -> None:
    found = digests_of(images.pixels, images.peak)
    for name, stored, digest in zip(images.names, images.digests, found, strict=True):
        if digest != stored:
            raise InputError(f"the pixels of {name!r} are not those that were written")


def _require_range(images: ImageSet) -> None:
    if images.pixels.dtype.kind == "f" and not all(
        (images.pixels[chunk] >= 0).all() and (images.pixels[chunk] <= images.peak).all()
        for chunk in chunks(images.pixels)
    ):
        raise InputError(f"pixels beyond 0 to {images.peak:g}")


@dataclass(frozen=True)
class _Tensor:
    """A tensor of a safetensors file that was found to lie inside it."""

    file: OpenFile
    dtype: np.dtype
    shape: tuple[int, ...]
    offset: int

    def map(self) -> MappedPixels:
        return MappedPixels(self.file.map(self.offset, self.shape, self.dtype), self.file)

    def read(self) -> np.ndarray:
        count = math.prod(self.shape)
        return np.fromfile(self.file.path, self.dtype, count, offset=self.offset).reshape(
            self.shape
        )


def _manifest(images: ImageSet, path: Path) -> dict[str, np.ndarray]:
    digests = np.frombuffer(bytes.fromhex("".join(images.digests)), dtype=np.uint8)
    manifest = {"digests": digests.reshape(-1, 32)} | _texts("names", images.names)
    if images.groups is not None:
        manifest |= _coded("groups", images.groups)
    if images.labels is not None:
        labels = np.asarray(images.labels)
        if labels.dtype.kind == "U" and labels.dtype.itemsize <= 4 * _LONGEST_LABEL:
            manifest |= _coded("labels", labels.tolist())
        elif labels.dtype.newbyteorder("<") in _CODES and labels.ndim == 1:
            manifest["labels"] = labels.astype(labels.dtype.newbyteorder("<"))
        else:
            raise InputError(
                f"{path}: labels of {labels.dtype} {labels.shape} cannot be packed; "
                "give one number or word per image"
            )
    if images.attributes:
        manifest["attributes"] = np.stack(list(images.attributes.values()), axis=1).astype(np.uint8)
        manifest |= _texts("attributes", list(images.attributes))
    if images.originals is not None:
        manifest["originals"] = images.originals.astype("<i8")
    return manifest


def _checksum(metadata: Mapping[str, str], manifest: Mapping[str, np.ndarray]) -> str:
    declared = [metadata.get("peak"), metadata.get("source")]
    layout = {name: [tensor.dtype.str, *tensor.shape] for name, tensor in manifest.items()}
    checksum = hashlib.sha256(runs.canonical_json([*declared, layout]).encode())
    for name in sorted(manifest):
        checksum.update(manifest[name].tobytes())
    return checksum.hexdigest()


def _require_written(metadata: Mapping[str, str], tensors: Mapping[str, _Tensor]) -> None:
    manifest = {name: tensors[name].read() for name in tensors if name != "pixels"}
    if metadata.get("manifest_sha256") not in (None, _checksum(metadata, manifest)):
        raise InputError("its names, labels or groups are not those that were written")


def _texts(name: str, texts: Sequence[str]) -> dict[str, np.ndarray]:
    try:
        encoded = [text.encode() for text in texts]
    except UnicodeEncodeError as error:
        raise InputError(f"{name}: {error.object!r} is not Unicode text; rename it") from None
    return {
        f"{name}.text": np.frombuffer(b"".join(encoded), dtype=np.uint8),
        f"{name}.ends": np.cumsum([len(text) for text in encoded], dtype="<i8"),
    }


def _coded(name: str, words: Sequence[str]) -> dict[str, np.ndarray]:
    codes = {word: code for code, word in enumerate(dict.fromkeys(words))}
    values = np.array([codes[word] for word in words], dtype="<i8")
    return {f"{name}.codes": values} | _texts(name, list(codes))


def _header(images: ImageSet, manifest: Mapping[str, np.ndarray], source: str) -> bytes:
    plain = images.originals is None and images.pixels.dtype == np.uint8
    metadata = {"twinscore_packed": str(1 if plain else VERSION), "peak": f"{images.peak:g}"}
    metadata["source"] = source[:_LONGEST_SOURCE]
    metadata["manifest_sha256"] = _checksum(metadata, manifest)
    content: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    tensors = {"pixels": (_stored(images), images.pixels.shape)}
    tensors |= {name: (tensor.dtype, tensor.shape) for name, tensor in manifest.items()}
    for name, (dtype, shape) in tensors.items():
        start, end = end, end + math.prod(shape) * dtype.itemsize
        content[name] = {
            "dtype": _CODES[dtype],
            "shape": list(shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(content).encode()
    text += b" " * (-(8 + len(text)) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def _stored(images: ImageSet) -> np.dtype:
    return np.dtype(images.pixels.dtype).newbyteorder("<")


def _read_header(path: Path) -> tuple[dict[str, str], dict[str, Any], int]:
    """Metadata and unchecked tensor entries of a safetensors file, and where its data start."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            text = file.read(length) if length <= _LARGEST_HEADER else b""
    except OSError as error:
        raise InputError(f"{str(path)!r}: cannot be read: {error.strerror}") from None
    try:
        entries = json.loads(text)
        metadata = entries.pop("__metadata__", {})
        if not all(isinstance(value, str) for value in metadata.values()):
            raise TypeError
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise InputError(f"{str(path)!r}: not a safetensors file of packed images") from None
    return metadata, entries, 8 + length


def _tensor(file: OpenFile, start: int, entry: Any) -> _Tensor:
    try:
        dtype, shape = np.dtype(SAFETENSORS[entry["dtype"]]), tuple(entry["shape"])
        first, last = entry["data_offsets"]
        if not all(type(number) is int and number >= 0 for number in (*shape, first, last)):
            raise ValueError
        if last - first != math.prod(shape) * dtype.itemsize:
            raise ValueError
    except (ValueError, TypeError, KeyError):
        raise InputError("its header is not that of a safetensors file") from None
    if start + last > file.status.st_size:
        raise InputError(f"truncated, {file.status.st_size} bytes of at least {start + last}")
    return _Tensor(file, dtype, shape, start + first)


def _assemble(metadata: Mapping[str, str], tensors: Mapping[str, _Tensor]) -> ImageSet:
    pixels, peak = _take(tensors, "pixels"), float(_take(metadata, "peak"))
    if len(pixels.shape) != 4 or pixels.shape[1] not in (1, 3) or 0 in pixels.shape:
        raise InputError(f"pixels of shape {pixels.shape} are not images")
    if not 0 < peak <= PEAKS.get(str(pixels.dtype), 0.0):
        raise InputError(
            f"{pixels.dtype} pixels with peak {peak:g}; they are {', '.join(PEAKS)}, with peaks up "
            f"to {', '.join(f'{most:g}' for most in PEAKS.values())}"
        )
    require_images(pixels.shape, "pixels")
    number = pixels.shape[0]
    names = _read_texts(tensors, "names", number)
    if len(set(names)) < number:
        raise InputError("names are not unique")
    digests = _shaped(tensors, "digests", (number, 32)).tobytes().hex()
    groups = _read_coded(tensors, "groups", number) if "groups.codes" in tensors else None
    return ImageSet(
        pixels=pixels.map(),
        peak=peak,
        names=names,
        digests=tuple(digests[start : start + 64] for start in range(0, len(digests), 64)),
        labels=_labels(tensors, number),
        groups=groups,
        attributes=_attributes(tensors, number),
        originals=_originals(tensors, number),
    )


def _originals(tensors: Mapping[str, _Tensor], number: int) -> np.ndarray | None:
    if "originals" not in tensors:
        return None
    return _shaped(tensors, "originals", (number,), dtype=np.dtype("<i8")).astype(np.int64)


def _labels(tensors: Mapping[str, _Tensor], number: int) -> np.ndarray | None:
    if "labels.codes" in tensors:
        words = _read_coded(tensors, "labels", number)
        if max(map(len, set(words))) > _LONGEST_LABEL:
            raise InputError(f"a label is longer than {_LONGEST_LABEL} characters")
        return np.array(words)
    if "labels" not in tensors:
        return None
    return _shaped(tensors, "labels", (number,), dtype=tensors["labels"].dtype)


def _attributes(tensors: Mapping[str, _Tensor], number: int) -> dict[str, np.ndarray]:
    if "attributes" not in tensors:
        return {}
    names = _read_texts(tensors, "attributes", None)
    values = _shaped(tensors, "attributes", (number, len(names))) != 0
    return dict(zip(names, values.T, strict=True))


def _read_coded(tensors: Mapping[str, _Tensor], name: str, number: int) -> tuple[str, ...]:
    words = _read_texts(tensors, name, None)
    codes = _shaped(tensors, f"{name}.codes", (number,), dtype=np.dtype("<i8"))
    if codes.min() < 0 or codes.max() >= len(words):
        raise InputError(f"{name} have codes beyond their {len(words)} words")
    return tuple(words[code] for code in codes.tolist())


def _read_texts(tensors: Mapping[str, _Tensor], name: str, number: int | None) -> tuple[str, ...]:
    text = _take(tensors, f"{name}.text")
    number = math.prod(_take(tensors, f"{name}.ends").shape) if number is None else number
    ends = _shaped(tensors, f"{name}.ends", (number,), dtype=np.dtype("<i8"))
    starts = np.concatenate([[0], ends[:-1]])
    if number and (ends[-1] != math.prod(text.shape) or (ends < starts).any()):
        raise InputError(f"{name} do not fit their text")
    content = _shaped(tensors, f"{name}.text", text.shape).tobytes()
    try:
        pairs = zip(starts.tolist(), ends.tolist(), strict=True)
        return tuple(content[start:end].decode() for start, end in pairs)
    except UnicodeDecodeError:
        raise InputError(f"{name} are not UTF-8") from None


def _shaped(
    tensors: Mapping[str, _Tensor],
    name: str,
    shape: tuple[int, ...],
    dtype: np.dtype = _BYTES,
) -> np.ndarray:
    tensor = _take(tensors, name)
    if tensor.shape != shape or tensor.dtype != dtype:
        raise InputError(f"{name} is {tensor.dtype} {tensor.shape}, not {dtype} {shape}")
    return tensor.read()


def _take(mapping: Mapping[str, Any], name: str) -> Any:
    if name not in mapping:
        raise InputError(f"holds no {name}")
    return mapping[name]
