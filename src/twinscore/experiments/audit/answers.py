"""The answer of an audit, and its reason."""

import numpy as np
from numpy.typing import NDArray

from twinscore.experiments.audit.spec import COMPARE, Spec, condition
from twinscore.experiments.audit.votes import Votes
from twinscore.results.audit import Assumption, Match, Power, Verdict
from twinscore.results.base import Interval

SIGNIFICANCE = 0.05
CLOSER = 0.5
"""A match is shown where its distance is below this part of the smallest distance of a decoy."""


def shown(votes: Votes) -> NDArray[np.int64]:
    """Ranks of units of T that are nearer to a sample than chance explains, from 0.

    Their distance, relative to that of the other images near the sample, is less than half of the
    smallest one of any decoy by a comparison of the same kind.
    """
    of = votes.all
    nearest = np.full(of.kind.max(initial=0) + 1, np.inf)
    np.minimum.at(nearest, of.kind[~votes.trained], of.distance[~votes.trained])
    rows = votes.order
    close = of.distance[rows] < CLOSER * nearest[of.kind[rows]]
    return np.flatnonzero(votes.trained[rows] & close & np.isfinite(nearest[of.kind[rows]]))


def answer(
    *,
    broken: list[Assumption],
    listed: int,
    shown: int,
    copies: Interval,
    p: float | None,
    power: Power | None,
    spec: Spec,
    samples: int,
) -> tuple[Verdict, str]:
    """The answer and why; the first that applies (docs/verdict.md#an-audit)."""
    if power is None:
        why = "; ".join(a.found for a in broken) or "there are no held-out images"
        return "not testable", why
    if listed:
        return "copies", (
            f"{listed:,} training images are listed at a false-discovery rate of {spec.q:g}"
        )
    if shown:
        return "copies shown, not provable", (
            f"{shown:,} training images are nearer to a sample than any held-out one is to any, "
            f"by more than half; a list needs {power.for_list:,}"
        )
    if power.rate > 1:
        return "inconclusive", (
            f"a list needs {power.for_list:,} copied images, and there are {samples:,} samples; "
            "give more samples, or more held-out images"
        )
    if copies.high > spec.most:
        return "inconclusive", (
            f"up to {100 * copies.high:.1f} % of the samples may be copies, more than "
            f"{100 * spec.most:g} %; give more samples"
        )
    depends = p is not None and p <= SIGNIFICANCE
    also = f"; yet samples depend on the training set, p = {p:.2g}" if depends else ""
    return "no copies shown", f"at most {100 * copies.high:.1f} % of the samples are copies{also}"


def sentence(spec: Spec, word: Verdict, why: str) -> str:
    """The answer in one sentence."""
    return f"{spec.samples}: {word}: {why}."


def failed(
    spec: Spec, copies: Interval, p: float | None, listed: list[Match], more: float | None
) -> str | None:
    """The condition of ``--fail-if``, if it is met; what is not known meets none."""
    if spec.fail_if is None:
        return None
    name, sign, number = condition(spec.fail_if)
    known = {"dependence.p": p, "listed": float(len(listed)), "extractable": more}
    known |= {f"copies.{end}": getattr(copies, end) for end in ("low", "value", "high")}
    value = known[name]
    return spec.fail_if if value is not None and COMPARE[sign](value, number) else None
