"""Checkpoints of the trainings of a transition: when each twin was good, and when it remembered."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twinscore import images as image_sets
from twinscore.analysis.audit import membership
from twinscore.denoisers import Checkpoint
from twinscore.denoisers.checkpoint import read
from twinscore.execution import Report
from twinscore.experiments import along, standards
from twinscore.experiments.folders import remembered
from twinscore.experiments.study import Arrays
from twinscore.experiments.trials import Trial, open_images
from twinscore.images import ImageSet, Twins
from twinscore.results.transition import Along
from twinscore.runs import derive_seed
from twinscore.sampling import noise
from twinscore.sampling.samples import batch_for
from twinscore.training import single_device
from twinscore.training.history import SIGMAS

MOST = 128
"""Samples of each checkpoint that are enough: the first of them."""
DRAWS = 4
"""Draws of the noise, the same for every image."""


def measure(spec: Any, trial: Trial, model: Checkpoint, report: Report) -> Arrays:
    """What :func:`along.window` takes, of the checkpoints of a trial, as ``along/...``.

    Nothing for a study that keeps none. T are its first training images, as many as there are test
    images at most, so that the test is alike at every N; H are the test images.
    """
    if not trial.checkpoints:
        return {}
    drawing = _drawing(spec, trial)
    key = {"sampling": spec.sampling.resolved.model_dump(exclude={"quality"})}
    key |= {"count": drawing.count, "test": trial.test.tolist(), "draws": DRAWS}
    key |= {"sigmas": SIGMAS, "steps": list(trial.kept)}

    def compute() -> Arrays:
        images, device = open_images(trial.source), single_device(trial.device).device
        trained, held_out = images[trial.indices], images[trial.test]
        pool = images[np.concatenate(_tested(trial))].to(device)
        seeds = [derive_seed(trial.seed, "membership", draw) for draw in range(DRAWS)]
        z, size, found = noise(seeds, images.shape).to(device), batch_for(images.shape), []
        for step, path in trial.kept.items():
            report(trial.name, {"text": f"measuring the checkpoint of step {step:,}"})
            kept = read(path, trial.custom, key=trial.seal_at(step))
            denoiser = kept.on(device)
            errors = [membership.errors(denoiser, x, z, SIGMAS) for x in pool.split(size)]
            samples = drawing.drawn(kept, device)
            found.append(
                {
                    "errors": np.concatenate(errors),
                    "energy": drawing.quality(samples, held_out),
                    "copied": along.copied(samples, trained),
                }
            )
        return {name: np.stack([of[name] for of in found]) for name in found[0]}

    found = remembered(trial.path, "along", key, compute, of=trial.seal, report=report)
    return {f"along/{name}": values for name, values in found.items()}


def passes(spec: Any, samples: int) -> int:
    """Images that the checkpoints of a trial denoise, ``samples`` for one of them."""
    errors = 2 * spec.test * len(SIGMAS) * DRAWS
    return (spec.checkpoints or 0) * (errors + samples * min(spec.samples, MOST))


def _drawing(spec: Any, trial: Trial) -> along.Drawing:
    seed = derive_seed(spec.seed, "along", trial.replicate)
    return along.Drawing(min(spec.samples, MOST), spec.sampling, seed)


def _tested(trial: Trial) -> tuple[NDArray, NDArray]:
    """Training and held-out images whose errors are compared."""
    return trial.indices[: len(trial.test)], trial.test


def of_sizes(spec: Any, done: Sequence[tuple[Trial, Arrays]]) -> list[Along]:
    """The windows of all trainings at each N."""
    images = open_images(spec.data)
    return [
        Along(n=n, windows=[_window(spec, images, *of) for of in own])
        for n, own in groupby(done, key=lambda pair: pair[0].n)
    ]


def _window(spec: Any, images: ImageSet, trial: Trial, arrays: Arrays) -> along.Window:
    rows = _tested(trial)
    unit = _units(images, np.concatenate(rows), image_sets.resolve(images, spec.split))
    count = np.bincount(unit)
    errors = np.stack(
        [
            np.stack([np.bincount(unit, level) / count for level in of.T], 1)
            for of in arrays["along/errors"]
        ]
    )
    trained = np.zeros(len(count), dtype=bool)
    trained[unit[: len(rows[0])]] = True
    nobody = np.empty(0, dtype=np.int64)
    split = Twins(a=trial.indices, b=nobody, test=trial.test)
    sound = spec.split != "attribute" and not standards.untestable(spec, split)
    found = {name: arrays[f"along/{name}"] for name in ("energy", "copied")} | {"errors": errors}
    models = [(step, str(path.relative_to(trial.folder))) for step, path in trial.kept.items()]
    return along.window(
        models, found, trained, sound=sound, seed=derive_seed(spec.seed, "along", trial.name)
    )


def _units(images: ImageSet, rows: NDArray, rule: str) -> NDArray[np.int64]:
    """What was dealt, (P,): groups, images with their mirrored copies, or images."""
    if rule == "group":
        names = images.labels if images.groups is None else images.groups
        of = np.array([str(names[i]) for i in rows])
    else:
        of = rows if images.originals is None else images.originals[rows]
    return np.unique(of, return_inverse=True)[1]
