"""A run folder is addressed by its spec, written atomically, and belongs to one process."""

import contextlib
import errno
import json
import math
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from twinscore import runs
from twinscore.errors import InputError

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def one_line(caught, *words):
    text = str(caught.value)
    assert "\n" not in text
    for word in words:
        assert str(word) in text
    return text


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# Hashes and seeds


def test_canonical_json_is_this_text():
    value = {"b": [1, 2.5, None], "a": {"d": True, "c": "x"}}
    assert runs.canonical_json(value) == '{"a":{"c":"x","d":true},"b":[1,2.5,null]}'


def test_digest_is_the_sha256_of_the_canonical_text():
    empty_object = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
    assert runs.digest({}) == empty_object


@given(JSON)
def test_canonical_json_survives_a_round_trip_and_any_order_of_keys(value):
    text = runs.canonical_json(value)
    assert runs.canonical_json(json.loads(text)) == text

    def backwards(x):
        if isinstance(x, dict):
            return {k: backwards(x[k]) for k in reversed(x)}
        return [backwards(y) for y in x] if isinstance(x, list) else x

    assert runs.canonical_json(backwards(value)) == text


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_canonical_json_refuses_what_is_not_a_number(bad):
    with pytest.raises(ValueError, match="JSON"):
        runs.canonical_json({"deep": [bad]})


def test_derived_seeds_differ_and_fit_every_generator():
    parts = [
        (seed, what, step, *more)
        for seed in range(4)
        for what in ("noise", "order", "weights")
        for step in range(60)
        for more in ((), ("a",), ("b",))
    ]
    parts += [(1, 23), (12, 3), (123,), ("1", 23), (1, "23"), ("123",), ()]
    seeds = [runs.derive_seed(*p) for p in parts]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= s < 2**63 for s in seeds)
    assert max(seeds) > 2**60
    torch.Generator().manual_seed(max(seeds))
    np.array(seeds, dtype=np.int64)


def test_derived_seeds_never_change():
    assert runs.derive_seed(0, "noise", 1) == runs.derive_seed(0, "noise", 1)
    assert runs.derive_seed(0) == int(runs.digest([0])[:16], 16) // 2


# Atomic writes


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "result.json"
    path.write_text("old")

    def full(temporary):
        temporary.write_text("half of the n")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(InputError) as caught:
        runs.write_atomic(path, full)
    one_line(caught, path, "No space left on device")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["result.json"]


def test_a_write_that_is_interrupted_leaves_nothing(tmp_path):
    def stopped(temporary):
        temporary.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runs.write_atomic(tmp_path / "result.json", stopped)
    assert names(tmp_path) == []


def test_nobody_sees_a_file_before_it_is_whole(tmp_path):
    path = tmp_path / "weights.safetensors"

    def write(temporary):
        temporary.write_text("half")
        assert not path.exists()
        assert temporary.suffix == path.suffix
        assert temporary.parent == path.parent
        temporary.write_text("whole")

    runs.write_atomic(path, write)
    assert path.read_text() == "whole"


@contextlib.contextmanager
def full_disk():
    """Files longer than a page cannot be written, as on a disk that is full.

    That includes the file pytest may be writing its report to: hence only around the write.
    """
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


