"""Studies with a single task: what it gives is kept as arrays, and the results follow from them."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self, TypeVar

from pydantic import BaseModel

from twinscore.environment import Execution
from twinscore.execution import Report
from twinscore.experiments.estimates import NOTHING, Estimate
from twinscore.experiments.folders import remembered
from twinscore.experiments.study import Arrays, Study, Summary
from twinscore.experiments.trials import Factory
from twinscore.results.base import Result

S = TypeVar("S", bound=BaseModel)
R = TypeVar("R", bound=Result)


@dataclass(frozen=True)
class Whole:
    """The one task of a study, by whose name it is known."""

    name: str
    folder: Path = Path()
    device: str = "cpu"
    custom: Factory | None = None
    part = "everything"

    @property
    def begun(self) -> bool:
        """Whether its arrays are there."""
        return any(self.folder.glob(f"trials/{self.name}-*.safetensors"))

    def placed(self, folder: Path, device: str, custom: Factory | None) -> Self:
        """The same in a run's folder, on a device, with the user's own network if any."""
        return replace(self, folder=folder, device=device, custom=custom)


def of_one(
    *,
    name: str,
    version: int,
    compute: Callable[[S, Whole, Report], Arrays],
    summarise: Callable[[S, Arrays], Summary[R]],
    estimate: Callable[[S, Execution], Estimate],
    refuse: Callable[[S, str], None],
    **declared: Any,
) -> Study:
    """A study with a single task.

    Parameters
    ----------
    name : str
        Of the study and of its task.
    version : int
        Raised when the same spec gives other arrays.
    compute : callable
        ``compute(spec, task, report)``: arrays, which are kept.
    summarise, estimate, refuse : callable
        As those of :class:`Study`, of the one task.
    **declared
        The other attributes of :class:`Study`.
    """

    def work(spec: S, task: Whole, report: Report) -> Arrays:
        key, folder = {"version": version}, task.folder / "trials"
        return remembered(folder, name, key, lambda: compute(spec, task, report))

    return Study(
        name=name,
        count=lambda spec: 1,
        tasks=lambda spec, report: [Whole(name)],
        work=work,
        summarise=lambda spec, done: summarise(spec, done[0][1]),
        estimate=lambda spec, left, how: estimate(spec, how) if left else NOTHING,
        refuse=lambda spec, device, workers: refuse(spec, device),
        **declared,
    )
