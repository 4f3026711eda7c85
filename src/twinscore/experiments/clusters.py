"""Near and far modes on real images ([GP]): networks trained on two clusters, alike or unalike."""

import contextlib
import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator
from safetensors.numpy import save as serialise

from twinscore import environment, runs
from twinscore import images as image_sets
from twinscore.denoisers import Checkpoint, NetworkSpec
from twinscore.environment import Execution
from twinscore.errors import InputError
from twinscore.execution import Report, run_tasks
from twinscore.experiments import cluster_results
from twinscore.experiments.cluster_results import Name, Outcome, Result
from twinscore.experiments.drawing import SamplingSpec
from twinscore.experiments.folders import Done, remembered, run_folder
from twinscore.experiments.likelihood import LikelihoodSpec, bits_per_dimension
from twinscore.experiments.study import of_old
from twinscore.experiments.trials import (
    Trial,
    measure,
    open_distinct,
    open_images,
    train,
)
from twinscore.images import Clusters, ImageSet, Pair, Twins
from twinscore.runs import derive_seed
from twinscore.training import TrainingSpec, history, single_device
from twinscore.training.fit import HISTORY

__all__ = ["Done", "Result", "Spec", "run"]


class Spec(BaseModel):
    """Twins trained on the two nearest, and on the two farthest, of the clusters of images."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    data: str = "digits"
    """Images: a name (digits), a path, or kind:body, then ,key=value (docs/images.md)."""
    clusters: int = Field(default=15, ge=3)
    """Clusters of k-means."""
    components: int = Field(default=100, ge=1)
    """Principal components of the standardised images in which they are clustered, at most d."""
    n: int = Field(default=80, ge=2, multiple_of=2)
    """Training images of each twin, half of them from each cluster."""
    test: int = Field(default=64, ge=4, multiple_of=2)
    """Held-out test images, half of them from each cluster."""
    samples: int = Field(default=256, ge=2)
    """Samples drawn from each twin, from shared noise."""
    replicates: int = Field(default=5, ge=2)
    """Times to repeat with other splits and seeds; all intervals are over replicates."""
    duplicate_threshold: float = Field(default=0.98, gt=0, le=1)
    """Drop an image whose correlation with an earlier one exceeds this; 1 drops none."""
    seed: int = Field(default=0, ge=0)
    """Seed of clusters, splits, weights, noise and samples."""
    network: NetworkSpec = NetworkSpec()
    """The denoiser."""
    training: TrainingSpec = TrainingSpec()
    """How it is trained."""
    sampling: SamplingSpec = SamplingSpec()
    """How samples are drawn."""
    likelihood: LikelihoodSpec = LikelihoodSpec()
    """How bits per dimension are computed."""

    @model_validator(mode="after")
    def _likelihood(self) -> Self:
        shown = self.likelihood.images
        if shown > min(self.n, self.test):
            raise ValueError(
                f"likelihood.images {shown} is more than n {self.n} or test {self.test}; give less"
            )
        if shown:
            self.likelihood.highest(self.training.sigma_max)
        return self


@dataclass(frozen=True)
class _Union:
    """Two clusters and the splits of their images, one for each replicate."""

    name: Name
    pair: Pair
    splits: tuple[Twins, ...]


@dataclass(frozen=True)
class _Plan:
    """A run before anything is trained."""

    spec: Spec
    images: ImageSet
    keep: np.ndarray
    clusters: Clusters
    unions: tuple[_Union, ...]
    folder: Path


@dataclass(frozen=True)
class _Task:
    """A trial and what is measured on it; runs in a worker."""

    side: Name
    trial: Trial
    seeds: np.ndarray
    sampling: SamplingSpec
    likelihood: LikelihoodSpec


def run(
    spec: Spec,
    out: Path | None = None,
    *,
    device: str = "auto",
    workers: int | None = None,
) -> Done[Result]:
    """Cluster, train all twins, measure, compare near with far, and write the run folder.

    Running again with the same ``out`` continues what is unfinished and reuses what is done.

    Parameters
    ----------
    spec : Spec
        The study.
    out : Path, optional
        Run folder; default ``runs/clusters-<hash>``.
    device : str
        lightning-fabric's accelerator: auto, cpu, cuda, mps.
    workers : int, optional
        Trials trained side by side, sharing the cores; default one per core on a CPU, else one.

    Returns
    -------
    Done
        The folder and the result, also written there as ``result.json``.

    Raises
    ------
    InputError
        For clusters that are too small, settings that do not fit the machine, or a folder of
        another run or in use.
    TrainingError
        If a loss is not finite.
    """
    environment.check(device, workers)
    images, keep = open_distinct(spec.data, spec.duplicate_threshold)
    clusters = image_sets.cluster(
        images.take(keep),
        spec.clusters,
        components=spec.components,
        seed=derive_seed(spec.seed, "clusters"),
    )
    unions = _unions(spec, images, keep, clusters)
    content = {"study": "clusters"} | spec.model_dump(mode="json") | {"data_digest": images.digest}
    with run_folder(content, out) as (folder, report):
        trials = 2 * len(unions) * spec.replicates
        how = environment.start(folder, device=device, workers=workers, trials=trials)
        for name in images.skipped:
            report("images", {"text": f"left out {name}: it cannot be read"})
        plan = _Plan(spec, images, keep, clusters, unions, folder)
        _write_images(plan)
        with environment.timed(folder):
            return Done(folder, _execute(plan, how, report))


def _unions(
    spec: Spec, images: ImageSet, keep: np.ndarray, clusters: Clusters
) -> tuple[_Union, ...]:
    """Choose the nearest and the farthest two clusters, and split them.

    Raises
    ------
    InputError
        If fewer than three clusters are large enough; says which n fits.
    """
    need = spec.n + spec.test // 2
    third = int(clusters.sizes[2])
    if third < need:
        sizes = ", ".join(f"{size:,}" for size in clusters.sizes[:3])
        fits = (third - spec.test // 2) // 2 * 2
        advice = f"n of at most {fits} fits" if fits >= 2 else "give fewer clusters or less test"
        raise InputError(
            f"n: {spec.n} with test {spec.test} needs three clusters of {need:,} images; the "
            f"largest of the {spec.clusters} hold {sizes}; {advice}"
        )
    return tuple(
        _Union(
            name,
            pair,
            tuple(_halves(spec, images, keep, clusters, pair, r) for r in range(spec.replicates)),
        )
        for name, pair in zip(
            ("near", "far"), image_sets.extreme_pairs(clusters, need), strict=True
        )
    )


def _halves(
    spec: Spec, images: ImageSet, keep: np.ndarray, clusters: Clusters, pair: Pair, replicate: int
) -> Twins:
    """A, B and test set with one half from each cluster, their images in turn."""
    halves = [
        image_sets.twins(
            images,
            spec.n // 2,
            test=spec.test // 2,
            seed=spec.seed,
            replicate=replicate,
            among=keep[clusters.labels == label],
            by="random",
        )
        for label in (pair.first, pair.second)
    ]
    mixed = {
        part: np.stack([getattr(half, part) for half in halves], axis=1).ravel()
        for part in ("a", "b", "test")
    }
    return Twins(**mixed)


def _write_images(plan: _Plan) -> None:
    """Record the order of the images, their content, cluster and roles."""
    labels = np.full(len(plan.images), "near-duplicate", dtype=object)
    labels[plan.keep] = plan.clusters.labels
    roles = {}
    for union in plan.unions:
        for replicate, split in enumerate(union.splits):
            role = np.full(len(plan.images), "", dtype=object)
            for part in ("a", "b", "test"):
                role[getattr(split, part)] = part
            roles[f"{union.name}_{replicate}"] = role
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["index", "name", "sha256", "cluster", *roles])
    rows = zip(plan.images.names, plan.images.digests, labels, *roles.values(), strict=True)
    writer.writerows((index, *row) for index, row in enumerate(rows))
    runs.write_text(plan.folder / "images.csv", text.getvalue())


def _tasks(plan: _Plan, device: str) -> list[_Task]:
    """Trials in the order of replicates, so that near and far progress together."""
    spec = plan.spec
    seeds = np.array([derive_seed(spec.seed, "image", i) for i in range(spec.samples)])
    tasks = []
    for replicate in range(spec.replicates):
        for union in plan.unions:
            split, ends = union.splits[replicate], (union.pair.first, union.pair.second)
            members = plan.keep[np.isin(plan.clusters.labels, ends)]
            mean = tuple(plan.images.take(members).mean())
            for twin in "ab":
                trial = Trial(
                    source=spec.data,
                    data_digest=plan.images.digest,
                    indices=getattr(split, twin),
                    test=split.test,
                    mean=mean,
                    twin=twin,
                    replicate=replicate,
                    seed=spec.seed,
                    network=spec.network,
                    training=spec.training,
                ).placed(plan.folder, device, None)
                tasks.append(_Task(union.name, trial, seeds, spec.sampling, spec.likelihood))
    return tasks


def _work(task: _Task, report: Report) -> Outcome:
    trial = task.trial
    checkpoint = train(trial, report)
    report(trial.name, {"text": "trained; measuring"})
    measures = measure(trial, checkpoint, task.seeds, task.sampling, trial.training.batch)
    bits = _bits(task, checkpoint) if task.likelihood.images else {}
    return Outcome(measures, bits, history.read(trial.path / HISTORY))


def _bits(task: _Task, checkpoint: Checkpoint) -> dict[str, np.ndarray]:
    """Bits per dimension of the first training and test images, (L,) each."""
    trial, spec = task.trial, task.likelihood
    trained = trial.training.sigma_max
    parts = {"train": trial.indices[: spec.images], "test": trial.test[: spec.images]}
    key = spec.model_dump() | {"sigma_max": spec.highest(trained)}
    key |= {name: rows.tolist() for name, rows in parts.items()}

    def compute() -> dict[str, np.ndarray]:
        images, device = open_images(trial.source), single_device(trial.device).device
        denoiser = checkpoint.denoiser.to(device)
        seed = derive_seed(trial.seed, "likelihood", trial.replicate)
        return {
            name: bits_per_dimension(
                denoiser,
                images[rows].to(device),
                images[trial.indices],
                spec,
                trained=trained,
                seed=seed,
                batch=trial.training.batch,
            )
            for name, rows in parts.items()
        }

    return remembered(trial.path, "likelihood", key, compute)


def _execute(plan: _Plan, how: Execution, report: Report) -> Result:
    found: dict[tuple[Name, int, str], Outcome] = {}
    outcomes = run_tasks(
        _work,
        _tasks(plan, how.device),
        workers=how.workers,
        threads=how.threads,
        report=report,
    )
    with contextlib.closing(outcomes):
        for task, outcome in outcomes:
            found[task.side, task.trial.replicate, task.trial.twin] = outcome
    return _write_result(plan, found)


def _write_result(plan: _Plan, found: dict[tuple[Name, int, str], Outcome]) -> Result:
    spec = plan.spec
    sides, values, arrays = {}, {}, {}
    for union in plan.unions:
        twins = [
            (found[union.name, r, "a"], found[union.name, r, "b"]) for r in range(spec.replicates)
        ]
        sides[union.name], values[union.name], drawn = cluster_results.side_of(
            union.name, plan.images, plan.clusters, union.pair, twins, union.splits
        )
        arrays |= {f"{union.name}/{name}": np.ascontiguousarray(x) for name, x in drawn.items()}
    difference = cluster_results.measured_of(
        {name: values["far"][name] - near for name, near in values["near"].items()}
    )
    data = cluster_results.Data(
        source=spec.data,
        images=len(plan.images),
        dropped=len(plan.images) - len(plan.keep),
        threshold=spec.duplicate_threshold,
        shape=plan.images.shape,
        cluster_sizes=plan.clusters.sizes.tolist(),
        components=len(plan.clusters.components),
        n=spec.n,
        test=spec.test,
        replicates=spec.replicates,
    )
    result = Result(
        verdict=cluster_results.sentence(data, difference),
        data=data,
        difference=difference,
        **sides,
    )
    runs.write_atomic(
        plan.folder / "arrays.safetensors", lambda path: path.write_bytes(serialise(arrays))
    )
    runs.write_text(plan.folder / "result.json", result.model_dump_json(indent=2) + "\n")
    return result


STUDY = of_old("clusters", Spec, lambda *a, **k: run(*a, **k), ("device", "workers"))
