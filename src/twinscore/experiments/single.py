"""Studies with a single task: what it gives is kept as arrays, and the results follow from them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel

from twinscore.environment import Execution
from twinscore.execution import Report
from twinscore.experiments.estimates import Estimate
from twinscore.experiments.folders import remembered
from twinscore.experiments.study import Arrays, Study, Summary
from twinscore.experiments.trials import Task
from twinscore.results.base import Result
from twinscore.runs import make_within

S = TypeVar("S", bound=BaseModel)
R = TypeVar("R", bound=Result)


@dataclass(frozen=True)
class Whole(Task):
    """A task that leaves arrays of its name; by default all that a study does."""

    name: str = ""
    part: str = "everything"


def of_one(
    *,
    name: str,
    version: int,
    compute: Callable[[S, Whole, Report], Arrays],
    summarise: Callable[[S, Arrays], Summary[R]],
    estimate: Callable[[S, Execution], Estimate],
    refuse: Callable[[S, str], None],
    **declared: Any,
) -> Study[S, Whole, R]:
    """A study with a single task, which has its name.

    ``compute`` gives arrays, which are kept; ``version`` is raised when the same spec gives others.
    The rest are attributes of :class:`Study`, or the same of the one task.
    """

    def work(spec: S, task: Whole, report: Report) -> Arrays:
        folder = make_within(task.folder, task.folder / "trials")
        key, own = {"version": version}, {"of": task.seal, "report": report}
        return remembered(folder, name, key, lambda: compute(spec, task, report), **own)

    return Study(
        name=name,
        count=lambda spec: 1,
        tasks=lambda spec, report: [Whole(name)],
        work=work,
        summarise=lambda spec, done: summarise(spec, done[0][1]),
        estimate=lambda spec, left, how: estimate(spec, how),
        refuse=lambda spec, device, workers: refuse(spec, device),
        **declared,
    )
