"""What an audit is asked."""

import operator
import re
from typing import Annotated, Literal

from pydantic import Field, field_validator

from twinscore.limits import LARGEST_SIDE, MOST_SAMPLES, Listed, Seed
from twinscore.results.base import Settings
from twinscore.sampling import SamplingSpec

NUMBERS = (
    *("copies.low", "copies.value", "copies.high", "dependence.p", "listed", "extractable"),
    *("membership.p", "membership.auc.low", "membership.at_risk"),
)
"""What ``--fail-if`` may name."""

COMPARE = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}

_CONDITION = re.compile(r"\s*([a-z_.]+)\s*(>=|<=|>|<)\s*([0-9.eE+-]+)\s*")


class Spec(Settings):
    """Whether samples repeat training images, more than held-out ones explain."""

    samples: str | None = None
    """The samples: a folder, an array, or any other source of images (docs/images.md)."""
    model: str | None = None
    """The model itself, a trial folder or another (docs/models.md): its errors on both sets are
    compared too, and it is drawn from where no samples are given."""
    checkpoints: str | None = None
    """Models saved along the training, a pattern such as ``ckpt/*.safetensors``, whose last is the
    model where --model is not given: when was it good, and when did it remember?"""
    checkpoint_samples: int = Field(default=128, ge=0, le=MOST_SAMPLES)
    """Samples to draw from each of these, for their energy distance from held-out images; 0 for
    none."""
    count: int | None = Field(default=None, ge=1, le=MOST_SAMPLES)
    """Samples to draw from the model (default: as many as a list needs where a share --most of them
    copies)."""
    sampling: SamplingSpec = SamplingSpec()
    """How they are drawn."""
    sigmas: Listed[Annotated[float, Field(ge=1e-4, le=1e3)]] = (0.05, 0.1, 0.2, 0.4, 0.8)
    """Noise levels at which errors of the model are compared, image units."""
    draws: int = Field(default=4, ge=1, le=10**4)
    """Draws of the noise, the same for every image."""
    base: str | None = None
    """The model that it was fine-tuned from, a second control: whose errors are subtracted."""
    autoencoder: str | None = None
    """The autoencoder that codes its images, FILE.py:FUNCTION, which returns a function of images
    (B, C, H, W) to their reconstructions: whether the gap is its own (default: that of a diffusers:
    pipeline)."""
    extract: int = Field(default=64, ge=0, le=10**5)
    """Images of both sets that the model is asked for, from noise and from their half; 0: none, and
    no local signs."""
    train: str | None = None
    """The images that the model was trained on."""
    held_out: str | None = None
    """Images that it was not trained on; a coin dealt both from one pool. Without them there is
    evidence only."""
    embedding: str | None = None
    """An embedding of images (B, C, H, W) as vectors (B, k), one more way in which they are
    compared: FILE.py:FUNCTION, which returns it, or FILE.onnx."""
    side: int = Field(default=32, ge=4, le=LARGEST_SIDE)
    """Side in pixels at which images are compared, at most their own."""
    shift: float = Field(default=0.2, ge=0, le=0.4)
    """By how much of its side an image may have been moved."""
    duplicates: float = Field(default=0.98, gt=0, lt=1)
    """Images whose correlation exceeds this are near-duplicates: within a set they count as one;
    see also --overlap."""
    overlap: Literal["refuse", "drop"] = "refuse"
    """Near-duplicates of which one was trained on and one held out: name them and give no p, or
    drop both."""
    steered: Literal["yes", "no"] | None = None
    """Whether held-out images steered the training (early stopping, choice of a model)."""
    chosen: Literal["yes", "no"] | None = None
    """Whether prompts or classes of the samples were chosen knowing what is in the training set."""
    q: float = Field(default=0.1, gt=0, lt=1)
    """False-discovery rate of the list of copied images."""
    most: float = Field(default=0.05, gt=0, lt=1)
    """Share of copies that the upper bound must exclude for "no copies shown"."""
    recipe: str | None = None
    """FILE.py:FUNCTION, a function of (images, seed) that trains and returns a model: it is called
    for two halves of the training images, and the twins are judged (docs/verdict.md)."""
    recipe_samples: int = Field(default=256, ge=2, le=MOST_SAMPLES)
    """Samples to draw from each of the twins."""
    critical: str | None = None
    """Folder of a finished run of transition or capacity on such images: its critical N goes into
    what is advised."""
    fail_if: str | None = None
    """End with exit code 1 if this is so: copies.low>0.01 (proven), copies.high>0.05 (cautious)."""
    seed: Seed = 0
    """Seed of deals, bootstraps and lots."""

    @field_validator("fail_if")
    @classmethod
    def _condition(cls, text: str | None) -> str | None:
        if text is not None:
            condition(text)
        return text


def condition(text: str) -> tuple[str, str, float]:
    """Name, comparison and number of ``--fail-if``.

    Raises
    ------
    ValueError
        If it is not of this form, or the name is not one of ``NUMBERS``.
    """
    found = _CONDITION.fullmatch(text)
    try:
        if found is None or found[1] not in NUMBERS:
            raise ValueError
        return found[1], found[2], float(found[3])
    except ValueError:
        raise ValueError(
            f"{text!r} is not a condition; give one of {', '.join(NUMBERS)}, then > or <, then a "
            "number, such as 'copies.low>0.01'"
        ) from None
