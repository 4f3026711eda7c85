"""The adaptive basis of a denoiser at one image ([GAHB] section 3.1, figure 3), or of two."""

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from twinscore.analysis import subspaces
from twinscore.analysis.eigenbasis import DENSE, Basis, measure, noise
from twinscore.analysis.jacobian import linearise
from twinscore.denoisers import Checkpoint
from twinscore.denoisers.checkpoint import WEIGHTS, model_digest
from twinscore.environment import Execution
from twinscore.errors import InputError, one_line
from twinscore.execution import Report
from twinscore.experiments.estimates import Estimate, by_the_clock, core_seconds, counted
from twinscore.experiments.folders import remembered, require
from twinscore.experiments.single import Whole
from twinscore.experiments.study import Arrays, Study, Summary
from twinscore.experiments.trials import Factory, open_images, open_model
from twinscore.experiments.wiring import MOST, chosen, refuse_wrong
from twinscore.limits import MOST_IMAGES, MOST_SAMPLES, Listed, Seed
from twinscore.results.base import Settings
from twinscore.results.harmonics import Agreement, Fixed, Level, Model, Result
from twinscore.runs import derive_seed, make_within
from twinscore.training import memory, single_device

VERSION = 1  # raised when the same spec gives other numbers, or they are kept in another form

LEAST = 1e-5
"""Least noise level, image units: float32 holds images to 6e-8, and so noise to a percent."""

_PRODUCTS, _KRYLOV = 10, 32
"""Vectors that are multiplied to find each eigenvector, about, and the bytes that each of their
values takes: with its image, float64, and once more as complex numbers."""
_OTHERS, _DRAWN, _DECOMPOSED = 200, 2, 1.5e-9
"""Products for trace, rank and asymmetry where they are estimated, and for each draw; and seconds
of a core, times d^3, in which a whole Jacobian is decomposed."""
_TIMED = 64  # products that are timed, fewer of large images

NoiseLevel = Annotated[float, Field(ge=LEAST, le=1e4)]


