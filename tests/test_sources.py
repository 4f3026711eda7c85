"""Source strings, image sets, crop and size."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from twinscore import images
from twinscore.errors import InputError
from twinscore.images import packed, sources
from twinscore.images.transforms import Options


def save(path, array, **kwargs):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **kwargs)
    return path


def gray(value, height=4, width=4, dtype=np.uint8):
    return np.full((height, width), value, dtype=dtype)


def complaint(source):
    with pytest.raises(InputError) as caught:
        images.load(str(source))
    message = str(caught.value)
    assert "\n" not in message
    return message


# the grammar


@settings(deadline=None)
@given(st.text() | st.text(alphabet="digtspho,=:/.\0\n szecrogay0123456789"))
def test_the_parser_raises_nothing_but_input_errors(text):
    try:
        _, body, options = images.parse(text)
    except InputError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert isinstance(options, Options)
        assert text.startswith((*sources.KINDS,)) or Path(body).exists()


def test_options_are_read():
    _, body, options = images.parse("digits,size=40, gray,crop=7,skip_corrupt=false")
    assert body == ""
    assert options == Options(size=40, crop=7, gray=True, skip_corrupt=False)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("digit", "did you mean 'digits'? sources are digits, faces, photos"),
        (
            "digits,grey",
            "did you mean 'gray'? options are augment, crop, first, gray, only, shuffle, size, ",
        ),
        ("digits,", "unknown option ''"),
        ("digits,size", "size=''"),
        ("digits,size=0", "size='0'"),
        ("digits,size=-3", "size='-3'"),
        ("digits,size=4.5", "size='4.5'"),
        ("digits,size=²", "size='²'"),
        ("digits,gray=yes", "is not true or false"),
        ("digits,size=4,size=5", "given twice"),
        ("digits,first=0", "first='0' is not a number of images; give 100, say"),
        ("digits,first=1798", "first=1798 is more than the 1797 images"),
        ("digits,only=missing.txt", "missing.txt: no such file"),
        ("digits,augment=flip", "augment='flip' is not a way to augment; give mirror"),
        ("digits,window=0:1", "unknown option 'window'"),
        ("hf:x,depth=17", "depth='17' is not a number of bits, 1 to 16; give 12, say"),
        ("hf:x,window=1", "window='1' is not LOW:HIGH, two numbers, the lower one first"),
        ("hf:x,window=5:5", "window='5:5' is not LOW:HIGH"),
        ("hf:x,window=0:inf", "window='0:inf' is not LOW:HIGH"),
        ("hf:x,window=-1e308:1e308", "is not LOW:HIGH"),
        ("hf:x,window=0:1,depth=12", "depth and window exclude each other; give window alone"),
        ("idy:t10k.gz", "neither a source of images nor an existing path"),
        ("missing/folder,gray", "'missing/folder' is neither"),
        ("", "neither"),
    ],
)
def test_wrong_strings_say_what_exists(source, says):
    assert says in complaint(source)


def test_names_win_over_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "digits" / "a.png", gray(51))
    assert len(images.load("digits")) == 1797
    assert images.load("./digits").names == ("a.png",)


def test_a_path_object_is_a_path_and_never_a_name(tmp_path, monkeypatch):
    save(tmp_path / "digits" / "a.png", gray(9))
    monkeypatch.chdir(tmp_path)
    for path in (Path("digits"), tmp_path / "digits"):
        assert images.load(path).digest == images.load(f"{tmp_path}/digits").digest
    with pytest.raises(InputError, match="nor an existing path"):
        images.load(Path("photos"))


def test_a_path_may_hold_commas(tmp_path):
    save(tmp_path / "faces,old" / "a.png", gray(51))
    assert images.load(f"{tmp_path}/faces,old,size=2").shape == (1, 2, 2)


@pytest.mark.parametrize("name", ["my,old", "a[1]", "a[1],b*c", "x,size=3"])
@pytest.mark.parametrize("kind", ["", "celeba:", "lsun:", "parquet:", "idx:", "hf:"])
def test_any_path_may_hold_commas_and_brackets(tmp_path, name, kind):
    (tmp_path / name).mkdir()
    found, body, options = images.parse(f"{kind}{tmp_path}/{name},size=2")
    assert (body, options.size) == (f"{tmp_path}/{name}", 2)
    assert found == (sources.KINDS[kind] if kind else sources._PATH)


@pytest.mark.parametrize("name", ["my,labels", "a[1],b"])
def test_the_path_of_labels_may_hold_commas_and_brackets(tmp_path, name):
    (tmp_path / name).touch()
    _, body, options = images.parse(f"idx:x,labels={tmp_path}/{name},gray")
    assert (body, options.extra["labels"], options.gray) == ("x", f"{tmp_path}/{name}", True)


def test_options_of_other_files_are_refused(tmp_path):
    save(tmp_path / "p" / "a.png", gray(3))
    np.save(tmp_path / "a.npy", np.zeros((2, 4, 4), np.uint8))
    packed.write(tmp_path / "a.safetensors", images.load(str(tmp_path / "p")))
    for source in ("p,layout=NHW", "p,key=x", "p/a.png,layout=HW", "a.npy,axis=0"):
        assert "is not for what this is; it takes" in complaint(tmp_path / source)
    assert "depth is not for what this is" in complaint(tmp_path / "a.safetensors,depth=4")


def test_a_new_kind_is_one_line_in_the_table(monkeypatch):
    def load(body, options):
        return images.from_pixels(np.zeros((1, 1, options.size, int(options.extra["alpha"]))))

    monkeypatch.setitem(sources.KINDS, "smooth:", sources.Kind(load, keys=("alpha",)))
    kind, body, options = images.parse("smooth:some body,alpha=2,size=3")
    assert (kind.load, body, options.size, options.extra) == (load, "some body", 3, {"alpha": "2"})
    assert images.parse("smooth:alpha=2,size=3")[1:] == ("", options)
    assert "options are alpha, augment, crop" in complaint("smooth:x,beta=1")


# image sets


def test_indexing_gives_float_batches_in_the_unit_interval():
    pixels = np.arange(24, dtype=np.uint8).reshape(6, 1, 2, 2)
    batch = images.from_pixels(pixels)
    expected = torch.from_numpy(pixels).float() / 255
    assert batch[2].shape == (1, 2, 2)
    torch.testing.assert_close(batch[2], expected[2], rtol=0, atol=0)
    for indices in ([3, 1], np.array([3, 1]), torch.tensor([3, 1])):
        torch.testing.assert_close(batch[indices], expected[[3, 1]], rtol=0, atol=0)
    torch.testing.assert_close(batch[1:3], expected[1:3], rtol=0, atol=0)
    torch.testing.assert_close(batch[np.arange(6) > 4], expected[5:], rtol=0, atol=0)
    assert batch[[]].shape == (0, 1, 2, 2)
    with pytest.raises(IndexError):
        batch[6]


def test_mean_is_per_channel_and_chunked(monkeypatch):
    monkeypatch.setattr("twinscore.images.imageset._CHUNK_PIXELS", 10)
    pixels = np.random.default_rng(0).integers(0, 256, (7, 3, 2, 2), dtype=np.uint8)
    expected = (pixels / 255).mean(axis=(0, 2, 3))
    assert images.from_pixels(pixels).mean() == pytest.approx(expected, rel=1e-13)


def test_digests_follow_content_shape_depth_and_peak(monkeypatch):
    pixels = np.zeros((3, 1, 2, 4), dtype=np.uint8)
    pixels[1, 0, 0, 0] = 1
    first = images.from_pixels(pixels)
    assert first.digests[0] == first.digests[2] != first.digests[1]
    assert first.digest == hashlib.sha256("".join(first.digests).encode()).hexdigest()
    assert images.from_pixels(pixels[[1, 0, 2]]).digest != first.digest
    assert images.from_pixels(pixels.reshape(3, 1, 4, 2)).digests[0] != first.digests[0]
    assert images.from_pixels(pixels.view(np.uint16)).digests[0] != first.digests[0]
    assert images.from_pixels(pixels, peak=16).digests[0] != first.digests[0]
    monkeypatch.setattr("twinscore.images.imageset._CHUNK_PIXELS", 8)
    assert images.from_pixels(pixels).digests == first.digests


def test_an_unpacked_or_mislabelled_set_is_refused():
    with pytest.raises(InputError, match="float64"):
        images.from_pixels(np.zeros((1, 1, 2, 2)))
    with pytest.raises(InputError, match="labels: 1 for 2 images"):
        images.from_pixels(np.zeros((2, 1, 2, 2), np.uint8), labels=np.zeros(1))


# crop and size


def test_crop_then_size_reduces_the_centre(tmp_path):
    image = np.zeros((8, 10), dtype=np.uint8)
    image[2:6, 3:7] = 200
    np.save(tmp_path / "a.npy", image[None])
    cropped = images.load(f"{tmp_path}/a.npy,crop=4")
    np.testing.assert_array_equal(cropped.pixels, np.full((1, 1, 4, 4), 200))
    zoomed = images.load(f"{tmp_path}/a.npy,crop=4,size=8")
    np.testing.assert_array_equal(zoomed.pixels, np.full((1, 1, 8, 8), 200))
    square = images.load(f"{tmp_path}/a.npy,size=8")
    np.testing.assert_array_equal(square.pixels[0, 0], image[:, 1:9])
    assert "crop=9 is larger than the image (8x10); give at most 8" in complaint(
        f"{tmp_path}/a.npy,crop=9"
    )


def test_cropping_and_resizing_back_to_the_same_shape_is_not_skipped(tmp_path):
    image = np.zeros((8, 8), dtype=np.uint8)
    image[2:6, 2:6] = 200
    np.save(tmp_path / "a.npy", image[None])
    zoomed = images.load(f"{tmp_path}/a.npy,crop=4,size=8")
    np.testing.assert_array_equal(zoomed.pixels, np.full((1, 1, 8, 8), 200))


def test_resizing_is_antialiased(tmp_path):
    board = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)
    np.save(tmp_path / "a.npy", board[None])
    small = images.load(f"{tmp_path}/a.npy,size=16").pixels
    assert small.dtype == np.uint8
    np.testing.assert_allclose(small, 127.5, atol=6)


def test_a_folder_and_its_array_have_the_same_digests(tmp_path):
    colours = np.random.default_rng(1).integers(0, 256, (3, 9, 7, 3), dtype=np.uint8)
    for k, image in enumerate(colours):
        save(tmp_path / "folder" / f"{k}.png", image)
    np.save(tmp_path / "a.npy", colours)
    for options in ("", ",gray,crop=6", ",size=4"):
        folder = images.load(f"{tmp_path}/folder{options}")
        assert folder.digests == images.load(f"{tmp_path}/a.npy{options}").digests


def test_a_list_and_a_number_choose_among_the_images(tmp_path):
    whole, listed = images.load("digits"), tmp_path / "a,b.txt"
    listed.write_text("".join(f"{whole.names[i]}\n" for i in (9, 2, 5)))
    chosen = images.load(f"digits,only={listed}")
    assert torch.equal(chosen[:], whole[[9, 2, 5]])
    assert chosen.labels.tolist() == whole.labels[[9, 2, 5]].tolist()
    first = images.load(f"digits,only={listed},first=2,augment=mirror,size=4")
    assert first.names == (whole.names[9], whole.names[2])
    assert images.load("digits,first=3").digests == whole.digests[:3]
    listed.write_text(f"{whole.names[9]}\n{whole.names[9]}\n")
    with pytest.raises(InputError, match=r"line 2: .* listed twice, first in a,b\.txt, line 1"):
        images.load(f"digits,only={listed}")


def test_a_name_that_hides_a_folder_says_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert images.load("digits").notes == ()
    (tmp_path / "digits").mkdir()
    assert images.load("digits").notes == (
        "digits is the built-in source; what lies here is ./digits",
    )
