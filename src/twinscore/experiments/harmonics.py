"""The adaptive basis of a denoiser at one image ([GAHB] section 3.1, figure 3), or of two."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from safetensors.numpy import save as serialise
from torch import Tensor

from twinscore import environment, runs
from twinscore import images as image_sets
from twinscore.analysis import harmonics
from twinscore.analysis.jacobian import linearise
from twinscore.denoisers import Checkpoint, load
from twinscore.denoisers.checkpoint import WEIGHTS
from twinscore.errors import InputError, one_line
from twinscore.experiments.drawing import model_digest
from twinscore.experiments.eigenbasis import Basis, measure, noise
from twinscore.experiments.folders import Done, run_folder
from twinscore.experiments.harmonics_results import Agreement, Fixed, Model, Result
from twinscore.experiments.study import of_old
from twinscore.experiments.trials import Factory
from twinscore.runs import derive_seed
from twinscore.training import single_device

__all__ = ["Done", "Result", "Spec", "run"]

LEAST = 1e-5
"""Least noise level, image units: float32 holds images to 6e-8, and so noise to a percent."""


class Spec(BaseModel):
    """Which denoiser, at which image, and how closely it is looked at."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    model: str = ""
    """A trial folder, its weights file, or another model (docs/models.md)."""
    against: str | None = None
    """A second model, to be shown side by side with the first."""
    names: tuple[str, ...] = ()
    """Names of the models in the report (default: the folder of their weights, or the model)."""
    data: str = "digits"
    """Source of the image: a name, a path, or kind:body, then ,key=value (docs/images.md)."""
    index: int = Field(default=0, ge=0)
    """Which image of the source, from 0."""
    sigma: float = Field(default=0.2, ge=LEAST)
    """Noise level of the pictures, the eigenvectors and the coefficients, image units."""
    sigmas: tuple[float, ...] = (0.05, 0.1, 0.2, 0.4)
    """Noise levels of the spectra, image units; ``sigma`` is added to them."""
    vectors: int = Field(default=32, ge=1)
    """Eigenvectors to keep, from the largest eigenvalue on."""
    first: int = Field(default=4, ge=1)
    """First rank of the range over which decays are fitted."""
    last: int = Field(default=64, ge=3)
    """Last rank of that range; it ends earlier where eigenvalues turn negative, and at ``vectors``
    for an image of more than 1,024 values."""
    draws: int = Field(default=64, ge=2)
    """Noisy versions of the image over which SURE and the true error are averaged."""
    seed: int = Field(default=0, ge=0)
    """Seed of the noise and of every estimate."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not all(sigma >= LEAST for sigma in self.sigmas):
            raise ValueError(f"sigmas must be at least {LEAST:g}, got {list(self.sigmas)}")
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


def run(
    spec: Spec,
    out: Path | None = None,
    *,
    device: str = "auto",
    network: Factory | None = None,
) -> Done[Result]:
    """Take one or two denoisers apart at one image, and write the run folder.

    A finished run is read, not repeated, unless another version wrote it.

    Parameters
    ----------
    spec : Spec
        Models, image and noise levels.
    out : Path, optional
        Run folder; default ``runs/harmonics-<hash>``.
    device : str
        lightning-fabric's accelerator: auto, cpu, cuda, mps.
    network : callable, optional
        For weights of a network of the user's own: see :func:`twinscore.denoisers.load`.

    Returns
    -------
    Done
        The folder and the result, also written there as ``result.json``.

    Raises
    ------
    InputError
        For a missing model or image, a model that cannot denoise the image, or a folder of
        another run or in use.
    """
    environment.check(device)
    if not spec.model:
        raise InputError("--model: not given; give a trial folder or a model (docs/models.md)")
    images = image_sets.load(spec.data)
    if spec.index >= len(images):
        raise InputError(
            f"--index: {spec.index} is outside {spec.data}, which has {len(images):,} images; "
            f"give 0 to {len(images) - 1}"
        )
    x = images[[spec.index]]
    if spec.vectors > x.numel():
        raise InputError(
            f"--vectors: {spec.vectors} is more than the {x.numel()} values of an image of "
            f"{spec.data}; give at most {x.numel()}"
        )
    x = x.to(single_device(device).device)
    models = _open(spec, x, network)
    content = {"study": "harmonics"} | spec.model_dump(mode="json")
    content |= {
        f"{flag}_digest": model_digest(checkpoint) for flag, checkpoint in models.items()
    } | {"data_digest": images.digest}
    with run_folder(content, out) as (folder, report):
        finished = folder / "result.json"
        if finished.exists():
            with suppress(ValidationError):  # of an earlier version: measure again
                return Done(folder, Result.model_validate(runs.read_json(finished)))
        environment.start(folder, device=device, workers=1, trials=1)
        with environment.timed(folder):
            bases = [_bases(spec, checkpoint, x, report) for checkpoint in models.values()]
            name = images.names[spec.index]
            return Done(folder, _write(folder, spec, x, name, bases))


def _open(spec: Spec, x: Tensor, network: Factory | None) -> dict[str, Checkpoint]:
    """The models, by their flag, each of them tried at every noise level, on the image's device."""
    strings = {"model": spec.model, "against": spec.against}
    opened = {}
    for flag, string in strings.items():
        if string is None:
            continue
        opened[flag] = load(string, network=network)
        for sigma in spec.levels:
            y = x + sigma * noise(x, spec.seed)
            try:
                linearise(opened[flag].on(x.device), y, sigma).symmetric(y.flatten(1))
            except Exception as error:  # whatever a function of the user's own may raise
                kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
                raise InputError(
                    f"--{flag}: {string}: cannot be taken apart at an image of {spec.data}, "
                    f"{tuple(x.shape[1:])}, with noise of sigma {sigma:g}: {kind}{one_line(error)}"
                ) from None
    return opened


