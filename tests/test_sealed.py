"""A sealed file is what was written under its key, or it is Damaged."""

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from safetensors.numpy import load_file, save_file
from safetensors.torch import save

from twinscore import sealed
from twinscore.errors import Damaged
from twinscore.experiments.folders import kept

ARRAYS = st.dictionaries(
    st.text(min_size=1).filter(lambda name: name != "__metadata__"),
    arrays(st.sampled_from([np.float32, np.int64, np.uint8]), array_shapes(max_dims=2, max_side=4)),
    max_size=3,
)


@given(ARRAYS, st.text())
@settings(max_examples=40, deadline=None)
def test_arrays_come_back_under_their_key_only(values, key):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.safetensors"
        sealed.write_arrays(path, values, key)
        found = sealed.read_arrays(path, key)
        plain = load_file(path)  # any reader of the format can read it
        with pytest.raises(Damaged, match="belongs to something else"):
            sealed.read_arrays(path, f"{key}.")
    for name, value in values.items():
        for other in (found, plain):
            np.testing.assert_array_equal(other[name], value)
            assert other[name].dtype == value.dtype


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_one_changed_byte_never_gives_other_arrays(data):
    values = {"a": np.arange(6.0, dtype=np.float32).reshape(2, 3), "b": np.array([7])}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.safetensors"
        sealed.write_arrays(path, values, "key")
        content = bytearray(path.read_bytes())
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] ^= data.draw(st.integers(1, 255))
        path.write_bytes(content)
        try:
            found = sealed.read_arrays(path, "key")
        except Damaged:
            return
    for name, value in values.items():  # white space of the header may change
        np.testing.assert_array_equal(found[name], value)


@pytest.mark.parametrize("size", [0, 3, 8, 60, -1])
def test_a_cut_file_is_damaged(tmp_path, size):
    path = tmp_path / "a.safetensors"
    sealed.write_arrays(path, {"a": np.arange(5)}, "key")
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(Damaged) as caught:
        sealed.read_arrays(path, "key")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_metadata_and_types_of_torch_are_covered(tmp_path):
    path = tmp_path / "a.safetensors"
    tensors = {"w": torch.arange(4, dtype=torch.bfloat16), "n": torch.tensor(3)}
    seal = sealed.write(path, save(tensors, {"twinscore": "{}"}), "key")
    assert sealed.check(path) == {"twinscore": "{}", sealed.KEY: "key", sealed.SHA256: seal}
    content = path.read_bytes()
    path.write_bytes(content.replace(b'"twinscore":"{}"', b'"twinscore":"[]"'))
    with pytest.raises(Damaged, match="changed after it was written"):
        sealed.check(path)
    path.write_bytes(content.replace(b"BF16", b"F16"))
    with pytest.raises(Damaged):
        sealed.check(path)


def test_what_is_kept_is_computed_once_and_again_where_it_is_not_to_be_trusted(tmp_path):
    path, calls, said = tmp_path / "a.safetensors", [], []

    def get(of="key"):
        report = lambda name, event: said.append(event["text"])  # noqa: E731
        return kept(path, lambda: calls.append(of) or {"a": np.arange(3)}, of=of, report=report)

    def spoilt():
        np.testing.assert_array_equal(get()["a"], np.arange(3))
        return len(calls), len(said)

    assert spoilt() == spoilt() == (1, 0)
    path.write_bytes(b"")
    assert spoilt() == spoilt() == (2, 1)
    save_file({"a": np.zeros(3)}, path)  # as if written by hand
    assert spoilt() == spoilt() == (3, 2)
    get("another key")
    assert spoilt() == spoilt() == (5, 4)
    assert all(str(path) in text and "computed again" in text for text in said)


def test_a_header_that_promises_too_much_is_not_read(tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes((2**60).to_bytes(8, "little") + json.dumps({}).encode())
    with pytest.raises(Damaged, match="does not begin as a safetensors file"):
        sealed.check(path)
