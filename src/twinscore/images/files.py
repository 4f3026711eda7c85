"""Images from disk: folders of pictures, decoded on all cores straight into packed pixels."""

import io
import os
import stat
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, ImageOps

from twinscore.errors import InputError, one_line
from twinscore.images.imageset import PEAKS, ImageSet, from_pixels
from twinscore.images.parallel import for_each
from twinscore.images.quiet import quiet
from twinscore.images.scratch import scratch
from twinscore.images.transforms import MAX_PIXELS, Options, transform

MAX_BYTES = 2**29
"""Size of the largest picture file that is read."""

_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "PPM", "BMP")


class CorruptImageError(InputError):
    """A picture that cannot be decoded: ``skip_corrupt`` leaves it out."""


def load_folder(folder: Path, options: Options) -> ImageSet:
    """Load all pictures under a folder, in the order of their relative POSIX paths.

    Hidden files and folders (a leading dot) and links to folders are skipped, links to files are
    followed, and of files with several frames the first is taken. One picture per core is decoded
    at a time; the packed pixels lie in :func:`scratch`.

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
        When the folder holds no picture, one is corrupt (unless ``skip_corrupt``) or beyond the
        limits of :func:`decode`, or they differ in size, depth or number of channels after the
        options were applied. Of several such files the first is named.
    """
    names = picture_names(folder)
    if not names:
        raise InputError(
            f"{str(folder)!r}: no image in this folder; it should hold {', '.join(_SUFFIXES)} files"
        )
    with quiet():
        before, first = _first_readable(folder, names, options)
        rest = names[before:]
        pixels = scratch((len(rest), *first.shape), first.dtype)

        def place(row: int) -> bool:
            try:
                image = first if row == 0 else _read(folder / rest[row], options)
            except CorruptImageError:
                if not options.skip_corrupt:
                    raise
                return False
            require_same(folder, rest[0], first, rest[row], image)
            pixels[row] = image
            return True

        readable = for_each(place, len(rest), options.progress)
    kept = [row for row, good in enumerate(readable) if good]
    corrupt = [row for row, good in enumerate(readable) if not good]
    for target, row in enumerate(kept if corrupt else []):
        pixels[target] = pixels[row]
    return from_pixels(
        pixels[: len(kept)],
        names=[rest[row] for row in kept],
        skipped=names[:before] + [rest[row] for row in corrupt],
    )


def picture(path: Path, size: int, *, gray: bool) -> torch.Tensor:
    """Load the central square of a picture, resized: ``(1 or 3, size, size)`` float32 in [0, 1].

    Colour becomes luma if ``gray``; otherwise gray becomes three equal channels. Files and errors
    as :func:`decode`.
    """
    pixels = decode(path)
    peak = PEAKS[str(pixels.dtype)]
    pixels = transform(pixels, peak, Options(size=size, gray=gray), repr(str(path)))
    image = torch.from_numpy(np.array(pixels, dtype=np.float32)) / peak
    return image if gray else image.expand(3, -1, -1).contiguous()


def picture_names(folder: Path) -> list[str]:
    """List the pictures under a folder by suffix, as :func:`load_folder` orders them.

    Parameters
    ----------
    folder : Path
        Searched recursively.

    Returns
    -------
    list of str
        Relative POSIX paths, sorted.

    Raises
    ------
    InputError
        When a folder cannot be read or a name is not UTF-8.
    """
    names: list[str] = []
    folders = [""]
    while folders:
        inside = folders.pop()
        try:
            with os.scandir(folder / inside) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(f"{inside}{entry.name}/")
                    elif entry.name.lower().endswith(_SUFFIXES) and not Path(entry).is_dir():
                        names.append(inside + entry.name)
        except OSError as error:
            raise InputError(
                f"{str(folder / inside)!r}: cannot be read: {error.strerror}"
            ) from None
    for name in names:
        if not name.isascii() and name != name.encode(errors="replace").decode():
            raise InputError(f"{str(folder / name)!r}: its name is not UTF-8; rename it")
    return sorted(names)


