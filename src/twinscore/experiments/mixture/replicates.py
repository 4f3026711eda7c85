"""The tasks of the study: one replicate of one of its conditions each, kept in a file."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from threadpoolctl import threadpool_limits

from twinscore.execution import Report
from twinscore.experiments import trials
from twinscore.experiments.folders import kept
from twinscore.experiments.mixture import shift, sweep, twins
from twinscore.experiments.mixture.spec import Spec
from twinscore.experiments.study import Arrays
from twinscore.runs import make_within

MEASURES_VERSION = 2
"""Bumped when a replicate of the same spec gives other arrays; it is part of their file's name."""

Kind = Literal["sweep", "shift", "twins"]
Condition = tuple[Kind, tuple]
"""A kind of measure, and what of it: a target of the sweep; mu and the lighter weight."""

MEASURES: dict[Kind, Callable[..., Arrays]] = {
    "sweep": sweep.measure,
    "shift": shift.measure,
    "twins": twins.measure,
}


@dataclass(frozen=True)
class Task(trials.Task):
    """One replicate of a condition."""

    condition: Condition
    replicate: int

    @property
    def label(self) -> str:
        """Names the condition, e.g. ``shift-3.0-0.5``."""
        kind, of = self.condition
        return "-".join([kind, *map(str, of)])

    @property
    def name(self) -> str:
        """Name of its file, e.g. ``shift-3.0-0.5-v2-r001``."""
        return f"{self.label}-v{MEASURES_VERSION}-r{self.replicate:03d}"

    @property
    def part(self) -> str:
        """The same replicate of all conditions."""
        return f"replicate {self.replicate}"

    @property
    def path(self) -> Path:
        """Where its arrays are kept."""
        return self.folder / "trials" / f"{self.name}.safetensors"

    @property
    def begun(self) -> bool:
        """Whether its arrays are there."""
        return self.path.exists()


def conditions(spec: Spec) -> dict[Condition, int]:
    """What is measured, and the replicates of each."""
    counts: dict[Condition, int] = {("sweep", (name,)): spec.replicates for name in spec.targets}
    counts |= {("shift", pair): spec.shift.replicates for pair in spec.shift.conditions}
    return counts | {("twins", ()): spec.twins.replicates}


def count(spec: Spec) -> int:
    """How many tasks there are."""
    return sum(conditions(spec).values())


def tasks(spec: Spec, report: Report) -> Sequence[Task]:
    """The first replicate of all conditions, then the second."""
    counts = conditions(spec)
    return [
        Task(condition, replicate)
        for replicate in range(max(counts.values()))
        for condition, replicates in counts.items()
        if replicate < replicates
    ]


def work(spec: Spec, task: Task, report: Report) -> Arrays:
    """Measure the replicate, or read what was measured."""
    kind, of = task.condition
    before = task.begun

    def measure() -> Arrays:
        report(task.label, {"text": f"replicate {task.replicate}"})
        with threadpool_limits(torch.get_num_threads()):
            return MEASURES[kind](spec, *of, task.replicate)

    make_within(task.folder, task.path.parent)
    arrays = kept(task.path, measure, of=task.seal, report=report)
    if not before:
        done = len(list(task.path.parent.glob("*.safetensors")))
        report("replicates", {"step": done, "steps": count(spec), "note": task.label})
    return arrays
