"""Near and far modes on real images ([GP]): networks trained on two clusters, alike or unalike."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator

from twinscore import images as image_sets
from twinscore.analysis import memorization, similarity
from twinscore.analysis.statistics import mean_interval
from twinscore.denoisers import Checkpoint, NetworkSpec
from twinscore.errors import InputError
from twinscore.execution import Report
from twinscore.experiments import twins
from twinscore.experiments.estimates import Needs, sampling_needs
from twinscore.experiments.intervals import of_values
from twinscore.experiments.study import Arrays, Summary, of_trials, write_images
from twinscore.experiments.trials import Trial, distinct, open_images, require_trained_level
from twinscore.images import Clusters, ImageSet, Pair
from twinscore.limits import MOST_IMAGES, MOST_REPLICATES, MOST_SAMPLES, Seed
from twinscore.results.base import Settings
from twinscore.results.clusters import Curve, Data, Dynamics, Measured, Result, Side
from twinscore.runs import derive_seed
from twinscore.sampling import SamplingSpec
from twinscore.sampling.bits import LikelihoodSpec
from twinscore.training import TrainingSpec
from twinscore.training.history import SIGMAS

RANGES = {"twin_similarity": (-1, 1), "memorised_fraction": (0, 1), "elsewhere": (0, 1)}
"""Where intervals of a quantity, though not of a difference, are cut."""
NETWORKS = 4  # of a replicate: both twins, near and far

Outcome = tuple[Trial, Arrays]
Twins = tuple[Outcome, Outcome]


class Spec(Settings):
    """Twins trained on the two nearest, and on the two farthest, of the clusters of images."""

    data: str = "digits"
    """Images: a name (digits), a path, or kind:body, then ,key=value (docs/images.md)."""
    clusters: int = Field(default=15, ge=3, le=10**4)
    """Clusters of k-means."""
    components: int = Field(default=100, ge=1, le=10**6)
    """Principal components of the standardised images in which they are clustered, at most d."""
    n: int = Field(default=80, ge=2, le=MOST_IMAGES, multiple_of=2)
    """Training images of each twin, half of them from each cluster."""
    test: int = Field(default=64, ge=4, le=MOST_IMAGES, multiple_of=2)
    """Held-out test images, half of them from each cluster."""
    samples: int = Field(default=256, ge=2, le=MOST_SAMPLES)
    """Samples drawn from each twin, from shared noise."""
    replicates: int = Field(default=5, ge=2, le=MOST_REPLICATES)
    """Times to repeat with other splits and seeds; all intervals are over replicates."""
    duplicate_threshold: float = Field(default=0.98, gt=0, le=1)
    """Drop an image whose correlation with an earlier one exceeds this; 1 drops none."""
    seed: Seed = 0
    """Seed of clusters, splits, weights, noise and samples."""
    network: NetworkSpec = NetworkSpec()
    """The denoiser."""
    training: TrainingSpec = TrainingSpec()
    """How it is trained."""
    sampling: SamplingSpec = SamplingSpec()
    """How samples are drawn."""
    likelihood: LikelihoodSpec = LikelihoodSpec()
    """How bits per dimension are computed."""

    @model_validator(mode="after")
    def _start(self) -> Self:
        require_trained_level(self.network, self.training, self.sampling)
        return self

    @model_validator(mode="after")
    def _likelihood(self) -> Self:
        shown = self.likelihood.images
        if shown > min(self.n, self.test):
            raise ValueError(
                f"likelihood.images {shown} is more than n {self.n} or test {self.test}; give less"
            )
        if shown:
            self.likelihood.highest(self.training.sigma_max)
        return self


@dataclass(frozen=True)
class Plan:
    """The images of a run that are kept, their clusters, and the two pairs that are trained on."""

    images: ImageSet
    keep: NDArray
    clusters: Clusters
    pairs: Mapping[str, Pair]


def plan(spec: Spec) -> Plan:
    """Cluster the images, once, and choose the nearest and the farthest two of the clusters.

    InputError if fewer than three clusters are large enough; it says which n fits.
    """
    return _plan(spec, open_images(spec.data).digest)


@lru_cache(maxsize=1)
def _plan(spec: Spec, digest: str) -> Plan:
    images, keep = open_images(spec.data), distinct(spec.data, spec.duplicate_threshold)
    clusters = image_sets.cluster(
        images.take(keep),
        spec.clusters,
        components=spec.components,
        seed=derive_seed(spec.seed, "clusters"),
    )
    need = spec.n + spec.test // 2
    third = int(clusters.sizes[2])
    if third < need:
        sizes = ", ".join(f"{size:,}" for size in clusters.sizes[:3])
        fits = (third - spec.test // 2) // 2 * 2
        advice = f"n of at most {fits} fits" if fits >= 2 else "give fewer clusters or less test"
        raise InputError(
            f"n: {spec.n} with test {spec.test} needs three clusters of {need:,} images; the "
            f"largest of the {spec.clusters} hold {sizes}; {advice}"
        )
    pairs = zip(("near", "far"), image_sets.extreme_pairs(clusters, need), strict=True)
    return Plan(images, keep, clusters, dict(pairs))


def check(spec: Spec, *_: Any) -> Mapping[str, Any]:
    """Refuse clusters that do not suffice."""
    plan(spec)
    return {}


def trials(spec: Spec, report: Report) -> list[Trial]:
    """Trials in the order of replicates, so that near and far progress together."""
    here, found = plan(spec), []
    for arm, pair in here.pairs.items():
        members = here.keep[np.isin(here.clusters.labels, (pair.first, pair.second))]
        mean = tuple(here.images.take(members).mean())
        for replicate in range(spec.replicates):
            halves = _halves(spec, pair, replicate)
            role = {"replicate": replicate, "arm": arm, "mean": mean, "test": halves["test"]}
            found += [
                Trial.of(spec, spec.data, indices=halves[twin], twin=twin, **role) for twin in "ab"
            ]
    return sorted(found, key=lambda trial: trial.replicate)


def _halves(spec: Spec, pair: Pair, replicate: int) -> dict[str, NDArray]:
    """A, B and test set with one half from each cluster, their images in turn."""
    here = plan(spec)
    halves = [
        image_sets.twins(
            here.images,
            spec.n // 2,
            test=spec.test // 2,
            seed=spec.seed,
            replicate=replicate,
            among=here.keep[here.clusters.labels == label],
            by="random",
        )
        for label in (pair.first, pair.second)
    ]
    return {
        part: np.stack([getattr(half, part) for half in halves], axis=1).ravel()
        for part in ("a", "b", "test")
    }


def record(spec: Spec, tasks: Sequence[Trial], folder: Path) -> None:
    """Record the order of the images, their content, cluster and roles."""
    here = plan(spec)
    labels = np.full(len(here.images), "near-duplicate", dtype=object)
    labels[here.keep] = here.clusters.labels
    roles = {
        f"{arm}_{replicate}": np.full(len(labels), "", dtype=object)
        for arm in here.pairs
        for replicate in range(spec.replicates)
    }
    for trial in tasks:
        role = roles[f"{trial.arm}_{trial.replicate}"]
        role[trial.indices], role[trial.test] = trial.twin, "test"
    write_images(folder, here.images, {"cluster": labels} | roles)


def bits(spec: Spec, trial: Trial, model: Checkpoint, report: Report) -> Arrays:
    """Bits per dimension, unless they are left out."""
    return twins.bits_of(trial, model, spec.likelihood, report)


def summarise(spec: Spec, done: Sequence[Outcome]) -> Summary[Result] | None:
    """Near, far and far - near of the replicates that are done; intervals take two of them."""
    if len(done) < 2 * NETWORKS:
        return None
    here, sides, values, arrays = plan(spec), {}, {}, {}
    for arm in here.pairs:
        of_arm = [outcome for outcome in done if outcome[0].arm == arm]
        replicates = list(zip(of_arm[::2], of_arm[1::2], strict=True))
        sides[arm], values[arm], drawn = _side(here, arm, replicates)
        arrays |= {f"{arm}/{name}": x for name, x in drawn.items()}
    apart = {name: values["far"][name] - near for name, near in values["near"].items()}
    difference = _measured(apart, {})
    data = Data(
        source=spec.data,
        images=len(here.images),
        dropped=len(here.images) - len(here.keep),
        threshold=spec.duplicate_threshold,
        shape=here.images.shape,
        cluster_sizes=here.clusters.sizes.tolist(),
        components=len(here.clusters.components),
        n=spec.n,
        test=spec.test,
        replicates=len(done) // NETWORKS,
    )
    verdict = _verdict(data, difference)
    return Summary(Result(verdict=verdict, data=data, difference=difference, **sides), arrays)


def _side(
    here: Plan, arm: str, replicates: Sequence[Twins]
) -> tuple[Side, dict[str, NDArray], dict[str, NDArray]]:
    """What R replicates give on one pair of clusters.

    The numbers; the values (R,) of each field of :class:`Measured`; what the report draws.
    """
    pair, clusters = here.pairs[arm], here.clusters
    where = _each(replicates, lambda _, o: shares(clusters, pair, o["samples"]))
    gaps = _each(replicates, lambda _, o: (o["psnr_train"] - o["psnr_test"]).mean(1)).mean(1)
    samples = [[torch.from_numpy(found["samples"]) for _, found in twin] for twin in replicates]
    agreement = np.stack([similarity.cosine_similarity(a, b) for a, b in samples])
    values = {
        "gap": gaps.mean(1),
        "test_psnr": _each(replicates, lambda _, o: o["psnr_test"].mean()).mean(1),
        "twin_similarity": np.median(agreement, axis=1).astype(np.float64),
        "memorised_fraction": _each(replicates, partial(_copied, here.images)).mean(1),
        "elsewhere": where[:, :, 1].mean(1),
    }
    if "bits/test" in replicates[0][0][1]:
        test, gap = _each(replicates, _bits).mean(1).T
        values |= {"test_bits": test, "bits_gap": gap}
    side = Side(
        name=arm,
        clusters=(pair.first, pair.second),
        sizes=tuple(clusters.sizes[[pair.first, pair.second]].tolist()),
        distance=pair.distance,
        share=of_values(where[:, :, 0].mean(1), (0, 1)),
        measured=_measured(values, RANGES),
        gap_by_sigma=_curve(SIGMAS, gaps),
        dynamics=_dynamics(replicates),
        unfinished_samples=int(_each(replicates, lambda _, o: o["unfinished"].item()).sum()),
    )
    drawn = _drawn(here, pair, replicates) | {"agreement": agreement, "shares": where}
    return side, values, drawn


def _each(replicates: Sequence[Twins], measure: Callable[..., Any]) -> NDArray[np.float64]:
    """A number or row of each network, (R, 2, ...): ``measure(trial, found)``."""
    rows = [[measure(*outcome) for outcome in twin] for twin in replicates]
    return np.array(rows, dtype=np.float64)


def shares(clusters: Clusters, pair: Pair, samples: NDArray) -> tuple[float, float]:
    """Fraction of samples on the first centre's side, and in none of the two clusters."""
    ahead = clusters.positions(samples, pair.first, pair.second) < 0.5
    inside = np.isin(clusters.nearest(samples), (pair.first, pair.second))
    return float(ahead.mean()), float(1 - inside.mean())


