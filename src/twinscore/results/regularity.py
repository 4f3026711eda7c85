"""Train on C-alpha images: does the error fall at the optimal rate?"""

from itertools import pairwise
from typing import Literal

from twinscore.results import base
from twinscore.results.base import Frozen, Interval

Generator = Literal["published", "regularity"]

NETWORK = "network"
"""The method that is trained; the others are baselines."""


class Curve(Frozen):
    """One method on one class, at the run's noise levels.

    Intervals are Student's t (95 %) over replicates; of one replicate, the bootstrap interval over
    its test images, which covers nothing else. ``psnr`` is that of the mean squared error, from
    which slopes are taken; ``mean_psnr`` the mean of each image's PSNR, the published convention.
    ``local`` are slopes between neighbouring levels.
    """

    method: str
    slope: Interval
    psnr: list[Interval]
    mean_psnr: list[float]
    local: list[Interval]


class Class(Frozen):
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


class Contrast(Frozen):
    """How much steeper a method is at the largest alpha than at the smallest.

    ``difference`` is that in the fit range, ``common`` that in the range that all runs have in
    common; none where the run fits this range, or has too few levels in it.
    """

    generator: Generator
    method: str
    alphas: tuple[float, float]
    difference: Interval
    common: Interval | None
    theory: float


class Result(base.Result):
    """``result.json`` of a regularity run."""

    study: Literal["regularity"] = "regularity"
    levels: list[float]
    fit_range: tuple[float, float]
    trained_on: int
    shown: int
    classes: list[Class]
    contrasts: list[Contrast]

    def table(self) -> str:
        """The slope of each method on each class, then the network's local slopes."""
        heads = [f"{c.generator}, alpha {c.alpha:g}" for c in self.classes]
        width = max(len(curve.method) for curve in self.classes[0].curves)
        lines = []
        for head, c in zip(heads, self.classes, strict=True):
            lines.append(f"{head}: theory {c.theory:.3f}")
            lines += [f"  {curve.method:{width}}  {curve.slope.text(3)}" for curve in c.curves]
        ends = [f"{low:g}-{high:g}" for low, high in pairwise(self.levels)]
        local = [[f"{slope.value:.2f}" for slope in c.curve(NETWORK).local] for c in self.classes]
        width, column = max(map(len, heads)), max(map(len, ends)) + 1
        lines.append("local slopes of the network, by input PSNR in dB:")
        for head, cells in zip(["", *heads], [ends, *local], strict=True):
            lines.append(f"  {head:{width}}" + "".join(f"{cell:>{column}}" for cell in cells))
        return "\n".join(lines)
