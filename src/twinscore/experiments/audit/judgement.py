"""The judgement of an audit: its test, its list, its rates, and the verdict with its reason."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from twinscore.analysis.audit import ranking, rates
from twinscore.analysis.audit.ballots import Ballots, largest_by_chance, strongest
from twinscore.analysis.audit.search import Near
from twinscore.analysis.redealing import REDEALINGS
from twinscore.experiments.audit.evidence import PICTURED
from twinscore.experiments.audit.pool import Units
from twinscore.experiments.audit.sensitivity import Planted, seen
from twinscore.experiments.audit.spec import COMPARE, Spec, condition
from twinscore.experiments.audit.votes import Votes, cast
from twinscore.results.audit import Dependence, Depth, Membership, Power, Seen, Verdict
from twinscore.results.base import Interval
from twinscore.runs import derive_seed

SIGNIFICANCE = 0.05
OUTSTANDING = 2
"""How many times as clearly as any decoy an image is shown where no list proves it."""


@dataclass(frozen=True, eq=False)
class Judged:
    """What the votes of an audit say.

    ``length`` is that of the list, decoys in it included; ``listed``, ``shown`` and ``decoys`` are
    ranks, from 0, in ``votes.ranking``.
    """

    votes: Votes
    dependence: Dependence
    copies: Interval
    power: Power | None
    length: int
    listed: NDArray[np.int64]
    shown: NDArray[np.int64]
    decoys: NDArray[np.int64]
    verdict: Verdict
    why: str


def judge(
    spec: Spec,
    near: Mapping[str, Near],
    units: Units,
    samples: int,
    broken: Sequence[str],
    planted: Planted | None,
    redealings: int = REDEALINGS,
) -> Judged:
    """Judge S samples by the images nearest to each, and how these were dealt.

    ``broken`` says which assumptions do not hold: there is no p then, and no list. ``planted`` is
    None without held-out images; ``redealings`` give p.
    """
    votes = cast(near, units, samples, derive_seed(spec.seed, "lots"))
    n, m = units.counts
    dealt = {"seed": spec.seed, "redealings": redealings}
    dependence = _dependence(votes, sound=not broken, control=m > 0, **dealt)
    length = 0 if broken else ranking.listed(votes.ranking, spec.q, beyond_chance(votes))
    trained = votes.ranking.trained
    listed = np.flatnonzero(trained[:length])
    shown = _shown(votes) if m else np.arange(len(votes.order))[:PICTURED]
    shown = shown[:0] if len(listed) else shown
    cut = votes.all.strength[votes.order[length - 1]] if length else np.inf
    of = _seen(spec, votes, units, samples, planted) if planted else {}
    copies = _copies(spec, votes, units, samples, float(cut), of)
    if dependence.p is None or dependence.p > SIGNIFICANCE:
        copies = copies.model_copy(update={"low": 0.0})
    else:
        high = max(copies.high, _possible(spec, votes, units, samples))
        copies = copies.model_copy(update={"high": high})
    power = None if broken else _power(spec, n, m, samples, of)
    verdict, why = _verdict(spec, broken, len(listed), len(shown), copies, dependence.p, power)
    decoys = np.flatnonzero(~trained)
    return Judged(votes, dependence, copies, power, length, listed, shown, decoys, verdict, why)


def beyond_chance(votes: Votes) -> int:
    """Units whose vote stands out further than the strongest of chance does.

    A model that learned T well may be nearer to all of T than to H without a copy: its votes are
    then those of chance, of which T has more than its part.
    """
    most = largest_by_chance(len(votes.all.strength))
    return int((votes.all.strength[votes.order] > most).sum())


def _shown(votes: Votes) -> NDArray[np.int64]:
    """Ranks, from 0, of units of T that a sample shows more clearly than any decoy is shown.

    The vote stands out ``OUTSTANDING`` times as far as any for a decoy, and its distance is smaller
    by as much than that of any vote for a decoy by a comparison of the same kind.
    """
    of, trained = votes.all, votes.ranking.trained
    nearest = np.ones(of.kind.max(initial=0) + 1)
    np.minimum.at(nearest, of.kind[~votes.trained], of.distance[~votes.trained])
    strength, kind = of.strength[votes.order], of.kind[votes.order]
    chance = largest_by_chance(len(of.strength))
    far = strength > OUTSTANDING * strength[~trained].max(initial=chance)
    near = OUTSTANDING * of.distance[votes.order] < nearest[kind]
    return np.flatnonzero(trained & far & near)


def _verdict(
    spec: Spec,
    broken: Sequence[str],
    listed: int,
    shown: int,
    copies: Interval,
    p: float | None,
    power: Power | None,
) -> tuple[Verdict, str]:
    """The verdict and why; the first that applies (docs/audit.md#the-verdict)."""
    if power is None:
        return "not testable", "; ".join(broken)
    if listed:
        return "copies", (
            f"{listed:,} training images are listed at a false-discovery rate of {spec.q:g}"
        )
    if shown:
        return "copies shown, not provable", (
            f"{shown:,} training images are shown more than twice as clearly as any held-out "
            f"image; a list needs {power.for_list:,}"
        )
    if power.rate > 1:
        return "inconclusive", (
            f"a list needs {power.for_list:,} copied images, more than there are samples; give "
            "more samples, or more held-out images"
        )
    if not any(kind.covered for kind in power.seen.values()):
        return "inconclusive", (
            "of copies that were planted on purpose too few are seen, of any kind; give images "
            "with more contrast or detail, or compare at a larger --side"
        )
    if copies.high > spec.most:
        return "inconclusive", (
            f"up to {100 * copies.high:.1f} % of the samples may be copies, more than "
            f"{100 * spec.most:g} %; give more samples"
        )
    depends = p is not None and p <= SIGNIFICANCE
    also = f"; yet samples depend on the training set, p = {p:.2g}" if depends else ""
    return "no copies shown", (
        f"at most {100 * copies.high:.1f} % of the samples are copies, of the kinds that can be "
        f"seen{also}"
    )


def failed(
    asked: str | None,
    copies: Interval,
    p: float | None,
    listed: int,
    more: float | None,
    membership: Membership | None,
) -> str | None:
    """The condition of ``--fail-if``, if it is met; what is not known meets none."""
    if asked is None:
        return None
    name, sign, number = condition(asked)
    known: dict[str, float | None] = {
        "dependence.p": p,
        "listed": float(listed),
        "extractable": more,
    }
    known |= {f"copies.{end}": getattr(copies, end) for end in ("low", "value", "high")}
    if membership:
        own = {"p": membership.p, "auc.low": membership.auc.low, "at_risk": membership.at_risk}
        known |= {f"membership.{of}": number for of, number in own.items()}
    value = known.get(name)
    return asked if value is not None and COMPARE[sign](value, number) else None


def _dependence(
    votes: Votes, *, sound: bool, control: bool, seed: int, redealings: int
) -> Dependence:
    if not control:
        return Dependence(p=None, by_depth=[])
    own = {"seed": derive_seed(seed, "deals"), "redealings": redealings}
    found = ranking.dependence(votes.by_kind, **own)
    names = ("kind", "depth", "trained", "p")
    rows = [Depth(**dict(zip(names, row, strict=True))) for row in found.by_depth]
    return Dependence(p=found.p if sound else None, by_depth=rows)


def _seen(
    spec: Spec, votes: Votes, units: Units, samples: int, planted: Planted
) -> dict[str, Seen]:
    """What is seen of planted copies, as far as it stands out further than decoys and chance."""
    strength, trained = (of[votes.best] for of in (votes.all.strength, votes.trained))
    least = strength[~trained].max(initial=largest_by_chance(len(votes.all.strength)))
    above = int((strength[trained] > least).sum())
    own = {"above": above, "samples": samples, "seed": derive_seed(spec.seed, "lots")}
    return seen(planted, units, least=float(least), **own)


def _copies(
    spec: Spec, votes: Votes, units: Units, samples: int, cut: float, of: Mapping[str, Seen]
) -> Interval:
    """The share of samples; nothing is known of it without held-out images.

    Its high end is that of every kind of copy which is surely seen.
    """
    if not units.counts[1]:
        return Interval(value=0, low=0, high=1)
    bound = max((kind.high for kind in of.values() if kind.covered), default=1.0)
    best = votes.all.of(votes.best)
    value, low, high = _rate(spec, best, units, samples, cut, bound)
    how = {"method": "bootstrap", "covers": "samples and images"}
    return Interval(value=value, low=low, high=high, **how)


def _possible(spec: Spec, votes: Votes, units: Units, samples: int) -> float:
    """Where samples depend on T: how many may be copies that are no nearer than chance.

    The high end of all votes of whole images, weak ones too: noise, blur and compression leave
    the whole.
    """
    whole = votes.all.of(votes.all.kind == 0)
    best = strongest(whole, whole.sample, samples, spec.seed)
    found = _rate(spec, whole.of(best[best >= 0]), units, samples, -np.inf, 0.0)
    return found[2]


def _rate(
    spec: Spec, best: Ballots, units: Units, samples: int, cut: float, bound: float
) -> tuple[float, float, float]:
    unit, seed = units.of[best.image], derive_seed(spec.seed, "copies")
    own = {"cut": cut, "bound": bound, "seed": seed}
    return rates.copy_rate(best, units.trained[unit], unit, *units.counts, samples, **own)


def _power(spec: Spec, n: int, m: int, samples: int, of: dict[str, Seen]) -> Power:
    found = ranking.power(n, m, spec.q)
    return Power(**vars(found), rate=found.for_list / samples, seen=of)