WRITERS = {
    "text": lambda path: path.write_text("x" * 100_000),
    "safetensors": lambda path: save_file({"a": np.zeros(100_000)}, path),
    "torch": lambda path: torch.save({"a": torch.zeros(100_000)}, path),
    "npz": lambda path: np.savez(path, a=np.zeros(100_000)),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_a_full_disk_is_one_line_that_names_the_file(tmp_path, kind):
    path = tmp_path / f"file.{kind}"
    path.write_text("old")
    with full_disk(), pytest.raises(InputError) as caught:
        runs.write_atomic(path, WRITERS[kind])
    one_line(caught, path, "cannot be written")
    assert path.read_text() == "old"
    assert names(tmp_path) == [path.name]


def test_json_is_written_without_nan_and_read_back(tmp_path):
    path = tmp_path / "a.json"
    runs.write_json(path, {"x": [1, None]})
    assert runs.read_json(path) == {"x": [1, None]}
    with pytest.raises(ValueError, match="JSON"):
        runs.write_json(path, {"x": math.nan})
    assert runs.read_json(path) == {"x": [1, None]}


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", None])
def test_json_that_cannot_be_read_is_named(tmp_path, content):
    path = tmp_path / "spec.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        runs.read_json(path)
    one_line(caught, path)


# Folders


@pytest.mark.parametrize("where", ["file", "file/below", "/proc/twinscore"])
def test_an_output_folder_that_cannot_be_is_refused(tmp_path, where):
    (tmp_path / "file").write_text("mine")
    folder = tmp_path / where
    with pytest.raises(InputError) as caught:
        runs.make_folder(folder)
    one_line(caught, folder, "output folder")
    assert (tmp_path / "file").read_text() == "mine"


SPEC = {
    "study": "transition",
    "data": "digits",
    "sizes": [2, 5],
    "network": {"kind": "unet", "width": 2},
    "data_digest": "d0",
}


def test_a_folder_is_claimed_continued_and_extended(tmp_path):
    runs.claim(tmp_path, SPEC, extendable=("sizes",))
    runs.claim(tmp_path, SPEC, extendable=("sizes",))
    runs.claim(tmp_path, SPEC | {"sizes": [1, 2, 5]}, extendable=("sizes",))
    written = runs.read_json(tmp_path / "spec.json")
    assert written == {"schema_version": runs.SCHEMA_VERSION} | SPEC | {"sizes": [1, 2, 5]}


def test_the_same_images_under_another_name_are_the_same_run(tmp_path):
    runs.claim(tmp_path, SPEC)
    runs.claim(tmp_path, SPEC | {"data": "elsewhere/"})
    assert runs.default_folder(SPEC) == runs.default_folder(SPEC | {"data": "elsewhere/"})
    assert runs.default_folder(SPEC) != runs.default_folder(SPEC | {"data_digest": "d1"})


@pytest.mark.parametrize(
    ("change", "fields"),
    [
        ({"network": {"kind": "unet", "width": 3}}, "(differs in network.width)"),
        ({"network": "mine.Net"}, "(differs in network)"),
        ({"data_digest": "d1"}, "(differs in data)"),
        ({"sizes": [2]}, "(differs in sizes)"),
        ({"sizes": [2, 6]}, "(differs in sizes)"),
        ({"seed": 1, "network": {"kind": "bf_cnn", "width": 2}}, "(differs in network.kind, seed)"),
    ],
)
def test_a_folder_of_another_spec_is_refused_naming_the_fields(tmp_path, change, fields):
    runs.claim(tmp_path, SPEC, extendable=("sizes",))
    before = (tmp_path / "spec.json").read_bytes()
    with pytest.raises(InputError) as caught:
        runs.claim(tmp_path, SPEC | change, extendable=("sizes",))
    one_line(caught, tmp_path, fields)
    assert (tmp_path / "spec.json").read_bytes() == before


def test_a_list_that_may_not_grow_is_a_difference(tmp_path):
    runs.claim(tmp_path, SPEC)
    with pytest.raises(InputError, match="sizes"):
        runs.claim(tmp_path, SPEC | {"sizes": [1, 2, 5]})


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"schema_version": runs.SCHEMA_VERSION + 1} | SPEC, "upgrade twinscore"),
        (SPEC, "has no schema_version"),
        ({"schema_version": "1"} | SPEC, "has no schema_version"),
        ([SPEC], "it is not a JSON object"),
    ],
)
def test_a_folder_of_a_newer_schema_or_of_something_else_is_refused(tmp_path, content, words):
    (tmp_path / "spec.json").write_text(json.dumps(content))
    with pytest.raises(InputError) as caught:
        runs.claim(tmp_path, SPEC)
    one_line(caught, tmp_path / "spec.json", words)


def test_a_folder_of_other_files_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(InputError) as caught:
        runs.claim(tmp_path, SPEC)
    one_line(caught, tmp_path, "--out")
    assert names(tmp_path) == ["thesis.tex"]


# The lock


