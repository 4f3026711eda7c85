"""Image sets over every kind of pixels."""

import numpy as np
import pytest
import torch

from twinscore.errors import InputError
from twinscore.images import LazyPixels, from_pixels
from twinscore.images.imageset import chunks

STORED = np.random.default_rng(0).integers(0, 256, (7, 3, 4, 5), dtype=np.uint8)
ATTRIBUTES = {"smiling": np.arange(7) % 2 == 0}


def held(kind, tmp_path):
    if kind == "array":
        return STORED
    if kind == "memory map":
        np.save(tmp_path / "a.npy", STORED)
        return np.load(tmp_path / "a.npy", mmap_mode="r")
    return LazyPixels(STORED.shape, STORED.dtype, lambda rows: STORED[rows])


@pytest.mark.parametrize("kind", ["array", "memory map", "lazy"])
def test_images_are_the_same_however_their_pixels_are_held(kind, tmp_path):
    images = from_pixels(held(kind, tmp_path), attributes=ATTRIBUTES)
    plain = from_pixels(STORED)
    assert images.digests == plain.digests
    assert images.mean() == plain.mean()
    mask = np.array([True, False, False, True, False, False, True])
    for indices in (3, -1, slice(1, 6, 2), [4, 0, 0], [], mask, torch.tensor([2, 6])):
        torch.testing.assert_close(images[indices], plain[indices], rtol=0, atol=0)
    for i in (3, -1, np.int64(3), torch.tensor(3)):
        assert images[i].shape == (3, 4, 5)
        torch.testing.assert_close(images[i], plain[[int(i)]][0], rtol=0, atol=0)
    with pytest.raises(IndexError):
        images[7]
    part = images.take([6, 0, 3])
    torch.testing.assert_close(part[[0, 2]], plain[[6, 3]], rtol=0, atol=0)
    assert part.digests == tuple(plain.digests[i] for i in (6, 0, 3))
    assert part.attributes["smiling"].tolist() == [True, True, False]


def test_taking_from_a_lazy_set_reads_nothing():
    read = []
    pixels = LazyPixels(STORED.shape, STORED.dtype, lambda rows: read.append(rows) or STORED[rows])
    images = from_pixels(pixels)
    read.clear()
    part = images.take([5, 2, 4])
    assert read == []
    assert torch.equal(part[1:], torch.from_numpy(STORED[[2, 4]] / np.float32(255)))
    assert np.concatenate(read).tolist() == [2, 4]


def test_an_attribute_has_one_value_an_image():
    with pytest.raises(InputError, match="attribute smiling: 3 for 7 images"):
        from_pixels(STORED, attributes={"smiling": np.ones(3, dtype=bool)})


def test_chunks_cover_everything_in_order():
    pixels = LazyPixels((10, 3, 2000, 1500), np.dtype(np.uint8), lambda rows: STORED[rows])
    slices = list(chunks(pixels))
    assert [i for s in slices for i in range(s.start, s.stop)] == list(range(10))
    assert len(slices) == 10
