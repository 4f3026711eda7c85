"""What a network computes, beside closed forms of its training images, and where patches come from.

The companions: *memory*, the exact denoiser of the training images; *mosaic*, that of their
patches; *linear*, that of their Gaussian; *thresholding*, which saw no images; and the *twin*.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor

from twinscore import denoisers, sampling
from twinscore.analysis.explained import explained, squares
from twinscore.analysis.patches import Traced, traced
from twinscore.analysis.statistics import interval, resampled
from twinscore.denoisers import Checkpoint, Denoiser, denoise
from twinscore.denoisers.checkpoint import model_digest
from twinscore.denoisers.closed_form import Local, LocalByLevel
from twinscore.denoisers.fitted import LARGEST_D
from twinscore.environment import Execution
from twinscore.errors import InputError, one_line
from twinscore.execution import Report
from twinscore.experiments.estimates import Estimate, by_the_clock, core_seconds, counted
from twinscore.experiments.folders import remembered, require
from twinscore.experiments.single import Whole
from twinscore.experiments.study import Arrays, Study, Summary
from twinscore.experiments.trials import Factory, open_images, open_model
from twinscore.experiments.wiring import MOST, chosen, refuse_wrong
from twinscore.limits import MOST_SAMPLES, Listed, Seed
from twinscore.results.base import Interval, Settings
from twinscore.results.explain import (
    CLOSED,
    Explained,
    Level,
    Patches,
    Result,
    Sample,
    Samples,
)
from twinscore.runs import derive_seed, make_within
from twinscore.training import memory, single_device

VERSION = 1  # raised when the same spec gives other numbers, or they are kept in another form

_BATCH = 64
"""Images that are denoised at a time."""
_FITTED = 300
"""Images that the mosaic denoises while its sides are fitted, about."""
_TIMED, _RATE = 2**14, 1e10
"""Pixels of the training images with which the mosaic is timed, about; products a second in which
patches are traced."""


class Spec(Settings):
    """Which network, what it was trained on, and how closely it is looked at."""

    model: str = ""
    """A trial folder, its weights file, or another model (docs/models.md)."""
    twin: str | None = None
    """Its twin: trained alike, on other images of the same kind."""
    train: str = ""
    """The images that the model was trained on: a name, a path, or kind:body, then ,key=value
    (docs/images.md)."""
    held_out: str | None = None
    """Images of the same kind that it was not trained on; without them, noise is added to training
    images, and no patches are traced."""
    sigmas: Listed[float] = (0.05, 0.1, 0.2, 0.4, 0.8)
    """Noise levels, image units."""
    images: int = Field(default=64, ge=2, le=MOST_SAMPLES)
    """Noisy images at each level, at most; drawn at random."""
    samples: int = Field(default=32, ge=2, le=MOST_SAMPLES)
    """Samples of each denoiser, from the same noise."""
    steps: int = Field(default=30, ge=2, le=10**4)
    """Noise levels on the way to a sample."""
    sigma_max: float = Field(default=1.0, gt=0.01, le=1e4)
    """Noise level at which sampling starts, image units."""
    patch: int | None = Field(default=None, ge=1, le=4096)
    """Side of the mosaic's patches (default: that of least error at each noise level)."""
    basis: Literal["wavelets", "cosines", "best-basis"] = "wavelets"
    """Basis of the thresholding."""
    side: int = Field(default=5, ge=1, le=255)
    """Side of the patches of samples that are traced; odd."""
    pool: int = Field(default=256, ge=1, le=10**5)
    """Training images, and as many held-out ones, among which they are traced, at most."""
    seed: Seed = 0
    """Seed of noise, choices and intervals."""

    @model_validator(mode="after")
    def _check(self) -> "Spec":
        if not all(1e-4 <= sigma <= 1e4 for sigma in self.sigmas) or not self.sigmas:
            raise ValueError("sigmas: give noise levels between 0.0001 and 10000")
        if self.side % 2 == 0:
            raise ValueError(f"side: patches have a middle; give an odd side, got {self.side}")
        return self

    @property
    def levels(self) -> list[float]:
        """The noise levels, ascending."""
        return sorted(set(self.sigmas))

    @property
    def companions(self) -> list[str]:
        """Names of the companions, in order."""
        return [*CLOSED, *(["twin"] if self.twin else [])]


