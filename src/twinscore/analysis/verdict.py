"""The verdict on twins at one N, from what was measured and the thresholds of the study."""

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field

from twinscore.analysis.copies import TAIL
from twinscore.analysis.learned import Energy, Trait
from twinscore.analysis.statistics import clopper_pearson
from twinscore.results.base import Interval
from twinscore.results.transition import Verdict


class Thresholds(BaseModel):
    """Every number that a verdict hangs on."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )

    memorises: float = Field(default=0.5, ge=-1, le=1)
    """memorises: the lower bound of M is above this; where N is too small for a p-value, that of
    both copy rates"""
    significance: float = Field(default=0.05, gt=0, lt=1)
    """largest p that counts as evidence"""
    transition: float = Field(default=0.2, ge=-1, le=1)
    """transition: the upper bound of M is at or above this"""
    copies: float = Field(default=0.05, ge=0, le=1)
    """copy rate: transition with a lower bound above this, generalises with an upper one at most"""
    agreement: float = Field(default=0.5, ge=-1, le=1)
    """generalises: the lower bound of G is above this"""
    gain_db: float = Field(default=-0.25, ge=-100, le=100)
    """learned: the lower bound of the gain over the Gaussian baseline is above this, dB"""
    gain_between: tuple[float, float] = (0.1, 0.7)
    """noise levels that the gain is averaged over"""
    factor: float = Field(default=2.0, ge=1, le=1000)
    """learned: diversity, contrast and power may be those of held-out images within this factor"""
    energy: float = Field(default=0.05, ge=0, le=1000)
    """learned: the energy distance may exceed its band by this part of the mean distance of
    held-out images"""


@dataclass(frozen=True)
class Evidence:
    """What was measured on twins at one N.

    Attributes
    ----------
    memorisation : Interval
        M.
    p : float or None
        Of M; None where so few images were dealt that it cannot be small.
    copies : tuple of Interval
        Copy rates of A and B, between one-sided bounds.
    agreement : Interval
        G.
    not_learned : str
        Which test of learning failed, and by how much; empty if none did.
    others : float or None
        Smallest p of another similarity, corrected for their number, by which M reaches the
        threshold of a transition.
    untestable : str
        Why the split tells nothing of memory; empty if it does.
    grouped : bool
        Whether the coin dealt whole groups: M is then large for twins that know their groups.
    """

    memorisation: Interval
    p: float | None
    copies: tuple[Interval, Interval]
    agreement: Interval
    not_learned: str = ""
    others: float | None = None
    untestable: str = ""
    grouped: bool = False


def verdict(e: Evidence, limits: Thresholds) -> tuple[Verdict, str]:
    """The verdict and its reason; the first that applies (docs/verdict.md)."""
    worst = max(e.copies, key=lambda rate: rate.high)
    if e.untestable:
        return "not testable", e.untestable
    m, by_copies = e.memorisation, e.p is None or e.grouped
    if by_copies and min(rate.low for rate in e.copies) > limits.memorises:
        return "memorises", f"copies of A {_share(e.copies[0])}, of B {_share(e.copies[1])}"
    shown = e.p is not None and e.p <= limits.significance
    if shown and not by_copies and m.low > limits.memorises:
        return "memorises", f"M {m.text()} with p = {e.p:.2g}"
    copying = max(e.copies, key=lambda rate: rate.low)
    copies = copying.low > limits.copies
    remembers = (shown and m.low > 0) or (copies and (shown or e.p is None))
    if e.not_learned and not remembers:
        return "has not learned", e.not_learned
    if m.high >= limits.transition:
        is_so = "is above" if m.low > limits.transition else "may reach"
        return "transition", f"M {m.text()} {is_so} {limits.transition:g}"
    if copies:
        return "transition", f"copies {_share(copying)} are more than {limits.copies:.0%}"
    if e.not_learned:
        return "has not learned", e.not_learned
    if worst.high > limits.copies:
        return "transition", f"copies {_share(worst)} may be more than {limits.copies:.0%}"
    if e.agreement.low <= limits.agreement:
        return "transition", f"G {e.agreement.text()} may be {limits.agreement:g} or less"
    if e.others is not None and e.others <= limits.significance:
        return "transition", (
            f"M is {limits.transition:g} or more by another similarity, with p = {e.others:.2g}"
        )
    return "generalises", f"M {m.text()}, G {e.agreement.text()}, copies {_share(worst)}"


def _share(rate: Interval) -> str:
    return f"{100 * rate.value:.1f}% [{100 * rate.low:.1f}, {100 * rate.high:.1f}]"


def not_learned(
    gain: Interval | None,
    traits: Mapping[str, Mapping[str, Trait]],
    energies: Mapping[str, Energy],
    limits: Thresholds,
) -> str:
    """The first test of learning that failed: its figure, and what to change; empty if none did.

    Parameters
    ----------
    gain : Interval or None
        Over the Gaussian baseline, dB; None where there are only samples.
    traits, energies : mapping
        Of the samples of each twin, by its name. A trait fails where its whole interval is beyond
        the factor: of photographs, contrasts of 128 differ by chance by half as much again.
    limits : Thresholds
        Of the study.
    """
    if gain is not None and gain.low <= limits.gain_db:
        return (
            f"the gain over the Gaussian baseline, {gain.text()} dB, may be {limits.gain_db:g} dB "
            "or less; train for more steps, or a wider network"
        )
    for twin, found in traits.items():
        for name, trait in found.items():
            if trait.high < 1 / limits.factor or trait.low > limits.factor:
                return (
                    f"{name} of {twin}'s samples is {trait.value:.2f} [{trait.low:.2f}, "
                    f"{trait.high:.2f}] times that of held-out images, not within a factor of "
                    f"{limits.factor:g}; {_ADVICE}"
                )
    for twin, energy in energies.items():
        if energy.value > energy.band + limits.energy:
            return (
                f"the energy distance of {twin}'s samples from held-out images is "
                f"{energy.value:.3f} [{energy.low:.3f}, {energy.high:.3f}], more than "
                f"{energy.band + limits.energy:.3f}; {_ADVICE}"
            )
    return ""


_ADVICE = "try another sampler or more of its steps; else train for more steps, or a wider network"


def undecided(e: Evidence, limits: Thresholds) -> bool:
    """Whether more samples could change the verdict: a threshold lies inside an interval."""
    inside = lambda at, of: of.low <= at < of.high  # noqa: E731
    m, rates = e.memorisation, e.copies
    return bool(
        any(inside(at, m) for at in (limits.memorises, limits.transition))
        or any(inside(limits.copies, rate) for rate in rates)
        or inside(limits.agreement, e.agreement)
    )


def samples_needed(e: Evidence, limits: Thresholds, samples: int, most: int = 10**6) -> int | None:
    """About how many samples each twin needs for every interval to leave its thresholds.

    At the values found. Intervals of M and G shrink as the root of the number of samples; copy
    rates are Clopper and Pearson's. None if it would take more than ``most``, or a value lies on a
    threshold.
    """
    needed = samples
    m = e.memorisation
    pairs = [(limits.memorises, m), (limits.transition, m), (limits.agreement, e.agreement)]
    for at, of in pairs:
        if of.low <= at <= of.high:
            half = of.high - of.value if at > of.value else of.value - of.low
            away = abs(at - of.value)
            needed = max(needed, samples * (half / away) ** 2 if away else most + 1)
    for rate in e.copies:
        needed = max(needed, _trials(rate.value, limits.copies, samples, most))
    return None if needed > most else int(-(-needed // 1))


def _trials(value: float, at: float, samples: int, most: int) -> float:
    """Trials from which on the bounds of a rate leave a threshold, if the rate stays."""
    if value == at:
        return most + 1
    low, high = samples, samples
    while not _leaves(value, at, high):
        low, high = high, 2 * high
        if low > most:
            return most + 1
    while high - low > max(1, low // 100):
        middle = (low + high) // 2
        low, high = (low, middle) if _leaves(value, at, middle) else (middle, high)
    return high


def _leaves(value: float, at: float, trials: int) -> bool:
    low, high = clopper_pearson(round(value * trials), trials, TAIL)
    return high <= at or low > at
