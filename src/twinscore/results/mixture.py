"""Solve score models of two modes exactly: early stopping, capacity, modes shift."""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, ConfigDict, PlainSerializer, computed_field

from twinscore.results import base
from twinscore.results.base import Frozen, Interval

TargetName = Literal["mixture", "bounded"]
"""Two Gaussian modes; a raised cosine of compact support."""


class Varied(StrEnum):
    """What grows along the settings (n, m) of a fit."""

    BOTH = "m = n"
    UP_TO_M = "n <= m"
    N = "n"
    M = "m"


@dataclass(frozen=True)
class Along:
    """What a power law is fitted along: what grows, and the n or m that is held."""

    varied: Varied
    held: int | None = None

    def __str__(self) -> str:
        other = "n" if self.varied is Varied.M else "m"
        return self.varied if self.held is None else f"{self.varied}, at {other} = {self.held}"

    @classmethod
    def of(cls, said: Self | str) -> Self:
        """Read what ``str`` gave; ValueError for another text."""
        if isinstance(said, cls):
            return said
        found = re.fullmatch(r"(.*?)(?:, at [nm] = (\d+))?", said)
        return cls(Varied(found[1]), found[2] and int(found[2]))


DIAGONAL = Along(Varied.BOTH)


class Stop(Frozen):
    """Where KL is least along training."""

    target: TargetName
    n: int | None
    """None for infinitely many."""
    m: int
    tau: Interval
    """Training time of least KL, in units of m, between those of the sweep; the interval cut at the
    ends of its range."""
    kl: Interval
    """The least KL of the mean over replicates, nats."""
    floor: Interval
    """The same for infinitely many samples: mostly the value at the last training time."""
    last: float | None
    """KL at the last training time; None where it did not reach its tolerance."""
    inside: bool
    """Whether the minimum lies inside the range of training times."""
    left_out: int
    """Training times without a result: too few replicates reached their tolerance."""


class Term(Frozen):
    """A fitted power law beside the theory's."""

    model_config = ConfigDict(extra="ignore")  # reads the two that it computes

    target: TargetName | Literal["shift"]
    quantity: Literal["tau_es", "KL_min", "least KL", "sampling", "training", "approximation"]
    along: str
    """What grows and what is held, in words."""
    measured: Interval | None
    """None with fewer than 3 settings to fit. The interval is Student's t over the jackknife of the
    replicates; of positive quantities, and of training times, by the logarithm."""
    predicted: tuple[float, float] | None
    """What the theory gives; two ends where the exponent moves from one to the other; None for a
    polynomial whose degree it leaves open."""
    kind: Literal["equal", "at most"]
    """at most: an upper bound, which what falls faster, or grows more slowly, respects."""
    settings: int

    @computed_field
    @property
    def theory(self) -> str:
        """What the theory gives, in words."""
        if self.predicted is None:
            return "polynomial"
        low, high = (value + 0.0 for value in self.predicted)  # no minus before a zero
        text = f"{low:+g}" if low == high else f"{low:+g} to {high:+g}"
        return text if self.kind == "equal" else f"at most {text}"

    @computed_field
    @property
    def answer(self) -> str:
        """How the interval lies to it; an upper bound allows what falls faster."""
        if self.measured is None:
            return "too few settings"
        if self.predicted is None:
            return "no degree given"
        if self.measured.low > max(self.predicted):
            return "larger" if self.kind == "equal" else "slower than the bound's"
        below = self.measured.high < min(self.predicted)
        return "smaller" if below and self.kind == "equal" else "compatible"


class Exponent(Term):
    """The power law of a best stopping time or of a least KL."""

    along: Annotated[Along, BeforeValidator(Along.of), PlainSerializer(str)]


class Learned(Frozen):
    """When a mode is learned: training time, in units of m, from which on it is there.

    Half of its mass or more lies near it, and the density there rises above the one halfway between
    the modes. Over replicates. A density that missed its tolerance has no mode.
    """

    median: float
    first: float
    last: float | None
    """None where a replicate lacks the mode at the end."""


class Shifted(Frozen):
    """A mixture of two modes, learned from n samples or infinitely many."""

    mu: float
    lighter: float
    """Weight of the mode at mu."""
    n: int | None
    tau: float | None
    """Training time of least KL, in units of m; None if no time has a result."""
    kl: Interval | None
    left_out: int
    learned_at: tuple[Learned | None, Learned | None] | None
    """When the mode at -mu, and at mu, is there for good; None where half of the replicates or more
    lack it at the end. None altogether for modes so near that the target has one peak."""
    approximation: Interval
    """Error of the score that no coefficients can avoid, nats of the bound; for every n."""
    training: Interval
    """What infinitely many samples still lack at the last training time, nats of the bound."""
    prior: float
    """``KL(p_T || pi)``, nats."""


class Twin(Frozen):
    """Models of two training sets of n samples, stopped where KL is least."""

    n: int
    tau: float
    variance: Interval
    """Half the mean squared distance of their scores, nats of the bound."""
    error: Interval
    """Mean squared distance from the target's score, mean of the two, nats."""
    variation: Interval
    """Total variation between their densities."""
    variation_shared: Interval
    """The same, had they the same features."""
    off: Interval
    """Total variation between one of the densities and the target."""


class Result(base.Result):
    """``result.json`` of a run on two modes; missing parts are replicates."""

    study: Literal["mixture"] = "mixture"
    cautions: list[str]
    """What keeps the run from showing what it should."""
    prior: dict[str, float]
    """``KL(p_T || pi)`` for each target, nats."""
    densities: int
    """Densities that were computed, and how many of them missed their tolerance."""
    failed: int
    stops: list[Stop]
    exponents: list[Exponent]
    terms: list[Term]
    shifted: list[Shifted]
    twins: list[Twin]

    def table(self) -> str:
        """Exponents along m = n and along n at the largest m; then the modes shift."""
        along = {DIAGONAL, Along(Varied.N, max((stop.m for stop in self.stops), default=0))}
        shown = [e for e in self.exponents if e.along in along and e.measured]
        lines = [f"{'target':9s} {'exponent':8s} {'along':16s} {'measured':>24s}   theory"]
        lines += [
            f"{e.target:9s} {e.quantity:8s} {e.along!s:16s} {_text(e.measured):>24s}   "
            f"{e.theory}: {e.answer}"
            for e in shown
        ]
        lines += [
            "",
            f"{'mu':>4s} {'weight':>6s} {'n':>8s} {'least KL':>30s} {'approximation':>13s} "
            f"{'training':>9s}",
        ]
        lines += [
            f"{s.mu:4g} {s.lighter:6g} {s.n or 'infinite':>8} {_text(s.kl):>30} "
            f"{s.approximation.value:13.2g} {s.training.value:9.2g}"
            for s in self.shifted
        ]
        return "\n".join(lines)


def _text(found: Interval | None) -> str:
    return f"{found.value:.3g} [{found.low:.3g}, {found.high:.3g}]" if found else "-"
