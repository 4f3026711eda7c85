"""Packed files: what is written is what is mapped, and broken ones are refused in one line."""

import json
import os

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from twinscore import images
from twinscore.errors import InputError
from twinscore.images import LazyPixels, from_pixels, packed, verified
from twinscore.images.imageset import digests_of
from twinscore.images.mapping import MappedPixels
from twinscore.images.transforms import Options

NUMBER = 7
PIXELS = np.random.default_rng(0).integers(0, 17, (NUMBER, 3, 6, 5), dtype=np.uint8)
NAMES = [f"sub/é{k}.png" for k in range(NUMBER)]
GROUPS = ["anna", "bo", "anna", "", "bo", "carla", "anna"]
ATTRIBUTES = {"smiling": np.arange(NUMBER) % 2 == 0, "hat": np.arange(NUMBER) > 4}


def full(**changes):
    values = {
        "peak": 16,
        "names": NAMES,
        "labels": np.arange(NUMBER),
        "groups": GROUPS,
        "attributes": ATTRIBUTES,
    }
    return from_pixels(PIXELS, **values | changes)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.safetensors"


def complaint(path):
    with pytest.raises(InputError) as caught:
        packed.load(path, Options())
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_everything_comes_back_and_the_pixels_are_mapped(path):
    given_ = full()
    packed.write(path, given_, source="faces/,gray")
    loaded = images.load(str(path))
    assert isinstance(loaded.pixels, MappedPixels)
    np.testing.assert_array_equal(loaded.pixels, PIXELS)
    assert (loaded.peak, loaded.names, loaded.groups) == (16, tuple(NAMES), tuple(GROUPS))
    assert (loaded.digests, loaded.digest) == (given_.digests, given_.digest)
    assert loaded.labels.tolist() == list(range(NUMBER))
    assert {name: values.tolist() for name, values in loaded.attributes.items()} == {
        name: values.tolist() for name, values in ATTRIBUTES.items()
    }


def test_it_is_a_safetensors_file(path):
    packed.write(path, full(), source="faces/,gray")
    with safetensors.safe_open(path, "np") as file:
        metadata = file.metadata()
        assert len(metadata.pop("manifest_sha256")) == 64
        assert metadata == {"twinscore_packed": "1", "peak": "16", "source": "faces/,gray"}
        np.testing.assert_array_equal(file.get_tensor("pixels"), PIXELS)
        assert file.get_tensor("digests")[2].tobytes().hex() == full().digests[2]
        assert file.get_tensor("names.text").tobytes().decode() == "".join(NAMES)
        assert file.get_tensor("groups.codes").tolist() == [0, 1, 0, 2, 1, 3, 0]


@pytest.mark.parametrize(
    "labels",
    [
        None,
        np.array(["cat", "dog", "cat", "é", "", "cat", "dog"]),
        np.arange(NUMBER, dtype=np.float32) / 3,
        np.arange(NUMBER, dtype=">i2"),
        np.arange(NUMBER) > 2,
    ],
)
def test_labels_may_be_numbers_or_words(path, labels):
    packed.write(path, full(labels=labels, groups=None, attributes=None))
    loaded = packed.load(path, Options())
    assert (loaded.groups, dict(loaded.attributes)) == (None, {})
    assert (loaded.labels is None) == (labels is None)
    if labels is not None:
        assert loaded.labels.tolist() == labels.tolist()


def test_what_cannot_be_packed_is_refused(path):
    with pytest.raises(InputError, match="labels of object"):
        packed.write(path, full(labels=np.array([None] * NUMBER)))
    with pytest.raises(InputError, match=r"names: .* is not Unicode text"):
        packed.write(path, full(names=["\udcff", *NAMES[1:]]))
    assert list(path.parent.iterdir()) == []


def test_options_are_applied_to_the_packed_pixels(path, tmp_path):
    np.save(tmp_path / "a.npy", PIXELS)
    packed.write(path, images.load(f"{tmp_path}/a.npy"))
    for options in ("", ",gray", ",size=3", ",crop=4,size=9,gray"):
        ours, plain = (images.load(f"{name}{options}") for name in (path, f"{tmp_path}/a.npy"))
        assert ours.digests == plain.digests
        np.testing.assert_array_equal(ours.pixels, plain.pixels)
    packed.write(path, full())
    small = images.load(f"{path},size=3")
    assert (small.peak, small.names, small.groups) == (16, tuple(NAMES), tuple(GROUPS))
    assert small.pixels.max() <= 16


