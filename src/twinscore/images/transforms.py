"""What every source can do to an image: centre crop, luma, antialiased resize."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

import numpy as np
from PIL import Image
from scipy.sparse import csr_array

from twinscore.errors import InputError
from twinscore.images.imageset import Pixels
from twinscore.images.scratch import scratch

MAX_PIXELS = 2**26
"""Pixels of the largest image that is read or made."""

_BLOCK = 2**20
_LOBES = 3


def silent(done: int, total: int) -> None:
    """Show no progress."""


@dataclass(frozen=True)
class Options:
    """The options of a source string.

    Attributes
    ----------
    size : int or None
        Side in pixels of the square images to return.
    crop : int or None
        Side in pixels of the square to keep, before resizing.
    crop_at : str
        Where that square lies: *center* or *corner* (top left). Not set by the user but by the
        kind of source.
    gray : bool
        Convert colour to luma.
    skip_corrupt : bool
        Leave out files that cannot be decoded, and list them in ``ImageSet.skipped``.
    depth : int or None
        Bits in use of integers without a sign.
    window : tuple of float, or None
        The values that become 0 and 1; those beyond are clipped.
    layout : str or None
        The axes of an array, by their letters: *NHWC*.
    axis : int or None
        Along which volumes are cut into slices.
    augment : str or None
        *mirror*: every image is followed by its mirrored copy.
    shuffle : int or None
        Seed of the permutation of the pixels, applied after everything else to each image.
    only : str or None
        File with the names of the images to keep, in its order.
    first : int or None
        How many of what is left to keep, from the first on.
    extra : mapping of str to str
        Options of this kind of source only, as text.
    progress : callable
        Where a source that takes long reports ``progress(done, total)``; not part of the string.
    """

    size: int | None = None
    crop: int | None = None
    crop_at: Literal["center", "corner"] = "center"
    gray: bool = False
    skip_corrupt: bool = False
    depth: int | None = None
    window: tuple[float, float] | None = None
    layout: str | None = None
    axis: int | None = None
    augment: Literal["mirror"] | None = None
    shuffle: int | None = None
    only: str | None = None
    first: int | None = None
    extra: Mapping[str, str] = field(default_factory=dict)
    progress: Callable[[int, int], None] = field(default=silent, compare=False, repr=False)


def center_crop(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Central rectangle of images ``(..., H, W)``, as a view.

    Odd margins lose one pixel more at the bottom and the right.
    """
    top, left = (pixels.shape[-2] - height) // 2, (pixels.shape[-1] - width) // 2
    return pixels[..., top : top + height, left : left + width]


