"""Twins: disjoint, nested, with a fixed test set, and no group on two sides."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twinscore import images
from twinscore.errors import InputError
from twinscore.images import split_rules


def image_set(number, groups=None):
    return images.from_pixels(np.zeros((number, 1, 1, 1), dtype=np.uint8), groups=groups)


def grouped(sizes):
    return image_set(sum(sizes), [f"g{k}" for k, size in enumerate(sizes) for _ in range(size)])


def attributed(has):
    has = np.array(has)
    return images.from_pixels(
        np.zeros((len(has), 1, 1, 1), np.uint8),
        attributes={"Smiling": has, "Young": ~has},
        labels=np.where(has, 3, 8),
    )


def sides(split):
    return [set(side.tolist()) for side in (split.a, split.b, split.test)]


seeds = st.integers(0, 2**32)


@settings(deadline=None)
@given(number=st.integers(2, 200), seed=seeds, replicate=seeds, data=st.data())
def test_twins_are_disjoint_nested_and_deterministic(number, seed, replicate, data):
    test = data.draw(st.integers(0, number - 2))
    among = data.draw(st.permutations(range(0, 2 * number, 2)))
    options = {"test": test, "seed": seed, "replicate": replicate, "among": among}
    pictures = image_set(2 * number)
    largest = images.largest_n(pictures, **options)
    assert largest == (number - test) // 2
    n = data.draw(st.integers(1, largest))
    small, large = (images.twins(pictures, k, **options) for k in (n, largest))
    a, b, held_out = sides(large)
    assert (len(a), len(b), len(held_out)) == (largest, largest, test)
    assert not a & b
    assert not held_out & (a | b)
    assert a | b | held_out <= set(among)
    np.testing.assert_array_equal(small.a, large.a[:n])
    np.testing.assert_array_equal(small.b, large.b[:n])
    np.testing.assert_array_equal(small.test, large.test)
    again = images.twins(pictures, n, **(options | {"among": sorted(among)}))
    np.testing.assert_array_equal(
        np.concatenate([again.a, again.b, again.test]),
        np.concatenate([small.a, small.b, small.test]),
    )
    assert small.a.dtype == small.b.dtype == small.test.dtype == np.int64


@settings(deadline=None)
@given(sizes=st.lists(st.integers(1, 12), min_size=3, max_size=15), seed=seeds, data=st.data())
def test_no_group_is_on_two_sides(sizes, seed, data):
    pictures = grouped(sizes)
    test = data.draw(st.integers(0, sum(sizes)))
    largest = images.largest_n(pictures, test=test, seed=seed)
    if largest == 0:
        with pytest.raises(InputError):
            images.twins(pictures, 1, test=test, seed=seed)
        return
    split = images.twins(pictures, largest, test=test, seed=seed)
    assert [len(side) for side in sides(split)] == [largest, largest, test]
    a, b, held_out = ({pictures.groups[k] for k in side} for side in sides(split))
    assert not a & b
    assert not held_out & (a | b)
    size_of = pictures.groups.count
    assert max(map(size_of, held_out), default=0) <= min(map(size_of, a | b))
    small = images.twins(pictures, 1, test=test, seed=seed)
    assert (small.a[0], small.b[0]) == (split.a[0], split.b[0])
    np.testing.assert_array_equal(small.test, split.test)


@pytest.mark.parametrize(
    ("sizes", "test", "largest", "held_out"),
    [
        ([10, 10, 4, 6], 3, 10, {"g2"}),
        ([10, 10, 4, 6], 5, 10, {"g2", "g3"}),
        ([10, 10, 4, 6], 0, 14, set()),
        ([30, 9, 8, 7, 6], 8, 9, {"g3", "g4"}),
        ([5, 6, 7, 2, 3], 7, 6, {"g0", "g3", "g4"}),
    ],
)
def test_groups_are_dealt_to_leave_much_and_evenly(sizes, test, largest, held_out):
    pictures = grouped(sizes)
    found = set()
    for seed in range(10):
        assert images.largest_n(pictures, test=test, seed=seed) == largest
        found |= {pictures.groups[k] for k in images.twins(pictures, 1, test=test, seed=seed).test}
    assert found == held_out


def test_seed_and_replicate_both_change_the_split():
    pictures = image_set(100)
    splits = [
        images.twins(pictures, 20, test=20, seed=seed, replicate=replicate)
        for seed, replicate in [(0, 0), (1, 0), (0, 1)]
    ]
    for side in ("a", "b", "test"):
        assert len({tuple(getattr(split, side)) for split in splits}) == 3


def test_sides_mix_their_groups():
    pictures = images.load("photos")
    split = images.twins(pictures, 100)
    assert len({pictures.groups[k] for k in split.a} | {pictures.groups[k] for k in split.b}) > 10
    assert images.largest_n(pictures) == 692


@settings(deadline=None)
@given(sizes=st.lists(st.integers(1, 9), min_size=3, max_size=9), seed=seeds)
def test_held_out_images_share_no_group_with_training_images(sizes, seed):
    pictures = grouped(sizes)
    training, test = images.held_out(pictures, 1, seed=seed)
    assert len(test) == 1
    assert len(set(training)) == len(training) == len(pictures) - min(sizes)
    assert pictures.groups[test[0]] not in {pictures.groups[k] for k in training}


def test_held_out_leaves_at_most_one_image_unused():
    training, test = images.held_out(image_set(50), 7, seed=3)
    assert len(set(training) | set(test)) == 49
    assert (len(training), len(test)) == (42, 7)
    with pytest.raises(InputError, match="test: 50 of 50"):
        images.held_out(image_set(50), 50)


def test_the_global_random_state_is_left_alone():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    images.twins(image_set(50), 5, test=5)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


@pytest.mark.parametrize(
    ("pictures", "options", "says"),
    [
        (image_set(50), {"n": 25, "test": 5}, "2*25 + 5 images and 50 are there; the largest n"),
        (image_set(50), {"n": 25, "test": 5}, "that fits is 22"),
        (image_set(50), {"n": 1, "test": 51}, "test: 51 images are asked for and 50 are there"),
        (image_set(50), {"n": 1, "test": 50}, "no n fits"),
        (image_set(50), {"n": 0}, "n: 0 images"),
        (image_set(50), {"n": 1, "test": -1}, "test: -1 is negative"),
        (image_set(50), {"n": 1, "seed": -1}, "seed: -1 is negative"),
        (image_set(50), {"n": 1, "replicate": -1}, "replicate: -1 is negative"),
        (image_set(50), {"n": 1, "among": [3, 4, 3]}, "among: 1 indices are given twice"),
        (image_set(50), {"n": 1, "among": [3, 50]}, "index 50 is out of range; give 0 to 49"),
        (image_set(50), {"n": 1, "among": [-1, 3]}, "index -1 is out of range"),
        (image_set(50), {"n": 1, "among": [True, False]}, "among: bool"),
        (image_set(50), {"n": 1, "test": 5, "among": []}, "and 0 are there"),
        (grouped([9, 8, 3]), {"n": 9, "test": 3}, "the largest n that fits is 8"),
        (grouped([9, 3]), {"n": 1, "test": 3}, "after 3 for test); no n fits"),
        (grouped([9, 3]), {"n": 1, "test": 13}, "13 images are asked for and 12 are there"),
    ],
)
def test_what_cannot_be_split_is_explained(pictures, options, says):
    n = options["n"]
    rest = {key: value for key, value in options.items() if key != "n"}
    with pytest.raises(InputError) as caught:
        images.twins(pictures, n, **rest)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@settings(deadline=None)
@given(sizes=st.lists(st.integers(1, 12), min_size=3, max_size=15), seed=seeds)
def test_twins_hold_equally_many_of_either_group_of_a_pair(sizes, seed):
    """So that another toss of a pair's coin would have exchanged these very images."""
    pictures = grouped(sizes)
    largest = images.largest_n(pictures, test=1, seed=seed)
    if not largest:
        return
    split = images.twins(pictures, largest, test=1, seed=seed)
    partner = {}
    for a, b in zip(split.a, split.b, strict=True):
        one, other = pictures.groups[a], pictures.groups[b]
        assert partner.setdefault(one, other) == other
        assert partner.setdefault(other, one) == one
    between = [sorted(map(pictures.groups.count, pair)) for pair in partner.items()]
    for small, large in between:
        assert not any(small < low and high < large for low, high in between)


