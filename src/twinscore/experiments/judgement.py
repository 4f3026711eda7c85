"""From the samples of twins at one N to the verdict: memory, agreement, copies, learning."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from twinscore.analysis import agreement, coin_toss, copies, learned, similarity, verdict
from twinscore.analysis.coin_toss import Deal, Toss, halves
from twinscore.analysis.neighbours import SIMILARITIES, votes
from twinscore.analysis.redealing import Redealt
from twinscore.analysis.statistics import Estimate, bounds, difference
from twinscore.analysis.verdict import Evidence, Thresholds
from twinscore.experiments.intervals import found_by
from twinscore.images import Twins
from twinscore.results.base import Interval
from twinscore.results.transition import Learned, Likeness, Memorisation, PerTwin
from twinscore.runs import derive_seed
from twinscore.training.history import SIGMAS

UNKNOWN = Interval(value=0, low=0, high=1)


@dataclass(frozen=True, eq=False)
class Standard:
    """What twins are judged by.

    Attributes
    ----------
    thresholds : Thresholds
        Of the study.
    deal : callable
        ``deal(split) -> Deal``: how the images of A and of B, in this order, were dealt.
    untestable : str
        Why the deal tells nothing of memory; empty if it does.
    baseline : array, optional
        (R, K, T): PSNR of the Gaussian baseline on the test images, at ``SIGMAS``.
    """

    thresholds: Thresholds = field(default_factory=Thresholds)
    deal: Callable[[Twins], Deal] = lambda split: halves(len(split.a))
    untestable: str = ""
    baseline: NDArray | None = None


@dataclass(frozen=True, eq=False)
class Drawn:
    """What is judged, of R replicates.

    Attributes
    ----------
    samples, training : sequence of (Tensor, Tensor)
        For each replicate those of A and of B: (S, C, H, W) from the same noise, black where the
        path was lost, and (N, C, H, W).
    splits : sequence of Twins
        Their indices.
    held_out : Tensor
        (T, C, H, W).
    psnr : array
        (R, K, T): of the test images at ``SIGMAS``, averaged over the twins.
    """

    samples: Sequence[tuple[Tensor, Tensor]]
    training: Sequence[tuple[Tensor, Tensor]]
    splits: Sequence[Twins]
    held_out: Tensor
    psnr: NDArray

    @property
    def finished(self) -> list[NDArray[np.bool_]]:
        """Which samples of A and B were drawn to the end, (2, S), for each replicate."""
        return [np.stack([x.flatten(1).any(1).numpy() for x in pair]) for pair in self.samples]


def judge(drawn: Drawn, standard: Standard, seed: int) -> tuple[dict[str, object], list[Toss]]:
    """Fields of a :class:`~twinscore.results.transition.Level`, and the votes by pixels.

    Parameters
    ----------
    drawn : Drawn
        Samples and images.
    standard : Standard
        What they are judged by.
    seed : int
        Of deals and bootstraps.
    """
    limits, replicates = standard.thresholds, len(drawn.samples)
    by_similarity = [_tosses(drawn, standard, name) for name in SIMILARITIES]
    index = coin_toss.memorisation(by_similarity[0], seed=seed)
    dealt = None if standard.untestable else coin_toss.redealt(by_similarity, seed=seed)
    memory = _memorisation(index, dealt, limits, replicates)
    both = _agreement(drawn, seed)
    agrees = excess = alike = None
    if both is not None:
        agrees = _interval(both, (-np.inf, 1), "samples", replicates)
        excess = _interval(difference(both, index), (-np.inf, 2), "samples and images", replicates)
        alike = _alike(drawn)
    grouped = any(toss.deal.grouped for toss in by_similarity[0])
    rates = _copies(drawn, grouped)
    found = _learned(drawn, standard, seed)
    evidence = Evidence(
        memorisation=memory,
        p=memory.p,
        copies=(rates.a, rates.b),
        agreement=agrees or UNKNOWN,
        not_learned=found.why,
        others=min(memory.others.values(), default=None),
        untestable=standard.untestable,
        grouped=grouped,
    )
    word, why = verdict.verdict(evidence, limits)
    fields = {
        "verdict": word,
        "why": why,
        "memorisation": memory,
        "agreement": agrees,
        "alike": alike,
        "excess": excess,
        "copies": rates,
        "learned": found,
    }
    if word == "transition" and replicates == 1 and verdict.undecided(evidence, limits):
        fields["warnings"] = [_needed(evidence, limits, len(drawn.samples[0][0]))]
    return fields, by_similarity[0]


def _tosses(drawn: Drawn, standard: Standard, name: str) -> list[Toss]:
    """The votes of each replicate, by a similarity."""
    return [
        Toss(standard.deal(split), [votes(x, torch.cat(known), name) for x in pair])
        for pair, known, split in zip(drawn.samples, drawn.training, drawn.splits, strict=True)
    ]


def _interval(
    estimate: Estimate, within: tuple[float, float], covers: str, replicates: int
) -> Interval:
    value, low, high = bounds(estimate, within)
    return Interval(value=value, low=low, high=high, **_found_by(replicates, covers))


def _found_by(replicates: int, covers: str) -> dict[str, str]:
    return found_by(replicates) if replicates > 1 else found_by(1) | {"covers": covers}


def _memorisation(
    index: Estimate, dealt: Redealt | None, limits: Thresholds, replicates: int
) -> Memorisation:
    small = dealt is not None and dealt.smallest <= limits.significance
    others = zip(list(SIMILARITIES)[1:], dealt.corrected[1:], strict=True) if small else ()
    return Memorisation(
        **_interval(index, (-1, 1), "samples and images", replicates).model_dump(),
        p=float(dealt.p[0]) if small else None,
        others={name: float(p) for name, p in others},
    )


def _agreement(drawn: Drawn, seed: int) -> Estimate | None:
    """G of the seeds whose two paths were finished; None if they are fewer than two."""
    pairs = []
    for (a, b), finished in zip(drawn.samples, drawn.finished, strict=True):
        both = torch.from_numpy(finished.all(0))
        pairs.append((a[both], b[both]))
    if min(len(a) for a, _ in pairs) < 2:
        return None
    return agreement.agreement(pairs, seed=seed)


def _alike(drawn: Drawn) -> Interval:
    """Of one replicate, or as many, with two or more such seeds each."""
    similar = [
        similarity.cosine_similarity(*pair).numpy()[finished.all(0)]
        for pair, finished in zip(drawn.samples, drawn.finished, strict=True)
    ]
    value, low, high = agreement.alike(similar)
    how = found_by(len(similar))
    how |= {"method": "Clopper-Pearson", "covers": "samples"} if len(similar) == 1 else {}
    return Interval(value=value, low=low, high=high, **how)


def _copies(drawn: Drawn, grouped: bool) -> PerTwin[Interval]:
    """Copy rates among samples whose path was finished; unknown where there is none."""
    found: tuple[list[NDArray], list[NDArray]] = ([], [])
    for pair, known, finished in zip(drawn.samples, drawn.training, drawn.finished, strict=True):
        own, other = (
            np.stack([similarity.nearest(x, half)[0] for x, half in zip(pair, order, strict=True)])
            for order in (known, known[::-1])
        )
        within = max(map(similarity.closest, known)) if grouped else -1.0
        copied = copies.copied(own, other, within)
        for side in range(2):
            found[side].append(copied[side][finished[side]])
    return PerTwin(a=_rate(found[0]), b=_rate(found[1]))


def _rate(copied: Sequence[NDArray]) -> Interval:
    if not sum(map(len, copied)):
        return UNKNOWN
    value, low, high = copies.rate(copied)
    return Interval(value=value, low=low, high=high, method="Clopper-Pearson", covers="samples")


def _learned(drawn: Drawn, standard: Standard, seed: int) -> Learned:
    """Error and samples beside held-out images."""
    limits, gain = standard.thresholds, None
    if standard.baseline is not None:
        own = {"sigmas": SIGMAS, "between": limits.gain_between}
        estimate = learned.gain(
            drawn.psnr, standard.baseline, **own, seed=derive_seed(seed, "gain")
        )
        gain = _interval(estimate, (-np.inf, np.inf), "images", len(drawn.psnr))
    complete = drawn.finished
    samples = [
        torch.cat(
            [
                pair[k][torch.from_numpy(f[k])]
                for pair, f in zip(drawn.samples, complete, strict=True)
            ]
        )
        for k in range(2)
    ]
    few = {twin: len(x) for twin, x in zip("AB", samples, strict=True) if len(x) < 2}
    if few:
        counts = " and ".join(f"{count} samples of {twin}" for twin, count in few.items())
        why = f"only {counts} were drawn to the end; try another sampler, or more of its steps"
        return Learned(passed=False, gain_db=gain, samples=None, why=why)
    of = dict(zip("AB", samples, strict=True))
    traits = {k: learned.traits(x, drawn.held_out, seed=seed) for k, x in of.items()}
    energies = {k: learned.energy(x, drawn.held_out, seed=seed) for k, x in of.items()}
    why = verdict.not_learned(gain, traits, energies, limits)
    likeness = partial(_likeness, traits, energies)
    parts = PerTwin(a=likeness("A"), b=likeness("B"))
    return Learned(passed=not why, gain_db=gain, samples=parts, why=why)


def _likeness(traits: dict, energies: dict, twin: str) -> Likeness:
    by_t, by_draws = (
        {"method": method, "covers": "samples and images"}
        for method in ("Student's t", "bootstrap")
    )
    energy = vars(energies[twin]) | by_draws
    band = energy.pop("band")
    found = {name: Interval(**vars(trait), **by_t) for name, trait in traits[twin].items()}
    return Likeness(traits=found, energy=Interval(**energy), band=band)


def _needed(evidence: Evidence, limits: Thresholds, samples: int) -> str:
    """How many samples would decide."""
    needed = verdict.samples_needed(evidence, limits, samples)
    if needed is None:
        return "no number of samples decides at the values found; try other sizes"
    return f"about {needed:,} samples of each twin would decide (--samples)"
