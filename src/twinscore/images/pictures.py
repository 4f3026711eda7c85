"""One picture from a file, by Pillow: upright, gray or RGB, and what it says of its depth."""

import io
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from twinscore.errors import InputError, one_line
from twinscore.images import deep_tiff, png
from twinscore.images.content import CONTENTS
from twinscore.images.levels import Levels
from twinscore.images.quiet import quiet
from twinscore.images.transforms import MAX_PIXELS

MAX_BYTES = 2**29
"""Size of the largest picture file that is read."""

FORMATS = tuple(kind for kind in CONTENTS if kind not in ("DICOM", "NIfTI"))
"""What Pillow is asked to read."""

_LEAST_DEPTH, _MOST_DEPTH = 9, 15


class CorruptImageError(InputError):
    """A picture that cannot be decoded: ``skip_corrupt`` leaves it out."""


@dataclass(frozen=True)
class Picture:
    """Numbers of one picture, and what its file says of them.

    Attributes
    ----------
    pixels : numpy.ndarray
        ``(1 or 3, H, W)``, integers or floats.
    levels : Levels or None
        What the file says, if it says anything.
    remarks : tuple of str
        What the user should know of how it was read.
    """

    pixels: np.ndarray
    levels: Levels | None = None
    remarks: tuple[str, ...] = ()


def decode(path: Path) -> Picture:
    """Decode a picture of one of ``FORMATS``; what it is is told by its content.

    EXIF orientation is applied, transparent pixels are laid over white, palettes and CMYK become
    RGB. Gray of 16 bits keeps its depth; colour of 16 bits comes as 8, as Pillow reads it. Of
    several frames the first is taken.

    Raises
    ------
    CorruptImageError
        When the content is truncated or not a picture.
    InputError
        When the file cannot be opened, holds more than ``MAX_BYTES``, announces more than
        ``MAX_PIXELS`` (it is then not decoded), or does not fit into memory.
    """
    with quiet():
        return read(path)


def read(path: Path) -> Picture:
    """As :func:`decode`, for threads of one that is :func:`quiet` already."""
    require_picture_file(path)
    try:
        file = path.open("rb")
    except OSError as error:
        raise InputError(f"{str(path)!r}: cannot be read: {error.strerror}") from None
    with file:
        return _decode_stream(file, str(path))


def decode_bytes(content: bytes, name: str) -> Picture:
    """As :func:`decode`, of the whole content of a file, called ``name`` in error messages."""
    with quiet():
        return _decode_stream(io.BytesIO(content), name)


def require_picture_file(path: Path, most: int = MAX_BYTES) -> None:
    """Refuse what is not a regular file, or one of too many bytes; InputError."""
    try:
        status = path.stat()
    except OSError as error:
        raise InputError(f"{str(path)!r}: cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{str(path)!r}: is not a regular file; give pictures only")
    if status.st_size > most:
        raise InputError(
            f"{str(path)!r}: {status.st_size / 2**20:.0f} MiB are too large for a picture; "
            f"give files of at most {most // 2**20} MiB"
        )


def require_few(pixels: int, name: str) -> None:
    """Refuse an image that announces more than ``MAX_PIXELS``; InputError."""
    if pixels > MAX_PIXELS:
        raise InputError(
            f"{name!r}: too many pixels; give images of at most {MAX_PIXELS / 10**6:.0f} million"
        )


def corrupt(name: str, reason: str) -> CorruptImageError:
    """The error for a file that cannot be decoded."""
    return CorruptImageError(
        f"{name!r}: cannot be decoded ({reason}); repair it or add skip_corrupt"
    )


def _decode_stream(file: BinaryIO, name: str) -> Picture:
    try:
        try:
            return _opened(file, name)
        except ValueError as error:
            if isinstance(error, InputError):
                raise
            file.seek(0)
            return _opened(io.BytesIO(png.without_text(file.read())), name)
    except InputError:
        raise
    except Image.DecompressionBombError:
        require_few(MAX_PIXELS + 1, name)
        raise
    except MemoryError:  # the picture may be sound
        raise InputError(f"{name!r}: does not fit into memory; make some free") from None
    except Image.UnidentifiedImageError:
        raise corrupt(name, _unknown(file)) from None
    except Exception as error:  # Pillow raises nearly anything on broken files
        raise corrupt(name, one_line(error)) from None


