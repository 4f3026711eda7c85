"""The transition from memorisation to generalisation ([GAHB] section 2.2): twins at several N."""

import contextlib
import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from safetensors.numpy import save as serialise

from twinscore import environment, runs
from twinscore import images as image_sets
from twinscore.denoisers import NetworkSpec
from twinscore.environment import Execution
from twinscore.execution import Report, run_tasks
from twinscore.experiments import comparison, extremes, results, splits
from twinscore.experiments.drawing import SamplingSpec
from twinscore.experiments.folders import Done
from twinscore.experiments.results import Result
from twinscore.experiments.splits import Split
from twinscore.experiments.study import of_old
from twinscore.experiments.trials import (
    Factory,
    Measures,
    Trial,
    factory_name,
    measure,
    open_distinct,
    train,
)
from twinscore.images import ImageSet, Twins
from twinscore.progress import Reporter
from twinscore.training import TrainingSpec

__all__ = ["Result", "Spec", "run"]


class Spec(BaseModel):
    """Twins on growing subsets, their samples, and where they stop memorising."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    data: str = "digits"
    """Images: a name (digits), a path, or kind:body, then ,key=value (docs/images.md)."""
    sizes: tuple[int, ...] = (10, 100, 500)
    """Training set sizes N; each trains two twins on disjoint subsets."""
    test: int = Field(default=128, ge=2)
    """Held-out test images, the same for every N."""
    samples: int = Field(default=256, ge=2)
    """Samples drawn from each twin, from shared noise."""
    replicates: int = Field(default=1, ge=1)
    """Times to repeat with other splits and seeds; with 1, intervals cover samples only."""
    split: str = "auto"
    """How A, B and test set are told apart: random, group (no person or photograph in two of
    them), label (the same share of each), attribute (A has it, B has not), auto (by group where
    there are groups, else random), or a folder with a.txt, b.txt and test.txt."""
    attribute: str | None = None
    """For split attribute: its name, or a label."""
    duplicate_threshold: float = Field(default=0.95, gt=0, le=1)
    """Drop an image whose correlation with an earlier one exceeds this; 1 drops none."""
    seed: int = Field(default=0, ge=0)
    """Seed of splits, weights, noise and samples."""
    network: NetworkSpec = NetworkSpec()
    """The denoiser."""
    training: TrainingSpec = TrainingSpec()
    """How it is trained."""
    sampling: SamplingSpec = SamplingSpec()
    """How samples are drawn."""

    @field_validator("sizes")
    @classmethod
    def _sizes(cls, sizes: tuple[int, ...]) -> tuple[int, ...]:
        if not sizes or min(sizes) < 1:
            raise ValueError(f"give one or more sizes of at least 1, got {list(sizes)}")
        return tuple(sorted(set(sizes)))

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.split == "attribute" and self.attribute is None:
            raise ValueError("split attribute needs the name of one; give --attribute NAME")
        if self.split != "attribute" and self.attribute is not None:
            raise ValueError(
                f"attribute {self.attribute!r} needs split attribute, not {self.split!r}"
            )
        if self.split not in image_sets.BY and self.replicates > 1:
            raise ValueError(
                f"split {self.split!r} is a folder with one split; give replicates 1, "
                f"not {self.replicates}"
            )
        return self


@dataclass(frozen=True)
class _Plan:
    """A run before anything is trained: its images, their roles, its trials."""

    spec: Spec
    images: ImageSet
    keep: np.ndarray
    split: Split
    folder: Path
    trials: list[Trial]
    seeds: np.ndarray


@dataclass(frozen=True)
class _Task:
    """A trial and what is measured on it; runs in a worker."""

    trial: Trial
    seeds: np.ndarray
    sampling: SamplingSpec
    batch: int


def run(
    spec: Spec,
    out: Path | None = None,
    *,
    device: str = "auto",
    workers: int | None = None,
    network: Factory | None = None,
) -> Done[Result]:
    """Train all twins, sample, compare, and write the run folder.

    Running again with the same ``out`` continues what is unfinished and reuses what is done; more
    ``sizes`` extend the run.

    Parameters
    ----------
    spec : Spec
        The study.
    out : Path, optional
        Run folder; default ``runs/transition-<hash>``.
    device : str
        lightning-fabric's accelerator: auto, cpu, cuda, mps.
    workers : int, optional
        Trials trained side by side, sharing the cores; default one per core on a CPU, else one.
    network : callable, optional
        The user's own ``network(channels) -> nn.Module``, instead of ``spec.network``; its dotted
        name goes into the hash. Trials then run in this process.

    Returns
    -------
    Done
        The folder and the result, also written there as ``result.json``.

    Raises
    ------
    InputError
        For data that do not suffice, settings that do not fit each other or the machine, or a
        folder of another run or in use.
    TrainingError
        If a loss is not finite.
    """
    environment.check(device, workers)
    images, keep = open_distinct(spec.data, spec.duplicate_threshold)
    lists = splits.listed(spec.split, images)
    split = (
        splits.by_lists(images, keep, lists, spec.test)
        if lists
        else splits.by_rule(images, keep, spec.split, spec.attribute, spec.test, spec.seed)
    )
    for replicate in range(spec.replicates):
        split(max(spec.sizes), replicate)  # refuse sizes before any work
    content = _content(spec, images, lists, network)
    folder = out or runs.default_folder(content)
    runs.make_folder(folder)
    with runs.locked(folder):
        runs.claim(folder, content, extendable=("sizes",))
        if network:
            workers = 1
        how = environment.start(
            folder,
            device=device,
            workers=workers,
            trials=2 * len(spec.sizes) * spec.replicates,
        )
        plan = _plan(spec, images, keep, split, folder, how, network)
        _write_images(plan)
        with environment.timed(folder):
            with Reporter(folder / "log.txt") as report:
                for name in images.skipped:
                    report("images", {"text": f"left out {name}: it cannot be read"})
                result = _execute(plan, how, report)
            result = extremes.add_harmonics(result, plan.trials, folder)
            _write_json(folder, result)
    return Done(folder, result)


def _content(
    spec: Spec, images: ImageSet, lists: Twins | None, network: Factory | None
) -> dict[str, Any]:
    """What ``spec.json`` holds."""
    content = (
        {"study": "transition"} | spec.model_dump(mode="json") | {"data_digest": images.digest}
    )
    if lists:
        content["split_digest"] = runs.digest({k: v.tolist() for k, v in vars(lists).items()})
    return content | ({"network": factory_name(network)} if network else {})


def _plan(
    spec: Spec,
    images: ImageSet,
    keep: np.ndarray,
    split: Split,
    folder: Path,
    how: Execution,
    network: Factory | None,
) -> _Plan:
    mean = tuple(images.take(keep).mean())
    trials = []
    for n in spec.sizes:
        for replicate in range(spec.replicates):
            twins = split(n, replicate)
            trials += [
                Trial(
                    source=spec.data,
                    data_digest=images.digest,
                    indices=indices,
                    test=twins.test,
                    mean=mean,
                    twin=twin,
                    replicate=replicate,
                    seed=spec.seed,
                    network=spec.network,
                    training=spec.training,
                )
                for twin, indices in (("a", twins.a), ("b", twins.b))
            ]
    trials = [trial.placed(folder, how.device, network) for trial in trials]
    trials.sort(key=lambda trial: not trial.trained)  # so that no finished level goes missing
    seeds = np.array([runs.derive_seed(spec.seed, "image", i) for i in range(spec.samples)])
    return _Plan(spec, images, keep, split, folder, trials, seeds)


def _write_images(plan: _Plan) -> None:
    """Record the order of the images, their content and their role, and the largest split."""
    roles = np.full((plan.spec.replicates, len(plan.images)), "", dtype=object)
    roles[:, np.setdiff1d(np.arange(len(plan.images)), plan.keep)] = "near-duplicate"
    for trial in sorted(plan.trials, key=lambda t: -t.n):
        if trial.n == max(plan.spec.sizes):
            roles[trial.replicate, trial.test] = "test"
            roles[trial.replicate, trial.indices] = [
                f"{trial.twin}{rank}" for rank in range(trial.n)
            ]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["index", "name", "sha256", *(f"role_{r}" for r in range(len(roles)))])
    rows = zip(plan.images.names, plan.images.digests, *roles, strict=True)
    writer.writerows((index, *row) for index, row in enumerate(rows))
    runs.write_text(plan.folder / "images.csv", text.getvalue())
    for replicate in range(plan.spec.replicates):
        largest = plan.split(max(plan.spec.sizes), replicate)
        image_sets.write_names(plan.folder / "splits" / f"r{replicate}", plan.images, largest)


def _work(task: _Task, report: Report) -> Measures:
    checkpoint = train(task.trial, report)
    report(task.trial.name, {"text": "trained; measuring"})
    return measure(task.trial, checkpoint, task.seeds, task.sampling, task.batch)


def _execute(plan: _Plan, how: Execution, report: Report) -> Result:
    spec = plan.spec
    tasks = [_Task(t, plan.seeds, spec.sampling, spec.training.batch) for t in plan.trials]
    measured: dict[tuple[int, int, str], Measures] = {}
    outcomes = run_tasks(_work, tasks, workers=how.workers, threads=how.threads, report=report)
    with contextlib.closing(outcomes):
        for task, outcome in outcomes:
            trial = task.trial
            measured[trial.n, trial.replicate, trial.twin] = outcome
            if sum(n == trial.n for n, _, _ in measured) == 2 * spec.replicates:
                result = _write_result(plan, measured)
    return result


def _write_result(plan: _Plan, measured: dict[tuple[int, int, str], Measures]) -> Result:
    """Assemble every level whose twins are all measured, and write it."""
    spec, replicates = plan.spec, range(plan.spec.replicates)
    done = [
        n for n in spec.sizes if all((n, r, twin) in measured for r in replicates for twin in "ab")
    ]
    levels, arrays, gaps = [], {}, {}
    for n in done:
        pairs = [(measured[n, r, "a"], measured[n, r, "b"]) for r in replicates]
        twins = [plan.split(n, r) for r in replicates]
        level, kept, gaps[n] = comparison.compare(plan.images, pairs, twins, spec.seed)
        levels.append(level)
        seeds = {"noise_seeds": plan.seeds[: len(kept["samples_a"])]}
        arrays |= {f"n{n:05d}/{name}": value for name, value in (seeds | kept).items()}
    implausible = [level.n for level in levels if not level.plausible]
    critical, phrase = comparison.critical_n(gaps, spec.seed, implausible)
    missing = [f"N = {n}" for n in spec.sizes if n not in done]
    result = Result(
        complete=not missing,
        missing=missing,
        verdict=results.sentence(levels, phrase, spec.data),
        critical_n=critical,
        critical_n_phrase=phrase,
        closest_pairs=levels[-1].closest_pairs,
        held_out_nearest=levels[-1].held_out_nearest,
        data=results.Data(
            source=spec.data,
            images=len(plan.images),
            dropped=len(plan.images) - len(plan.keep),
            threshold=spec.duplicate_threshold,
            shape=plan.images.shape,
            test=spec.test,
            split=image_sets.resolve(plan.images, spec.split),
            attribute=spec.attribute,
        ),
        levels=levels,
    )
    runs.write_atomic(
        plan.folder / "arrays.safetensors", lambda path: path.write_bytes(serialise(arrays))
    )
    runs.write_text(plan.folder / "levels.csv", results.table(levels))
    _write_json(plan.folder, result)
    return result


def _write_json(folder: Path, result: Result) -> None:
    runs.write_text(folder / "result.json", result.model_dump_json(indent=2) + "\n")


STUDY = of_old("transition", Spec, lambda *a, **k: run(*a, **k), ("device", "workers"))
