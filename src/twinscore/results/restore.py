"""Restore a picture from part of its pixels, or other measurements."""

from typing import Literal

from twinscore.results import base
from twinscore.results.base import Frozen


class Score(Frozen):
    """How close images are to the original."""

    psnr: float
    """dB, of the mean squared error per pixel, peak 1."""
    ssim: float
    """Structural similarity (Wang et al. 2004), at most 1."""


class Result(base.Result):
    """``result.json`` of a restoration."""

    study: Literal["restore"] = "restore"
    task: str
    shape: tuple[int, int, int]
    measurements: int
    measured: Score
    mean: Score
    samples: list[Score]
    inconsistency: float
    """Largest relative distance of a sample's measurements from the given ones."""
    residual: float | None
    """Median relative residual of conjugate gradients (conditioned)."""
    unfinished: int
    """Samples whose path did not converge; they are left out of the mean."""

    def table(self) -> str:
        """Scores as text."""
        rows = {"measured": self.measured, "mean": self.mean}
        rows |= {f"sample {i}": score for i, score in enumerate(self.samples, 1)}
        lines = [f"{name:12s}{s.psnr:8.2f} dB{s.ssim:8.3f}" for name, s in rows.items()]
        return "\n".join([f"{'':12s}{'PSNR':>11s}{'SSIM':>8s}", *lines])
