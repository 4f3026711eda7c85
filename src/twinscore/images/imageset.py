"""A set of images: packed pixels, names, content hashes, and float tensors on request."""

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch

from twinscore.errors import InputError

PEAKS = {"uint8": 255.0, "uint16": 65535.0, "float32": 1.0}
"""The value that means intensity 1, for each dtype that pixels are packed in."""

MAX_IMAGES = 2**24
"""Images of the largest set: their names and digests alone take 3 GB."""

_CHUNK_PIXELS = 2**23


class Pixels(Protocol):
    """What holds packed images: an array, a mapped file, or what makes them on request."""

    @property
    def shape(self) -> tuple[int, ...]:
        """``(N, C, H, W)``."""
        ...

    @property
    def dtype(self) -> np.dtype:
        """uint8, uint16 or float32."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, indices: Any, /) -> np.ndarray: ...


@dataclass(frozen=True, eq=False)
class LazyPixels:
    """Packed images that are read or made only when indexed.

    Attributes
    ----------
    shape : tuple of int
        ``(N, C, H, W)``.
    dtype : numpy.dtype
        uint8, uint16 or float32.
    read : callable
        ``read(indices) -> (n, C, H, W)`` of that dtype, for an int64 array of indices in
        ``range(N)`` in any order; the same image for the same index, however they are asked for.
    """

    shape: tuple[int, int, int, int]
    dtype: np.dtype
    read: Callable[[np.ndarray], np.ndarray]

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, indices: Any, /) -> np.ndarray:
        chosen = np.arange(len(self), dtype=np.int64)[indices]
        pixels = self.read(np.atleast_1d(chosen))
        return pixels if chosen.ndim else pixels[0]


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images of one shape, in a fixed order.

    ``images[i]`` is a float32 tensor ``(C, H, W)`` in [0, 1]; a slice, or a sequence, numpy array
    or tensor of integers or booleans, gives a batch ``(n, C, H, W)``.

    Attributes
    ----------
    pixels : Pixels
        ``(N, C, H, W)``, uint8, uint16 or float32: an array,
        ``MappedPixels``, or :class:`LazyPixels`.
    peak : float
        The stored value that means intensity 1 (255, 65535, 16 or 1).
    names : tuple of str
        One name per image, unique within the set.
    digests : tuple of str
        One sha256 per image, of its shape, dtype, peak and pixels: equal exactly when the images
        are.
    labels : numpy.ndarray or None
        ``(N,)`` class labels, where the source has them.
    groups : tuple of str or None
        What each image was cut or taken from (a photograph, a person), where the source knows.
    attributes : mapping of str to numpy.ndarray
        ``(N,)`` bool for each yes-or-no property the source records (for example *smiling*).
    originals : numpy.ndarray or None
        ``(N,)`` int64, the same for an image and its mirrored copy, which no split parts; where
        there are copies.
    skipped : tuple of str
        Names of the corrupt files that ``skip_corrupt`` left out.
    notes : tuple of str
        What the user should know of how the images were read.
    """

    pixels: Pixels = field(repr=False)
    peak: float
    names: tuple[str, ...] = field(repr=False)
    digests: tuple[str, ...] = field(repr=False)
    labels: np.ndarray | None = field(default=None, repr=False)
    groups: tuple[str, ...] | None = field(default=None, repr=False)
    attributes: Mapping[str, np.ndarray] = field(default_factory=dict, repr=False)
    originals: np.ndarray | None = field(default=None, repr=False)
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, indices: int | slice | Sequence[int] | np.ndarray | torch.Tensor) -> Any:
        if isinstance(indices, torch.Tensor):
            indices = indices.cpu().numpy()
        if not isinstance(indices, slice):
            indices = np.asarray(indices)
            if indices.size == 0:
                indices = indices.astype(np.int64)
            if indices.ndim == 0:
                return self[indices[None]][0]
        return torch.from_numpy(
            np.array(self.pixels[indices], dtype=np.float32, order="C", subok=False)
        ).div_(self.peak)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of one image, ``(C, H, W)``."""
        channels, height, width = self.pixels.shape[1:]
        return channels, height, width

    @property
    def digest(self) -> str:
        """Sha256 (hex) of the ordered digests: names the content of the whole set."""
        return hashlib.sha256("".join(self.digests).encode()).hexdigest()

    def take(self, indices: Sequence[int] | np.ndarray) -> "ImageSet":
        """The images of ``indices``, in that order; copied only if they are in memory here."""
        rows = np.asarray(indices, dtype=np.int64)
        return ImageSet(
            pixels=_rows_of(self.pixels, rows),
            peak=self.peak,
            names=tuple(self.names[i] for i in rows),
            digests=tuple(self.digests[i] for i in rows),
            labels=None if self.labels is None else self.labels[rows],
            groups=None if self.groups is None else tuple(self.groups[i] for i in rows),
            attributes={name: values[rows] for name, values in self.attributes.items()},
            originals=None if self.originals is None else self.originals[rows],
        )

    def mean(self) -> list[float]:
        """Average each channel over all images and pixels.

        Returns
        -------
        list of float
            C means in image units ([0, 1]), summed in float64, in chunks.
        """
        total = sum(
            self.pixels[chunk].sum(axis=(0, 2, 3), dtype=np.float64)
            for chunk in chunks(self.pixels)
        )
        per_channel = len(self) * math.prod(self.shape[1:])
        return (total / (per_channel * self.peak)).tolist()


def _rows_of(pixels: Pixels, rows: np.ndarray) -> Pixels:
    if type(pixels) is np.ndarray:
        return pixels[rows]
    shape = (len(rows), *pixels.shape[1:])
    return LazyPixels(shape, pixels.dtype, lambda chosen: pixels[rows[chosen]])


def chunks(pixels: Pixels) -> Iterator[slice]:
    """Consecutive slices of the first axis, of at most about 8 million pixels or else one image."""
    step = max(1, _CHUNK_PIXELS // max(1, math.prod(pixels.shape[1:])))
    for start in range(0, len(pixels), step):
        yield slice(start, min(start + step, len(pixels)))


def from_pixels(
    pixels: Pixels,
    *,
    peak: float | None = None,
    names: Sequence[str] | None = None,
    labels: np.ndarray | None = None,
    groups: Sequence[str] | None = None,
    attributes: Mapping[str, np.ndarray] | None = None,
    skipped: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> ImageSet:
    """Make an image set of packed pixels, computing the digests.

    Parameters
    ----------
    pixels : Pixels
        ``(N, C, H, W)``, uint8, uint16 or float32, N at least 1. It is kept, not copied, and read
        once from first to last, in chunks.
    peak : float, optional
        The value that means intensity 1; by default 255, 65535 or 1, after the dtype.
    names, labels, groups, attributes, skipped, notes
        As in :class:`ImageSet`, of N images; names are by default their numbers.

    Raises
    ------
    InputError
        When the pixels are not a batch of packed images, or a list does not have N items.
    """
    if len(pixels.shape) != 4 or 0 in pixels.shape or str(pixels.dtype) not in PEAKS:
        raise InputError(
            f"pixels: {pixels.dtype} {pixels.shape} is not an image batch; "
            f"give {', '.join(PEAKS)} of shape (N, C, H, W)"
        )
    number = len(pixels)
    attributes = dict(attributes or {})
    lists = {"names": names, "labels": labels, "groups": groups}
    lists |= {f"attribute {name}": values for name, values in attributes.items()}
    for what, values in lists.items():
        if values is not None and len(values) != number:
            raise InputError(f"{what}: {len(values)} for {number} images; give one per image")
    peak = PEAKS[str(pixels.dtype)] if peak is None else float(peak)
    return ImageSet(
        pixels=pixels,
        peak=peak,
        names=tuple(f"{k:06d}" for k in range(number)) if names is None else tuple(names),
        digests=digests_of(pixels, peak),
        labels=labels,
        groups=None if groups is None else tuple(groups),
        attributes=attributes,
        skipped=tuple(skipped),
        notes=tuple(notes),
    )


def digests_of(pixels: Pixels, peak: float) -> tuple[str, ...]:
    """Sha256 of each image (see :class:`ImageSet`); reads all once, in chunks."""
    header = hashlib.sha256(f"{pixels.shape[1:]} {pixels.dtype} {peak:g} ".encode())
    digests = []
    for chunk in chunks(pixels):
        little_endian = pixels.dtype.newbyteorder("<")
        for image in np.ascontiguousarray(pixels[chunk], dtype=little_endian):
            digest = header.copy()
            digest.update(image.data)
            digests.append(digest.hexdigest())
    return tuple(digests)
