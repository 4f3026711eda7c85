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
from twinscore import sealed
from twinscore.denoisers import Checkpoint, NetworkSpec, build, load, parts, save
from twinscore.denoisers.checkpoint import WEIGHTS, read, recorded
from twinscore.errors import Damaged, InputError
from twinscore.execution import Report
from twinscore.images import ImageSet
from twinscore.runs import (
    SCHEMA_VERSION,
    derive_seed,
    digest,
    locked,
    make_within,
    read_json,
    write_json,
)
from twinscore.sampling import SamplingSpec
from twinscore.training import TrainingSpec, fit, history, single_device
from twinscore.training.fit import HISTORY, RESUME
from twinscore.training.spec import RECIPE_VERSION

CHECKPOINTS, SPAN = "checkpoints", 1000
"""Folder of a trial's checkpoints, and the steps of its training over those of the first."""

ORPHAN_SECONDS = 30.0
"""How long to wait for a trial that a dying worker of a killed run may still hold."""

Factory = Callable[[int], nn.Module]


@dataclass(frozen=True, kw_only=True)
class Task:
    """A piece of work that runs by itself, in this process or in a worker.

    It is placed in its run's folder, on a device, with the user's own network if there is one.
    ``run`` is the digest that names the run.
    """

    folder: Path = Path()
    run: str = ""
    device: str = "cpu"
    custom: Factory | None = None

    @property
    def name(self) -> str:
        """Names it in progress and log."""
        raise NotImplementedError

    @property
    def part(self) -> str:
        """The part of the result that waits for it, in words."""
        raise NotImplementedError

    @property
    def begun(self) -> bool:
        """Whether an earlier run left something of it: by default its arrays."""
        return any(self.folder.glob(f"trials/{self.name}-*.safetensors"))

    @property
    def seal(self) -> str:
        """Digest of all that its outcome depends on, for the checksums of what it leaves."""
        return digest([self.run, self.name])

    def placed(self, folder: Path, run: str, device: str, custom: Factory | None) -> Self:
        """The same task there."""
        return replace(self, folder=folder, run=run, device=device, custom=custom)


@dataclass(frozen=True, kw_only=True)
class Trial(Task):
    """What a worker needs to train one denoiser; it reads the images itself.

    ``part`` and ``arm`` say what of its study it belongs to; its identity does not hold them.
    ``held`` keeps its training images in memory, rather than read or make them for every step.
    ``alone`` is the trial of a run that has no other; it lies in the run's own folder.
    ``checkpoints`` models are kept along the way; weights do not depend on how many.
    ``custom`` replaces the network of the spec; it is known by its name.
    """

    source: str
    data_digest: str
    indices: np.ndarray
    test: np.ndarray
    mean: tuple[float, ...]
    twin: str = "a"
    replicate: int = 0
    seed: int
    network: NetworkSpec
    training: TrainingSpec
    part: str = ""
    arm: str = ""
    held: bool = False
    alone: bool = False
    checkpoints: int | None = None

    @classmethod
    def of(cls, spec: Any, source: str, **roles: Any) -> Self:
        """A trial of a study whose spec has ``seed``, ``network`` and ``training``.

        By default each replicate is a part.
        """
        own = {name: getattr(spec, name) for name in ("seed", "network", "training")}
        own |= {"data_digest": open_images(source).digest, "source": source}
        return cls(**own | {"part": f"replicate {roles.get('replicate', 0)}"} | roles)

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
            "network": factory_identity(self.custom) or self.network.identity,
            "training": self.training.model_dump(),
        }

    @property
    def seal(self) -> str:
        """Digest of all that the weights depend on."""
        return digest(self.identity)

    @property
    def name(self) -> str:
        """Name of the trial's folder, e.g. ``n00100-a-3f2c9d1e``."""
        return f"n{self.n:05d}-{self.twin}-{self.seal[:8]}"

    @property
    def path(self) -> Path:
        """The trial's folder, once the trial is :meth:`placed`."""
        return self.folder if self.alone else self.folder / "trials" / self.name

    @property
    def kept(self) -> dict[int, Path]:
        """The file of each checkpoint, by its step; steps are spaced evenly in their logarithm."""
        steps, folder = self.training.steps, self.path / CHECKPOINTS
        at = np.geomspace(max(1, steps / SPAN), steps, self.checkpoints or 0).round().astype(int)
        digits = len(str(steps))
        return {n: folder / f"step-{n:0{digits}d}.safetensors" for n in np.unique(at).tolist()}

    def seal_at(self, step: int) -> str:
        """Digest of all that the weights of a checkpoint depend on."""
        return digest([self.seal, step])

    @property
    def trained(self) -> bool:
        """Whether its weights are there, and its checkpoints."""
        return all(path.exists() for path in (self.path / WEIGHTS, *self.kept.values()))

    @property
    def history(self) -> list[dict[str, float]]:
        """Rows of the finished training, without times."""
        rows = recorded(self.path / WEIGHTS)  # files of earlier versions have none
        return rows or history.timeless(history.read(self.path / HISTORY))

    begun = trained
    """What is trained comes first when a run continues, so that no finished part goes missing."""


