"""Audit samples for copies of training images, with held-out images as control."""

from statistics import median
from typing import Literal

from pydantic import Field

from twinscore.results import base, transition
from twinscore.results.base import Frozen, Interval, Window, aligned, dashed

Verdict = Literal[
    "copies", "no copies shown", "copies shown, not provable", "inconclusive", "not testable"
]


SIGNIFICANCE = 0.05

NOTHING_OUT = "no more of training than of held-out images comes out"


class Data(Frozen):
    """The sets of images: how many of each, and in how many units they were dealt.

    ``units`` are groups, near-duplicates together, or images; ``images`` those that were compared,
    of ``shape``, at ``side`` pixels. ``held_out`` is None where there is no such set.
    """

    train: str
    held_out: str | None
    samples: str
    shape: tuple[int, int, int]
    side: int
    images: tuple[int, int]
    units: tuple[int, int]
    unit: Literal["group", "image"]
    drawn: int


class Depth(Frozen):
    """Of the ``depth`` strongest units by a kind of comparison, those of the training set; its p.

    ``depth`` is None where all votes are counted rather than units.
    """

    kind: str
    depth: int | None
    trained: float
    p: float


class Dependence(Frozen):
    """Whether samples depend on the training set: p of any depth and kind, corrected for all.

    None where the deal of training and held-out images cannot be relied on.
    """

    p: float | None
    by_depth: list[Depth]


class Transform(Frozen):
    """How the sample shows the image: what it takes to lay one on the other."""

    kind: str
    place: str
    mirrored: bool = False
    down: float = 0.0
    right: float = 0.0
    zoom: float = 1.0

    def text(self) -> str:
        """In words."""
        moves = [("down", self.down), ("right", self.right)]
        parts = [
            "details" if self.kind == "details" else "",
            "" if self.place == "whole" else f"tile {self.place}",
            "mirrored" if self.mirrored else "",
            *(f"moved {100 * abs(by):.0f} % {_way(name, by)}" for name, by in moves if by),
            f"zoomed {self.zoom:.2f}" if self.zoom != 1 else "",
        ]
        return ", ".join(part for part in parts if part) or "in place"


def _way(name: str, by: float) -> str:
    return name if by > 0 else {"down": "up", "right": "left"}[name]


class Match(Frozen):
    """A unit and the sample that repeats it the most: a listed one of T, or a decoy of H.

    ``score`` is the strength of the vote, ``distance`` the distance relative to that of the other
    images near the sample; ``votes`` how many samples have their strongest vote for it.
    """

    rank: int
    image: int
    name: str
    sample: int
    sample_name: str
    score: float
    distance: float
    votes: int
    transform: Transform


class Seen(Frozen):
    """Of copies planted on purpose, by one change, the ``share`` that is seen.

    ``high``: at most this share of the samples are copies changed so. ``covered``: the lower end of
    ``share`` is at least a half, and ``copies.high`` is no smaller than ``high``.
    """

    share: Interval
    high: float
    covered: bool


class Power(Frozen):
    """What could have been seen, in distinct copied units, and by how they were changed.

    ``for_p`` and ``for_list``: from how many on, all stronger than any decoy, p can be at most 0.05
    and a list at q can begin; ``rate``: the share of samples that the latter are. ``seen``, by
    change, is empty in folders that were written before it was measured.
    """

    for_p: int
    for_list: int
    rate: float
    seen: dict[str, Seen] = Field(default_factory=dict)

    def text(self) -> str:
        """In one sentence."""
        return (
            f"power: {self.for_p} distinct copied images give p, {self.for_list} a list, "
            f"{100 * self.rate:.2g} % of the samples if each shows another"
        )

    def seen_text(self, covered: bool) -> str:
        """Kinds of copies that the upper end covers or does not, and the share that is seen."""
        return ", ".join(
            f"{name} ({100 * of.share.value:.0f} %)"
            for name, of in self.seen.items()
            if of.covered == covered
        )


