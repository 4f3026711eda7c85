"""Files that are mapped: what changes while it is used is refused, wherever it is asked for."""

import copy
import gzip
import os
import pickle
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from twinscore import images
from twinscore.errors import InputError
from twinscore.images import from_pixels, packed

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 1, 30, 30), dtype=np.uint8)


def write_idx(path, array):
    header = struct.pack(">BBBB4I", 0, 0, 8, 4, *array.shape)
    path.write_bytes(header + array.tobytes())


WRITE = {
    "a.npy": np.save,
    "a.npz": lambda path, array: np.savez(path, images=array),
    "a.pt": lambda path, array: torch.save(torch.from_numpy(array), path),
    "a.safetensors": lambda path, array: save_file({"images": array}, path),
    "a.idx": write_idx,
    "packed.safetensors": lambda path, array: packed.write(path, from_pixels(array)),
}
ACCESS = {
    "one": lambda mapped: mapped[0],
    "a slice": lambda mapped: mapped[2:4],
    "some": lambda mapped: mapped.take([3, 1])[:],
    "the mean": lambda mapped: mapped.mean(),
}


def cut(path):
    os.truncate(path, path.stat().st_size - 1)


def alter(path):
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\0")


def written(path, array):
    WRITE[path.name](path, array)
    os.utime(path, (10**9, 10**9))  # or a change within its clock's tick would not show
    return path


@pytest.mark.parametrize("access", ACCESS)
@pytest.mark.parametrize("change", [cut, alter])
@pytest.mark.parametrize("name", WRITE)
def test_a_file_that_changes_while_it_is_used_is_refused(tmp_path, name, change, access):
    path = written(tmp_path / name, PIXELS)
    loaded = images.load(str(path))
    ACCESS[access](loaded)
    change(path)
    with pytest.raises(InputError, match=r"changed while it was being read") as caught:
        ACCESS[access](loaded)
    assert repr(str(path)) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("option", ["", ",shuffle=1"])
def test_so_are_images_that_are_converted_on_request(tmp_path, option):
    path = written(tmp_path / "a.npy", (PIXELS / 255).astype(np.float64))
    loaded = images.load(f"{path}{option}")
    cut(path)
    with pytest.raises(InputError, match="changed while it was being read"):
        loaded[:]


@pytest.mark.parametrize("name", WRITE)
def test_another_file_of_the_same_name_does_not_matter(tmp_path, name):
    path = written(tmp_path / name, PIXELS)
    loaded = images.load(str(path))
    before = loaded[:]
    path.unlink()
    written(path, PIXELS[::-1].copy())
    assert torch.equal(loaded[:], before)


def test_slices_are_not_copied_and_copies_are_not_mapped(tmp_path):
    loaded = images.load(str(written(tmp_path / "a.npy", PIXELS)))
    tracemalloc.start()
    try:
        chosen = loaded.pixels[2:19]
        assert tracemalloc.get_traced_memory()[1] < PIXELS[0].nbytes
    finally:
        tracemalloc.stop()
    np.testing.assert_array_equal(chosen, PIXELS[2:19])
    for other in (copy.deepcopy(loaded.pixels), pickle.loads(pickle.dumps(loaded.pixels))):
        assert type(other) is np.ndarray
        np.testing.assert_array_equal(other, PIXELS)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_a_file_is_closed_with_its_images(tmp_path):
    path = written(tmp_path / "a.npy", PIXELS)

    def is_open():
        return any(one.exists() and one.samefile(path) for one in Path("/proc/self/fd").iterdir())

    loaded = images.load(str(path))
    assert is_open()
    del loaded
    assert not is_open()


@pytest.mark.parametrize(
    "source", ["{}/a.npy", "{}/a.safetensors", "{}/a.idx", "{}/a", "idx:{}/a", "parquet:{}/a"]
)
def test_a_pipe_is_refused_and_not_waited_for(tmp_path, source):
    for name in ("a", "a.npy", "a.safetensors", "a.idx"):
        os.mkfifo(tmp_path / name)
    with pytest.raises(InputError, match="regular file"):
        images.load(source.format(tmp_path))
    path = tmp_path / "b.idx.gz"
    path.write_bytes(gzip.compress(struct.pack(">BBBB3I", 0, 0, 8, 3, 1, 1, 1) + b"\0"))
    with pytest.raises(InputError, match="regular file"):
        images.load(f"idx:{path},labels={tmp_path}/a")