def test_every_toss_of_the_pairs_is_as_likely():
    pictures = grouped([9, 8, 6, 5, 3])
    tosses = np.array(
        [
            [group in {pictures.groups[k] for k in split.a} for group in ("g0", "g1", "g2", "g3")]
            for split in (images.twins(pictures, 12, test=3, seed=seed) for seed in range(400))
        ]
    )
    assert (tosses[:, 0] != tosses[:, 1]).all()
    assert (tosses[:, 2] != tosses[:, 3]).all()
    counts = np.bincount(2 * tosses[:, 0] + tosses[:, 2], minlength=4)
    assert ((counts > 70) & (counts < 130)).all()


# what the index lists have always been: they enter the hashes of trials


def fingerprint(*lists):
    content = b"|".join(np.asarray(indices, dtype="<i8").tobytes() for indices in lists)
    return hashlib.sha256(content).hexdigest()[:16]


SMILING = {"by": "attribute", "attribute": "Smiling"}
SQUARES = [f"g{k * k % 11}" for k in range(60)]


@pytest.mark.parametrize(
    ("pictures", "options", "largest", "lists"),
    [
        (image_set(50), {}, 21, "e4a4fecf26a65db7"),
        (image_set(50), {"among": range(0, 50, 2)}, 9, "33a8fb0bb74dfe22"),
        (image_set(60, SQUARES), {}, 22, "317a430ef7c4d222"),
        (image_set(60, SQUARES), {"seed": 3, "replicate": 2}, 22, "8e95d81985fdb47a"),
        (attributed(np.arange(60) % 3 > 0), {"by": "label"}, 26, "07f9b6a41230d957"),
        (attributed(np.arange(60) % 3 > 0), SMILING, 16, "4812615fd83c748d"),
        (attributed(np.arange(60) % 3 > 0), SMILING | {"nested": False}, 16, "f082a9f826ffad57"),
    ],
)
def test_splits_are_what_they_were(pictures, options, largest, lists):
    rule = {name: value for name, value in options.items() if name != "nested"}
    assert images.largest_n(pictures, test=7, **rule) == largest
    split = images.twins(pictures, largest, test=7, **options)
    assert fingerprint(split.a, split.b, split.test) == lists


