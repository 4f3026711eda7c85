"""The run folder of a regularity study, as its report reads it."""

from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict

from twinscore.report import reading


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Value(_Part):
    """A number with its interval."""

    value: float
    low: float
    high: float


class Curve(_Part):
    """One method on one class."""

    method: str
    slope: Value
    psnr: list[Value]
    local: list[Value]


class Class(_Part):
    """One alpha and generator."""

    alpha: float
    generator: str
    theory: float
    of_filter: float
    asymmetry: float
    curves: list[Curve]

    def curve(self, method: str) -> Curve:
        """The curve of a method."""
        return next(curve for curve in self.curves if curve.method == method)


class Result(_Part):
    """The fields of result.json that the report reads; empty before the first class is finished."""

    verdict: str = ""
    missing: list[str] = []
    levels: list[float] = []
    trained_on: int = 0
    shown: int = 0
    classes: list[Class] = []


@dataclass(frozen=True)
class Data:
    """A run and its numbers."""

    run: reading.Run
    result: Result

    @property
    def classes(self) -> list[Class]:
        """The finished classes."""
        return self.result.classes

    @property
    def generators(self) -> list[str]:
        """Generators of the finished classes, in order."""
        return list(dict.fromkeys(c.generator for c in self.classes))

    def of(self, generator: str) -> list[Class]:
        """The finished classes of a generator."""
        return [c for c in self.classes if c.generator == generator]

    @property
    def levels(self) -> np.ndarray:
        """Input PSNR of each noise level, dB."""
        return np.array(self.result.levels)

    @property
    def fit_range(self) -> tuple[float, float]:
        """Ends of the fit, dB of input PSNR."""
        low, high = self.run.spec["fit_range"]
        return low, high

    def array(self, of: Class, name: str) -> np.ndarray:
        """An array of a class."""
        return reading.array(self.run, f"{of.generator}/{of.alpha:g}/{name}")


def load(run: reading.Run) -> Data:
    """Read and check ``result.json``, which need not be there yet."""
    return Data(run, reading.result_of(run, Result))
