"""Numbers with intervals, and how they are written in tables."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from twinscore.analysis.statistics import Statistic, mean_interval, over_replicates
from twinscore.results.base import Frozen, Interval


def of_replicates(values: NDArray, statistic: Statistic, seed: int) -> Interval:
    """Mean over replicates of a statistic of values (R, S, ...), with its interval (95 %).

    Student's t over replicates; of one replicate, the bootstrap over its samples
    (:func:`~twinscore.analysis.statistics.over_replicates`).
    """
    value, low, high = over_replicates(values, statistic, seed=seed)
    return Interval(value=value, low=low, high=high, **found_by(len(values)))


def found_by(replicates: int) -> dict[str, str]:
    """Method and cover of an interval over replicates, or over the images of one."""
    if replicates > 1:
        return {"method": "Student's t", "covers": "replicates"}
    return {"method": "bootstrap", "covers": "images"}


def of_values(values: NDArray, within: tuple[float, float] | None = None) -> Interval:
    """Mean of a value (R,) of each of two or more replicates, its interval cut to a range."""
    value, low, high = mean_interval(values)
    if within:
        low, high = max(low, within[0]), min(high, within[1])
    return Interval(value=value, low=low, high=high, **found_by(len(values)))


def psnr(errors: NDArray, axis: int) -> NDArray[np.float64]:
    """PSNR of the mean of squared errors per pixel, dB."""
    return -10 * np.log10(errors.mean(axis))


def columns(names: Sequence[str]) -> list[str]:
    """Headings of intervals: ``name``, ``name_low``, ``name_high``."""
    return [name + end for name in names for end in ("", "_low", "_high")]


def numbers(interval: Interval | None) -> tuple[float, ...] | tuple[None, ...]:
    """Value and ends of an interval, or None three times."""
    return (interval.value, interval.low, interval.high) if interval else (None,) * 3


def cells(row: Frozen, names: Sequence[str]) -> list[float | None]:
    """Numbers of the intervals of these names, as :func:`columns` heads them."""
    return [value for name in names for value in numbers(getattr(row, name))]


def texts(row: Frozen, names: Sequence[str], form: str) -> list[str]:
    """The same in a format; empty where there is nothing."""
    return ["" if value is None else f"{value:{form}}" for value in cells(row, names)]
