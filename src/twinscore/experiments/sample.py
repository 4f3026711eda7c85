"""Draw samples from a denoiser into a picture or an array file, a batch at a time."""

import shutil
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pydantic import Field, model_validator
from torch import Tensor

from twinscore import environment, runs
from twinscore.denoisers import Checkpoint, load
from twinscore.denoisers.checkpoint import model_digest, sized
from twinscore.errors import InputError
from twinscore.execution import settled_torch
from twinscore.experiments.folders import require, require_new
from twinscore.progress import Reporter
from twinscore.results.base import Frozen
from twinscore.sampling import SamplingSpec
from twinscore.sampling.samples import batch_for, draw_batch
from twinscore.training import single_device

MARGIN = 1
FILM_SEEDS = 8


class Spec(Frozen):
    """Samples of one model."""

    model: str = ""
    """A trial folder, its weights file, or another model (docs/models.md)."""
    size: int | None = Field(default=None, ge=1)
    """Side of the samples in pixels (default: that of the model's images)."""
    mean: float | None = None
    """Mean intensity around which sampling starts (default: that of the model's images; 0.5 where
    the model does not say)."""
    count: int = Field(default=64, ge=1)
    """Samples to draw."""
    seed: int = Field(default=0, ge=0)
    """Sample i is a function of (seed, i) only."""
    batch: int | None = Field(default=None, ge=1)
    """Samples drawn at a time (default: 128, fewer of images above 90x90, to bound memory)."""
    film: int = Field(default=0, ge=0)
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
def run(spec: Spec, out: Path | None = None, *, device: str = "auto") -> Result:
    """Draw samples and write them to a new file.

    Batches are kept in a hidden folder beside it until all are there: memory holds one batch, and
    the same command continues after an interruption. A ``.png`` is a square grid, or a film strip,
    clipped to [0, 1]; a ``.npz`` has ``samples``, (S, C, H, W) float32, not clipped, and ``seeds``.

    Raises
    ------
    InputError
        For a missing model, an existing file or another kind of file, or settings that do not fit
        the model or the machine.
    """
    environment.check(device)
    require(spec, "model", "a trial folder or another model (docs/models.md)")
    require_new(out, ("png", "npz"), "a file for samples")
    if spec.film and out.suffix != ".png":
        raise InputError(f"--film: {out} is not a picture; give an --out that ends in .png")
    checkpoint = sized(load(spec.model), spec.size)
    if spec.mean is not None:
        checkpoint = replace(checkpoint, mean=(spec.mean,))
    if spec.batch is None:
        spec = spec.model_copy(update={"batch": batch_for(checkpoint.shape)})
    runs.make_folder(out.parent)
    count = min(spec.count, FILM_SEEDS) if spec.film else spec.count
    seeds = np.array([runs.derive_seed(spec.seed, "image", i) for i in range(count)])
    if spec.film:
        film, unfinished = _film(spec, checkpoint, seeds, device)
        _write_picture(out, film)
        return Result(path=out, unfinished=unfinished)
    unfinished = 0
    parts = out.with_name(f".{out.name}.parts")
    runs.make_folder(parts)
    with runs.locked(parts), Reporter() as report:
        runs.claim(parts, _content(spec, checkpoint))
        for done, lost in _batches(spec, checkpoint, seeds, parts, device):
            report("samples", {"step": done, "steps": count})
            unfinished += lost
        if out.suffix == ".npz":
            runs.write_atomic(out, lambda path: _write_arrays(path, parts, seeds, checkpoint.shape))
        else:
            images = chain.from_iterable(_stored(parts))
            _write_picture(out, _tiled(images, count, checkpoint.shape))
    shutil.rmtree(parts)
    return Result(path=out, unfinished=unfinished)


def _content(spec: Spec, checkpoint: Checkpoint) -> dict[str, Any]:
    return {
        "study": "sample",
        "model_digest": model_digest(checkpoint),
        "shape": list(checkpoint.shape),
        "mean": list(checkpoint.mean),
        "count": spec.count,
        "seed": spec.seed,
        "batch": spec.batch,
        "sampling": spec.sampling.resolved.model_dump(exclude={"quality"}),
    }


def _batches(
    spec: Spec, checkpoint: Checkpoint, seeds: np.ndarray, parts: Path, device: str
) -> Iterator[tuple[int, int]]:
    """Draw what is missing; after each batch say how many samples there are, and how many lost."""
    found, size = single_device(device).device, min(spec.batch, len(seeds))
    for number, start in enumerate(range(0, len(seeds), size)):
        chosen, path = seeds[start : start + size], parts / f"{number:06d}.npz"
        if not path.exists():
            samples, lost = draw_batch(checkpoint, chosen, spec.sampling, size=size, device=found)
            content = {"samples": samples, "lost": np.array(lost)}
            runs.write_atomic(path, lambda to, content=content: np.savez(to, **content))
        with np.load(path) as part:
            yield start + len(chosen), int(part["lost"])


def _stored(parts: Path) -> Iterator[np.ndarray]:
    for path in sorted(parts.glob("*.npz")):
        with np.load(path) as part:
            yield part["samples"]


def _write_arrays(path: Path, parts: Path, seeds: np.ndarray, shape: tuple[int, int, int]) -> None:
    header = {"descr": "<f4", "fortran_order": False, "shape": (len(seeds), *shape)}
    with zipfile.ZipFile(path, "w") as archive:
        with archive.open("samples.npy", "w", force_zip64=True) as file:
            np.lib.format.write_array_header_1_0(file, header)
            for samples in _stored(parts):
                file.write(np.ascontiguousarray(samples, dtype="<f4").tobytes())
        with archive.open("seeds.npy", "w") as file:
            np.lib.format.write_array(file, seeds)


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


def _film(
    spec: Spec, checkpoint: Checkpoint, seeds: np.ndarray, device: str
) -> tuple[np.ndarray, int]:
    """A row for each seed: what the denoiser sees on the way, then the sample."""
    seen: list[Tensor] = []
    samples, unfinished = draw_batch(
        checkpoint,
        seeds,
        spec.sampling,
        size=len(seeds),
        device=single_device(device).device,
        callback=lambda step, sigma, y: seen.append(y.to("cpu", torch.float32, copy=True)),
    )
    moments = np.linspace(0, len(seen) - 1, spec.film - 1).round().astype(int)
    frames = np.stack([*(seen[k].numpy() for k in moments), samples], axis=1)
    images = np.nan_to_num(frames).reshape(-1, *checkpoint.shape)
    return _tiled(images, len(images), checkpoint.shape, spec.film), unfinished
