"""How a denoiser is trained: every choice that changes its weights."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from twinscore.limits import Sigma

RECIPE_VERSION = 2
"""Bumped when the same spec gives other weights: old trials are then not reused."""


class TrainingSpec(BaseModel):
    """Budget, noise law and optimiser. Noise levels are in image units (1 = white to black)."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )

    steps: int = Field(default=10_000, ge=1, le=10**9)
    """Gradient steps, the same for every training set size (exposure control)."""
    batch: int = Field(default=128, ge=1, le=10**6)
    """Images per step."""
    learning_rate: float = Field(default=1e-3, ge=1e-12, le=1e30)
    """Peak learning rate of Adam."""
    schedule: Literal["cosine", "halving", "constant"] = "cosine"
    """Learning rate over the run: warm-up then cosine to zero; halved at every tenth; constant."""
    noise: Literal["sqrt", "uniform", "log"] = "sqrt"
    """Law of the noise level: uniform in sqrt(sigma) as published, in sigma, or in log(sigma)."""
    sigma_max: Sigma = 1.0
    """Largest noise level."""
    ema: float | None = Field(default=None, gt=0, lt=1)
    """Decay of an exponential average of the weights, which then replaces them."""
    clip: float | None = Field(default=None, ge=1e-12, le=1e12)
    """Largest norm of the gradient."""
    evaluations: int = Field(default=20, ge=1, le=10**5)
    """Rows of the history: how often train and test PSNR are measured."""