def _bases(spec: Spec, checkpoint: Checkpoint, x: Tensor, report: Any) -> dict[float, Basis]:
    denoiser, found = checkpoint.on(x.device), {}
    for step, sigma in enumerate(spec.levels, 1):
        found[sigma] = measure(
            denoiser,
            x,
            sigma,
            k=spec.vectors,
            fitted=(spec.first, spec.last),
            draws=spec.draws,
            seed=spec.seed,
        )
        report("noise levels", {"step": step, "steps": len(spec.levels)})
    return found


def _write(
    folder: Path, spec: Spec, x: Tensor, name: str, bases: Sequence[dict[float, Basis]]
) -> Result:
    strings = [spec.model, *([spec.against] if spec.against else [])]
    names = spec.names or [_label(string) for string in strings]
    models = [
        Model(name=label, levels=[basis.level for basis in levels.values()])
        for label, levels in zip(names, bases, strict=True)
    ]
    found = _agreement(spec, bases) if len(bases) == 2 else []
    result = Result(
        verdict=_verdict(spec, models, found, x.numel()),
        source=spec.data,
        index=spec.index,
        image=name,
        shape=tuple(x.shape[1:]),
        sigma=spec.sigma,
        models=models,
        agreement=found,
        fixed=[
            fixed
            for model, levels in zip(models, bases, strict=True)
            for fixed in _fixed(spec, model.name, levels[spec.sigma].vectors, x.shape[1:])
        ],
    )
    arrays = {
        name: np.ascontiguousarray(value.cpu().numpy(), dtype=np.float32)
        for name, value in _arrays(spec, x, bases).items()
    }
    runs.write_atomic(
        folder / "arrays.safetensors", lambda path: path.write_bytes(serialise(arrays))
    )
    runs.write_text(folder / "result.json", result.model_dump_json(indent=2) + "\n")
    return result


def _label(model: str) -> str:
    """The last part of a path that tells models apart; a model that is no path as it is."""
    path = Path(model)
    if not path.exists():
        return model
    return path.resolve().parent.name if path.name == WEIGHTS else path.name


def _arrays(spec: Spec, x: Tensor, bases: Sequence[dict[float, Basis]]) -> dict[str, Tensor]:
    """Pictures, spectra, eigenvectors and coefficients: ``model0/...`` and ``model1/...``."""
    arrays = {"clean": x[0], "noisy": (x + spec.sigma * noise(x, spec.seed))[0]}
    for i, levels in enumerate(bases):
        main = levels[spec.sigma]
        own = {
            "denoised": main.denoised,
            "eigenvectors": main.vectors.view(-1, *x.shape[1:]),
            "coefficients_clean": main.shrinkage.clean,
            "coefficients_noisy": main.shrinkage.noisy,
            "coefficients_denoised": main.shrinkage.denoised,
        }
        spectra = torch.stack([basis.shrinkage.factors for basis in levels.values()])
        own["eigenvalues"] = spectra  # a row for each noise level
        arrays |= {f"model{i}/{name}": value for name, value in own.items()}
    return arrays


def _agreement(spec: Spec, bases: Sequence[dict[float, Basis]]) -> list[Agreement]:
    """Of the top 1, 2, 4, ... eigenvectors of two models at every noise level."""
    found = []
    for sigma in spec.levels:
        for count in _dimensions(spec):
            one, other = (levels[sigma].vectors[:count] for levels in bases)
            angles = harmonics.agreement(one, other)
            found.append(
                Agreement(sigma=sigma, dimensions=count, shared=angles.shared, chance=angles.chance)
            )
    return found


def _fixed(spec: Spec, model: str, vectors: Tensor, shape: torch.Size) -> list[Fixed]:
    """Of the top 1, 2, 4, ... eigenvectors with cosines, and wavelets where the sides allow."""
    generator = torch.Generator().manual_seed(derive_seed(spec.seed, "chance"))
    noise = torch.randn(vectors.shape, generator=generator, dtype=torch.float64)
    random = torch.linalg.qr(noise.T).Q.T
    images = vectors.view(-1, *shape)
    bases = {"cosines": harmonics.dct(images)}
    with suppress(ValueError):  # odd or short sides
        bases["wavelets"] = harmonics.wavelet(images)
    return [
        Fixed(
            model=model,
            basis=name,
            dimensions=count,
            shared=harmonics.agreement_with_basis(coefficients[:count]).shared,
            chance=harmonics.agreement_with_basis(random[:count]).shared,
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
    shared = ""
    same = [a for a in found if a.sigma == spec.sigma and a.dimensions <= 8]
    if same:
        shared = (
            f"; their top {same[-1].dimensions} eigenvectors share {100 * same[-1].shared:.0f} % "
            f"(chance: {100 * same[-1].chance:.0f} %)"
        )
    caution = "" if all(level.converged for _, level in levels) else "; eigenpairs not converged"
    return (
        f"At σ = {spec.sigma:g} ({levels[0][1].psnr_in:.1f} dB), image {spec.index} of "
        f"{spec.data}: {'; '.join(parts)}{shared}{caution}."
    )


STUDY = of_old("harmonics", Spec, lambda *a, **k: run(*a, **k), ("device",))
