"""Check that a model is wired right, before anything is measured on it."""

from math import log10
from typing import Literal

from twinscore.results import base
from twinscore.results.base import Frozen, aligned

SHOWN = 5
"""Conventions of the table: the one that is named, and those that fit best."""


class Fit(Frozen):
    """One convention: the errors of the estimates that it makes of what the network returns."""

    wiring: str
    errors: list[float | None]
    """Squared error per pixel at each noise level; None where it makes none."""
    bias: float | None
    """Mean of the error at the smallest level."""


class Result(base.Result):
    """``result.json`` of a check: the named convention first, then the others, the best first."""

    study: Literal["check_model"] = "check_model"
    model: str
    source: str
    held_out: bool
    images: int
    shape: tuple[int, int, int]
    sigmas: list[float]
    fits: list[Fit]
    fault: str | None
    """What is wrong."""
    warning: str | None
    """What may be wrong, or the model has not seen these images."""
    notes: list[str]
    """What a user should know of how the model was read."""

    @property
    def exit_code(self) -> int:
        """2, as of other bad input, for a model that is wired wrongly."""
        return 2 if self.fault else 0

    def table(self) -> str:
        """PSNR of the noisy images, and of the estimates by several conventions."""
        head = ("PSNR (dB) at sigma", *(f"{sigma:g}" for sigma in self.sigmas))
        noise = ("noisy images", *(decibels(sigma**2) for sigma in self.sigmas))
        rows = [(fit.wiring, *map(decibels, fit.errors)) for fit in self.fits[:SHOWN]]
        return "\n".join([aligned([head, noise, *rows], left=(0,)), *self.notes])


def decibels(error: float | None) -> str:
    """PSNR of a squared error per pixel, peak 1."""
    return "-" if error is None else f"{10 * log10(1 / max(error, 1e-30)):.1f}"