def _first_readable(folder: Path, names: list[str], options: Options) -> tuple[int, np.ndarray]:
    """The number of corrupt files before the first image, and that image."""
    for before, name in enumerate(names):
        try:
            return before, _read(folder / name, options)
        except CorruptImageError:
            if not options.skip_corrupt:
                raise
    raise InputError(f"{str(folder)!r}: all {len(names)} images are corrupt")


def _read(path: Path, options: Options) -> np.ndarray:
    image = _decode(path)
    return transform(image, PEAKS[str(image.dtype)], options, repr(str(path)))


def require_same(
    folder: Path, first_name: str, first: np.ndarray, name: str, image: np.ndarray
) -> None:
    """Refuse two images (C, H, W) of one source, by name, that cannot stand in one array.

    Raises
    ------
    InputError
        When they differ in channels, depth or size.
    """
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
    """Decode a PNG, JPEG, WebP, TIFF, PGM, PPM or BMP file: ``(1 or 3, H, W)``, uint8 or uint16.

    EXIF orientation is applied, transparent pixels are laid over white, palettes and CMYK become
    RGB. Gray of 16 bits keeps its depth; colour of 16 bits comes as 8, as Pillow reads it.

    Raises
    ------
    CorruptImageError
        When the content is truncated or not a picture.
    InputError
        When the file cannot be opened, holds more than ``MAX_BYTES``, announces more than
        ``MAX_PIXELS`` (it is then not decoded), does not fit into memory, or its pixels are floats
        or 32-bit integers.
    """
    with quiet():
        return _decode(path)


def _decode(path: Path) -> np.ndarray:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"{str(path)!r}: is not a regular file; give pictures only")
        if status.st_size > MAX_BYTES:
            raise InputError(
                f"{str(path)!r}: {status.st_size / 2**20:.0f} MiB are too large for a picture; "
                f"give files of at most {MAX_BYTES // 2**20} MiB"
            )
        file = path.open("rb")
    except OSError as error:
        raise InputError(f"{str(path)!r}: cannot be read: {error.strerror}") from None
    with file:
        return _decode_stream(file, str(path))


def decode_bytes(content: bytes, name: str) -> np.ndarray:
    """As :func:`decode`, of the whole content of a file, called ``name`` in error messages."""
    with quiet():
        return _decode_stream(io.BytesIO(content), name)


def _decode_stream(file: BinaryIO, name: str) -> np.ndarray:
    try:
        with Image.open(file, formats=_FORMATS) as opened:
            pixels = None if opened.width * opened.height > MAX_PIXELS else _to_array(opened)
    except Image.DecompressionBombError:
        pixels = None
    except MemoryError:  # the picture may be sound
        raise InputError(f"{name!r}: does not fit into memory; make some free") from None
    except Exception as error:  # Pillow raises nearly anything on broken files
        unknown = isinstance(error, Image.UnidentifiedImageError)
        reason = "its content is not a picture" if unknown else one_line(error)
        raise CorruptImageError(
            f"{name!r}: cannot be decoded ({reason}); repair it or add skip_corrupt"
        ) from None
    if pixels is None:
        raise InputError(
            f"{name!r}: too many pixels; give images of at most {MAX_PIXELS / 10**6:.0f} million"
        )
    if pixels.dtype.kind != "u" or pixels.dtype.itemsize > 2:
        raise InputError(
            f"{name!r}: pixels are {pixels.dtype}; give 8 or 16 bits, or a .npy of floats"
        )
    return pixels


def _to_array(image: Image.Image) -> np.ndarray:
    image.load()
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode == "F" or image.mode.startswith("I"):
        deep = np.asarray(image)[None]
        fits = deep.dtype.kind in "iu" and deep.min() >= 0 and deep.max() <= 65535
        return deep.astype(np.uint16) if fits else deep
    gray = image.mode in ("1", "L", "LA", "La")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    mode = "L" if gray else "RGB"
    array = np.asarray(image if image.mode == mode else image.convert(mode))
    return array[None] if gray else array.transpose(2, 0, 1)