def test_the_default_hold_out_is_what_it_was():
    assert fingerprint(*images.held_out(image_set(50), 7)) == "a19cb1d0f85b2aef"
    assert fingerprint(*images.held_out(image_set(60, SQUARES), 7)) == "2021a1acd2443110"
    digits = images.load("digits")
    split = images.twins(digits, 100)
    assert fingerprint(split.a, split.b, split.test) == "a0a7ce574ec249ed"


# by group, label and attribute, and again for each n


def test_auto_is_by_group_where_there_are_groups_else_random():
    labelled = images.from_pixels(np.zeros((60, 1, 1, 1), np.uint8), labels=np.arange(60) % 7)
    for pictures, rule in ((image_set(60, SQUARES), "group"), (labelled, "random")):
        assert images.resolve(pictures, "auto") == rule
        one, other = (images.twins(pictures, 9, test=7, by=by) for by in ("auto", rule))
        assert sides(one) == sides(other)
    ungrouped = images.twins(image_set(60, SQUARES), 26, test=7, by="random")
    np.testing.assert_array_equal(ungrouped.a, images.twins(image_set(60), 26, test=7).a)


def test_without_groups_labels_are_the_groups():
    labels = np.array([int(name[1:]) for name in SQUARES])
    labelled = images.from_pixels(np.zeros((60, 1, 1, 1), np.uint8), labels=labels)
    split = images.twins(labelled, 22, test=7, by="group")
    a, b, held_out = ({int(labels[k]) for k in side} for side in sides(split))
    assert not a & b
    assert not held_out & (a | b)


@settings(deadline=None)
@given(counts=st.lists(st.integers(0, 40), min_size=1, max_size=8).filter(any), data=st.data())
def test_every_beginning_holds_each_label_in_proportion(counts, data):
    counts = np.array(counts)
    length = data.draw(st.integers(0, counts.sum()))
    order = split_rules.proportional(counts, length)
    for m in range(length + 1):
        taken = np.bincount(order[:m], minlength=len(counts))
        assert taken.sum() == m
        # within quota, in whole numbers: |taken - m p| < 1
        assert (np.abs(taken * counts.sum() - m * counts) < counts.sum()).all()