def _unknown(file: BinaryIO) -> str:
    """What may be said of a file that Pillow does not know."""
    file.seek(0)
    head = file.read(40)
    if not head:
        return "it is empty"
    kind = next((kind for kind in FORMATS if CONTENTS[kind](head)), None)
    if kind is not None and kind not in known_formats():
        return f"it is {kind}, which needs a newer Pillow"
    if kind is not None:
        return f"it begins as {kind}, but does not go on so"
    shown = head.decode("ascii", errors="replace").split("\n")[0][:20]
    begins = repr(shown) if shown.isprintable() and "\ufffd" not in shown else head[:8].hex(" ")
    return f"its content is not a picture, it begins with {begins}"


def known_formats() -> tuple[str, ...]:
    """Those of ``FORMATS`` that the installed Pillow has."""
    Image.init()
    return tuple(kind for kind in FORMATS if kind in Image.OPEN)


def _opened(file: BinaryIO, name: str) -> Picture:
    deep = png.gray_alpha_as_bytes(file)
    try:
        opened = Image.open(deep or file, formats=known_formats())
    except Image.UnidentifiedImageError:
        if not deep_tiff.is_tiff(file):
            raise
        return Picture(*deep_tiff.read(file, lambda pixels: require_few(pixels, name)))
    with opened:
        require_few(opened.width * opened.height, name)
        several = getattr(opened, "is_animated", False)
        opened.load()
        remarks = ("several frames, of which the first is taken",) if several else ()
        image, told = _upright(opened)
        remarks += told
        if deep is not None:
            return Picture(png.over_white(np.asarray(image)), remarks=remarks)
        if image.mode == "F" or image.mode.startswith("I"):
            pixels, levels = _deep(image)
            if levels.depth:
                remarks += (f"{levels.depth} bits are in use, as the file says",)
            return Picture(pixels, levels, remarks)
        return Picture(_to_array(image), remarks=remarks)


_ORIENTATION = 274
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns a picture upright, by the orientation of its EXIF record."""


def _upright(image: Image.Image) -> tuple[Image.Image, tuple[str, ...]]:
    """The picture as its EXIF record says; pixels do not depend on anything else in it."""
    try:
        orientation = image.getexif().get(_ORIENTATION)
    except Exception:  # Pillow raises nearly anything on odd records
        return image, ("its EXIF record cannot be read, so it is taken as upright",)
    turn = _UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    if turn is None:
        return image, ()
    turned = image.transpose(turn)
    turned.tag_v2 = getattr(image, "tag_v2", {})
    return turned, ()


_BITS, _WHITE_IS_ZERO, _SAMPLE_FORMAT, _LARGEST = 258, 262, 339, 341
"""Fields of a TIFF file: bits of a sample, what 0 means, its type, and what means white."""


def _deep(image: Image.Image) -> tuple[np.ndarray, Levels]:
    """Gray of more than 8 bits, ``(1, H, W)``, by what the file says rather than by its content."""
    deep, fields = np.asarray(image)[None], getattr(image, "tag_v2", {})
    bits, form, largest = (_first(fields.get(tag)) for tag in (_BITS, _SAMPLE_FORMAT, _LARGEST))
    if deep.dtype.kind in "iu":
        signed, wide = form == 2, bits > 16
        deep = deep.astype({True: np.int32, False: np.int16}[wide]) if signed else deep
        deep = deep if signed else deep.astype(np.uint32 if wide else np.uint16)
    hidden = image.info.get("transparency")
    if deep.dtype == np.uint16 and isinstance(hidden, int):
        deep = np.where(deep == hidden, np.uint16(65535), deep)
    depth = bits if _LEAST_DEPTH <= bits <= _MOST_DEPTH else None
    used = int(largest + 1).bit_length() - 1 if 0 < largest < 2**16 else 0
    if deep.dtype == np.uint16 and largest + 1 == 2**used and _LEAST_DEPTH <= used <= _MOST_DEPTH:
        depth = used
    return deep, Levels(depth=depth, inverted=fields.get(_WHITE_IS_ZERO) == 0)


def _first(field: Any) -> float:
    """The number in a field of a TIFF file; 0 where there is none."""
    value = field[0] if isinstance(field, tuple) and field else field
    return value if isinstance(value, int | float) else 0


def _to_array(image: Image.Image) -> np.ndarray:
    gray = image.mode in ("1", "L", "LA", "La")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    mode = "L" if gray else "RGB"
    array = np.asarray(image if image.mode == mode else image.convert(mode))
    return array[None] if gray else array.transpose(2, 0, 1)
