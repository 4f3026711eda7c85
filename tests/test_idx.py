"""Images and labels in IDX files."""

import gzip
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twinscore import images
from twinscore.errors import InputError
from twinscore.images import stored
from twinscore.images.mapping import MappedPixels

CODES = {"u1": 8, "i1": 9, "i2": 11, "i4": 12, "f4": 13, "f8": 14}
PIXELS = np.random.default_rng(0).integers(0, 256, (6, 4, 5), dtype=np.uint8)
LABELS = np.array([3, 1, 4, 1, 5, 9], dtype=np.uint8)


def idx(array):
    header = struct.pack(
        f">BBBB{array.ndim}I", 0, 0, CODES[array.dtype.str[1:]], array.ndim, *array.shape
    )
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


def write(path, array):
    content = idx(array)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def complaint(source):
    with pytest.raises(InputError) as caught:
        images.load(str(source))
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_the_layout_is_that_of_the_published_description():
    content = bytes([0, 0, 8, 3, 0, 0, 0, 6, 0, 0, 0, 4, 0, 0, 0, 5]) + PIXELS.tobytes()
    assert idx(PIXELS) == content


@pytest.mark.parametrize(
    "name", ["a-ubyte", "a.idx3-ubyte", "a-ubyte.gz", "A.IDX", "a.idx.gz", "a.gz", "a.bin", "a"]
)
def test_bare_paths_are_known_by_their_ending_or_first_bytes(tmp_path, name):
    loaded = images.load(f"{write(tmp_path / name.replace('.GZ', '.gz'), PIXELS)},size=4")
    np.testing.assert_array_equal(loaded.pixels[:, 0], PIXELS[:, :, :4])
    assert loaded.labels is None


@pytest.mark.parametrize("packed", ["", ".gz"])
@pytest.mark.parametrize(
    "name", ["t10k-{}-idx{}-ubyte", "emnist-train-{}.idx{}-ubyte", "my-{}{}.idx"]
)
def test_labels_are_found_next_to_the_images(tmp_path, name, packed):
    digit = ("", "") if name.startswith("my") else ("3", "1")
    path = write(tmp_path / (name.format("images", digit[0]) + packed), PIXELS)
    assert images.load(f"idx:{path}").labels is None
    labels = name.format("labels", digit[1])
    write(tmp_path / (labels + ("" if packed else ".gz")), LABELS[::-1])
    assert images.load(str(path)).labels.tolist() == LABELS[::-1].tolist()
    write(tmp_path / (labels + packed), LABELS)  # packed the same way: this one belongs to them
    loaded = images.load(str(path))
    assert loaded.labels.tolist() == LABELS.tolist()
    assert loaded.labels.dtype == np.int64


def test_labels_that_are_named_win(tmp_path):
    path = write(tmp_path / "images.idx", PIXELS)
    write(tmp_path / "labels.idx", LABELS)
    other = write(tmp_path / "other", LABELS.astype(np.int32) * 1000)
    loaded = images.load(f"idx:{path},labels={other},gray")
    assert loaded.labels.tolist() == [3000, 1000, 4000, 1000, 5000, 9000]


@pytest.mark.parametrize("shape", [(2, 4, 5, 3), (2, 3, 4, 5), (2, 4, 5, 1), (2, 4, 5)])
@pytest.mark.parametrize("dtype", ["u1", "f4", "f8"])
def test_other_layouts_and_depths_are_those_of_arrays(tmp_path, shape, dtype):
    values = np.random.default_rng(1).integers(0, 2, shape).astype(dtype)
    np.save(tmp_path / "a.npy", values)
    array = images.load(f"{tmp_path}/a.npy")
    for name in ("a.idx", "a.idx.gz"):
        assert images.load(str(write(tmp_path / name, values))).digests == array.digests


def test_plain_files_are_memory_mapped_and_converted_on_request(tmp_path, monkeypatch):
    monkeypatch.setattr("twinscore.images.imageset._CHUNK_PIXELS", 2**12)
    assert isinstance(images.load(str(write(tmp_path / "a.idx", PIXELS))).pixels, MappedPixels)
    path = write(tmp_path / "b.idx", np.zeros((64, 64, 64), dtype=np.float64))
    tracemalloc.start()
    try:
        images.load(str(path))
        assert tracemalloc.get_traced_memory()[1] < 64**3 * 8 / 4  # a chunk is 1/64 of the file
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "it begins with nothing, not with an IDX header"),
        (b"\0\0\x08", "it begins with 00 00 08, not"),
        (b"PK\x03\x04more", "it begins with 50 4b 03 04, not"),
        (b"\0\0\x07\x03", "it begins with 00 00 07 03, not"),
        (b"\0\0\x08\x00", "declares 0 axes"),
        (b"\0\0\x08\xff" + b"\0\0\0\1" * 255, "declares 255 axes"),
        (idx(PIXELS)[:12], "cut off within the 3 axes"),
        (idx(LABELS), "shape (6,) holds no images"),
        (idx(PIXELS[:0]), "the array is empty"),
        (idx(PIXELS.astype(np.int16)), "int16 pixels from 0 to 248; add window"),
        (idx(np.full((1, 4, 4), np.nan, np.float32)), "holds NaN or infinity"),
        (idx(np.full((1, 4, 4), 2.0)), "are outside [0, 1]"),
    ],
)
@pytest.mark.parametrize("packed", ["", ".gz"])
def test_what_is_not_an_idx_file_of_images_is_refused(tmp_path, content, says, packed):
    path = tmp_path / f"a.idx{packed}"
    path.write_bytes(gzip.compress(content) if packed else content)
    message = complaint(path)
    assert says in message
    assert repr(str(path)) in message


