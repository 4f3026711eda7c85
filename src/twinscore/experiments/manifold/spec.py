"""What the study of discs is asked: the class, the budget, the noise levels, what is compared."""

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from twinscore.denoisers import NetworkSpec
from twinscore.errors import InputError
from twinscore.images.synthetic import discs
from twinscore.training import TrainingSpec

MOST_IMAGES = 9_999_999
"""Largest number of images of a synthetic source."""


class Spec(BaseModel):
    """Networks trained on discs, beside the optimal denoiser of discs."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    size: int = Field(default=16, ge=8, le=1024, multiple_of=8)
    """Side of the images, pixels."""
    radius: tuple[float, float] | None = None
    """Least and largest radius, pixels; by default a tenth and four tenths of the side."""
    edge: float = Field(default=1.0, gt=0)
    """Width of the edge, pixels: the standard deviation of its erf profile."""
    n: int = Field(default=10_000, ge=1)
    """Training images, for each replicate others."""
    test: int = Field(default=256, ge=2)
    """Discs never trained on, for each replicate others."""
    exact: int = Field(default=6, ge=0)
    """Of the test discs, those whose exact posterior mean is computed: about a second each at 16x16
    pixels and more in proportion to the pixels, their Jacobians to the square. With 0 the tangent
    projection is the only reference."""
    bases: int = Field(default=6, ge=1)
    """Of the test discs, those at which the Jacobian is decomposed."""
    levels: tuple[float, ...] = (10.0, 20.0, 30.0, 40.0)
    """Noise levels as input PSNR, -20 log10(sigma), dB."""
    threshold: float = Field(default=0.5, gt=0, lt=1)
    """A direction whose eigenvalue is above it counts as kept; those above 0.9, as near 1, are
    counted too."""
    replicates: int = Field(default=2, ge=1)
    """Networks, on other images and from other weights; with 1, intervals cover the test discs
    only."""
    seed: int = Field(default=0, ge=0, le=MOST_IMAGES)
    """Seed of images, weights and noise."""
    network: NetworkSpec = NetworkSpec()
    """The denoiser."""
    training: TrainingSpec = TrainingSpec()
    """How it is trained."""

    @field_validator("levels")
    @classmethod
    def _levels(cls, levels: tuple[float, ...]) -> tuple[float, ...]:
        if not levels or not all(-20 <= level <= 80 for level in levels):
            raise ValueError(f"give input PSNRs of -20 to 80 dB, got {list(levels)}")
        return tuple(sorted(set(levels)))

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in ("exact", "bases"):
            if getattr(self, name) > self.test:
                raise ValueError(
                    f"{name}: {getattr(self, name)} is more than the {self.test} test discs; "
                    f"give at most {self.test}"
                )
        if self.images > MOST_IMAGES:
            raise ValueError(
                f"n: {self.replicates} replicates take {self.images:,} discs, and there are "
                f"{MOST_IMAGES:,}; give n of at most {MOST_IMAGES // self.replicates - self.test:,}"
            )
        try:
            discs([0], size=self.size, radius=self.radius, edge=self.edge)
        except InputError as error:
            raise ValueError(str(error)) from None
        return self

    @property
    def sigmas(self) -> list[float]:
        """Noise levels in image units, falling."""
        return [10 ** (-level / 20) for level in self.levels]

    @property
    def images(self) -> int:
        """Discs of the run: each replicate's test discs, then its training images."""
        return self.replicates * (self.test + self.n)

    @property
    def source(self) -> str:
        """The discs, as every command names them."""
        radius = "" if self.radius is None else f"radius={self.radius[0]}..{self.radius[1]},"
        return (
            f"discs:size={self.size},{radius}edge={self.edge},count={self.images},seed={self.seed}"
        )
