"""Images from arrays: which one holds them, their layout, depth and labels."""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from twinscore.errors import InputError
from twinscore.images import layouts
from twinscore.images.imageset import MAX_IMAGES, ImageSet, from_pixels
from twinscore.images.levels import ROUNDING, dark_notes, levelled
from twinscore.images.mapping import MappedPixels
from twinscore.images.stored import Stored, open_arrays
from twinscore.images.transforms import MAX_PIXELS, Options, transform_all

SAMPLES = ({"samples", "seeds"}, {"samples", "seeds", "how"})
"""Arrays of a file that ``twinscore sample`` wrote, an earlier version or this one."""


def load_array(path: Path, options: Options) -> ImageSet:
    """Load images from a ``.npy``, ``.npz``, ``.safetensors``, ``.pt`` or ``.pth`` file.

    It holds one array; or several, of which ``options.extra["key"]`` names one, or one is called
    ``images`` or is the only one of three or four axes; and optionally ``labels``, or those that go
    with the key (``train_labels`` with ``train_images``). Samples that ``twinscore sample`` wrote
    lie where the model put them; they are clipped to [0, 1], which ``notes`` tells.

    Raises
    ------
    InputError
        When the file cannot be read or does not say which array holds the images, when its axes
        can be read in two ways and ``options.layout`` does not say which, and as
        :func:`from_stored`.
    """
    arrays = open_arrays(path)
    name = _images_of(arrays, options.extra.get("key"), repr(str(path)))
    drawn = set(arrays) in SAMPLES
    layout = options.layout or ("NCHW" if drawn else None)
    beside = name.replace("images", "labels")
    labels = arrays.get("labels", arrays.get(beside) if beside != name else None)
    images = layouts.arranged(arrays[name], layout, labels, repr(str(path)))
    return from_stored(images, labels, options, clip=drawn)


def _images_of(arrays: Mapping[str, Stored], key: str | None, name: str) -> str:
    """Which array holds the images."""
    held = ", ".join(map(repr, arrays)) or "no array"
    if key is not None:
        if key not in arrays:
            raise InputError(f"{name}: holds {held}, not {key!r}; give key=NAME, one of these")
        return key
    candidates = [one for one in arrays if one != "labels"]
    if "images" in candidates:
        return "images"
    if len(candidates) > 1:
        candidates = [one for one in candidates if len(arrays[one].shape) in (3, 4)]
    if len(candidates) != 1:
        raise InputError(
            f"{name}: holds {held}; add key=NAME, or call the one with the images 'images'"
        )
    return candidates[0]


def from_stored(
    images: Stored, labels: Stored | None, options: Options, *, clip: bool = False
) -> ImageSet:
    """Make an image set of an array in a file; names are the images' numbers.

    What needs no conversion stays memory-mapped; other byte orders and float widths are converted
    when images are asked for. Crop, gray and size make a packed copy of what is left. An array
    whose second *and* last axes could both be channels is read as ``(N, C, H, W)``. Reads the
    pixels once for the digests, and floats once more before that.

    Parameters
    ----------
    images : Stored
        ``(N, H, W)``, ``(N, H, W, 1|3)`` or ``(N, 1|3, H, W)``.
    labels : Stored or None
        ``(N,)`` or ``(N, 1)`` integers or booleans; they become int64.
    options : Options
        Applied to every image.
    clip : bool
        Take floats of any size, and clip them to [0, 1].

    Raises
    ------
    InputError
        When the array has the wrong layout, is empty, or as :func:`levelled`; when there is not one
        label per image.
    """
    name = repr(str(images.path))
    require_images(images.shape, name)
    if labels is not None:
        _require_labels(labels, images.shape[0])
    array = channels_first(images.read())
    stored = array if images.file is None else MappedPixels(array, images.file)
    made = levelled(stored, options, name, slack=np.inf if clip else ROUNDING)
    pixels, peak, beyond = made
    share = beyond / math.prod(pixels.shape)
    note = f"{name}: {beyond:,} pixels ({share:.2g} of all) beyond [0, 1] are clipped"
    return from_pixels(
        transform_all(pixels, peak, options, name),
        peak=peak,
        labels=None if labels is None else _numbers(labels),
        notes=[*([note] if clip and beyond else []), *dark_notes(pixels, peak, name)],
    )


def _numbers(labels: Stored) -> np.ndarray:
    return np.array(labels.read(), dtype=np.int64, subok=False).reshape(-1)


def require_images(shape: tuple[int, ...], name: str) -> None:
    """Refuse an array that holds no images, by its shape alone.

    Raises
    ------
    InputError
        When it is not ``(N, H, W)``, ``(N, H, W, 1|3)`` or ``(N, 1|3, H, W)``, is empty, or holds
        more than ``MAX_IMAGES`` or images of more than ``MAX_PIXELS``.
    """
    if len(shape) != 3 and not (len(shape) == 4 and {shape[1], shape[3]} & {1, 3}):
        raise InputError(
            f"{name}: an array of shape {shape} holds no images; "
            "give (N, H, W), (N, H, W, 1 or 3) or (N, 1 or 3, H, W)"
        )
    if 0 in shape:
        raise InputError(f"{name}: the array is empty, shape {shape}; give N >= 1")
    if shape[0] > MAX_IMAGES:
        raise InputError(f"{name}: {shape[0]} images; give at most {MAX_IMAGES}")
    if math.prod(shape[1:]) > 3 * MAX_PIXELS:
        raise InputError(
            f"{name}: images of shape {shape[1:]} have too many pixels; "
            f"give at most {MAX_PIXELS / 10**6:.0f} million"
        )


def _require_labels(labels: Stored, number: int) -> None:
    where = repr(str(labels.path))
    if labels.shape not in ((number,), (number, 1)):
        raise InputError(
            f"{where}: labels of shape {labels.shape} for {number} images; "
            f"give one per image, shape ({number},)"
        )
    if labels.dtype.kind not in "biu":
        raise InputError(f"{where}: {labels.dtype.name} labels; give whole numbers")


def channels_first(pixels: np.ndarray) -> np.ndarray:
    """View an array that passed :func:`require_images` as ``(N, C, H, W)``."""
    if pixels.ndim == 3:
        return np.expand_dims(pixels, 1)
    return pixels if pixels.shape[1] in (1, 3) else pixels.transpose(0, 3, 1, 2)
