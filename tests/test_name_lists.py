"""Splits as text files of names: written, read back, refused in one line when they are wrong."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from twinscore import images
from twinscore.errors import InputError

NAMES = ("b/two.png", "a/one.png", "c three.jpg", "four", "å.png", "six")


def named(names=NAMES):
    return images.from_pixels(np.zeros((len(names), 1, 1, 1), dtype=np.uint8), names=names)


def written(folder, **parts):
    contents = {"a": b"four\n", "b": b"six\n", "test": b"a/one.png\n"} | parts
    for part, content in contents.items():
        if content is not None:
            (folder / f"{part}.txt").write_bytes(content)
    return folder


def complaint(folder, pictures=None):
    with pytest.raises(InputError) as caught:
        images.read_names(folder, pictures or named())
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 400 + len(str(folder))
    return message


fuzzed = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@fuzzed
@given(names=st.lists(st.text(min_size=1), min_size=3, max_size=30, unique=True), data=st.data())
def test_what_is_written_is_read_back(tmp_path, names, data):
    pictures = named(names)
    order = np.array(data.draw(st.permutations(range(len(names)))))
    n = data.draw(st.integers(1, (len(names) - 1) // 2))
    split = images.Twins(a=order[:n], b=order[n : 2 * n], test=order[2 * n :])
    try:
        images.write_names(tmp_path, pictures, split)
    except InputError as error:
        assert "cannot stand on a line" in str(error)  # noqa: PT017
        assert any("\n" in name or name.endswith("\r") for name in names)
        return
    again = images.read_names(tmp_path, pictures)
    for part in ("a", "b", "test"):
        np.testing.assert_array_equal(getattr(again, part), getattr(split, part))


def test_a_list_is_one_name_a_line_in_order(tmp_path):
    split = images.Twins(a=np.array([4, 0]), b=np.array([1, 3]), test=np.array([2]))
    images.write_names(tmp_path / "new" / "folder", named(), split)
    content = (tmp_path / "new" / "folder" / "a.txt").read_bytes()
    assert content == "å.png\nb/two.png\n".encode()


def test_order_and_line_ends_of_other_systems_are_kept_and_understood(tmp_path):
    folder = written(tmp_path, a=b"six\r\nfour\r\n", b=b"c three.jpg\na/one.png", test=b"b/two.png")
    split = images.read_names(folder, named())
    assert [side.tolist() for side in (split.a, split.b, split.test)] == [[5, 3], [2, 1], [0]]
    assert split.a.dtype == np.int64


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ({"a": b"four\na/on.png\n"}, "a.txt, line 2: no image is called 'a/on.png'; did you mean"),
        ({"a": b"0815"}, "line 1: no image is called '0815'; names are like 'b/two.png'"),
        ({"a": b"four\n" + b"x" * 1000}, "line 2: no image is called 'xxx"),
        ({"a": b"four\nfour\n"}, "a.txt, line 2: 'four' is listed twice, first in a.txt, line 1"),
        ({"b": b"four\n"}, "b.txt, line 1: 'four' is listed twice, first in a.txt, line 1"),
        ({"test": b"a/one.png\nsix"}, "test.txt, line 2: 'six' is listed twice, first in b.txt"),
        ({"a": b""}, "a.txt: empty; list one name per line"),
        ({"a": b"\n"}, "a.txt, line 1: empty; give one name per line"),
        ({"a": b"four\n\nb/two.png\n"}, "a.txt, line 2: empty; give one name per line"),
        ({"a": b"four\n\xff\xfe"}, "a.txt, line 2: not UTF-8"),
        ({"b": b"six\nb/two.png\n"}, "1 names in a.txt and 2 in b.txt; list equally many"),
        ({"test": None}, "test.txt: no such file; a split is a.txt, b.txt and test.txt"),
        ({"a": b"four\n" * 20_000}, "a.txt: longer than the names of all images"),
    ],
)
def test_wrong_lists_are_explained(tmp_path, parts, says):
    assert says in complaint(written(tmp_path, **parts))


def test_a_folder_in_the_place_of_a_list_is_explained(tmp_path):
    (written(tmp_path, a=None) / "a.txt").mkdir()
    assert "a.txt: no such file" in complaint(tmp_path)


@pytest.mark.parametrize("name", ["two\nlines", "ends\r", "", "\udcff.png"])
def test_names_that_no_line_can_hold_are_not_written(tmp_path, name):
    split = images.Twins(a=np.array([0]), b=np.array([1]), test=np.array([2]))
    with pytest.raises(InputError, match=r"a: the name .* cannot stand on a line"):
        images.write_names(tmp_path, named([name, "b", "c"]), split)


def test_an_empty_part_is_not_written(tmp_path):
    split = images.twins(named(), 2, test=0)
    with pytest.raises(InputError, match="test: no image to list"):
        images.write_names(tmp_path, named(), split)


lines = st.lists(st.sampled_from([name.encode() for name in NAMES]) | st.binary(max_size=8))


@fuzzed
@given(parts=st.tuples(lines, lines, lines), end=st.sampled_from([b"\n", b"\r\n", b"\r", b"\0"]))
def test_any_bytes_are_read_or_refused_in_one_line(tmp_path, parts, end):
    contents = dict(zip(("a", "b", "test"), map(end.join, parts), strict=True))
    try:
        split = images.read_names(written(tmp_path, **contents), named())
    except InputError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        chosen = np.concatenate([split.a, split.b, split.test])
        assert len(set(chosen)) == len(chosen) <= len(NAMES)
        assert len(split.a) == len(split.b) >= 1