class Spec(Settings):
    """Which denoiser, at which image, and how closely it is looked at."""

    model: str = ""
    """A trial folder, its weights file, or another model (docs/models.md)."""
    against: str | None = None
    """A second model, to be shown side by side with the first."""
    names: Listed[str] = ()
    """Names of the models in the report (default: the folder of their weights, or the model)."""
    data: str = "digits"
    """Source of the image: a name, a path, or kind:body, then ,key=value (docs/images.md)."""
    index: int = Field(default=0, ge=0, le=MOST_IMAGES)
    """Which image of the source, from 0."""
    sigma: NoiseLevel = 0.2
    """Noise level of the pictures, the eigenvectors and the coefficients, image units."""
    sigmas: Listed[NoiseLevel] = (0.05, 0.1, 0.2, 0.4)
    """Noise levels of the spectra, image units; ``sigma`` is added to them."""
    vectors: int = Field(default=32, ge=1, le=10**6)
    """Eigenvectors to keep, from the largest eigenvalue on."""
    first: int = Field(default=4, ge=1, le=10**9)
    """First rank of the range over which decays are fitted."""
    last: int = Field(default=64, ge=3, le=10**9)
    """Last rank of that range; it ends earlier where eigenvalues turn negative, and at ``vectors``
    for an image of more than 1,024 values."""
    draws: int = Field(default=64, ge=2, le=MOST_SAMPLES)
    """Noisy versions of the image over which SURE and the true error are averaged."""
    seed: Seed = 0
    """Seed of the noise and of every estimate."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.last < self.first + 2:
            raise ValueError(f"last must be at least first + 2, got {self.first}..{self.last}")
        models = 1 if self.against is None else 2
        if len(self.names) not in (0, models):
            raise ValueError(f"names must hold one for each model, got {list(self.names)}")
        return self

    @property
    def levels(self) -> list[float]:
        """All noise levels, ascending."""
        return sorted({*self.sigmas, self.sigma})

    @property
    def models(self) -> dict[str, str]:
        """One model, or two, by the fields that name them."""
        return {"model": self.model} | ({} if self.against is None else {"against": self.against})


@dataclass(frozen=True, kw_only=True)
class Task(Whole):
    """One model, counted from 0, at one noise level."""

    model: int
    sigma: float


def check(spec: Spec, device: str, network: Factory | None) -> dict[str, Any]:
    """Refuse an image that is not there, and models that cannot be taken apart at it."""
    require(spec, "model", "a trial folder or a model (docs/models.md)")
    count = len(open_images(spec.data))
    if spec.index >= count:
        raise InputError(
            f"--index: {spec.index} is outside {spec.data}, which has {count:,} images; "
            f"give 0 to {count - 1}"
        )
    x = _image(spec, device)
    if spec.vectors > x.numel():
        raise InputError(
            f"--vectors: {spec.vectors} is more than the {x.numel()} values of an image of "
            f"{spec.data}; give at most {x.numel()}"
        )
    opened = {}
    for flag, model in spec.models.items():
        opened[flag] = open_model(model, network)
        known = chosen(open_images(spec.data), MOST, spec.seed).to(x.device)
        refuse_wrong(model, opened[flag], known)
        for sigma in spec.levels:
            _try(spec, flag, opened[flag], x, sigma)
    return {f"{flag}_digest": model_digest(checkpoint) for flag, checkpoint in opened.items()}


def _image(spec: Spec, device: str = "cpu") -> Tensor:
    """The clean image, (1, C, H, W)."""
    return open_images(spec.data)[[spec.index]].to(single_device(device).device)


def _try(spec: Spec, flag: str, model: Checkpoint, x: Tensor, sigma: float) -> None:
    y = x + sigma * noise(x, spec.seed)
    try:
        linearise(model.on(x.device), y, sigma).symmetric(y.flatten(1))
    except Exception as error:  # whatever a function of the user's own may raise
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        raise InputError(
            f"--{flag}: {spec.models[flag]}: cannot be taken apart at an image of {spec.data}, "
            f"{tuple(x.shape[1:])}, with noise of sigma {sigma:g}: {kind}{one_line(error)}"
        ) from None


def tasks(spec: Spec, report: Report) -> list[Task]:
    """Every model at every noise level."""
    return [
        Task(name=f"model{model}-{sigma:g}", part=f"σ = {sigma:g}", model=model, sigma=sigma)
        for sigma in spec.levels
        for model in range(len(spec.models))
    ]


def work(spec: Spec, task: Task, report: Report) -> Arrays:
    """The basis of a model at a noise level."""

    def compute() -> Arrays:
        x, model = _image(spec, task.device), list(spec.models.values())[task.model]
        denoiser, asked = open_model(model, task.custom).on(x.device), {"k": spec.vectors}
        asked |= {"fitted": (spec.first, spec.last), "draws": spec.draws, "seed": spec.seed}
        basis = measure(denoiser, x, task.sigma, **asked)
        done = spec.levels.index(task.sigma) + 1
        report("noise levels", {"step": done, "steps": len(spec.levels)})
        return _arrays(basis)

    key, folder = {"version": VERSION, "sigma": task.sigma}, task.folder / "trials"
    make_within(task.folder, folder)
    return remembered(folder, task.name, key, compute, of=task.seal, report=report)


def _arrays(basis: Basis) -> Arrays:
    """A basis as arrays, its numbers as the bytes of their JSON."""
    found = {
        "denoised": basis.denoised,
        "eigenvectors": basis.vectors,
        "eigenvalues": basis.shrinkage.factors,
        "coefficients_clean": basis.shrinkage.clean,
        "coefficients_noisy": basis.shrinkage.noisy,
        "coefficients_denoised": basis.shrinkage.denoised,
    }
    numbers = np.frombuffer(basis.level.model_dump_json().encode(), np.uint8)
    return {name: value.cpu().numpy() for name, value in found.items()} | {"level": numbers}


def summarise(spec: Spec, done: Sequence[tuple[Task, Arrays]]) -> Summary[Result] | None:
    """What models keep at each noise level, once that of the pictures is done."""
    bases = [
        {task.sigma: arrays for task, arrays in done if task.model == model}
        for model in range(len(spec.models))
    ]
    if spec.sigma not in bases[0]:
        return None
    x = _image(spec)
    names = spec.names or map(_label, spec.models.values())
    models = [
        Model(name=name, levels=[Level.model_validate_json(a["level"].tobytes()) for a in levels])
        for name, levels in zip(names, (of.values() for of in bases), strict=True)
    ]
    found = _agreement(spec, bases) if len(bases) == 2 else []
    result = Result(
        verdict=_verdict(spec, models, found, x.numel()),
        source=spec.data,
        index=spec.index,
        image=open_images(spec.data).names[spec.index],
        shape=tuple(x.shape[1:]),
        sigma=spec.sigma,
        models=models,
        agreement=found,
        fixed=[
            fixed
            for model, of in zip(models, bases, strict=True)
            for fixed in _fixed(spec, model.name, _vectors(of[spec.sigma]), x.shape[1:])
        ],
    )
    arrays = {"clean": x[0].numpy(), "noisy": (x + spec.sigma * noise(x, spec.seed))[0].numpy()}
    for i, of in enumerate(bases):
        own = {name: value for name, value in of[spec.sigma].items() if name != "level"}
        own["eigenvectors"] = own["eigenvectors"].reshape(-1, *x.shape[1:])
        own["eigenvalues"] = np.stack([basis["eigenvalues"] for basis in of.values()])
        arrays |= {f"model{i}/{name}": value for name, value in own.items()}
    return Summary(result, {name: value.astype(np.float32) for name, value in arrays.items()})


def _vectors(basis: Arrays) -> Tensor:
    return torch.from_numpy(basis["eigenvectors"])


def _label(model: str) -> str:
    """The last part of a path that tells models apart; any other model as it is."""
    path = Path(model)
    if not path.exists():
        return model
    return path.resolve().parent.name if path.name == WEIGHTS else path.name


def _agreement(spec: Spec, bases: Sequence[dict[float, Arrays]]) -> list[Agreement]:
    """Of the top 1, 2, 4, ... eigenvectors of two models at every noise level."""
    found = []
    for sigma in bases[0]:
        one, other = (_vectors(levels[sigma]) for levels in bases)
        for count in _dimensions(spec):
            angles = subspaces.agreement(one[:count], other[:count])
            shares = {"shared": angles.shared, "chance": angles.chance}
            found.append(Agreement(sigma=sigma, dimensions=count, **shares))
    return found


def _fixed(spec: Spec, model: str, vectors: Tensor, shape: torch.Size) -> list[Fixed]:
    """Of the top 1, 2, 4, ... eigenvectors with cosines, and wavelets where the sides allow."""
    generator = torch.Generator().manual_seed(derive_seed(spec.seed, "chance"))
    noise = torch.randn(vectors.shape, generator=generator, dtype=torch.float64)
    random = torch.linalg.qr(noise.T).Q.T
    images = vectors.view(-1, *shape)
    bases = {"cosines": subspaces.dct(images)}
    with suppress(ValueError):  # odd or short sides
        bases["wavelets"] = subspaces.wavelet(images)
    return [
        Fixed(
            model=model,
            basis=name,
            dimensions=count,
            shared=subspaces.agreement_with_basis(coefficients[:count]).shared,
            chance=subspaces.agreement_with_basis(random[:count]).shared,
        )
        for name, coefficients in bases.items()
        for count in _dimensions(spec)
    ]


def _dimensions(spec: Spec) -> list[int]:
    return [2**i for i in range(spec.vectors.bit_length())]


def _verdict(spec: Spec, models: list[Model], found: list[Agreement], d: int) -> str:
    levels = [(model.name, model.at(spec.sigma)) for model in models]
    parts = [
        f"{name} returns {level.psnr_out:.1f} dB and keeps {level.kept.bound}"
        f"{level.kept.directions} of {d:,} directions, which hold {level.kept.bound}"
        f"{100 * level.kept.image:.0f} % of the image and {100 * level.kept.noise:.0f} % of the "
        "noise"
        for name, level in levels
    ]
    same = [a for a in found if a.sigma == spec.sigma and a.dimensions <= 8][-1:]
    shared = "".join(
        f"; their top {a.dimensions} eigenvectors share {100 * a.shared:.0f} % "
        f"(chance: {100 * a.chance:.0f} %)"
        for a in same
    )
    caution = "" if all(level.converged for _, level in levels) else "; eigenpairs not converged"
    return (
        f"At σ = {spec.sigma:g} ({levels[0][1].psnr_in:.1f} dB), image {spec.index} of "
        f"{spec.data}: {'; '.join(parts)}{shared}{caution}."
    )


def _memory(spec: Spec) -> tuple[memory.Cost, int]:
    """What the Jacobian takes where it is formed, or bytes of the Krylov space where it is not."""
    d = math.prod(open_images(spec.data).shape)
    dense = d <= DENSE
    krylov = 0 if dense else _KRYLOV * d * min(d, _PRODUCTS * spec.vectors)
    return memory.Cost(0, 0, 0, entries=d**2 if dense else 0), krylov


def refuse(spec: Spec, device: str, workers: int) -> None:
    """Refuse images for whose Jacobian or Krylov space the memory does not suffice."""
    cost, krylov = _memory(spec)
    available, side = memory.available_memory(device), max(open_images(spec.data).shape[1:])
    eigenvectors = memory.Demand(f"{spec.vectors} eigenvectors", available, 0, krylov, 2)
    memory.require_memory(cost, side, device, workers, "data: size", before=(eigenvectors,))


def estimate(spec: Spec, left: int, how: Execution) -> Estimate:
    """From the time of a product with the Jacobian, and how many a basis takes."""
    x, (cost, krylov) = _image(spec, how.device), _memory(spec)
    d = x.numel()
    around = linearise(open_model(spec.model, None).on(x.device), x, spec.sigma)
    rows = x.new_ones(max(1, min(_TIMED, 2**17 // d)), d)
    around.symmetric(rows)  # the first one prepares the others
    product = core_seconds(lambda: around.symmetric(rows)) / (2 * len(rows))
    products = 3 * _PRODUCTS * spec.vectors + _OTHERS if krylov else d
    decomposed = 0.0 if krylov else _DECOMPOSED * d**3
    work = left * ((products + _DRAWN * spec.draws) * product + decomposed)
    seconds, most = by_the_clock(left, work, how), memory.PROCESS + cost.total + krylov
    return Estimate(counted(left, "Jacobian"), seconds, most, 8 * left * d * (spec.vectors + 4))


STUDY = Study(
    name="harmonics",
    spec=Spec,
    count=lambda spec: len(spec.levels) * len(spec.models),
    tasks=tasks,
    work=work,
    summarise=summarise,
    estimate=estimate,
    refuse=refuse,
    reads=("data",),
    check=check,
    machine=("device",),
)
run = STUDY.run