@dataclass(frozen=True, kw_only=True)
class Task(Whole):
    """Outputs at one noise level, or samples where there is none."""

    sigma: float | None


def check(spec: Spec, device: str, network: Factory | None) -> dict[str, Any]:
    """Refuse images that do not belong together, and denoisers that cannot denoise them."""
    require(spec, "model", "a trial folder or another model (docs/models.md)")
    require(spec, "train", "the images that it was trained on")
    shape = open_images(spec.train).shape
    if math.prod(shape) > LARGEST_D:
        raise InputError(
            f"--train: images of shape {shape} hold {math.prod(shape):,} numbers each, and a full "
            f"covariance fits for {LARGEST_D:,}; give size={math.isqrt(LARGEST_D // shape[0])}"
        )
    if spec.held_out and open_images(spec.held_out).shape != shape:
        raise InputError(
            f"--held-out: {spec.held_out} has images of shape "
            f"{open_images(spec.held_out).shape}, and {spec.train} of {shape}; give equal ones"
        )
    if spec.side > min(shape[1:]):
        raise InputError(f"--side: {spec.side} is more than the side of images of shape {shape}")
    if spec.patch is None and len(open_images(spec.train)) < 5:
        raise InputError(
            f"--patch: not given, and {spec.train} has too few images to fit it; give 5, say"
        )
    x = chosen(open_images(spec.train), MOST, spec.seed).to(single_device(device).device)
    found = {}
    for flag, model in (("model", spec.model), ("twin", spec.twin)):
        if model:
            opened = open_model(model, network)
            refuse_wrong(model, opened, x)
            _try(f"--{flag}: {model}", opened, x)
            found[f"{flag}_digest"] = model_digest(opened)
    _try(f"--basis: {spec.basis}", denoisers.load(f"threshold:{spec.basis}"), x)
    return found


def _try(what: str, model: Checkpoint, x: Tensor) -> None:
    try:
        denoisers.check(model.on(x.device), x[:1], 0.3)
    except Exception as error:  # whatever a function of the user's own may raise
        reason = one_line(error)
        raise InputError(
            f"{what}: cannot denoise a training image, {tuple(x.shape[1:])}: {reason}"
        ) from None


def tasks(spec: Spec, report: Report) -> list[Task]:
    """Every noise level, and the samples."""
    levels = [Task(name=f"level-{s:g}", part=f"σ = {s:g}", sigma=s) for s in spec.levels]
    return [*levels, Task(name="samples", part="samples", sigma=None)]


def work(spec: Spec, task: Task, report: Report) -> Arrays:
    """Outputs at a noise level, or samples, and how far those of the companions are from them."""
    folder = make_within(task.folder, task.folder / "trials")
    key, own = {"version": VERSION, "sigma": task.sigma}, {"of": task.seal, "report": report}

    def compute() -> Arrays:
        device = single_device(task.device).device
        report(task.name, {"text": "fitting companions"})
        compared = _denoisers(spec, task.custom, device)
        if task.sigma is None:
            return _drawn(spec, compared, device, report)
        return _outputs(spec, compared, device, task.sigma)

    return remembered(folder, task.name, key, compute, **own)


def _denoisers(spec: Spec, network: Factory | None, device: torch.device) -> dict[str, Denoiser]:
    """The model, and its companions, by name."""
    digest = open_images(spec.train).digest
    forms = _closed(spec.train, digest, spec.patch, spec.basis)
    found = {"model": open_model(spec.model, network).on(device), **forms}
    if spec.twin:
        found["twin"] = open_model(spec.twin, network).on(device)
    return found


@lru_cache(maxsize=1)
def _closed(train: str, digest: str, patch: int | None, basis: str) -> dict[str, Denoiser]:
    """Closed forms of images, kept for the next task of this process; known by their digest."""
    own = "" if patch is None else f",patch={patch}"
    models = (
        f"empirical:{train}",
        f"local:{train}{own}",
        f"gaussian:{train}",
        f"threshold:{basis}",
    )
    return {n: denoisers.load(m).denoiser for n, m in zip(CLOSED, models, strict=True)}


