"""The numbers of a clusters run: the models of ``result.json``, how they come about, and words."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from twinscore.analysis import memorization, similarity
from twinscore.analysis.statistics import mean_interval
from twinscore.experiments.trials import Measures
from twinscore.images import Clusters, ImageSet, Pair, Twins
from twinscore.runs import SCHEMA_VERSION
from twinscore.training.history import SIGMAS

Name = Literal["near", "far"]
Rows = list[dict[str, float]]
"""The history of one training."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Mean(_Model):
    """A mean over replicates with Student's t interval (95 %)."""

    value: float
    low: float
    high: float


class Curve(_Model):
    """Means over replicates with their intervals, one for each entry of ``at``."""

    at: list[float]
    value: list[float]
    low: list[float]
    high: list[float]


class Measured(_Model):
    """What near and far are compared by; see docs/clusters.md.

    PSNR in dB, averaged over noise levels; bits per dimension are ``None`` if left out.
    """

    gap: Mean
    test_psnr: Mean
    twin_similarity: Mean
    memorised_fraction: Mean
    elsewhere: Mean
    test_bits: Mean | None
    bits_gap: Mean | None


class Dynamics(_Model):
    """Training loss and PSNR (dB, averaged over noise levels) against the step."""

    loss: Curve
    test_psnr: Curve
    gap: Curve


class Side(_Model):
    """Two clusters and what networks trained on their union do.

    ``share`` is the fraction of samples nearer to the first centre than to the second;
    ``gap_by_sigma`` the train - test PSNR gap (dB) at each noise level.
    """

    name: Name
    clusters: tuple[int, int]
    sizes: tuple[int, int]
    distance: float
    share: Mean
    measured: Measured
    gap_by_sigma: Curve
    dynamics: Dynamics
    unfinished_samples: int


class Data(_Model):
    """The images of the run and their clusters."""

    source: str
    images: int
    dropped: int
    threshold: float
    shape: tuple[int, int, int]
    cluster_sizes: list[int]
    components: int
    n: int
    test: int
    replicates: int


LABELS = {
    "gap": "train - test PSNR (dB)",
    "test_psnr": "test PSNR (dB)",
    "twin_similarity": "twin similarity",
    "memorised_fraction": "memorised fraction",
    "elsewhere": "samples in other clusters",
    "test_bits": "test bits per dimension",
    "bits_gap": "test - train bits",
}


RANGES = {"twin_similarity": (-1, 1), "memorised_fraction": (0, 1), "elsewhere": (0, 1)}
"""Where intervals of a quantity, though not of a difference, are cut."""


class Result(_Model):
    """``result.json`` of a clusters run; ``difference`` is far - near, replicate by replicate."""

    schema_version: int = SCHEMA_VERSION
    study: Literal["clusters"] = "clusters"
    verdict: str
    data: Data
    near: Side
    far: Side
    difference: Measured

    def table(self) -> str:
        """Near, far and their difference as a plain table."""
        sides = (self.near, self.far)
        rows = [("", "near", "far", "far - near")]
        rows.append(("distance of the centres", *(f"{side.distance:.2f}" for side in sides), ""))
        rows.append(("share of the first cluster", *(_show(side.share) for side in sides), ""))
        for name, label in LABELS.items():
            values = [getattr(side.measured, name) for side in sides]
            rows.append((label, *map(_show, [*values, getattr(self.difference, name)])))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        lines += [
            f"{side.name}: {side.unfinished_samples} samples did not converge"
            for side in sides
            if side.unfinished_samples
        ]
        return "\n".join(lines)


def _show(mean: Mean | None) -> str:
    return f"{mean.value:.3f} [{mean.low:.3f}, {mean.high:.3f}]" if mean else "-"


@dataclass(frozen=True)
class Outcome:
    """What one trial gave: its measures, bits per dimension (train, test) and history."""

    measures: Measures
    bits: dict[str, NDArray]
    rows: Rows


Twin = tuple[Outcome, Outcome]
"""The outcomes of A and B."""


def side_of(
    name: Name,
    images: ImageSet,
    clusters: Clusters,
    pair: Pair,
    twins: Sequence[Twin],
    splits: Sequence[Twins],
) -> tuple[Side, dict[str, NDArray], dict[str, NDArray]]:
    """Everything measured on one union of clusters, from R replicates of two twins.

    Returns
    -------
    side : Side
        The numbers.
    values : dict
        For each field of :class:`Measured` the value of each replicate, (R,), to compare with.
    arrays : dict
        What the report draws.
    """
    gaps = _both(twins, lambda o: (o.measures.psnr_train - o.measures.psnr_test).mean(1))
    agreement = np.stack(
        [
            similarity.cosine_similarity(*(torch.from_numpy(o.measures.samples) for o in twin))
            for twin in twins
        ]
    )
    where = _both(twins, lambda outcome: _shares(clusters, pair, outcome.measures.samples))
    values = {
        "gap": gaps.mean(1),
        "test_psnr": _both(twins, lambda o: o.measures.psnr_test.mean()),
        "twin_similarity": np.median(agreement, axis=1).astype(np.float64),
        "memorised_fraction": _memorised(images, twins, splits),
        "elsewhere": where[:, 1],
    }
    if twins[0][0].bits:
        values["test_bits"] = _both(twins, lambda o: o.bits["test"].mean())
        values["bits_gap"] = _both(twins, lambda o: o.bits["test"].mean() - o.bits["train"].mean())
    side = Side(
        name=name,
        clusters=(pair.first, pair.second),
        sizes=tuple(clusters.sizes[[pair.first, pair.second]].tolist()),
        distance=pair.distance,
        share=_mean(where[:, 0], (0, 1)),
        measured=measured_of(values, RANGES),
        gap_by_sigma=_curve(SIGMAS, gaps),
        dynamics=_dynamics([[outcome.rows for outcome in twin] for twin in twins]),
        unfinished_samples=sum(o.measures.unfinished for twin in twins for o in twin),
    )
    return side, values, _arrays(images, clusters, pair, twins, splits) | {"agreement": agreement}


