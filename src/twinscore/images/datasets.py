"""CelebA and LSUN as they are distributed: their folders, crops, attributes and identities."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Generic, TypeVar

import numpy as np

from twinscore.errors import InputError
from twinscore.images.files import load_folder
from twinscore.images.imageset import ImageSet
from twinscore.images.transforms import Options

T = TypeVar("T")
_LONGEST_LINE = 2**16
_VALUES = {"1": True, "-1": False}


def load_celeba(body: str, options: Options) -> ImageSet:
    """Load CelebA's aligned faces with their attributes and identities.

    Parameters
    ----------
    body : str
        The folder that holds ``img_align_celeba/`` or ``img_align_celeba_png/`` (or these in
        ``Img/``) and, where they are there, ``list_attr_celeba.txt`` (or ``.csv``, as Kaggle has
        it) and ``identity_CelebA.txt`` (or these in ``Anno/``).
    options : Options
        By default the central 160x160 pixels are kept, reduced to ``size=80``. ``skip_corrupt``
        also leaves out the images without a usable row in these two files.

    Returns
    -------
    ImageSet
        ``attributes`` are those of the file, ``groups`` the identities.

    Raises
    ------
    InputError
        When the folder does not have this layout, a picture cannot be used, or a file lacks an
        image's row or holds a broken one, which is named by its line.

    References
    ----------
    Liu, Luo, Wang and Tang, Deep Learning Face Attributes in the Wild, ICCV 2015. Crop and sizes:
    Kadkhodaie, Guth, Simoncelli and Mallat, ICLR 2024 (arXiv 2310.02557).
    """
    root = _folder("celeba", body)
    inside = ("img_align_celeba", "img_align_celeba_png")
    pictures = _first_there(root, (*inside, *(f"Img/{name}" for name in inside)), Path.is_dir)
    if pictures is None:
        raise InputError(
            f"celeba: {body!r} holds neither img_align_celeba/ nor Img/img_align_celeba/; "
            "give the folder that CelebA was unpacked into"
        )
    images = load_folder(
        pictures, replace(options, crop=options.crop or 160, size=options.size or 80)
    )
    files = [PurePosixPath(name).name for name in images.names]
    attributes, identities = (
        _first_there(root, [f"{at}{name}" for name in names for at in ("", "Anno/")], Path.is_file)
        for names in (("list_attr_celeba.txt", "list_attr_celeba.csv"), ("identity_CelebA.txt",))
    )
    wrong: dict[int, str] = {}
    if attributes:
        names, rows = read_attributes(attributes, files)
        wrong |= rows.wrong
        values = np.array([rows.values.get(k, (False,) * len(names)) for k in range(len(files))])
        images = replace(images, attributes=dict(zip(names, values.T.copy(), strict=True)))
    if identities:
        people = read_identities(identities, files)
        wrong = people.wrong | wrong
        images = replace(images, groups=tuple(people.values.get(k, "") for k in range(len(files))))
    return _without(images, wrong, options.skip_corrupt)


def load_lsun(body: str, options: Options) -> ImageSet:
    """Load a category of LSUN (bedrooms, say), exported to WebP or JPEG files.

    ``body`` is a folder of pictures, searched recursively; names are the relative paths. By default
    the top left 256x256 pixels are kept, reduced to ``size=80``. InputError when there is no such
    folder, or its pictures cannot be used.

    Yu et al., LSUN, arXiv 1506.03365. Crop: Kadkhodaie, Guth, Simoncelli and Mallat, ICLR 2024
    (arXiv 2310.02557).
    """
    crop, size = options.crop or 256, options.size or 80
    return load_folder(
        _folder("lsun", body), replace(options, crop=crop, crop_at="corner", size=size)
    )


@dataclass(frozen=True)
class Rows(Generic[T]):
    """What a file says about each image, by the image's place, or what is wrong with it."""

    values: dict[int, T] = field(default_factory=dict)
    wrong: dict[int, str] = field(default_factory=dict)