@torch.no_grad()
def _outputs(
    spec: Spec, compared: dict[str, Denoiser], device: torch.device, sigma: float
) -> Arrays:
    """Squared distances of the companions' outputs, and all outputs of the first image."""
    source = open_images(spec.held_out or spec.train)
    x = chosen(source, min(spec.images, len(source)), spec.seed)
    generator = torch.Generator().manual_seed(derive_seed(spec.seed, "noise"))
    y = x + sigma * torch.randn(x.shape, generator=generator)
    parts = y.to(device).split(_BATCH)
    outputs = {
        name: torch.cat([denoise(denoiser, part, sigma).cpu() for part in parts])
        for name, denoiser in compared.items()
    }
    mosaic = compared["mosaic"]
    form = mosaic.at(sigma) if isinstance(mosaic, LocalByLevel) else mosaic
    shown = [x[0], y[0], *(of[0] for of in outputs.values())]
    return {
        "squares": _squares(spec, outputs),
        "side": np.array(form.patch),
        "shown": torch.stack(shown).numpy(),
    }


def _squares(spec: Spec, outputs: dict[str, Tensor]) -> NDArray[np.float64]:
    """Of every companion, (K, B, 2)."""
    return np.stack([squares(outputs["model"], outputs[name]) for name in spec.companions])


@torch.no_grad()
def _drawn(
    spec: Spec, compared: dict[str, Denoiser], device: torch.device, report: Report
) -> Arrays:
    """Samples of all from the same noise, and the sources of the patches of the model's."""
    train = open_images(spec.train)
    seeds = [derive_seed(spec.seed, "image", i) for i in range(spec.samples)]
    z = sampling.noise(seeds, train.shape).to(device)
    mean = torch.tensor(train.mean(), dtype=z.dtype, device=device).view(-1, 1, 1)
    ends = {}
    for name, denoiser in compared.items():

        def progress(step: int, *_: object, name: str = name) -> None:
            report(f"samples, {name}", {"step": step + 1, "steps": spec.steps})

        own = {"sigma_max": spec.sigma_max, "steps": spec.steps, "callback": progress}
        ends[name] = torch.cat(
            [
                sampling.probability_flow(denoiser, part, mean=mean, **own)
                for part in z.split(_BATCH)
            ]
        ).cpu()
    kept = torch.stack([end.isfinite().flatten(1).all(1) for end in ends.values()]).all(0)
    ends = {name: end[kept] for name, end in ends.items()}
    found = {
        "samples": torch.stack(list(ends.values())).numpy(),
        "lost": np.array(int((~kept).sum())),
    }
    found["squares"] = _squares(spec, ends) if kept.any() else np.zeros((len(ends) - 1, 0, 2))
    return found | (_traced(spec, ends["model"]) if spec.held_out and kept.sum() > 1 else {})


def _traced(spec: Spec, samples: Tensor) -> Arrays:
    """Where patches come from, and which images they were looked for in."""
    trained, held_out = (_pooled(spec, source) for source in (spec.train, spec.held_out))
    count = min(len(trained), len(held_out))
    trained, held_out = np.sort(trained[:count]), np.sort(held_out[:count])
    pool = [open_images(spec.train)[trained], open_images(spec.held_out)[held_out]]
    return {"pool": np.stack([trained, held_out])} | vars(
        traced(samples, torch.cat(pool), spec.side)
    )


def _pooled(spec: Spec, source: str) -> NDArray[np.int64]:
    """Images of a source in random order, as many as are looked at."""
    generator = np.random.default_rng(derive_seed(spec.seed, "pool"))
    return generator.permutation(len(open_images(source)))[: spec.pool]


