"""Images in .npy, .npz, .safetensors and .pt files."""

import io
import tracemalloc
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from twinscore import images
from twinscore.errors import InputError
from twinscore.images import stored
from twinscore.images.mapping import MappedPixels


def complaint(source):
    with pytest.raises(InputError) as caught:
        images.load(str(source))
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((2, 4, 5), (1, 4, 5)),
        ((2, 4, 5, 1), (1, 4, 5)),
        ((2, 4, 5, 3), (3, 4, 5)),
        ((2, 1, 4, 5), (1, 4, 5)),
        ((2, 3, 4, 5), (3, 4, 5)),
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
    np.save(tmp_path / "a.npy", np.ones((5, 4, 4), dtype=dtype))
    loaded = images.load(f"{tmp_path}/a.npy,size=4,gray")
    assert isinstance(loaded.pixels, MappedPixels)
    assert loaded.peak == peak
    assert loaded[[2, 0]].sum().item() == pytest.approx(32 / peak)


@pytest.mark.parametrize("dtype", [">u2", ">f4", "f8", "f2"])
def test_other_depths_are_converted(tmp_path, dtype):
    values = np.ones((5, 4, 4), dtype=dtype)
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
        (np.zeros((1, 4, 4), dtype=np.int64), "int64 pixels from 0 to 0; add window=LOW:HIGH"),
        (np.zeros((1, 4, 4), dtype=bool), "bool pixels"),
        (np.zeros((1, 4, 4), dtype=complex), "complex128 pixels"),
        (np.array([[[None]]]), "cannot be read"),
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
    np.savez_compressed(tmp_path / "two.npz", images=pixels[:2], mask=np.zeros(7))
    assert images.load(f"{tmp_path}/two.npz").labels is None
    np.savez(tmp_path / "three.npz", x=pixels, y=pixels)
    assert "holds 'x', 'y'; add key=NAME, or call the one with the images 'images'" in complaint(
        f"{tmp_path}/three.npz"
    )
    np.savez(tmp_path / "none.npz")
    assert "holds no array" in complaint(f"{tmp_path}/none.npz")
    np.savez(tmp_path / "short.npz", images=pixels[:2], labels=np.zeros(3))
    assert "labels of shape (3,) for 2 images" in complaint(f"{tmp_path}/short.npz")


SAVE = {
    "npy": lambda path, arrays: np.save(path, arrays["images"]),
    "npz": lambda path, arrays: np.savez(path, **arrays),
    "compressed.npz": lambda path, arrays: np.savez_compressed(path, **arrays),
    "safetensors": lambda path, arrays: save_file(arrays, path),
    "pt": lambda path, arrays: torch.save(
        {name: torch.from_numpy(array) for name, array in arrays.items()}, path
    ),
}
MAPPED = [suffix for suffix in SAVE if suffix != "compressed.npz"]
PIXELS = np.random.default_rng(0).integers(0, 256, (5, 4, 6, 3), dtype=np.uint8)


def stored_as(suffix, folder, **arrays):
    path = folder / f"a.{suffix}"
    SAVE[suffix](path, {name: np.ascontiguousarray(array) for name, array in arrays.items()})
    return path


@pytest.mark.parametrize("suffix", SAVE)
@pytest.mark.parametrize("dtype", ["u1", "u2", "f4", "f8"])
def test_every_format_holds_the_same_images(tmp_path, suffix, dtype):
    values = PIXELS.astype(dtype) / (255 if dtype[0] == "f" else 1)
    path = stored_as(suffix, tmp_path, images=values.astype(dtype))
    np.save(tmp_path / "plain.npy", values.astype({"f8": "f4"}.get(dtype, dtype)))
    for options in ("", ",gray,size=3"):
        loaded = images.load(f"{path}{options}")
        assert loaded.digests == images.load(f"{tmp_path}/plain.npy{options}").digests


@pytest.mark.parametrize("suffix", [suffix for suffix in SAVE if suffix != "npy"])
def test_labels_come_from_the_same_file(tmp_path, suffix):
    labels = np.array([4, 5, 6, 5, 4], dtype=np.int32)
    loaded = images.load(str(stored_as(suffix, tmp_path, images=PIXELS, labels=labels)))
    assert loaded.labels.tolist() == [4, 5, 6, 5, 4]
    assert loaded.labels.dtype == np.int64
    short = stored_as(suffix, tmp_path, images=PIXELS, labels=labels[:3])
    assert "labels of shape (3,) for 5 images; give one per image" in complaint(short)
    real = stored_as(suffix, tmp_path, images=PIXELS, labels=labels / 2)
    assert "float64 labels; give whole numbers" in complaint(real)


