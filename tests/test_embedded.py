"""The sets that are installed with other packages."""

import numpy as np
import pytest

from twinscore import images
from twinscore.errors import InputError


def complaint(source):
    with pytest.raises(InputError) as caught:
        images.load(source)
    return str(caught.value)


def test_digits():
    digits = images.load("digits")
    assert (len(digits), digits.shape, digits.peak) == (1797, (1, 8, 8), 16)
    assert digits.labels[:10].tolist() == list(range(10))
    assert (digits[:].min().item(), digits[:].max().item()) == (0, 1)
    assert digits[0][0, 0].tolist() == [0, 0, 5 / 16, 13 / 16, 9 / 16, 1 / 16, 0, 0]
    assert len(set(digits.names)) == 1797


def test_resized_digits_are_not_rounded_to_their_17_levels():
    small = images.load("digits,size=4")
    assert (small.shape, small.pixels.dtype, small.peak) == ((1, 4, 4), np.float32, 1)
    assert len(np.unique(small.pixels)) > 1000
    assert small.mean()[0] == pytest.approx(images.load("digits").mean()[0], abs=0.02)


def test_photos_are_gray_patches_grouped_by_half_photograph():
    photos = images.load("photos")
    assert (len(photos), photos.shape, photos.peak) == (1570, (1, 32, 32), 255)
    assert len(set(photos.groups)) == 2 * 17
    assert photos.groups.count("astronaut/left") == photos.groups.count("astronaut/right") == 32
    assert len(set(photos.names)) == len(photos)
    assert photos.names[photos.groups.index("astronaut/left") + 10] == "astronaut/r01c02"
    photograph = [name.partition("/")[0] for name in photos.names]
    assert photograph == [group.partition("/")[0] for group in photos.groups]


def test_a_photo_patch_is_the_mean_of_2x2_pixels():
    import skimage.data

    camera = skimage.data.camera().astype(float)
    photos = images.load("photos,size=16")
    patch = photos.pixels[photos.names.index("camera/r02c03"), 0]
    source = camera[64:96, 96:128].reshape(16, 2, 16, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(patch, source, atol=0.5)


def test_photos_take_crop_and_refuse_what_does_not_fit():
    assert len(images.load("photos,crop=128")) == 17 * 4
    assert "no patch of size=900" in complaint("photos,size=900")
    assert "'photos': chelsea: crop=400 is larger" in complaint("photos,crop=400")


def test_a_photograph_that_is_not_installed_is_named(monkeypatch):
    from twinscore.images import embedded

    monkeypatch.setitem(embedded.PHOTOGRAPHS, "coins", ("skimage", "data/none.png"))
    assert "coins is not in the installed skimage" in complaint("photos")


def test_faces_are_the_faces_that_scikit_image_ships():
    import skimage.data

    faces = images.load("faces")
    assert (len(faces), faces.shape, faces.peak, faces.groups) == (100, (1, 25, 25), 255, None)
    shipped = skimage.data.lfw_subset()[:100]
    # rounding to 8 bits moves a pixel by half a level at most, float32 by less than 1e-7
    np.testing.assert_allclose(faces[:][:, 0], shipped, atol=0.5 / 255 + 1e-6)
    assert images.load("faces,size=20,crop=21").shape == (1, 20, 20)
    assert "'faces': crop=26 is larger" in complaint("faces,crop=26")


def test_faces_that_are_not_installed_are_named(monkeypatch):
    monkeypatch.setattr("twinscore.images.embedded._FACES", ("skimage", "data/none.npy"))
    assert "'faces': they are not in the installed skimage" in complaint("faces")


def test_textures_are_the_photos_of_three_surfaces():
    textures, photos = images.load("textures"), images.load("photos")
    assert (len(textures), textures.shape, textures.peak) == (192, (1, 32, 32), 255)
    assert textures.groups == ("brick",) * 64 + ("grass",) * 64 + ("gravel",) * 64
    assert textures.labels.tolist() == [0] * 64 + [1] * 64 + [2] * 64
    assert textures.names[64 + 10] == "grass/r01c02"
    known = dict(zip(photos.names, photos.digests, strict=True))
    assert textures.digests == tuple(known[name] for name in textures.names)
    assert "'textures': brick: crop=600 is larger" in complaint("textures,crop=600")
