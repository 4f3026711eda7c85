"""What the results of all studies share."""

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from twinscore.runs import SCHEMA_VERSION


class Frozen(BaseModel):
    """Immutable, without unknown fields, without NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Interval(Frozen):
    """A number and its 95 % interval."""

    value: float
    low: float
    high: float

    def text(self, digits: int = 2) -> str:
        """``value [low, high]``."""
        return f"{self.value:.{digits}f} [{self.low:.{digits}f}, {self.high:.{digits}f}]"


def dashed(interval: Interval | None, digits: int = 2) -> str:
    """The text of an interval, or a dash."""
    return "-" if interval is None else interval.text(digits)


class Result(Frozen):
    """What every ``result.json`` begins with; ``missing`` names the parts that are not done."""

    schema_version: int = SCHEMA_VERSION
    study: str
    complete: bool = True
    missing: list[str] = []
    verdict: str

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
