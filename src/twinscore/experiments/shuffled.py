"""Shuffled pixels ([GAHB] section 3.2): what a network loses when its inductive bias does not fit.

One fixed permutation of the pixels leaves the optimal error unchanged. Networks are trained on the
same images with and without it, with the same budget and the same seeds, and measured on the same
noisy images; a closed-form denoiser that knows nothing of neighbourhoods is the control.
"""

import contextlib
import csv
import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from safetensors.numpy import save as serialise
from torch import Tensor

from twinscore import environment, runs
from twinscore import images as image_sets
from twinscore.analysis.statistics import over_replicates
from twinscore.denoisers import Denoiser, NetworkSpec
from twinscore.environment import Execution
from twinscore.errors import InputError
from twinscore.execution import Report, run_tasks
from twinscore.experiments import budget
from twinscore.experiments.folders import Done, run_folder
from twinscore.experiments.results import Value
from twinscore.experiments.shuffled_control import (
    control,
    demand,
    squared_errors,
    unshuffled,
)
from twinscore.experiments.trials import Trial, open_images, train
from twinscore.images import ImageSet
from twinscore.images.sources import parse
from twinscore.images.synthetic import PixelShuffle, pixel_shuffle
from twinscore.training import TrainingSpec, single_device
from twinscore.training.history import SIGMAS

__all__ = ["Done", "Result", "Spec", "run"]

STUDY = "shuffled"
EXAMPLES = 8
EXAMPLE_LEVEL = 0.2


class Spec(BaseModel):
    """The same images with and without one fixed permutation of their pixels."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    data: str = "photos,size=16"
    """Images: a name (digits), a path, or kind:body, then ,key=value (docs/images.md)."""
    n: int | None = Field(default=None, ge=2)
    """Training images; by default all but the test images."""
    test: int = Field(default=128, ge=2)
    """Held-out images on which both are measured."""
    replicates: int = Field(default=3, ge=1)
    """Times to repeat with other splits and seeds; with 1, intervals cover images only."""
    shuffle: int = Field(default=0, ge=0)
    """Seed of the permutation, the same for all images and replicates."""
    split: Literal["auto", "random", "group", "label"] = "auto"
    """How the test images are held out: at random, by group (no person or photograph in both), by
    label (the same share of each), auto (by group where there are groups, else random)."""
    seed: int = Field(default=0, ge=0)
    """Seed of splits, weights and noise."""
    network: NetworkSpec = NetworkSpec()
    """The denoiser."""
    training: TrainingSpec = TrainingSpec()
    """How it is trained."""


class Level(BaseModel):
    """What shuffling costs at one noise level; PSNR in dB, of the mean squared error.

    Means over replicates with Student's t intervals (95 %); of one replicate, its value and the
    bootstrap interval over test images, which covers nothing else.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    sigma: float
    plain: Value
    shuffled: Value
    gap: Value
    """PSNR of plain less that of shuffled, on the same images and noise; negative where shuffling
    helps."""