def require_trained_level(
    network: NetworkSpec, training: TrainingSpec, sampling: SamplingSpec
) -> None:
    """Refuse to sample from noise that a network that is told the level was not trained on.

    A bias-free network scales with its input, and may start above. ValueError.
    """
    if network.told and sampling.sigma_max > training.sigma_max:
        raise ValueError(
            f"sampling.sigma_max {sampling.sigma_max:g} is above training.sigma_max "
            f"{training.sigma_max:g}, and a network that is told the level knows only those that "
            f"it was trained on; give --training.sigma-max {sampling.sigma_max:g}, or a lower "
            "sampling.sigma_max"
        )


def factory_name(factory: Factory | None) -> str | None:
    """Dotted name of a user's network factory; None without one."""
    if factory is None:
        return None
    name = getattr(factory, "__qualname__", "<none>")
    if "<lambda>" in name or "<none>" in name:
        raise InputError(f"network: {factory!r} has no name of its own; give a class or a function")
    return f"{factory.__module__}.{name}"


@lru_cache(maxsize=8)
def factory_identity(factory: Factory | None) -> str | None:
    """Name and code of a user's network factory, which stand for the network in hashes.

    The code is that of all that it reaches, apart from installed packages.
    """
    name = factory_name(factory)
    return name and f"{name} {parts.fingerprint(factory, partly=True)[:16]}"


@lru_cache(maxsize=3)
def open_images(source: str) -> ImageSet:
    """``images.load``, kept for the next task of this process; an audit has three sets."""
    return image_sets.load(source)


def tell(images: ImageSet, report: Report) -> None:
    """Say what the user should know of how images were read."""
    for name in images.skipped:
        report("images", {"text": f"left out {name}: it cannot be read"})
    for note in images.notes:
        report("images", {"text": note})


def require_content(source: str) -> None:
    """Refuse images that hold nothing to learn; InputError.

    That is when every image is constant, black say, or all are the same image. Reads images until
    one is neither, mostly the first few.
    """
    images = open_images(source)
    if len(images) > 1 and len(set(images.digests)) == 1:
        raise InputError(f"{source}: all {len(images)} images are the same; give different ones")
    for start in range(0, len(images), 64):
        pixels = images.pixels[start : start + 64]
        if (pixels.min((1, 2, 3)) < pixels.max((1, 2, 3))).any():
            return
    raise InputError(f"{source}: every image is constant, so that there is nothing to learn")


@lru_cache(maxsize=2)
def open_model(model: str, network: Factory | None = None) -> Checkpoint:
    """``denoisers.load``, kept for the next task of this process."""
    return load(model, network=network)


@lru_cache(maxsize=1)
def distinct(source: str, threshold: float) -> np.ndarray:
    """Increasing indices of the images that are not near-duplicates of earlier ones.

    Their correlation with each is at most ``threshold``; 1 keeps all.
    """
    images = open_images(source)
    if threshold >= 1:
        return np.arange(len(images))
    return np.flatnonzero(~image_sets.near_duplicates(images, threshold=threshold).drop)


