"""``augment=mirror``: copies follow their images, and no split or comparison parts them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from twinscore import images
from twinscore.analysis import coin_toss
from twinscore.errors import InputError
from twinscore.experiments import chosen_split, standards, transition
from twinscore.experiments.audit.pool import Sets, units
from twinscore.images import packed
from twinscore.images.mirror import with_mirrored

RULES = ("random", "group", "label", "attribute")


def pictures(number, seed=0, shape=(1, 3, 4), levels=256):
    """Images of two labels, in groups of one to three, half with an attribute."""
    rng = np.random.default_rng(seed)
    return images.from_pixels(
        rng.integers(0, levels, (number, *shape), dtype=np.uint8),
        labels=np.arange(number) % 2,
        groups=[f"g{k}" for k in np.sort(rng.integers(0, 1 + number // 2, number))],
        attributes={"odd": np.arange(number) % 2 == 1},
    )


def options(rule, **more):
    return {"by": rule, "attribute": "odd" if rule == "attribute" else None} | more


def followed(indices):
    """The images of a plain split, each followed by its copy."""
    return np.stack([2 * indices, 2 * indices + 1], axis=1).ravel()


def test_copies_follow_their_images():
    plain = pictures(5, shape=(3, 4, 6))
    both = with_mirrored(plain)
    x, copies = both[::2], both[1::2]
    assert torch.equal(x, plain[:])
    assert torch.equal(copies, plain[:].flip(3))
    assert torch.equal(both[[7, 2, 7]], torch.stack([copies[3], x[1], copies[3]]))
    assert both.names[2:4] == ("000001", "000001/mirrored")
    assert both.labels.tolist() == np.repeat(plain.labels, 2).tolist()
    assert both.groups[::2] == both.groups[1::2] == plain.groups
    assert both.attributes["odd"][1::2].tolist() == plain.attributes["odd"].tolist()
    computed = images.from_pixels(np.array(both.pixels[:]), peak=both.peak)
    assert both.digests == computed.digests
    assert both.take([9, 0]).originals.tolist() == [4, 0]


def test_the_source_string_mirrors_after_the_size_and_before_the_shuffle():
    both, plain = (images.load(f"photos,size=8{more}") for more in (",augment=mirror", ""))
    assert len(both) == 2 * len(plain)
    assert torch.equal(both[[1, 3]], plain[[0, 1]].flip(3))
    shuffled = images.load("photos,size=8,augment=mirror,shuffle=3")
    assert torch.equal(
        shuffled[[1]], images.synthetic.shuffle.pixel_shuffle(8, 8, 3).apply(both[[1]])
    )
    assert shuffled.originals.tolist() == both.originals.tolist()


@settings(deadline=None, max_examples=40)
@given(st.integers(8, 40), st.sampled_from(RULES), st.integers(0, 2**16), st.data())
def test_a_split_is_that_of_the_plain_images_with_their_copies(number, rule, seed, data):
    plain = pictures(number, seed)
    both = with_mirrored(plain)
    test = data.draw(st.integers(0, number // 4))
    plainly, mirrored = (options(rule, test=k * test, seed=seed) for k in (1, 2))
    largest = images.largest_n(plain, **plainly)
    assert images.largest_n(both, **mirrored) == 2 * largest
    for n in range(1, largest + 1, 3):
        split, found = images.twins(plain, n, **plainly), images.twins(both, 2 * n, **mirrored)
        for part in ("a", "b", "test"):
            np.testing.assert_array_equal(getattr(found, part), followed(getattr(split, part)))
    if test:
        held = images.held_out(both, 2 * test, seed=seed, **options(rule))[1]
        np.testing.assert_array_equal(
            held, followed(images.held_out(plain, test, seed=seed, **options(rule))[1])
        )


@settings(deadline=None, max_examples=60)
@given(st.integers(6, 40), st.sampled_from(RULES), st.integers(0, 2**16), st.data())
def test_no_copy_is_on_another_side(number, rule, seed, data):
    both = with_mirrored(pictures(number, seed))
    among = np.flatnonzero(data.draw(st.lists(st.booleans(), min_size=number, max_size=number)))
    asked = options(rule, test=data.draw(st.integers(0, number)), seed=seed)
    asked |= {"among": followed(among)}
    largest = images.largest_n(both, **asked)
    if not largest:
        return
    n = data.draw(st.integers(1, largest))
    for nested in (True, False):
        split = images.twins(both, n, nested=nested, **asked)
        sides = [split.a, split.b, split.test, *split.controls]
        of = [set(both.originals[side].tolist()) for side in sides]
        assert [len(side) for side in sides[:3]] == [n, n, asked["test"]]
        assert len(set().union(*of)) == sum(map(len, of))
    training, test = images.held_out(both, 1, seed=seed, **options(rule))
    assert not set(both.originals[training]) & set(both.originals[test])


def test_an_image_alone_is_refused():
    with pytest.raises(InputError, match="among: '000001/mirrored' comes without"):
        images.twins(with_mirrored(pictures(9)), 1, test=0, among=[0, 1, 3], by="random")


def test_images_are_mirrored_once():
    with pytest.raises(InputError, match="have mirrored copies already; leave augment out"):
        with_mirrored(with_mirrored(pictures(3)))


@settings(deadline=None, max_examples=60)
@given(
    st.integers(2, 24),
    st.integers(0, 2**16),
    st.sampled_from([2, 3, 256]),
    st.integers(1, 30),
    st.sampled_from([0.0, 0.5, 0.9]),
)
def test_near_duplicates_are_those_of_other_images_or_their_copies(
    number, seed, levels, block, threshold
):
    plain = pictures(number, seed, (1, 3, 3), levels)  # so small that nothing is reduced
    both = with_mirrored(plain)
    found = images.near_duplicates(both, threshold, block=block)
    rows = both[:].flatten(1).double()
    rows = rows - rows.mean(1, keepdim=True)
    norm = rows.norm(dim=1, keepdim=True)
    unit = torch.where(norm > 1e-9, rows / norm, 0.0)
    dense = (unit @ unit.T).numpy()
    equal = np.array(both.digests)[:, None] == np.array(both.digests)
    near = (dense > threshold) | equal
    near[both.originals[:, None] <= both.originals] = False
    sure = (abs(dense - threshold) > 1e-9).all(1)  # where rounding does not decide
    expected = near.any(1).reshape(-1, 2).any(1).repeat(2)
    sure = sure.reshape(-1, 2).all(1).repeat(2)
    np.testing.assert_array_equal(found.drop[sure], expected[sure])
    np.testing.assert_array_equal(found.drop[::2], found.drop[1::2])
    np.testing.assert_array_equal(found.drop, found.partner >= 0)
    dropped = np.flatnonzero(found.drop)
    assert (both.originals[found.partner[dropped]] < both.originals[dropped]).all()


def test_symmetric_images_stay_and_mirrored_repeats_go():
    symmetric = np.array([[1, 5, 1], [7, 2, 7], [0, 3, 0]], np.uint8)
    other = np.array([[9, 0, 1], [8, 0, 2], [9, 1, 0]], np.uint8)
    stack = np.stack([symmetric, other, other[:, ::-1]])[:, None]
    found = images.near_duplicates(with_mirrored(images.from_pixels(stack)))
    assert found.drop.tolist() == [False] * 4 + [True] * 2
    assert found.partner.tolist() == [-1] * 4 + [3, 2]


def test_the_coin_dealt_images_with_their_copies():
    both = with_mirrored(pictures(30))
    for rule in ("random", "label", "attribute"):
        split = images.twins(both, 5, test=4, **options(rule))
        deal = standards.dealt(both, rule, split)
        pool = [split.a, split.b]
        if rule == "attribute":
            pool = [split.a, split.controls[0], split.b, split.controls[1]]
        of = both.originals[np.concatenate(pool)]
        np.testing.assert_array_equal(deal.units[:, None] == deal.units, of[:, None] == of)
        sizes = np.bincount(deal.units)[deal.units]
        for stratum in np.unique(deal.strata):
            assert len(set(sizes[deal.strata == stratum])) == 1
        assert not deal.grouped


def test_dealing_pairs_keeps_memorisation_where_it_is():
    """The labels of a pair move together: with one pair on each side there are two deals."""
    deal = coin_toss.together(coin_toss.halves(2), np.array([4, 4, 9, 9]))
    assert deal.units.tolist() == [0, 0, 1, 1]
    assert deal.scores.tolist() == [0.5, 0.5, -0.5, -0.5]


def test_lists_that_part_copies_are_refused(tmp_path):
    both = with_mirrored(pictures(6))
    keep = np.arange(12)
    spec = transition.Spec(split=str(tmp_path), test=2)
    images.write_names(tmp_path, both, images.Twins(*map(np.array, ([0, 1], [2, 4], [3, 8]))))
    with pytest.raises(InputError, match=r"'000001' is listed in b.txt and '000001/mirrored' in t"):
        chosen_split.listed(spec, both, keep)
    split = images.Twins(*map(np.array, ([0, 1], [2, 3], [8, 9])))
    images.write_names(tmp_path, both, split)
    assert chosen_split.listed(spec, both, keep).b.tolist() == [2, 3]


def test_packed_files_keep_copies_together(tmp_path):
    both = with_mirrored(pictures(4))
    packed.write(tmp_path / "a.safetensors", both)
    for more in ("", ",size=2"):
        found = images.load(f"{tmp_path}/a.safetensors{more}")
        assert found.originals.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert images.load(f"{tmp_path}/a.safetensors").digest == both.digest
    deep = replace(images.from_pixels(np.ones((4, 1, 2, 2), np.float32)), originals=np.arange(4))
    assert packed.to_uint8(deep).originals.tolist() == [0, 1, 2, 3]


def test_an_audit_deals_copies_together():
    train, held_out = (replace(with_mirrored(pictures(3, k)), groups=None) for k in (0, 1))
    none = np.empty((0, 2), np.int64)
    found = units(Sets(train, train, held_out), none, none)
    np.testing.assert_array_equal(found.of, np.repeat(np.arange(6), 2))
    assert found.counts == (3, 3)
