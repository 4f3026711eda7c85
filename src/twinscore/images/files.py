"""Images from disk: folders of pictures, decoded on all cores straight into packed pixels."""

import io
import os
import stat
from collections import Counter
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image

from twinscore.errors import InputError, one_line
from twinscore.images.imageset import PEAKS, ImageSet, dark_notes, from_pixels
from twinscore.images.parallel import for_each
from twinscore.images.quiet import quiet
from twinscore.images.scratch import scratch
from twinscore.images.transforms import MAX_PIXELS, Options, transform

MAX_BYTES = 2**29
"""Size of the largest picture file that is read."""

_SUFFIXES = (
    *(".bmp", ".jfif", ".jpe", ".jpeg", ".jpg", ".pgm", ".png", ".ppm"),
    *(".tif", ".tiff", ".webp"),
)
_HIDDEN = (".", "@eaDir")
"""How names begin that are nobody's pictures: hidden ones, and thumbnails of network drives."""

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
    names, passed = _listed(folder)
    notes = _passed_over(folder, passed)
    if not names:
        besides = f" ({notes[0].partition(': ')[2]})" if notes else ""
        raise InputError(
            f"{str(folder)!r}: no image in this folder{besides}; it should hold "
            f"{', '.join(_SUFFIXES)} files"
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
    notes += dark_notes(pixels[: len(kept)], repr(str(folder)))
    return from_pixels(
        pixels[: len(kept)],
        names=[rest[row] for row in kept],
        skipped=names[:before] + [rest[row] for row in corrupt],
        notes=notes,
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
    return _listed(folder)[0]


def _listed(folder: Path) -> tuple[list[str], Counter[str]]:
    """Names of the pictures under a folder, and how many files of each other kind there are."""
    names: list[str] = []
    passed: Counter[str] = Counter()
    folders = [""]
    while folders:
        inside = folders.pop()
        try:
            with os.scandir(folder / inside) as entries:
                for entry in entries:
                    if entry.name.startswith(_HIDDEN):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(f"{inside}{entry.name}/")
                    elif Path(entry).is_dir():
                        passed[f"link to a folder ({inside}{entry.name})"] += 1
                    elif entry.name.lower().endswith(_SUFFIXES):
                        names.append(inside + entry.name)
                    else:
                        passed[Path(entry.name).suffix.lower() or "without a suffix"] += 1
        except OSError as error:
            raise InputError(
                f"{str(folder / inside)!r}: cannot be read: {error.strerror}"
            ) from None
    for name in names:
        if not name.isascii() and name != name.encode(errors="replace").decode():
            raise InputError(f"{str(folder / name)!r}: its name is not UTF-8; rename it")
    return sorted(names), passed


def _passed_over(folder: Path, passed: Counter[str]) -> list[str]:
    """One line on files that were not taken, by suffix; none if there are none."""
    if not passed:
        return []
    shown = [f"{count:,} {kind}" for kind, count in passed.most_common(5)]
    more = [f"{len(passed) - 5} more kinds"] if len(passed) > 5 else []
    return [f"{str(folder)!r}: passed over {', '.join([*shown, *more])}"]


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
        try:
            pixels = _opened(file)
        except ValueError:
            file.seek(0)
            pixels = _opened(io.BytesIO(_without_text(file.read())))
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
            f"{name!r}: pixels are {pixels.dtype}; give 8 or 16 bits without a sign (apply a "
            "window first), or a .npy of floats in [0, 1]"
        )
    return pixels


def _opened(file: BinaryIO) -> np.ndarray | None:
    """The pixels of a picture; None if it announces too many."""
    with Image.open(file, formats=_FORMATS) as opened:
        return None if opened.width * opened.height > MAX_PIXELS else _to_array(opened)


def _without_text(content: bytes) -> bytes:
    """A PNG file without its text, of which Pillow takes only so much; any other file as it is."""
    if not content.startswith(_PNG):
        return content
    kept, at = [_PNG], len(_PNG)
    while at < len(content):
        end = at + 12 + int.from_bytes(content[at : at + 4], "big")
        if content[at + 4 : at + 8] not in (b"tEXt", b"zTXt", b"iTXt"):
            kept.append(content[at:end])
        at = end
    return b"".join(kept)


_PNG = b"\x89PNG\r\n\x1a\n"
_ORIENTATION = 274
_UPRIGHT = {
    2: (Image.Transpose.FLIP_LEFT_RIGHT,),
    3: (Image.Transpose.ROTATE_180,),
    4: (Image.Transpose.FLIP_TOP_BOTTOM,),
    5: (Image.Transpose.TRANSPOSE,),
    6: (Image.Transpose.ROTATE_270,),
    7: (Image.Transpose.TRANSVERSE,),
    8: (Image.Transpose.ROTATE_90,),
}
"""What turns a picture upright, by the orientation of its EXIF record."""


def _upright(image: Image.Image) -> Image.Image:
    """The picture as its EXIF record says; pixels do not depend on anything else in it."""
    try:
        orientation = image.getexif().get(_ORIENTATION)
    except Exception:  # Pillow raises nearly anything on odd records
        return image
    turns = _UPRIGHT.get(orientation, ()) if isinstance(orientation, int) else ()
    for turn in turns:
        image = image.transpose(turn)
    return image


_BITS, _WHITE_IS_ZERO, _SAMPLE_FORMAT = 258, 262, 339
"""Fields of a TIFF file: bits of a sample, what 0 means, and whether samples have a sign."""


def _deep(image: Image.Image) -> np.ndarray:
    """Gray of more than 8 bits, by what the file says of itself rather than by its content.

    uint16; or what :func:`decode` refuses: a type with a sign, of 32 bits, or floats.
    """
    deep, fields = np.asarray(image)[None], getattr(image, "tag_v2", {})
    bits, form = (fields.get(name, (0,)) for name in (_BITS, _SAMPLE_FORMAT))
    bits, form = (value[0] if isinstance(value, tuple) else value for value in (bits, form))
    if deep.dtype.kind not in "iu" or bits > 16:
        return deep
    if form == 2:
        return deep.astype(np.int16)
    deep = deep.astype(np.uint16)
    return 65535 - deep if fields.get(_WHITE_IS_ZERO) == 0 else deep


def _to_array(image: Image.Image) -> np.ndarray:
    image.load()
    image = _upright(image)
    if image.mode == "F" or image.mode.startswith("I"):
        return _deep(image)
    gray = image.mode in ("1", "L", "LA", "La")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    mode = "L" if gray else "RGB"
    array = np.asarray(image if image.mode == mode else image.convert(mode))
    return array[None] if gray else array.transpose(2, 0, 1)
