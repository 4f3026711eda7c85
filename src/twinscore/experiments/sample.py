"""Draw samples from a denoiser into a picture or an array file, a batch at a time."""

import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pydantic import Field, model_validator
from torch import Tensor

from twinscore import environment, images, runs
from twinscore.denoisers import Checkpoint, check, load
from twinscore.denoisers.adapters import wiring_of
from twinscore.denoisers.checkpoint import model_digest, sized
from twinscore.errors import InputError, one_line
from twinscore.execution import Report, settled_torch
from twinscore.experiments.folders import kept, making, require, require_end
from twinscore.experiments.wiring import MOST, chosen, names_convention, refuse_other
from twinscore.limits import LARGEST_SIDE, MOST_SAMPLES, Seed
from twinscore.progress import Reporter
from twinscore.results.base import Frozen, Settings
from twinscore.sampling import SamplingSpec, noise
from twinscore.sampling.samples import batch_for, draw_batch, settled_for
from twinscore.training import single_device

MARGIN = 1
FILM_SEEDS = 8


class Spec(Settings):
    """Samples of one model."""

    model: str = ""
    """A trial folder, its weights file, or another model (docs/models.md)."""
    data: str = ""
    """Images that the model was trained on, on which a convention that it names is tried before
    anything is drawn (docs/images.md)."""
    size: int | None = Field(default=None, ge=1, le=LARGEST_SIDE)
    """Side of the samples in pixels (default: that of the model's images)."""
    mean: float | None = Field(default=None, ge=-1e4, le=1e4)
    """Mean intensity around which sampling starts (default: that of the model's images; 0.5 where
    the model does not say)."""
    count: int = Field(default=64, ge=1, le=MOST_SAMPLES)
    """Samples to draw."""
    seed: Seed = 0
    """Sample i is a function of (seed, i) only."""
    batch: int | None = Field(default=None, ge=1, le=MOST_SAMPLES)
    """Samples drawn at a time (default: 128, fewer of images above 90x90, to bound memory)."""
    film: int = Field(default=0, ge=0, le=1000)
    """Instead of a grid of samples, show this many moments of the way to each of the first few."""
    sampling: SamplingSpec = SamplingSpec()
    """How samples are drawn."""

    @model_validator(mode="after")
    def _film(self) -> "Spec":
        if self.film == 1:
            raise ValueError("film: a film strip needs 2 moments or more; give 0 for none")
        return self


class Result(Frozen):
    """Where the samples went, and how many did not converge."""

    path: Path
    unfinished: int


@settled_torch()
def run(
    spec: Spec,
    out: Path | str | None = None,
    *,
    device: str = "auto",
    threads: int | None = None,
) -> Result:
    """Draw samples and write them to a new file.

    Batches are kept in a hidden folder beside it until all are there: memory holds one batch, and
    the same command continues after an interruption. A ``.png`` is a square grid, or a film strip,
    clipped to [0, 1]; a ``.npz`` has ``samples``, (S, C, H, W) float32, not clipped, ``seeds``, and
    ``how``, the bytes of a JSON object: sampler and steps, a pipeline's scheduler and guidance.
    ``threads`` is how many processors may be used; by default all that ``OMP_NUM_THREADS``,
    affinity and container grant.

    Raises
    ------
    InputError
        For a missing model, an existing file or another kind of file, or settings that do not fit
        the model or the machine.
    """
    environment.check(device, threads=threads)
    with settled_torch(environment.own_threads(threads)):
        return _sampled(spec, out, device)


