"""Train with and without shuffled pixels: does the network's inductive bias fit?"""

from typing import Literal

from twinscore.results import base
from twinscore.results.base import Frozen, Interval


class Level(Frozen):
    """What shuffling costs at one noise level; PSNR in dB, of the mean squared error.

    Means over replicates with Student's t intervals (95 %); of one replicate, its value and the
    bootstrap interval over test images, which covers nothing else.
    """

    sigma: float
    plain: Interval
    shuffled: Interval
    gap: Interval
    """PSNR of plain less that of shuffled, on the same images and noise; negative where shuffling
    helps."""


class Result(base.Result):
    """``result.json`` of a run of shuffled pixels."""

    study: Literal["shuffled"] = "shuffled"
    data: str
    shape: tuple[int, int, int]
    n: int
    test: int
    replicates: int
    levels: list[Level]
    control: float
    """Largest gap of the closed-form Gaussian denoiser, dB, in absolute value; rounding alone."""

    def table(self) -> str:
        """One row a noise level."""
        lines = (
            f"{level.sigma:5g}  {level.plain.value:8.2f}  {level.shuffled.value:11.2f}  "
            f"{level.gap.value:6.2f} [{level.gap.low:.2f}, {level.gap.high:.2f}]"
            for level in self.levels
        )
        return "\n".join(["sigma  plain dB  shuffled dB  gap dB", *lines])