def held_out(spec: Any, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Training and test indices of a study whose spec has ``data``, ``n``, ``test`` and ``split``.

    Raises
    ------
    InputError
        If the images do not suffice.
    """
    images = open_images(spec.data)
    training, test = image_sets.held_out(images, spec.test, seed=seed, by=spec.split)
    n = spec.n or len(training)
    if n > len(training):
        raise InputError(
            f"n: {n} training and {spec.test} test images are more than the {len(images)} of "
            f"{spec.data} give; the largest n is {len(training)}"
        )
    return training[:n], test


def forget_images() -> None:
    """Open images and models anew: files may have changed since an earlier run of this process."""
    open_images.cache_clear()
    open_model.cache_clear()
    distinct.cache_clear()


def train(trial: Trial, report: Report) -> Checkpoint:
    """Train the trial, or continue it, or read it if it is finished.

    What is damaged, or of another trial, is named to ``report`` and made again.

    Raises
    ------
    InputError
        If another process holds the trial, or its data have changed since the run began.
    TrainingError
        If the loss is not finite.
    """
    make_within(trial.folder, trial.path)
    with locked(trial.path, ORPHAN_SECONDS):
        if not trial.alone:
            _describe(trial)
        # What was saved, not what was trained: its layout in memory, and so the last bit of what is
        # measured on it, must not depend on whether the run was interrupted here.
        model = _trained(trial, report) if trial.trained else None
        if model is None:
            _fit(trial, report)
            model = read(trial.path, trial.custom, key=trial.seal)
        (trial.path / RESUME).unlink(missing_ok=True)
    return model


def _trained(trial: Trial, report: Report) -> Checkpoint | None:
    """The finished trial; None, said to ``report``, if its weights cannot be trusted."""
    file = trial.path / WEIGHTS
    try:
        if sealed.SHA256 not in sealed.check(file, trial.seal):
            text = f"{file}: has no checksum, as earlier versions wrote it; used unverified"
            report("files", {"text": text})
        model = read(trial.path, trial.custom, key=trial.seal)
    except Damaged as error:
        report("files", {"text": f"{error}; trained again"})
        return None
    if rows := recorded(file):
        history.mend(trial.path / HISTORY, rows)
    return model


def _describe(trial: Trial) -> None:
    """Keep ``spec.json`` of the trial as it should be."""
    path = trial.path / "spec.json"
    content = {"schema_version": SCHEMA_VERSION, "data": trial.source} | trial.identity
    try:
        known = read_json(path)
    except InputError:
        known = None
    if known is None or known | {"data": None} != content | {"data": None}:
        write_json(path, content)


def _fit(trial: Trial, report: Report) -> None:
    images = open_images(trial.source)
    if images.digest != trial.data_digest:
        raise InputError(f"{trial.source}: its images changed while the run was going on")

    known = factory_name(trial.custom) or trial.network
    if trial.checkpoints:
        make_within(trial.path, trial.path / CHECKPOINTS)

    def keep(step: int, denoiser: nn.Module) -> None:
        checkpoint = Checkpoint(denoiser, images.shape, trial.mean)
        save(trial.kept[step], checkpoint, known, key=trial.seal_at(step))

    def attempt() -> nn.Module:
        return fit(
            _network(trial, images.shape[0]),
            images[trial.indices] if trial.held else images.take(trial.indices),
            trial.training,
            seed=derive_seed(trial.seed, "training", trial.n, trial.twin, trial.replicate),
            test=images[trial.test] if len(trial.test) else None,
            folder=trial.path,
            identity=trial.seal,
            fabric=single_device(trial.device),
            on_step=_reporter(trial, report),
            keep_at=trial.kept,
            keep=keep,
        )

    try:
        denoiser = attempt()
    except Damaged as error:
        report("files", {"text": f"{error}; trained from the start"})
        (trial.path / RESUME).unlink()
        denoiser = attempt()
    rows = history.timeless(history.read(trial.path / HISTORY))
    checkpoint = Checkpoint(denoiser, images.shape, trial.mean)
    save(trial.path / WEIGHTS, checkpoint, known, history=rows, key=trial.seal)


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
