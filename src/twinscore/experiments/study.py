"""How every study runs, written once: refuse, claim, estimate, work on a pool, resume, write.

A study declares what is its own (:class:`Study`): what it is asked, its tasks, what one task gives,
and how results follow from them. It is found by its name: ``experiments/<name>.py`` has ``STUDY``,
``results/<name>.py`` its ``Result``, ``report/<name>.py`` its figures.
"""

import contextlib
import csv
import io
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from twinscore import environment, runs, sealed
from twinscore.denoisers import Checkpoint
from twinscore.denoisers.checkpoint import WEIGHTS
from twinscore.environment import Execution
from twinscore.errors import InputError
from twinscore.execution import Report, run_tasks, settled_torch
from twinscore.experiments import estimates, given_images
from twinscore.experiments.estimates import Cells, Estimate, Needs
from twinscore.experiments.folders import Done, remembered, run_folder
from twinscore.experiments.trials import (
    Factory,
    Task,
    Trial,
    factory_identity,
    forget_images,
    open_images,
    require_content,
    tell,
    train,
)
from twinscore.images import Given, ImageSet
from twinscore.results.base import Result

Arrays = dict[str, NDArray]
Pool = Callable[[Callable[[Any, Report], Any], Sequence[Task]], Iterator[tuple[Any, Any]]]

S = TypeVar("S", bound=BaseModel)
T = TypeVar("T", bound=Task)
R = TypeVar("R", bound=Result)

Imagined = contextlib.AbstractContextManager[tuple[S, Estimate | None]]


