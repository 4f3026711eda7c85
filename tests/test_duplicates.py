"""Near-duplicates against the dense computation in float64, and known counts."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from twinscore import images
from twinscore.errors import InputError
from twinscore.images import duplicates

SAME = 1e-12  # two float64 computations of a correlation differ by about 1e-15


def dense(first, second, size=20):
    """Compute the whole matrix of correlations, and which images are equal pixel by pixel."""
    side = min(size, *first.shape[1:], *second.shape[1:])
    units = []
    for image_set in (first, second):
        gray = image_set[:].double().mean(dim=1, keepdim=True)
        small = F.interpolate(gray, (side, side), mode="bilinear", antialias=True).flatten(1)
        centred = (small - small.mean(dim=1, keepdim=True)).numpy()
        norm = np.linalg.norm(centred, axis=1, keepdims=True)
        norm[norm < 1e-8] = np.inf
        units.append(centred / norm)
    equal = (first[:][:, None] == second[:]).flatten(2).all(dim=2).numpy()
    return units[0] @ units[1].T, equal


def agrees(found, correlation, equal, threshold):
    """Compare with the dense computation, except where rounding decides even in float64."""
    correlation = np.where(equal, 1.0, correlation)
    sure = (np.abs(correlation - threshold) > SAME).all(axis=1) | equal.any(axis=1)
    np.testing.assert_array_equal(
        found.drop[sure], ((correlation > threshold) | equal).any(axis=1)[sure]
    )
    np.testing.assert_array_equal(found.drop, found.partner >= 0)
    np.testing.assert_array_equal(found.drop, np.isfinite(found.correlation))
    rows = np.flatnonzero(found.drop)
    chosen = correlation[rows, found.partner[rows]]
    np.testing.assert_allclose(found.correlation[rows], chosen, rtol=0, atol=SAME)
    # float32 may prefer one that is less correlated by its rounding, 1e-7 times a few
    assert (chosen >= correlation[rows].max(axis=1) - 3e-6).all()
    for row, partner in zip(rows, found.partner[rows], strict=True):
        if equal[row].any():
            assert equal[row].argmax() == partner
        else:
            before = correlation[row, :partner]
            ties = (before >= found.correlation[row] - SAME) & (before > threshold + SAME)
            assert not ties.any()


def earlier(image_set, size=20):
    correlation, equal = dense(image_set, image_set, size)
    later = np.triu(np.ones_like(equal))
    return np.where(later, -1.0, correlation), equal & ~later.astype(bool)


def pictures(seed, number, levels, kind, shape=(1, 3, 3)):
    """Draw images with few levels, so that equal, constant and tied ones are common."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, levels, (number, *shape))
    if kind == "alike":  # one strong common part and weak differences
        pixels += 40 * rng.integers(0, 2, shape)
    if kind == "copies":
        pixels = pixels[rng.integers(0, max(1, number // 4), number)]
        pixels = pixels * rng.integers(1, 4, (number, 1, 1, 1)) + rng.integers(
            0, 9, (number, 1, 1, 1)
        )
    return pixels.astype(np.uint8)


cases = given(
    seed=st.integers(0, 2**16),
    number=st.integers(1, 40),
    levels=st.integers(1, 5),
    kind=st.sampled_from(["plain", "alike", "copies"]),
    block=st.integers(1, 50),
    threshold=st.sampled_from([0.0, 0.3, 0.5, 0.61, 0.8, 0.95, 0.999]),
)


def test_known_counts_on_digits():
    digits = images.load("digits")
    found = images.near_duplicates(digits)
    assert [x.shape for x in (found.drop, found.partner, found.correlation)] == [(1797,)] * 3
    assert (found.drop.dtype, found.partner.dtype) == (bool, np.int64)
    assert found.drop.sum() == 538
    assert images.near_duplicates(digits, threshold=0.98).drop.sum() == 23
    assert (found.correlation > 0.98).sum() == 23
    agrees(found, *earlier(digits), 0.95)
    again = images.near_duplicates(digits, block=100)
    np.testing.assert_array_equal(again.partner, found.partner)
    np.testing.assert_array_equal(again.correlation, found.correlation)


@settings(deadline=None)
@cases
def test_the_set_is_that_of_the_dense_computation(seed, number, levels, kind, block, threshold):
    drawn = images.from_pixels(pictures(seed, number, levels, kind))
    agrees(images.near_duplicates(drawn, threshold, block=block), *earlier(drawn), threshold)


@settings(deadline=None)
@cases
def test_two_sets_are_compared_as_the_dense_computation_does(
    seed, number, levels, kind, block, threshold
):
    both = images.from_pixels(pictures(seed, number + 12, levels, kind))
    first, second = both.take(range(number)), both.take(range(number, number + 12))
    found = images.near_duplicates(first, threshold, against=second, block=block)
    agrees(found, *dense(first, second), threshold)


@pytest.mark.parametrize("k", [0, 1, 2, 5, 16, 36])
@pytest.mark.parametrize("threshold", [0.2, 0.6, 0.9])
def test_the_bound_loses_no_pair_however_few_its_coordinates(monkeypatch, k, threshold):
    monkeypatch.setattr(duplicates, "_enough", lambda axes, *_: axes[:, :k])
    rng = np.random.default_rng(k)
    smooth = rng.normal(size=(300, 1, 2, 2)).repeat(3, axis=2).repeat(3, axis=3)
    pixels = (smooth + rng.normal(size=(300, 1, 6, 6))).astype(np.float32)
    pixels[200:] = 0.7 * pixels[:100] + 0.5 * pixels[200:]
    drawn = images.from_pixels((pixels - pixels.min()) / (pixels.max() - pixels.min()))
    correlation, equal = earlier(drawn)
    assert 5 < (correlation > threshold).any(axis=1).sum() < 300
    agrees(images.near_duplicates(drawn, threshold, block=64), correlation, equal, threshold)


def test_float64_decides_what_float32_cannot():
    """Correlations cos(angle) around a threshold, closer to it than float32 resolves."""
    first, second = np.array([1, -1, 0, 0]) / 2, np.array([0, 0, 1, -1]) / 2
    pixels = np.stack([first, 0.6 * first + 0.8 * second]).reshape(2, 1, 2, 2) / 2 + 0.5
    pair = images.from_pixels(pixels.astype(np.float32))
    exact = images.near_duplicates(pair, 0.5).correlation[1]
    assert exact == pytest.approx(0.6, abs=1e-6)
    for step in (1e-7, 1e-9, 1e-12):
        assert images.near_duplicates(pair, exact - step).drop.tolist() == [False, True]
        assert images.near_duplicates(pair, exact + step).drop.tolist() == [False, False]
    assert images.near_duplicates(pair, exact).drop.tolist() == [False, False]


def test_the_bound_takes_more_axes_the_more_similar_images_are():
    rng = np.random.default_rng(0)
    taken = []
    for common, threshold in ((0, 0.98), (30, 0.98), (100, 0.8)):
        x = rng.normal(size=(2048, 100))
        x[:, 0] += common  # correlations about 0, 0.9 and 0.99
        x = torch.from_numpy(x / np.linalg.norm(x, axis=1, keepdims=True))
        axes = torch.linalg.svd(x, full_matrices=False).Vh.T
        taken.append(duplicates._enough(axes, x[::2], x[1::2], threshold).shape[1])
    assert 0 < taken[0] < taken[1] < 100
    assert taken[2] == 0  # all pairs pass any bound: no bound is tried


def test_when_every_image_is_a_duplicate_the_first_is_every_partner():
    base = np.random.default_rng(0).random((1, 1, 5, 5)) / 2
    gain, shift = np.random.default_rng(1).random((2, 500, 1, 1, 1)) / 2
    pixels = ((0.5 + gain) * base + shift).astype(np.float32)
    found = images.near_duplicates(images.from_pixels(pixels), block=64)
    assert found.partner.tolist() == [-1] + [0] * 499
    np.testing.assert_allclose(found.correlation[1:], 1, rtol=0, atol=1e-9)  # float32 pixels


def test_an_image_near_a_dropped_one_is_dropped():
    angles = np.array([0.0, 0.25, 0.5])  # cosines .969 between neighbours, .878 between ends
    first, second = np.array([1, -1, 0, 0]) / 2, np.array([0, 0, 1, -1]) / 2
    plane = 0.5 + np.outer(np.cos(angles), first) + np.outer(np.sin(angles), second)
    chain = images.from_pixels(plane.reshape(3, 1, 2, 2).astype(np.float32))
    found = images.near_duplicates(chain)
    assert found.partner.tolist() == [-1, 0, 1]
    np.testing.assert_allclose(found.correlation[1:], np.cos(0.25), rtol=0, atol=1e-6)  # float32


def test_the_sign_of_the_correlation_counts():
    image = np.random.default_rng(0).integers(0, 256, (1, 1, 6, 6), dtype=np.uint8)
    pixels = np.concatenate([image, 255 - image, image // 2 + 40])
    assert images.near_duplicates(images.from_pixels(pixels)).partner.tolist() == [-1, -1, 0]


def test_constant_images_are_duplicates_only_of_their_equals():
    pixels = np.empty((4, 3, 30, 31), dtype=np.float32)
    pixels[:] = np.array([0.1, 0.3, 0.1, 0.7], dtype=np.float32)[:, None, None, None]
    found = images.near_duplicates(images.from_pixels(pixels), threshold=0.0)
    assert found.partner.tolist() == [-1, -1, 0, -1]
    assert found.correlation[2] == 1


def test_images_are_compared_at_low_resolution():
    smooth = np.repeat(np.repeat(np.random.default_rng(0).random((1, 1, 8, 8)), 8, 2), 8, 3)
    checker = np.indices((64, 64)).sum(axis=0) % 2 - 0.5
    pair = np.concatenate([smooth, smooth * 0.5 + 0.25 + 0.4 * checker]).clip(0, 1)
    pair = images.from_pixels(pair.astype(np.float32))
    assert images.near_duplicates(pair, size=8).drop.tolist() == [False, True]
    assert images.near_duplicates(pair, size=64).drop.tolist() == [False, False]


def test_two_sets_may_differ_in_shape_colour_and_packing():
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (5, 1, 6, 6), dtype=np.uint8)
    large = small.repeat(5, axis=2).repeat(5, axis=3).repeat(3, axis=1)[[3, 1]]
    found = images.near_duplicates(
        images.from_pixels(large),
        against=images.from_pixels(small / np.float32(255)),
        threshold=0.8,
    )
    assert found.partner.tolist() == [3, 1]
    # equal pixel by pixel counts for equal packing only; the correlation is 1 up to float32 pixels
    np.testing.assert_allclose(found.correlation, 1, rtol=0, atol=0.05)


def test_a_set_against_itself_repeats_itself():
    digits = images.load("digits").take(range(50))
    found = images.near_duplicates(digits, against=digits)
    assert found.partner.tolist() == list(range(50))
    assert (found.correlation == 1).all()


def test_images_are_read_in_chunks_and_progress_is_told():
    read, told = [], []

    def make(indices):
        read.append(len(indices))
        rng = np.random.default_rng(0)
        return rng.integers(0, 256, (1, 1, 256, 256), dtype=np.uint8)[[0] * len(indices)] // (
            1 + indices[:, None, None, None].astype(np.uint8)
        )

    lazy = images.LazyPixels((200, 1, 256, 256), np.dtype(np.uint8), make)
    found = images.near_duplicates(images.from_pixels(lazy), 0.9, block=64, report=told.append)
    assert max(read) == 128  # 2^23 pixels
    assert found.drop[1:20].all()
    assert told[-1] == 200
    assert told == sorted(told)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"threshold": 1.0}, "threshold: 1.0"),
        ({"threshold": float("nan")}, "threshold: nan"),
        ({"size": 0}, "size: 0"),
        ({"block": 0}, "block: 0"),
    ],
)
def test_options_out_of_range_are_refused(options, says):
    with pytest.raises(InputError, match=says):
        images.near_duplicates(images.from_pixels(np.zeros((2, 1, 2, 2), np.uint8)), **options)
