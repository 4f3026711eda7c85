"""Twins: two disjoint training subsets of one size, nested in it, and a fixed test set."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from twinscore.errors import InputError
from twinscore.images.imageset import ImageSet


@dataclass(frozen=True, eq=False)
class Twins:
    """Indices into an image set.

    Attributes
    ----------
    a, b : numpy.ndarray
        ``(n,)`` int64, the training subsets of the two twins, in training order.
    test : numpy.ndarray
        ``(test,)`` int64, the same for every n.
    """

    a: np.ndarray
    b: np.ndarray
    test: np.ndarray


def twins(
    images: ImageSet,
    n: int,
    *,
    test: int = 128,
    seed: int = 0,
    replicate: int = 0,
    among: Sequence[int] | np.ndarray | None = None,
) -> Twins:
    """Split images into twin training subsets of size n and a test set, all disjoint.

    The images are permuted; the first ones are the test set, A grows from one end of the rest and
    B from the other. So the test set is the same for every n, and subsets are nested with their
    order kept: ``twins(images, 10).a`` is ``twins(images, 100).a[:10]``.

    Where the images have groups (halves of photographs), no group is in two of A, B and test. The
    smallest groups go to the test set until it is full, so that it is drawn from many; the others,
    the largest first, go to the smaller of A and B. Within A, B and test all groups are mixed.

    Parameters
    ----------
    images : ImageSet
        N images.
    n : int
        Size of each training subset.
    test : int
        Size of the test set.
    seed, replicate : int
        Together they determine the permutation, the test set included.
    among : sequence of int, optional
        Indices to draw from, in any order; those that survive duplicate removal, say. By default
        all.

    Returns
    -------
    Twins

    Raises
    ------
    InputError
        When there are too few images, n is less than 1, test, seed or replicate is negative, or
        ``among`` holds duplicates or indices out of range.
    """
    if n < 1:
        raise InputError(f"n: {n} images to train on are too few; give at least 1")
    deal = _deal(images, test, seed, replicate, among)
    largest = min(len(deal.a), len(deal.b))
    if len(deal.test) < test or n > largest:
        number = len(images) if among is None else len(among)
        raise InputError(_shortage(n, test, deal, number, images.groups is not None))
    return Twins(a=deal.a[:n], b=deal.b[:n], test=deal.test)


def held_out(images: ImageSet, test: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Split images into training images and a test set, by group where there are groups.

    Parameters
    ----------
    images : ImageSet
        N images.
    test : int
        Size of the test set.
    seed : int
        Determines the permutation.

    Returns
    -------
    training, test : numpy.ndarray
        Disjoint int64 indices, the training images of all groups mixed. No group is in both; of an
        odd number of training images without groups, one is left out.

    Raises
    ------
    InputError
        If ``test`` images cannot be held out.
    """
    deal = _deal(images, test, seed, 0, None)
    if len(deal.test) < test or not len(deal.a):
        raise InputError(f"test: {test} of {len(images)} images cannot be held out; give less")
    both = np.stack([deal.a[: len(deal.b)], deal.b[: len(deal.a)]], axis=1).ravel()
    rest = np.concatenate([deal.a[len(deal.b) :], deal.b[len(deal.a) :]])
    return np.concatenate([both, rest]), deal.test[:test]


def largest_n(
    images: ImageSet,
    *,
    test: int = 128,
    seed: int = 0,
    replicate: int = 0,
    among: Sequence[int] | np.ndarray | None = None,
) -> int:
    """Find the largest n that :func:`twins` grants with the same arguments.

    Parameters
    ----------
    images, test, seed, replicate, among
        As for :func:`twins`.

    Returns
    -------
    int
        0 when none fits.

    Raises
    ------
    InputError
        When test, seed or replicate is negative, or ``among`` is wrong.
    """
    deal = _deal(images, test, seed, replicate, among)
    return min(len(deal.a), len(deal.b)) if len(deal.test) == test else 0


def _deal(
    images: ImageSet,
    test: int,
    seed: int,
    replicate: int,
    among: Sequence[int] | np.ndarray | None,
) -> Twins:
    """Give all images out: the test set, and A and B in the order in which they grow."""
    for name, value in (("test", test), ("seed", seed), ("replicate", replicate)):
        if value < 0:
            raise InputError(f"{name}: {value} is negative; give 0 or more")
    pool = _pool(len(images), among)
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, replicate])))
    if images.groups is None:
        order = generator.permutation(pool)
        rest = order[test:]
        half = len(rest) // 2
        return Twins(a=rest[:half], b=rest[::-1][:half], test=order[:test])
    groups = _by_group(pool, [images.groups[index] for index in pool])
    whole_test, a, b = (
        generator.permutation(side) for side in _deal_groups(groups, test, generator)
    )
    return Twins(a=a, b=b, test=whole_test[:test])


def _pool(number: int, among: Sequence[int] | np.ndarray | None) -> np.ndarray:
    if among is None:
        return np.arange(number, dtype=np.int64)
    given = np.asarray(among)
    if given.size == 0:
        return np.empty(0, dtype=np.int64)
    if given.ndim != 1 or given.dtype.kind not in "iu":
        raise InputError(
            f"among: {given.dtype} of shape {given.shape}; give a list of indices "
            "(numpy.flatnonzero makes one from a mask)"
        )
    pool = np.unique(given)
    if len(pool) < len(given):
        raise InputError(f"among: {len(given) - len(pool)} indices are given twice; give each once")
    if pool[0] < 0 or pool[-1] >= number:
        outside = pool[0] if pool[0] < 0 else pool[-1]
        raise InputError(f"among: index {outside} is out of range; give 0 to {number - 1}")
    return pool.astype(np.int64)


def _by_group(pool: np.ndarray, names: list[str]) -> list[np.ndarray]:
    _, group = np.unique(np.array(names), return_inverse=True)
    order = np.argsort(group, kind="stable")
    return np.split(pool[order], np.flatnonzero(np.diff(group[order])) + 1)


def _deal_groups(
    groups: list[np.ndarray], test: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Assign whole groups to test, A and B; ties in size are broken by the generator."""
    shuffled = [groups[k] for k in generator.permutation(len(groups))]
    ascending = sorted(shuffled, key=len)
    for_test: list[np.ndarray] = []
    while ascending and sum(map(len, for_test)) < test:
        for_test.append(ascending.pop(0))
    sides: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    totals = [0, 0]
    first = int(generator.integers(2))
    for group in reversed(ascending):
        side = first if totals[first] <= totals[1 - first] else 1 - first
        sides[side].append(group)
        totals[side] += len(group)
    none = np.empty(0, dtype=np.int64)
    a, b = (np.concatenate([none, *side]) for side in sides)
    return np.concatenate([none, *for_test]), a, b


def _shortage(n: int, test: int, deal: Twins, number: int, grouped: bool) -> str:
    if len(deal.test) < test:
        return f"test: {test} images are asked for and {number} are there; give less"
    largest = min(len(deal.a), len(deal.b))
    fits = f"the largest n that fits is {largest}" if largest else "no n fits, lower test"
    if not grouped:
        return f"n: {n} needs 2*{n} + {test} images and {number} are there; {fits}"
    short = "A" if len(deal.a) < len(deal.b) else "B"
    return (
        f"n: {n} is more than {short} can get without sharing a group "
        f"({len(deal.a)} images for A, {len(deal.b)} for B, after {test} for test); {fits}"
    )