@dataclass(frozen=True)
class Summary(Generic[R]):
    """What a study makes of its measures: numbers, arrays, and contents of files by their names."""

    result: R
    arrays: Mapping[str, NDArray]
    tables: Mapping[str, str | bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Study(Generic[S, T, R]):
    """A study, declared. Every function is a module's own, so that workers can be given it.

    It has the ``name`` of its modules, and is asked a ``spec``.

    Attributes
    ----------
    count, tasks : callable
        ``count(spec)``: how many tasks there will be. ``tasks(spec, report)``: all of them, in the
        order in which they are begun.
    work : callable
        ``work(spec, task, report)``: what one task gives. It keeps what it gave, and reads it when
        the run continues.
    summarise : callable
        ``summarise(spec, done)``: the summary of pairs of a task and what it gave, those of whole
        parts, in the order of the tasks; None where they are too few.
    estimate : callable
        ``estimate(spec, left, how)``: what ``left`` tasks take, one or more.
    refuse : callable
        ``refuse(spec, device, workers)``: raises InputError for what does not fit the memory.
    reads, extendable : tuple of str
        Fields of the spec that name images, whose content is part of the run's identity; and lists
        that may grow, or what only ``summarise`` goes by.
    usable : callable
        ``usable(source)`` refuses images that hold nothing to work on.
    check : callable
        ``check(spec, device, network)``: refuses what cannot be done before anything is written;
        gives what else belongs to the run's identity.
    record, finish : callable
        ``record(spec, tasks, folder)`` writes what is known before the work begins;
        ``finish(spec, tasks, result, pool)`` adds to the result of a run with all its parts;
        ``pool(function, tasks)`` runs more tasks as the others.
    before, imagined : callable
        ``before(spec, out, device)``: the spec with what has to be made first, beside the folder.
        ``imagined(spec, out, device)``: a context that gives the spec as if it were made, and what
        making it takes, or None.
    refined : callable
        ``refined(spec, result)``: a spec with more tasks, which a result asks for; None if it is
        enough.
    machine : tuple of str
        Which of ``device`` and ``workers`` the command has as options; without ``device``, all
        is done by the processor; without ``workers``, tasks run in this process, one after another.
    """

    name: str
    spec: type[S]
    count: Callable[[S], int]
    tasks: Callable[[S, Report], Sequence[T]]
    work: Callable[[S, T, Report], Arrays]
    summarise: Callable[[S, Sequence[tuple[T, Arrays]]], Summary[R] | None]
    estimate: Callable[[S, int, Execution], Estimate]
    refuse: Callable[[S, str, int], None]
    reads: tuple[str, ...] = ()
    usable: Callable[[str], None] = require_content
    check: Callable[[S, str, Factory | None], Mapping[str, Any]] = lambda spec, *_: {}
    record: Callable[[S, Sequence[T], Path], None] = lambda spec, tasks, folder: None
    finish: Callable[[S, Sequence[T], R, Pool], R] = lambda spec, tasks, result, pool: result
    before: Callable[[S, Path | str | None, str], S] = lambda spec, out, device: spec
    imagined: Callable[[S, Path | str | None, str], Imagined[S]] = lambda spec, out, device: (
        contextlib.nullcontext((spec, None))
    )
    refined: Callable[[S, R], S | None] = lambda spec, result: None
    extendable: tuple[str, ...] = ()
    machine: tuple[str, ...] = ("device", "workers")

    @settled_torch()
    def run(
        self,
        spec: S,
        out: Path | str | None = None,
        *,
        device: str = "auto",
        workers: int | None = None,
        threads: int | None = None,
        network: Factory | None = None,
        images: Given | None = None,
    ) -> Done[R]:
        """Do what is not done yet, and write the run folder, by default ``runs/<study>-<hash>``.

        Running again with the same ``out`` continues what is unfinished and reuses what is done;
        lists that are ``extendable`` may have grown. Each part of the result is written as soon as
        it is known.

        Parameters
        ----------
        spec, out : BaseModel, Path
            The study's ``Spec``, and the run folder.
        device : str
            lightning-fabric's accelerator: auto, cpu, cuda, mps.
        workers : int, optional
            Tasks side by side, sharing the cores; default one per core on a CPU, else one.
        threads : int, optional
            Processors that all workers may take together; default all that affinity and container
            grant, but of ``OMP_NUM_THREADS`` for each worker.
        network : callable, optional
            The user's own ``network(channels) -> nn.Module``, instead of ``spec.network``; its
            name and code go into the hash. Tasks then run in this process, without an estimate.
        images : ImageSet, Tensor, array or map-style data set, optional
            Instead of ``spec.data``, as :func:`twinscore.images.from_data` takes them. They are
            kept in the run folder, as a packed file; their content goes into the hash.

        Raises
        ------
        InputError
            For images that the study does not take or that cannot be used, data that do not
            suffice, settings that do not fit each other, the memory or the machine (nothing is
            written then), or a folder of another run or in use.
        TrainingError
            If a loss is not finite.
        """
        if images is not None and "data" not in self.reads:
            raise InputError(f"images: {self.name} has no data to replace; name its sources")
        asked = self._asked(device, 1 if network else workers, threads)
        with settled_torch(threads), contextlib.ExitStack() as stack:
            file = None if images is None else stack.enter_context(given_images.packed_file(images))
            spec = self.before(_reading(spec, file), out, asked["device"])
            content, folder, asked = self._claimed(spec, out, asked, network)
            if file:
                spec = _reading(spec, folder / given_images.FILE)
                content["data"] = spec.data
            with run_folder(content, folder, extendable=self.extendable) as (folder, report):
                if file:
                    given_images.keep(file, folder)
                    stack.close()
                return self._run(spec, content, folder, report, asked, network)

    def _run(
        self,
        spec: S,
        content: Mapping[str, Any],
        folder: Path,
        report: Report,
        asked: dict[str, Any],
        network: Factory | None,
    ) -> Done[R]:
        """All that is not done yet, in a folder that is held."""
        name = runs.run_digest(content, self.extendable)
        how = environment.start(folder, **asked, run=name, report=report)
        with environment.timed(folder):
            for source in self._sources(spec).values():
                tell(open_images(source), report)
            if network is None and (left := self._left(spec, folder)):
                report("estimate", {"text": self.estimate(spec, left, how).text()})
            own = {"device": how.device, "custom": network}
            place = partial(Task.placed, folder=folder, run=name, **own)
            spec, tasks, result = self._work(spec, place, folder, how, report)
            report.stop()
            pool = partial(_pooled, how, report)
            if (finished := self.finish(spec, tasks, result, pool)) is not result:
                _write_result(folder, finished)
            return Done(folder, finished)

    @settled_torch()
    def cost(
        self,
        spec: S,
        out: Path | str | None,
        *,
        device: str = "auto",
        workers: int | None = None,
        threads: int | None = None,
    ) -> Estimate:
        """Time, memory and disk of what :meth:`run` would still do or refuse; writes nothing."""
        asked = self._asked(device, workers, threads)
        imagined = self.imagined(spec, out, asked["device"])
        with settled_torch(threads), imagined as (spec, first):
            _, folder, asked = self._claimed(spec, out, asked, None)
            left = self._left(spec, folder)
            how = environment.settings(folder, **asked)
            rest = self.estimate(spec, left, how) if left else estimates.NOTHING
            return first + rest if first else rest

    def _asked(self, device: str, workers: int | None, threads: int | None) -> dict[str, Any]:
        """What of the machine is asked for, once it is known to be there."""
        device = device if "device" in self.machine else "cpu"
        workers = workers if "workers" in self.machine else 1
        environment.check(device, workers, threads)
        return {"device": device, "workers": workers, "threads": threads}

    def _claimed(
        self, spec: S, out: Path | str | None, asked: dict[str, Any], network: Factory | None
    ) -> tuple[dict[str, Any], Path, dict[str, Any]]:
        """What ``spec.json`` will hold, the folder, and what is asked of the machine.

        Refuses whatever speaks against the run.
        """
        content = self._content(spec, asked["device"], asked["workers"], network)
        folder = Path(out or runs.default_folder(content))
        asked = asked | {"trials": self.count(spec)}
        environment.settings(folder, **asked)  # refuses what its threads do not allow
        return content, folder, asked

    def _content(
        self, spec: S, device: str, workers: int | None, network: Factory | None
    ) -> dict[str, Any]:
        forget_images()
        content = {"study": self.name} | spec.model_dump(mode="json")
        for field_name, source in self._sources(spec).items():
            self.usable(source)
            content[f"{field_name}_digest"] = open_images(source).digest
        content |= self.check(spec, device, network)
        if network:
            own = {"network": factory_identity(network)} if "network" in content else {}
            return content | own
        self.refuse(spec, device, workers or environment.default_workers(device, self.count(spec)))
        return content

    def _sources(self, spec: S) -> dict[str, str]:
        return {name: source for name in self.reads if (source := getattr(spec, name))}

    def _left(self, spec: S, folder: Path) -> int:
        """Tasks that have not left weights or arrays yet: all in the folder are the spec's."""
        done = [*folder.glob(f"trials/*/{WEIGHTS}"), *folder.glob("trials/*.safetensors")]
        return max(0, self.count(spec) - len(done))

    def _work(
        self, spec: S, place: Callable[[T], T], folder: Path, how: Execution, report: Report
    ) -> tuple[S, Sequence[T], R]:
        """Work on all tasks, and on what the result asks for; the last spec, tasks and result."""
        tasks = [place(task) for task in self.tasks(spec, report)]
        self.record(spec, tasks, folder)
        given: dict[tuple[str, str], Arrays] = {}
        while True:
            result = self._execute(spec, tasks, given, folder, how, report)
            if (more := self.refined(spec, result)) is None:
                return spec, tasks, result
            spec, tasks = more, [place(task) for task in self.tasks(more, report)]

    def _execute(
        self,
        spec: S,
        tasks: Sequence[T],
        given: dict[tuple[str, str], Arrays],
        folder: Path,
        how: Execution,
        report: Report,
    ) -> R:
        """Work on what is not ``given``, begun before first, and write each part that is whole."""
        new = [task for task in tasks if _place(task) not in given]
        waiting = Counter(task.part for task in new)
        outcomes = run_tasks(
            partial(self.work, spec),
            sorted(new, key=lambda task: not task.begun),
            workers=how.workers,
            threads=how.threads,
            report=report,
        )
        with contextlib.closing(outcomes):
            for task, arrays in outcomes:
                given[_place(task)] = arrays
                waiting[task.part] -= 1
                if waiting[task.part]:
                    continue
                missing = [part for part, count in waiting.items() if count]
                done = [(t, given[_place(t)]) for t in tasks if not waiting[t.part]]
                if summary := self.summarise(spec, done):
                    result = _written(folder, summary, missing)
        return result


def _reading(spec: S, file: Path | None) -> S:
    return spec.model_copy(update={"data": str(file)}) if file else spec


def _place(task: Task) -> tuple[str, str]:
    return task.part, task.name


def _pooled(
    how: Execution, report: Report, function: Callable[[T, Report], Any], tasks: Sequence[T]
) -> Iterator[tuple[T, Any]]:
    """Tasks with what they give: in this process, if an earlier run left something of each."""
    workers = 1 if all(task.begun for task in tasks) else how.workers
    yield from run_tasks(function, tasks, workers=workers, threads=how.threads, report=report)


def _written(folder: Path, summary: Summary[R], missing: list[str]) -> R:
    """Write a summary; ``result.json`` comes last, and says which arrays are its own."""
    arrays = sealed.write_arrays(folder / "arrays.safetensors", summary.arrays)
    state = {"complete": not missing, "missing": missing, "arrays": arrays}
    result = summary.result.model_copy(update=state)
    for name, content in summary.tables.items():
        write = runs.write_bytes if isinstance(content, bytes) else runs.write_text
        write(folder / name, content)
    _write_result(folder, result)
    return result


def _write_result(folder: Path, result: Result) -> None:
    runs.write_json(folder / "result.json", result.model_dump(mode="json"))


def of_trials(
    *,
    trials: Callable[[S, Report], Sequence[Trial]],
    measure: Callable[[S, Trial, Checkpoint, Report], Arrays],
    key: Callable[[S, Trial], dict[str, Any]],
    summarise: Callable[[S, Sequence[tuple[Trial, Arrays]]], Summary[R] | None],
    besides: Callable[[S, Trial, Checkpoint, Report], Arrays] | None = None,
    needs: Callable[[Any], Needs],
    cells: Cells = estimates.alone,
    **declared: Any,
) -> Study[S, Trial, R]:
    """A study whose tasks are to train a network and then to measure it.

    ``measure`` gives arrays, which are kept beside the weights; ``key`` JSON values that they
    depend on, apart from the weights; ``besides`` what is kept on its own; ``needs`` what trials
    need of time, memory and disk; ``cells`` the specs of which equally many networks are trained,
    mostly one. What else is declared are attributes of :class:`Study`.
    """
    return Study(
        tasks=trials,
        work=partial(_train_and_measure, measure, key, besides),
        summarise=summarise,
        estimate=partial(estimates.of_trainings, needs, cells=cells),
        refuse=partial(estimates.refuse_trainings, needs, cells=cells),
        **declared,
    )


def _train_and_measure(
    measure: Callable[[S, Trial, Checkpoint, Report], Arrays],
    key: Callable[[S, Trial], dict[str, Any]],
    besides: Callable[[S, Trial, Checkpoint, Report], Arrays] | None,
    spec: S,
    trial: Trial,
    report: Report,
) -> Arrays:
    model = train(trial, report)

    def compute() -> Arrays:
        report(trial.name, {"text": "trained; measuring"})
        return measure(spec, trial, model, report)

    asked, of = key(spec, trial), trial.seal
    measures = remembered(trial.path, "measures", asked, compute, of=of, report=report)
    return measures | (besides(spec, trial, model, report) if besides else {})


def stacked(each: Sequence[Arrays], names: Iterable[str] = (), axis: int = 0) -> Arrays:
    """Arrays of these names, or of all, along a new axis."""
    return {name: np.stack([of[name] for of in each], axis) for name in names or each[0]}


def csv_text(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


def parquet(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes | None:
    """A table as Parquet; None where pyarrow (extra ``hub``) is not installed."""
    try:
        from pyarrow import BufferOutputStream, table
        from pyarrow.parquet import write_table
    except ImportError:
        return None
    columns = [list(column) for column in zip(*rows, strict=True)] or [[] for _ in header]
    stream = BufferOutputStream()
    write_table(table(dict(zip(header, columns, strict=True))), stream)
    return stream.getvalue().to_pybytes()


def write_images(folder: Path, images: ImageSet, columns: Mapping[str, Iterable[Any]]) -> None:
    """Write ``images.csv``: index, name and content of each image, and what it is in the run."""
    rows = zip(range(len(images)), images.names, images.digests, *columns.values(), strict=True)
    runs.write_text(folder / "images.csv", csv_text(["index", "name", "sha256", *columns], rows))
