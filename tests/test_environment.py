"""Processors and threads: what affinity, containers and the user grant."""

import math

import pytest

from twinscore import environment


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
