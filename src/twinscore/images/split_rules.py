"""The rules by which images are dealt to A, B and the test set: image, group, label, attribute."""

from collections.abc import Callable
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import partial
from typing import Literal, get_args

import numpy as np

from twinscore.errors import InputError
from twinscore.images.imageset import ImageSet

By = Literal["auto", "random", "group", "label", "attribute"]
"""What a split goes by; *auto* is by group where the images have groups, else random."""

BY: tuple[str, ...] = get_args(By)


@dataclass(frozen=True, eq=False)
class Twins:
    """Indices into an image set.

    Attributes
    ----------
    a, b : numpy.ndarray
        ``(n,)`` int64, the training subsets of the two twins, in training order.
    test : numpy.ndarray
        ``(test,)`` int64, the same for every n.
    controls : tuple of numpy.ndarray
        Where A and B differ in kind: for each, ``(n,)`` int64 images of its kind that are in none
        of the above; fewer where there are no more. Empty where each subset is the other's control.
    """

    a: np.ndarray
    b: np.ndarray
    test: np.ndarray
    controls: tuple[np.ndarray, ...] = ()


@dataclass(frozen=True, eq=False)
class Dealt(Twins):
    """Twins as far as they grow; ``rest`` are images that neither of them may take."""

    rest: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64))


@dataclass(frozen=True)
class Rule:
    """One way of dealing a pool of images out.

    Attributes
    ----------
    deal : callable
        ``deal(pool, test, generator) -> Dealt``: the test set, cut short where the images do not
        suffice, and A and B as far as they grow, each in its order.
    shortage : callable
        ``shortage(n, pool, test, deal) -> str``: why A and B of size n are impossible.
    apart : bool
        Whether A and B differ in kind, so that each needs controls of its own.
    """

    deal: Callable[[np.ndarray, int, np.random.Generator], Dealt]
    shortage: Callable[[int, np.ndarray, int, Twins], str]
    apart: bool = False


def resolve(images: ImageSet, by: str) -> str:
    """Say what *auto* stands for: *group* where the images have groups, else *random*."""
    if by != "auto":
        return by
    return "random" if images.groups is None else "group"


def rule_of(images: ImageSet, by: By = "auto", attribute: str | None = None) -> Rule:
    """Find the rule, one of ``BY``, that splits these images.

    For *attribute* alone, ``attribute`` is the name of one, or a label as text. InputError when
    there is no such rule, the images lack what it goes by, or the attribute is missing, unknown, or
    given but not used.
    """
    if by not in BY:
        raise InputError(f"by: {by!r} is not a way to split; give one of {', '.join(BY)}")
    if attribute is not None and by != "attribute":
        raise InputError(f"attribute: {attribute!r} is given, but the split is by {by}")
    by = resolve(images, by)
    if by == "random":
        return Rule(_deal_images, _too_few_images)
    if by == "group":
        groups = np.array(_texts(images, "group"))
        return Rule(partial(_deal_groups, groups), partial(_too_few_without_sharing, groups))
    if by == "label":
        labels = np.array(_texts(images, "label"))
        return Rule(partial(_deal_labels, labels), partial(_too_few_of_label, labels))
    has = having(images, attribute)
    lacking = partial(_too_few_with, has, str(attribute))
    return Rule(partial(_deal_attribute, has), lacking, apart=True)


def _texts(images: ImageSet, what: Literal["group", "label"]) -> list[str]:
    if what == "group" and images.groups is not None:
        return list(images.groups)
    if images.labels is None:
        lacking = "no labels" if what == "label" else "neither groups nor labels"
        raise InputError(f"split by {what}: these images have {lacking}; split them at random")
    return [str(label) for label in images.labels]


