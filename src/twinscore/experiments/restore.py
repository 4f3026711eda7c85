"""Restore a picture from linear measurements with the prior inside a denoiser."""

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors.numpy import save as serialise
from skimage.metrics import structural_similarity
from torch import Tensor

from twinscore import environment, runs
from twinscore.denoisers import Checkpoint, load, psnr
from twinscore.errors import InputError
from twinscore.experiments.drawing import model_digest, sized
from twinscore.experiments.folders import Done, run_folder
from twinscore.experiments.study import of_old
from twinscore.images import picture
from twinscore.sampling import (
    Operator,
    Solves,
    completed,
    conditioned,
    inconsistency,
    noise,
    operators,
    probability_flow,
    projected,
    reverse_diffusion,
)
from twinscore.training import single_device

__all__ = ["Done", "Result", "Spec", "run"]


RUNAWAY = 10.0
"""Distance from the mean, image units, at which a sample has run away."""


class Spec(BaseModel):
    """One picture, what is measured of it, and how it is restored."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    model: str = ""
    """A trial folder, its weights file, or another model (docs/models.md)."""
    image: str = ""
    """A picture file."""
    size: int | None = Field(default=None, ge=2)
    """Side to which the picture's central square is resized (default: that of the model)."""
    task: Literal[
        "inpainting", "random_pixels", "super_resolution", "deblurring", "compressive_sensing"
    ] = "inpainting"
    """What is measured: all but a central square; a random part of the pixels; means of blocks; the
    lowest frequencies; inner products with random images."""
    fraction: float = Field(default=0.2, gt=0, lt=1)
    """Share that is missing (inpainting), or that is measured (all others but super_resolution)."""
    factor: int = Field(default=2, ge=2)
    """super_resolution: side of the blocks in pixels."""
    noise: float = Field(default=0.0, ge=0)
    """Standard deviation of the noise on the measurements, image units."""
    rule: Literal["conditioned", "projected"] = "conditioned"
    """Posterior mean with the denoiser's Jacobian; or the published projection, by stochastic
    reverse diffusion, for measurements without noise."""
    samples: int = Field(default=8, ge=2)
    """Posterior samples."""
    seed: int = Field(default=0, ge=0)
    """Seed of measurements, noise and samples."""
    steps: int = Field(default=30, ge=2)
    """conditioned: noise levels of the flow."""
    ridge: float = Field(default=0.05, ge=0)
    """conditioned: added to the eigenvalues of the Jacobian, which of a network may be negative."""
    iterations: int = Field(default=10, ge=1)
    """conditioned: most steps of conjugate gradients at each level."""
    sigma_max: float = Field(default=1.0, gt=0)
    """Noise level at which sampling starts, image units."""
    h0: float = Field(default=0.02, gt=0, le=1)
    """projected: first step size."""
    beta: float = Field(default=0.2, gt=0, le=1)
    """projected: 1 adds no noise, less adds more."""


class Score(BaseModel):
    """How close images are to the original."""

    model_config = ConfigDict(frozen=True)

    psnr: float
    """dB, of the mean squared error per pixel, peak 1."""
    ssim: float
    """Structural similarity (Wang et al. 2004), at most 1."""


class Result(BaseModel):
    """What ``result.json`` holds."""

    model_config = ConfigDict(frozen=True)

    schema_version: int = runs.SCHEMA_VERSION
    study: Literal["restore"] = "restore"
    verdict: str
    task: str
    shape: tuple[int, int, int]
    measurements: int
    measured: Score
    mean: Score
    samples: list[Score]
    inconsistency: float
    """Largest relative distance of a sample's measurements from the given ones."""
    residual: float | None
    """Median relative residual of conjugate gradients (conditioned)."""
    unfinished: int
    """Samples whose path did not converge; they are left out of the mean."""

    def table(self) -> str:
        """Scores as text."""
        rows = {"measured": self.measured, "mean": self.mean}
        rows |= {f"sample {i}": score for i, score in enumerate(self.samples, 1)}
        lines = [f"{name:12s}{s.psnr:8.2f} dB{s.ssim:8.3f}" for name, s in rows.items()]
        return "\n".join([f"{'':12s}{'PSNR':>11s}{'SSIM':>8s}", *lines])


def run(spec: Spec, out: Path | None = None, *, device: str = "auto") -> Done[Result]:
    """Measure a picture, restore it several times, and write the run folder.

    Parameters
    ----------
    spec : Spec
        Model, picture, task and rule.
    out : Path, optional
        Run folder; default ``runs/restore-<hash>``.
    device : str
        lightning-fabric's accelerator: auto, cpu, cuda, mps.

    Returns
    -------
    Done
        The folder and the result, also written there as ``result.json``.

    Raises
    ------
    InputError
        For a missing model or picture, a task that does not fit the picture, or a folder of
        another run or in use.
    """
    environment.check(device)
    for name, what in {
        "model": "a trial folder or another model (docs/models.md)",
        "image": "a picture",
    }.items():
        if not getattr(spec, name):
            raise InputError(f"--{name}: not given; give {what}")
    if spec.rule == "projected" and spec.noise:
        raise InputError("noise: projected takes measurements without noise; use rule conditioned")
    checkpoint = load(spec.model)
    checkpoint = sized(checkpoint, spec.size or checkpoint.shape[1])
    original = picture(Path(spec.image), checkpoint.shape[1], gray=checkpoint.shape[0] == 1)
    operator = _operator(spec, tuple(original.shape))
    content = {"study": "restore"} | spec.model_dump(mode="json")
    content |= {
        "model_digest": model_digest(checkpoint),
        "image_digest": runs.digest(original.flatten().tolist()),
    }
    with run_folder(content, out) as (folder, report):
        environment.start(folder, device=device, workers=1, trials=1)
        with environment.timed(folder):
            found = single_device(device).device
            restored = _restore(spec, checkpoint, operator, original[None].to(found), report)
            return Done(folder, _write(folder, spec, operator, original, restored))


