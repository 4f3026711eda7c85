"""Draw samples from a trained denoiser into a picture or an array file."""

from pathlib import Path

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from twinscore import environment, runs
from twinscore.denoisers import load
from twinscore.errors import InputError
from twinscore.experiments.trials import SamplingSpec, draw
from twinscore.progress import Reporter
from twinscore.training import single_device

__all__ = ["Result", "Spec", "run"]

BATCH = 128
MARGIN = 1


class Spec(BaseModel):
    """Samples of one model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = ""
    """A trial folder or its weights file."""
    count: int = Field(default=64, ge=1)
    """Samples to draw."""
    seed: int = Field(default=0, ge=0)
    """Sample i is a function of (seed, i) only."""
    sampling: SamplingSpec = SamplingSpec()
    """How samples are drawn."""


class Result(BaseModel):
    """Where the samples went, and how many did not converge."""

    model_config = ConfigDict(frozen=True)

    path: Path
    unfinished: int


def run(spec: Spec, out: Path | None = None, *, device: str = "auto") -> Result:
    """Draw samples and write them.

    Parameters
    ----------
    spec : Spec
        Model, number, seed and sampler.
    out : Path
        A ``.png`` (a square grid, clipped to [0, 1]) or a ``.npz`` (``samples``, (S, C, H, W)
        float32, not clipped, and ``seeds``). An existing file is refused.
    device : str
        lightning-fabric's accelerator: auto, cpu, cuda, mps.

    Raises
    ------
    InputError
        For a missing model, an existing file or another kind of file, or settings that do not fit
        the model or the machine.
    """
    environment.check(device)
    if not spec.model:
        raise InputError("--model: not given; give a trial folder or a weights file")
    if out is None or out.suffix not in {".png", ".npz"}:
        raise InputError(f"--out: {out} is no file for samples; give one that ends in .png or .npz")
    if out.exists():
        raise InputError(f"--out: {out} exists; give a new name")
    checkpoint = load(spec.model)
    runs.make_folder(out.parent)
    seeds = np.array([runs.derive_seed(spec.seed, "image", i) for i in range(spec.count)])
    with Reporter() as report:
        samples, unfinished = draw(
            checkpoint,
            seeds,
            spec.sampling,
            batch=BATCH,
            device=single_device(device).device,
            report=lambda done: report("samples", {"step": done, "steps": spec.count}),
        )
    if out.suffix == ".npz":
        runs.write_atomic(out, lambda path: np.savez(path, samples=samples, seeds=seeds))
    else:
        runs.write_atomic(out, lambda path: Image.fromarray(_grid(samples)).save(path))
    return Result(path=out, unfinished=unfinished)


def _grid(samples: np.ndarray) -> np.ndarray:
    """Tile (S, C, H, W) into one uint8 picture, as square as can be, white between."""
    count, channels, height, width = samples.shape
    columns = int(np.ceil(np.sqrt(count)))
    rows = -(-count // columns)
    cell_h, cell_w = height + MARGIN, width + MARGIN
    picture = np.ones((rows * cell_h + MARGIN, columns * cell_w + MARGIN, channels), np.float32)
    for i, image in enumerate(samples):
        top, left = MARGIN + i // columns * cell_h, MARGIN + i % columns * cell_w
        picture[top : top + height, left : left + width] = image.transpose(1, 2, 0)
    return np.rint(picture.clip(0, 1) * 255).astype(np.uint8).squeeze()