def _sampled(spec: Spec, out: Path | str | None, device: str) -> Result:
    require(spec, "model", "a trial folder or another model (docs/models.md)")
    out = require_end(out, ("png", "npz"), "a file for samples")
    if spec.film and out.suffix != ".png":
        raise InputError(f"--film: {out} is not a picture; give an --out that ends in .png")
    checkpoint = sized(load(spec.model), spec.size)
    settled = settled_for(checkpoint, spec.sampling)
    if settled.method == "own":
        _require_ours(spec)
    else:
        _try(spec.model, checkpoint, settled.sigma_max)
    untried = _untried(spec, checkpoint)
    if spec.mean is not None:
        checkpoint = replace(checkpoint, mean=(spec.mean,))
    if spec.batch is None:
        spec = spec.model_copy(update={"batch": batch_for(checkpoint.shape)})
    count = min(spec.count, FILM_SEEDS) if spec.film else spec.count
    seeds = np.array([runs.derive_seed(spec.seed, "image", i) for i in range(count)])
    content = _content(spec, checkpoint)
    with making(out, content) as file, Reporter() as report:
        if not file.done:
            if untried:
                report("model", {"text": untried})
            drawn = _film if spec.film else _grid if out.suffix == ".png" else _array
            asked = _Asked(spec, checkpoint, seeds, device, report)
            file.told["unfinished"] = drawn(asked, file.whole)
    return Result(path=out, unfinished=file.told["unfinished"])


@torch.no_grad()
def _try(model: str, checkpoint: Checkpoint, sigma: float) -> None:
    """Refuse a model that does not denoise what its samples begin with."""
    space = checkpoint.within("cpu")
    try:
        check(space.denoiser, sigma * noise([0], space.shape), sigma)
    except Exception as error:  # whatever a function of the user's own may raise
        raise InputError(f"--model: {model}: cannot be drawn from: {one_line(error)}") from None


def _require_ours(spec: Spec) -> None:
    """Refuse what a pipeline's own sampler does not take."""
    for flag, given in (("mean", spec.mean is not None), ("film", spec.film)):
        if given:
            raise InputError(
                f"--{flag}: the pipeline's own sampler does not take it; leave it out, or add "
                "--sampling.method flow for ours"
            )


def how(checkpoint: Checkpoint, sampling: SamplingSpec) -> dict[str, Any]:
    """How samples of a model are drawn: of a pipeline's own sampler its scheduler and guidance."""
    settled = settled_for(checkpoint, sampling)
    if settled.method == "own":
        return {"method": "own", "steps": settled.steps} | dict(checkpoint.sampler.about)
    return settled.model_dump(exclude={"quality"})


def _untried(spec: Spec, checkpoint: Checkpoint) -> str:
    """Refuse a convention that is not the network's; says so where there are no images to try."""
    if not names_convention(checkpoint):
        return ""
    if not spec.data:
        return (
            f"{spec.model} is taken for {wiring_of(checkpoint.denoiser)[1]}, untried; give --data "
            "with images that it was trained on to have that tried"
        )
    known = images.load(spec.data)
    if known.shape != checkpoint.shape:
        raise InputError(
            f"--data: {spec.data} has images of {known.shape} (channels, height, width), and "
            f"{spec.model} makes {checkpoint.shape}; add ,size= or ,gray"
        )
    refuse_other(spec.model, checkpoint, chosen(known, MOST, spec.seed))
    return ""


def _content(spec: Spec, checkpoint: Checkpoint) -> dict[str, Any]:
    return {
        "study": "sample",
        "model_digest": model_digest(checkpoint),
        "shape": list(checkpoint.shape),
        "mean": list(checkpoint.mean),
        "count": spec.count,
        "seed": spec.seed,
        "film": spec.film,
        "batch": spec.batch,
        "sampling": how(checkpoint, spec.sampling),
    }


@dataclass(frozen=True)
class _Asked:
    """What is drawn, and how."""

    spec: Spec
    checkpoint: Checkpoint
    seeds: np.ndarray
    device: str
    report: Report

    @property
    def how(self) -> dict[str, Any]:
        """By which sampler."""
        return how(self.checkpoint, self.spec.sampling)


