"""Run the study: check and estimate, train every network, measure, and write the run folder."""

import contextlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save as serialise

from twinscore import environment, runs
from twinscore.denoisers.checkpoint import WEIGHTS
from twinscore.environment import Execution
from twinscore.execution import Report, run_tasks
from twinscore.experiments import budget, estimates
from twinscore.experiments.folders import Done, run_folder
from twinscore.experiments.regularity import results
from twinscore.experiments.regularity.measures import METHODS, Task, baseline_seconds, work
from twinscore.experiments.regularity.results import Result
from twinscore.experiments.regularity.spec import Generator, Spec
from twinscore.experiments.trials import Trial, open_images

STUDY = "regularity"

Measured = dict[tuple[float, Generator, int], dict[str, NDArray]]
"""What :func:`work` gives, for each alpha, generator and replicate."""


def run(
    spec: Spec, out: Path | None = None, *, device: str = "auto", workers: int | None = None
) -> Done[Result]:
    """Train a network on each class, measure slopes, and write the run folder.

    Running again with the same ``out`` continues what is unfinished and reuses what is done; more
    ``alphas`` or ``generators`` extend the run.

    Parameters
    ----------
    spec : Spec
        The study.
    out : Path, optional
        Run folder; default ``runs/regularity-<hash>``.
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
    trials = spec.classes * spec.replicates
    cost = _require_memory(spec, device, workers or environment.default_workers(device, trials))
    content = {"study": STUDY} | spec.model_dump(mode="json")
    with run_folder(content, out, extendable=("alphas", "generators")) as (folder, report):
        how = environment.start(folder, device=device, workers=workers, trials=trials)
        with environment.timed(folder):
            _say_cost(spec, cost, folder, how, report)
            tasks = _tasks(spec, folder, how, report)
            result = _execute(spec, tasks, folder, how, report)
    return Done(folder, result)


def _held(spec: Spec) -> bool:
    """Whether training images are shown more than once, and so kept rather than made again."""
    return spec.trained_on < spec.shown


def _require_memory(spec: Spec, device: str, workers: int) -> budget.Cost:
    held = spec.trained_on if _held(spec) else 0
    shape = (1, spec.size, spec.size)
    cost = budget.cost(spec.network, spec.training.batch, shape, held=held, jacobians=1)
    budget.require_memory(cost, spec.size, device, workers)
    return cost


def _say_cost(spec: Spec, cost: budget.Cost, folder: Path, how: Execution, report: Report) -> None:
    """Estimate what is left, before any image is made: every trial in a run's folder is its own."""
    trained = len(list(folder.glob(f"trials/*/{WEIGHTS}")))
    left = spec.classes * spec.replicates - trained
    if left <= 0:
        return
    shape, training = (1, spec.size, spec.size), spec.training
    each = estimates.training_seconds(
        spec.network, training, shape, how.device, threads=how.threads
    )
    product = each / (training.steps * training.batch)
    jacobians = min(left, spec.classes) * spec.size**2 * product
    baselines = left * spec.test * len(spec.levels) * baseline_seconds(spec.size, how.device)
    work = left * each + jacobians + baselines
    report("estimate", {"text": f"{estimates.by_the_clock(left, work, how)} s, {cost.total} bytes"})


def _tasks(spec: Spec, folder: Path, how: Execution, report: Report) -> list[Task]:
    """A task for each class and replicate, in that order; no two replicates share an image."""
    open_images.cache_clear()
    middle = sum(spec.fit_range) / 2
    tasks = []
    for generator in spec.generators:
        for alpha in spec.alphas:
            source = spec.source(alpha, generator)
            report("images", {"text": f"{source}: making {spec.images:,} to address them"})
            images = open_images(source)
            for replicate in range(spec.replicates):
                start = replicate * (spec.test + spec.trained_on)
                test = np.arange(start, start + spec.test)
                trial = Trial(
                    source=source,
                    data_digest=images.digest,
                    indices=np.arange(spec.trained_on) + start + spec.test,
                    test=test,
                    mean=tuple(images.take(test).mean()),
                    twin="a",
                    replicate=replicate,
                    seed=spec.seed,
                    network=spec.network,
                    training=spec.training,
                    held=_held(spec),
                ).placed(folder, how.device, None)
                shown = 0 if replicate else spec.eigenvectors
                tasks.append(Task(trial, spec.sigmas, 10 ** (-middle / 20), shown))
    return tasks


def _execute(spec: Spec, tasks: list[Task], folder: Path, how: Execution, report: Report) -> Result:
    classes = [
        (a, g, r) for g in spec.generators for a in spec.alphas for r in range(spec.replicates)
    ]
    places = {task.trial.name: place for task, place in zip(tasks, classes, strict=True)}
    measured: Measured = {}
    outcomes = run_tasks(work, tasks, workers=how.workers, threads=how.threads, report=report)
    with contextlib.closing(outcomes):
        for task, outcome in outcomes:
            alpha, generator, _ = place = places[task.trial.name]
            measured[place] = outcome
            if all((alpha, generator, r) in measured for r in range(spec.replicates)):
                result = _write(spec, measured, folder)
    return result


def _write(spec: Spec, measured: Measured, folder: Path) -> Result:
    """Assemble every class whose replicates are all measured, and write it."""
    replicates = range(spec.replicates)
    asked = [(alpha, generator) for generator in spec.generators for alpha in spec.alphas]
    done = [c for c in asked if all((*c, r) in measured for r in replicates)]
    errors = {
        c: {m: np.stack([measured[*c, r][f"mse/{m}"] for r in replicates]) for m in METHODS}
        for c in done
    }
    classes = [
        results.class_of(spec, *c, errors[c], measured[*c, 0]["asymmetry"].item()) for c in done
    ]
    contrasts = results.contrasts_of(spec, errors)
    missing = [f"alpha = {a:g}, {g}" for a, g in asked if (a, g) not in done]
    result = Result(
        complete=not missing,
        missing=missing,
        verdict=results.verdict_of(spec, classes, contrasts),
        levels=list(spec.levels),
        fit_range=spec.fit_range,
        trained_on=spec.trained_on,
        shown=spec.shown,
        classes=classes,
        contrasts=contrasts,
    )
    arrays = {f"{g}/{a:g}/mse/{m}": e for (a, g), of in errors.items() for m, e in of.items()}
    for alpha, generator in done:
        first = measured[alpha, generator, 0].items()
        arrays |= {f"{generator}/{alpha:g}/{k}": v for k, v in first if not k.startswith("mse/")}
    encoded = serialise({name: np.ascontiguousarray(value) for name, value in arrays.items()})
    runs.write_atomic(folder / "arrays.safetensors", lambda path: path.write_bytes(encoded))
    runs.write_text(folder / "levels.csv", results.levels_csv(spec, classes))
    runs.write_text(folder / "local_slopes.csv", results.local_slopes_csv(spec, classes))
    runs.write_text(folder / "result.json", result.model_dump_json(indent=2) + "\n")
    return result
