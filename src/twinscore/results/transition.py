"""Train twins at several sizes: where does memorising end?"""

from typing import Generic, Literal, TypeVar

from twinscore.results import base
from twinscore.results.base import Frozen, Interval, aligned

Verdict = Literal["memorises", "transition", "generalises"]
T = TypeVar("T")


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


class Level(Frozen):
    """Everything measured at one training set size; intervals are bootstrapped (95 %).

    ``memorised_fraction`` is not defined for a single training image. ``unfinished_samples`` are
    those whose path was lost; they are black.
    """

    n: int
    verdict: Verdict
    twin_similarity: Interval
    nearest_similarity: PerTwin[Interval]
    memorised_fraction: PerTwin[Interval | None]
    diversity: PerTwin[Interval | None]
    closest_pairs: Interval
    held_out_nearest: Interval
    held_out_quantiles: Quantiles
    plausible: bool
    unfinished_samples: PerTwin[int]
    warnings: list[str]
    psnr: Psnr

    @property
    def gap(self) -> float:
        """How much more alike the twins are than samples and training images, in the median."""
        nearest = self.nearest_similarity
        return self.twin_similarity.value - max(nearest.a.value, nearest.b.value)


class Data(Frozen):
    """The images of the run; ``split`` is a rule (never *auto*) or the folder of the lists.

    Runs of before there was a choice have no ``split``.
    """

    source: str
    images: int
    dropped: int
    threshold: float
    shape: tuple[int, int, int]
    test: int
    split: str | None = None
    attribute: str | None = None


class Harmonics(Frozen):
    """What the smallest N that memorises and the largest that generalises do to a test image."""

    sentence: str
    folder: str
    """Within the run's: a run of ``twinscore harmonics``."""


class Result(base.Result):
    """``result.json`` of a transition run."""

    study: Literal["transition"] = "transition"
    critical_n: Interval | None
    critical_n_phrase: str
    closest_pairs: Interval
    held_out_nearest: Interval
    data: Data
    levels: list[Level]
    harmonics: Harmonics | None = None
    """None unless one N memorises and another generalises."""

    @property
    def beyond(self) -> Literal["below", "above"] | None:
        """On which side of the sizes tried the critical N lies, if not among them."""
        if self.critical_n:
            return None
        last = self.levels[-1]
        return "below" if last.plausible and last.gap > 0 else "above"

    def table(self) -> str:
        """A row for each level, with what to beware of and the harmonics below."""
        head = ("N", "verdict", "twin similarity", "nearest A", "nearest B", "memorised", "gap dB")
        below = [warning for level in self.levels for warning in level.warnings]
        below += [self.harmonics.sentence] if self.harmonics else []
        return "\n".join([aligned([head, *map(_row, self.levels)], left=(1,)), *below])


def _row(level: Level) -> tuple[str, ...]:
    near, copied = level.nearest_similarity, level.memorised_fraction
    medians = (level.twin_similarity, near.a, near.b)
    copies = [f"{100 * fraction.value:.0f}%" for fraction in (copied.a, copied.b) if fraction]
    gap = max(a - b for a, b in zip(level.psnr.train, level.psnr.test, strict=True))
    return (
        f"{level.n:,}",
        level.verdict,
        *(m.text(3) for m in medians),
        " / ".join(copies) or "-",
        f"{gap:.2f}",
    )
