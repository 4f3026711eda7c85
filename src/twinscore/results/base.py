"""What the results of all studies share."""

from collections.abc import Sequence
from typing import Any, Literal, Self

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, model_validator

from twinscore.runs import SCHEMA_VERSION, SHA256


class Frozen(BaseModel):
    """Immutable, without unknown fields, without NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Settings(Frozen):
    """What a command is asked for; the texts under its fields are the help of its flags."""

    model_config = ConfigDict(use_attribute_docstrings=True)


Method = Literal["Student's t", "bootstrap", "jackknife", "Clopper-Pearson"]
"""Student's t of the replicates' values; percentiles of the bootstrap; Student's t of the
jackknife's pseudo-values; Clopper and Pearson's bounds of a rate."""
Covered = Literal[
    *("replicates", "replicates and samples", "samples and images", "samples", "images", "noise")
]


class Interval(Frozen):
    """A number and its 95 % interval: how it was found, and the draws of what it covers.

    Both are None in folders that were written before they were recorded.
    """

    value: float = Field(validation_alias=AliasChoices("value", "median"))
    low: float
    high: float
    method: Method | None = None
    covers: Covered | None = None

    def times(self, factor: float) -> Self:
        """In another unit: value and ends times a positive factor."""
        ends = {name: factor * getattr(self, name) for name in ("value", "low", "high")}
        return self.model_copy(update=ends)

    def text(self, digits: int = 2) -> str:
        """``value [low, high]``."""
        return f"{self.value:.{digits}f} [{self.low:.{digits}f}, {self.high:.{digits}f}]"


def dashed(interval: Interval | None, digits: int = 2) -> str:
    """The text of an interval, or a dash."""
    return "-" if interval is None else interval.text(digits)


class Result(Frozen):
    """What every ``result.json`` begins with.

    ``missing`` names the parts that are not done, ``arrays`` is the checksum of the
    ``arrays.safetensors`` that belongs to it; earlier versions gave none.
    """

    schema_version: int = SCHEMA_VERSION
    study: str
    complete: bool = True
    missing: list[str] = []
    arrays: str = ""
    verdict: str

    @model_validator(mode="before")
    @classmethod
    def _without_checksum(cls, value: Any) -> Any:
        """Take the content of a ``result.json`` as it is."""
        return {k: v for k, v in value.items() if k != SHA256} if isinstance(value, dict) else value

    @property
    def exit_code(self) -> int:
        """What the command ends with; other than 0 where the answer itself is an alarm."""
        return 0

    def table(self) -> str:
        """The numbers as plain text."""
        raise NotImplementedError


def aligned(rows: Sequence[Sequence[str]], left: Sequence[int] = ()) -> str:
    """Rows of cells as text, each column as wide as its widest cell; ``left`` are flush left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(w) if i in left else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


class Turn(Frozen):
    """When something came about: at step ``value``, not yet at ``low``, both checkpoints.

    ``low`` is None where it had come about at the first.
    """

    value: int
    low: int | None

    def text(self) -> str:
        """As ``200 [100, 200]``."""
        low = "start" if self.low is None else f"{self.low:,}"
        return f"{self.value:,} [{low}, {self.value:,}]"


class Kept(Frozen):
    """A checkpoint.

    ``error``: on held-out images, in units of the smallest of any checkpoint at each noise level,
    on average over these. ``energy``: the energy distance of its samples from held-out images, in
    units of the mean distance between the latter. ``auc``: how often a training image has the
    smaller error, and the exact ``p``, None where the deal cannot be relied on. ``copied``: the
    share of its samples that the ratio rule calls copies, as information.
    """

    step: int
    model: str
    error: Interval
    energy: Interval | None
    auc: Interval
    p: float | None
    copied: Interval | None = None


class Window(Frozen):
    """The steps between quality and memory (docs/audit.md#along-training).

    ``tau_gen``: the first checkpoint whose error, and energy distance where it is known, is within
    its interval of the best. ``tau_mem``: the first of the last checkpoints that all depend on
    their training images; None where the last does not, or nothing can be tested.
    """

    tau_gen: Turn
    tau_mem: Turn | None
    checkpoints: list[Kept]

    @property
    def tested(self) -> bool:
        """Whether the deal could be relied on."""
        return self.checkpoints[-1].p is not None

    @property
    def stop(self) -> Kept | None:
        """The last checkpoint that cannot be told to depend on its training images."""
        if not self.tested:
            return None
        last = self.checkpoints[-1].step if self.tau_mem is None else self.tau_mem.low
        return next((of for of in self.checkpoints if of.step == last), None)

    def text(self) -> str:
        """In one line."""
        if not self.tested:
            memory = "memory is not testable"
        elif self.tau_mem is None:
            memory = f"no memory by step {self.checkpoints[-1].step:,}"
        else:
            memory = f"memory from step {self.tau_mem.text()} on"
        return f"quality from step {self.tau_gen.text()} on, {memory}"
