"""How a study splits its images: by one of the rules, or as lists in a folder say."""

from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path

import numpy as np

from twinscore import images as image_sets
from twinscore.errors import InputError
from twinscore.images import ImageSet, Twins

Split = Callable[[int, int], Twins]
"""``split(n, replicate)``: A and B of size n, and the test set."""


def listed(split: str, images: ImageSet) -> Twins | None:
    """Read the lists that ``split`` names; None where it is a rule.

    Raises
    ------
    InputError
        If it is neither a rule nor a folder, or the lists cannot be used.
    """
    if split in image_sets.BY:
        return None
    folder = Path(split)
    if not folder.is_dir():
        close = get_close_matches(split, image_sets.BY, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise InputError(
            f"split: {split!r} is neither a rule nor a folder; {hint}give one of "
            f"{', '.join(image_sets.BY)}, or a folder with a.txt, b.txt and test.txt"
        )
    return image_sets.read_names(folder, images)


def by_rule(
    images: ImageSet, keep: np.ndarray, rule: str, attribute: str | None, test: int, seed: int
) -> Split:
    """Split the images of ``keep`` as :func:`twinscore.images.twins` does, by ``rule``."""

    def split(n: int, replicate: int) -> Twins:
        how = {"test": test, "seed": seed, "replicate": replicate, "among": keep}
        return image_sets.twins(images, n, by=rule, attribute=attribute, **how)

    return split


def by_lists(images: ImageSet, keep: np.ndarray, lists: Twins, test: int) -> Split:
    """Take the first n of the lists of A and B, and the first ``test`` of the test list.

    Raises
    ------
    InputError
        If the test list is too short or a list holds a near-duplicate; ``split(n, 0)`` raises it
        where n is more than A and B have.
    """
    everything = np.concatenate([lists.a, lists.b, lists.test])
    dropped = np.setdiff1d(everything, keep)
    if len(dropped):
        raise InputError(
            f"split: {len(dropped)} listed images are near-duplicates of earlier ones, "
            f"{images.names[dropped[0]]!r} first; take them out or give duplicate_threshold 1"
        )
    if test > len(lists.test):
        raise InputError(
            f"test: {test} images are asked for and test.txt lists {len(lists.test)}; give less"
        )

    def split(n: int, replicate: int) -> Twins:
        if n > len(lists.a):
            raise InputError(
                f"n: {n} is {n - len(lists.a)} more than the {len(lists.a)} images that a.txt and "
                "b.txt list each; give less"
            )
        return Twins(a=lists.a[:n], b=lists.b[:n], test=lists.test[:test])

    return split
