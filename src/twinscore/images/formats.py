"""Every kind of file in a folder of images: how many it holds, whose they are, what reads them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from twinscore.images import dicom, nifti, pictures
from twinscore.images.pictures import Picture
from twinscore.images.transforms import Options

SUFFIXES = (
    *(".avif", ".bmp", ".dcm", ".dicom", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg"),
    *(".nii", ".nii.gz", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"),
)
"""How names end that announce an image: such a file is corrupt if it is none."""


@dataclass(frozen=True)
class Format:
    """A kind of file that holds one image or several.

    Attributes
    ----------
    read : callable
        ``read(path, options)`` gives its images. CorruptImageError where it is broken, InputError
        where its images cannot be used.
    number : callable
        ``number(path, options)``: how many these are, from the header alone. Raises nearly
        anything on a broken file, InputError for what ``skip_corrupt`` must not leave out.
    group : callable or None
        ``group(path)``: whom the images show; None if the file does not say, and is itself the
        group. Raises the same. None for pictures, which say nothing of the kind.
    """

    read: Callable[[Path, Options], Iterable[Picture]]
    number: Callable[[Path, Options], int] = lambda path, options: 1
    group: Callable[[Path], str | None] | None = None


_PICTURE = Format(lambda path, options: [pictures.read(path)])
FORMATS = dict.fromkeys(pictures.FORMATS, _PICTURE) | {
    "DICOM": Format(dicom.read, dicom.number, dicom.patient),
    "NIfTI": Format(nifti.read, nifti.number, lambda path: None),
}
"""What reads each of :data:`twinscore.images.content.CONTENTS`."""
