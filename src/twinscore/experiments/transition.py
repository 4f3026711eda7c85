"""The transition from memorisation to generalisation ([GAHB] section 2.2): twins at several N."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any, Self, get_args

import numpy as np
from pydantic import Field, field_validator, model_validator

from twinscore import images as image_sets
from twinscore import runs
from twinscore.analysis import critical
from twinscore.analysis.verdict import Thresholds
from twinscore.denoisers import NetworkSpec
from twinscore.execution import Report
from twinscore.experiments import (
    checkpoints,
    chosen_split,
    comparison,
    divergence,
    standards,
    twins,
)
from twinscore.experiments.estimates import Needs, sampling_needs
from twinscore.experiments.extremes import add_harmonics
from twinscore.experiments.study import Arrays, Pool, Summary, csv_text, of_trials, write_images
from twinscore.experiments.trials import Trial, distinct, open_images, require_trained_level
from twinscore.images import ImageSet, Twins
from twinscore.limits import (
    MOST_CHECKPOINTS,
    MOST_IMAGES,
    MOST_REPLICATES,
    MOST_SAMPLES,
    Listed,
    Seed,
)
from twinscore.results.base import Settings
from twinscore.results.transition import CriticalN, Data, Level, Result, Verdict
from twinscore.sampling import SamplingSpec
from twinscore.sampling.spec import evaluations
from twinscore.training import TrainingSpec, memory
from twinscore.training.history import SIGMAS


class Growing(Settings):
    """Twins on growing subsets, and their samples."""

    data: str = "digits"
    """Images: a name (digits), a path, or kind:body, then ,key=value (docs/images.md)."""
    sizes: Listed[Annotated[int, Field(ge=1, le=MOST_IMAGES)]] = (10, 100, 500)
    """Training set sizes N; each trains two twins on disjoint subsets."""
    test: int = Field(default=128, ge=2, le=MOST_IMAGES)
    """Held-out test images, the same for every N."""
    samples: int = Field(default=256, ge=2, le=MOST_SAMPLES)
    """Samples drawn from each twin, from shared noise."""
    replicates: int = Field(default=1, ge=1, le=MOST_REPLICATES)
    """Times to repeat with other splits and seeds; with 1, intervals cover samples only."""
    split: str = "auto"
    """How A, B and test set are told apart: random, group (no person or photograph in two of
    them), label (the same share of each), attribute (A has it, B has not), auto (by group where
    there are groups, else random), or a folder with a.txt, b.txt and test.txt."""
    attribute: str | None = None
    """For split attribute: its name, or a label."""
    dealt_at_random: bool = False
    """For split FOLDER: a.txt and b.txt were dealt at random, so that memory can be tested."""
    duplicate_threshold: float = Field(default=0.95, gt=0, le=1)
    """Drop an image whose correlation with an earlier one exceeds this; 1 drops none."""
    seed: Seed = 0
    """Seed of splits, weights, noise and samples."""
    network: NetworkSpec = NetworkSpec()
    """The denoiser."""
    training: TrainingSpec = TrainingSpec()
    """How it is trained."""
    sampling: SamplingSpec = SamplingSpec()
    """How samples are drawn."""
    thresholds: Thresholds = Thresholds()
    """What the verdict hangs on; a finished run may be judged by others."""

    @field_validator("sizes")
    @classmethod
    def _sizes(cls, sizes: tuple[int, ...]) -> tuple[int, ...]:
        if not sizes:
            raise ValueError("give one or more sizes of at least 1, got []")
        return tuple(sorted(set(sizes)))

    @model_validator(mode="after")
    def _levels(self) -> Self:
        low, high = self.thresholds.gain_between
        if not any(low <= sigma <= high for sigma in SIGMAS):
            measured = ", ".join(f"{sigma:g}" for sigma in SIGMAS)
            raise ValueError(
                f"thresholds.gain_between {low:g} to {high:g} holds none of the noise levels that "
                f"are measured; give a range with one of {measured}"
            )
        return self

    @model_validator(mode="after")
    def _start(self) -> Self:
        require_trained_level(self.network, self.training, self.sampling)
        return self

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.split == "attribute" and self.attribute is None:
            raise ValueError("split attribute needs the name of one; give --attribute NAME")
        if self.split == "attribute" and self.test < 4:
            raise ValueError(
                f"test {self.test} is too few for split attribute, which holds images of two kinds "
                "out; give 4 or more"
            )
        if self.split != "attribute" and self.attribute is not None:
            raise ValueError(
                f"attribute {self.attribute!r} needs split attribute, not {self.split!r}"
            )
        if self.split in image_sets.BY and self.dealt_at_random:
            raise ValueError(
                f"dealt_at_random is for lists in a folder; split {self.split!r} is a rule, which "
                "says itself how images are dealt; leave it out"
            )
        if self.split not in image_sets.BY and self.replicates > 1:
            raise ValueError(
                f"split {self.split!r} is a folder with one split; give replicates 1, "
                f"not {self.replicates}"
            )
        return self

    @property
    def compared(self) -> str:
        """The images among which near-duplicates are looked for."""
        return self.data


class Spec(Growing):
    """Twins on growing subsets, their samples, and where they stop memorising."""

    refine: float | None = Field(default=None, gt=1, le=1000)
    """Add sizes, one after another, between the ends of the critical N until the ratio of those
    ends is at most this; each trains two more twins."""
    checkpoints: int | None = Field(default=None, ge=2, le=MOST_CHECKPOINTS)
    """Keep so many models of each training, at steps that are spaced evenly in their logarithm, and
    say when each was good and when it remembered (docs/audit.md#along-training)."""


def check_split(spec: Growing, *_: Any) -> Mapping[str, Any]:
    """Refuse sizes that the images do not grant; lists belong to the run as their content."""
    images, keep = _images(spec)
    _splits(spec, images, keep, max(spec.sizes))
    lists = chosen_split.listed(spec, images, keep)
    if lists is None:
        return {}
    parts = {part: getattr(lists, part).tolist() for part in ("a", "b", "test")}
    return {"split_digest": runs.digest(parts)}


def _images(spec: Growing) -> tuple[ImageSet, np.ndarray]:
    """All images, and the indices of those that are not near-duplicates."""
    return open_images(spec.data), distinct(spec.compared, spec.duplicate_threshold)


def trials(spec: Growing, report: Report) -> list[Trial]:
    """Twins of every replicate at every size."""
    images, keep = _images(spec)
    mean, found = tuple(images.take(keep).mean()), []
    for n in spec.sizes:
        for replicate, split in enumerate(_splits(spec, images, keep, n)):
            for twin in "ab":
                role = {"twin": twin, "replicate": replicate, "part": f"N = {n}", "mean": mean}
                indices = getattr(split, twin)
                found.append(Trial.of(spec, spec.data, indices=indices, test=split.test, **role))
    return found


def record(spec: Growing, trials: Sequence[Trial], folder: Path) -> None:
    """Write order, content and role of the images, and the largest splits as lists."""
    images, keep = _images(spec)
    roles = np.full((spec.replicates, len(images)), "near-duplicate", dtype=object)
    roles[:, keep] = ""
    for replicate, split in enumerate(_splits(spec, images, keep, max(spec.sizes))):
        roles[replicate, split.test] = "test"
        for twin, own in zip("ab", (split.a, split.b), strict=True):
            roles[replicate, own] = [f"{twin}{rank}" for rank in range(len(own))]
        for twin, controls in zip("ab", split.controls, strict=False):
            roles[replicate, controls] = f"control {twin}"
        lists = runs.make_within(folder, folder / "splits" / f"r{replicate}")
        image_sets.write_names(lists, images, split)
    write_images(folder, images, {f"role_{r}": role for r, role in enumerate(roles)})


def _splits(spec: Growing, images: ImageSet, keep: np.ndarray, n: int) -> list[Twins]:
    """Of every replicate at one size."""
    lists = chosen_split.listed(spec, images, keep)
    return [chosen_split.twins(spec, images, keep, lists, n, r) for r in range(spec.replicates)]


def summarise(spec: Growing, done: Sequence[tuple[Trial, Arrays]]) -> Summary[Result]:
    """Every size whose twins are all measured, and where the twins begin to agree."""
    images, keep = _images(spec)
    levels, arrays, ballots = [], {}, []
    standard = standards.standard(spec, images, keep)
    for n, found in groupby(done, key=lambda pair: pair[0].n):
        measured, splits = [own for _, own in found], _splits(spec, images, keep, n)
        pairs = list(zip(measured[::2], measured[1::2], strict=True))
        level, kept, tosses = comparison.compare(images, pairs, splits, spec.seed, standard)
        levels.append(level)
        ballots += standards.ballots(spec, images, splits, tosses)
        kept |= {"noise_seeds": twins.noise_seeds(spec)}
        arrays |= {f"n{n:05d}/{name}": values for name, values in kept.items()}
    critical, phrase = _critical(levels)
    result = Result(
        verdict=_verdict(levels, phrase, spec.data),
        critical_n=critical,
        critical_n_phrase=phrase,
        closest_pairs=levels[-1].closest_pairs,
        held_out_nearest=levels[-1].held_out_nearest,
        data=Data(
            source=spec.data,
            images=len(images),
            dropped=len(images) - len(keep),
            threshold=spec.duplicate_threshold,
            shape=images.shape,
            test=spec.test,
            split=image_sets.resolve(images, spec.split),
            attribute=spec.attribute,
            dealt_at_random=spec.dealt_at_random,
        ),
        levels=levels,
    )
    tables = {"levels.csv": levels_csv(levels), "votes.csv": csv_text(standards.BALLOT, ballots)}
    return Summary(result, arrays, tables)


def _critical(levels: Sequence[Level]) -> tuple[CriticalN | None, str]:
    """Where agreement overtakes memorisation, of the levels that have both."""
    known = {level.n: level.excess for level in levels if level.excess}
    if not known:
        few = any(level.memorisation for level in levels)
        why = "too few samples were drawn to the end" if few else "memory is not testable"
        return None, f"not known: {why}"
    learned = [level.n for level in levels if level.learned.passed]
    return critical.critical_n(list(known), list(known.values()), learned)


def refined(spec: Spec, result: Result) -> Spec | None:
    """The spec with one more size, while the critical N is known less closely than asked."""
    if spec.refine is None or result.critical_n is None:
        return None
    n = critical.refined(result.critical_n, [level.n for level in result.levels], spec.refine)
    return None if n is None else spec.model_copy(update={"sizes": tuple(sorted({*spec.sizes, n}))})


def _verdict(levels: Sequence[Level], phrase: str, source: str) -> str:
    """The run in one sentence."""
    parts = []
    for word in get_args(Verdict):
        sizes = [f"{level.n:,}" for level in levels if level.verdict == word]
        if sizes:
            verb = {"transition": "is in transition", "not testable": "is not testable"}.get(
                word, word
            )
            parts.append(f"{verb} at N = {', '.join(sizes)}")
    return f"On {source} the denoiser {'; '.join(parts)}; critical N: {phrase}."


def levels_csv(levels: Sequence[Level]) -> str:
    """One row per N, nested names joined by underscores; what is not defined is empty."""
    rows = []
    for level in levels:
        content = level.model_dump()
        psnr = content.pop("psnr")
        sigmas = psnr.pop("sigma")
        row = _flat(content)
        for name, curve in psnr.items():
            row |= {f"psnr_{name}_{s:g}": value for s, value in zip(sigmas, curve, strict=True)}
        rows.append(row)
    names = sorted(set().union(*rows), key=lambda name: (name != "n", name))
    return csv_text(names, ([row.get(name, "") for name in names] for row in rows))


def _flat(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in content.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}_")
        elif value is not None and name not in {"method", "covers"}:
            flat[prefix + name] = "; ".join(value) if isinstance(value, list) else value
    return flat


def needs(spec: Growing) -> Needs:
    """To compare twins takes all their images of a size at once; pictures are stored again."""
    need = sampling_needs(spec, open_images(spec.data).shape)
    values = math.prod(need.shape)
    image, free = 4 * values, memory.available_memory("cpu")
    sets = 4 if spec.split == "attribute" else 2
    held = (sets * spec.replicates + 5) * max(spec.sizes) * image
    demands = [memory.Demand("the comparison", free, 0, held, 2)]
    if values <= standards.MOST_VALUES:
        demands.append(memory.Demand("the Gaussian baseline", free, 0, 40 * values**2, 4))
    return replace(
        need,
        before=tuple(demands),
        stored=need.stored + 2 * spec.samples * image / spec.replicates,
    )


def all_needs(spec: Spec) -> Needs:
    """Those, and what it takes to compare the trained twins."""
    need = needs(spec)
    along = checkpoints.passes(spec, evaluations(spec.sampling))
    kept = (spec.checkpoints or 0) * need.cost(spec).parameters
    passes = need.passes + divergence.passes(spec) + along
    return replace(need, passes=passes, stored=need.stored + kept)


def all_trials(spec: Spec, report: Report) -> list[Trial]:
    """The twins, with the checkpoints that are to be kept."""
    return [replace(trial, checkpoints=spec.checkpoints) for trial in trials(spec, report)]


def all_found(spec: Spec, done: Sequence[tuple[Trial, Arrays]]) -> Summary[Result]:
    """What the twins give, and what their checkpoints do."""
    summary = summarise(spec, done)
    if spec.checkpoints is None:
        return summary
    along = checkpoints.of_sizes(spec, done)
    return replace(summary, result=summary.result.model_copy(update={"along": along}))


def finish(spec: Spec, trials: Sequence[Trial], result: Result, pool: Pool) -> Result:
    """Add what takes the trained networks: the KL between twins, and the bases of both ends."""
    result = divergence.add_divergence(spec, trials, result, pool, STUDY.work)
    return add_harmonics(spec, trials, result)


STUDY = of_trials(
    name="transition",
    spec=Spec,
    count=lambda spec: 2 * len(spec.sizes) * spec.replicates,
    trials=all_trials,
    measure=twins.measure,
    key=twins.key,
    besides=checkpoints.measure,
    summarise=all_found,
    needs=all_needs,
    reads=("data",),
    check=check_split,
    record=record,
    finish=finish,
    refined=refined,
    extendable=("sizes", "samples", "refine", "thresholds", "dealt_at_random"),
)
run = STUDY.run
