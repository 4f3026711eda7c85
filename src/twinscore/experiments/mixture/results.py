"""The numbers of ``result.json`` of the early-stopping study, and its tables as text."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, computed_field

from twinscore import runs


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class Number(_Part):
    """A value and its 95 % interval over replicates: Student's t over the jackknife.

    Of positive quantities, and of training times, by the logarithm.
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]"


class Stop(_Part):
    """Where KL is least along training."""

    target: str
    n: int | None
    """None for infinitely many."""
    m: int
    tau: Number
    """Training time of least KL, in units of m, between those of the sweep; the interval cut at the
    ends of its range."""
    kl: Number
    """The least KL of the mean over replicates, nats."""
    floor: Number
    """The same for infinitely many samples: mostly the value at the last training time."""
    last: float | None
    """KL at the last training time; None where it did not reach its tolerance."""
    inside: bool
    """Whether the minimum lies inside the range of training times."""
    left_out: int
    """Training times without a result: too few replicates reached their tolerance."""


class Exponent(_Part):
    """A fitted power law beside the theory's."""

    target: str
    quantity: str
    along: str
    measured: Number | None
    """None with fewer than 3 settings to fit."""
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
        """How the interval lies to it; an upper bound allows whatever falls faster."""
        if self.measured is None:
            return "too few settings"
        if self.predicted is None:
            return "no degree given"
        if self.measured.low > max(self.predicted):
            return "larger" if self.kind == "equal" else "slower than the bound's"
        below = self.measured.high < min(self.predicted)
        return "smaller" if below and self.kind == "equal" else "compatible"


class Learned(_Part):
    """When a mode is learned: training time, in units of m, from which on it is there.

    Half of its mass or more lies near it, and the density there rises above the one halfway between
    the modes. Over replicates. A density that missed its tolerance has no mode.
    """

    median: float
    first: float
    last: float | None
    """None where a replicate lacks the mode at the end."""


class Shifted(_Part):
    """A mixture of two modes, learned from n samples or infinitely many."""

    mu: float
    lighter: float
    """Weight of the mode at mu."""
    n: int | None
    tau: float | None
    """Training time of least KL, in units of m; None if no time has a result."""
    kl: Number | None
    left_out: int
    learned_at: tuple[Learned | None, Learned | None] | None
    """When the mode at -mu, and at mu, is there for good; None where half of the replicates or more
    lack it at the end. None altogether for modes so near that the target has one peak."""
    approximation: Number
    """Error of the score that no coefficients can avoid, nats of the bound; for every n."""
    training: Number
    """What infinitely many samples still lack at the last training time, nats of the bound."""
    prior: float
    """``KL(p_T || pi)``, nats."""


class Twin(_Part):
    """Models of two training sets of n samples, stopped where KL is least."""

    n: int
    tau: float
    variance: Number
    """Half the mean squared distance of their scores, nats of the bound."""
    error: Number
    """Mean squared distance from the target's score, mean of the two, nats."""
    variation: Number
    """Total variation between their densities."""
    variation_shared: Number
    """The same, had they the same features."""
    off: Number
    """Total variation between one of the densities and the target."""


class Result(_Part):
    """What ``result.json`` holds."""

    schema_version: int = runs.SCHEMA_VERSION
    study: Literal["mixture"] = "mixture"
    verdict: str
    cautions: list[str]
    """What keeps the run from showing what it should."""
    prior: dict[str, float]
    """``KL(p_T || pi)`` for each target, nats."""
    densities: int
    """Densities that were computed, and how many of them missed their tolerance."""
    failed: int
    stops: list[Stop]
    exponents: list[Exponent]
    terms: list[Exponent]
    shifted: list[Shifted]
    twins: list[Twin]

    def table(self) -> str:
        """Exponents along m = n and along n at the largest m; then the modes shift."""
        along = {"m = n", f"n, at m = {max((stop.m for stop in self.stops), default=0)}"}
        shown = [e for e in self.exponents if e.along in along and e.measured]
        lines = [f"{'target':9s} {'exponent':8s} {'along':16s} {'measured':>24s}   theory"]
        lines += [
            f"{e.target:9s} {e.quantity:8s} {e.along:16s} {e.measured!s:>24s}   "
            f"{e.theory}: {e.answer}"
            for e in shown
        ]
        lines += [
            "",
            f"{'mu':>4s} {'weight':>6s} {'n':>8s} {'least KL':>30s} {'approximation':>13s} "
            f"{'training':>9s}",
        ]
        lines += [
            f"{s.mu:4g} {s.lighter:6g} {s.n or 'infinite':>8} {s.kl or '-'!s:>30} "
            f"{s.approximation.value:13.2g} {s.training.value:9.2g}"
            for s in self.shifted
        ]
        return "\n".join(lines)
