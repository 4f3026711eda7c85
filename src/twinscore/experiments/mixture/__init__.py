"""Early stopping, capacity and modes shift of score models ([GP]; STUDIES section 6), exactly."""

import contextlib
import csv
import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import BaseModel
from safetensors.numpy import load_file
from safetensors.numpy import save as serialise
from threadpoolctl import threadpool_limits

from twinscore import environment, runs
from twinscore.execution import Report, run_tasks
from twinscore.experiments.folders import Done, run_folder
from twinscore.experiments.mixture import assembly, shift, sweep, twins
from twinscore.experiments.mixture.results import Result
from twinscore.experiments.mixture.spec import Spec
from twinscore.experiments.mixture.sweep import Arrays
from twinscore.experiments.study import of_old

__all__ = ["Done", "Result", "Spec", "run"]


MEASURES_VERSION = 2
"""Bumped when a replicate of the same spec gives other arrays; it is part of their file's name."""

_MEASURES: dict[str, Callable[..., Arrays]] = {
    "sweep": sweep.measure,
    "shift": shift.measure,
    "twins": twins.measure,
}


@dataclass(frozen=True)
class _Task:
    """One replicate of one part of the study, and the file it ends in."""

    spec: Spec
    part: str
    condition: tuple
    replicate: int
    folder: Path
    threads: int

    @property
    def key(self) -> str:
        """Part and condition."""
        return "-".join([self.part, *(f"{value}" for value in self.condition)])

    @property
    def path(self) -> Path:
        """Where its arrays are kept."""
        name = f"{self.key}-v{MEASURES_VERSION}-r{self.replicate:03d}.safetensors"
        return self.folder / "trials" / name


def run(spec: Spec, out: Path | None = None, *, workers: int | None = None) -> Done[Result]:
    """Measure every replicate, fit, and write the run folder.

    Running again with the same ``out`` reuses the replicates that are done.

    Parameters
    ----------
    spec : Spec
        The study.
    out : Path, optional
        Run folder; default ``runs/mixture-<hash>``.
    workers : int, optional
        Replicates measured side by side, sharing the cores; default one per core.

    Returns
    -------
    Done
        The folder and the result, also written there as ``result.json``.

    Raises
    ------
    InputError
        For fewer than 1 worker, or a folder of another run or in use.
    """
    environment.check("cpu", workers)
    content = {"study": "mixture"} | spec.model_dump(mode="json")
    with run_folder(content, out) as (folder, report):
        (folder / "trials").mkdir(exist_ok=True)
        how = environment.start(folder, device="cpu", workers=workers, trials=spec.replicates)
        tasks = _tasks(spec, folder, how.threads)
        with environment.timed(folder):
            _execute(tasks, how.workers, how.threads, report)
            measured: dict[str, dict[str, np.ndarray]] = {}
            for key in dict.fromkeys(task.key for task in tasks):
                arrays = [load_file(task.path) for task in tasks if task.key == key]
                measured[key] = {name: np.stack([a[name] for a in arrays]) for name in arrays[0]}
            return Done(folder, _write(folder, spec, measured))


def _tasks(spec: Spec, folder: Path, threads: int) -> list[_Task]:
    plan = [("sweep", (name,), spec.replicates) for name in spec.targets]
    plan += [("shift", pair, spec.shift.replicates) for pair in spec.shift.conditions]
    plan += [("twins", (), spec.twins.replicates)]
    return [
        _Task(spec, part, condition, replicate, folder, threads)
        for part, condition, count in plan
        for replicate in range(count)
    ]


def _execute(tasks: list[_Task], workers: int, threads: int, report: Report) -> None:
    """Measure what is not there yet."""
    rest = [task for task in tasks if not task.path.exists()]
    done = len(tasks) - len(rest)
    if done:
        report("replicates", {"text": f"{done} of {len(tasks)} are there already"})
    outcomes = run_tasks(_work, rest, workers=workers, threads=threads, report=report)
    with contextlib.closing(outcomes):
        for task, _ in outcomes:
            done += 1
            report("replicates", {"step": done, "steps": len(tasks), "note": task.key})


def _work(task: _Task, report: Report) -> None:
    report(task.key, {"text": f"replicate {task.replicate}"})
    with threadpool_limits(task.threads):
        arrays = _MEASURES[task.part](task.spec, *task.condition, task.replicate)
    content = serialise({name: np.ascontiguousarray(values) for name, values in arrays.items()})
    runs.write_atomic(task.path, lambda path: path.write_bytes(content))


def _write(folder: Path, spec: Spec, measured: dict[str, dict[str, np.ndarray]]) -> Result:
    result, arrays = assembly.assemble(spec, measured)
    runs.write_atomic(
        folder / "arrays.safetensors",
        lambda path: path.write_bytes(
            serialise({name: np.ascontiguousarray(value) for name, value in arrays.items()})
        ),
    )
    runs.write_text(folder / "levels.csv", _levels(result))
    runs.write_text(folder / "shift.csv", _shift(result))
    runs.write_text(folder / "result.json", result.model_dump_json(indent=2) + "\n")
    return result


def _levels(result: Result) -> str:
    """Best stopping for every target, n and m, as CSV; n is empty for infinitely many."""
    numbers = ("tau", "kl", "floor")
    header = ["target", "n", "m", *_columns(numbers), "last", "inside", "left_out"]
    rows = [
        [s.target, s.n, s.m, *_values(s, numbers), _text(s.last), int(s.inside), s.left_out]
        for s in result.stops
    ]
    return _csv(header, rows)


def _shift(result: Result) -> str:
    """What each mixture cost and when its modes are there, as CSV; n is empty for infinitely many.

    ``left_at`` and ``right_at`` are medians over replicates, empty for a mode that is lost.
    """
    numbers = ("kl", "approximation", "training")
    header = ["mu", "lighter", "n", "tau", *_columns(numbers), "prior", "left_at", "right_at"]
    rows = []
    for s in result.shifted:
        times = [_text(at and at.median) for at in s.learned_at or (None, None)]
        values = _values(s, numbers)
        rows.append([s.mu, s.lighter, s.n, _text(s.tau), *values, _text(s.prior), *times])
    return _csv(header, rows)


def _columns(numbers: Iterable[str]) -> list[str]:
    return [name + end for name in numbers for end in ("", "_low", "_high")]


def _values(row: BaseModel, numbers: Iterable[str]) -> list[str]:
    found = [getattr(row, name) for name in numbers]
    return [_text(v) for x in found for v in ((x.value, x.low, x.high) if x else [None] * 3)]


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _csv(header: list[str], rows: list[list]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


STUDY = of_old("mixture", Spec, lambda *a, **k: run(*a, **k), ("workers",))
