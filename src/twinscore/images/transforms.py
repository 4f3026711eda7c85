"""What every source can do to an image: centre crop, luma, antialiased resize."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from PIL import Image

from twinscore.errors import InputError
from twinscore.images.imageset import Pixels


@dataclass(frozen=True)
class Options:
    """The options of a source string.

    Attributes
    ----------
    size : int or None
        Side in pixels of the square images to deliver.
    crop : int or None
        Side in pixels of the square to keep, before resizing.
    crop_at : str
        Where that square lies: *center* or *corner* (top left). No option of the user's, but of
        the kind of source.
    gray : bool
        Convert colour to luma.
    skip_corrupt : bool
        Leave files that cannot be decoded out, and list them in ``ImageSet.skipped``.
    shuffle : int or None
        Seed of the permutation of the pixels, applied after everything else.
    extra : mapping of str to str
        Options of this kind of source only, as text.
    """

    size: int | None = None
    crop: int | None = None
    crop_at: Literal["center", "corner"] = "center"
    gray: bool = False
    skip_corrupt: bool = False
    shuffle: int | None = None
    extra: Mapping[str, str] = field(default_factory=dict)


def center_crop(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Keep the central rectangle of one or many images, as a view.

    Parameters
    ----------
    pixels : numpy.ndarray
        ``(..., H, W)``.
    height, width : int
        At most H and W. Odd margins lose one pixel more at the bottom and the right.

    Returns
    -------
    numpy.ndarray
        ``(..., height, width)``.
    """
    top, left = (pixels.shape[-2] - height) // 2, (pixels.shape[-1] - width) // 2
    return pixels[..., top : top + height, left : left + width]


def corner_crop(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Keep the top left rectangle of one or many images, as a view.

    Parameters
    ----------
    pixels : numpy.ndarray
        ``(..., H, W)``.
    height, width : int
        At most H and W.

    Returns
    -------
    numpy.ndarray
        ``(..., height, width)``.
    """
    return pixels[..., :height, :width]


_CROPS = {"center": center_crop, "corner": corner_crop}


def luma(image: np.ndarray) -> np.ndarray:
    """Convert an image to gray: 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601).

    Parameters
    ----------
    image : numpy.ndarray
        ``(C, H, W)`` of 1 or 3 channels; integers are rounded to the nearest.

    Returns
    -------
    numpy.ndarray
        ``(1, H, W)`` of the same dtype.
    """
    if image.shape[0] == 1:
        return image
    red, green, blue = image.astype(np.float64)
    gray = 0.299 * red + 0.587 * green + 0.114 * blue
    return _like(gray[None], image.dtype)


def resize(image: np.ndarray, size: int, peak: float) -> np.ndarray:
    """Crop an image to its central square and resize that, antialiased (Lanczos).

    Parameters
    ----------
    image : numpy.ndarray
        ``(C, H, W)``.
    size : int
        Side of the result in pixels.
    peak : float
        Largest value allowed: overshoot is clipped to ``[0, peak]``.

    Returns
    -------
    numpy.ndarray
        ``(C, size, size)`` of the same dtype.
    """
    side = min(image.shape[1:])
    square = center_crop(image, side, side)
    if side == size:
        return square
    planes = [
        np.asarray(
            Image.fromarray(np.asarray(plane, dtype=np.float32)).resize(
                (size, size), Image.Resampling.LANCZOS
            )
        )
        for plane in square
    ]
    return _like(np.clip(np.stack(planes), 0, peak), image.dtype)


def transform(image: np.ndarray, peak: float, options: Options, name: str) -> np.ndarray:
    """Apply the options to one image: crop, then gray, then size.

    Parameters
    ----------
    image : numpy.ndarray
        ``(C, H, W)``, C 1 or 3.
    peak : float
        The value that means intensity 1.
    options : Options
        Only ``crop``, ``gray`` and ``size`` matter here.
    name : str
        What to call the image in a complaint.

    Returns
    -------
    numpy.ndarray
        ``(C', H', W')`` of the same dtype; the image itself where nothing is to be done.

    Raises
    ------
    InputError
        When the image is smaller than the crop.
    """
    height, width = image.shape[1:]
    if options.crop is not None:
        if options.crop > min(height, width):
            raise InputError(
                f"{name}: crop={options.crop} is larger than the image ({height}x{width}); "
                f"give at most {min(height, width)}"
            )
        image = _CROPS[options.crop_at](image, options.crop, options.crop)
    if options.gray:
        image = luma(image)
    return image if options.size is None else resize(image, options.size, peak)


def transform_all(pixels: Pixels, peak: float, options: Options, name: str) -> Pixels:
    """Apply the options to a batch, one image at a time.

    Parameters
    ----------
    pixels : Pixels
        ``(N, C, H, W)``, N at least 1.
    peak, options, name
        As for :func:`transform`.

    Returns
    -------
    Pixels
        ``(N, C', H', W')``; the batch itself, memory-mapped or lazy, where nothing is to be done.

    Raises
    ------
    InputError
        When the images are smaller than the crop.
    """
    image = pixels[0]
    first = transform(image, peak, options, name)
    if first.shape == image.shape and np.shares_memory(first, image):
        return pixels
    out = np.empty((len(pixels), *first.shape), dtype=pixels.dtype)
    for row, target in enumerate(out):
        target[...] = transform(pixels[row], peak, options, name)
    return out


def _like(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    return (np.rint(values) if dtype.kind == "u" else values).astype(dtype)
