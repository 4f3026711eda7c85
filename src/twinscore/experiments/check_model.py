"""Whether a model is what it is said to be: every known convention is tried on images it knows."""

import json
import math
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from twinscore.analysis import calibration
from twinscore.denoisers import Checkpoint, Denoiser, denoise
from twinscore.denoisers.adapters import wiring_of, wirings
from twinscore.denoisers.checkpoint import model_digest
from twinscore.environment import Execution
from twinscore.errors import InputError
from twinscore.execution import Report
from twinscore.experiments.estimates import Estimate, by_the_clock, core_seconds, counted
from twinscore.experiments.folders import require
from twinscore.experiments.single import Whole, of_one
from twinscore.experiments.study import Arrays, Summary
from twinscore.experiments.trials import Factory, open_images, open_model
from twinscore.experiments.wiring import chosen, require_mean
from twinscore.limits import Listed, Seed
from twinscore.results.base import Settings
from twinscore.results.check_model import Fit, Result
from twinscore.training import memory, single_device

_HELD = 3
"""Tensors of an evaluation that are held at a time without gradients, about."""


class Spec(Settings):
    """Which model, and images that it knows."""

    model: str = ""
    """A trial folder, its weights file, or another model (docs/models.md)."""
    data: str = ""
    """Images that it was trained on, or that its own pipeline drew: a name, a path, or kind:body,
    then ,key=value (docs/images.md)."""
    held_out: bool = False
    """The images were not trained on: a large error is then a warning."""
    images: int = Field(default=8, ge=1, le=10**4)
    """How many, drawn at random."""
    sigmas: Listed[Annotated[float, Field(ge=1e-4, le=1e4)]] = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
    """Noise levels, image units."""
    seed: Seed = 0
    """Seed of images and noise."""

    @model_validator(mode="after")
    def _check(self) -> "Spec":
        if len(self.sigmas) < 2:
            raise ValueError("sigmas: give two noise levels or more")
        return self

    @property
    def levels(self) -> list[float]:
        """The noise levels, ascending."""
        return sorted(set(self.sigmas))


def check(spec: Spec, device: str, network: Factory | None) -> dict[str, Any]:
    """Refuse images that the model does not take; its digest."""
    require(spec, "model", "a trial folder or another model (docs/models.md)")
    require(spec, "data", "images that it was trained on")
    return {"model_digest": model_digest(_opened(spec, network))}


def _opened(spec: Spec, network: Factory | None = None) -> Checkpoint:
    """The model, for images of the size of ``data``."""
    checkpoint = open_model(spec.model, network)
    require_mean(spec.model, checkpoint)
    shape = open_images(spec.data).shape
    for own, other in zip(checkpoint.shape, shape, strict=True):
        if own not in (None, other):
            known = " x ".join("any" if side is None else str(side) for side in checkpoint.shape)
            raise InputError(
                f"--data: {spec.data} has images of {' x '.join(map(str, shape))} (channels, "
                f"height, width), and {spec.model} takes {known}; add ,size= or ,gray"
            )
    return checkpoint


@torch.no_grad()
def compute(spec: Spec, task: Whole, report: Report) -> Arrays:
    """The fits of all conventions, as bytes of their JSON; and one image, noisy and denoised."""
    checkpoint, device = _opened(spec, task.custom), single_device(task.device).device
    space = checkpoint.within(device)
    x = space.encode(chosen(open_images(spec.data), spec.images, spec.seed).to(device))
    denoiser = space.denoiser
    found = calibration.fits(denoiser, x, spec.levels, spec.seed)
    noisy = [calibration.noisy(x, sigma, spec.seed)[:1] for sigma in spec.levels]
    pairs = zip(noisy, spec.levels, strict=True)
    denoised = [denoise(denoiser, y, s) for y, s in pairs] if not found[0].why else noisy
    numbers = json.dumps([vars(fit) for fit in found]).encode()
    return {
        "fits": np.frombuffer(numbers, np.uint8),
        "images": np.array(len(x)),
        "clean": space.decode(x[:1])[0].cpu().numpy(),
        "noisy": space.decode(torch.cat(noisy)).cpu().numpy(),
        "denoised": space.decode(torch.cat(denoised)).nan_to_num().cpu().numpy(),
    }