@pytest.mark.parametrize(("dtype", "peak"), [(np.uint16, 65535), (np.float32, 1)])
def test_deeper_pixels_are_rounded_to_255_levels(path, dtype, peak):
    deep = (np.random.default_rng(1).random((4, 1, 5, 5)) * peak).astype(dtype)
    source = from_pixels(deep)
    rounded = packed.to_uint8(source)
    packed.write(path, rounded)
    loaded = packed.load(path, Options())
    # half a level, and the rounding of float32
    np.testing.assert_allclose(loaded[:], source[:], atol=0.5 / 255 + 1e-6)
    assert loaded.digests == from_pixels(np.asarray(loaded.pixels)).digests
    assert loaded.digests != source.digests
    assert packed.to_uint8(loaded) is loaded


def test_pixels_are_read_in_chunks_while_writing(path, monkeypatch):
    monkeypatch.setattr("twinscore.images.imageset._CHUNK_PIXELS", 2 * PIXELS[0].size)
    most = []

    def read(rows):
        most.append(len(rows))
        return PIXELS[rows]

    seen = []
    source = from_pixels(LazyPixels(PIXELS.shape, PIXELS.dtype, read))
    packed.write(path, source, progress=lambda *event: seen.append(event))
    assert max(most) == 2
    assert seen == [(2, 7), (4, 7), (6, 7), (7, 7)]
    np.testing.assert_array_equal(packed.load(path, Options()).pixels, PIXELS)


# broken files


def rewritten(path, change):
    """The file with its header changed: ``change(content)`` edits it in place."""
    whole = path.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    content = json.loads(whole[8 : 8 + length])
    change(content)
    text = json.dumps(content).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + whole[8 + length :])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda c: c["__metadata__"].update(twinscore_packed="3"), "newer version; upgrade"),
        (lambda c: c["__metadata__"].update(peak="nan"), "with peak nan"),
        (lambda c: c["__metadata__"].update(peak="256"), "with peak 256"),
        (lambda c: c["__metadata__"].pop("peak"), "holds no peak"),
        (lambda c: c.pop("names.text"), "holds no names.text"),
        (lambda c: c.pop("pixels"), "holds no pixels"),
        (lambda c: c["pixels"].update(shape=[7, 6, 5, 3]), "shape (7, 6, 5, 3) are not images"),
        (lambda c: c["pixels"].update(shape=[10**9, 3, 6, 5]), "not that of a safetensors file"),
        (lambda c: c["pixels"].update(shape=[7, 3, 6, 5.0]), "not that of a safetensors file"),
        (lambda c: c["pixels"].update(dtype="F7"), "not that of a safetensors file"),
        (lambda c: c["pixels"].update(data_offsets=[-630, 0]), "not that of a safetensors file"),
        (lambda c: c["digests"].update(data_offsets=[10**9, 10**9 + 224]), "truncated"),
        (lambda c: c["digests"].update(shape=[14, 16]), "digests is uint8 (14, 16), not uint8"),
        (lambda c: c["names.ends"].update(dtype="U64"), "names.ends is uint64 (7,), not int64"),
        (lambda c: c.update({"names.ends": c["groups.codes"]}), "names do not fit their text"),
        (lambda c: c.update({"groups.codes": c["names.ends"]}), "codes beyond their 4 words"),
    ],
)
def test_a_wrong_header_is_refused(path, change, says):
    packed.write(path, full())
    rewritten(path, change)
    assert packed.is_packed(path)
    assert says in complaint(path)


def test_a_truncated_file_says_so(path):
    packed.write(path, full())
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    assert f"truncated, {len(whole) - 1} bytes of at least {len(whole)}" in complaint(path)


def test_names_must_be_unique(path):
    packed.write(path, full(names=["a"] * NUMBER))
    assert "names are not unique" in complaint(path)


def test_other_safetensors_are_not_mistaken_for_packed(path):
    safetensors.numpy.save_file({"pixels": PIXELS}, path)
    assert not packed.is_packed(path)
    path.write_bytes((2**63).to_bytes(8, "little") + b"{}")
    assert not packed.is_packed(path)
    path.write_bytes((2**16).to_bytes(8, "little") + b"[" * 2**16)
    assert not packed.is_packed(path)
    path.write_bytes(b"")
    assert not packed.is_packed(path)


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_a_broken_file_is_images_or_an_input_error(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "broken.safetensors"
    packed.write(path, full())
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(0, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.just(len(content)) | st.integers(0, len(content)))])
    try:
        loaded = packed.load(path, Options())
    except InputError as error:
        assert str(path) in str(error)  # noqa: PT017
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert len(loaded) == len(loaded.names) == len(loaded.digests)
        loaded[:]


