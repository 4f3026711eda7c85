"""Samples of the model that is audited, where none are given."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from twinscore import runs
from twinscore.analysis.audit.ranking import power
from twinscore.denoisers.checkpoint import model_digest
from twinscore.environment import available_cores, on_cpu
from twinscore.errors import InputError
from twinscore.experiments import sample
from twinscore.experiments.audit.membership import try_model
from twinscore.experiments.audit.searching import evaluation_seconds
from twinscore.experiments.audit.spec import Spec
from twinscore.experiments.estimates import Estimate, counted
from twinscore.experiments.folders import require
from twinscore.experiments.trials import open_images, open_model
from twinscore.sampling.samples import settled_for
from twinscore.sampling.spec import evaluations
from twinscore.training.memory import PROCESS

FEWEST = 100


def drawn(spec: Spec, out: Path | str | None, device: str) -> Spec:
    """The spec with samples: given ones, or those of its model, drawn beside the run's folder.

    The file's name holds a digest of the model and of how it is drawn, so that the same command
    finds it, or continues it. InputError for a model that does not suit the training images.
    """
    if spec.samples or not spec.model:
        return spec
    asked, path = _asked(spec, out)
    if not path.exists():
        sample.run(asked, path, device=device)
    return spec.model_copy(update={"samples": str(path), "sampling": asked.sampling})


@contextmanager
def imagined(
    spec: Spec, out: Path | str | None, device: str
) -> Iterator[tuple[Spec, Estimate | None]]:
    """The spec with black images for samples that are not drawn yet, and what drawing takes."""
    if spec.samples or not spec.model:
        yield spec, None
        return
    asked, path = _asked(spec, out)
    if path.exists():
        yield spec.model_copy(update={"samples": str(path), "sampling": asked.sampling}), None
        return
    with TemporaryDirectory() as folder:
        file, shape = Path(folder) / "black.npy", (asked.count, *open_images(spec.train).shape)
        np.lib.format.open_memmap(file, "w+", np.uint8, shape).flush()
        number = math.ceil(asked.count * evaluations(asked.sampling))
        seconds = number * evaluation_seconds(spec, device)
        if on_cpu(device):
            seconds /= available_cores()
        parts = f"{counted(asked.count, 'sample')} to be drawn"
        size = 4 * math.prod(shape)
        drawing = Estimate(parts, seconds, PROCESS + 2 * size, size)
        yield spec.model_copy(update={"samples": str(file), "sampling": asked.sampling}), drawing


def _asked(spec: Spec, out: Path | str | None) -> tuple[sample.Spec, Path]:
    """What is drawn, and into which file; InputError for a model that does not suit the images."""
    require(spec, "train", "the images that it was trained on")
    train, model = open_images(spec.train), open_model(spec.model)
    try_model(spec, train)
    if model.shape != train.shape:
        raise InputError(
            f"--model: {spec.model} makes images of shape {model.shape}, and {spec.train} has "
            f"{train.shape}; give samples of that shape as --samples"
        )
    sampling = spec.sampling
    if model.sampler:
        sampling = settled_for(model, sampling)  # so that the run says how many steps it took
    own = {"count": spec.count or needed(spec), "seed": spec.seed, "sampling": sampling}
    asked = sample.Spec(model=spec.model, data=spec.train, **own)
    known = asked.model_dump(mode="json", exclude={"data"})
    name = f"samples-{runs.digest([model_digest(model), known])[:8]}.npz"
    folder = Path(out) if out else Path("runs") / "audit"
    return asked, folder.with_name(f"{folder.name}-{name}")


def needed(spec: Spec) -> int:
    """As many samples as a list needs where a share ``most`` of them copies, each another image."""
    if not (spec.train and spec.held_out):
        return FEWEST
    n, m = (len(open_images(source)) for source in (spec.train, spec.held_out))
    return max(FEWEST, math.ceil(power(n, m, spec.q).for_list / spec.most))