def measured_of(
    values: dict[str, NDArray], ranges: Mapping[str, tuple[float, float]] = MappingProxyType({})
) -> Measured:
    """Mean and interval of each value's replicates, cut to its range if it has one."""
    means = {name: _mean(row, ranges.get(name)) for name, row in values.items()}
    return Measured(**(dict.fromkeys(LABELS) | means))


def sentence(data: Data, difference: Measured) -> str:
    """The verdict of a run: which side generalises worse, by the train - test gap in PSNR."""
    gap, what = difference.gap, f"Networks trained on two clusters of {data.source}"
    interval = (
        f"far - near = {gap.value:.2f} dB, 95% interval {gap.low:.2f} to {gap.high:.2f}, "
        f"{data.replicates} replicates"
    )
    if gap.low <= 0 <= gap.high:
        return (
            f"{what}: the train-test gap does not tell whether they generalise worse from the "
            f"farthest two than from the nearest two ({interval})."
        )
    word = "worse" if gap.value > 0 else "better"
    than = f"generalise {word} from the farthest two than from the nearest two"
    return f"{what} {than}, by the train-test gap ({interval})."


def _mean(values: NDArray, within: tuple[float, float] | None = None) -> Mean:
    value, low, high = mean_interval(values)
    if within:
        low, high = max(low, within[0]), min(high, within[1])
    return Mean(value=value, low=low, high=high)


def _curve(at: Sequence[float], table: NDArray) -> Curve:
    """Means and intervals of the columns of (R, K) values."""
    value, low, high = (list(x) for x in zip(*map(mean_interval, table.T), strict=True))
    return Curve(at=list(at), value=value, low=low, high=high)


def _both(twins: Sequence[Twin], measure: Callable[[Outcome], Any]) -> NDArray[np.float64]:
    """A number or row of each outcome, averaged over A and B: (R, ...)."""
    rows = [[measure(outcome) for outcome in twin] for twin in twins]
    return np.array(rows, dtype=np.float64).mean(1)


def _shares(clusters: Clusters, pair: Pair, samples: NDArray) -> tuple[float, float]:
    """Fraction of samples on the first centre's side, and in none of the two clusters."""
    ahead = clusters.positions(samples, pair.first, pair.second) < 0.5
    inside = np.isin(clusters.nearest(samples), (pair.first, pair.second))
    return float(ahead.mean()), float(1 - inside.mean())


def _memorised(images: ImageSet, twins: Sequence[Twin], splits: Sequence[Twins]) -> NDArray:
    def copied(outcome: Outcome, indices: NDArray) -> float:
        samples = torch.from_numpy(outcome.measures.samples)
        return memorization.copied(samples, images[indices]).double().mean().item()

    return np.array(
        [
            (copied(a, split.a) + copied(b, split.b)) / 2
            for (a, b), split in zip(twins, splits, strict=True)
        ]
    )


def _dynamics(histories: list[list[Rows]]) -> Dynamics:
    steps = [row["step"] for row in histories[0][0]]

    def table(measure: Callable[[dict[str, float]], float]) -> NDArray[np.float64]:
        return np.array([[[measure(r) for r in rows] for rows in twin] for twin in histories])

    def psnr(part: str) -> NDArray[np.float64]:
        return table(lambda row: np.mean([row[f"{part}_psnr_{s:g}"] for s in SIGMAS])).mean(1)

    loss = table(lambda row: row["train_loss"]).mean(1)
    train, test = psnr("train"), psnr("test")
    return Dynamics(
        loss=_curve(steps, loss), test_psnr=_curve(steps, test), gap=_curve(steps, train - test)
    )


def _arrays(
    images: ImageSet,
    clusters: Clusters,
    pair: Pair,
    twins: Sequence[Twin],
    splits: Sequence[Twins],
) -> dict[str, NDArray]:
    """Pictures of the first replicate, and positions between the centres and shares of all."""
    first, split = twins[0], splits[0]
    ends = (pair.first, pair.second)
    arrays = {
        "images": images[split.test].numpy(),
        "positions_images": np.stack([clusters.positions(images[s.test], *ends) for s in splits]),
    }
    for side, outcome, indices in zip("ab", first, (split.a, split.b), strict=True):
        samples = outcome.measures.samples
        training = images[indices]
        near = similarity.nearest(torch.from_numpy(samples), training)[1]
        arrays[f"samples_{side}"] = samples
        arrays[f"nearest_{side}"] = training[near].numpy()
    every = [[outcome.measures.samples for outcome in twin] for twin in twins]
    arrays["positions_samples"] = np.array(
        [[clusters.positions(samples, *ends) for samples in row] for row in every]
    )
    arrays["shares"] = np.array(
        [[_shares(clusters, pair, samples) for samples in row] for row in every]
    )
    return arrays