def summarise(spec: Spec, done: Sequence[tuple[Task, Arrays]]) -> Summary[Result] | None:
    """What explains the outputs at each noise level, and the samples once they are there."""
    at = {task.sigma: arrays for task, arrays in done if task.sigma is not None}
    drawn = next((arrays for task, arrays in done if task.sigma is None), None)
    levels = [_level(spec, sigma, arrays["squares"]) for sigma, arrays in at.items()]
    samples = None if drawn is None else _samples(spec, drawn)
    train = open_images(spec.train)
    source = open_images(spec.held_out or spec.train)
    learned = _learned(levels)
    result = Result(
        verdict=_verdict(spec, learned, levels, samples),
        model=spec.model,
        twin=spec.twin,
        train=spec.train,
        held_out=spec.held_out,
        trained=len(train),
        images=min(spec.images, len(source)),
        shape=train.shape,
        sides=[arrays["side"].item() for arrays in at.values()],
        learned=learned,
        levels=levels,
        samples=samples,
    )
    kept = {f"level{i}/shown": arrays["shown"] for i, arrays in enumerate(at.values())}
    if drawn:
        kept |= {
            name: drawn[name]
            for name in ("samples", "images", "mosaics", "distances")
            if name in drawn
        }
        kept |= _pictured(spec, drawn)
    return Summary(result, kept)


def _pictured(spec: Spec, drawn: Arrays) -> Arrays:
    """The images from which most patches of each sample come, in either half."""
    if "pool" not in drawn:
        return {}
    of, found = _trace(drawn), []
    for half, source in enumerate((spec.train, spec.held_out)):
        places, _, _ = of.sources(half)
        found.append(open_images(source)[drawn["pool"][half][places]].numpy())
    return {"sources": np.stack(found, 1)}


def _trace(drawn: Arrays) -> Traced:
    return Traced(**{name: drawn[name] for name in Traced.__dataclass_fields__})


def _level(spec: Spec, sigma: float, found: NDArray) -> Level:
    each = _explained(spec, found, "images")
    return Level(sigma=sigma, explained=each, best=_best(each))


def _explained(spec: Spec, found: NDArray, covers: str) -> list[Explained]:
    """Of every companion, from its squares (K, B, 2)."""
    rows = []
    for name, own in zip(spec.companions, found, strict=True):
        r2 = explained(own, seed=derive_seed(spec.seed, "bootstrap"))
        rows.append(Explained(companion=name, r2=None if r2 is None else _interval(r2, covers)))
    return rows


def _interval(ends: tuple[float, float, float], covers: str) -> Interval:
    value, low, high = ends
    return Interval(value=value, low=low, high=high, method="bootstrap", covers=covers)


def _best(each: list[Explained]) -> str | None:
    """The closed form that explains most; the first of equals."""
    known = [e for e in each if e.r2 and e.companion in CLOSED]
    return max(known, key=lambda e: e.r2.value).companion if known else None


def _means(levels: list[Level]) -> dict[str, float]:
    """Mean over noise levels of the r2 of every companion, negative ones as 0."""
    values: dict[str, list[float]] = {}
    for level in levels:
        for each in level.explained:
            if each.r2:
                values.setdefault(each.companion, []).append(max(each.r2.value, 0.0))
    return {name: float(np.mean(of)) for name, of in values.items()}


def _learned(levels: list[Level]) -> str | None:
    means = {name: mean for name, mean in _means(levels).items() if name in CLOSED}
    return max(means, key=means.__getitem__) if means else None


def _samples(spec: Spec, drawn: Arrays) -> Samples:
    each = _explained(spec, drawn["squares"], "samples")
    return Samples(
        count=drawn["squares"].shape[1],
        lost=drawn["lost"].item(),
        explained=each,
        best=_best(each),
        patches=_patches(spec, drawn) if "pool" in drawn else None,
    )


def _patches(spec: Spec, drawn: Arrays) -> Patches:
    of, seed = _trace(drawn), derive_seed(spec.seed, "patches")
    draws = resampled(of.near[None], np.mean, seed=seed)
    (images, shares, sources), (_, control_shares, control) = of.sources(0), of.sources(1)
    columns = {
        "near": of.near,
        "image": drawn["pool"][0][images],
        "share": shares,
        "sources": sources,
        "control_share": control_shares,
        "control_sources": control,
    }
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    roots = np.sqrt(np.square(of.distances).mean((0, 2)))
    return Patches(
        side=spec.side,
        images=drawn["pool"].shape[1],
        near=_interval((float(of.near.mean()), *interval(draws)), "samples"),
        p=of.p(seed),
        distance=roots[0],
        control_distance=roots[1],
        samples=[Sample(**dict(zip(columns, row, strict=True))) for row in rows],
    )


