"""Run the study: check and estimate, train every network, measure, and write the run folder."""

import contextlib
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save as serialise

from twinscore import environment, runs
from twinscore.denoisers.closed_form import Disc
from twinscore.environment import Execution
from twinscore.execution import Report, run_tasks, torch_threads
from twinscore.experiments import budget
from twinscore.experiments.folders import Done, run_folder
from twinscore.experiments.manifold import results
from twinscore.experiments.manifold.measures import Measured, Task, work
from twinscore.experiments.manifold.results import Result
from twinscore.experiments.manifold.spec import Spec
from twinscore.experiments.trials import Trial, open_images
from twinscore.images.synthetic import discs

STUDY = "manifold"

_PRODUCTS = 300
"""Pixels at which the products of a Jacobian take as long as a call, about."""


def run(
    spec: Spec, out: Path | None = None, *, device: str = "auto", workers: int | None = None
) -> Done[Result]:
    """Train networks on discs, set them beside the optimum, and write the run folder.

    Running again with the same ``out`` continues what is unfinished and reuses what is done.

    Parameters
    ----------
    spec : Spec
        The study.
    out : Path, optional
        Run folder; default ``runs/manifold-<hash>``.
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
        For a spec that does not fit the memory (nothing is written then), a device that is not
        there, or a folder of another run or in use.
    TrainingError
        If a loss is not finite.
    """
    environment.check(device, workers)
    side_by_side = workers or environment.default_workers(device, spec.replicates)
    cost = _require_memory(spec, device, side_by_side)
    content = {"study": STUDY} | spec.model_dump(mode="json")
    with run_folder(content, out) as (folder, report):
        how = environment.start(folder, device=device, workers=workers, trials=spec.replicates)
        with environment.timed(folder):
            tasks = _tasks(spec, folder, how, report)
            _say_cost(spec, cost, tasks, how, report)
            result = _execute(spec, tasks, folder, how, report)
    return Done(folder, result)


def _require_memory(spec: Spec, device: str, workers: int) -> budget.Cost:
    shape = (1, spec.size, spec.size)
    cost = budget.cost(spec.network, spec.training.batch, shape, held=spec.n, jacobians=1)
    budget.require_memory(cost, spec.size, device, workers)
    return cost


def _say_cost(
    spec: Spec, cost: budget.Cost, tasks: list[Task], how: Execution, report: Report
) -> None:
    left = sum(not task.trial.trained for task in tasks)
    if not left:
        return
    shape, training = (1, spec.size, spec.size), spec.training
    each = budget.training_seconds(spec.network, training, shape, how.device, threads=how.threads)
    product = each / (training.steps * training.batch)
    decomposing = spec.bases * len(spec.levels) * spec.size**2 * product
    posterior = len(spec.levels) * _posterior_seconds(spec) if spec.exact else 0.0
    work = left * (each + decomposing + posterior)
    report("estimate", {"text": budget.said(left, work, cost, how)})


def _posterior_seconds(spec: Spec) -> float:
    """Time of the exact posterior means of one level, and of their Jacobians.

    A Jacobian takes a call, and products that grow by the square of the pixels.
    """
    sigma = spec.sigmas[len(spec.sigmas) // 2]
    x, _ = discs([0], size=spec.size, radius=spec.radius, edge=spec.edge, seed=spec.seed)
    z = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    with torch_threads(1):
        started = time.perf_counter()
        Disc(spec.size, spec.radius, spec.edge)((x + sigma * z).double(), sigma)
        call = time.perf_counter() - started
    products = call * spec.size**2 / _PRODUCTS
    return spec.exact * call + min(spec.exact, spec.bases) * (call + products)


def _tasks(spec: Spec, folder: Path, how: Execution, report: Report) -> list[Task]:
    """A task for each replicate; no two replicates share a disc."""
    open_images.cache_clear()
    report("images", {"text": f"{spec.source}: making {spec.images:,} to address them"})
    images = open_images(spec.source)
    tasks = []
    for replicate in range(spec.replicates):
        start = replicate * (spec.test + spec.n)
        test = np.arange(start, start + spec.test)
        trial = Trial(
            path=folder,
            source=spec.source,
            data_digest=images.digest,
            indices=np.arange(spec.n) + start + spec.test,
            test=test,
            mean=tuple(images.take(test).mean()),
            n=spec.n,
            twin="a",
            replicate=replicate,
            seed=spec.seed,
            network=spec.network,
            training=spec.training,
            device=how.device,
            held=True,
        )
        tasks.append(Task(replace(trial, path=folder / "trials" / trial.name), spec))
    return tasks


def _execute(spec: Spec, tasks: list[Task], folder: Path, how: Execution, report: Report) -> Result:
    measured: dict[int, Measured] = {}
    outcomes = run_tasks(work, tasks, workers=how.workers, threads=how.threads, report=report)
    with contextlib.closing(outcomes):
        for task, outcome in outcomes:
            measured[task.trial.replicate] = outcome
            result = _write(spec, measured, folder)
    return result


def _write(spec: Spec, measured: dict[int, Measured], folder: Path) -> Result:
    """Assemble the replicates that are measured, and write them."""
    done = sorted(measured)
    missing = [f"replicate {r}" for r in range(spec.replicates) if r not in measured]
    result = results.result_of(spec, [measured[r] for r in done], missing)
    arrays = {}
    for name, values in measured[done[0]].items():
        alone = name.startswith("shown/")
        whole = values if alone else np.stack([measured[r][name] for r in done])
        arrays[name] = np.ascontiguousarray(whole)
    encoded = serialise(arrays)
    runs.write_atomic(folder / "arrays.safetensors", lambda path: path.write_bytes(encoded))
    runs.write_text(folder / "levels.csv", results.csv_of(result.levels))
    runs.write_text(folder / "result.json", result.model_dump_json(indent=2) + "\n")
    return result
