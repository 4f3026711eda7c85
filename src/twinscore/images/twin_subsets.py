"""Twins: two disjoint training subsets of one size, nested in size, and a fixed test set."""

from collections.abc import Sequence

import numpy as np

from twinscore.errors import InputError
from twinscore.images.imageset import ImageSet
from twinscore.images.split_rules import By, Dealt, Rule, Twins, rule_of

__all__ = ["Twins", "held_out", "largest_n", "twins"]


def twins(
    images: ImageSet,
    n: int,
    *,
    test: int = 128,
    seed: int = 0,
    replicate: int = 0,
    among: Sequence[int] | np.ndarray | None = None,
    by: By = "auto",
    attribute: str | None = None,
    nested: bool = True,
) -> Twins:
    """Split images into twin training subsets of size n and a test set, all disjoint.

    The test set is the same for every n, and subsets are nested with their order kept:
    ``twins(images, 10).a`` is ``twins(images, 100).a[:10]``. The rest depends on ``by``:

    - *random*: the images are permuted; the first ones are the test set, A grows from one end of
      the rest and B from the other. Groups are ignored.
    - *group* (a person, a photograph; where the images have no groups, their labels are): no group
      is in two of A, B and test. The smallest groups go to the test set until it is full, so that
      it is drawn from many; the others are paired with their neighbours in size, and a coin says
      which of a pair is A's. For every n, A and B hold equally many images of either; all groups
      are mixed.
    - *label*: for every n, A and B hold equally many images of each label, and the test set and
      A hold their size times the label's share, rounded up or down. Shares are those among all
      images for the test set, and among the pairs of one label that the rest gives for A and B; at
      the largest n, at most one image of each label is left out. Groups are ignored.
    - *attribute*: all of A has it, none of B, half of the test set (of an odd one, the smaller
      half). Groups are ignored. For each n, both have controls, n images of their kind if there
      are as many left, from the other end of the same permutation: nested too.
    - *auto*: by group where the images have groups, else random.

    Where images have mirrored copies (``ImageSet.originals``), the rule deals the images, and each
    is followed by its copy: n counts both. Of an odd n or test the last copy is left out, and used
    nowhere.

    Parameters
    ----------
    images : ImageSet
        N images.
    n : int
        Size of each training subset.
    test : int
        Size of the test set.
    seed, replicate : int
        Together they determine the split, the test set included.
    among : sequence of int, optional
        Indices to draw from, in any order, such as those left after duplicate removal. By default
        all.
    by : str
        What the split goes by.
    attribute : str, optional
        For ``by="attribute"``: the name of an attribute of the images, or one label as text
        (``"3"`` on digits).
    nested : bool
        If False, A and B are drawn again for each n; the test set is still the same.

    Raises
    ------
    InputError
        When the images lack what ``by`` goes by; when there are too few, of a group, a label or an
        attribute, and by how many; when n is less than 1, test, seed or replicate is negative, or
        ``among`` holds duplicates, indices out of range or an image without its mirrored copy.

    Examples
    --------
    >>> from twinscore import images
    >>> split = images.twins(images.load("digits"), 100, test=64)
    >>> len(split.a), len(split.b), len(split.test), set(split.a) & set(split.b)
    (100, 100, 64, set())
    """
    if n < 1:
        raise InputError(f"n: {n} images to train on are too few; give at least 1")
    rule, pool = rule_of(images, by, attribute), _pool(len(images), among)
    deal = _deal(rule, images, pool, test, seed, replicate)
    if test > len(pool):
        raise InputError(f"test: {test} images are asked for and {len(pool)} are there; give less")
    if n > min(len(deal.a), len(deal.b)):
        raise InputError(f"n: {rule.shortage(n, pool, test, deal)}")
    if not nested:
        rest = np.sort(np.concatenate([deal.a, deal.b]))
        fresh = _dealt(rule, images, rest, 0, _generator(seed, replicate, n))
        deal = Twins(a=fresh.a, b=fresh.b, test=deal.test)
    halves = (deal.a, deal.b) if rule.apart else ()
    left = [_without_copies(images, half[n:], half[:n]) for half in halves]
    controls = tuple(of_kind[::-1][:n] for of_kind in left)
    return Twins(a=deal.a[:n], b=deal.b[:n], test=deal.test, controls=controls)