def read_attributes(
    path: Path, files: Sequence[str]
) -> tuple[tuple[str, ...], Rows[tuple[bool, ...]]]:
    """Read CelebA's attribute file: a count, the names, then a row ``000001.jpg -1 1 ...`` each.

    A ``.csv`` has no count, commas, and ``image_id`` before the names. Spaces may be doubled,
    missing before a minus, or trailing, and lines end as on Windows; the count and the rows of
    other files are ignored.

    Returns
    -------
    names : tuple of str
        The attributes.
    rows : Rows
        For each of ``files``, names without folders: one bool per attribute, or what is wrong with
        its row.

    Raises
    ------
    InputError
        When the file cannot be read or does not begin with the count and the names.
    """
    lines, table = _lines(path), path.suffix == ".csv"
    if table:
        lines = (line.replace(",", " ") for line in lines)
    else:
        count = next(lines, "").strip()
        if not (count.isascii() and count.isdigit()):
            raise InputError(f"{path}, line 1: {count[:40]!r} is not the number of images")
    names = tuple(next(lines, "").split()[table:])
    if not names or len(set(names)) < len(names) or names[-1] in _VALUES:
        line = 1 if table else 2
        raise InputError(f"{path}, line {line}: not a list of attributes, each named once")

    def values(text: str) -> tuple[bool, ...]:
        words = text.replace("-", " -").split()
        if len(words) != len(names):
            raise ValueError(f"{len(words)} values for {len(names)} attributes")
        wrong = next((word for word in words if word not in _VALUES), None)
        if wrong:
            raise ValueError(f"{wrong[:40]!r} is neither 1 nor -1")
        return tuple(_VALUES[word] for word in words)

    return names, _rows(path, files, lines, 2 if table else 3, values)


def read_identities(path: Path, files: Sequence[str]) -> Rows[str]:
    """Read CelebA's identity file: a row ``000001.jpg 2880`` for each image.

    Gives for each of ``files``, names without folders, the number of a person as text, or what is
    wrong with its row. InputError when the file cannot be read.
    """

    def person(text: str) -> str:
        word = text.strip()
        if not (word.isascii() and word.isdigit() and len(word) < 20):
            raise ValueError(f"{word[:40]!r} is not the number of a person")
        return word

    return _rows(path, files, _lines(path), 1, person)


def _rows(
    path: Path,
    files: Sequence[str],
    lines: Iterator[str],
    first: int,
    read: Callable[[str], T],
) -> Rows[T]:
    """Read the rows of these files, by their names without suffix (CelebA has PNG files too).

    ``read`` raises ValueError to say what is wrong with a row.
    """
    places = {PurePosixPath(name).stem: k for k, name in enumerate(files)}
    rows: Rows[T] = Rows()
    for number, line in enumerate(lines, start=first):
        name, _, rest = line.strip().partition(" ")
        place = places.get(PurePosixPath(name).stem)
        if place is None:
            continue
        try:
            found = read(rest)
            if rows.values.setdefault(place, found) != found:
                raise ValueError(f"{name!r} already has a row")
        except ValueError as error:
            rows.wrong[place] = f"{path}, line {number}: {error}"
    for place, name in enumerate(files):
        if place not in rows.values and place not in rows.wrong:
            rows.wrong[place] = f"{path}: no row for {name!r}"
    return rows


def _lines(path: Path) -> Iterator[str]:
    """Lines of a text file, none kept; one that is too long comes in pieces."""
    try:
        with path.open("rb") as file:
            while line := file.readline(_LONGEST_LINE):
                yield line.decode("utf-8-sig", errors="replace").replace("\t", " ")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None


def _without(images: ImageSet, wrong: dict[int, str], skip: bool) -> ImageSet:
    if not wrong:
        return images
    if not skip:
        first = wrong[min(wrong)]
        others = f" (and so for {len(wrong) - 1} more images)" if len(wrong) > 1 else ""
        raise InputError(f"{first}{others}; repair it, or add skip_corrupt to leave the image out")
    left = [k for k in range(len(images)) if k not in wrong]
    if not left:
        raise InputError(f"{wrong[min(wrong)]}; so for all {len(images)} images")
    skipped = (*images.skipped, *(images.names[k] for k in sorted(wrong)))
    return replace(images.take(left), skipped=skipped)


def _folder(kind: str, body: str) -> Path:
    try:
        if body and Path(body).is_dir():
            return Path(body)
    except (OSError, ValueError):  # a name that is too long, or that no file system takes
        pass
    raise InputError(f"{kind}: {body!r} is not a folder; give {kind}:PATH, where its images are")


def _first_there(root: Path, names: Sequence[str], there: Callable[[Path], bool]) -> Path | None:
    return next((root / name for name in names if there(root / name)), None)
