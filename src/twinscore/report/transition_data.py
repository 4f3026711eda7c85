"""The transition study's run folder, read and checked: result, arrays and what is missing."""

import re
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict

from twinscore.report import reading

ARRAYS = (
    "noise_seeds",
    "samples_a",
    "samples_b",
    "nearest_a",
    "nearest_b",
    "twin_similarity",
    "nearest_similarity_a",
    "nearest_similarity_b",
    "closest_pairs",
    "held_out_nearest",
)
T = TypeVar("T")


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Median(_Part):
    """A median with its interval."""

    median: float
    low: float
    high: float


class Value(_Part):
    """A number with its interval; an end is None where the interval is open."""

    value: float
    low: float | None
    high: float | None


class Sides(_Part, Generic[T]):
    """The same number for twins A and B."""

    a: T
    b: T


class Psnr(_Part):
    """PSNR in dB at each noise level, averaged over the twins, with its intervals."""

    sigma: list[float]
    train: list[float]
    train_low: list[float]
    train_high: list[float]
    test: list[float]
    test_low: list[float]
    test_high: list[float]


class Level(_Part):
    """The result at one training-set size."""

    n: int
    verdict: str
    twin_similarity: Median
    nearest_similarity: Sides[Median]
    memorised_fraction: Sides[Value | None]
    diversity: Sides[Value | None]
    closest_pairs: Median | None = None
    held_out_nearest: Median | None = None
    unfinished_samples: Sides[int] = Sides[int](a=0, b=0)
    psnr: Psnr

    @property
    def prefix(self) -> str:
        """What the names of this level's arrays begin with."""
        return f"n{self.n:05d}/"


class Contrast(_Part):
    """What memorising and generalising do to one test image, and the folder that shows it."""

    sentence: str
    folder: str


class Result(_Part):
    """The fields of result.json that the report reads."""

    complete: bool = False
    missing: list[str] = []
    verdict: str = ""
    critical_n: Value | None = None
    critical_n_phrase: str = ""
    closest_pairs: Median | None = None
    held_out_nearest: Median | None = None
    data: dict[str, Any] = {}
    levels: list[Level] = []
    harmonics: Contrast | None = None


@dataclass(frozen=True)
class Transition:
    """A transition run as the report draws it; `sampled` are the levels that have arrays."""

    run: reading.Run
    result: Result
    levels: tuple[Level, ...]
    sampled: tuple[Level, ...]
    histories: tuple[reading.History, ...]
    missing: tuple[str, ...]
    harmonics: reading.Run | None

    @property
    def sizes(self) -> list[int]:
        """Every N with a result or a history, in order."""
        return sorted({x.n for x in self.levels} | {x.n for x in self.histories})

    def array(self, level: Level, name: str, first: int | None = None) -> np.ndarray:
        """Read one of a level's arrays, or only its first entries."""
        return reading.array(self.run, level.prefix + name, first)


def load(run: reading.Run) -> Transition:
    """Check a run's result and list what it lacks.

    Parameters
    ----------
    run
        A transition run, finished or not.

    Returns
    -------
    Transition
        Its levels by increasing N, its histories and what is missing, in words.

    Raises
    ------
    InputError
        If a file is damaged or result.json lacks a field.
    """
    result = reading.result_of(run, Result)
    stored = reading.array_names(run)
    levels = tuple(sorted(result.levels, key=lambda level: level.n))
    sampled = tuple(
        level for level in levels if stored.issuperset(level.prefix + name for name in ARRAYS)
    )
    histories = tuple(reading.histories(run))
    return Transition(
        run=run,
        result=result,
        levels=levels,
        sampled=sampled,
        histories=histories,
        missing=_missing(run, result, sampled, histories),
        harmonics=_harmonics(run, result),
    )


def _harmonics(run: reading.Run, result: Result) -> reading.Run | None:
    if result.harmonics is None:
        return None
    return reading.read(run.folder / result.harmonics.folder)


def _missing(
    run: reading.Run,
    result: Result,
    sampled: tuple[Level, ...],
    histories: tuple[reading.History, ...],
) -> tuple[str, ...]:
    words = list(result.missing)
    if not run.result:
        words.append("result.json: the run was interrupted before it was written")
    drawn = {level.n for level in result.levels}
    words += [
        f"N = {n}: no result yet"
        for n in run.spec.get("sizes", [])
        if n not in drawn and not any(re.search(rf"(?<!\d)0*{n}(?!\d)", w) for w in result.missing)
    ]
    words += [
        f"N = {level.n}: its arrays are not in arrays.safetensors, so its samples are not drawn"
        for level in result.levels
        if level not in sampled
    ]
    steps = run.spec.get("training", {}).get("steps")
    of_steps = f" of {steps:,}" if isinstance(steps, int) else ""
    for history in histories:
        done = history.columns.get("step", np.empty(0))
        if not history.finished and done.size:
            words.append(f"trial {history.name}: stopped at step {int(done[-1]):,}{of_steps}")
    return tuple(words)
