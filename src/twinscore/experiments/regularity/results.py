"""The numbers of a regularity run: the models of ``result.json``, and how they are put in words."""

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from twinscore.analysis.slopes import (
    LEAST_LEVELS,
    Slope,
    fitted_local_slopes,
    fitted_slope,
    slope_difference,
)
from twinscore.analysis.statistics import over_replicates
from twinscore.experiments.regularity.measures import METHODS, NETWORK
from twinscore.experiments.regularity.spec import COMMON_RANGE, Generator, Spec
from twinscore.runs import SCHEMA_VERSION, derive_seed

COLUMNS = (
    *("generator", "alpha", "method", "sigma", "input_psnr"),
    *("psnr", "psnr_low", "psnr_high", "mean_psnr"),
)
LOCAL_COLUMNS = (
    *("generator", "alpha", "method", "from_input_psnr", "to_input_psnr"),
    *("slope", "slope_low", "slope_high"),
)

Errors = NDArray[np.float64]
"""Squared errors per pixel of one class and method, (replicates, levels, images)."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Value(_Model):
    """A mean over replicates with its Student's t interval (95 %).

    Of one replicate: its value, and the bootstrap interval over its test images, which covers
    nothing else.
    """

    value: float
    low: float
    high: float


class Curve(_Model):
    """One method on one class, at the run's noise levels.

    ``psnr`` is that of the mean squared error, from which slopes are taken; ``mean_psnr`` the mean
    of each image's PSNR, the published convention. ``local`` are slopes between neighbouring
    levels.
    """

    method: str
    slope: Value
    psnr: list[Value]
    mean_psnr: list[float]
    local: list[Value]


class Class(_Model):
    """C-alpha images of one alpha and one generator.

    ``theory`` is alpha / (alpha + 1); ``of_filter`` the slope of the backgrounds as the filter
    makes them, s / (s + 1) at their regularity s: alpha, or alpha - 1 for the published filter.
    ``asymmetry`` is that of the network's Jacobian where its eigenvectors are shown.
    """

    alpha: float
    generator: Generator
    theory: float
    of_filter: float
    asymmetry: float
    curves: list[Curve]

    def curve(self, method: str) -> Curve:
        """The curve of a method."""
        return next(curve for curve in self.curves if curve.method == method)


class Contrast(_Model):
    """How much steeper a method is at the largest alpha than at the smallest.

    ``difference`` is that in the fit range, ``common`` that over ``COMMON_RANGE``; none where the
    run fits this range, or has too few levels in it.
    """

    generator: Generator
    method: str
    alphas: tuple[float, float]
    difference: Value
    common: Value | None
    theory: float


class Result(_Model):
    """``result.json`` of a regularity run."""

    schema_version: int = SCHEMA_VERSION
    study: Literal["regularity"] = "regularity"
    complete: bool
    missing: list[str]
    verdict: str
    levels: list[float]
    fit_range: tuple[float, float]
    trained_on: int
    shown: int
    classes: list[Class]
    contrasts: list[Contrast]

    def table(self) -> str:
        """The slope of each method on each class, then the network's local slopes."""
        heads = [f"{c.generator}, alpha {c.alpha:g}" for c in self.classes]
        width = max(len(name) for name in METHODS)
        rows = [
            f"{head}: theory {c.theory:.3f}\n"
            + "\n".join(f"  {curve.method:{width}}  {shown(curve.slope)}" for curve in c.curves)
            for head, c in zip(heads, self.classes, strict=True)
        ]
        return "\n".join([*rows, *self._local_rows(heads)])

    def _local_rows(self, heads: Sequence[str]) -> Iterable[str]:
        ends = [f"{low:g}-{high:g}" for low, high in pairwise(self.levels)]
        width, column = max(map(len, heads), default=0), max(map(len, ends)) + 1
        yield "local slopes of the network, by input PSNR in dB:"
        yield f"  {'':{width}}" + "".join(f"{end:>{column}}" for end in ends)
        for head, c in zip(heads, self.classes, strict=True):
            values = (f"{slope.value:{column}.2f}" for slope in c.curve(NETWORK).local)
            yield f"  {head:{width}}" + "".join(values)


def shown(value: Value, digits: int = 3) -> str:
    """A number and its interval."""
    return f"{value.value:.{digits}f} [{value.low:.{digits}f}, {value.high:.{digits}f}]"


def class_of(
    spec: Spec, alpha: float, generator: Generator, errors: Mapping[str, Errors], asymmetry: float
) -> Class:
    """The numbers of one class from the errors of every method."""
    regularity = alpha if generator == "regularity" else max(alpha - 1, 0.0)
    return Class(
        alpha=alpha,
        generator=generator,
        theory=alpha / (alpha + 1),
        of_filter=regularity / (regularity + 1),
        asymmetry=asymmetry,
        curves=[curve_of(spec, method, errors[method]) for method in METHODS],
    )


