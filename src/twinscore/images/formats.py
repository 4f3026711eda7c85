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
    scan : callable
        ``scan(path, options)``: from the header alone how many these are, and whom they show (None
        if the file does not say). Raises nearly anything on a broken file, InputError for what
        ``skip_corrupt`` must not leave out.
    grouped : bool
        Whether images that show the same must stay together; a file that does not say whom it
        shows is then a group of its own.
    """

    read: Callable[[Path, Options], Iterable[Picture]]
    scan: Callable[[Path, Options], tuple[int, str | None]] = lambda path, options: (1, None)
    grouped: bool = False


_PICTURE = Format(lambda path, options: [pictures.read(path)])
FORMATS = dict.fromkeys(pictures.FORMATS, _PICTURE) | {
    "DICOM": Format(dicom.read, dicom.scan, grouped=True),
    "NIfTI": Format(nifti.read, nifti.scan, grouped=True),
}
"""What reads each of :data:`twinscore.images.content.CONTENTS`."""
