"""Train twins at several sizes: where does memorising end?"""

from typing import Any, Generic, Literal, TypeVar

from pydantic import AliasChoices, Field, model_validator

from twinscore.results import base
from twinscore.results.base import Frozen, Interval, Window, aligned, dashed

Verdict = Literal["memorises", "transition", "generalises", "has not learned", "not testable"]
T = TypeVar("T")


def _without(value: Any, *names: str) -> Any:
    """A dict without what earlier versions wrote and this one does not know."""
    return {k: v for k, v in value.items() if k not in names} if isinstance(value, dict) else value


class PerTwin(Frozen, Generic[T]):
    """The same of either twin."""

    a: T
    b: T


class Quantiles(Frozen):
    """The 5 % and 95 % quantiles of the values."""

    low: float
    high: float


class Psnr(Frozen):
    """Output PSNR in dB at each noise level: mean over images of each image's PSNR."""

    sigma: list[float]
    train: list[float]
    train_low: list[float]
    train_high: list[float]
    test: list[float]
    test_low: list[float]
    test_high: list[float]


class PsnrGap(Interval):
    """The largest difference of train and test PSNR, dB, and the noise level where it is found."""

    sigma: float


class Memorisation(Interval):
    """The memorisation index M, with p by dealing labels again (docs/verdict.md).

    ``p`` is None where the split was not dealt by a coin, or so few units were dealt that it cannot
    be small. ``others``: p by other similarities, corrected for the number of all of them.
    """

    p: float | None
    others: dict[str, float]


class Likeness(Frozen):
    """Samples of one twin beside held-out images.

    ``traits``: ratios of diversity, contrast and power; ``energy``: the energy distance, in units
    of the mean distance between held-out images, and ``band``, what 97.5 % of divisions by chance
    stay below.
    """

    traits: dict[str, Interval]
    energy: Interval
    band: float


class Learned(Frozen):
    """Whether the twins learned anything; ``why`` names the test that failed.

    ``gain_db``: over the Gaussian baseline, on held-out images; None where it was not fitted.
    ``samples``: None where fewer than two of a twin's were drawn to the end.
    """

    passed: bool
    gain_db: Interval | None
    samples: PerTwin[Likeness] | None
    why: str = ""


class Level(Frozen):
    """Everything measured at one training set size; intervals are of 95 %.

    The verdict hangs on ``memorisation``, ``agreement``, ``copies`` and ``learned``
    (docs/verdict.md); all else is information. ``alike`` is the share of noise seeds on which the
    twins' samples are more similar than 0.9; ``excess`` is agreement less memorisation, from which
    the critical N follows. Each end of the copy rates holds with 95 %. ``control_fraction`` is the
    memorised fraction, by the ratio rule, of the other twin's half, or of the controls; neither is
    defined for a single training image. Where controls are missing, the split being by attribute,
    ``memorisation``, ``excess`` and ``copies`` are None. ``unfinished_samples`` are those whose
    path was lost; they are black, vote for either half, and are left out of agreement and copies.
    Folders of before schema 3 were judged by another rule, and lack what it did not need.
    """

    n: int
    verdict: Verdict
    why: str = ""
    memorisation: Memorisation | None = None
    agreement: Interval | None = None
    alike: Interval | None = None
    excess: Interval | None = None
    copies: PerTwin[Interval] | None = None
    learned: Learned | None = None
    twin_similarity: Interval
    nearest_similarity: PerTwin[Interval]
    memorised_fraction: PerTwin[Interval | None]
    control_fraction: PerTwin[Interval | None] | None = None
    diversity: PerTwin[Interval | None]
    closest_pairs: Interval
    held_out_nearest: Interval
    held_out_quantiles: Quantiles
    unfinished_samples: PerTwin[int]
    warnings: list[str]
    psnr: Psnr
    psnr_gap: PsnrGap | None = None

    @model_validator(mode="before")
    @classmethod
    def _of_before(cls, value: Any) -> Any:
        """Take a level of before schema 3, which says whether its samples were plausible."""
        return _without(value, "plausible")


class Data(Frozen):
    """The images of the run; ``split`` is a rule (never *auto*) or the folder of the lists.

    Runs of before there was a choice have no ``split``. ``dealt_at_random``: lists declared so.
    """

    source: str
    images: int
    dropped: int
    threshold: float
    shape: tuple[int, int, int]
    test: int
    split: str | None = None
    attribute: str | None = None
    dealt_at_random: bool = False


class Harmonics(Frozen):
    """What the smallest N that memorises and the largest that generalises do to a test image."""

    sentence: str
    folder: str
    """Within the run's: a run of ``twinscore harmonics``."""


