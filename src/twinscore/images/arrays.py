"""Images from array files: .npy and .npz."""

from pathlib import Path

import numpy as np
from numpy.lib.npyio import NpzFile

from twinscore.errors import InputError, one_line
from twinscore.images.imageset import PEAKS, ImageSet, chunks, from_pixels
from twinscore.images.transforms import Options, transform_all


def load_array(path: Path, options: Options) -> ImageSet:
    """Load images from a ``.npy`` or ``.npz`` file.

    A ``.npy`` that needs no conversion stays memory-mapped. An array whose second *and* last
    axes could both be channels is read as ``(N, C, H, W)``.

    Parameters
    ----------
    path : Path
        ``.npy``; or ``.npz`` with one array, or one called ``images``, and optionally ``labels``.
    options : Options
        Applied to every image.

    Returns
    -------
    ImageSet
        Names are the images' numbers.

    Raises
    ------
    InputError
        When the file cannot be read, the array is not ``(N, H, W)``, ``(N, H, W, 1|3)`` or
        ``(N, 1|3, H, W)``, is empty, is neither uint8, uint16 nor float, or holds floats outside
        [0, 1], NaN or infinity; when there is not one label an image.
    """
    pixels, labels = _read_arrays(path)
    pixels = _packed(_channels_first(pixels, path), path)
    if labels is not None and labels.shape != (len(pixels),):
        raise InputError(
            f"{str(path)!r}: labels of shape {labels.shape} for {len(pixels)} images; "
            f"give one an image, shape ({len(pixels)},)"
        )
    peak = PEAKS[str(pixels.dtype)]
    return from_pixels(transform_all(pixels, peak, options, repr(str(path))), labels=labels)


def _read_arrays(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    try:
        if path.suffix.lower() == ".npy":
            return np.lib.format.open_memmap(path, mode="r"), None
        with path.open("rb") as file, NpzFile(file, allow_pickle=False) as loaded:
            candidates = [name for name in loaded.files if name != "labels"]
            if "images" in candidates:
                candidates = ["images"]
            if len(candidates) != 1:
                raise InputError(
                    f"{str(path)!r}: holds {', '.join(map(repr, loaded.files)) or 'no array'}; "
                    "call the one with the images 'images'"
                )
            labels = np.asarray(loaded["labels"]) if "labels" in loaded.files else None
            return np.asarray(loaded[candidates[0]]), labels
    except InputError:
        raise
    except Exception as error:  # numpy and zipfile raise nearly anything on broken files
        raise InputError(
            f"{str(path)!r}: not a readable array ({one_line(error)}); "
            "save plain numbers with numpy.save or numpy.savez"
        ) from None


def _channels_first(pixels: np.ndarray, path: Path) -> np.ndarray:
    if pixels.ndim == 3:
        pixels = pixels[:, None]
    elif pixels.ndim == 4 and pixels.shape[1] not in (1, 3) and pixels.shape[3] in (1, 3):
        pixels = pixels.transpose(0, 3, 1, 2)
    elif pixels.ndim != 4 or pixels.shape[1] not in (1, 3):
        raise InputError(
            f"{str(path)!r}: an array of shape {pixels.shape} holds no images; "
            "give (N, H, W), (N, H, W, 1 or 3) or (N, 1 or 3, H, W)"
        )
    if pixels.size == 0:
        raise InputError(f"{str(path)!r}: the array is empty, shape {pixels.shape}; give N >= 1")
    return pixels


def _packed(pixels: np.ndarray, path: Path) -> np.ndarray:
    kind, size = pixels.dtype.kind, pixels.dtype.itemsize
    if kind == "u" and size <= 2:
        return pixels if pixels.dtype.isnative else pixels.astype(pixels.dtype.newbyteorder("="))
    if kind != "f":
        raise InputError(
            f"{str(path)!r}: {pixels.dtype} pixels; give uint8, uint16 or floats in [0, 1]"
        )
    for chunk in chunks(pixels):
        low, high = pixels[chunk].min(), pixels[chunk].max()
        if not np.isfinite(pixels[chunk]).all():
            raise InputError(f"{str(path)!r}: holds NaN or infinity; give floats in [0, 1]")
        if low < 0 or high > 1:
            raise InputError(
                f"{str(path)!r}: floats from {low:g} to {high:g} are outside [0, 1]; rescale them"
            )
    return pixels if pixels.dtype == np.float32 else pixels.astype(np.float32)
