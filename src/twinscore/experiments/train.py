"""Train one denoiser: the result is a trial folder that every command takes as a model."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from twinscore import environment, runs
from twinscore.denoisers import NetworkSpec
from twinscore.denoisers.checkpoint import WEIGHTS
from twinscore.errors import Damaged
from twinscore.execution import settled_torch
from twinscore.experiments.estimates import NOTHING, Estimate, Needs, of_trainings, refuse_trainings
from twinscore.experiments.folders import run_folder
from twinscore.experiments.trials import (
    Trial,
    forget_images,
    held_out,
    open_images,
    require_content,
    tell,
)
from twinscore.experiments.trials import train as train_trial
from twinscore.limits import MOST_CHECKPOINTS, MOST_IMAGES, Seed
from twinscore.progress import Reporter
from twinscore.results.base import Settings
from twinscore.training import TrainingSpec
from twinscore.training.fit import HISTORY
from twinscore.training.history import SIGMAS, columns


class Spec(Settings):
    """One universal blind denoiser."""

    data: str = "digits"
    """Images: a name (digits), a path, or kind:body, then ,key=value (docs/images.md)."""
    n: int | None = Field(default=None, ge=1, le=MOST_IMAGES)
    """Training images; by default all but the test images."""
    test: int = Field(default=128, ge=1, le=MOST_IMAGES)
    """Held-out images on which progress is measured."""
    split: Literal["auto", "random", "group", "label"] = "auto"
    """How the test images are held out: at random, by group (no person or photograph in both), by
    label (the same share of each), auto (by group where there are groups, else random)."""
    seed: Seed = 0
    """Seed of the split, the weights and the noise."""
    network: NetworkSpec = NetworkSpec()
    """The denoiser."""
    training: TrainingSpec = TrainingSpec()
    """How it is trained."""
    checkpoints: int | None = Field(default=None, ge=2, le=MOST_CHECKPOINTS)
    """Keep so many models along the way, at steps that are spaced evenly in their logarithm; audit
    takes them as --checkpoints (docs/audit.md#along-training)."""


@dataclass(frozen=True)
class Result:
    """The last row of the history."""

    folder: Path
    row: dict[str, float]

    def table(self) -> str:
        """Train and test PSNR at each noise level."""
        lines = (
            f"{s:5g}  {self.row[f'train_psnr_{s:g}']:8.2f}  {self.row[f'test_psnr_{s:g}']:7.2f}"
            for s in SIGMAS
        )
        return "\n".join(["sigma  train dB  test dB", *lines])


@settled_torch()
def run(
    spec: Spec,
    out: Path | str | None = None,
    *,
    device: str = "auto",
    threads: int | None = None,
) -> Result:
    """Train, or continue, and write ``weights.safetensors`` and ``history.csv``.

    The trial folder is by default ``runs/train-<hash>``. ``threads`` is how many processors may be
    used, by default all that ``OMP_NUM_THREADS``, affinity and container grant.

    Raises
    ------
    InputError
        For too few images, a device that is not there, a network that does not fit the memory, or
        a folder of another run or in use.
    TrainingError
        If the loss is not finite.
    """
    asked = {"device": device, "workers": 1, "threads": threads, "trials": 1}
    content, trial, folder = _placed(spec, out, asked)
    with run_folder(content, folder) as (_, report):
        name = runs.run_digest(content)
        how = environment.start(folder, **asked, run=name, report=report)
    with Reporter(folder / "log.txt") as report:
        trial = trial.placed(folder, name, how.device, None)
        with environment.timed(folder), settled_torch(how.threads):
            if not trial.trained:
                report("estimate", {"text": of_trainings(_needs, spec, 1, how).text()})
            tell(open_images(spec.data), report)
            train_trial(trial, report)
    return Result(folder=folder, row=_last_row(trial))


def _last_row(trial: Trial) -> dict[str, float]:
    """The last row of the history, which in folders of earlier versions is a table alone."""
    rows = trial.history
    if not rows or any(column not in rows[-1] for column in columns() if column != "seconds"):
        raise Damaged(
            f"{trial.path / HISTORY}: lacks numbers of the training, whose weights are there; "
            f"delete {WEIGHTS} to train again"
        )
    return rows[-1]


@settled_torch()
def cost(
    spec: Spec,
    out: Path | str | None = None,
    *,
    device: str = "auto",
    threads: int | None = None,
) -> Estimate:
    """Time, memory and disk of what :func:`run` would still do or refuse; writes nothing."""
    asked = {"device": device, "workers": 1, "threads": threads, "trials": 1}
    _, trial, folder = _placed(spec, out, asked)
    how = environment.settings(folder, **asked)
    left = not trial.placed(folder, "", how.device, None).trained
    return of_trainings(_needs, spec, 1, how) if left else NOTHING


def _needs(spec: Spec) -> Needs:
    need = Needs(shape=open_images(spec.data).shape, field="data: size")
    return replace(need, stored=(spec.checkpoints or 0) * need.cost(spec).parameters)


def _placed(
    spec: Spec, out: Path | str | None, asked: dict[str, Any]
) -> tuple[dict[str, Any], Trial, Path]:
    """What ``spec.json`` will hold, the training and its folder, once nothing speaks against it."""
    environment.check(asked["device"], threads=asked["threads"])
    forget_images()
    with settled_torch(asked["threads"]):
        require_content(spec.data)
        training, test = held_out(spec, spec.seed)
        refuse_trainings(_needs, spec, asked["device"], 1)
        mean = tuple(open_images(spec.data).mean())
        own = {"mean": mean, "alone": True, "checkpoints": spec.checkpoints}
        trial = Trial.of(spec, spec.data, indices=training, test=test, **own)
    content = {"study": "train"} | spec.model_dump(mode="json")
    content["data_digest"] = trial.data_digest
    folder = Path(out or runs.default_folder(content))
    environment.settings(folder, **asked)  # refuses what its threads do not allow
    return content, trial, folder