def _copied(images: ImageSet, trial: Trial, found: Arrays) -> float:
    samples = torch.from_numpy(found["samples"])
    return memorization.copied(samples, images[trial.indices]).double().mean().item()


def _bits(_: Trial, found: Arrays) -> tuple[float, float]:
    test = found["bits/test"].mean()
    return test, test - found["bits/train"].mean()


def _dynamics(replicates: Sequence[Twins]) -> Dynamics:
    def progress(trial: Trial, _: Arrays) -> list[list[float]]:
        rows = trial.history
        psnr = [
            [np.mean([row[f"{part}_psnr_{sigma:g}"] for sigma in SIGMAS]) for row in rows]
            for part in ("train", "test")
        ]
        return [[row["step"] for row in rows], [row["train_loss"] for row in rows], *psnr]

    steps, loss, train, test = _each(replicates, progress).mean(1).swapaxes(0, 1)
    curves = {"loss": loss, "test_psnr": test, "gap": train - test}
    return Dynamics(**{name: _curve(steps[0].tolist(), x) for name, x in curves.items()})


def _drawn(here: Plan, pair: Pair, replicates: Sequence[Twins]) -> dict[str, NDArray]:
    """Pictures of the first replicate, and positions between the centres of all."""
    images, positions = here.images, here.clusters.positions
    ends, tests = (pair.first, pair.second), [images[trial.test] for (trial, _), _ in replicates]
    arrays = {
        "images": tests[0].numpy(),
        "positions_images": np.stack([positions(test, *ends) for test in tests]),
        "positions_samples": _each(replicates, lambda _, o: positions(o["samples"], *ends)),
    }
    for trial, found in replicates[0]:
        samples, training = found["samples"], images[trial.indices]
        near = similarity.nearest(torch.from_numpy(samples), training)[1]
        arrays |= {
            f"samples_{trial.twin}": samples,
            f"nearest_{trial.twin}": training[near].numpy(),
        }
    return arrays


