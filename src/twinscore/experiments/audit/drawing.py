"""Samples of the model that is audited, where none are given."""

import math
from pathlib import Path

from twinscore import runs
from twinscore.analysis.audit.ranking import power
from twinscore.denoisers.checkpoint import model_digest
from twinscore.errors import InputError
from twinscore.experiments import sample
from twinscore.experiments.audit.membership import try_model
from twinscore.experiments.audit.spec import Spec
from twinscore.experiments.folders import require
from twinscore.experiments.trials import open_images, open_model
from twinscore.sampling.samples import settled_for

FEWEST = 100


def drawn(spec: Spec, out: Path | str | None, device: str) -> Spec:
    """The spec with samples: given ones, or those of its model, drawn beside the run's folder.

    The file's name holds a digest of the model and of how it is drawn, so that the same command
    finds it, or continues it. InputError for a model that does not suit the training images.
    """
    if spec.samples or not spec.model:
        return spec
    require(spec, "train", "the images that it was trained on")
    train, model = open_images(spec.train), open_model(spec.model)
    try_model(spec, train)
    if model.shape != train.shape:
        raise InputError(
            f"--model: {spec.model} makes images of shape {model.shape}, and {spec.train} has "
            f"{train.shape}; give samples of that shape as --samples"
        )
    count, sampling = spec.count or needed(spec), spec.sampling
    if model.sampler:
        sampling = settled_for(model, sampling)  # so that the run says how many steps it took
    asked = sample.Spec(model=spec.model, count=count, seed=spec.seed, sampling=sampling)
    name = f"samples-{runs.digest([model_digest(model), asked.model_dump(mode='json')])[:8]}.npz"
    folder = Path(out) if out else Path("runs") / "audit"
    path = folder.with_name(f"{folder.name}-{name}")
    if not path.exists():
        sample.run(asked, path, device=device)
    return spec.model_copy(update={"samples": str(path), "sampling": sampling})


def needed(spec: Spec) -> int:
    """As many samples as a list needs where a share ``most`` of them copies, each another image."""
    if not (spec.train and spec.held_out):
        return FEWEST
    n, m = (len(open_images(source)) for source in (spec.train, spec.held_out))
    return max(FEWEST, math.ceil(power(n, m, spec.q).for_list / spec.most))
