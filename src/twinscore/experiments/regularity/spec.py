"""What the study of C-alpha images is asked: classes, budget, noise levels and the fit."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from twinscore.analysis.slopes import levels_inside
from twinscore.denoisers import NetworkSpec
from twinscore.training import TrainingSpec

Generator = Literal["published", "regularity"]

COMMON_RANGE = (10.0, 31.0)
"""Where slopes are fitted unless the spec says otherwise, dB of input PSNR. A run that fits another
range gives its contrasts over this one too."""
MOST_ALPHA = 10.0
MOST_IMAGES = 9_999_999
"""Largest number of images of a synthetic source."""


class Spec(BaseModel):
    """Networks trained on C-alpha images, and how fast their error falls with the noise."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    alphas: tuple[float, ...] = (1.0, 2.0, 3.0)
    """Regularities; each trains its own networks."""
    generators: tuple[Generator, ...] = ("published", "regularity")
    """Filters of the noise the images are made of: published has exponents alpha, alpha (true
    regularity alpha - 1/2 of the contour, alpha - 1 of the backgrounds), regularity has alpha + 1/2
    and alpha + 1 (true regularity alpha of both)."""
    size: int = Field(default=32, ge=16, le=1024, multiple_of=8)
    """Side of the images, pixels."""
    n: int | None = Field(default=None, ge=1)
    """Training images; by default as many as are shown, so that none is seen twice."""
    test: int = Field(default=256, ge=2)
    """Images never trained on, for each replicate others."""
    replicates: int = Field(default=2, ge=1)
    """Networks for each class, on other images and from other weights; with 1, intervals cover the
    test images only."""
    levels: tuple[float, ...] = tuple(float(level) for level in range(4, 41, 3))
    """Noise levels as input PSNR, -20 log10(sigma), dB."""
    fit_range: tuple[float, float] = COMMON_RANGE
    """Least and largest input PSNR of the fitted slope, dB. A range that was chosen after looking
    at runs, as that of quick-c-alpha was, is exploratory: confirm it with another seed."""
    eigenvectors: int = Field(default=12, ge=1, le=64)
    """Eigenvectors of each network's Jacobian that are shown, at one image."""
    seed: int = Field(default=0, ge=0, le=MOST_IMAGES)
    """Seed of images, weights and noise."""
    network: NetworkSpec = NetworkSpec()
    """The denoiser."""
    training: TrainingSpec = TrainingSpec()
    """How it is trained."""

    @field_validator("alphas")
    @classmethod
    def _alphas(cls, alphas: tuple[float, ...]) -> tuple[float, ...]:
        outside = [alpha for alpha in alphas if not 0 < alpha <= MOST_ALPHA]
        if outside or not alphas:
            raise ValueError(
                f"give one or more alphas above 0 and up to {MOST_ALPHA:g}, got {list(alphas)}"
            )
        return tuple(sorted(set(alphas)))

    @field_validator("generators")
    @classmethod
    def _generators(cls, generators: tuple[Generator, ...]) -> tuple[Generator, ...]:
        if not generators:
            raise ValueError("give published, regularity or both")
        return tuple(dict.fromkeys(generators))

    @field_validator("levels")
    @classmethod
    def _levels(cls, levels: tuple[float, ...]) -> tuple[float, ...]:
        if not levels or not all(-20 <= level <= 80 for level in levels):
            raise ValueError(f"give input PSNRs of -20 to 80 dB, got {list(levels)}")
        return tuple(sorted(set(levels)))

    @model_validator(mode="after")
    def _check(self) -> Self:
        try:
            levels_inside(self.sigmas, self.fit_range)
        except ValueError as error:
            raise ValueError(f"fit_range: {error}") from None
        if self.images > MOST_IMAGES:
            per_replicate = MOST_IMAGES // self.replicates - self.test
            raise ValueError(
                f"n: {self.replicates} networks would be trained on {self.trained_on:,} images "
                f"each, and a class has {MOST_IMAGES:,}; give n, at most {per_replicate:,}"
            )
        return self

    @property
    def sigmas(self) -> list[float]:
        """Noise levels in image units, falling."""
        return [10 ** (-level / 20) for level in self.levels]

    @property
    def classes(self) -> int:
        """Pairs of an alpha and a generator."""
        return len(self.alphas) * len(self.generators)

    @property
    def shown(self) -> int:
        """Images that a training is shown, repeated ones counted again."""
        return self.training.steps * self.training.batch

    @property
    def trained_on(self) -> int:
        """Different training images."""
        return self.n or self.shown

    @property
    def images(self) -> int:
        """Images of a class: each replicate's test images, then its training images."""
        return self.replicates * (self.test + self.trained_on)

    def source(self, alpha: float, generator: Generator) -> str:
        """The images of a class, as every command names them."""
        return (
            f"c_alpha:alpha={alpha},filter={generator},size={self.size},"
            f"count={self.images},seed={self.seed}"
        )