@pytest.mark.parametrize("suffix", [suffix for suffix in SAVE if suffix != "npy"])
def test_of_several_arrays_the_one_called_images_or_shaped_like_images_is_taken(tmp_path, suffix):
    mask = np.zeros(7, dtype=np.uint8)
    named = stored_as(suffix, tmp_path, images=PIXELS, other=PIXELS[:1])
    assert len(images.load(str(named))) == 5
    shaped = stored_as(suffix, tmp_path, mask=mask, faces=PIXELS)
    assert len(images.load(str(shaped))) == 5
    for arrays in ({"x": PIXELS, "y": PIXELS}, {"x": mask, "y": mask}):
        path = stored_as(suffix, tmp_path, **arrays)
        assert (
            "holds 'x', 'y'; add key=NAME, or call the one with the images 'images'"
            in complaint(path)
        )


@pytest.mark.parametrize("suffix", MAPPED)
@pytest.mark.parametrize("dtype", ["u1", "f4", "f8"])
@pytest.mark.parametrize("shape", [(64, 64, 64), (64, 3, 64, 64), (64, 64, 64, 3)])
def test_uncompressed_arrays_are_never_held_whole(tmp_path, monkeypatch, suffix, dtype, shape):
    monkeypatch.setattr("twinscore.images.imageset._CHUNK_PIXELS", 2**13)
    values = np.zeros(shape, dtype=dtype)
    path = stored_as(suffix, tmp_path, images=values)
    images.load(str(path))  # imports
    tracemalloc.start()
    try:
        loaded = images.load(str(path))
        part = loaded.take(np.arange(63))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert part[[62]].shape == (1, *loaded.shape)
    # a chunk of one or two images, its copies, and some 30 kB of names, digests and headers
    assert peak < values.nbytes / 4 + 50_000


def test_a_tensor_alone_is_the_images(tmp_path):
    torch.save(torch.from_numpy(PIXELS).requires_grad_(False), tmp_path / "a.pth")
    np.save(tmp_path / "a.npy", PIXELS)
    assert images.load(f"{tmp_path}/a.pth").digests == images.load(f"{tmp_path}/a.npy").digests


def test_a_strided_tensor_keeps_its_order(tmp_path):
    turned = torch.from_numpy(PIXELS).permute(0, 2, 1, 3)
    torch.save(turned, tmp_path / "a.pt")
    np.testing.assert_array_equal(
        images.load(f"{tmp_path}/a.pt").pixels[:], turned.numpy().transpose(0, 3, 1, 2)
    )


class Planted:
    """What a pickle would run."""

    def __reduce__(self):
        return (pytest.fail, ("it ran",))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (Planted(), "holds something other than tensors; save a tensor, or a dict"),
        ([torch.zeros(2, 3, 3)], "it holds a list"),
        ({"images": "none"}, "holds no array"),
        (torch.zeros(1).expand(10**12, 4, 4), "repeats fewer numbers"),
        (torch.zeros(2, 4, 4, dtype=torch.bfloat16), "BFloat16"),
        (torch.zeros(2, 4, 4, dtype=torch.int64), "int64 pixels"),
        (torch.zeros(2, 4, 4).to_sparse(), "holds something other than tensors"),
    ],
)
def test_other_contents_of_torch_files_are_refused(tmp_path, content, says):
    torch.save(content, tmp_path / "a.pt")
    assert says in complaint(tmp_path / "a.pt")