class VarianceByLevel(Frozen):
    """Variance of twins at each noise level, summed over pixels, and its interval."""

    sigma: list[float]
    variance: list[float]
    low: list[float]
    high: list[float]


class TwinsKL(Frozen):
    """How far apart what the twins of one N generate can be, nats (docs/transition.md).

    ``a_from_b`` bounds ``KL(p_A || p_B)``, for the densities with noise ``sigma_min`` that reverse
    SDEs from ``sigma_max`` on, with one start, generate; None where fewer than two samples were
    drawn to the end. ``variance`` is the share of the twins' variance in their distance from the
    optimum, on test images; ``by_level`` is its integrand times sigma^3.
    """

    n: int
    sigma_min: float
    sigma_max: float
    a_from_b: Interval | None
    b_from_a: Interval | None
    variance: Interval
    by_level: VarianceByLevel


class Along(Frozen):
    """The trainings at one N, seen along their checkpoints: of A and of B of every replicate."""

    n: int
    windows: list[Window]

    def ends(self, name: Literal["tau_gen", "tau_mem"]) -> list[int | None]:
        """A moment of every training, steps; None where it did not come."""
        turns = [getattr(of, name) for of in self.windows]
        return [turn and turn.value for turn in turns]

    def text(self) -> str:
        """In one line."""
        parts = {"quality": self.ends("tau_gen"), "memory": self.ends("tau_mem")}
        said = (
            f"{what} from step {' and '.join('–' if x is None else f'{x:,}' for x in steps)}"
            for what, steps in parts.items()
        )
        last = self.windows[0].checkpoints[-1].step
        return f"N = {self.n:,}: {', '.join(said)} of {last:,}"


class CriticalN(Frozen):
    """Where agreement overtakes memorisation: between which of the sizes tried.

    ``value`` is linear in log N between sizes; None below the smallest. An end that is None is
    open. ``lost``: it was overtaken at a smaller size, and then lost again.
    """

    value: float | None = Field(validation_alias=AliasChoices("value", "median"))
    low: float | None
    high: float | None
    lost: bool = False

    @model_validator(mode="before")
    @classmethod
    def _of_before(cls, value: Any) -> Any:
        """Take the bootstrap interval of before schema 3."""
        return _without(value, "method", "covers")

    def text(self) -> str:
        """``value [low, high]``, with ends that may be open."""
        value = "below" if self.value is None else f"{self.value:,.0f}"
        low, high = ("open" if end is None else f"{end:,.0f}" for end in (self.low, self.high))
        return f"{value} [{low}, {high}]"


class Result(base.Result):
    """``result.json`` of a transition run."""

    study: Literal["transition"] = "transition"
    critical_n: CriticalN | None
    critical_n_phrase: str
    closest_pairs: Interval
    held_out_nearest: Interval
    data: Data
    levels: list[Level]
    harmonics: Harmonics | None = None
    """None unless one N memorises and another generalises."""
    twins_kl: list[TwinsKL] = Field(default_factory=list)
    """One for each N; none until all are trained."""
    along: list[Along] = Field(default_factory=list)
    """One for each N, where checkpoints were kept."""

    @property
    def beyond(self) -> Literal["below", "above"] | None:
        """On which side of the sizes tried the critical N lies, where that is known."""
        if self.critical_n:
            return "below" if self.critical_n.value is None else None
        last = self.levels[-1].excess
        return "above" if last and last.high < 0 else None

    def table(self) -> str:
        """A row for each level, with reasons, what to beware of, and the harmonics below."""
        head = ("N", "verdict", "M", "p", "G", "copies A %", "copies B %", "gain dB")
        below = [f"N = {x.n:,}: {x.verdict}: {x.why}" for x in self.levels if x.why]
        below += [warning for level in self.levels for warning in level.warnings]
        below += [self.harmonics.sentence] if self.harmonics else []
        below += [along.text() for along in self.along]
        return "\n".join([aligned([head, *map(_row, self.levels)], left=(1,)), *below])


def _row(level: Level) -> tuple[str, ...]:
    m, copies = level.memorisation, level.copies
    rates = [copies.a.times(100), copies.b.times(100)] if copies else [None, None]
    return (
        f"{level.n:,}",
        level.verdict,
        dashed(m),
        "-" if m is None or m.p is None else f"{m.p:.2g}",
        dashed(level.agreement),
        *(dashed(rate, 1) for rate in rates),
        dashed(level.learned.gain_db if level.learned else None),
    )
