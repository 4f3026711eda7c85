"""One trial: a denoiser trained on one subset, then measured; addressed by the hash of its spec."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import nn

from twinscore import images as image_sets
from twinscore.analysis.denoising import psnr_table
from twinscore.denoisers import Checkpoint, NetworkSpec, build, load, save
from twinscore.denoisers.checkpoint import WEIGHTS
from twinscore.errors import InputError
from twinscore.execution import Report
from twinscore.experiments.drawing import SamplingSpec, draw
from twinscore.experiments.folders import kept
from twinscore.images import ImageSet
from twinscore.runs import (
    SCHEMA_VERSION,
    derive_seed,
    digest,
    locked,
    make_folder,
    write_json,
)
from twinscore.training import TrainingSpec, fit, single_device
from twinscore.training.fit import RESUME
from twinscore.training.history import SIGMAS
from twinscore.training.spec import RECIPE_VERSION

ORPHAN_SECONDS = 30.0
"""How long to wait for a trial that a dying worker of a killed run may still hold."""

Factory = Callable[[int], nn.Module]


@dataclass(frozen=True)
class Trial:
    """What a worker needs to train one denoiser; it reads the images itself.

    ``part`` and ``arm`` say what of its study it belongs to, and are no part of its identity.
    ``held`` keeps its training images in memory, rather than read or make them for every step.
    ``alone`` is the trial of a run that has no other; it lies in the run's own folder.
    ``custom`` replaces the network of the spec: the user's factory, known by its name.
    """

    source: str
    data_digest: str
    indices: np.ndarray
    test: np.ndarray
    mean: tuple[float, ...]
    twin: str
    replicate: int
    seed: int
    network: NetworkSpec
    training: TrainingSpec
    part: str = ""
    arm: str = ""
    held: bool = False
    alone: bool = False
    folder: Path = Path()
    device: str = "cpu"
    custom: Factory | None = None

    @classmethod
    def of(cls, spec: Any, images: ImageSet, source: str, **roles: Any) -> Self:
        """A trial of a study whose spec has ``seed``, ``network`` and ``training``."""
        own = {name: getattr(spec, name) for name in ("seed", "network", "training")}
        return cls(source=source, data_digest=images.digest, **own, **roles)

    @property
    def n(self) -> int:
        """Training images."""
        return len(self.indices)

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that the weights depend on; its hash addresses the trial."""
        return {
            "recipe_version": RECIPE_VERSION,
            "data_digest": self.data_digest,
            "indices_digest": digest(self.indices.tolist()),
            "n": self.n,
            "twin": self.twin,
            "replicate": self.replicate,
            "seed": self.seed,
            "network": factory_name(self.custom) or self.network.model_dump(),
            "training": self.training.model_dump(),
        }

    @property
    def name(self) -> str:
        """Name of the trial's folder, e.g. ``n00100-a-3f2c9d1e``."""
        return f"n{self.n:05d}-{self.twin}-{digest(self.identity)[:8]}"

    @property
    def path(self) -> Path:
        """The trial's folder, once the trial is :meth:`placed`."""
        return self.folder if self.alone else self.folder / "trials" / self.name

    @property
    def trained(self) -> bool:
        """Whether its weights are there."""
        return (self.path / WEIGHTS).exists()

    begun = trained
    """What is trained comes first when a run continues, so that no finished part goes missing."""

    def placed(self, folder: Path, device: str, custom: Factory | None) -> Self:
        """The same trial in a run's folder, on a device, with the user's own network if any."""
        return replace(self, folder=folder, device=device, custom=custom)


def factory_name(factory: Factory | None) -> str | None:
    """Dotted name of a user's network factory; it stands for the network in hashes."""
    if factory is None:
        return None
    name = getattr(factory, "__qualname__", "<none>")
    if "<lambda>" in name or "<none>" in name:
        raise InputError(f"network: {factory!r} has no name of its own; give a class or a function")
    return f"{factory.__module__}.{name}"


@lru_cache(maxsize=2)
def open_images(source: str) -> ImageSet:
    """``images.load``, kept for the next trial of this process."""
    return image_sets.load(source)


@lru_cache(maxsize=1)
def distinct(source: str, threshold: float) -> np.ndarray:
    """Increasing indices of the images that are no near-duplicates of earlier ones.

    Parameters
    ----------
    source : str
        Source string.
    threshold : float
        Largest correlation with an earlier image; 1 keeps all.
    """
    images = open_images(source)
    if threshold >= 1:
        return np.arange(len(images))
    return np.flatnonzero(~image_sets.near_duplicates(images, threshold=threshold).drop)


def open_distinct(source: str, threshold: float) -> tuple[ImageSet, np.ndarray]:
    """Open the images of a run as they are now, and tell which are no near-duplicates."""
    forget_images()
    return open_images(source), distinct(source, threshold)


def forget_images() -> None:
    """Open images anew: files may have changed since an earlier run of this process."""
    open_images.cache_clear()
    distinct.cache_clear()