def test_old_and_compressed_torch_files_are_refused(tmp_path):
    torch.save(torch.zeros(2, 4, 4), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert "with torch.save" in complaint(tmp_path / "old.pt")
    torch.save(torch.zeros(2, 4, 4), tmp_path / "a.pt")
    with (
        zipfile.ZipFile(tmp_path / "a.pt") as whole,
        zipfile.ZipFile(tmp_path / "b.pt", "w", zipfile.ZIP_DEFLATED) as compressed,
    ):
        for name in whole.namelist():
            compressed.writestr(name, whole.read(name))
    assert "it is compressed" in complaint(tmp_path / "b.pt")


def npy_bytes(array, shape=None):
    buffer = io.BytesIO()
    header = {"descr": array.dtype.str, "fortran_order": False, "shape": shape or array.shape}
    np.lib.format.write_array_header_1_0(buffer, header)
    return buffer.getvalue() + array.tobytes()


@pytest.mark.parametrize("suffix", ["npy", "npz"])
@pytest.mark.parametrize("shape", [(10**6, 10**4, 10**4), (5, 4, 7, 3), (4, 4, 6, 3), (-5, 4, 6)])
def test_a_header_that_does_not_fit_its_file_is_refused(tmp_path, suffix, shape):
    content = npy_bytes(PIXELS, shape)
    path = tmp_path / f"a.{suffix}"
    if suffix == "npz":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("images.npy", content)
    else:
        path.write_bytes(content)
    assert ("its shape is" if shape[0] < 0 else "its header declares") in complaint(path)


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "a.npz", np.zeros((100, 100, 100), dtype=np.uint8))
    monkeypatch.setattr(stored, "MAX_UNPACKED", 10**6)
    assert len(images.load(f"{tmp_path}/a.npz")) == 100
    monkeypatch.setattr(stored, "MAX_UNPACKED", 10**6 - 1)
    assert "unpacks to 1000000 bytes, at most 999999 are held" in complaint(tmp_path / "a.npz")


