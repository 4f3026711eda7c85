"""Source strings, folders, arrays, and the two embedded sets."""

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


# folders


def test_a_folder_is_read_recursively_in_path_order(tmp_path):
    save(tmp_path / "b.png", gray(51))
    save(tmp_path / "a" / "z.PGM", gray(102))
    save(tmp_path / "a.bmp", gray(153))
    save(tmp_path / ".hidden" / "h.png", gray(0))
    save(tmp_path / "._b.png", gray(0))
    (tmp_path / "notes.txt").write_text("not a picture")
    loaded = images.load(str(tmp_path))
    assert loaded.names == ("a.bmp", "a/z.PGM", "b.png")
    assert loaded[:].amax(dim=(1, 2, 3)).tolist() == pytest.approx([0.6, 0.4, 0.2])
    assert (loaded.shape, loaded.peak, loaded.labels, loaded.groups) == ((1, 4, 4), 255, None, None)


@pytest.mark.parametrize("suffix", ["png", "webp", "tif", "tiff", "ppm", "bmp"])
def test_lossless_colour_formats_keep_every_pixel(tmp_path, suffix):
    colours = np.random.default_rng(0).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    save(tmp_path / f"a.{suffix}", colours, **({"lossless": True} if suffix == "webp" else {}))
    loaded = images.load(str(tmp_path))
    np.testing.assert_array_equal(loaded.pixels[0], colours.transpose(2, 0, 1))


def test_jpeg_is_read_nearly(tmp_path):
    save(tmp_path / "a.jpg", gray(128, 8, 8), quality=95)
    assert images.load(str(tmp_path))[0].mean().item() == pytest.approx(128 / 255, abs=0.01)


@pytest.mark.parametrize("suffix", ["png", "tiff", "pgm"])
def test_sixteen_bits_keep_their_depth(tmp_path, suffix):
    levels = np.array([[0, 1, 257], [40000, 65534, 65535]], dtype=np.uint16)
    save(tmp_path / f"a.{suffix}", levels)
    loaded = images.load(str(tmp_path))
    assert (loaded.pixels.dtype, loaded.peak) == (np.uint16, 65535)
    np.testing.assert_array_equal(loaded.pixels[0, 0], levels)
    torch.testing.assert_close(loaded[0][0, 0], torch.from_numpy(levels / 65535).float())


def test_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after turning clockwise by 90 degrees
    save(tmp_path / "a.png", np.array([[10, 20, 30]], dtype=np.uint8), exif=exif)
    np.testing.assert_array_equal(images.load(str(tmp_path)).pixels[0, 0], [[10], [20], [30]])


def test_alpha_palette_and_cmyk_become_rgb(tmp_path):
    save(tmp_path / "a.png", np.array([[[200, 0, 0, 255], [9, 9, 9, 0]]], dtype=np.uint8))
    palette = Image.fromarray(np.array([[[0, 0, 255], [0, 255, 0]]], dtype=np.uint8))
    palette.convert("P", palette=Image.Palette.ADAPTIVE).save(tmp_path / "b.png")
    Image.new("CMYK", (2, 1), (0, 255, 255, 0)).save(tmp_path / "c.tif")
    first, second, third = images.load(str(tmp_path)).pixels.transpose(0, 2, 3, 1)[:, 0]
    np.testing.assert_array_equal(first, [[200, 0, 0], [255, 255, 255]])
    np.testing.assert_array_equal(second, [[0, 0, 255], [0, 255, 0]])
    np.testing.assert_array_equal(third, [[255, 0, 0]] * 2)


def test_gray_with_alpha_stays_gray(tmp_path):
    Image.new("LA", (2, 2), (80, 255)).save(tmp_path / "a.png")
    np.testing.assert_array_equal(images.load(str(tmp_path)).pixels, np.full((1, 1, 2, 2), 80))


def test_gray_is_the_luma(tmp_path):
    save(tmp_path / "a.png", np.array([[[255, 0, 0], [0, 255, 0], [10, 20, 30]]], dtype=np.uint8))
    save(tmp_path / "b.png", gray(7, 1, 3))
    assert "'a.png' and 'b.png' mix gray and colour" in complaint(tmp_path)
    loaded = images.load(f"{tmp_path},gray")
    np.testing.assert_array_equal(loaded.pixels[:, 0, 0], [[76, 150, 18], [7, 7, 7]])


def test_mixed_sizes_name_the_first_two_that_differ(tmp_path):
    save(tmp_path / "a.png", gray(1))
    save(tmp_path / "b.png", gray(1))
    save(tmp_path / "c.png", gray(1, 6, 3))
    message = complaint(tmp_path)
    assert "'a.png' and 'c.png' differ in size (4x4 and 6x3); add size=3" in message
    assert images.load(f"{tmp_path},size=3").shape == (1, 3, 3)


def test_mixed_depths_are_refused(tmp_path):
    save(tmp_path / "a.png", gray(1))
    save(tmp_path / "b.png", gray(1, dtype=np.uint16))
    assert "differ in depth (uint8 and uint16)" in complaint(tmp_path)


def test_missing_empty_and_other_paths_are_refused(tmp_path):
    assert "nor an existing path" in complaint(tmp_path / "missing")
    assert "no image in this folder" in complaint(tmp_path)
    (tmp_path / "a.txt").write_text("x")
    assert "give a folder, a .npy or a .npz file" in complaint(tmp_path / "a.txt")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    assert "gone.png': cannot be read" in complaint(tmp_path)


def test_corrupt_files_stop_the_load_or_are_listed(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (40, 40), dtype=np.uint8)
    whole = save(tmp_path / "b.png", noise).read_bytes()
    (tmp_path / "a.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "c.jpg").write_bytes(b"")
    assert "a.png': cannot be decoded" in complaint(tmp_path)
    loaded = images.load(f"{tmp_path},skip_corrupt")
    assert (loaded.names, loaded.skipped) == (("b.png",), ("a.png", "c.jpg"))
    np.testing.assert_array_equal(loaded.pixels, noise[None, None])
    (tmp_path / "b.png").unlink()
    assert "all 2 images are corrupt" in complaint(f"{tmp_path},skip_corrupt")


@pytest.mark.parametrize("limit", [10, 100])
def test_decompression_bombs_are_refused(tmp_path, monkeypatch, limit):
    save(tmp_path / "a.png", gray(0, 12, 12))
    monkeypatch.setattr("twinscore.images.files.MAX_PIXELS", limit)
    assert "too many pixels" in complaint(f"{tmp_path},skip_corrupt")


def test_float_pictures_are_refused(tmp_path):
    save(tmp_path / "a.tif", gray(0.5, dtype=np.float32))
    assert "pixels are float32; give 8 or 16 bits" in complaint(tmp_path)


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


# embedded sets


def test_digits():
    digits = images.load("digits")
    assert (len(digits), digits.shape, digits.peak) == (1797, (1, 8, 8), 16)
    assert digits.labels[:10].tolist() == list(range(10))
    assert (digits[:].min().item(), digits[:].max().item()) == (0, 1)
    assert digits[0][0, 0, 0].tolist() == [0, 0, 5 / 16, 13 / 16, 9 / 16, 1 / 16, 0, 0]
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