class Result(BaseModel):
    """What ``result.json`` holds."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    schema_version: int = runs.SCHEMA_VERSION
    study: Literal["shuffled"] = STUDY
    verdict: str
    data: str
    shape: tuple[int, int, int]
    n: int
    test: int
    replicates: int
    levels: list[Level]
    control: float
    """Largest gap of the closed-form Gaussian denoiser, dB, in absolute value; rounding alone."""

    def table(self) -> str:
        """One row a noise level."""
        lines = ["sigma  plain dB  shuffled dB  gap dB"]
        lines += [
            f"{level.sigma:5g}  {level.plain.value:8.2f}  {level.shuffled.value:11.2f}  "
            f"{level.gap.value:6.2f} [{level.gap.low:.2f}, {level.gap.high:.2f}]"
            for level in self.levels
        ]
        return "\n".join(lines)


class _Measured(NamedTuple):
    """Squared error per pixel of each test image, (K, N), and some of the estimates."""

    errors: NDArray[np.float64]
    estimates: NDArray[np.float32]


@dataclass(frozen=True)
class _Task:
    """A trial, and the order in which it sees the pixels; runs in a worker."""

    trial: Trial
    arm: str
    order: PixelShuffle


def run(
    spec: Spec, out: Path | None = None, *, device: str = "auto", workers: int | None = None
) -> Done[Result]:
    """Train both, measure them and the control, and write the run folder.

    Running again with the same ``out`` continues what is unfinished and reuses what is done.

    Parameters
    ----------
    spec : Spec
        The study.
    out : Path, optional
        Run folder; default ``runs/shuffled-<hash>``.
    device : str
        lightning-fabric's accelerator: auto, cpu, cuda, mps.
    workers : int, optional
        Trials trained side by side, sharing the cores; default one per core on a CPU, else one.

    Returns
    -------
    Done
        The folder and the result, also written there as ``result.json``. Cost of the control: two
        eigendecompositions of (d, d), d = C H W.

    Raises
    ------
    InputError
        For data that do not suffice or are shuffled already, a control or trainings that do not
        fit the memory, or a folder of another run or in use.
    TrainingError
        If a loss is not finite.
    """
    environment.check(device, workers)
    if parse(spec.data)[2].shuffle is not None:
        raise InputError(f"data: {spec.data} is shuffled already; give it without shuffle=")
    open_images.cache_clear()  # the files may have changed since an earlier run of this process
    images = open_images(spec.data)
    trials = 2 * spec.replicates
    cost = budget.cost(spec.network, spec.training.batch, images.shape)
    side_by_side = workers or environment.default_workers(device, trials)
    side, before = max(images.shape[1:]), [demand(images.shape)]
    budget.require_memory(cost, side, device, side_by_side, "data: size", before=before)
    splits = [_split(spec, images, replicate) for replicate in range(spec.replicates)]
    content = {"study": STUDY} | spec.model_dump(mode="json") | {"data_digest": images.digest}
    with run_folder(content, out) as (folder, report):
        how = environment.start(folder, device=device, workers=workers, trials=trials)
        with environment.timed(folder):
            shuffle = pixel_shuffle(*images.shape[1:], spec.shuffle)
            tasks = _tasks(spec, images, splits, shuffle, folder, how)
            _say_cost(spec, images.shape, cost, tasks, how, report)
            gap = control(images, splits[0], shuffle, spec.seed, spec.training.batch)
            measured = _execute(tasks, how, report)
            result = _write_result(spec, images, splits, measured, gap, folder)
    return Done(folder, result)


def _split(spec: Spec, images: ImageSet, replicate: int) -> tuple[NDArray, NDArray]:
    """Training and test indices."""
    seed = runs.derive_seed(spec.seed, "split", replicate)
    training, test = image_sets.held_out(images, spec.test, seed=seed, by=spec.split)
    n = spec.n or len(training)
    if n > len(training):
        raise InputError(
            f"n: {n} training and {spec.test} test images are more than the {len(images)} of "
            f"{spec.data} give; the largest n is {len(training)}"
        )
    return training[:n], test


def _say_cost(
    spec: Spec,
    shape: tuple[int, int, int],
    cost: budget.Cost,
    tasks: list[_Task],
    how: Execution,
    report: Report,
) -> None:
    left = sum(not task.trial.trained for task in tasks)
    if left:
        each = budget.training_seconds(
            spec.network, spec.training, shape, how.device, threads=how.threads
        )
        report("estimate", {"text": budget.said(left, left * each, cost, how)})


def _tasks(
    spec: Spec,
    images: ImageSet,
    splits: list[tuple[NDArray, NDArray]],
    shuffle: PixelShuffle,
    folder: Path,
    how: Execution,
) -> list[_Task]:
    """Both arms of every replicate, arm by arm: a process keeps the images of one source open."""
    moved = f"{spec.data},shuffle={spec.shuffle}"
    arms = {
        "plain": (spec.data, images.digest, PixelShuffle(np.arange(len(shuffle.order)))),
        "shuffled": (moved, image_sets.load(moved).digest, shuffle),
    }
    tasks = []
    for arm, (source, content, order) in arms.items():
        for replicate, (training, test) in enumerate(splits):
            trial = Trial(
                path=folder,
                source=source,
                data_digest=content,
                indices=training,
                test=test,
                mean=tuple(images.mean()),
                n=len(training),
                twin="a",
                replicate=replicate,
                seed=spec.seed,
                network=spec.network,
                training=spec.training,
                device=how.device,
            )
            trial = replace(trial, path=folder / "trials" / trial.name)
            tasks.append(_Task(trial, arm, order))
    return tasks


def _work(task: _Task, report: Report) -> _Measured:
    trial = task.trial
    checkpoint = train(trial, report)
    device = single_device(trial.device).device
    x = task.order.invert(open_images(trial.source)[trial.test]).to(device)
    denoiser = unshuffled(checkpoint.denoiser.to(device), task.order)
    seed = runs.derive_seed(trial.seed, "shuffled", trial.replicate)
    errors = squared_errors(denoiser, x, seed, trial.training.batch)
    return _Measured(errors, _estimates(denoiser, x[:EXAMPLES]).numpy())


def _noisy(x: Tensor) -> Tensor:
    z = torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).to(x)
    return x + EXAMPLE_LEVEL * z


@torch.no_grad()
def _estimates(denoiser: Denoiser, x: Tensor) -> Tensor:
    return denoiser(_noisy(x), EXAMPLE_LEVEL).cpu()


def _execute(
    tasks: list[_Task], how: Execution, report: Report
) -> dict[tuple[str, int], _Measured]:
    measured = {}
    outcomes = run_tasks(_work, tasks, workers=how.workers, threads=how.threads, report=report)
    with contextlib.closing(outcomes):
        for task, outcome in outcomes:
            measured[task.arm, task.trial.replicate] = outcome
    return measured


def _write_result(
    spec: Spec,
    images: ImageSet,
    splits: list[tuple[NDArray, NDArray]],
    measured: dict[tuple[str, int], _Measured],
    gap: float,
    folder: Path,
) -> Result:
    errors = np.stack(
        [
            [measured[arm, replicate].errors for replicate in range(spec.replicates)]
            for arm in ("plain", "shuffled")
        ],
        axis=-1,
    )
    levels = [_level(s, errors[:, k], spec.seed) for k, s in enumerate(SIGMAS)]
    result = Result(
        verdict=_verdict(levels),
        data=spec.data,
        shape=images.shape,
        n=len(splits[0][0]),
        test=spec.test,
        replicates=spec.replicates,
        levels=levels,
        control=gap,
    )
    x = images[splits[0][1][:EXAMPLES]]
    arrays = {
        "errors": errors,
        "clean": x.numpy(),
        "noisy": _noisy(x).numpy(),
        "plain": measured["plain", 0].estimates,
        "shuffled": measured["shuffled", 0].estimates,
    }
    arrays = {name: np.ascontiguousarray(value) for name, value in arrays.items()}
    runs.write_atomic(
        folder / "arrays.safetensors", lambda path: path.write_bytes(serialise(arrays))
    )
    runs.write_text(folder / "levels.csv", _csv(levels))
    runs.write_text(folder / "result.json", result.model_dump_json(indent=2) + "\n")
    return result


def _level(sigma: float, errors: NDArray[np.float64], seed: int) -> Level:
    """From errors (R, N, 2) of plain and shuffled."""

    def psnr(drawn: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
        return -10 * np.log10(drawn.mean(axis))

    def gap(drawn: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
        return -np.diff(psnr(drawn, axis))[..., 0]

    def value(part: NDArray[np.float64], statistic: Any) -> Value:
        value, low, high = over_replicates(part, statistic, seed=seed)
        return Value(value=value, low=low, high=high)

    return Level(
        sigma=sigma,
        plain=value(errors[..., 0], psnr),
        shuffled=value(errors[..., 1], psnr),
        gap=value(errors, gap),
    )


def _verdict(levels: list[Level]) -> str:
    gaps = [level.gap for level in levels]
    worse, better = sum(gap.low > 0 for gap in gaps), sum(gap.high < 0 for gap in gaps)
    least, most = min(gap.value for gap in gaps), max(gap.value for gap in gaps)
    if least >= 0:
        change = f"loses {least:.2f} to {most:.2f} dB"
    elif most <= 0:
        change = f"gains {-most:.2f} to {-least:.2f} dB"
    else:
        change = f"loses up to {most:.2f} dB and gains up to {-least:.2f} dB"
    sentence = (
        f"With shuffled pixels the network {change}, depending on the noise level; it is worse "
        f"(95 % intervals above 0) at {worse} of {len(levels)} noise levels"
    )
    return f"{sentence}, and better at {better}." if better else f"{sentence}."


def _csv(levels: list[Level]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = ("plain", "shuffled", "gap")
    writer.writerow(["sigma", *(f"{n}{end}" for n in names for end in ("", "_low", "_high"))])
    for level in levels:
        values = [getattr(level, name) for name in names]
        writer.writerow([level.sigma, *(x for v in values for x in (v.value, v.low, v.high))])
    return text.getvalue()
