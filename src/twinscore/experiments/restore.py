"""Restore a picture from linear measurements with the prior inside a denoiser."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from skimage.metrics import structural_similarity
from torch import Tensor

from twinscore import runs, sampling
from twinscore.denoisers import Checkpoint, Denoiser, denoise, psnr
from twinscore.denoisers.checkpoint import model_digest, sized
from twinscore.environment import Execution
from twinscore.errors import InputError
from twinscore.execution import Report
from twinscore.experiments.estimates import Estimate, by_the_clock, core_seconds, counted
from twinscore.experiments.folders import require
from twinscore.experiments.single import Whole, of_one
from twinscore.experiments.study import Arrays, Summary
from twinscore.experiments.trials import Factory, open_model
from twinscore.experiments.wiring import refuse_wrong
from twinscore.images import picture
from twinscore.limits import LARGEST_SIDE, Seed
from twinscore.results.base import Settings
from twinscore.results.restore import Result, Score
from twinscore.sampling import Operator, SamplingSpec, Solves, operators
from twinscore.sampling.spec import evaluations
from twinscore.training import memory, single_device

RUNAWAY = 10.0  # distance from the mean, image units, at which a sample has run away

_VECTORS, _HELD = 12, 3
"""Images of a sample that conjugate gradients and sampler hold, and tensors of an evaluation."""
_MATRIX = 32
"""Bytes of each value of compressive sensing's images: float64 and again for QR, float32 twice."""


class Spec(Settings):
    """One picture, what is measured of it, and how it is restored."""

    model: str = ""
    """A trial folder, its weights file, or another model (docs/models.md)."""
    image: str = ""
    """A picture file."""
    size: int | None = Field(default=None, ge=2, le=LARGEST_SIDE)
    """Side to which the picture's central square is resized (default: that of the model)."""
    task: Literal[
        "inpainting", "random_pixels", "super_resolution", "deblurring", "compressive_sensing"
    ] = "inpainting"
    """What is measured: all but a central square; a random part of the pixels; means of blocks; the
    lowest frequencies; inner products with random images."""
    fraction: float = Field(default=0.2, gt=0, lt=1)
    """Share that is missing (inpainting), or that is measured (all others but super_resolution)."""
    factor: int = Field(default=2, ge=2, le=LARGEST_SIDE)
    """super_resolution: side of the blocks in pixels."""
    noise: float = Field(default=0.0, ge=0, le=1e4)
    """Standard deviation of the noise on the measurements, image units."""
    rule: Literal["conditioned", "projected"] = "conditioned"
    """Posterior mean with the denoiser's Jacobian; or the published projection, by stochastic
    reverse diffusion, for measurements without noise."""
    samples: int = Field(default=8, ge=2, le=10**4)
    """Posterior samples."""
    seed: Seed = 0
    """Seed of measurements, noise and samples."""
    steps: int = Field(default=30, ge=2, le=10**6)
    """conditioned: noise levels of the flow."""
    ridge: float = Field(default=0.05, ge=0, le=1e6)
    """conditioned: added to the eigenvalues of the Jacobian, which of a network may be negative."""
    iterations: int = Field(default=10, ge=1, le=10**6)
    """conditioned: most steps of conjugate gradients at each level."""
    sigma_max: float = Field(default=1.0, gt=0.01, le=1e4)
    """Noise level at which sampling starts, image units."""
    h0: float = Field(default=0.02, ge=1e-6, le=1)
    """projected: first step size."""
    beta: float = Field(default=0.2, ge=1e-6, le=1)
    """projected: 1 adds no noise, less adds more."""


def check(spec: Spec, device: str, network: Factory | None) -> dict[str, Any]:
    """Refuse what is not given or does not fit the picture; digests of model and picture."""
    require(spec, "model", "a trial folder or another model (docs/models.md)")
    require(spec, "image", "a picture")
    if spec.rule == "projected" and spec.noise:
        raise InputError("noise: projected takes measurements without noise; use rule conditioned")
    checkpoint, original = _opened(spec, network)
    _operator(spec, tuple(original.shape))
    refuse_wrong(spec.model, checkpoint, original[None].to(single_device(device).device))
    return {
        "model_digest": model_digest(checkpoint),
        "image_digest": runs.digest(original.flatten().tolist()),
    }


