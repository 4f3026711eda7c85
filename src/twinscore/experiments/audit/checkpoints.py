"""The audited model along its training: which checkpoints there are, and what each gives."""

import glob
import re
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from twinscore.denoisers import Checkpoint
from twinscore.denoisers.checkpoint import model_digest
from twinscore.denoisers.loading import KINDS
from twinscore.errors import InputError
from twinscore.execution import Report
from twinscore.experiments import along
from twinscore.experiments.audit.membership import by_unit, errors, try_model
from twinscore.experiments.audit.pool import Sets, Units
from twinscore.experiments.audit.spec import Spec
from twinscore.experiments.study import Arrays
from twinscore.experiments.trials import open_model
from twinscore.images import ImageSet
from twinscore.results.base import Window
from twinscore.runs import derive_seed, digest

PIECE = "checkpoint-"

_NAMES = ("step", "iter", "epoch")
"""What the number of a step is called, the first that is there."""


def found(pattern: str) -> list[tuple[int, str]]:
    """Step and model string of every checkpoint that a pattern matches, in order of training.

    Parameters
    ----------
    pattern : str
        A model string whose path is a glob: ``ckpt/*.safetensors``, ``diffusers:out/step-*``,
        ``models/*.py:denoiser``.

    Raises
    ------
    InputError
        If it matches fewer than two, or their names do not say in which order they were trained.
    """
    kind, rest = re.fullmatch(rf"((?:{'|'.join(KINDS)}):)?(.*)", pattern, re.DOTALL).groups("")
    path, more = re.fullmatch(r"([^,]+?\.py(?=:\w+$)|[^,]*)(.*)", rest, re.DOTALL).groups()
    paths = sorted(glob.glob(path, recursive=True))  # noqa: PTH207 (absolute patterns too)
    if len(paths) < 2:
        what = f"matches only {paths[0]}" if paths else "matches nothing"
        raise InputError(
            f"--checkpoints: {pattern} {what}; give a pattern that matches two models or more, "
            "such as 'ckpt/*.safetensors'"
        )
    return [(step, f"{kind}{name}{more}") for step, name in sorted(_steps(paths))]


def _steps(paths: list[str]) -> list[tuple[int, str]]:
    """The step of each path: the number that tells them apart, or that is called so."""
    words = [re.split(r"(\d+)", path) for path in paths]
    for path, of in zip(paths, words, strict=True):
        if of[::2] != words[0][::2]:
            raise _ambiguous(f"{paths[0]} and {path} differ in more than numbers")
    numbers = np.array([[int(number) for number in of[1::2]] for of in words], dtype=object)
    varying = [i for i in range(numbers.shape[1]) if len(set(numbers[:, i])) > 1]
    named = [
        [i for i in varying if re.search(rf"{name}\w*?[-_=]?$", words[0][2 * i], re.IGNORECASE)]
        for name in _NAMES
    ]
    chosen = next((fields for fields in named if len(fields) == 1), varying)
    order = sorted(range(len(paths)), key=lambda row: [numbers[row, i] for i in chosen])
    for before, after in pairwise(order):
        rise = [numbers[after, i] - numbers[before, i] for i in chosen]
        if min(rise, default=0) < 0 or max(rise, default=0) == 0:
            raise _ambiguous(f"which of {paths[before]} and {paths[after]} came first is not clear")
    counts = [i for i in chosen if len(set(numbers[:, i])) == len(paths)]
    if not counts:
        raise _ambiguous(f"no number of {paths[0]} counts the steps")
    return [(numbers[row, counts[-1]], path) for row, path in enumerate(paths)]


def _ambiguous(why: str) -> InputError:
    return InputError(
        f"--checkpoints: {why}; give a pattern whose matches differ in the number of the step alone"
    )


def last(spec: Spec) -> Spec:
    """The spec with a model: the last checkpoint, where it names none."""
    if spec.model or not spec.checkpoints:
        return spec
    return spec.model_copy(update={"model": found(spec.checkpoints)[-1][1]})


def check_models(spec: Spec, train: ImageSet) -> str:
    """Digest of all checkpoints, each of which must be able to denoise the images; InputError."""
    _found.cache_clear()  # files may have come since an earlier run of this process
    if not spec.held_out:
        raise InputError("--held-out: not given; without it nothing is known along training")
    own = []
    for step, model in found(spec.checkpoints):
        try_model(spec.model_copy(update={"model": model}), train)
        own.append([step, model_digest(open_model(model))])
    return digest(own)


@lru_cache(maxsize=1)
def _found(pattern: str) -> list[tuple[int, str]]:
    return found(pattern)


def names(spec: Spec) -> list[str]:
    """Of the pieces of work: one for each checkpoint."""
    return [f"{PIECE}{i:03d}" for i in range(len(_found(spec.checkpoints)))]


def key(spec: Spec, name: str) -> dict[str, object]:
    """What a piece depends on, besides the images and the spec."""
    return {"model": model_digest(_model(spec, name)), "samples": spec.checkpoint_samples}


def _model(spec: Spec, name: str) -> Checkpoint:
    return open_model(_found(spec.checkpoints)[int(name.removeprefix(PIECE))][1])


def measure(spec: Spec, sets: Sets, name: str, device: torch.device, report: Report) -> Arrays:
    """Of a checkpoint: ``errors`` of all images, (P, K), and ``energy``, (3,).

    The latter is the energy distance of its samples, drawn from the same noise for all: value, low
    and high.
    """
    model = replace(_model(spec, name), shape=sets.train.shape)
    found = errors(spec, sets, model, device, report)
    if not spec.checkpoint_samples:
        return {"errors": found, "energy": along.NOTHING}
    seed = derive_seed(spec.seed, "along")
    drawing = along.Drawing(spec.checkpoint_samples, spec.sampling, seed)
    held_out = sets.held_out[: along.MOST]
    return {"errors": found, "energy": drawing.quality(drawing.drawn(model, device), held_out)}


def taken(given: dict[str, Arrays]) -> list[Arrays]:
    """Take what the checkpoints gave out of what all pieces gave, in order of training."""
    return [given.pop(name) for name in sorted(given) if name.startswith(PIECE)]


def window(
    spec: Spec, sets: Sets, units: Units, kept: list[Arrays], *, sound: bool
) -> Window | None:
    """When the model was good, and when it remembered; None without checkpoints."""
    if not kept:
        return None
    there = np.unique(units.of[units.kept])
    errors = np.stack([by_unit(of["errors"], units)[there] for of in kept])
    found = {"errors": errors, "energy": np.stack([of["energy"] for of in kept])}
    models = [(step, Path(model).name) for step, model in _found(spec.checkpoints)]
    seed = derive_seed(spec.seed, "along")
    return along.window(models, found, units.trained[there], sound=sound, seed=seed)