def held_out(
    images: ImageSet,
    test: int,
    *,
    seed: int = 0,
    by: By = "auto",
    attribute: str | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Split images into training images and ``test`` others, which ``seed`` determines.

    Returns
    -------
    training, test : numpy.ndarray
        Disjoint int64 indices, the training images of all groups mixed. Of an odd number of
        training images one is left out where the split is random; by label, one of each label. The
        split goes by ``by`` and ``attribute`` as for :func:`twins`: with *group*, no group is in
        both.

    Raises
    ------
    InputError
        If ``test`` images cannot be held out, or the images lack what ``by`` goes by.
    """
    rule = rule_of(images, by, attribute)
    deal = _deal(rule, images, _pool(len(images), None), test, seed, 0)
    both = np.stack([deal.a[: len(deal.b)], deal.b[: len(deal.a)]], axis=1).ravel()
    training = np.concatenate([both, deal.a[len(deal.b) :], deal.b[len(deal.a) :], deal.rest])
    if len(deal.test) < test or not len(training):
        raise InputError(f"test: {test} of {len(images)} images cannot be held out; give less")
    return training, deal.test


def largest_n(
    images: ImageSet,
    *,
    test: int = 128,
    seed: int = 0,
    replicate: int = 0,
    among: Sequence[int] | np.ndarray | None = None,
    by: By = "auto",
    attribute: str | None = None,
) -> int:
    """Find the largest n that :func:`twins` accepts with the same arguments; 0 when none fits.

    InputError when test, seed or replicate is negative, ``among`` is wrong, or the images lack what
    ``by`` goes by.
    """
    rule = rule_of(images, by, attribute)
    deal = _deal(rule, images, _pool(len(images), among), test, seed, replicate)
    return min(len(deal.a), len(deal.b)) if len(deal.test) == test else 0


def _deal(
    rule: Rule, images: ImageSet, pool: np.ndarray, test: int, seed: int, replicate: int
) -> Dealt:
    """Deal all images out: the test set, and A and B in the order in which they grow."""
    for name, value in (("test", test), ("seed", seed), ("replicate", replicate)):
        if value < 0:
            raise InputError(f"{name}: {value} is negative; give 0 or more")
    return _dealt(rule, images, pool, test, _generator(seed, replicate))


def _dealt(
    rule: Rule, images: ImageSet, pool: np.ndarray, test: int, generator: np.random.Generator
) -> Dealt:
    """Deal the images, each followed by its copies where there are any."""
    if images.originals is None or not len(pool):
        return rule.deal(pool, test, generator)
    together = _together(images, pool)
    dealt = rule.deal(together[:, 0], -(-test // together.shape[1]), generator)
    parts = {
        part: together[np.searchsorted(together[:, 0], getattr(dealt, part))].ravel()
        for part in ("a", "b", "test", "rest")
    }
    return Dealt(**parts | {"test": parts["test"][:test]})


def _together(images: ImageSet, pool: np.ndarray) -> np.ndarray:
    """Images of an increasing pool with their copies, one a row; the first column increases."""
    _, unit, counts = np.unique(images.originals[pool], return_inverse=True, return_counts=True)
    if counts.min() < counts.max():
        alone = images.names[pool[np.flatnonzero(counts[unit] < counts.max())[0]]]
        raise InputError(
            f"among: {alone!r} comes without its mirrored copy or its original; give both or none"
        )
    rows = pool[np.argsort(unit, kind="stable")].reshape(len(counts), -1)
    return rows[np.argsort(rows[:, 0])]


def _without_copies(images: ImageSet, indices: np.ndarray, used: np.ndarray) -> np.ndarray:
    """The indices less those of copies of images in use."""
    if images.originals is None:
        return indices
    return indices[~np.isin(images.originals[indices], images.originals[used])]


def _generator(*seeds: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seeds)))


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