def _opened(spec: Spec, network: Factory | None = None) -> tuple[Checkpoint, Tensor]:
    """The model, and the picture (C, H, W) as it takes it."""
    checkpoint = open_model(spec.model, network)
    checkpoint = sized(checkpoint, spec.size or checkpoint.shape[1])
    gray = checkpoint.shape[0] == 1
    return checkpoint, picture(Path(spec.image), checkpoint.shape[1], gray=gray)


def compute(spec: Spec, task: Whole, report: Report) -> Arrays:
    """The picture, what was measured of it, and the samples that converged."""
    checkpoint, original = _opened(spec, task.custom)
    operator = _operator(spec, tuple(original.shape))
    x = original[None].to(single_device(task.device).device)
    mean = torch.tensor(checkpoint.mean, device=x.device).view(-1, 1, 1)
    measurement = operator.measure(x)
    if spec.noise:
        generator = torch.Generator().manual_seed(runs.derive_seed(spec.seed, "measurement"))
        z = torch.randn(measurement.shape, generator=generator).to(measurement)
        measurement = measurement + spec.noise * z
    start, solves = sampling.completed(operator, measurement, mean), Solves([])
    sampler = _sampler(spec, checkpoint.on(x.device), operator, measurement, solves, report)
    seeds = [runs.derive_seed(spec.seed, "image", i) for i in range(spec.samples)]
    z = sampling.noise(seeds, operator.shape).to(x.device)
    samples = sampler(z, seeds=seeds, mean=start, sigma_max=spec.sigma_max)
    good = samples[(samples - mean).abs().flatten(1).amax(1) < RUNAWAY]
    if len(good) < 2:
        raise RuntimeError("fewer than two samples converged; try a larger --ridge or smaller --h0")
    return {
        "original": original.numpy(),
        "measured": start[0].cpu().numpy(),
        "samples": good.cpu().numpy(),
        "measurements": np.array(operator.size),
        "inconsistency": np.array(sampling.inconsistency(operator, good, measurement).max().item()),
        "residual": np.array(np.median(solves.residuals) if solves.residuals else np.nan),
    }


def _sampler(
    spec: Spec,
    denoiser: Denoiser,
    operator: Operator,
    measurement: Tensor,
    solves: Solves,
    report: Report,
) -> Callable[..., Tensor]:
    """What draws samples that agree with the measurement."""
    if spec.rule == "projected":
        given = sampling.projected(denoiser, operator, measurement)
        return partial(sampling.reverse_diffusion, given, h0=spec.h0, beta=spec.beta)
    own = {"noise_level": spec.noise, "ridge": spec.ridge, "iterations": spec.iterations}
    given = sampling.conditioned(denoiser, operator, measurement, solves=solves, **own)

    def progress(step: int, *_: object) -> None:
        report("levels", {"step": step + 1, "steps": spec.steps})

    return partial(sampling.probability_flow, given, steps=spec.steps, callback=progress)


def _operator(spec: Spec, shape: tuple[int, int, int]) -> Operator:
    memory.require("random images", "cpu", 0, _matrix(spec, shape), shape[1], power=4)
    try:
        if spec.task == "inpainting":
            return operators.inpainting(_all_but_a_square(shape, spec.fraction))
        if spec.task == "super_resolution":
            return operators.super_resolution(shape, spec.factor)
        if spec.task == "deblurring":
            return operators.spectral_deblurring(shape, spec.fraction)
        random = getattr(operators, spec.task)  # random_pixels, compressive_sensing
        return random(shape, spec.fraction, runs.derive_seed(spec.seed, "operator"))
    except ValueError as error:
        raise InputError(f"--task {spec.task}: {error}") from None


def _matrix(spec: Spec, shape: tuple[int, int, int]) -> int:
    """Bytes that compressive sensing's random images take while they are made."""
    if spec.task != "compressive_sensing":
        return 0
    return int(_MATRIX * spec.fraction * math.prod(shape) ** 2)