def _parts(asked: _Asked, folder: Path) -> Iterator[tuple[np.ndarray, int]]:
    """Samples of each batch, (B, C, H, W), and how many were lost; kept in the folder."""
    found, size = single_device(asked.device).device, min(asked.spec.batch, len(asked.seeds))
    of = runs.digest(_content(asked.spec, asked.checkpoint))
    for number, start in enumerate(range(0, len(asked.seeds), size)):
        chosen, path = asked.seeds[start : start + size], folder / f"{number:06d}.safetensors"

        def compute(chosen: np.ndarray = chosen) -> dict[str, np.ndarray]:
            own = {"size": size, "device": found}
            samples, lost = draw_batch(asked.checkpoint, chosen, asked.spec.sampling, **own)
            return {"samples": samples, "lost": np.array([lost])}

        part = kept(path, compute, of=of, report=asked.report)
        asked.report("samples", {"step": start + len(chosen), "steps": len(asked.seeds)})
        yield part["samples"], int(part["lost"][0])


def _array(asked: _Asked, whole: Path) -> int:
    """Write a ``.npz``, a batch at a time; gives how many samples were lost."""
    shape, unfinished = (len(asked.seeds), *asked.checkpoint.shape), 0
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}

    def fill(path: Path) -> None:
        nonlocal unfinished
        with zipfile.ZipFile(path, "w") as archive:
            with archive.open("samples.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array_header_1_0(file, header)
                for samples, lost in _parts(asked, whole.parent):
                    file.write(np.ascontiguousarray(samples, dtype="<f4").tobytes())
                    unfinished += lost
            with archive.open("seeds.npy", "w") as file:
                np.lib.format.write_array(file, asked.seeds)
            with archive.open("how.npy", "w") as file:
                how = runs.canonical_json(asked.how).encode()
                np.lib.format.write_array(file, np.frombuffer(how, np.uint8))

    runs.write_atomic(whole, fill)
    return unfinished


def _grid(asked: _Asked, whole: Path) -> int:
    """Write a picture of all samples; gives how many were lost."""
    unfinished = 0

    def images() -> Iterator[np.ndarray]:
        nonlocal unfinished
        for samples, lost in _parts(asked, whole.parent):
            unfinished += lost
            yield from samples

    _write_picture(whole, _tiled(images(), len(asked.seeds), asked.checkpoint.shape))
    return unfinished


def _write_picture(out: Path, picture: np.ndarray) -> None:
    runs.write_atomic(out, lambda path: Image.fromarray(picture).save(path))


def _tiled(
    images: Iterable[np.ndarray], count: int, shape: tuple[int, int, int], columns: int = 0
) -> np.ndarray:
    """Images (C, H, W), clipped to [0, 1], row by row in a uint8 picture, white between.

    By default it is as square as can be.
    """
    columns = columns or int(np.ceil(np.sqrt(count)))
    channels, height, width = shape
    tall, wide = height + MARGIN, width + MARGIN
    size = -(-count // columns) * tall + MARGIN, columns * wide + MARGIN
    picture = np.full((*size, channels), 255, dtype=np.uint8)
    for cell, image in enumerate(images):
        row, column = divmod(cell, columns)
        top, left = MARGIN + row * tall, MARGIN + column * wide
        tile = np.rint(255 * image.transpose(1, 2, 0).clip(0, 1)).astype(np.uint8)
        picture[top : top + height, left : left + width] = tile
    return picture.squeeze()


def _film(asked: _Asked, whole: Path) -> int:
    """Write a row for each seed: what the denoiser sees on the way, then the sample."""
    seen: list[Tensor] = []
    samples, unfinished = draw_batch(
        asked.checkpoint,
        asked.seeds,
        asked.spec.sampling,
        size=len(asked.seeds),
        device=single_device(asked.device).device,
        callback=lambda step, sigma, y: seen.append(y.to("cpu", torch.float32, copy=True)),
    )
    moments = np.linspace(0, len(seen) - 1, asked.spec.film - 1).round().astype(int)
    frames = np.stack([*(seen[k].numpy() for k in moments), samples], axis=1)
    images = np.nan_to_num(frames).reshape(-1, *asked.checkpoint.shape)
    _write_picture(whole, _tiled(images, len(images), asked.checkpoint.shape, asked.spec.film))
    return unfinished
