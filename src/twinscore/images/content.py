"""What a file holds, by how it begins: its name may say something else, or nothing."""

import gzip
import re
import stat
from collections.abc import Callable
from pathlib import Path

_HEAD = 544
_GZIP = b"\x1f\x8b"


def _begins(*starts: bytes) -> Callable[[bytes], bool]:
    return lambda head: head.startswith(starts)


def _is_bmp(head: bytes) -> bool:
    """Whether what two letters announce goes on as a bitmap."""
    return head[:2] == b"BM" and head[15:18] == b"\0\0\0" and head[14] in (12, 40, 64, 108, 124)


def _is_nifti(head: bytes) -> bool:
    return head[344:348] == b"n+1\0" or head[4:8] == b"n+2\0"


CONTENTS: dict[str, Callable[[bytes], bool]] = {
    "PNG": _begins(b"\x89PNG\r\n\x1a\n"),
    "JPEG": _begins(b"\xff\xd8\xff"),
    "WEBP": lambda head: head[:4] == b"RIFF" and head[8:12] == b"WEBP",
    "TIFF": _begins(b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    "PPM": lambda head: re.match(rb"P[1-6][\s#]", head) is not None,
    "BMP": lambda head: len(head) > 18 and _is_bmp(head),
    "GIF": _begins(b"GIF87a", b"GIF89a"),
    "JPEG2000": _begins(b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51"),
    "AVIF": lambda head: head[4:8] == b"ftyp" and head[8:12] in (b"avif", b"avis"),
    "DICOM": lambda head: head[128:132] == b"DICM",
    "NIfTI": _is_nifti,
}
"""Whether a file that begins so holds images of this kind. All but the last two are Pillow's."""


def kind_of(path: Path) -> str | None:
    """Which of ``CONTENTS`` a file holds; None if none, and where it cannot be read."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return None
        with path.open("rb") as file:
            head = file.read(_HEAD)
        if head.startswith(_GZIP):
            with gzip.open(path) as unpacked:
                head = unpacked.read(_HEAD)
            return "NIfTI" if _is_nifti(head) else None
    except Exception:  # gzip raises several kinds of error on broken files
        return None
    return next((kind for kind, is_it in CONTENTS.items() if is_it(head)), None)
