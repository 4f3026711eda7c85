"""Images from disk: folders of pictures."""

import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from twinscore.errors import InputError, one_line
from twinscore.images.imageset import PEAKS, ImageSet, from_pixels
from twinscore.images.transforms import Options, transform

_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
_FORMATS = ("BMP", "JPEG", "PNG", "PPM", "TIFF", "WEBP")


class CorruptImageError(InputError):
    """A picture that cannot be decoded: ``skip_corrupt`` leaves it out."""


def load_folder(folder: Path, options: Options) -> ImageSet:
    """Load all pictures under a folder, in the order of their relative POSIX paths.

    Hidden files and folders (a leading dot) are passed over, and of files with several frames the
    first is taken.

    Parameters
    ----------
    folder : Path
        Searched recursively for PNG, JPEG, WebP, TIFF, PGM, PPM and BMP by suffix.
    options : Options
        Applied to every image.

    Returns
    -------
    ImageSet
        Names are the relative paths.

    Raises
    ------
    InputError
        When the folder holds no picture, one is corrupt (unless ``skip_corrupt``), or they differ
        in size, depth or number of channels after the options were applied.
    """
    names = _picture_names(folder)
    if not names:
        raise InputError(
            f"{str(folder)!r}: no image in this folder; it should hold {', '.join(_SUFFIXES)} files"
        )
    pixels: np.ndarray | None = None
    kept: list[str] = []
    skipped: list[str] = []
    for name in names:
        try:
            image = decode(folder / name)
        except CorruptImageError:
            if not options.skip_corrupt:
                raise
            skipped.append(name)
            continue
        image = transform(image, PEAKS[str(image.dtype)], options, repr(str(folder / name)))
        if pixels is None:
            pixels = np.empty((len(names), *image.shape), dtype=image.dtype)
        _require_same(folder, kept[0] if kept else name, pixels[0], name, image)
        pixels[len(kept)] = image
        kept.append(name)
    if pixels is None:
        raise InputError(f"{str(folder)!r}: all {len(names)} images are corrupt")
    return from_pixels(pixels[: len(kept)], names=kept, skipped=skipped)


def _picture_names(folder: Path) -> list[str]:
    try:
        paths = [path.relative_to(folder) for path in folder.rglob("*") if not path.is_dir()]
    except OSError as error:
        raise InputError(f"{str(folder)!r}: cannot be read: {error.strerror}") from None
    return sorted(
        path.as_posix()
        for path in paths
        if path.suffix.lower() in _SUFFIXES and not any(part[0] == "." for part in path.parts)
    )


def _require_same(
    folder: Path, first_name: str, first: np.ndarray, name: str, image: np.ndarray
) -> None:
    pair = f"{str(folder)!r}: {first_name!r} and {name!r}"
    if first.shape[0] != image.shape[0]:
        kind = {1: "gray", 3: "colour"}
        raise InputError(
            f"{pair} mix gray and colour ({kind[first.shape[0]]} and {kind[image.shape[0]]}); "
            "add the option gray"
        )
    if first.dtype != image.dtype:
        raise InputError(
            f"{pair} differ in depth ({first.dtype} and {image.dtype}); convert them to one"
        )
    if first.shape != image.shape:
        sizes = " and ".join(f"{one.shape[1]}x{one.shape[2]}" for one in (first, image))
        raise InputError(
            f"{pair} differ in size ({sizes}); add size={min(*first.shape[1:], *image.shape[1:])}"
        )


def decode(path: Path) -> np.ndarray:
    """Decode a picture file.

    EXIF orientation is applied, transparent pixels are laid over white, palettes and CMYK become
    RGB. Gray of 16 bits keeps its depth; colour of 16 bits comes as 8, as Pillow reads it.

    Parameters
    ----------
    path : Path
        A PNG, JPEG, WebP, TIFF, PGM, PPM or BMP file.

    Returns
    -------
    numpy.ndarray
        ``(C, H, W)``, C 1 or 3, uint8 or uint16.

    Raises
    ------
    CorruptImageError
        When the content is truncated or not a picture.
    InputError
        When the file cannot be opened, its size is that of a decompression bomb, or its pixels are
        floats or 32-bit integers.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{str(path)!r}: cannot be read: {error.strerror}") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=_FORMATS) as opened:
                opened.load()
                pixels = _to_array(ImageOps.exif_transpose(opened))
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise InputError(
            f"{str(path)!r}: too many pixels; "
            f"give images of at most {Image.MAX_IMAGE_PIXELS // 10**6} million"
        ) from None
    except Exception as error:  # Pillow raises nearly anything on broken files
        unknown = isinstance(error, Image.UnidentifiedImageError)
        reason = "its content is no picture" if unknown else one_line(error)
        raise CorruptImageError(
            f"{str(path)!r}: cannot be decoded ({reason}); repair it or add skip_corrupt"
        ) from None
    if pixels.dtype.kind != "u" or pixels.dtype.itemsize > 2:
        raise InputError(
            f"{str(path)!r}: pixels are {pixels.dtype}; give 8 or 16 bits, or a .npy of floats"
        )
    return pixels


def _to_array(image: Image.Image) -> np.ndarray:
    if image.mode == "F" or image.mode.startswith("I"):
        deep = np.asarray(image)[None]
        fits = deep.dtype.kind in "iu" and deep.min() >= 0 and deep.max() <= 65535
        return deep.astype(np.uint16) if fits else deep
    gray = image.mode in ("1", "L", "LA", "La")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    array = np.asarray(image.convert("L" if gray else "RGB"))
    return array[None] if gray else np.ascontiguousarray(array.transpose(2, 0, 1))