class Assumption(Frozen):
    """What the test relies on: what was found, and whether it holds; None where nobody said."""

    name: str
    holds: bool | None
    found: str


class Legacy(Frozen):
    """A number that is often quoted, of the samples, and of held-out images in their place."""

    name: str
    samples: float
    held_out: float | None


class Level(Frozen):
    """At a noise level: how often a training image has the smaller error; exact p of all."""

    sigma: float
    auc: Interval
    p: float | None


class Detection(Frozen):
    """Share of training images that are told at a rate of false positives of at most ``rate``."""

    rate: float
    share: Interval


class Membership(Frozen):
    """Whether the model's errors are smaller on training images than on held-out ones.

    ``auc`` and ``detected`` are of the mean rank over all noise levels; ``p`` is that of the
    largest difference at any level, corrected for their number, and None where the deal cannot be
    relied on; ``at_risk``: how many training images are listed at the false-discovery rate.
    """

    auc: Interval
    p: float | None
    by_level: list[Level]
    detected: list[Detection]
    at_risk: int

    def text(self) -> str:
        """In one line."""
        told = "".join(
            f"; {100 * d.share.value:.0f} % told at {100 * d.rate:g} % false" for d in self.detected
        )
        p = "no p" if self.p is None else f"p = {self.p:.2g}"
        return f"AUC {self.auc.text()}, {p}, {self.at_risk:,} images at risk{told}"


class RecipeTwins(Frozen):
    """The verdict on two models that the user's recipe made of n images each (docs/verdict.md)."""

    n: int
    verdict: transition.Verdict
    why: str
    memorisation: transition.Memorisation | None
    agreement: Interval | None
    copies: transition.PerTwin[Interval] | None
    learned: transition.Learned

    def text(self) -> str:
        """In one line."""
        copies = [self.copies.a.times(100), self.copies.b.times(100)] if self.copies else []
        rates = " and ".join(rate.text(1) for rate in copies) or "-"
        return (
            f"{self.verdict} at N = {self.n:,}: M {dashed(self.memorisation)}, "
            f"G {dashed(self.agreement)}, copies {rates} %" + (f"; {self.why}" if self.why else "")
        )


class Gap(Frozen):
    """How often an error is smaller on T than on H, and exact p; None where the deal fails."""

    auc: Interval
    p: float | None

    def text(self) -> str:
        """In one line."""
        p = "no p" if self.p is None else f"p = {self.p:.2g}"
        return f"AUC {self.auc.text()}, {p}"


class Base(Frozen):
    """The model that the audited one was fine-tuned from, as a control.

    ``own``: its own errors; ``difference``: those of the audited model minus its, of every image.
    """

    model: str
    own: Gap
    difference: Gap

    def text(self) -> str:
        """In one line."""
        return f"{self.model}: {self.own.text()}; error beyond its: {self.difference.text()}"


Culprit = Literal[
    *("autoencoder", "diffusion model", "both", "neither"),
    *("autoencoder, and perhaps the diffusion model",),
]
"""What has smaller errors on T. An autoencoder that has gives T other codes than H, on which an
honest model of codes may err less too: hence *perhaps*."""


class Votes(Frozen):
    """How many samples are nearest to what stands for T, and what chance gives; p of a fair deal.

    None where the deal was not fair.
    """

    count: int
    of: int
    chance: float
    p: float | None

    def text(self) -> str:
        """In words."""
        share = 100 * self.count / max(1, self.of)
        p = "no p" if self.p is None else f"p = {self.p:.2g}"
        return f"{share:.0f} % of the samples (by chance {100 * self.chance:.0f} %), {p}"


