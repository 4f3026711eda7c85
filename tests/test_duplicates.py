"""Near-duplicate removal against the dense computation and known counts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twinscore import images
from twinscore.errors import InputError


def dense(pixels, threshold):
    """Compute the whole N x N matrix of correlations, and whether one is too close to call."""
    flat = pixels.mean(axis=1).reshape(len(pixels), -1).astype(np.float64)
    centred = flat - flat.mean(axis=1, keepdims=True)
    norm = np.linalg.norm(centred, axis=1)
    norm[norm < 1e-6] = np.inf
    correlation = centred @ centred.T / np.outer(norm, norm)
    equal = (flat[:, None] == flat[None]).all(axis=2)
    earlier = np.tril(np.ones_like(equal), -1)
    drop = (((correlation > threshold) | equal) & earlier).any(axis=1)
    return drop, bool((np.abs(correlation - threshold) < 1e-5).any())


def test_known_counts_on_digits():
    digits = images.load("digits")
    drop = images.near_duplicates(digits)
    assert (drop.shape, drop.dtype) == ((1797,), bool)
    assert drop.sum() == 538
    assert images.near_duplicates(digits, threshold=0.98).sum() == 23
    np.testing.assert_array_equal(images.near_duplicates(digits, block=100), drop)


@settings(deadline=None)
@given(
    seed=st.integers(0, 2**16),
    number=st.integers(1, 40),
    levels=st.integers(1, 4),
    block=st.integers(1, 50),
    threshold=st.sampled_from([0.3, 0.61, 0.95]),
)
def test_blocks_equal_the_dense_computation(seed, number, levels, block, threshold):
    pixels = np.random.default_rng(seed).integers(0, levels, (number, 1, 3, 3), dtype=np.uint8)
    expected, too_close_to_call = dense(pixels, threshold)
    if not too_close_to_call:
        found = images.near_duplicates(images.from_pixels(pixels), threshold, block=block)
        np.testing.assert_array_equal(found, expected)


def test_an_image_near_a_dropped_one_is_dropped():
    angles = np.array([0.0, 0.25, 0.5])  # cosines .969 between neighbours, .878 between ends
    first, second = np.array([1, -1, 0, 0]) / 2, np.array([0, 0, 1, -1]) / 2
    plane = 0.5 + np.outer(np.cos(angles), first) + np.outer(np.sin(angles), second)
    chain = images.from_pixels(plane.reshape(3, 1, 2, 2).astype(np.float32))
    assert images.near_duplicates(chain).tolist() == [False, True, True]


def test_the_sign_of_the_correlation_counts():
    image = np.random.default_rng(0).integers(0, 256, (1, 1, 6, 6), dtype=np.uint8)
    pixels = np.concatenate([image, 255 - image, image // 2 + 40])
    assert images.near_duplicates(images.from_pixels(pixels)).tolist() == [False, False, True]


def test_constant_images_are_duplicates_only_of_their_equals():
    pixels = np.empty((4, 3, 30, 31), dtype=np.float32)
    pixels[:] = np.array([0.1, 0.3, 0.1, 0.7], dtype=np.float32)[:, None, None, None]
    found = images.near_duplicates(images.from_pixels(pixels))
    assert found.tolist() == [False, False, True, False]


def test_images_are_compared_at_low_resolution():
    smooth = np.repeat(np.repeat(np.random.default_rng(0).random((1, 1, 8, 8)), 8, 2), 8, 3)
    checker = np.indices((64, 64)).sum(axis=0) % 2 - 0.5
    pair = np.concatenate([smooth, smooth * 0.5 + 0.25 + 0.4 * checker]).clip(0, 1)
    pair = images.from_pixels(pair.astype(np.float32))
    assert images.near_duplicates(pair, size=8).tolist() == [False, True]
    assert images.near_duplicates(pair, size=64).tolist() == [False, False]


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
