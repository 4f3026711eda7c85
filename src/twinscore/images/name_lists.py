"""Splits as text: the names of A, B and the test set, one per line, written and read back."""

from difflib import get_close_matches
from itertools import islice
from pathlib import Path

import numpy as np

from twinscore.errors import InputError
from twinscore.images.imageset import ImageSet
from twinscore.images.split_rules import Twins
from twinscore.runs import make_folder, write_text

PARTS = ("a", "b", "test")
_SLACK = 2**16
_HINTED = 5000


def write_names(folder: Path, images: ImageSet, twins: Twins) -> None:
    """Write a split as ``a.txt``, ``b.txt`` and ``test.txt``: one name per line, UTF-8, in order.

    The folder is created if it is missing; files of these names are replaced. InputError if a part
    is empty, a name cannot stand on a line, or the folder cannot be written.
    """
    make_folder(folder)
    for part in PARTS:
        names = [images.names[index] for index in getattr(twins, part)]
        if not names:
            raise InputError(f"{part}: no image to list; give every part at least one")
        for name in names:
            if not _fits_a_line(name):
                raise InputError(
                    f"{part}: the name {_short(name)} cannot stand on a line of a text file; "
                    "rename the image"
                )
        write_text(folder / f"{part}.txt", "".join(f"{name}\n" for name in names))


def _fits_a_line(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return name != "" and "\n" not in name and not name.endswith("\r")


def read_names(folder: Path, images: ImageSet) -> Twins:
    """Read a split from ``a.txt``, ``b.txt`` and ``test.txt``: UTF-8, one name per line, in order.

    Lines may end as on Windows. Memory is bounded by the names of the images: a file longer than
    all of them is not read.

    Raises
    ------
    InputError
        When a list is missing, unreadable, empty, too long or not UTF-8; when a name is unknown, or
        listed twice, in one list or two; when A and B differ in size.
    """
    place: dict[int, str] = {}
    parts = {part: _listed(folder / f"{part}.txt", images, place) for part in PARTS}
    if len(parts["a"]) != len(parts["b"]):
        raise InputError(
            f"{folder}: {len(parts['a'])} names in a.txt and {len(parts['b'])} in b.txt; "
            "list equally many"
        )
    return Twins(**parts)


def read_list(path: Path, images: ImageSet) -> np.ndarray:
    """Indices of the images that one list names, in its order; refused as by :func:`read_names`."""
    return _listed(path, images, {})


def _listed(path: Path, images: ImageSet, place: dict[int, str]) -> np.ndarray:
    """Indices of a list, and in ``place`` where each image was named."""
    known = {name: index for index, name in enumerate(images.names)}
    limit = _SLACK + sum(4 * len(name) + 2 for name in images.names)
    indices = []
    for number, name in enumerate(_lines(path, limit), start=1):
        index = _index(name, known, f"{path}, line {number}")
        if index in place:
            raise InputError(
                f"{path}, line {number}: {_short(name)} is listed twice, first in "
                f"{place[index]}; list it once"
            )
        place[index] = f"{path.name}, line {number}"
        indices.append(index)
    return np.array(indices, dtype=np.int64)


def _lines(path: Path, limit: int) -> list[str]:
    try:
        if not path.is_file():
            raise InputError(f"{path}: no such file; a split is a.txt, b.txt and test.txt")
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: cannot be read: {error}") from None
    if len(content) > limit:
        raise InputError(f"{path}: longer than the names of all images; list each name once")
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}, line {line}: not UTF-8; save the list as UTF-8 text") from None
    if not text:
        raise InputError(f"{path}: empty; list one name per line")
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]


def _index(name: str, known: dict[str, int], where: str) -> int:
    if name in known:
        return known[name]
    if not name:
        raise InputError(f"{where}: empty; give one name per line")
    close = get_close_matches(name[:200], islice(known, _HINTED), n=1)
    hint = (
        f"did you mean {_short(close[0])}?"
        if close
        else f"names are like {_short(next(iter(known)))}"
    )
    raise InputError(f"{where}: no image is called {_short(name)}; {hint}")


def _short(name: str) -> str:
    return repr(name if len(name) <= 80 else f"{name[:77]}...")
