"""How a study splits its images: by one of the rules, or as lists in a folder say."""

from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np

from twinscore import images as image_sets
from twinscore.errors import InputError
from twinscore.images import ImageSet, Twins


def listed(spec: Any, images: ImageSet, keep: np.ndarray) -> Twins | None:
    """Read the lists that ``spec.split`` names; None where it is a rule.

    Raises
    ------
    InputError
        If it is neither a rule nor a folder, the lists cannot be used, the test list is too short
        or a list holds a near-duplicate, which is not in ``keep``, or the mirrored copy of an image
        on another list.
    """
    if spec.split in image_sets.BY:
        return None
    folder = Path(spec.split)
    if not folder.is_dir():
        close = get_close_matches(spec.split, image_sets.BY, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise InputError(
            f"split: {spec.split!r} is neither a rule nor a folder; {hint}give one of "
            f"{', '.join(image_sets.BY)}, or a folder with a.txt, b.txt and test.txt"
        )
    lists = image_sets.read_names(folder, images)
    dropped = np.setdiff1d(np.concatenate([lists.a, lists.b, lists.test]), keep)
    if len(dropped):
        raise InputError(
            f"split: {len(dropped)} listed images are near-duplicates of earlier ones, "
            f"{images.names[dropped[0]]!r} first; take them out or give duplicate_threshold 1"
        )
    _require_copies_together(images, lists)
    if spec.test > len(lists.test):
        raise InputError(
            f"test: {spec.test} images are asked for and test.txt lists {len(lists.test)}; "
            "give less"
        )
    return lists


def _require_copies_together(images: ImageSet, lists: Twins) -> None:
    if images.originals is None:
        return
    place: dict[int, tuple[str, int]] = {}
    for part in ("a", "b", "test"):
        for index in getattr(lists, part):
            where, other = place.setdefault(images.originals[index], (part, index))
            if where != part:
                raise InputError(
                    f"split: {images.names[other]!r} is listed in {where}.txt and "
                    f"{images.names[index]!r} in {part}.txt; put both copies on one list"
                )


def twins(
    spec: Any, images: ImageSet, keep: np.ndarray, lists: Twins | None, n: int, replicate: int
) -> Twins:
    """A and B of size n, and the test set: the first of the lists, or by ``spec.split``.

    Raises
    ------
    InputError
        As :func:`twinscore.images.twins`, or where n is more than A and B list.
    """
    if lists is None:
        return image_sets.twins(
            images,
            n,
            test=spec.test,
            seed=spec.seed,
            replicate=replicate,
            among=keep,
            by=spec.split,
            attribute=spec.attribute,
        )
    if n > len(lists.a):
        raise InputError(
            f"n: {n} is {n - len(lists.a)} more than the {len(lists.a)} images that a.txt and "
            "b.txt list each; give less"
        )
    return Twins(a=lists.a[:n], b=lists.b[:n], test=lists.test[: spec.test])
