"""The numbers of a regularity run: the models of ``result.json``, and how they are put in words."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from twinscore.analysis.slopes import Slope, fitted_slope, local_slopes, slope_difference
from twinscore.analysis.statistics import over_replicates
from twinscore.experiments.regularity.measures import METHODS, NETWORK
from twinscore.experiments.regularity.spec import Generator, Spec
from twinscore.runs import SCHEMA_VERSION, derive_seed

COLUMNS = (
    *("generator", "alpha", "method", "sigma", "input_psnr"),
    *("psnr", "psnr_low", "psnr_high", "mean_psnr"),
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
    local: list[float]


class Class(_Model):
    """C-alpha images of one alpha and one generator.

    ``theory`` is alpha / (alpha + 1); ``of_filter`` the slope of the backgrounds as the filter
    makes them, s / (s + 1) at their regularity s: alpha, or alpha - 1 for the published filter.
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
    """How much steeper a method is at the largest alpha than at the smallest."""

    generator: Generator
    method: str
    alphas: tuple[float, float]
    difference: Value
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
        """The slope of each method on each class."""
        heads = [f"{c.generator}, alpha {c.alpha:g}" for c in self.classes]
        width = max(len(name) for name in METHODS)
        rows = [
            f"{head}: theory {c.theory:.3f}\n"
            + "\n".join(f"  {curve.method:{width}}  {shown(curve.slope)}" for curve in c.curves)
            for head, c in zip(heads, self.classes, strict=True)
        ]
        return "\n".join(rows)


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
    local = [local_slopes(spec.sigmas, mean)[1] for mean in errors.mean(2)]
    return Curve(
        method=method,
        slope=_slope(fit),
        psnr=[Value(value=value, low=low, high=high) for value, low, high in psnr],
        mean_psnr=(-10 * np.log10(errors)).mean((0, 2)).tolist(),
        local=np.mean(local, axis=0).tolist(),
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
            difference = _difference(spec, *(errors[alpha, generator][method] for alpha in ends))
            found.append(
                Contrast(
                    generator=generator,
                    method=method,
                    alphas=ends,
                    difference=difference,
                    theory=theory,
                )
            )
    return found


def _difference(spec: Spec, least: Errors, most: Errors) -> Value:
    """Slope on the second class less that on the first, paired.

    Two classes of one replicate share the initial weights, the order and noise of training, and
    the numbers and noise of their test images.
    """
    seed = derive_seed(spec.seed, "contrast")
    return _slope(slope_difference(spec.sigmas, least, most, spec.fit_range, seed=seed))


def _slope(slope: Slope) -> Value:
    return Value(value=slope.value, low=slope.low, high=slope.high)


def _psnr_of_mean(drawn: NDArray, axis: int) -> NDArray[np.float64]:
    return -10 * np.log10(drawn.mean(axis))


def verdict_of(spec: Spec, classes: Sequence[Class], contrasts: Sequence[Contrast]) -> str:
    """The run in a sentence: is the slope larger where images are more regular?"""
    low, high = spec.fit_range
    where = f"from {low:g} to {high:g} dB of input PSNR"
    parts = [
        f"with the {contrast.generator} filter the network's slope at alpha = "
        f"{contrast.alphas[1]:g} is {_compared(contrast)} (theory {contrast.theory:.3f})"
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


def csv_of(spec: Spec, classes: Sequence[Class]) -> str:
    """Every curve as CSV: a row for each class, method and noise level."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for c in classes:
        for curve in c.curves:
            rows = zip(spec.sigmas, spec.levels, curve.psnr, curve.mean_psnr, strict=True)
            for sigma, level, psnr, mean in rows:
                values = (sigma, level, psnr.value, psnr.low, psnr.high, mean)
                numbers = [f"{value:.6g}" for value in values]
                writer.writerow([c.generator, f"{c.alpha:g}", curve.method, *numbers])
    return text.getvalue()