def test_the_length_must_be_the_declared_one(tmp_path):
    path, packed = tmp_path / "a.idx", tmp_path / "a.idx.gz"
    for content, plain, streamed in (
        (idx(PIXELS)[:-1], "declares 120 bytes of pixels or labels, 119", "after 119 of 120 bytes"),
        (
            idx(PIXELS) + b"x",
            "declares 120 bytes of pixels or labels, 121",
            "goes on after the 120",
        ),
    ):
        path.write_bytes(content)
        assert plain in complaint(path)
        packed.write_bytes(gzip.compress(content))
        assert streamed in complaint(packed)


def test_a_declared_size_is_not_trusted(tmp_path, monkeypatch):
    header = struct.pack(">BBBB3I", 0, 0, 8, 3, 2**20, 2**12, 2**12)
    (tmp_path / "a.idx").write_bytes(header + b"\0" * 100)
    assert "100 are there" in complaint(tmp_path / "a.idx")
    (tmp_path / "a.idx.gz").write_bytes(gzip.compress(header))
    assert "store it uncompressed" in complaint(tmp_path / "a.idx.gz")
    header = struct.pack(">BBBB3I", 0, 0, 8, 3, 100, 1000, 1000)
    (tmp_path / "c.idx.gz").write_bytes(gzip.compress(header))
    assert "declares 100000000 bytes, 33 compressed ones cannot" in complaint(tmp_path / "c.idx.gz")
    header = struct.pack(">BBBB3I", 0, 0, 8, 3, 2**25, 1, 1)
    (tmp_path / "d.idx.gz").write_bytes(gzip.compress(header))
    assert "33554432 images; give at most 16777216" in complaint(tmp_path / "d.idx.gz")
    header = struct.pack(">BBBB3I", 0, 0, 8, 3, 1, 2**14, 2**14)
    (tmp_path / "e.idx.gz").write_bytes(gzip.compress(header))
    assert "have too many pixels; give at most 67 million" in complaint(tmp_path / "e.idx.gz")
    monkeypatch.setattr(stored, "MAX_UNPACKED", PIXELS.size - 1)
    bomb = write(tmp_path / "b.idx.gz", PIXELS)
    assert "unpacks to 120 bytes, at most 119 are held" in complaint(bomb)


def test_damaged_gzip_files_are_refused(tmp_path):
    whole = gzip.compress(idx(PIXELS))
    path = tmp_path / "a.idx.gz"
    for content in (whole[:5], whole[:-20], whole[:-4] + b"\0\0\0\0", whole[:30] + b"\xff" * 60):
        path.write_bytes(content)
        assert repr(str(path)) in complaint(path)


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        (idx(LABELS[:4]), "labels of shape (4,) for 6 images; give one per image"),
        (idx(PIXELS), "labels of shape (6, 4, 5) for 6 images"),
        (idx(LABELS.astype(np.float32)), "float32 labels; give whole numbers"),
        (b"3 1 4", "not with an IDX header"),
    ],
)
def test_unusable_labels_are_refused_by_their_name(tmp_path, labels, says):
    path = write(tmp_path / "images", PIXELS)
    (tmp_path / "labels").write_bytes(labels)
    message = complaint(path)
    assert says in message
    assert f"{str(tmp_path / 'labels')!r}" in message


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("idx:", "'idx:': names no file; give idx:PATH"),
        ("idx:missing", "'missing': cannot be read (No such file or directory)"),
        ("idx:.", "'.': cannot be read (it is not a regular file)"),
        ("idx:missing,labels=", "labels='' names no file"),
        ("idx:labels=x", "names no file"),
        ("idx:a,label=x", "did you mean 'labels'?"),
    ],
)
def test_wrong_source_strings(source, says):
    assert says in complaint(source)


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_any_bytes_raise_only_input_errors(tmp_path_factory, data):
    content = bytearray(idx(PIXELS[:2]))
    for _ in range(data.draw(st.integers(0, 5))):
        place = data.draw(st.integers(0, 20))
        content[place] = data.draw(st.sampled_from([0, 1, 3, 8, 13, 14, 127, 255]))
    content = bytes(content[: data.draw(st.integers(0, len(content)))])
    if data.draw(st.booleans()):
        content = gzip.compress(content)[: data.draw(st.integers(0, 200))]
    path = tmp_path_factory.mktemp("fuzz") / "a.idx"
    path.write_bytes(data.draw(st.just(content) | st.binary(max_size=40)))
    try:
        loaded = images.load(f"idx:{path}")
        assert loaded[:].numel() <= len(content) * 1032  # the most that deflate expands
    except InputError as error:
        assert "\n" not in str(error)  # noqa: PT017


SOURCE_TEXT = st.text(alphabet="idxhfparquet:,=labelscolumnspit./\0\n 01")


@settings(deadline=None)
@given(SOURCE_TEXT, st.sampled_from(["idx:", "parquet:", "hf:"]))
def test_any_source_string_raises_only_input_errors(text, kind):
    try:
        images.parse(kind + text)
        if kind == "idx:":  # the others search folders and the hub
            images.load(kind + text)
    except InputError as error:
        assert "\n" not in str(error)  # noqa: PT017