def curve_of(spec: Spec, method: str, errors: Errors) -> Curve:
    """Curve, slope and local slopes of one method."""
    seed = derive_seed(spec.seed, "slope", method)
    fit = fitted_slope(spec.sigmas, errors, spec.fit_range, seed=seed)
    psnr = [
        over_replicates(by_level, _psnr_of_mean, seed=seed)
        for by_level in errors.transpose(1, 0, 2)
    ]
    return Curve(
        method=method,
        slope=_value(fit),
        psnr=[Value(value=value, low=low, high=high) for value, low, high in psnr],
        mean_psnr=(-10 * np.log10(errors)).mean((0, 2)).tolist(),
        local=[_value(s) for s in fitted_local_slopes(spec.sigmas, errors, seed=seed)],
    )


def contrasts_of(
    spec: Spec, errors: Mapping[tuple[float, Generator], Mapping[str, Errors]]
) -> list[Contrast]:
    """Differences of slopes between the largest and the smallest alpha of each generator."""
    found = []
    for generator in spec.generators:
        alphas = sorted(alpha for alpha, of in errors if of == generator)
        if len(alphas) < 2:
            continue
        ends = alphas[0], alphas[-1]
        theory = ends[1] / (ends[1] + 1) - ends[0] / (ends[0] + 1)
        for method in METHODS:
            pair = [errors[alpha, generator][method] for alpha in ends]
            found.append(
                Contrast(
                    generator=generator,
                    method=method,
                    alphas=ends,
                    difference=_difference(spec, *pair, spec.fit_range),
                    common=_difference(spec, *pair, COMMON_RANGE) if _has_common(spec) else None,
                    theory=theory,
                )
            )
    return found


def _has_common(spec: Spec) -> bool:
    low, high = COMMON_RANGE
    inside = sum(low <= level <= high for level in spec.levels)
    return spec.fit_range != COMMON_RANGE and inside >= LEAST_LEVELS


def _difference(spec: Spec, least: Errors, most: Errors, fit_range: tuple[float, float]) -> Value:
    """Slope on the second class less that on the first, paired.

    Two classes of one replicate share the initial weights, the order and noise of training, and
    the numbers and noise of their test images.
    """
    seed = derive_seed(spec.seed, "contrast")
    return _value(slope_difference(spec.sigmas, least, most, fit_range, seed=seed))


def _value(slope: Slope) -> Value:
    return Value(value=slope.value, low=slope.low, high=slope.high)


def _psnr_of_mean(drawn: NDArray, axis: int) -> NDArray[np.float64]:
    return -10 * np.log10(drawn.mean(axis))


def verdict_of(spec: Spec, classes: Sequence[Class], contrasts: Sequence[Contrast]) -> str:
    """The run in a sentence: is the slope larger where images are more regular?"""
    low, high = spec.fit_range
    where = f"from {low:g} to {high:g} dB of input PSNR"
    parts = [
        f"with the {contrast.generator} filter the network's slope at alpha = "
        f"{contrast.alphas[1]:g} is {_compared(contrast)} ({_beside(contrast)})"
        for contrast in contrasts
        if contrast.method == NETWORK
    ]
    if parts:
        return f"On C-alpha images, {where}: {'; '.join(parts)}."
    ends = "; ".join(
        f"{shown(c.curve(NETWORK).slope)} at alpha = {c.alpha:g} with the {c.generator} filter "
        f"(theory {c.theory:.3f})"
        for c in classes
    )
    return f"On C-alpha images, {where}, the network's slope is {ends}."


def _compared(contrast: Contrast) -> str:
    by, least = shown(contrast.difference), f"that at alpha = {contrast.alphas[0]:g}"
    if contrast.difference.low > 0:
        return f"above {least} by {by}"
    if contrast.difference.high < 0:
        return f"not above but below {least}: difference {by}"
    return f"not told apart from {least}: difference {by}"


def _beside(contrast: Contrast) -> str:
    theory = f"theory {contrast.theory:.3f}"
    if contrast.common is None:
        return theory
    low, high = COMMON_RANGE
    return f"{theory}; the difference from {low:g} to {high:g} dB is {shown(contrast.common)}"


def levels_csv(spec: Spec, classes: Sequence[Class]) -> str:
    """Every curve as CSV: a row for each class, method and noise level."""

    def rows(curve: Curve) -> Iterable[tuple[float, ...]]:
        columns = zip(spec.sigmas, spec.levels, curve.psnr, curve.mean_psnr, strict=True)
        for sigma, level, psnr, mean in columns:
            yield sigma, level, psnr.value, psnr.low, psnr.high, mean

    return _csv(COLUMNS, classes, rows)


def local_slopes_csv(spec: Spec, classes: Sequence[Class]) -> str:
    """Every local slope as CSV: a row for each class, method and pair of neighbouring levels."""

    def rows(curve: Curve) -> Iterable[tuple[float, ...]]:
        for ends, slope in zip(pairwise(spec.levels), curve.local, strict=True):
            yield *ends, slope.value, slope.low, slope.high

    return _csv(LOCAL_COLUMNS, classes, rows)


def _csv(
    columns: Sequence[str],
    classes: Sequence[Class],
    rows: Callable[[Curve], Iterable[tuple[float, ...]]],
) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for c in classes:
        for curve in c.curves:
            for row in rows(curve):
                numbers = [f"{value:.6g}" for value in row]
                writer.writerow([c.generator, f"{c.alpha:g}", curve.method, *numbers])
    return text.getvalue()