def train(trial: Trial, report: Report) -> Checkpoint:
    """Train the trial, or continue it, or read it if it is finished.

    Raises
    ------
    InputError
        If another process holds the trial, or its data have changed since the run began.
    TrainingError
        If the loss is not finite.
    """
    make_folder(trial.path)
    with locked(trial.path, ORPHAN_SECONDS):
        if not trial.trained:
            _fit(trial, report)
        (trial.path / RESUME).unlink(missing_ok=True)
    # What was saved, not what was trained: its layout in memory, and so the last bit of what is
    # measured on it, must not depend on whether the run was interrupted here.
    return load(trial.path, network=trial.custom)


def _fit(trial: Trial, report: Report) -> None:
    images = open_images(trial.source)
    if images.digest != trial.data_digest:
        raise InputError(f"{trial.source}: its images changed while the run was going on")
    spec = trial.path / "spec.json"
    if not spec.exists():
        content = {"schema_version": SCHEMA_VERSION, "data": trial.source}
        write_json(spec, content | trial.identity)
    denoiser = fit(
        _network(trial, images.shape[0]),
        images[trial.indices] if trial.held else images.take(trial.indices),
        trial.training,
        seed=derive_seed(trial.seed, "training", trial.n, trial.twin, trial.replicate),
        test=images[trial.test] if len(trial.test) else None,
        folder=trial.path,
        fabric=single_device(trial.device),
        on_step=_reporter(trial, report),
    )
    checkpoint = Checkpoint(denoiser, images.shape, trial.mean)
    save(trial.path / WEIGHTS, checkpoint, factory_name(trial.custom) or trial.network)


def _network(trial: Trial, channels: int) -> nn.Module:
    seed = derive_seed(trial.seed, "weights", trial.n, trial.twin, trial.replicate)
    if trial.custom is None:
        return build(trial.network, channels, seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return trial.custom(channels)


def _reporter(trial: Trial, report: Report) -> Callable[[int, dict[str, float] | None], None]:
    every = max(1, trial.training.steps // 200)

    def on_step(step: int, row: dict[str, float] | None) -> None:
        event: dict[str, Any] = {"step": step, "steps": trial.training.steps}
        if row:
            test = row.get("test_psnr_0.2")
            event["note"] = f"loss {row['train_loss']:.3g}" + (
                f", test PSNR {test:.2f} dB at sigma 0.2" if test is not None else ""
            )
        if row or step % every == 0:
            report(trial.name, event)

    return on_step


@dataclass(frozen=True)
class Measures:
    """What is measured on one trained denoiser.

    Attributes
    ----------
    psnr_train, psnr_test : array
        (K, T) dB at ``SIGMAS``: T images of its own training set (repeated if it is smaller, each
        time with other noise) and the test set.
    samples : array
        (S, C, H, W).
    unfinished : int
        Samples whose stochastic path did not converge.
    """

    psnr_train: np.ndarray
    psnr_test: np.ndarray
    samples: np.ndarray
    unfinished: int


def remembered(
    trial: Trial, what: str, key: dict[str, Any], compute: Callable[[], dict[str, Any]]
) -> dict[str, np.ndarray]:
    """Read the arrays that ``compute`` gave before under this ``key``, or compute and store them.

    They lie beside the trial's weights, as ``<what>-<hash of key>.safetensors``.
    """
    return kept(trial.path / f"{what}-{digest(key)[:8]}.safetensors", compute)


def measure(
    trial: Trial, checkpoint: Checkpoint, seeds: np.ndarray, sampling: SamplingSpec, batch: int
) -> Measures:
    """Measure a trained trial, or read what was measured; stored beside its weights."""
    key = {
        "seeds": seeds.tolist(),
        "sampling": sampling.resolved.model_dump(exclude={"quality"}),
        "test": trial.test.tolist(),
        "sigmas": SIGMAS,
    }
    arrays = remembered(
        trial,
        "measures",
        key,
        lambda: vars(_measure(trial, checkpoint, seeds, sampling, batch)),
    )
    return Measures(**(arrays | {"unfinished": arrays["unfinished"].item()}))


def _measure(
    trial: Trial, checkpoint: Checkpoint, seeds: np.ndarray, sampling: SamplingSpec, batch: int
) -> Measures:
    device = single_device(trial.device).device
    denoiser = checkpoint.on(device)
    images = open_images(trial.source)
    rows = np.resize(trial.indices, len(trial.test))
    parts = {"train": images[rows].to(device), "test": images[trial.test].to(device)}
    seed = derive_seed(trial.seed, "psnr", trial.replicate)
    train, test = (
        psnr_table(denoiser, x, SIGMAS, seed=seed, batch=batch).numpy() for x in parts.values()
    )
    samples, unfinished = draw(checkpoint, seeds, sampling, batch=batch, device=device)
    return Measures(train, test, samples, unfinished)
