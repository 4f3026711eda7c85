"""What Pillow does not do with PNG files: skip their text, keep 16 bits of gray beside alpha."""

import io
import zlib
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GRAY_ALPHA_16 = b"\x10\x04"  # bits of a sample, and the kind of picture: gray with alpha
_RGBA_8 = b"\x08\x06"


def without_text(content: bytes) -> bytes:
    """A PNG file without its text, of which Pillow takes only so much; any other file as it is."""
    return _without(content, (b"tEXt", b"zTXt", b"iTXt"))


def gray_alpha_as_bytes(file: BinaryIO) -> BinaryIO | None:
    """A PNG of gray and alpha in 16 bits as one of four bytes a pixel; None for any other file.

    Pillow would keep only the upper byte. Both have four bytes for each pixel, so that filters and
    interlacing are the same: only the header differs.
    """
    head = file.read(33)
    file.seek(0)
    if not head.startswith(_SIGNATURE) or head[12:16] != b"IHDR" or head[24:26] != _GRAY_ALPHA_16:
        return None
    header = head[12:24] + _RGBA_8 + head[26:29]
    content = head[:12] + header + zlib.crc32(header).to_bytes(4, "big")
    file.seek(33)
    return io.BytesIO(_without(content + file.read(), (b"tRNS", b"bKGD", b"sBIT")))


def over_white(pixels: np.ndarray) -> np.ndarray:
    """Lay gray and alpha, ``(H, W, 4)`` bytes, over white: ``(1, H, W)`` uint16, rounded."""
    pairs = np.ascontiguousarray(pixels).view(">u2").astype(np.float64)
    gray, opacity = pairs[..., 0], pairs[..., 1] / 65535
    return np.rint(gray * opacity + 65535 * (1 - opacity)).astype(np.uint16)[None]


def _without(content: bytes, kinds: tuple[bytes, ...]) -> bytes:
    if not content.startswith(_SIGNATURE):
        return content
    kept = [part for part in _chunks(content) if part[4:8] not in kinds]
    return b"".join([_SIGNATURE, *kept])


def _chunks(content: bytes) -> Iterator[bytes]:
    at = len(_SIGNATURE)
    while at < len(content):
        end = at + 12 + int.from_bytes(content[at : at + 4], "big")
        yield content[at:end]
        at = end
