"""Processors and threads: what affinity, containers and the user grant."""

import math
import re
import tempfile
from pathlib import Path

import hypothesis
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from threadpoolctl import threadpool_info

from twinscore import cli, environment, runs
from twinscore.errors import InputError
from twinscore.execution import run_tasks, settled_torch


def machine(root, groups, files):
    """A file system with the control groups of a process, and limits of some of them."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(groups)
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/\n", {"cpu.max": "max 100000\n"}, math.inf),
        ("0::/a/b\n", {"a/cpu.max": "400000 100000", "a/b/cpu.max": "max 100000"}, 4),
        ("0::/a/b\n", {"a/cpu.max": "400000 100000", "a/b/cpu.max": "50000 100000"}, 0.5),
        ("4:memory:/x\n3:cpu,cpuacct:/d\n", {"cpu/d/cpu.cfs_quota_us": "-1"}, math.inf),
        (
            "3:cpu,cpuacct:/d\n",
            {"cpu/d/cpu.cfs_quota_us": "300000", "cpu/d/cpu.cfs_period_us": "100000"},
            3,
        ),
        ("2:cpuacct:/d\n", {"cpu.max": "100000 100000"}, math.inf),
        ("0::/\n", {"cpu.max": "damaged"}, math.inf),
    ],
)
def test_quotas_of_containers_are_heeded(tmp_path, groups, files, expected):
    assert environment.quota(machine(tmp_path, groups, files)) == expected


def test_without_control_groups_there_is_no_quota(tmp_path):
    assert environment.quota(tmp_path) == math.inf


@pytest.mark.parametrize(("granted", "cores"), [(0.5, 1), (1.5, 1), (2, 2), (math.inf, 3)])
def test_cores_are_whole_and_at_least_one(monkeypatch, granted, cores):
    monkeypatch.setattr(environment, "quota", lambda: granted)
    monkeypatch.setattr(environment.os, "sched_getaffinity", lambda _: {0, 1, 2}, raising=False)
    assert environment.available_cores() == cores


@pytest.mark.parametrize(
    ("said", "workers", "threads"),
    [
        (None, 1, 4),
        ("1", 1, 1),
        ("3", 1, 3),
        ("8", 1, 4),
        ("2,1", 1, 2),
        ("none", 1, 4),
        ("3", 2, 2),
    ],
)
def test_the_users_threads_are_heeded(monkeypatch, tmp_path, said, workers, threads):
    monkeypatch.setattr(environment, "available_cores", lambda: 4)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if said:
        monkeypatch.setenv("OMP_NUM_THREADS", said)
    how = environment.settings(tmp_path, device="cpu", workers=workers, trials=8)
    assert (how.workers, how.threads) == (workers, threads)


# What --threads grants


@pytest.mark.parametrize(
    ("threads", "workers", "omp", "expected"),
    [
        (1, None, None, (1, 1)),
        (3, None, None, (3, 1)),
        (4, 2, None, (2, 2)),
        (4, 3, None, (3, 1)),
        (4, 1, "1", (1, 4)),  # the flag is said of this run, the variable of all
        (None, 2, "1", (2, 1)),
    ],
)
def test_workers_and_threads_share_what_is_granted(
    monkeypatch, tmp_path, threads, workers, omp, expected
):
    monkeypatch.setattr(environment, "quota", lambda: math.inf)
    monkeypatch.setattr(environment.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if omp:
        monkeypatch.setenv("OMP_NUM_THREADS", omp)
    with settled_torch(threads):
        asked = {"device": "cpu", "workers": workers, "threads": threads}
        how = environment.settings(tmp_path, **asked, trials=8)
    assert (how.workers, how.threads) == expected
    assert how.workers * how.threads <= (threads or 8)


@given(
    st.integers(1, 9),
    st.none() | st.integers(1, 9),
    st.integers(1, 9),
    st.sampled_from(["cpu", "cuda"]),
    st.none() | st.integers(1, 9),
    st.integers(1, 9),
)
@hypothesis.settings(deadline=None)
def test_no_more_is_taken_than_granted(cores, threads, trials, device, workers, begun):
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(environment, "quota", lambda: math.inf)
        patch.setattr(environment.os, "sched_getaffinity", lambda _: range(cores), raising=False)
        patch.delenv("OMP_NUM_THREADS", raising=False)
        known = {"started": "", "threads": begun, "wall_seconds": 0.0}
        runs.write_json(Path(folder) / "environment.json", known)
        asked = {"device": device, "workers": workers, "threads": threads}
        most = threads or cores
        for place in (Path(folder), Path(folder) / "new"):
            try:
                if device == "cpu":
                    environment.check(**asked)
                with settled_torch(threads):
                    how = environment.settings(place, **asked, trials=trials)
            except InputError as refused:
                said = str(refused)
            else:
                said = None
            if said:
                assert threads
                assert re.match("--(threads|workers): ", said)
                continue
            new = place.name == "new"
            assert how.threads == begun or new
            if threads and device == "cpu":
                assert how.workers * how.threads <= threads
            elif new and not workers:
                assert how.workers * how.threads <= most


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--threads", "0"], "--threads: 0 is too few; give at least 1"),
        (["--threads", "-1"], "--threads: -1 is too few; give at least 1"),
        (["--threads", "3"], "--threads: 3 is more than this process may use; give 2 at most"),
    ],
)
@pytest.mark.parametrize("command", sorted(set(cli.commands()) - {"report"}))
def test_threads_that_cannot_be_given_are_refused(
    monkeypatch, tmp_path, capsys, command, words, said
):
    monkeypatch.setattr(environment, "quota", lambda: 2)
    monkeypatch.setattr(environment.os, "sched_getaffinity", lambda _: range(4), raising=False)
    assert cli.main([command, *words, "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == f"twinscore: {said}\n"
    assert list(tmp_path.iterdir()) == []


def test_workers_beyond_the_threads_are_refused():
    with pytest.raises(InputError, match="--workers: 2 take more than --threads 1; give 1 at most"):
        environment.check("cpu", 2, 1)


def test_a_run_is_not_continued_with_fewer_threads_than_its_weights_depend_on(tmp_path):
    known = {"started": "", "threads": 2, "wall_seconds": 0.0}
    runs.write_json(tmp_path / "environment.json", known)
    with pytest.raises(InputError, match=r"--threads: 1 is too few: .* give at least 2, or a new"):
        environment.settings(tmp_path, device="cpu", workers=None, threads=1, trials=4)


def test_a_worker_uses_no_more_than_its_share():
    """Torch, what counts processors, and the libraries below numpy."""
    expected = 1, 1, {1}
    found = list(run_tasks(counted, ["1", "2"], workers=2, threads=1, report=lambda *_: None))
    assert [outcome for _, outcome in found] == [expected] * 2
    for threads in (1, 2):
        with settled_torch(threads):
            available = min(threads, environment.available_cores())
            assert counted("here") == (threads, available, {threads})


def counted(task, report=None):
    pools = {each["num_threads"] for each in threadpool_info()}
    return torch.get_num_threads(), environment.available_cores(), pools


TRAIN = (
    *("--n", "4", "--test", "4", "--network.width", "2", "--network.levels", "1"),
    *("--training.steps", "2", "--training.batch", "2", "--training.evaluations", "1"),
)


def test_threads_of_a_run_are_recorded(tmp_path, capsys):
    out = tmp_path / "run"
    assert cli.main(["train", *TRAIN, "--device", "cpu", "--threads", "1", "--out", str(out)]) == 0
    assert runs.read_json(out / "environment.json")["threads"] == 1