@settings(deadline=None)
@given(counts=st.lists(st.integers(1, 25), min_size=1, max_size=6), seed=seeds, data=st.data())
def test_stratified_twins_share_their_labels_at_every_n(counts, seed, data):
    labels = np.repeat(np.arange(len(counts)), counts)
    number, counts = len(labels), np.array(counts)
    pictures = images.from_pixels(np.zeros((number, 1, 1, 1), np.uint8), labels=labels)
    options = {"test": data.draw(st.integers(0, number)), "seed": seed, "by": "label"}
    largest = images.largest_n(pictures, **options)
    assert largest >= (number - options["test"] - len(counts)) / 2
    with pytest.raises(InputError, match=r"short; |asked for|no n fits") as caught:
        images.twins(pictures, largest + 1, **options)
    assert "\n" not in str(caught.value)
    if not largest:
        return
    full = images.twins(pictures, largest, **options)
    a, b, held_out = sides(full)
    assert (len(a), len(b), len(held_out)) == (largest, largest, options["test"])
    assert not a & b
    assert not held_out & (a | b)
    held = np.bincount(labels[full.test], minlength=len(counts))
    assert (np.abs(held * number - options["test"] * counts) < number).all()
    shares = np.bincount(labels[full.a], minlength=len(counts))
    n = data.draw(st.integers(1, largest))
    split = images.twins(pictures, n, **options)
    np.testing.assert_array_equal(split.a, full.a[:n])
    np.testing.assert_array_equal(split.b, full.b[:n])
    np.testing.assert_array_equal(split.test, full.test)
    np.testing.assert_array_equal(labels[split.a], labels[split.b])
    held = np.bincount(labels[split.a], minlength=len(counts))
    assert (np.abs(held * largest - n * shares) < largest).all()


