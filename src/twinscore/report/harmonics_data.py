"""The harmonics study's run folder, read and checked."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict

from twinscore.report import reading


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Number(_Part):
    """A number and its standard error."""

    value: float
    standard_error: float


class Mean(_Part):
    """An average with its interval."""

    value: float
    low: float
    high: float


class Risk(_Part):
    """Squared error of the image: Stein's estimate, the truth, and their difference."""

    sure: Mean
    error: Mean
    difference: Mean


class Decay(_Part):
    """Exponent of a power law with its interval and the ranks it was fitted to."""

    exponent: float
    low: float
    high: float
    first: int
    last: int


class Share(_Part):
    """Directions, and how much of image and noise lies in them; lower bounds unless complete."""

    directions: int
    image: float
    noise: float
    complete: bool


class Level(_Part):
    """One model at one noise level."""

    sigma: float
    psnr_in: float
    psnr_out: float
    trace: Number
    effective_rank: Number
    asymmetry: Number | None
    homogeneity: float | None
    complex_pairs: int
    largest_imaginary: float
    eigenvalues: int
    converged: bool
    residual: float
    kept: Share
    shrunk: Share | None
    removed: Share | None
    risk: Risk
    eigenvalue_decay: Decay | None
    coefficient_decay: Decay | None


class Model(_Part):
    """One denoiser at every noise level."""

    name: str
    levels: list[Level]


class Agreement(_Part):
    """What two models' top subspaces share at one noise level."""

    sigma: float
    dimensions: int
    shared: float
    chance: float


class Fixed(_Part):
    """What a model's top eigenvectors share with the best of a fixed basis."""

    model: str
    basis: str
    dimensions: int
    shared: float
    chance: float


class Result(_Part):
    """The fields of result.json that the report reads."""

    verdict: str
    source: str
    index: int
    image: str
    shape: tuple[int, int, int]
    sigma: float
    kept_from: float
    removed_below: float
    models: list[Model]
    agreement: list[Agreement]
    fixed: list[Fixed]


@dataclass(frozen=True)
class Harmonics:
    """A harmonics run as the report draws it."""

    run: reading.Run
    result: Result

    def main(self, model: Model) -> Level:
        """A model at the noise level of the pictures."""
        return next(level for level in model.levels if level.sigma == self.result.sigma)

    def kept(self) -> str:
        """How many directions each model keeps at each noise level, as a sentence."""
        sigmas = ", ".join(f"{level.sigma:g}" for level in self.result.models[0].levels)
        counts = "; ".join(
            f"{model.name}: {', '.join(_count(level.kept) for level in model.levels)}"
            for model in self.result.models
        )
        return f"Directions kept at σ = {sigmas}: {counts}."

    def array(self, name: str, model: int | None = None) -> np.ndarray:
        """One array, of the image or of a model."""
        return reading.array(self.run, name if model is None else f"model{model}/{name}")


def _count(share: Share) -> str:
    return f"{'' if share.complete else '≥ '}{share.directions:,}"


def load(folder: Path) -> Harmonics:
    """Read a finished run.

    Raises
    ------
    InputError
        If the folder is no run folder, a file is damaged or result.json lacks a field.
    """
    run = reading.read(folder)
    return Harmonics(run, reading.result_of(run, Result))