def corner_crop(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Top left rectangle of images ``(..., H, W)``, as a view."""
    return pixels[..., :height, :width]


_CROPS = {"center": center_crop, "corner": corner_crop}


def luma(image: np.ndarray) -> np.ndarray:
    """Convert an image of 1 or 3 channels, ``(C, H, W)``, to gray, ``(1, H, W)`` of the same dtype.

    0.299 R + 0.587 G + 0.114 B (ITU-R BT.601); integers are rounded to the nearest (bytes with
    Pillow's 16-bit weights, which sometimes break a tie differently).
    """
    if image.shape[0] == 1:
        return image
    if image.dtype == np.uint8:
        colours = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))
        return np.asarray(colours.convert("L"))[None]
    gray = np.empty((1, *image.shape[1:]), dtype=image.dtype)
    step = max(1, _BLOCK // image.shape[2])
    for top in range(0, image.shape[1], step):
        red, green, blue = image[:, top : top + step].astype(np.float64)
        weighed = 0.299 * red + 0.587 * green + 0.114 * blue
        gray[0, top : top + step] = _like(weighed, image.dtype)
    return gray


def resize(image: np.ndarray, size: int, peak: float) -> np.ndarray:
    """Crop an image, ``(C, H, W)``, to its central square and resize that, antialiased (Lanczos).

    The filter is sinc(x) sinc(x/3), stretched by the reduction; columns first, then rows, in double
    precision and rounded once at the end, to the image's dtype. It gives what Pillow gives for
    float images, bit for bit, in half the time. Overshoot is clipped to ``[0, peak]``.
    """
    side = min(image.shape[1:])
    square = center_crop(image, side, side)
    if side == size:
        return square
    channels, weights = image.shape[0], _lanczos(side, size)
    narrow = np.empty((side, size, channels), dtype=np.float32)
    step = max(1, _BLOCK // (side * channels))
    for top in range(0, side, step):
        rows = square[:, top : top + step]
        columns = np.ascontiguousarray(rows.transpose(2, 1, 0), dtype=np.float64)
        reduced = weights @ columns.reshape(side, -1)
        narrow[top : top + step] = reduced.reshape(size, -1, channels).transpose(1, 0, 2)
    small = (weights @ narrow.reshape(side, -1).astype(np.float64)).astype(np.float32)
    np.clip(small, 0, peak, out=small)
    return _like(small.reshape(size, size, channels).transpose(2, 0, 1), image.dtype)


@lru_cache(maxsize=64)
def _lanczos(side: int, size: int) -> csr_array:
    """``(size, side)`` weights that resize one axis, of few nonzeros."""
    scale = side / size
    stretch = max(scale, 1.0)
    rows = []
    for k in range(size):
        centre = (k + 0.5) * scale
        first = max(int(centre - _LOBES * stretch + 0.5), 0)
        last = min(int(centre + _LOBES * stretch + 0.5), side)
        x = (np.arange(first, last) - centre + 0.5) * (1 / stretch)
        weights = np.where(abs(x) < _LOBES, np.sinc(x) * np.sinc(x / _LOBES), 0.0)
        rows.append((first, weights / weights.sum()))
    starts = np.cumsum([0, *(len(weights) for _, weights in rows)])
    columns = np.concatenate([first + np.arange(len(weights)) for first, weights in rows])
    return csr_array(
        (np.concatenate([weights for _, weights in rows]), columns, starts), shape=(size, side)
    )


def transform(image: np.ndarray, peak: float, options: Options, name: str) -> np.ndarray:
    """Apply the options to one image, ``(C, H, W)`` of 1 or 3 channels: crop, then gray, then size.

    ``peak`` is the value that means intensity 1, ``name`` what error messages call the image. The
    dtype stays; if there is nothing to do, it is the image itself. InputError when the image is
    smaller than the crop, or the size is beyond ``MAX_PIXELS``.
    """
    height, width = image.shape[1:]
    if options.crop is not None:
        if options.crop > min(height, width):
            raise InputError(
                f"{name}: crop={options.crop} is larger than the image ({height}x{width}); "
                f"give at most {min(height, width)}"
            )
        image = _CROPS[options.crop_at](image, options.crop, options.crop)
    if options.size is None:
        return luma(image) if options.gray else image
    if options.size**2 > MAX_PIXELS:
        raise InputError(
            f"{name}: size={options.size} is too large; give at most {math.isqrt(MAX_PIXELS)}"
        )
    side = min(image.shape[1:])
    image = center_crop(image, side, side)
    return resize(luma(image) if options.gray else image, options.size, peak)


def transform_all(pixels: Pixels, peak: float, options: Options, name: str) -> Pixels:
    """Apply :func:`transform` to a batch, ``(N, C, H, W)``, N at least 1, one image at a time.

    If there is nothing to do, it is the batch itself, memory-mapped or lazy. InputError when the
    images are smaller than the crop.
    """
    image = pixels[0]
    first = transform(image, peak, options, name)
    if first.shape == image.shape and np.shares_memory(first, image):
        return pixels
    out = scratch((len(pixels), *first.shape), pixels.dtype)
    for row, target in enumerate(out):
        target[...] = transform(pixels[row], peak, options, name)
    return out


def _like(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    return (np.rint(values) if dtype.kind == "u" else values).astype(dtype)
