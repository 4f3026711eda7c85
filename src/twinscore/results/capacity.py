"""Train twins of several networks and image sizes: what does the critical N depend on?"""

from typing import Literal

from twinscore.results import base
from twinscore.results.base import Frozen, Interval, aligned


class Cell(Frozen):
    """A network at an image size.

    A critical N that is None lies ``beyond`` the size ``bound``, or is not known if that is None.
    Its ends are sizes that were tried, the smallest and the largest where they are open.
    """

    name: str
    kind: str
    parameters: int
    pixels: int
    critical_n: Interval | None
    beyond: Literal["below", "above"] | None
    bound: int

    def text(self) -> str:
        """The critical N in words."""
        if self.critical_n:
            return self.critical_n.text(0)
        if self.beyond is None:
            return "not known"
        return f"{'<' if self.beyond == 'below' else '>'} {self.bound:,}"


class Exponent(Frozen):
    """How log critical N grows with a logarithm, all else that varies fitted too; None: unknown."""

    against: Literal["parameters", "pixels"]
    value: float | None
    low: float | None
    high: float | None

    def text(self) -> str:
        """The exponent and its interval."""
        if self.value is None:
            return "unknown, too few critical N lie inside the sizes tried"
        low, high = ("?" if end is None else f"{end:.2f}" for end in (self.low, self.high))
        return f"{self.value:.2f} [{low}, {high}]"


class Result(base.Result):
    """``result.json`` of a capacity run."""

    study: Literal["capacity"] = "capacity"
    data: str
    sizes: list[int]
    cells: list[Cell]
    exponents: list[Exponent]

    def table(self) -> str:
        """A row for each network, then the exponents."""
        rows = [("network", "parameters", "pixels", "critical N")]
        rows += [(c.name, f"{c.parameters:,}", f"{c.pixels:,}", c.text()) for c in self.cells]
        lines = [f"critical N ~ {e.against}^a: a = {e.text()}" for e in self.exponents]
        return "\n".join([aligned(rows, left=(0,)), *lines])