class Autoencoder(Frozen):
    """The gap of an autoencoder's own reconstruction error, and what has a gap, it or the model.

    ``samples``: how many are nearest to the reconstruction of a training image. Of an autoencoder
    with a gap that says nothing of the diffusion model.
    """

    source: str
    gap: Gap
    culprit: Culprit | None
    samples: Votes

    def text(self) -> str:
        """In one line."""
        blamed = f"; smaller errors on training images: {self.culprit}" if self.culprit else ""
        nearest = f"; nearest to reconstructed training images: {self.samples.text()}"
        return f"reconstruction error, {self.gap.text()}{blamed}{nearest}"


class Tally(Frozen):
    """How many of the images that were tried came back, and their share."""

    count: int
    of: int
    share: Interval

    def text(self) -> str:
        """``x of n``."""
        return f"{self.count:,} of {self.of:,}"


class Trial(Frozen):
    """What was done to images of both sets alike, how many came back, and p of T against H.

    ``sigma`` is the noise level from which a path started. ``p`` is Fisher's, by itself.
    """

    way: Literal["noise", "half"]
    sigma: float
    trained: Tally
    held_out: Tally
    p: float | None

    def text(self) -> str:
        """What came back, without p."""
        start = f"from noise of σ = {self.sigma:.2g}" if self.way == "noise" else "from their half"
        return (
            f"{self.trained.text()} training images come back {start} "
            f"(held-out: {self.held_out.text()})"
        )


class Recurrence(Frozen):
    """Samples that recur: more alike than any two of as many real images.

    ``similarity`` is that of the latter; ``clusters`` of ``recurring`` samples, of ``samples``;
    ``trained`` and ``held_out``: distinct units of either set that they are nearest to.
    """

    samples: int
    similarity: float
    recurring: int
    clusters: int
    trained: int
    held_out: int
    p: float | None

    def text(self) -> str:
        """What recurs, without p."""
        if not self.clusters:
            return f"none of {self.samples:,} samples recurs"
        return (
            f"{self.recurring:,} of {self.samples:,} samples recur, in {self.clusters:,} clusters "
            f"that are nearest to {self.trained:,} training and {self.held_out:,} held-out images"
        )


class Extraction(Frozen):
    """Whether images come out of the model: samples that recur, and what was tried on both sets.

    ``p`` is the smallest of recurrence, of paths from noise (corrected for their levels) and of
    halves, times their number; None where the deal cannot be relied on. ``trials`` is empty without
    a model; ``images`` of the pool were tried, at ``evaluations`` of the model for each.
    """

    p: float | None
    recurrence: Recurrence
    trials: list[Trial]
    images: int
    evaluations: int

    @property
    def shown(self) -> bool:
        """Whether more of T comes out than chance explains."""
        return self.p is not None and self.p <= SIGNIFICANCE

    def text(self) -> str:
        """In one line: what came out of T more than of H, of paths at the level that says most."""
        noise, half = (
            [t for t in self.trials if t.p is not None and t.way == way]
            for way in ("noise", "half")
        )
        parts = [*sorted(noise, key=lambda t: t.p)[:1], *half, self.recurrence]
        said = [part.text() for part in parts if part.p is not None and part.p <= SIGNIFICANCE]
        p = "no p" if self.p is None else f"p = {self.p:.2g} for all ways together"
        return f"{', '.join(said) if self.shown else NOTHING_OUT}; {p}"


class Sign(Frozen):
    """What the model's Jacobian is at an image with noise: its trace and its effective rank.

    ``error`` is the model's there, the mean square per value.
    """

    image: int
    name: str
    trained: bool
    error: float
    trace: float
    rank: float


class Signs(Frozen):
    """Local signs at training images of the smallest error and held-out ones of about equal error.

    Information, not a test.
    """

    sigma: float
    images: list[Sign]

    def text(self) -> str:
        """In one line: medians of both sets."""
        (trace, rank), (other_trace, other_rank) = (
            [
                median(getattr(sign, what) for sign in self.images if sign.trained is trained)
                for what in ("trace", "rank")
            ]
            for trained in (True, False)
        )
        return (
            f"at σ = {self.sigma:g} the model's Jacobian has a trace of {trace:.1f} and an "
            f"effective rank of {rank:.1f} at training images of the smallest error, of "
            f"{other_trace:.1f} and {other_rank:.1f} at held-out ones of about equal error "
            "(medians, for information)"
        )