def test_an_endless_header_in_an_archive_is_not_read(tmp_path):
    head = b"\x93NUMPY\x02\x00" + (2**31).to_bytes(4, "little")
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images.npy", head + b" " * 2**24)
    tracemalloc.start()
    try:
        assert "cannot be read" in complaint(tmp_path / "a.npz")
        assert tracemalloc.get_traced_memory()[1] < 2**23  # half of what the header unpacks to
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["../images.npy"], "'../images.npy' points out of the archive"),
        (["/images.npy"], "points out of the archive"),
        (["a\\images.npy"], "points out of the archive"),
        (["images.txt"], "'images.txt' is not a .npy"),
        (["images.npy", "images.npy"], "it holds 'images' twice"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_members_that_numpy_does_not_write_are_refused(tmp_path, names, says):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        for name in names:
            archive.writestr(name, npy_bytes(PIXELS))
    assert says in complaint(tmp_path / "a.npz")


def test_other_compressions_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("images.npy", npy_bytes(PIXELS))
    assert "is compressed, but not with deflate" in complaint(tmp_path / "a.npz")


def test_a_tensor_of_another_depth_is_named(tmp_path):
    from safetensors.torch import save_file as save_tensors

    save_tensors({"images": torch.zeros(2, 4, 4, dtype=torch.bfloat16)}, tmp_path / "a.safetensors")
    assert "its tensor 'images' is BF16" in complaint(tmp_path / "a.safetensors")


@pytest.mark.parametrize("suffix", SAVE)
def test_truncated_extended_and_foreign_files_are_refused(tmp_path, suffix):
    path = stored_as(suffix, tmp_path, images=PIXELS)
    whole = path.read_bytes()
    for content in (b"", b"\0" * 100, b"GIF89a", whole[:7], whole[: len(whole) // 2], whole[:-1]):
        path.write_bytes(content)
        assert repr(str(path)) in complaint(path)
    if not suffix.endswith(("npz", "pt")):  # a zip file may be followed by anything
        path.write_bytes(whole + b"x")
        assert repr(str(path)) in complaint(path)


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_broken_array_files_raise_only_input_errors(tmp_path_factory, data):
    suffix = data.draw(st.sampled_from(list(SAVE)))
    folder = tmp_path_factory.mktemp("broken")
    path = stored_as(suffix, folder, images=np.zeros((2, 3, 3), dtype=np.uint8))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        images.load(str(path))
    except InputError as error:
        assert str(path) in str(error)  # noqa: PT017
        assert "\n" not in str(error)  # noqa: PT017


@settings(deadline=None)
@given(st.binary(max_size=300), st.sampled_from(["npy", "safetensors"]))
def test_any_header_raises_only_input_errors(tmp_path_factory, text, suffix):
    path = tmp_path_factory.mktemp("header") / f"a.{suffix}"
    length = len(text).to_bytes(8 if suffix == "safetensors" else 2, "little")
    path.write_bytes((b"" if suffix == "safetensors" else b"\x93NUMPY\x01\x00") + length + text)
    assert str(path) in complaint(path)


def test_samples_of_a_model_are_read_clipped_and_counted(tmp_path):
    samples = np.linspace(-0.6, 1.4, 3 * 16, dtype=np.float32).reshape(3, 1, 4, 4)
    np.savez(tmp_path / "s.npz", samples=samples, seeds=np.arange(3))
    found = images.load(str(tmp_path / "s.npz"))
    np.testing.assert_array_equal(found[:].numpy(), samples.clip(0, 1))
    beyond = int(((samples < 0) | (samples > 1)).sum())
    assert f"{beyond} pixels" in found.notes[0]
    np.savez(tmp_path / "other.npz", samples=samples)
    with pytest.raises(InputError, match=r"floats from -0.6\d* to 1.4\d* are outside"):
        images.load(str(tmp_path / "other.npz"))


@pytest.mark.parametrize(("value", "read"), [(1.0000001, 1), (-1e-7, 0), (1 + 1e-5, 1)])
def test_rounding_beyond_the_ends_is_clipped(tmp_path, value, read):
    pixels = np.full((2, 4, 4), 0.5)
    pixels[1, 2, 3] = value
    np.save(tmp_path / "a.npy", pixels)
    found = images.load(str(tmp_path / "a.npy"))
    assert found[1][0, 2, 3] == read
    assert found.notes == ()
    pixels[1, 2, 3] = value + 1e-4 * np.sign(value)
    np.save(tmp_path / "a.npy", pixels)
    with pytest.raises(InputError, match=r"are outside \[0, 1\]"):
        images.load(str(tmp_path / "a.npy"))


@pytest.mark.parametrize("shape", [(16, 16, 3), (16, 16, 1), (3, 16, 16), (3, 1, 9), (40, 3, 8)])
def test_one_picture_is_not_taken_for_many(tmp_path, shape):
    np.save(tmp_path / "a.npy", np.full(shape, 0.5))
    with pytest.raises(
        InputError, match=r"is either .* gray images of .*, or one (gray|colour) picture of"
    ):
        images.load(str(tmp_path / "a.npy"))


# which axis is which


@pytest.mark.parametrize(
    ("layout", "order"),
    [
        ("NHWC", (0, 3, 1, 2)),
        ("NCHW", (0, 1, 2, 3)),
        ("HWCN", (3, 2, 0, 1)),
        ("CWHN", (3, 0, 2, 1)),
    ],
)
def test_a_layout_names_the_axes(tmp_path, layout, order):
    lengths = {"N": 5, "C": 3, "H": 6, "W": 7}
    shape = [lengths[axis] for axis in layout]
    values = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    np.save(tmp_path / "a.npy", values)
    loaded = images.load(f"{tmp_path}/a.npy,layout={layout}")
    np.testing.assert_array_equal(loaded.pixels[:], values.transpose(order))


@pytest.mark.parametrize(
    ("shape", "layout", "expected"),
    [
        ((16, 16, 3), "HWC", (1, 3, 16, 16)),
        ((16, 16, 3), "NHW", (16, 1, 16, 3)),
        ((16, 16, 3), "HWN", (3, 1, 16, 16)),
        ((3, 16, 16), "CHW", (1, 3, 16, 16)),
        ((3, 16, 16), "NHW", (3, 1, 16, 16)),
        ((28, 28, 50), "HWN", (50, 1, 28, 28)),
        ((28, 28), "HW", (1, 1, 28, 28)),
        ((2, 3, 4, 3), "NHWC", (2, 3, 3, 4)),
        ((2, 3, 4, 3), "NCHW", (2, 3, 4, 3)),
    ],
)
def test_a_layout_decides_what_a_shape_leaves_open(tmp_path, shape, layout, expected):
    values = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    np.save(tmp_path / "a.npy", values)
    loaded = images.load(f"{tmp_path}/a.npy,layout={layout}")
    assert loaded.pixels.shape == expected
    assert sorted(loaded.pixels[:].ravel()) == sorted(values.ravel())
    message = complaint(tmp_path / "a.npy")
    assert len(shape) == 2 or f"layout={layout}" in message or layout == "HWN"


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        ((16, 16, 3), "either 16 gray images of 16x3, or one colour picture of 16x16; "),
        ((3, 16, 16), "either 3 gray images of 16x16, or one colour picture of 16x16; "),
        ((28, 28, 50), "either 28 gray images of 28x50, or 50 gray images of 28x28; "),
        ((2, 3, 4, 3), "either 2 colour images of 4x3, or 2 colour images of 3x4; "),
        ((2, 1, 4, 3), "either 2 gray images of 4x3, or 2 colour images of 1x4; "),
    ],
)
def test_a_shape_that_means_two_things_is_refused_with_both(tmp_path, shape, says):
    np.save(tmp_path / "a.npy", np.zeros(shape, np.uint8))
    assert says + "add layout=" in complaint(tmp_path / "a.npy")


def test_as_many_labels_as_images_settle_what_the_first_axis_is(tmp_path):
    pixels = np.zeros((3, 16, 16), np.uint8)
    np.savez(tmp_path / "a.npz", images=pixels, labels=np.arange(3))
    assert images.load(f"{tmp_path}/a.npz").pixels.shape == (3, 1, 16, 16)
    np.savez(tmp_path / "a.npz", images=pixels, labels=np.arange(1))
    assert "layout=CHW" in complaint(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("layout", "says"),
    [
        ("NHW", "names 3 axes, the array has 4, (2, 5, 6, 3); name each"),
        ("NHCW", "makes 6 channels of (2, 5, 6, 3); give 1 or 3"),
        ("NHHC", "does not name axes by N, C, H and W, each once; give NHWC, say"),
        ("NCH", "does not name axes"),
        ("nhwc", "does not name axes"),
        ("", "does not name axes"),
    ],
)
def test_a_layout_that_does_not_fit_is_refused(tmp_path, layout, says):
    np.save(tmp_path / "a.npy", np.zeros((2, 5, 6, 3), np.uint8))
    assert says in complaint(f"{tmp_path}/a.npy,layout={layout}")


# several arrays, labels


@pytest.mark.parametrize("suffix", [suffix for suffix in SAVE if suffix != "npy"])
def test_a_key_chooses_among_arrays_and_their_labels(tmp_path, suffix):
    arrays = {"train_images": PIXELS, "test_images": PIXELS[:2], "other": PIXELS[:1]}
    arrays |= {"train_labels": np.arange(5)[:, None], "test_labels": np.array([[7], [8]])}
    path = stored_as(suffix, tmp_path, **arrays)
    assert "add key=NAME, or call the one" in complaint(path)
    train, test = (images.load(f"{path},key={name}_images") for name in ("train", "test"))
    assert (train.labels.tolist(), test.labels.tolist()) == ([0, 1, 2, 3, 4], [7, 8])
    np.testing.assert_array_equal(test.pixels[:], PIXELS[:2].transpose(0, 3, 1, 2))
    assert images.load(f"{path},key=other").labels is None
    assert "not 'faces'; give key=NAME, one of these" in complaint(f"{path},key=faces")


# depth and window


@pytest.mark.parametrize("dtype", ["i1", "<i2", ">i2", "i4", "i8", "u1", "u2", "u4", "f4", "f8"])
def test_a_window_makes_intensities_of_any_numbers(tmp_path, dtype):
    low, high = (-100, 50) if np.dtype(dtype).kind != "u" else (20, 150)
    values = np.arange(-120 if low < 0 else 0, 120 if low < 0 else 240, 2).reshape(5, 4, 6)
    np.save(tmp_path / "a.npy", values.astype(dtype))
    loaded = images.load(f"{tmp_path}/a.npy,window={low}:{high}")
    expected = ((values - low) / (high - low)).clip(0, 1)
    assert (loaded.pixels.dtype, loaded.peak) == (np.float32, 1)
    np.testing.assert_allclose(loaded.pixels[:][:, 0], expected, atol=1e-7)  # float32
    smaller = images.load(f"{tmp_path}/a.npy,window={low}:{high},size=3")
    assert 0 <= smaller.pixels[:].min() <= smaller.pixels[:].max() <= 1


def test_what_no_window_can_show_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.full((2, 4, 4), np.nan))
    assert "holds NaN, which is in no window" in complaint(f"{tmp_path}/a.npy,window=0:1")
    np.save(tmp_path / "a.npy", np.zeros((2, 4, 4), bool))
    assert "bool pixels; window=LOW:HIGH takes numbers" in complaint(f"{tmp_path}/a.npy,window=0:1")


def test_a_depth_is_the_peak_and_its_bound(tmp_path):
    values = np.linspace(0, 4095, 32).astype(np.uint16).reshape(2, 4, 4)
    np.save(tmp_path / "a.npy", values)
    loaded = images.load(f"{tmp_path}/a.npy,depth=12")
    assert isinstance(loaded.pixels, MappedPixels)
    torch.testing.assert_close(loaded[:][:, 0], torch.from_numpy(values / 4095).float())
    assert "largest value 4,095 is beyond 10 bits (1,023); add depth=12 or window" in complaint(
        f"{tmp_path}/a.npy,depth=10"
    )
    np.save(tmp_path / "a.npy", values / 4095)
    assert "float64 pixels from 0.0 to 1.0; add window" in complaint(f"{tmp_path}/a.npy,depth=12")
