"""Foreign models are tried before they are measured: a wrong convention is refused, and named."""

import numpy as np
from torch import Tensor

from twinscore import runs
from twinscore.analysis import calibration
from twinscore.denoisers import Checkpoint
from twinscore.denoisers.loading import foreign
from twinscore.errors import InputError
from twinscore.images import ImageSet

SIGMAS = (0.1, 0.3, 1.0)
MOST = 4
"""Images that are enough to tell conventions apart, whose errors differ by far more."""


def chosen(images: ImageSet, count: int, seed: int) -> Tensor:
    """So many of the images, drawn at random, (N, C, H, W)."""
    order = np.random.default_rng(runs.derive_seed(seed, "images")).permutation(len(images))
    return images[np.sort(order[:count])]


def refuse_wrong(model: str, checkpoint: Checkpoint, x: Tensor) -> None:
    """Refuse a foreign model if another convention fits images clearly better, and denoises them.

    A large error alone is none of its business: a model that memorised others has one too.

    Raises
    ------
    InputError
        That names the convention that fits.
    """
    if foreign(model):
        found = calibration.fits(checkpoint.on(x.device), x[:MOST], SIGMAS, 0)
        if calibration.better(found, SIGMAS):
            raise InputError(
                f"--model: {model} is wired wrongly: {calibration.fault(found, SIGMAS)}; "
                "twinscore check-model shows all conventions"
            )
