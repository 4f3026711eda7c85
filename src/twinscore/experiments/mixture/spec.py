"""What the early-stopping study is told: the spec, and the targets and processes it names."""

from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator

from twinscore.limits import MOST_REPLICATES, Listed, Seed
from twinscore.results.base import Settings
from twinscore.results.mixture import TargetName
from twinscore.theory.coordinates import Grid, standard_grid
from twinscore.theory.nodes import TimeRule, time_rule
from twinscore.theory.processes import Process, ramp, variance_preserving
from twinscore.theory.targets import Bounded, Target, bounded

WIDTH = 0.4
"""Length that the steps of the Fokker-Planck solver resolve: learned densities are rougher than
their targets, whose smallest length is 1."""
MOST_SAMPLES = 100_000
MOST_FEATURES = 4096
FARTHEST = 100.0
LARGEST_RATE = 100.0  # at which noise has a variance of e^50: more would only overflow
EDGE = 4.0  # half the support of the bounded target; its standard deviation is 1.45

Samples = Annotated[int, Field(ge=1, le=MOST_SAMPLES)]
Features = Annotated[int, Field(ge=1, le=MOST_FEATURES)]
Time = Annotated[float, Field(ge=1e-6, le=1e15)]
"""A training time in units of m."""


class ShiftSpec(Settings):
    """Modes far apart, and modes of unequal weights."""

    distances: Listed[float] = (1.0, 3.0, 6.0, 10.0, 15.0)
    """Values of mu: the modes are 2 mu apart."""
    watched: Listed[float] = (3.0, 15.0)
    """Values of mu whose densities are kept, and at which weights are varied."""
    weights: Listed[float] = (0.3, 0.1, 0.03)
    """Weights of the lighter mode, besides 1/2."""
    samples: Samples = 1024
    """Training samples n, beside infinitely many."""
    width: Features = 128
    """Features m."""
    shown: Listed[Time] = (3.0, 30.0, 300.0, 10000.0)
    """Training times tau / m at which densities are kept."""
    rate: float = Field(default=25.0, gt=0.1, le=LARGEST_RATE)
    """Largest rate beta of the forward process; far modes need more noise to meet."""
    tolerance: float = Field(default=2e-2, ge=1e-8, le=10)
    """For the KL divergence of far modes, nats: they are harder to follow."""
    replicates: int = Field(default=8, ge=2, le=MOST_REPLICATES)
    """Independent samples and features."""

    @field_validator("distances", "watched")
    @classmethod
    def _distances(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if not values or min(values) <= 0 or max(values) > FARTHEST:
            raise ValueError(f"give values of mu in (0, {FARTHEST:g}], got {list(values)}")
        return tuple(sorted(set(values)))

    @field_validator("weights")
    @classmethod
    def _weights(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if not all(0 < value < 0.5 for value in values):
            raise ValueError(f"give weights of the lighter mode in (0, 0.5), got {list(values)}")
        return tuple(sorted(set(values), reverse=True))

    @field_validator("shown")
    @classmethod
    def _shown(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if not values or values[0] <= 0 or not (np.diff(values) > 0).all():
            raise ValueError(f"give positive training times that increase, got {list(values)}")
        return values

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not set(self.watched) <= set(self.distances):
            raise ValueError(f"watched must be among the distances {list(self.distances)}")
        return self

    @property
    def conditions(self) -> list[tuple[float, float]]:
        """Pairs (mu, weight of the lighter mode), equal weights first."""
        equal = [(mu, 0.5) for mu in self.distances]
        return equal + [(mu, weight) for mu in self.watched for weight in self.weights]


class TwinsSpec(Settings):
    """Two training sets, two models: when do they agree?"""

    width: Features = 128
    """Features m."""
    count: int = Field(default=25, ge=3, le=10**4)
    """Training times, over the range of the sweep."""
    replicates: int = Field(default=8, ge=2, le=MOST_REPLICATES)
    """Independent pairs."""


class Spec(Settings):
    """Early stopping, capacity and modes shift of random-feature score models, solved exactly."""

    mu: float = Field(default=3.0, ge=1e-6, le=FARTHEST)
    """The target has two Gaussian modes of variance 1 at -mu and mu."""
    targets: Listed[TargetName] = ("mixture", "bounded")
    """Targets of the sweep: that mixture; a raised cosine on [-4, 4], of compact support."""
    sizes: Listed[Samples] = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
    """Numbers of training samples n."""
    widths: Listed[Features] = (16, 32, 64, 128, 256, 512)
    """Numbers of features m."""
    tau_first: Time = 1.0
    """First training time, in units of m: functions move at rate tau / m."""
    tau_last: Time = 1e6
    """Last training time, in units of m."""
    tau_count: int = Field(default=100, ge=4, le=10**4)
    """Training times, spaced evenly in their logarithm."""
    replicates: int = Field(default=20, ge=2, le=MOST_REPLICATES)
    """Independent samples and features."""
    rate: float = Field(default=12.0, gt=0.1, le=LARGEST_RATE)
    """Largest rate beta of the variance-preserving forward process."""
    start: float = Field(default=1e-2, ge=1e-6, lt=1)
    """Smallest time of the process, of its end: densities are compared there."""
    activation: Literal["silu", "relu", "tanh", "erf"] = "silu"
    """Features phi."""
    tolerance: float = Field(default=5e-3, ge=1e-8, le=10)
    """For the KL divergence, nats; what does not reach it is left out and counted."""
    seed: Seed = 0
    """Seed of samples and features."""
    shift: ShiftSpec = ShiftSpec()
    """Modes far apart."""
    twins: TwinsSpec = TwinsSpec()
    """Two training sets."""

    @field_validator("sizes", "widths")
    @classmethod
    def _counts(cls, values: tuple[int, ...]) -> tuple[int, ...]:
        if not values:
            raise ValueError("give one or more numbers of at least 1, got []")
        return tuple(sorted(set(values)))

    @field_validator("targets")
    @classmethod
    def _targets(cls, values: tuple[TargetName, ...]) -> tuple[TargetName, ...]:
        if not values:
            raise ValueError("give one or more targets: mixture, bounded")
        return tuple(dict.fromkeys(values))

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.tau_last <= self.tau_first:
            raise ValueError(
                f"training times must increase: tau_last {self.tau_last:g} is not above "
                f"tau_first {self.tau_first:g}"
            )
        return self

    @property
    def times(self) -> NDArray[np.float64]:
        """Training times tau / m, (K,)."""
        return np.geomspace(self.tau_first, self.tau_last, self.tau_count)


def raised_cosine() -> Bounded:
    """Density proportional to ``cos^2(pi x / 8)`` on [-4, 4]."""
    return bounded(
        lambda x: 2 * np.log(np.maximum(np.cos(np.pi * x / (2 * EDGE)), 1e-150)), -EDGE, EDGE
    )


def forward(rate: float) -> Process:
    """The variance-preserving process whose rate rises from 0.1 to ``rate``."""
    return variance_preserving(ramp(0.1, rate))


def likelihood_rule(process: Process, start: float) -> TimeRule:
    """Times of the loss weighted by ``g(t)^2``, under which the bound is the loss."""
    return time_rule(process, weighting=process.diffusion, start=start)


def resolving_grid(target: Target, process: Process, start: float) -> Grid:
    """Grid of the Fokker-Planck solver."""
    return standard_grid(target, process, start, width=WIDTH)
