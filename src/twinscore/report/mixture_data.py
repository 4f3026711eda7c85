"""What the early-stopping study's report reads from its run folder."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict

from twinscore.report import reading


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Number(_Part):
    """A value and its interval."""

    value: float
    low: float
    high: float


class Stop(_Part):
    """Where KL is least along training."""

    target: str
    n: int | None
    m: int
    tau: Number
    kl: Number
    floor: Number
    last: float | None
    inside: bool
    left_out: int


class Exponent(_Part):
    """A fitted power law beside the theory's."""

    target: str
    quantity: str
    along: str
    measured: Number | None
    predicted: tuple[float, float] | None
    kind: str
    settings: int

    theory: str
    answer: str


class Learned(_Part):
    """When a mode is there for good."""

    median: float
    first: float
    last: float | None


class Shifted(_Part):
    """A mixture of two modes."""

    mu: float
    lighter: float
    n: int | None
    tau: float | None
    kl: Number | None
    left_out: int
    learned_at: tuple[Learned | None, Learned | None] | None
    approximation: Number
    training: Number
    prior: float


class Twin(_Part):
    """Models of two training sets."""

    n: int
    tau: float
    variance: Number
    error: Number
    variation: Number
    variation_shared: Number
    off: Number


class Result(_Part):
    """The fields of result.json that the report reads."""

    verdict: str
    cautions: list[str]
    prior: dict[str, float]
    densities: int
    failed: int
    stops: list[Stop]
    exponents: list[Exponent]
    terms: list[Exponent]
    shifted: list[Shifted]
    twins: list[Twin]


@dataclass(frozen=True)
class Data:
    """A finished run."""

    run: reading.Run
    result: Result

    @property
    def targets(self) -> list[str]:
        """Targets of the sweep."""
        return list(self.run.spec["targets"])

    @property
    def sizes(self) -> list[int]:
        """Numbers of samples n."""
        return list(self.run.spec["sizes"])

    @property
    def widths(self) -> list[int]:
        """Numbers of features m."""
        return list(self.run.spec["widths"])

    def array(self, name: str) -> np.ndarray:
        """One array of the run."""
        return reading.array(self.run, name)


def load(folder: Path) -> Data:
    """Read a finished run.

    Raises
    ------
    InputError
        If the folder is no finished run or one of its files is damaged.
    """
    run = reading.read(folder)
    return Data(run, reading.result_of(run, Result))
