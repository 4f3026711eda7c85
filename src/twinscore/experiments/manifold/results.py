"""The numbers of a run on discs: the models of ``result.json``, and how they are put in words."""

import csv
import io
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from twinscore.analysis.statistics import Statistic, over_replicates
from twinscore.experiments.manifold.measures import DIMENSION, NEAR_ONE, Measured
from twinscore.experiments.manifold.spec import Spec
from twinscore.runs import SCHEMA_VERSION, derive_seed

VALUES = (
    *("network", "tangent", "exact", "gap_tangent", "gap_exact"),
    *("kept", "kept_exact", "near_one", "near_one_exact", "overlap"),
)
"""The numbers with intervals of a :class:`Level`."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Value(_Model):
    """A mean over replicates with its Student's t interval (95 %).

    Of one replicate: its value, and the bootstrap interval over its test discs, which covers
    nothing else.
    """

    value: float
    low: float
    high: float


class Beside(_Model):
    """PSNR (dB) and gap on the discs of the exact posterior mean alone, to set beside it."""

    network: Value
    tangent: Value
    gap_tangent: Value


class Level(_Model):
    """One noise level.

    ``network``, ``tangent``, ``exact`` are the PSNR (dB) of the mean squared error: of the network
    and of the projection on the true disc's tangent on all test discs, of the exact posterior mean
    on those where it was computed. ``gap_tangent`` and ``gap_exact`` are how many dB the network's
    mean squared error is above theirs, on the same noisy discs; negative where it is below.
    ``beside_exact`` has the numbers of network and tangent on the discs of the exact posterior mean
    alone. ``kept`` is the number of eigenvalues above the threshold and ``near_one`` of those above
    0.9, of the network and of the exact posterior mean; ``overlap`` the share of the tangent space
    in the span of the network's kept eigenvectors, the mean squared cosine of the principal angles;
    ``cosines`` their means.
    """

    sigma: float
    input_psnr: float
    network: Value
    tangent: Value
    exact: Value | None
    gap_tangent: Value
    gap_exact: Value | None
    beside_exact: Beside | None
    kept: Value
    kept_exact: Value | None
    near_one: Value
    near_one_exact: Value | None
    overlap: Value
    cosines: list[float]

    @property
    def gap(self) -> Value:
        """From the exact posterior mean, or, where that is unknown, from the tangent projection."""
        return self.gap_exact or self.gap_tangent


class Result(_Model):
    """``result.json`` of a run on discs."""

    schema_version: int = SCHEMA_VERSION
    study: Literal["manifold"] = "manifold"
    complete: bool
    missing: list[str]
    verdict: str
    size: int
    threshold: float
    test: int
    exact: int
    bases: int
    replicates: int
    levels: list[Level]

    def table(self) -> str:
        """A row for each noise level: errors, then eigenvalues."""
        errors = [("sigma", "network dB", "above exact, dB", "above tangent, dB", "overlap")]
        counts = [
            (
                "sigma",
                *(f"> {t:g}{of}" for t in (self.threshold, NEAR_ONE) for of in ("", ", exact")),
            )
        ]
        for level in self.levels:
            sigma = f"{level.sigma:.3g}"
            gaps = (shown(level.gap_exact), shown(level.gap_tangent))
            errors.append((sigma, f"{level.network.value:.2f}", *gaps, shown(level.overlap)))
            numbers = (level.kept, level.kept_exact, level.near_one, level.near_one_exact)
            counts.append((sigma, *(shown(number, 1) for number in numbers)))
        return f"{_aligned(errors)}\n\neigenvalues of the Jacobian\n{_aligned(counts)}"


def _aligned(rows: list[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)) for row in rows
    )


def shown(value: Value | None, digits: int = 2) -> str:
    """A number and its interval, or a dash."""
    if value is None:
        return "-"
    return f"{value.value:.{digits}f} [{value.low:.{digits}f}, {value.high:.{digits}f}]"


def result_of(spec: Spec, measured: Sequence[Measured], missing: list[str]) -> Result:
    """The result of the replicates that are measured, at least one."""
    arrays = {
        name: np.stack([of[name] for of in measured])
        for name in measured[0]
        if not name.startswith("shown/")
    }
    levels = [
        _level(spec, k, {name: values[:, k] for name, values in arrays.items()})
        for k in range(len(spec.levels))
    ]
    return Result(
        complete=not missing,
        missing=missing,
        verdict=verdict_of(spec, levels),
        size=spec.size,
        threshold=spec.threshold,
        test=spec.test,
        exact=spec.exact,
        bases=spec.bases,
        replicates=len(measured),
        levels=levels,
    )


def _level(spec: Spec, k: int, arrays: Measured) -> Level:
    """Numbers of one noise level from arrays (R, discs, ...)."""
    seed = derive_seed(spec.seed, "intervals")
    errors = {name: arrays[f"mse/{name}"] for name in ("network", "tangent")}
    exact = arrays.get("mse/exact")
    share = np.square(arrays["cosines"]).sum(2) / DIMENSION
    counts = {
        f"{name}{suffix}": _value(arrays[f"{name}/{of}"], np.mean, seed)
        if f"{name}/{of}" in arrays
        else None
        for name in ("kept", "near_one")
        for suffix, of in (("", "network"), ("_exact", "exact"))
    }
    return Level(
        sigma=spec.sigmas[k],
        input_psnr=spec.levels[k],
        network=_value(errors["network"], _psnr, seed),
        tangent=_value(errors["tangent"], _psnr, seed),
        exact=None if exact is None else _value(exact, _psnr, seed),
        gap_tangent=gap(errors["network"], errors["tangent"], seed),
        gap_exact=None if exact is None else gap(errors["network"], exact, seed),
        beside_exact=None if exact is None else _beside(errors, exact.shape[1], seed),
        **counts,
        overlap=_value(share, np.mean, seed),
        cosines=arrays["cosines"].mean((0, 1)).tolist(),
    )


def _beside(errors: Measured, count: int, seed: int) -> Beside:
    """Of the first discs alone."""
    network, tangent = (errors[name][:, :count] for name in ("network", "tangent"))
    return Beside(
        network=_value(network, _psnr, seed),
        tangent=_value(tangent, _psnr, seed),
        gap_tangent=gap(network, tangent, seed),
    )


def gap(errors: NDArray, reference: NDArray, seed: int) -> Value:
    """How many dB the mean of ``errors`` is above that of ``reference``, disc by disc paired.

    Parameters
    ----------
    errors, reference : array
        (R, T) and (R, E), E <= T, of the same E first discs.
    seed : int
        Seed of the bootstrap of one replicate, which draws a disc with both its errors.

    Returns
    -------
    Value
        The mean of the replicates' gaps.
    """
    pairs = np.stack([errors[:, : reference.shape[1]], reference], axis=2)
    return _value(pairs, _decibels, seed)


def _value(values: NDArray, statistic: Statistic, seed: int) -> Value:
    value, low, high = over_replicates(values, statistic, seed=seed)
    return Value(value=value, low=low, high=high)


def _psnr(drawn: NDArray, axis: int) -> NDArray[np.float64]:
    return -10 * np.log10(drawn.mean(axis))


def _decibels(drawn: NDArray, axis: int) -> NDArray[np.float64]:
    network, reference = drawn.mean(axis).T
    return 10 * np.log10(network / reference)


def verdict_of(spec: Spec, levels: Sequence[Level]) -> str:
    """The run in a sentence: the gap at the largest and the smallest noise, and what is kept."""
    reference = (
        "the exact posterior mean" if spec.exact else "the projection on the true disc's tangent"
    )
    ends = levels if len(levels) == 1 else (levels[0], levels[-1])
    sides = ["below" if end.gap.value < 0 else "above" for end in ends]
    gaps = [f"{sides[0]} that of {reference} {_by(ends[0])}"]
    if len(ends) == 2:
        turned = f"{sides[1]} it " if sides[1] != sides[0] else ""
        gaps.append(f"{turned}{_by(ends[1])}")
    last = levels[-1]
    return (
        f"On discs of {spec.size}x{spec.size} pixels the network's squared error is "
        f"{' and '.join(gaps)}, where its Jacobian has {shown(last.kept, 1)} eigenvalues above "
        f"{spec.threshold:g} and {shown(last.near_one, 1)} above {NEAR_ONE:g}; {DIMENSION} suffice."
    )


def _by(level: Level) -> str:
    """How far above or below the reference; the sign is left to the words."""
    gap = level.gap
    if gap.value < 0:
        gap = Value(value=-gap.value, low=-gap.high, high=-gap.low)
    return f"by {shown(gap)} dB at sigma = {level.sigma:.2g}"


def csv_of(levels: Sequence[Level]) -> str:
    """The levels as CSV: a row for each noise level, empty where nothing was computed."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    ends = ("", "_low", "_high")
    writer.writerow(["sigma", "input_psnr", *(name + end for name in VALUES for end in ends)])
    for level in levels:
        row = [f"{level.sigma:.6g}", f"{level.input_psnr:g}"]
        for name in VALUES:
            value = getattr(level, name)
            numbers = (value.value, value.low, value.high) if value else ()
            row += [f"{number:.6f}" for number in numbers] or [""] * len(ends)
        writer.writerow(row)
    return text.getvalue()