class Result(base.Result):
    """``result.json`` of an audit.

    ``listed`` are the units of the training set at a false-discovery rate of at most ``q``,
    ``shown`` those that no chance explains by their distance although they cannot be listed,
    ``decoys`` the strongest of the held-out set. ``extractable``: at least so many distinct images
    come out of twice the samples. ``recall``: of images that were moved on purpose, how many a
    shortlist finds; None where all images were compared. ``membership`` is None without a model, or
    without held-out images, ``window`` without checkpoints, ``twins`` without a recipe.
    ``extraction`` is None without held-out images, ``signs`` where the model is not differentiable.
    ``guidance`` is advice, each sentence with the number that it stands on. ``failed``: the
    condition of ``--fail-if`` that is met.
    """

    study: Literal["audit"] = "audit"
    verdict: Verdict
    why: str
    q: float
    dependence: Dependence
    copies: Interval
    listed: list[Match]
    shown: list[Match]
    decoys: list[Match]
    extractable: float | None
    power: Power | None
    assumptions: list[Assumption]
    legacy: list[Legacy]
    data: Data
    membership: Membership | None = None
    window: Window | None = None
    twins: RecipeTwins | None = None
    guidance: list[str] = Field(default_factory=list)
    base: Base | None = None
    autoencoder: Autoencoder | None = None
    extraction: Extraction | None = None
    signs: Signs | None = None
    recall: Interval | None = None
    failed: str | None = None

    @property
    def exit_code(self) -> int:
        """1 where ``--fail-if`` is met, 3 where the audit is inconclusive."""
        if self.failed:
            return 1
        return 3 if self.verdict == "inconclusive" else 0

    def _sight(self) -> list[str]:
        """What the audit could have seen."""
        if self.power is None:
            return []
        seen, other = (self.power.seen_text(covered) for covered in (True, False))
        return [
            self.power.text(),
            *([f"planted copies that are seen: {seen}"] if seen else []),
            *([f"not covered by the upper end, seen too rarely: {other}"] if other else []),
        ]

    def table(self) -> str:
        """The numbers, then the images that were found, at most ten."""
        p = self.dependence.p
        lines = [
            f"{self.data.samples}: {self.why}",
            f"dependence on the training set: p = {p:.2g}"
            if p is not None
            else "no p: " + "; ".join(a.found for a in self.assumptions if a.holds is False),
            f"copies among {self.data.drawn:,} samples: {self.copies.times(100).text(1)} %",
            *self._sight(),
            *([f"membership: {self.membership.text()}"] if self.membership else []),
            *([f"along training: {self.window.text()}"] if self.window else []),
            *([f"twins of the recipe: {self.twins.text()}"] if self.twins else []),
            *(f"advice: {sentence}" for sentence in self.guidance),
            *([f"base {self.base.text()}"] if self.base else []),
            *([f"autoencoder: {self.autoencoder.text()}"] if self.autoencoder else []),
            *([f"extraction: {self.extraction.text()}"] if self.extraction else []),
            *([f"moved images by a shortlist, recall {self.recall.text()}"] if self.recall else []),
            *([f"--fail-if {self.failed}: met"] if self.failed else []),
        ]
        found = self.listed or self.shown
        if not found:
            return "\n".join(lines)
        head = ("rank", "image", "sample", "score", "votes", "how")
        rows = [
            (f"{m.rank}", m.name, m.sample_name, f"{m.score:.1f}", f"{m.votes}", m.transform.text())
            for m in found[:10]
        ]
        more = [f"and {len(found) - 10:,} more: matches.csv"] if len(found) > 10 else []
        return "\n".join([*lines, aligned([head, *rows], left=(1, 2, 5)), *more])