@dataclass(frozen=True)
class _Restored:
    measured: Tensor
    samples: Tensor
    unfinished: int
    inconsistency: float
    residual: float | None


def _operator(spec: Spec, shape: tuple[int, int, int]) -> Operator:
    try:
        if spec.task == "inpainting":
            return operators.inpainting(_all_but_a_square(shape, spec.fraction))
        if spec.task == "super_resolution":
            return operators.super_resolution(shape, spec.factor)
        if spec.task == "deblurring":
            return operators.spectral_deblurring(shape, spec.fraction)
        random = {
            "random_pixels": operators.random_pixels,
            "compressive_sensing": operators.compressive_sensing,
        }
        return random[spec.task](shape, spec.fraction, runs.derive_seed(spec.seed, "operator"))
    except ValueError as error:
        raise InputError(f"--task {spec.task}: {error}") from None


def _all_but_a_square(shape: tuple[int, int, int], missing: float) -> Tensor:
    height, width = shape[1:]
    mask = torch.ones(shape, dtype=torch.bool)
    tall, wide = (max(1, round(side * math.sqrt(missing))) for side in (height, width))
    top, left = (height - tall) // 2, (width - wide) // 2
    mask[:, top : top + tall, left : left + wide] = False
    return mask


def _restore(
    spec: Spec, checkpoint: Checkpoint, operator: Operator, original: Tensor, report: Any
) -> _Restored:
    denoiser = checkpoint.on(original.device)
    mean = torch.tensor(checkpoint.mean, device=original.device).view(-1, 1, 1)
    measurement = operator.measure(original)
    if spec.noise:
        generator = torch.Generator().manual_seed(runs.derive_seed(spec.seed, "measurement"))
        z = torch.randn(measurement.shape, generator=generator).to(measurement)
        measurement = measurement + spec.noise * z
    seeds = [runs.derive_seed(spec.seed, "image", i) for i in range(spec.samples)]
    z = noise(seeds, operator.shape).to(original.device)
    start, solves = completed(operator, measurement, mean), Solves([])
    if spec.rule == "projected":
        given = projected(denoiser, operator, measurement)
        sampler = partial(reverse_diffusion, h0=spec.h0, beta=spec.beta)
    else:
        given = conditioned(
            denoiser,
            operator,
            measurement,
            noise_level=spec.noise,
            ridge=spec.ridge,
            iterations=spec.iterations,
            solves=solves,
        )
        sampler = partial(
            probability_flow,
            steps=spec.steps,
            callback=lambda step, *_: report("levels", {"step": step + 1, "steps": spec.steps}),
        )
    samples = sampler(given, z, seeds=seeds, mean=start, sigma_max=spec.sigma_max)
    good = samples[(samples - mean).abs().flatten(1).amax(1) < RUNAWAY]
    if len(good) < 2:
        raise RuntimeError("fewer than two samples converged; try a larger --ridge or smaller --h0")
    return _Restored(
        start[0].cpu(),
        good.cpu(),
        len(samples) - len(good),
        inconsistency(operator, good, measurement).max().item(),
        float(np.median(solves.residuals)) if solves.residuals else None,
    )


def _write(
    folder: Path, spec: Spec, operator: Operator, original: Tensor, restored: _Restored
) -> Result:
    good = restored.samples
    mean, deviation = good.mean(0), good.std(0)
    scores = [_score(sample, original) for sample in good]
    best, whole = _score(restored.measured, original), _score(mean, original)
    name = spec.task.replace("_", " ")
    verdict = (
        f"From {operator.size:,} of {original.numel():,} numbers ({name}), {Path(spec.image).name} "
        f"is restored at {np.median([s.psnr for s in scores]):.1f} dB (median of {len(scores)} "
        f"samples; their mean: {whole.psnr:.1f} dB; what was measured alone: {best.psnr:.1f} dB)."
    )
    result = Result(
        verdict=verdict,
        task=spec.task,
        shape=operator.shape,
        measurements=operator.size,
        measured=best,
        mean=whole,
        samples=scores,
        inconsistency=restored.inconsistency,
        residual=restored.residual,
        unfinished=restored.unfinished,
    )
    tensors = {
        "original": original,
        "measured": restored.measured,
        "samples": good,
        "mean": mean,
        "deviation": deviation,
    }
    arrays = {k: np.ascontiguousarray(v.numpy(), dtype=np.float32) for k, v in tensors.items()}
    runs.write_atomic(
        folder / "arrays.safetensors", lambda path: path.write_bytes(serialise(arrays))
    )
    runs.write_text(folder / "result.json", result.model_dump_json(indent=2) + "\n")
    return result


def _score(x_hat: Tensor, x: Tensor) -> Score:
    window = min(7, *x.shape[1:])
    similarity = structural_similarity(
        x_hat.clamp(0, 1).double().numpy(),
        x.double().numpy(),
        data_range=1.0,
        channel_axis=0,
        win_size=window - (window + 1) % 2,
    )
    return Score(psnr=psnr(x_hat[None], x[None]).item(), ssim=float(similarity))


STUDY = of_old("restore", Spec, lambda *a, **k: run(*a, **k), ("device",))
