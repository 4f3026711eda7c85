"""TIFF files that Pillow does not know, of floats in 64 or 16 bits, say, by tifffile."""

import logging
from collections.abc import Callable
from typing import BinaryIO

import numpy as np

from twinscore.images.content import CONTENTS
from twinscore.images.levels import Levels

_MOST_PACKED = 1032  # bytes that deflate can make of one


def is_tiff(file: BinaryIO) -> bool:
    """Whether a file begins as a TIFF; it then stands at its beginning."""
    file.seek(0)
    head = file.read(4)
    file.seek(0)
    return CONTENTS["TIFF"](head)


def read(file: BinaryIO, require_few: Callable[[int], None]) -> tuple[np.ndarray, Levels]:
    """Read the first page of one sample a pixel: ``(1, H, W)``, and its polarity.

    ``require_few`` is told the number of pixels before anything is allocated. ValueError when there
    are several samples, or fewer bytes than the pixels take; tifffile raises others.
    """
    import tifffile

    logging.getLogger("tifffile").addHandler(logging.NullHandler())  # or it writes to stderr
    with tifffile.TiffFile(file) as tiff:
        page = tiff.pages.first
        require_few(page.imagewidth * page.imagelength)
        plain = len(page.shape) == 2 and min(page.shape) > 0 and page.dtype is not None
        if page.samplesperpixel != 1 or not plain:
            raise ValueError(f"a TIFF of shape {page.shape} and {page.samplesperpixel} samples")
        if sum(page.databytecounts) * _MOST_PACKED < page.nbytes:
            raise ValueError(f"it declares {page.nbytes} bytes of pixels, but does not hold them")
        inverted = page.photometric == tifffile.PHOTOMETRIC.MINISWHITE
        return page.asarray()[None], Levels(inverted=inverted)
