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
        ``deal(split) -> Deal``: how the images of A and of B, in this order, were dealt; where
        there are controls, those of each after its own.
    untestable : callable
        ``untestable(split) -> str``: why the deal tells nothing of memory; empty if it does.
    baseline : array, optional
        (R, K, T): PSNR of the Gaussian baseline on the test images, at ``SIGMAS``.
    kinds : array, optional
        Of every image, bool: whether it is of A's kind; None where A and B are of one.
    """

    thresholds: Thresholds = field(default_factory=Thresholds)
    deal: Callable[[Twins], Deal] = lambda split: halves(len(split.a))
    untestable: Callable[[Twins], str] = lambda split: ""
    baseline: NDArray | None = None
    kinds: NDArray[np.bool_] | None = None


@dataclass(frozen=True, eq=False)
class Drawn:
    """What is judged, of R replicates.

    Attributes
    ----------
    samples, training, controls : sequence of (Tensor, Tensor)
        For each replicate those of A and of B: (S, C, H, W) from the same noise, black where the
        path was lost; (N, C, H, W); and as many that each was not trained on: the other's half, or
        control sets of its kind, which are smaller where the images do not suffice.
    splits : sequence of Twins
        Their indices.
    held_out : (Tensor, Tensor)
        (T, C, H, W) for each twin, of its kind.
    psnr : array
        (R, K, T): of the test images at ``SIGMAS``, averaged over the twins that know their kind.
    """

    samples: Sequence[tuple[Tensor, Tensor]]
    training: Sequence[tuple[Tensor, Tensor]]
    controls: Sequence[tuple[Tensor, Tensor]]
    splits: Sequence[Twins]
    held_out: tuple[Tensor, Tensor]
    psnr: NDArray

    @property
    def finished(self) -> list[NDArray[np.bool_]]:
        """Which samples of A and B were drawn to the end, (2, S), for each replicate."""
        return [np.stack([x.flatten(1).any(1).numpy() for x in pair]) for pair in self.samples]

    @property
    def controlled(self) -> bool:
        """Whether there are as many controls as training images."""
        both = zip(self.training, self.controls, strict=True)
        return all(list(map(len, own)) == list(map(len, other)) for own, other in both)


def judge(drawn: Drawn, standard: Standard, seed: int) -> tuple[dict[str, object], list[Toss]]:
    """Fields of a :class:`~twinscore.results.transition.Level`, and the votes by pixels.

    Without enough controls nothing is known of memory, and nobody votes.

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
    untestable = standard.untestable(drawn.splits[0])
    both = _agreement(drawn, seed)
    agrees = excess = alike = None
    if both is not None:
        agrees = _interval(both, (-np.inf, 1), "samples", replicates)
        alike = _alike(drawn)
    found = _learned(drawn, standard, seed)
    fields = {"agreement": agrees, "alike": alike, "learned": found}
    if not drawn.controlled:
        return fields | {"verdict": "not testable", "why": untestable}, []
    by_similarity = [_tosses(drawn, standard, name) for name in SIMILARITIES]
    index = coin_toss.memorisation(by_similarity[0], seed=seed)
    dealt = None if untestable else coin_toss.redealt(by_similarity, seed=seed)
    memory = _memorisation(index, dealt, limits, replicates)
    if both is not None:
        excess = _interval(difference(both, index), (-np.inf, 2), "samples and images", replicates)
    grouped = any(toss.deal.grouped for toss in by_similarity[0])
    rates = _copies(drawn, alone=memory.p is None, grouped=grouped)
    evidence = Evidence(
        memorisation=memory,
        p=memory.p,
        copies=(rates.a, rates.b),
        agreement=agrees or UNKNOWN,
        not_learned=found.why,
        others=_other_memory(memory, dealt, limits),
        untestable=untestable,
        grouped=grouped,
    )
    word, why = verdict.verdict(evidence, limits)
    if dealt and memory.p is None:
        why += f"; no p, since only {dealt.deals} deals are possible"
    fields |= {"verdict": word, "why": why}
    fields |= {"memorisation": memory, "excess": excess, "copies": rates}
    if word == "transition" and replicates == 1 and verdict.undecided(evidence, limits):
        fields["warnings"] = [_needed(evidence, limits, len(drawn.samples[0][0]))]
    return fields, by_similarity[0]


def _other_memory(memory: Memorisation, dealt: Redealt | None, limits: Thresholds) -> float | None:
    """Smallest p of another similarity by which M is as large as a transition takes."""
    found = zip(memory.others.values(), dealt.observed[1:] if dealt else (), strict=False)
    return min((p for p, m in found if m >= limits.transition), default=None)


def _tosses(drawn: Drawn, standard: Standard, name: str) -> list[Toss]:
    """The votes of each replicate, by a similarity, of a twin with controls among its kind."""
    tosses = []
    parts = drawn.samples, drawn.training, drawn.controls, drawn.splits
    for pair, known, controls, split in zip(*parts, strict=True):
        deal, signs = standard.deal(split), (1, -1)
        if split.controls:
            signs, images = (1, 1), len(deal.labels)
            of_kind = [torch.cat(kind) for kind in zip(known, controls, strict=True)]
            cast = [
                votes(x, kind, name).moved(by, images)
                for x, kind, by in zip(pair, of_kind, (0, len(of_kind[0])), strict=True)
            ]
        else:
            cast = [votes(x, torch.cat(known), name) for x in pair]
        tosses.append(Toss(deal, cast, signs))
    return tosses


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


def _copies(drawn: Drawn, *, alone: bool, grouped: bool) -> PerTwin[Interval]:
    """Copy rates among samples whose path was finished; unknown where there is none.

    Where they stand alone, without a p of M, held-out images are controls too.
    """
    found: tuple[list[NDArray], list[NDArray]] = ([], [])
    each = drawn.samples, drawn.training, drawn.controls, drawn.finished
    for pair, known, controls, finished in zip(*each, strict=True):
        both = zip(controls, drawn.held_out, strict=True)
        unseen = [torch.cat(parts) for parts in both] if alone else controls
        own, other = (
            np.stack([similarity.nearest(x, part)[0] for x, part in zip(pair, of, strict=True)])
            for of in (known, unseen)
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
    of = dict(zip("AB", zip(samples, drawn.held_out, strict=True), strict=True))
    traits = {k: learned.traits(*both, seed=seed) for k, both in of.items()}
    energies = {k: learned.energy(*both, seed=seed) for k, both in of.items()}
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
