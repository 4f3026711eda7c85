"""Images that a caller holds: an array, a tensor, a torch data set."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from twinscore.errors import InputError
from twinscore.images.arrays import require_images
from twinscore.images.imageset import ImageSet, LazyPixels, Pixels, from_pixels
from twinscore.images.levels import ROUNDING, extremes
from twinscore.images.scratch import scratch

Given = ImageSet | Tensor | np.ndarray | Dataset | Sequence[Any]
"""What :func:`from_data` takes."""

_TWICE = 8
"""Items that are read twice, to see whether they stay the same."""


def from_data(data: Given) -> ImageSet:
    """Make an image set of what a caller holds; an image set is given back.

    Parameters
    ----------
    data : ImageSet, Tensor, array or map-style data set
        An array or a tensor is (N, C, H, W) or (N, H, W), C being 1 or 3, of uint8, uint16 or
        floats in [0, 1], and kept, not copied, where its type allows. Items of a data set are
        (C, H, W) of the same types, alone or with what follows them in a tuple; whole numbers that
        follow are labels, anything else is left out. Each is read once, in order, and kept in
        memory, or on disk where they are many.

    Raises
    ------
    InputError
        When it is something else, its shape or its range is wrong, items differ in shape or type,
        or give another image when they are read again.

    Examples
    --------
    >>> import numpy as np
    >>> from twinscore import images
    >>> faces = images.from_data(np.zeros((5, 16, 16), np.uint8))
    >>> len(faces), faces.shape
    (5, (1, 16, 16))
    """
    if isinstance(data, ImageSet):
        return data
    if isinstance(data, Tensor | np.ndarray):
        pixels, labels = _array(data, "images"), None
        if pixels.ndim == 3:
            pixels = pixels[:, None]
    else:
        pixels, labels = _read(data)
    if pixels.ndim != 4 or pixels.shape[1] not in (1, 3):
        raise InputError(
            f"images: an array of shape {pixels.shape} holds no images; "
            "give (N, H, W) or (N, C, H, W), C being 1 or 3"
        )
    require_images(pixels.shape, "images")
    return from_pixels(_in_range(pixels), labels=labels)


def _array(value: Any, name: str) -> np.ndarray:
    """A tensor or an array as numbers of uint8, uint16 or floats."""
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        value = (value.float() if value.is_floating_point() else value).numpy()
    if not isinstance(value, np.ndarray):
        raise InputError(
            f"{name}: {type(value).__name__} is no image; give tensors or arrays (C, H, W)"
        )
    if value.dtype.kind != "f" and value.dtype not in (np.uint8, np.uint16):
        raise InputError(f"{name}: {value.dtype} pixels; give uint8, uint16 or floats in [0, 1]")
    return value


def _in_range(pixels: np.ndarray) -> Pixels:
    """Refuse floats outside [0, 1]; those that are outside by rounding are clipped when read."""
    if pixels.dtype.kind != "f":
        return pixels if pixels.dtype.isnative else pixels.astype(pixels.dtype.newbyteorder("="))
    low, high = extremes(pixels)  # NaN if any is
    if not (low >= -ROUNDING and high <= 1 + ROUNDING):
        raise InputError(
            f"images: floats from {low:.7g} to {high:.7g} are not in [0, 1]; rescale them"
        )
    if pixels.dtype == np.float32 and low >= 0 and high <= 1:
        return pixels
    read = lambda rows: pixels[rows].astype(np.float32).clip(0, 1)  # noqa: E731
    return LazyPixels(pixels.shape, np.dtype(np.float32), read)


def _read(data: Any) -> tuple[np.ndarray, np.ndarray | None]:
    """Images of a data set, (N, C, H, W), and their labels if they are whole numbers."""
    if isinstance(data, IterableDataset) or not (
        hasattr(data, "__getitem__") and hasattr(data, "__len__")
    ):
        raise InputError(
            f"images: {type(data).__name__} is neither an array nor a map-style data set; give one "
            "with len(data) and data[i]"
        )
    if not len(data):
        raise InputError("images: the data set is empty; give at least one image")
    first, label = _item(data, 0)
    numbered = _whole(label)
    pixels = scratch((len(data), *first.shape), first.dtype)
    labels = np.empty(len(data), np.int64)
    for index in range(len(data)):
        image, label = _item(data, index)
        if (image.shape, image.dtype) != (first.shape, first.dtype):
            raise InputError(
                f"images: item {index} is {image.dtype} {image.shape} and item 0 is {first.dtype} "
                f"{first.shape}; give items of one shape and type"
            )
        if index < _TWICE and not np.array_equal(image, _item(data, index)[0], equal_nan=True):
            raise InputError(
                f"images: item {index} is another image each time it is read; take random "
                "transforms out of the data set"
            )
        if numbered and not _whole(label):
            raise InputError(f"images: item {index} has no whole number as its label, others have")
        pixels[index] = image
        labels[index] = label if numbered else 0
    return pixels, labels if numbered else None


def _item(data: Any, index: int) -> tuple[np.ndarray, Any]:
    """An image, (C, H, W), and what follows it."""
    found = data[index]
    parts = found if isinstance(found, tuple | list) and len(found) else (found,)
    image = _array(parts[0], f"images: item {index}")
    if image.ndim != 3:
        raise InputError(f"images: item {index} has shape {image.shape}; give (C, H, W)")
    return image, parts[1] if len(parts) > 1 else None


def _whole(label: Any) -> bool:
    if isinstance(label, Tensor | np.ndarray):
        return label.ndim == 0 and np.asarray(label).dtype.kind in "biu"
    return isinstance(label, int | np.integer)
