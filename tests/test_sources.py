"""Source strings, image sets, arrays, crop and size."""

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from twinscore import images
from twinscore.errors import InputError
from twinscore.images import sources
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
        assert text.startswith(("digits", "photos")) or Path(body).exists()


def test_options_are_read():
    _, body, options = images.parse("digits,size=40, gray,crop=7,skip_corrupt=false")
    assert body == ""
    assert options == Options(size=40, crop=7, gray=True, skip_corrupt=False)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("digit", "did you mean 'digits'? sources are digits, faces, photos"),
        ("digits,grey", "did you mean 'gray'? options are crop, gray, size, skip_corrupt"),
        ("digits,", "unknown option ''"),
        ("digits,size", "size=''"),
        ("digits,size=0", "size='0'"),
        ("digits,size=-3", "size='-3'"),
        ("digits,size=4.5", "size='4.5'"),
        ("digits,size=²", "size='²'"),
        ("digits,gray=yes", "is not true or false"),
        ("digits,size=4,size=5", "given twice"),
        ("idx:t10k.gz", "neither a source of images nor an existing path"),
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


def test_a_path_may_hold_commas(tmp_path):
    save(tmp_path / "faces,old" / "a.png", gray(51))
    assert images.load(f"{tmp_path}/faces,old,size=2").shape == (1, 2, 2)


def test_a_new_kind_is_one_line_in_the_table(monkeypatch):
    def load(body, options):
        return images.from_pixels(np.zeros((1, 1, options.size, int(options.extra["alpha"]))))

    monkeypatch.setitem(sources.KINDS, "smooth:", sources.Kind(load, keys=("alpha",)))
    kind, body, options = images.parse("smooth:some body,alpha=2,size=3")
    assert (kind.load, body, options.size, options.extra) == (load, "some body", 3, {"alpha": "2"})
    assert images.parse("smooth:alpha=2,size=3")[1:] == ("", options)
    assert "options are alpha, crop" in complaint("smooth:x,beta=1")


# image sets


def test_indexing_gives_float_batches_in_the_unit_interval():
    pixels = np.arange(24, dtype=np.uint8).reshape(6, 1, 2, 2)
    batch = images.from_pixels(pixels)
    expected = torch.from_numpy(pixels).float() / 255
    assert batch[2].shape == (1, 1, 2, 2)
    torch.testing.assert_close(batch[2], expected[2:3], rtol=0, atol=0)
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


# arrays


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((2, 4, 5), (1, 4, 5)),
        ((2, 4, 5, 1), (1, 4, 5)),
        ((2, 4, 5, 3), (3, 4, 5)),
        ((2, 1, 4, 5), (1, 4, 5)),
        ((2, 3, 4, 5), (3, 4, 5)),
        ((2, 3, 4, 3), (3, 4, 3)),
    ],
)
def test_array_layouts(tmp_path, shape, expected):
    values = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    np.save(tmp_path / "a.npy", values)
    loaded = images.load(f"{tmp_path}/a.npy")
    assert (loaded.shape, len(loaded)) == (expected, 2)
    last = shape[-1] == expected[0] and shape[1:] != expected
    first = values.transpose(0, 3, 1, 2) if last else values
    torch.testing.assert_close(loaded[:], torch.from_numpy(first.reshape(2, *expected)) / 255)


@pytest.mark.parametrize(("dtype", "peak"), [("u1", 255), ("<u2", 65535), ("<f4", 1)])
def test_arrays_stay_memory_mapped_where_nothing_is_converted(tmp_path, dtype, peak):
    np.save(tmp_path / "a.npy", np.ones((3, 4, 4), dtype=dtype))
    loaded = images.load(f"{tmp_path}/a.npy,size=4,gray")
    assert isinstance(loaded.pixels, np.memmap)
    assert loaded.peak == peak
    assert loaded[[2, 0]].sum().item() == pytest.approx(32 / peak)