def summarise(spec: Spec, arrays: Arrays) -> Summary[Result]:
    """The table of conventions, and whether the named one fits."""
    found = [
        calibration.Fit(**fit | {name: tuple(fit[name]) for name in ("errors", "silent")})
        for fit in json.loads(arrays["fits"].tobytes())
    ]
    fault, warning = calibration.fault(found, spec.levels), None
    if spec.held_out and calibration.better(found, spec.levels) is None:
        fault, warning = None, fault
    own, *others = found
    ordered = [own, *sorted(others, key=lambda fit: fit.score)]
    verdict = f"{spec.model} fits {own.wiring}: on {spec.data}, no known convention fits better."
    if warning:
        verdict = (
            f"{spec.model}: {warning}. These images were held out: a model that memorised others "
            "looks so too."
        )
    result = Result(
        verdict=f"{spec.model} is wired wrongly: {fault}." if fault else verdict,
        model=spec.model,
        source=spec.data,
        held_out=spec.held_out,
        images=arrays["images"].item(),
        shape=arrays["clean"].shape,
        sigmas=spec.levels,
        fits=[
            Fit(
                wiring=fit.wiring,
                errors=[_finite(error) for error in fit.errors],
                bias=_finite(fit.bias),
            )
            for fit in ordered
        ],
        fault=fault,
        warning=warning,
        notes=list(open_model(spec.model).notes),
    )
    return Summary(result, {name: arrays[name] for name in ("clean", "noisy", "denoised")})


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


@torch.no_grad()
def _evaluated(spec: Spec, device: str) -> tuple[Denoiser, Tensor]:
    """The denoiser, and as many images or latents as it is given."""
    where = single_device(device).device
    space = _opened(spec).within(where)
    x = space.encode(torch.zeros(1, *open_images(spec.data).shape, device=where))
    return space.denoiser, x.expand(spec.images, -1, -1, -1)


def _memory(spec: Spec, device: str) -> int:
    """Bytes of an evaluation of all images, from the tensors of one."""
    denoiser, x = _evaluated(spec, device)
    y = x[:1].clone().requires_grad_()
    try:
        sizes = memory.saved(lambda: denoise(denoiser, y, spec.levels[-1]))
    except Exception:  # said by the table
        sizes = []
    return spec.images * (_HELD * max(sizes, default=0) + 4 * 6 * x[0].numel())


def refuse(spec: Spec, device: str) -> None:
    """Refuse images that do not fit the memory together."""
    what = f"{counted(spec.images, 'image')} at a time"
    side = max(open_images(spec.data).shape[1:])
    memory.require(what, device, 0, _memory(spec, device), side)


def estimate(spec: Spec, how: Execution) -> Estimate:
    """From the time of one evaluation, and how many conventions and levels there are."""
    denoiser, x = _evaluated(spec, how.device)

    @torch.no_grad()
    def evaluate() -> None:
        calibration.fits(denoiser, x[:1], spec.levels[-1:], spec.seed)

    count = len(wirings(wiring_of(denoiser)[1]))
    evaluate()  # the first one prepares the others
    each = spec.images * core_seconds(evaluate) / count
    seconds = by_the_clock(1, each * count * len(spec.levels), how)
    most = memory.PROCESS + _memory(spec, how.device)
    disk = 4 * x[0].numel() * (2 * len(spec.levels) + 1) * 2
    return Estimate(counted(count, "convention"), seconds, most, disk)


STUDY = of_one(
    name="check_model",
    version=2,
    spec=Spec,
    compute=compute,
    summarise=summarise,
    estimate=estimate,
    refuse=refuse,
    reads=("data",),
    usable=lambda source: None,
    check=check,
    machine=("device",),
)
run = STUDY.run