def test_stratified_digits_come_in_equal_shares():
    digits = images.load("digits")
    split = images.twins(digits, 50, test=100, by="label")
    for side in (split.a, split.b, split.test):
        np.testing.assert_array_equal(np.bincount(digits.labels[side]), len(side) // 10)


@settings(deadline=None)
@given(has=st.lists(st.booleans(), min_size=2, max_size=60), seed=seeds, data=st.data())
def test_a_has_the_attribute_and_b_has_not(has, seed, data):
    pictures, has = attributed(has), np.array(has)
    test = data.draw(st.integers(0, len(has)))
    options = {"test": test, "seed": seed, "by": "attribute", "attribute": "Smiling"}
    room = min(has.sum() - test // 2, (~has).sum() - (test - test // 2))
    assert images.largest_n(pictures, **options) == max(room, 0)
    with pytest.raises(InputError, match=r"'Smiling' and \d+ are there, [1-9]\d* short; "):
        images.twins(pictures, max(room, 0) + 1, **options)
    if room < 1:
        return
    split = images.twins(pictures, room, **options)
    assert has[split.a].all()
    assert not has[split.b].any()
    assert has[split.test].sum() == test // 2
    assert len(set(split.a) | set(split.b) | set(split.test)) == 2 * room + test
    small = images.twins(pictures, 1, **options)
    assert (small.a[0], small.b[0]) == (split.a[0], split.b[0])
    np.testing.assert_array_equal(small.test, split.test)


@settings(deadline=None)
@given(has=st.lists(st.booleans(), min_size=2, max_size=60), seed=seeds, data=st.data())
def test_controls_are_of_a_kind_that_nobody_has_seen_and_nested(has, seed, data):
    pictures, has = attributed(has), np.array(has)
    test = data.draw(st.integers(0, len(has)))
    options = {"test": test, "seed": seed, "by": "attribute", "attribute": "Smiling"}
    largest = images.largest_n(pictures, **options)
    kinds, held = (has, ~has), (test // 2, test - test // 2)
    before = [np.empty(0, int)] * 2
    for n in range(1, largest + 1):
        split = images.twins(pictures, n, **options)
        seen = np.concatenate([split.a, split.b, split.test])
        for kind, taken, controls, fewer in zip(kinds, held, split.controls, before, strict=True):
            assert len(set(controls)) == len(controls) == min(n, kind.sum() - taken - n)
            assert kind[controls].all()
            assert not set(controls) & set(seen)
            both = min(len(controls), len(fewer))
            np.testing.assert_array_equal(controls[:both], fewer[:both])
        before = split.controls


def test_other_rules_have_no_controls():
    for by in ("random", "label"):
        assert images.twins(attributed(np.arange(60) % 3 > 0), 9, test=7, by=by).controls == ()


def test_a_label_is_an_attribute_too():
    pictures = attributed([True] * 9 + [False] * 7)
    by_name, by_label = (
        images.twins(pictures, 4, test=4, by="attribute", attribute=name)
        for name in ("Smiling", "3")
    )
    assert sides(by_name) == sides(by_label)


@pytest.mark.parametrize(
    ("pictures", "by", "attribute"),
    [
        (image_set(60), "random", None),
        (image_set(60, SQUARES), "group", None),
        (attributed(np.arange(60) % 3 > 0), "label", None),
        (attributed(np.arange(60) % 3 > 0), "attribute", "Smiling"),
    ],
)
def test_fresh_subsets_are_drawn_again_and_keep_the_rule(pictures, by, attribute):
    options = {"test": 8, "by": by, "attribute": attribute, "nested": False}
    small, large = (images.twins(pictures, n, **options) for n in (9, 10))
    nested = images.twins(pictures, 10, **(options | {"nested": True}))
    np.testing.assert_array_equal(small.test, large.test)
    np.testing.assert_array_equal(nested.test, large.test)
    assert small.a.tolist() != large.a[:9].tolist()
    assert sides(images.twins(pictures, 9, **options)) == sides(small)
    for split in (small, large):
        a, b, held_out = sides(split)
        assert not a & b
        assert not held_out & (a | b)
        if by == "group":
            names = [{pictures.groups[k] for k in side} for side in sides(split)]
            assert not names[0] & names[1]
            assert not names[2] & (names[0] | names[1])
        if by == "attribute":
            assert pictures.attributes["Smiling"][split.a].all()
    room = images.largest_n(pictures, test=8, by=by, attribute=attribute)
    assert len(images.twins(pictures, room, **options).a) == room


def test_held_out_images_follow_the_rule():
    digits = images.load("digits")
    training, test = images.held_out(digits, 100, by="group")
    assert not set(digits.labels[training]) & set(digits.labels[test])
    training, test = images.held_out(digits, 100, by="label")
    np.testing.assert_array_equal(np.bincount(digits.labels[test]), 10)
    assert len(set(training) & set(test)) == 0
    assert len(digits) - 100 - len(set(training)) <= 10
    with pytest.raises(InputError, match="split by label: these images have no labels"):
        images.held_out(image_set(50), 5, by="label")


@pytest.mark.parametrize(
    ("pictures", "options", "says"),
    [
        (image_set(9), {"by": "grup"}, "by: 'grup' is not a way to split; give one of auto"),
        (image_set(9), {"attribute": "3"}, "attribute: '3' is given, but the split is by auto"),
        (image_set(9), {"by": "group"}, "these images have neither groups nor labels"),
        (image_set(9), {"by": "label"}, "these images have no labels"),
        (image_set(9), {"by": "attribute", "attribute": "3"}, "neither attributes nor labels"),
        (attributed([True, False]), {"by": "attribute"}, "none is given; these images have Smi"),
        (
            attributed([True, False]),
            {"by": "attribute", "attribute": "smiling"},
            "'smiling' is unknown; did you mean 'Smiling'? these images have Smiling, Young, 3, 8",
        ),
        (
            grouped([9, 8, 3]),
            {"n": 10, "by": "group"},
            "the largest n that fits is 8: 2 short (the largest of 3 groups, 'g0'",
        ),
        (
            attributed([True] * 20 + [False] * 4),
            {"n": 11, "by": "label"},
            "2*10 + 3 images of label '3' and 20 are there, 3 short; the largest n that fits is 10",
        ),
        (
            attributed([True] * 20 + [False] * 4),
            {"n": 5, "by": "attribute", "attribute": "Young"},
            "A needs 5 + 1 (for test) images with attribute 'Young' and 4 are there, 2 short; ",
        ),
    ],
)
def test_what_runs_short_is_named(pictures, options, says):
    with pytest.raises(InputError) as caught:
        images.twins(pictures, **({"n": 1, "test": 3} | options))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
