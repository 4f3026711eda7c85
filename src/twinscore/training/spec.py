"""How a denoiser is trained: every choice that changes its weights."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from twinscore.limits import Sigma

RECIPE_VERSION = 3
"""Bumped when the same spec gives other weights: old trials are then not reused."""

PUBLISHED = {
    "optimizer": "adam",
    "learning_rate": 1e-3,
    "schedule": "halving",
    "noise": "sqrt",
    "levels": "independent",
    "sigma_max": 1.0,
}
"""The recipe of [GAHB]."""


class TrainingSpec(BaseModel):
    """Budget, noise law and optimiser. Noise levels are in image units (1 = white to black)."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )

    recipe: Literal["fast", "published"] = "fast"
    """Where the defaults come from: what learns most in few steps, or what was published."""
    steps: int = Field(default=10_000, ge=1, le=10**9)
    """Gradient steps, the same for every training set size (exposure control)."""
    batch: int = Field(default=128, ge=1, le=10**6)
    """Images per step."""
    optimizer: Literal["muon", "adam"] = "muon"
    """Adam alone, or beside Muon for the kernels of twinscore's own networks."""
    learning_rate: float | None = Field(default=None, ge=1e-12, le=1e30)
    """Peak of Adam: by default 0.01 beside Muon, which takes ten times as much, else 0.001."""
    schedule: Literal["cosine", "halving", "constant"] = "cosine"
    """Learning rate over the run: warm-up then cosine to zero; halved at every tenth; constant."""
    noise: Literal["sqrt", "uniform", "log"] = "sqrt"
    """Law of the noise level: uniform in sqrt(sigma) as published, in sigma, or in log(sigma)."""
    levels: Literal["spread", "independent"] = "spread"
    """Levels of a batch: one from each of as many equally likely parts of the law, or independent.
    Spread, they make batches alike, and with them the deviations that normalisations divide by."""
    sigma_max: Sigma = 1.0
    """Largest noise level."""
    ema: float | None = Field(default=None, gt=0, lt=1)
    """Decay of an exponential average of the weights, which then replaces them."""
    clip: float | None = Field(default=None, ge=1e-12, le=1e12)
    """Largest norm of the gradient."""
    evaluations: int = Field(default=20, ge=1, le=10**5)
    """Rows of the history: how often train and test PSNR are measured."""

    @model_validator(mode="before")
    @classmethod
    def _as_published(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("recipe") == "published":
            return PUBLISHED | given
        return given
