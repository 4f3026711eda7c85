"""The machine side of a run: settings fixed at its start, versions, wall time."""

import math
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from twinscore import runs
from twinscore.errors import InputError
from twinscore.execution import Report, granted_threads

PACKAGES = ("twinscore", "torch", "numpy", "scipy", "scikit-image", "scikit-learn")


@dataclass(frozen=True)
class Execution:
    """How a run uses the machine; not part of any hash.

    ``threads`` is fixed when the run starts, since weights depend on it in the last bit;
    ``device`` and ``workers`` may change when it continues.
    """

    device: str
    workers: int
    threads: int


def available_cores() -> int:
    """Processors that this process may use: by affinity, quota of its container, and ``--threads``.

    In a worker, and inside :func:`~twinscore.execution.settled_torch`, its share of them.
    """
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min(own, quota(), granted_threads() or math.inf)))


def quota(root: Path = Path("/")) -> float:
    """Processors that the control groups of this process grant it; infinite where none limits it.

    Of Linux, below ``root``: ``cpu.max`` of the unified hierarchy, or ``cpu.cfs_quota_us`` of the
    earlier one, of the process's group and of those around it.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return math.inf
    found = [math.inf]
    for line in lines:
        _, controllers, own = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        group = root / "sys/fs/cgroup" / ("cpu" if controllers else "")
        found.append(_granted(group))
        for part in Path(own).parts[1:]:
            group /= part
            found.append(_granted(group))
    return min(found)


def _granted(group: Path) -> float:
    """Processors that one control group grants."""
    files = [group / f"cpu.cfs_{what}_us" for what in ("quota", "period")]
    unified = group / "cpu.max"
    try:
        words = unified.read_text().split() if unified.exists() else [f.read_text() for f in files]
        most, period = map(int, words)
    except (OSError, ValueError):  # there is no limit, or it is "max"
        return math.inf
    return most / period if most > 0 and period > 0 else math.inf


def asked_threads() -> int | None:
    """What ``OMP_NUM_THREADS`` says, if it is a number."""
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(first) if first.isdecimal() and int(first) > 0 else None


def own_threads(threads: int | None) -> int:
    """Threads of work that one process does: those given, else by ``OMP_NUM_THREADS`` and cores."""
    cores = available_cores()
    return threads or min(asked_threads() or cores, cores)


def check(device: str, workers: int | None = None, threads: int | None = None) -> None:
    """Refuse settings that this machine cannot serve, before anything is written.

    Raises
    ------
    InputError
        If the device is not there, ``workers`` or ``threads`` is less than 1, ``threads`` are more
        than the processors, or ``workers`` more than ``threads``.
    """
    import torch

    for flag, number in (("--workers", workers), ("--threads", threads)):
        if number is not None and number < 1:
            raise InputError(f"{flag}: {number} is too few; give at least 1")
    if threads and threads > (cores := available_cores()):
        raise InputError(
            f"--threads: {threads} is more than this process may use; give {cores} at most"
        )
    if threads and workers and workers > threads:
        raise InputError(
            f"--workers: {workers} take more than --threads {threads}; give {threads} at most"
        )
    missing = {
        "cuda": not torch.cuda.is_available(),
        "mps": not torch.backends.mps.is_available(),
    }
    if missing.get(device):
        raise InputError(f"--device: {device} is not available on this machine; give auto or cpu")


def settings(
    folder: Path, *, device: str, workers: int | None, trials: int, threads: int | None = None
) -> Execution:
    """Settings of a run: those it was started with, or new ones.

    On a CPU the default is one trial per core with one thread each: two twins side by side on two
    cores finish sooner than one after the other with both (benchmarks/training.py). On other
    devices trials run one at a time. ``threads`` are what all of them may take together;
    ``OMP_NUM_THREADS``, where they are not given, lowers the threads of each.

    Raises
    ------
    InputError
        If the threads that the run was begun with are more than ``threads`` allow.
    """
    most, each = threads or available_cores(), _known(folder)["threads"]
    side_by_side = workers or min(default_workers(device, trials), max(1, most // (each or 1)))
    if threads and each and side_by_side * each > threads:
        raise InputError(
            f"--threads: {threads} is too few: {folder} was begun with {each} for each worker, "
            f"which its numbers depend on; give at least {side_by_side * each}, or a new --out"
        )
    shared = max(1, most // side_by_side)
    asked = threads or asked_threads() or shared
    return Execution(device, side_by_side, each or min(asked, shared))


def start(
    folder: Path,
    *,
    device: str,
    workers: int | None,
    trials: int,
    run: str,
    report: Report,
    threads: int | None = None,
) -> Execution:
    """The :func:`settings` of a run, recorded in its folder with the digest that names the run.

    A damaged record is written anew, which ``report`` is told: threads are then chosen again.
    """
    path, known = folder / "environment.json", _known(folder)
    if path.exists() and not known["threads"]:
        text = f"{path}: damaged; written anew, so that what is left may use other threads"
        report("files", {"text": text})
    execution = settings(folder, device=device, workers=workers, trials=trials, threads=threads)
    content = {
        "started": known["started"] or runs.now(),
        "finished": None,
        "wall_seconds": known["wall_seconds"],
        "run": run,
    }
    version = {"schema_version": runs.SCHEMA_VERSION}
    runs.write_json(path, version | vars(execution) | content | description())
    return execution


def _known(folder: Path) -> dict[str, Any]:
    """What an earlier part of the run recorded, or nothing where that cannot be trusted."""
    try:
        found = runs.read_json(folder / "environment.json")
    except InputError:
        found = {}
    kinds = {"started": str, "threads": int, "wall_seconds": float}
    known = {name: found.get(name) for name in kinds}
    if all(type(known[name]) is kind for name, kind in kinds.items()) and known["threads"] > 0:
        return known
    return {"started": None, "threads": None, "wall_seconds": 0.0}


def default_workers(device: str, trials: int) -> int:
    """How many of a run's trials are trained side by side by default."""
    return min(available_cores(), trials) if on_cpu(device) else 1


def on_cpu(device: str) -> bool:
    """Whether a device, ``auto`` among them, is the processor."""
    return device == "cpu" or (device == "auto" and not _accelerated())


@contextmanager
def timed(folder: Path) -> Iterator[None]:
    """Record how long the work inside took, however it ends, and when it finished, if it did."""
    path, began, finished = folder / "environment.json", time.monotonic(), None
    content = runs.read_json(path)
    try:
        yield
        finished = runs.now()
    finally:
        seconds = content["wall_seconds"] + time.monotonic() - began
        runs.write_json(path, content | {"finished": finished, "wall_seconds": seconds})


def description() -> dict[str, Any]:
    """Versions, processor and system."""
    versions = {name: version(name) for name in PACKAGES}
    return {
        "versions": {"python": platform.python_version()} | versions,
        "processor": _processor(),
        "system": platform.platform(),
    }


def _accelerated() -> bool:
    import torch

    return torch.accelerator.is_available()


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