def _verdict(spec: Spec, learned: str | None, levels: list[Level], samples: Samples | None) -> str:
    if learned is None:
        return f"{spec.model}: its outputs do not differ, so that nothing explains them."
    means = _means(levels)
    others = ", ".join(
        f"{name} {means[name]:.2f}" for name in spec.companions if name in means and name != learned
    )
    what = "noisy held-out images" if spec.held_out else "noisy training images"
    said = (
        f"{spec.model} is nearest to {learned}: of its outputs on {what} that explains "
        f"r² = {means[learned]:.2f} on average over {counted(len(levels), 'noise level')} "
        f"({others})"
    )
    if samples and samples.best:
        r2 = next(e.r2.value for e in samples.explained if e.companion == samples.best)
        said += f"; of its samples {samples.best} explains most ({r2:.2f})"
    if samples and (found := samples.patches):
        said += (
            f"; {100 * found.near.value:.0f} % of their patches are nearer to training images than "
            f"to held-out ones (chance: 50 %, p = {found.p:.2g})"
        )
    return f"{said}."


def _memory(spec: Spec) -> int:
    """Bytes of the closed forms: images three times, energies of patches, and a covariance."""
    images = open_images(spec.train)
    d, pixels = math.prod(images.shape), math.prod(images.shape[1:])
    sides = 1 if spec.patch else 4
    return len(images) * (4 * d * (2 + sides) + 8 * pixels * sides) + 5 * 8 * d**2


def refuse(spec: Spec, device: str, workers: int) -> None:
    """Refuse training images whose closed forms do not fit the memory."""
    images = open_images(spec.train)
    what = f"closed forms of {counted(len(images), 'image')}"
    memory.require(what, device, 0, _memory(spec), max(images.shape[1:]))


def estimate(spec: Spec, left: int, how: Execution) -> Estimate:
    """From the time in which a few images are denoised, by the model and by the mosaic."""
    images = open_images(spec.train)
    pixels = math.prod(images.shape[1:])
    few = slice(min(len(images), max(8, _TIMED // pixels)))
    x = images[few].to(single_device(how.device).device)
    y = x[: max(1, 2**10 // pixels)]
    model = open_model(spec.model, None).on(x.device)
    patch = min(spec.patch or 7, 2 * max(images.shape[1:]) - 1)
    form = Local.of(x, patch)
    with torch.no_grad():
        denoise(model, y, 0.3)  # the first one prepares the others
        each = core_seconds(lambda: denoise(model, y, 0.3)) / len(y) * (2 if spec.twin else 1)
        form(y[:1], 0.3)
        mosaic = core_seconds(lambda: form(y, 0.3)) / len(y) * len(images) / len(x)
    count = len(spec.levels) * spec.images + spec.samples * spec.steps
    fitted = 0 if spec.patch else _FITTED * min(1.0, len(images) / 80)
    places = (images.shape[1] - spec.side + 1) * (images.shape[2] - spec.side + 1)
    pool = 2 * min(spec.pool, len(images)) if spec.held_out else 0
    products = spec.samples * pool * places**2 * images.shape[0] * spec.side**2
    total = count * (each + mosaic) + fitted * mosaic + products / _RATE
    work = total * left / (len(spec.levels) + 1)
    disk = 8 * math.prod(images.shape) * spec.samples * (len(spec.companions) + 4)
    most = memory.PROCESS + _memory(spec)
    return Estimate(counted(left, "part"), by_the_clock(1, work, how), most, disk)


STUDY = Study(
    name="explain",
    spec=Spec,
    count=lambda spec: len(spec.levels) + 1,
    tasks=tasks,
    work=work,
    summarise=summarise,
    estimate=estimate,
    refuse=refuse,
    reads=("train", "held_out"),
    check=check,
    machine=("device",),
)
run = STUDY.run