@pytest.mark.parametrize("dtype", [">u2", ">f4", "f8", "f2"])
def test_other_depths_are_converted(tmp_path, dtype):
    values = np.ones((3, 4, 4), dtype=dtype)
    np.save(tmp_path / "a.npy", values)
    np.save(tmp_path / "b.npy", values.astype("<u2" if dtype == ">u2" else "<f4"))
    loaded, native = images.load(f"{tmp_path}/a.npy"), images.load(f"{tmp_path}/b.npy")
    assert loaded.pixels.dtype == native.pixels.dtype
    assert loaded.digests == native.digests


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.zeros((4, 4)), r"shape (4, 4) holds no images"),
        (np.zeros((2, 4, 4, 4)), "holds no images"),
        (np.zeros((1, 1, 1, 4, 4)), "holds no images"),
        (np.zeros((0, 4, 4)), "the array is empty"),
        (np.zeros((4, 0, 4)), "the array is empty"),
        (np.zeros((1, 4, 4), dtype=np.int64), "int64 pixels; give uint8, uint16 or floats"),
        (np.zeros((1, 4, 4), dtype=bool), "bool pixels"),
        (np.zeros((1, 4, 4), dtype=complex), "complex128 pixels"),
        (np.array([[[None]]]), "not a readable array"),
        (np.full((1, 4, 4), np.nan), "holds NaN or infinity"),
        (np.full((1, 4, 4), np.inf), "holds NaN or infinity"),
        (np.full((1, 4, 4), 1.5), "floats from 1.5 to 1.5 are outside [0, 1]"),
        (np.full((1, 4, 4), -0.5), "are outside [0, 1]"),
    ],
)
@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_unusable_arrays_are_refused(tmp_path, array, says, suffix):
    path = tmp_path / f"a.{suffix}"
    np.savez(path, array) if suffix == "npz" else np.save(path, array)
    message = complaint(path)
    assert says in message
    assert str(path) in message


def test_a_bad_value_is_found_in_the_last_chunk(tmp_path, monkeypatch):
    monkeypatch.setattr("twinscore.images.imageset._CHUNK_PIXELS", 16)
    values = np.zeros((5, 4, 4), dtype=np.float32)
    values[4, 3, 3] = np.nan
    np.save(tmp_path / "a.npy", values)
    assert "NaN" in complaint(tmp_path / "a.npy")


def test_npz_takes_one_array_or_the_one_called_images(tmp_path):
    pixels = np.zeros((3, 4, 4), dtype=np.uint8)
    np.savez(tmp_path / "one.npz", faces=pixels, labels=np.array([4, 5, 6]))
    assert images.load(f"{tmp_path}/one.npz").labels.tolist() == [4, 5, 6]
    np.savez_compressed(tmp_path / "two.npz", images=pixels, mask=np.zeros(7))
    assert images.load(f"{tmp_path}/two.npz").labels is None
    np.savez(tmp_path / "three.npz", x=pixels, y=pixels)
    assert "holds 'x', 'y'; call the one with the images 'images'" in complaint(
        f"{tmp_path}/three.npz"
    )
    np.savez(tmp_path / "none.npz")
    assert "holds no array" in complaint(f"{tmp_path}/none.npz")
    np.savez(tmp_path / "short.npz", images=pixels, labels=np.zeros(2))
    assert "labels of shape (2,) for 3 images" in complaint(f"{tmp_path}/short.npz")


@settings(deadline=None)
@given(st.data())
def test_broken_array_files_raise_only_input_errors(tmp_path_factory, data):
    suffix = data.draw(st.sampled_from([".npy", ".npz"]))
    buffer = io.BytesIO()
    save_as = np.save if suffix == ".npy" else np.savez_compressed
    save_as(buffer, np.zeros((2, 3, 3), dtype=np.uint8))
    content = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("broken") / f"a{suffix}"
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        images.load(str(path))
    except InputError as error:
        assert str(path) in str(error)  # noqa: PT017