def _measured(values: Mapping[str, NDArray], ranges: Mapping[str, tuple[float, float]]) -> Measured:
    """Mean and interval of each value's replicates, cut to its range if it has one."""
    means = {name: of_values(row, ranges.get(name)) for name, row in values.items()}
    return Measured(**(dict.fromkeys(Measured.model_fields) | means))


def _curve(at: Sequence[float], table: NDArray) -> Curve:
    """Means and intervals of the columns of (R, K) values."""
    value, low, high = (list(x) for x in zip(*map(mean_interval, table.T), strict=True))
    return Curve(at=list(at), value=value, low=low, high=high)


def _verdict(data: Data, difference: Measured) -> str:
    """Which side generalises worse, by the train - test gap in PSNR."""
    gap, pairs = difference.gap, "from the farthest two than from the nearest two"
    if gap.low <= 0 <= gap.high:
        said = f": the train-test gap does not tell whether they generalise worse {pairs}"
    else:
        word = "worse" if gap.value > 0 else "better"
        said = f" generalise {word} {pairs}, by the train-test gap"
    return (
        f"Networks trained on two clusters of {data.source}{said} (far - near = "
        f"{gap.value:.2f} dB, 95% interval {gap.low:.2f} to {gap.high:.2f}, {data.replicates} "
        "replicates)."
    )


def needs(spec: Spec) -> Needs:
    """A Gaussian is decomposed for likelihoods."""
    need, images = sampling_needs(spec, open_images(spec.data).shape), 2 * spec.likelihood.images
    return replace(
        need,
        jacobians=int(images > 0),
        matrix="covariance",
        passes=need.passes + images * spec.likelihood.passes(math.prod(need.shape)),
        stored=need.stored + 4 * images,
    )


STUDY = of_trials(
    name="clusters",
    spec=Spec,
    count=lambda spec: NETWORKS * spec.replicates,
    trials=trials,
    measure=twins.measure,
    key=twins.key,
    besides=bits,
    summarise=summarise,
    needs=needs,
    reads=("data",),
    check=check,
    record=record,
)
run = STUDY.run
