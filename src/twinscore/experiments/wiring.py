"""A convention that is named is tried before a model is measured: a wrong one is refused."""

import numpy as np
from torch import Tensor

from twinscore import runs
from twinscore.analysis import calibration
from twinscore.denoisers import Checkpoint
from twinscore.denoisers.adapters import Wiring
from twinscore.denoisers.whole_pipelines import NotInPixels
from twinscore.errors import InputError
from twinscore.images import ImageSet

SIGMAS = (0.1, 0.3, 1.0)
MOST = 4
"""Images that are enough to tell conventions apart, whose errors differ by far more."""


def chosen(images: ImageSet, count: int, seed: int) -> Tensor:
    """So many of the images, drawn at random, (N, C, H, W)."""
    order = np.random.default_rng(runs.derive_seed(seed, "images")).permutation(len(images))
    return images[np.sort(order[:count])]


def require_mean(model: str, checkpoint: Checkpoint) -> None:
    """Refuse a guided denoiser, which is no posterior mean: InputError."""
    if checkpoint.guidance is not None:
        raise InputError(
            f"--model: {model}: a guided denoiser is not a posterior mean: it weighs the class or "
            f"prompt {checkpoint.guidance:g} times; leave out guidance=, which samples can have"
        )


def refuse_wrong(model: str, checkpoint: Checkpoint, x: Tensor) -> None:
    """Refuse a model that is not the posterior mean of images, by its kind or its wiring.

    Raises
    ------
    InputError
        As :func:`refuse_other`; or says that the model has no posterior mean of images.
    """
    require_mean(model, checkpoint)
    if isinstance(checkpoint.denoiser, NotInPixels):
        raise InputError(f"--model: {model}: {checkpoint.denoiser.why}")
    refuse_other(model, checkpoint, x)


def names_convention(checkpoint: Checkpoint) -> bool:
    """Whether it is a network of a named convention, of images; guided ones cannot be tried."""
    of_images = checkpoint.latents is None and checkpoint.guidance is None
    return of_images and isinstance(getattr(checkpoint.denoiser, "rule", None), Wiring)


def refuse_other(model: str, checkpoint: Checkpoint, x: Tensor) -> None:
    """Refuse a network of a named convention if another fits clearly better, and denoises.

    A large error alone is none of its business: a model that memorised others has one too. A
    function that names no convention is what its author says, a denoiser.

    Raises
    ------
    InputError
        That names the convention that fits.
    """
    if names_convention(checkpoint):
        found = calibration.fits(checkpoint.on(x.device), x[:MOST], SIGMAS, 0)
        if calibration.better(found, SIGMAS):
            raise InputError(
                f"--model: {model} is wired wrongly: {calibration.fault(found, SIGMAS)}; "
                "twinscore check-model shows all conventions"
            )