def _all_but_a_square(shape: tuple[int, int, int], missing: float) -> Tensor:
    height, width = shape[1:]
    mask = torch.ones(shape, dtype=torch.bool)
    tall, wide = (max(1, round(side * math.sqrt(missing))) for side in (height, width))
    top, left = (height - tall) // 2, (width - wide) // 2
    mask[:, top : top + tall, left : left + wide] = False
    return mask


def summarise(spec: Spec, arrays: Arrays) -> Summary[Result]:
    """How close the samples and their mean are to the original, and how far apart."""
    original, measured, good = (
        torch.from_numpy(arrays[name]) for name in ("original", "measured", "samples")
    )
    mean, deviation = good.mean(0), good.std(0)
    scores = [_score(sample, original) for sample in good]
    best, whole = _score(measured, original), _score(mean, original)
    name, size = spec.task.replace("_", " "), arrays["measurements"].item()
    residual = arrays["residual"].item()
    verdict = (
        f"From {size:,} of {original.numel():,} numbers ({name}), {Path(spec.image).name} "
        f"is restored at {np.median([s.psnr for s in scores]):.1f} dB (median of {len(scores)} "
        f"samples; their mean: {whole.psnr:.1f} dB; what was measured alone: {best.psnr:.1f} dB)."
    )
    result = Result(
        verdict=verdict,
        task=spec.task,
        shape=tuple(original.shape),
        measurements=size,
        measured=best,
        mean=whole,
        samples=scores,
        inconsistency=arrays["inconsistency"].item(),
        residual=None if math.isnan(residual) else residual,
        unfinished=spec.samples - len(good),
    )
    shown = {name: arrays[name] for name in ("original", "measured", "samples")}
    return Summary(result, shown | {"mean": mean.numpy(), "deviation": deviation.numpy()})


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


def _memory(spec: Spec, device: str) -> tuple[int, int]:
    """Bytes on the device: of the model, and of the samples.

    What an evaluation keeps for its gradient is counted for one image and for two; without
    gradients the largest tensors alone are held at a time.
    """
    checkpoint, original = _opened(spec)
    x = original[None].to(single_device(device).device)
    denoiser, counts = checkpoint.on(x.device), []
    for count in (1, 2):
        y = x.expand(count, -1, -1, -1).clone().requires_grad_(spec.rule == "conditioned")
        sizes = memory.saved(lambda y=y: denoise(denoiser, y, spec.sigma_max))
        largest = max(sizes, default=0)
        counts.append(sum(sizes) + largest if spec.rule == "conditioned" else _HELD * largest)
    each = max(0, counts[1] - counts[0])
    return max(0, counts[0] - each), spec.samples * (each + 4 * _VECTORS * original.numel())


def refuse(spec: Spec, device: str) -> None:
    """Refuse samples that do not fit the memory together."""
    side = _opened(spec)[1].shape[1]
    memory.require(f"{spec.samples} samples at a time", device, *_memory(spec, device), side)


def estimate(spec: Spec, how: Execution) -> Estimate:
    """From the time of one evaluation, of all samples, and how many each of them takes."""
    checkpoint, original = _opened(spec)
    x = original.to(single_device(how.device).device).expand(spec.samples, -1, -1, -1)
    denoiser = checkpoint.on(x.device)

    @torch.no_grad()
    def evaluate() -> float:
        return denoise(denoiser, x, spec.sigma_max).sum().item()

    evaluate()  # the first one prepares the others
    seconds = by_the_clock(1, _evaluations(spec) * core_seconds(evaluate), how)
    most = memory.PROCESS + _matrix(spec, original.shape) + sum(_memory(spec, how.device))
    disk = 8 * original.numel() * (spec.samples + 4)
    return Estimate(counted(spec.samples, "sample"), seconds, most, disk)


def _evaluations(spec: Spec) -> float:
    """Evaluations that a sample takes; a product with the Jacobian counts as two."""
    if spec.rule == "conditioned":
        return spec.steps * (1 + 2 * (spec.iterations + 1))
    own = {name: getattr(spec, name) for name in ("h0", "beta", "sigma_max")}
    return evaluations(SamplingSpec(method="stochastic", **own))


STUDY = of_one(
    name="restore",
    version=1,
    spec=Spec,
    compute=compute,
    summarise=summarise,
    estimate=estimate,
    refuse=refuse,
    check=check,
    machine=("device",),
)
run = STUDY.run