def having(images: ImageSet, name: str | None) -> np.ndarray:
    """Which images have an attribute, or a label that is given as text, ``(N,)`` bool.

    InputError when the images have neither attributes nor labels, or none of this name.
    """
    labels = [] if images.labels is None else [str(label) for label in images.labels]
    known = [*images.attributes, *sorted(set(labels))]
    if not known:
        raise InputError(
            "split by attribute: these images have neither attributes nor labels; "
            "split them at random"
        )
    if name in images.attributes:
        return images.attributes[name]
    if name in labels:
        return np.array([label == name for label in labels])
    close = get_close_matches(str(name), known, n=1)
    shown = ", ".join(known[:50]) + (", ..." if len(known) > 50 else "")
    raise InputError(
        f"attribute: {'none is given' if name is None else f'{name!r} is unknown'}; "
        f"{f'did you mean {close[0]!r}? ' if close else ''}these images have {shown}"
    )


# By image


def _deal_images(pool: np.ndarray, test: int, generator: np.random.Generator) -> Dealt:
    order = generator.permutation(pool)
    rest = order[test:]
    half = len(rest) // 2
    return Dealt(a=rest[:half], b=rest[::-1][:half], test=order[:test])


def _too_few_images(n: int, pool: np.ndarray, test: int, deal: Twins) -> str:
    return f"{n} needs 2*{n} + {test} images and {len(pool)} are there; {_fits(deal)}"


def _fits(deal: Twins) -> str:
    largest = min(len(deal.a), len(deal.b))
    return f"the largest n that fits is {largest}" if largest else "no n fits, lower test"


# By group


def _deal_groups(
    groups: np.ndarray, pool: np.ndarray, test: int, generator: np.random.Generator
) -> Dealt:
    """Assign whole groups: the smallest to the test set, the others by a coin for each pair.

    Neighbours in size are paired; which of them is A's, the coin says. Each gives as many images as
    the smaller one has, and A and B take them in one order of pairs: for every n they hold equally
    many of either group of a pair, so that another toss would have exchanged these images.
    """
    members = _members(pool, groups)
    ascending = sorted((members[k] for k in generator.permutation(len(members))), key=len)
    for_test: list[np.ndarray] = []
    while ascending and sum(map(len, for_test)) < test:
        for_test.append(ascending.pop(0))
    held = generator.permutation(_joined(for_test))[:test]
    left = [ascending.pop(0)] if len(ascending) % 2 else []
    sides: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for pair in zip(ascending[0::2], ascending[1::2], strict=True):
        mixed = [generator.permutation(group) for group in pair]
        size = min(map(len, mixed))
        coin = int(generator.integers(2))
        for side, group in zip((coin, 1 - coin), mixed, strict=True):
            sides[side].append(group[:size])
            left.append(group[size:])
    a, b = map(_joined, sides)
    order = generator.permutation(len(a))
    return Dealt(a=a[order], b=b[order], test=held, rest=generator.permutation(_joined(left)))


def _members(pool: np.ndarray, names: np.ndarray) -> list[np.ndarray]:
    """Divide the pool by name, in the order of the names."""
    _, group = np.unique(names[pool], return_inverse=True)
    order = np.argsort(group, kind="stable")
    return np.split(pool[order], np.flatnonzero(np.diff(group[order])) + 1)


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.empty(0, dtype=np.int64), *parts])


def _too_few_without_sharing(
    groups: np.ndarray, n: int, pool: np.ndarray, test: int, deal: Dealt
) -> str:
    names, counts = np.unique(groups[pool], return_counts=True)
    largest = str(names[counts.argmax()])
    return (
        f"{n} is more than A and B can get without sharing a group ({len(deal.a)} images each from "
        f"pairs of groups of like size, after {test} for test); {_fits(deal)}: "
        f"{n - len(deal.a)} short (the largest of {len(names)} groups, {largest!r}, "
        f"holds {counts.max()} of {len(pool)} images)"
    )


# By label


