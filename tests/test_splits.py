"""Twins: disjoint, nested, with a fixed test set, and no group on two sides."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twinscore import images
from twinscore.errors import InputError


def image_set(number, groups=None):
    return images.from_pixels(np.zeros((number, 1, 1, 1), dtype=np.uint8), groups=groups)


def grouped(sizes):
    return image_set(sum(sizes), [f"g{k}" for k, size in enumerate(sizes) for _ in range(size)])


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
        ([30, 9, 8, 7, 6], 8, 17, {"g3", "g4"}),
        ([5, 6, 7, 2, 3], 7, 6, {"g0", "g3", "g4"}),
    ],
)
def test_groups_are_dealt_to_leave_much_and_evenly(sizes, test, largest, held_out):
    pictures = grouped(sizes)
    for seed in range(5):
        assert images.largest_n(pictures, test=test, seed=seed) == largest
        found = {pictures.groups[k] for k in images.twins(pictures, 1, test=test, seed=seed).test}
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
    assert images.largest_n(pictures) == 705


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


def test_the_short_side_is_named():
    pictures = grouped([9, 8, 3])
    split = images.twins(pictures, 8, test=3)
    short = "A" if {pictures.groups[k] for k in split.a} == {"g1"} else "B"
    with pytest.raises(InputError, match=f"n: 9 is more than {short} can get"):
        images.twins(pictures, 9, test=3)
