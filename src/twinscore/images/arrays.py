"""Images from arrays: which one holds them, their layout, depth and labels."""

import math
from pathlib import Path

import numpy as np

from twinscore.errors import InputError
from twinscore.images.imageset import (
    MAX_IMAGES,
    PEAKS,
    ImageSet,
    LazyPixels,
    Pixels,
    chunks,
    dark_notes,
    from_pixels,
)
from twinscore.images.mapping import MappedPixels
from twinscore.images.stored import Stored, open_arrays
from twinscore.images.transforms import MAX_PIXELS, Options, transform_all

ROUNDING = 1e-5
"""By how much an intensity may be outside [0, 1], as sums and resized images in float32 are."""

SAMPLES = {"samples", "seeds"}
"""Arrays of a file that ``twinscore sample`` wrote."""


def load_array(path: Path, options: Options) -> ImageSet:
    """Load images from a ``.npy``, ``.npz``, ``.safetensors``, ``.pt`` or ``.pth`` file.

    It holds one array; or several, of which one is called ``images`` or is the only one of three or
    four axes, and optionally ``labels``. Samples that ``twinscore sample`` wrote lie where the
    model put them; they are clipped to [0, 1], which ``notes`` tells.

    Raises
    ------
    InputError
        When the file cannot be read or does not say which array holds the images, and as
        :func:`from_stored`.
    """
    arrays = open_arrays(path)
    candidates = [name for name in arrays if name != "labels"]
    if "images" in candidates:
        candidates = ["images"]
    if len(candidates) > 1:
        candidates = [name for name in candidates if len(arrays[name].shape) in (3, 4)]
    if len(candidates) != 1:
        raise InputError(
            f"{str(path)!r}: holds {', '.join(map(repr, arrays)) or 'no array'}; "
            "call the one with the images 'images'"
        )
    _require_many(arrays[candidates[0]].shape, repr(str(path)))
    drawn = set(arrays) == SAMPLES
    return from_stored(arrays[candidates[0]], arrays.get("labels"), options, clip=drawn)


def _require_many(shape: tuple[int, ...], name: str) -> None:
    """Refuse three axes that may be those of one picture."""
    if len(shape) == 3 and min(shape[1:]) in (1, 3) and max(shape) > 3:
        channels = shape[-1] if shape[-1] in (1, 3) else shape[1]
        raise InputError(
            f"{name}: an array of shape {shape} is either {shape[0]} gray images of "
            f"{shape[1]}x{shape[2]}, or one picture of {channels} channels; give it a fourth axis"
        )


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
        ``(N, H, W)``, ``(N, H, W, 1|3)`` or ``(N, 1|3, H, W)``; uint8, uint16 or float.
    labels : Stored or None
        ``(N,)`` integers or booleans; they become int64.
    options : Options
        Applied to every image.
    clip : bool
        Take floats of any size, and clip them to [0, 1].

    Raises
    ------
    InputError
        When the array has the wrong layout or dtype, is empty, or holds floats outside [0, 1], NaN
        or infinity; when there is not one label per image.
    """
    name = repr(str(images.path))
    require_images(images.shape, images.dtype, name)
    if labels is not None:
        _require_labels(labels, images.shape[0])
    array = channels_first(images.read())
    stored = array if images.file is None else MappedPixels(array, images.file)
    pixels, beyond = packed(stored, name, slack=np.inf if clip else ROUNDING)
    share = beyond / math.prod(pixels.shape)
    note = f"{name}: {beyond:,} pixels ({share:.2g} of all) beyond [0, 1] are clipped"
    peak = PEAKS[str(pixels.dtype)]
    return from_pixels(
        transform_all(pixels, peak, options, name),
        labels=None if labels is None else np.array(labels.read(), dtype=np.int64, subok=False),
        notes=[*([note] if clip and beyond else []), *dark_notes(pixels, name)],
    )


def require_images(shape: tuple[int, ...], dtype: np.dtype, name: str) -> None:
    """Refuse an array that holds no images, by its shape and dtype alone.

    Raises
    ------
    InputError
        When it is not ``(N, H, W)``, ``(N, H, W, 1|3)`` or ``(N, 1|3, H, W)``, is empty, holds
        more than ``MAX_IMAGES`` or images of more than ``MAX_PIXELS``, or is not uint8, uint16 or
        float.
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
    if dtype.kind != "f" and not (dtype.kind == "u" and dtype.itemsize <= 2):
        raise InputError(f"{name}: {dtype.name} pixels; give uint8, uint16 or floats in [0, 1]")


def _require_labels(labels: Stored, number: int) -> None:
    where = repr(str(labels.path))
    if labels.shape != (number,):
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


def packed(pixels: Pixels, name: str, *, slack: float = ROUNDING) -> tuple[Pixels, int]:
    """Check ``(N, C, H, W)`` images; return them as uint8, uint16 or float32.

    In any byte order; they are converted, if needed, when indexed. Floats are read in chunks:
    InputError, which calls the array ``name``, where they are more than ``slack`` outside [0, 1],
    NaN or infinite. Those that are outside are clipped; how many comes with them.
    """
    if pixels.dtype.kind != "f":
        target = pixels.dtype.newbyteorder("=")
        same = pixels.dtype == target
        made = LazyPixels(pixels.shape, target, lambda rows: pixels[rows].astype(target))
        return (pixels if same else made), 0
    beyond = sum(_beyond(pixels[chunk], name, slack) for chunk in chunks(pixels))
    if not beyond and pixels.dtype == np.dtype(np.float32):
        return pixels, 0
    clipped = lambda rows: pixels[rows].astype(np.float32).clip(0, 1)  # noqa: E731
    return LazyPixels(pixels.shape, np.dtype(np.float32), clipped), beyond


def _beyond(values: np.ndarray, name: str, slack: float) -> int:
    """How many floats are outside [0, 1].

    Raises
    ------
    InputError
        When one is so by more than ``slack``, NaN or infinite.
    """
    low, high = values.min(), values.max()  # NaN if any is
    if not (np.isfinite(low) and np.isfinite(high)):
        raise InputError(f"{name}: holds NaN or infinity; give floats in [0, 1]")
    if low < -slack or high > 1 + slack:
        raise InputError(
            f"{name}: floats from {low:.7g} to {high:.7g} are outside [0, 1]; rescale them"
        )
    return int(((values < 0) | (values > 1)).sum()) if low < 0 or high > 1 else 0