HOLD = """
import sys, time
from pathlib import Path
from twinscore import runs
with runs.locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock of ``tmp_path``."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_folder_in_use_is_refused_naming_who_until_he_is_killed(tmp_path, holder):
    with pytest.raises(InputError) as caught, runs.locked(tmp_path):
        pass
    one_line(caught, tmp_path, f"process {holder.pid} on {socket.gethostname()}")
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with runs.locked(tmp_path):
        assert f"process {os.getpid()} " in (tmp_path / ".lock.holder").read_text()


def test_the_lock_is_released_and_says_nothing_afterwards(tmp_path):
    with pytest.raises(ZeroDivisionError), runs.locked(tmp_path):
        raise ZeroDivisionError
    assert not (tmp_path / ".lock.holder").exists()
    with (
        runs.locked(tmp_path),
        pytest.raises(InputError, match="in use"),
        runs.locked(tmp_path, timeout=0.1),
    ):
        pass


def test_what_a_killed_process_was_writing_is_removed_wherever_it_wrote(tmp_path):
    run, inner = tmp_path / "run", tmp_path / "run" / "trials" / "one"
    with runs.held(run, SPEC):
        runs.make_within(run, inner)

    def killed(temporary):
        temporary.write_text("half")
        stale.append(temporary.rename(temporary.with_name(f"{temporary.name}.safetensors")))

    stale = []
    for folder in (run, inner):
        with pytest.raises(InputError):  # the file is gone under the writer's hands
            runs.write_atomic(folder / "weights", killed)
    assert all(path.exists() for path in stale)
    with runs.held(run, SPEC):
        assert not any(path.exists() for path in stale)


HIDDEN = (".draft.tmp.docx", ".notes.tmp", ".lock.tmp", ".resume.4711.tmp.pt")


@pytest.mark.parametrize("visible", ["thesis.txt", "spec.json", None])
def test_no_file_of_another_owner_is_touched(tmp_path, visible):
    names = [*HIDDEN, *([visible] if visible else [])]
    for name in names:
        (tmp_path / name).write_text("precious")
    with pytest.raises(InputError) if visible else nullcontext(), runs.held(tmp_path, SPEC):
        pass
    assert all((tmp_path / name).read_text() == "precious" for name in names)
    if visible:
        assert sorted(p.name for p in tmp_path.iterdir()) == sorted(names)


def test_a_damaged_spec_is_written_anew_where_the_folder_is_known(tmp_path):
    run = {"run": runs.run_digest(SPEC, ["sizes"])}
    for damage in (b"", b"\xff", b"[]", None):
        with runs.held(tmp_path, SPEC, ["sizes"]) as said:
            assert (said is None) == (not (tmp_path / "environment.json").exists())
            runs.write_json(tmp_path / "environment.json", run)
        path = tmp_path / "spec.json"
        path.unlink() if damage is None else path.write_bytes(damage)
    with pytest.raises(InputError), runs.held(tmp_path, SPEC | {"seed": 99}, ["sizes"]):
        pass
    with runs.held(tmp_path, SPEC, ["sizes"]) as said:
        assert "was missing" in said


@given(st.data())
@settings(max_examples=60)
def test_one_changed_byte_of_a_json_file_is_noticed(data):
    value = {"schema_version": runs.SCHEMA_VERSION, "x": [1.5, None, {"y": "text"}], "n": 12}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.json"
        runs.write_json(path, value)
        content = bytearray(path.read_bytes())
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] ^= 1 << data.draw(st.integers(0, 7))
        path.write_bytes(content)
        try:
            found = runs.read_json(path)
        except InputError:
            return
    assert found == value  # white space may change


def test_a_folder_that_was_deleted_is_not_made_again(tmp_path):
    run = tmp_path / "run"
    with runs.held(run, SPEC):
        shutil.rmtree(run)
        with pytest.raises(InputError, match="was deleted while a run was writing"):
            runs.make_within(run, run / "trials" / "one")
        with pytest.raises(InputError, match="cannot be written"):
            runs.write_text(run / "a.txt", "x")
    assert not run.exists()


def test_a_folder_that_cannot_be_locked_is_named(tmp_path):
    (tmp_path / ".lock").mkdir()
    with pytest.raises(InputError) as caught, runs.locked(tmp_path):
        pass
    one_line(caught, tmp_path, "locked")