# what was written is what is read


def flipped(path, place, bit=0):
    content = bytearray(path.read_bytes())
    content[place] ^= 1 << bit
    path.write_bytes(content)


def known(loaded):
    return (
        *(loaded.names, loaded.digests, loaded.groups, loaded.peak, loaded.labels.tolist()),
        *((name, values.tolist()) for name, values in loaded.attributes.items()),
        loaded[:].tolist(),
    )


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_one_flipped_bit_is_refused_or_changes_nothing(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "flipped.safetensors"
    packed.write(path, full())
    places = st.integers(0, path.stat().st_size - 1)
    flipped(path, data.draw(places), data.draw(st.integers(0, 7)))
    try:
        loaded = images.load(str(path))
    except InputError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert known(loaded) == known(full())


def old(path):
    """Give the content of a file an old date."""
    os.utime(path, (10**9, 10**9))


@pytest.fixture
def settled(monkeypatch):
    monkeypatch.setattr(verified, "_SETTLED_SECONDS", -1.0)


@pytest.fixture
def computed(monkeypatch):
    """How often the digests were computed."""
    calls = []

    def count(pixels, peak):
        calls.append(len(pixels))
        return digests_of(pixels, peak)

    monkeypatch.setattr(packed, "digests_of", count)
    return calls


def test_altered_pixels_are_refused_by_the_name_of_their_image(path):
    packed.write(path, full())
    start = 8 + int.from_bytes(path.read_bytes()[:8], "little")
    flipped(path, start + 3 * PIXELS[0].size)
    assert "the pixels of 'sub/é3.png' are not those that were written" in complaint(path)
    assert "write it with twinscore prepare" in complaint(path)


def test_altered_names_are_refused_and_files_without_a_checksum_are_read(path):
    packed.write(path, full())
    content = path.read_bytes()
    path.write_bytes(content.replace(b"carla", b"clara"))
    assert "its names, labels or groups are not those that were written" in complaint(path)
    path.write_bytes(content)
    rewritten(path, lambda c: c["__metadata__"].pop("manifest_sha256"))
    assert known(packed.load(path, Options())) == known(full())


def test_a_file_is_verified_once(path, settled, computed):
    packed.write(path, full())
    for _ in range(3):
        packed.load(path, Options())
    assert computed == [NUMBER]
    old(path)
    packed.load(path, Options())
    assert computed == [NUMBER] * 2
    start = 8 + int.from_bytes(path.read_bytes()[:8], "little")
    flipped(path, start)
    old(path)  # same size, same time: the time of the inode's change gives it away
    complaint(path)


def test_a_file_of_the_same_name_is_another_file(path, tmp_path, settled, computed):
    packed.write(path, full())
    packed.load(path, Options())
    packed.write(tmp_path / "b.safetensors", full())
    (tmp_path / "b.safetensors").replace(path)
    packed.load(path, Options())
    assert computed == [NUMBER] * 2


def test_a_file_that_has_just_been_written_is_not_remembered(path, computed):
    packed.write(path, full())
    for _ in range(2):
        packed.load(path, Options())
    assert computed == [NUMBER] * 2


@pytest.mark.parametrize("cache", ["file", "broken"])
def test_without_a_usable_cache_a_file_is_verified_each_time(
    path, tmp_path, monkeypatch, settled, computed, cache
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    packed.write(path, full())
    if cache == "file":
        (tmp_path / "cache").write_text("no folder")
    for _ in range(2):
        packed.load(path, Options())
        for note in (tmp_path / "cache").rglob("*.json"):
            note.write_text("{")
    assert computed == [NUMBER] * 2


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@settings(deadline=None)
@given(st.data())
def test_any_json_in_the_header_is_an_input_error(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "json.safetensors"
    packed.write(path, full())

    def change(content):
        name = data.draw(st.sampled_from(sorted(content)))
        key = data.draw(st.sampled_from(sorted(content[name])))
        value = data.draw(JSON.filter(lambda value: value != content[name][key]))
        if data.draw(st.booleans()):
            content[name][key] = value
        else:
            content[name] = value

    rewritten(path, change)
    try:
        packed.load(path, Options())
    except InputError as error:
        assert "\n" not in str(error)  # noqa: PT017