def proportional(counts: np.ndarray, length: int) -> np.ndarray:
    """Order labels so that every beginning holds each in proportion, ``(length,)`` int64.

    Among the first m, label l is there ``m p_l`` times, rounded up or down, where ``p_l = counts_l
    / sum(counts)``: the next place goes to the label with the largest ``counts_l / (taken_l + 1)``
    among those with ``taken_l < m p_l``; the first such label wins a tie. Balinski and Young, The
    Quota Method of Apportionment, Amer. Math. Monthly 82, 1975.

    Parameters
    ----------
    counts : numpy.ndarray
        ``(L,)`` int64, how many images there are of each label.
    length : int
        Places to fill, at most ``counts.sum()``. The cost is ``length * L``.
    """
    order = np.empty(length, dtype=np.int64)
    taken = np.zeros(len(counts), dtype=np.int64)
    total = counts.sum()
    for m in range(length):
        claims = np.where(taken * total < (m + 1) * counts, counts / (taken + 1), -1.0)
        order[m] = claims.argmax()
        taken[order[m]] += 1
    return order


def _deal_labels(
    labels: np.ndarray, pool: np.ndarray, test: int, generator: np.random.Generator
) -> Dealt:
    members = _members(pool, labels)
    members = [generator.permutation(members[k]) for k in generator.permutation(len(members))]
    for_test = proportional(_sizes(members), min(test, len(pool)))
    held = np.bincount(for_test, minlength=len(members))
    left = [own[count:] for own, count in zip(members, held, strict=True)]
    pairs = _sizes(left) // 2
    order = proportional(pairs, pairs.sum())
    return Dealt(
        a=_in_order(order, [own[0::2] for own in left]),
        b=_in_order(order, [own[1::2] for own in left]),
        test=_in_order(for_test, members),
    )


def _sizes(parts: list[np.ndarray]) -> np.ndarray:
    return np.array([len(part) for part in parts], dtype=np.int64)


def _in_order(order: np.ndarray, members: list[np.ndarray]) -> np.ndarray:
    """Take the next image of each label, in the order of the labels."""
    taken = np.empty(len(order), dtype=np.int64)
    for label, own in enumerate(members):
        places = np.flatnonzero(order == label)
        taken[places] = own[: len(places)]
    return taken


def _too_few_of_label(labels: np.ndarray, n: int, pool: np.ndarray, test: int, deal: Twins) -> str:
    names, counts = np.unique(labels[pool], return_counts=True)
    each = np.ceil(n * counts / len(pool)).astype(np.int64)
    held = np.array([np.count_nonzero(labels[deal.test] == name) for name in names])
    lacking = 2 * each + held - counts
    worst = lacking.argmax()
    return (
        f"{n} with labels in proportion needs 2*{each[worst]} + {held[worst]} images of label "
        f"{str(names[worst])!r} and {counts[worst]} are there, {lacking[worst]} short; "
        f"{_fits(deal)}"
    )


# By attribute


def _deal_attribute(
    has: np.ndarray, pool: np.ndarray, test: int, generator: np.random.Generator
) -> Dealt:
    """Half of the test set has the attribute, the smaller half of an odd one."""
    with_it, without = (generator.permutation(pool[side]) for side in (has[pool], ~has[pool]))
    held = test // 2, test - test // 2
    for_test = generator.permutation(_joined([with_it[: held[0]], without[: held[1]]]))
    return Dealt(a=with_it[held[0] :], b=without[held[1] :], test=for_test)


def _too_few_with(
    has: np.ndarray, name: str, n: int, pool: np.ndarray, test: int, deal: Twins
) -> str:
    count = np.count_nonzero(has[pool])
    sides = (("A", "with", count, test // 2), ("B", "without", len(pool) - count, test - test // 2))
    side, word, there, held = max(sides, key=lambda own: own[3] - own[2])
    return (
        f"{side} needs {n} + {held} (for test) images {word} attribute {name!r} and {there} are "
        f"there, {n + held - there} short; {_fits(deal)}"
    )
