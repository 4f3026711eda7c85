"""Train twins on near and on far clusters: which generalise worse?"""

from typing import Literal

from twinscore.results import base
from twinscore.results.base import Frozen, Interval, aligned, dashed

LABELS = {
    "gap": "train - test PSNR (dB)",
    "test_psnr": "test PSNR (dB)",
    "twin_similarity": "twin similarity",
    "memorised_fraction": "memorised fraction",
    "elsewhere": "samples in other clusters",
    "test_bits": "test bits per dimension",
    "bits_gap": "test - train bits",
}


class Curve(Frozen):
    """Means over replicates with their intervals, one for each entry of ``at``."""

    at: list[float]
    value: list[float]
    low: list[float]
    high: list[float]


class Measured(Frozen):
    """What near and far are compared by; see docs/clusters.md.

    PSNR in dB, averaged over noise levels; bits per dimension are ``None`` if left out.
    """

    gap: Interval
    test_psnr: Interval
    twin_similarity: Interval
    memorised_fraction: Interval
    elsewhere: Interval
    test_bits: Interval | None
    bits_gap: Interval | None


class Dynamics(Frozen):
    """Training loss and PSNR (dB, averaged over noise levels) against the step."""

    loss: Curve
    test_psnr: Curve
    gap: Curve


class Side(Frozen):
    """Two clusters and what networks trained on their union do.

    ``share`` is the fraction of samples nearer to the first centre than to the second;
    ``gap_by_sigma`` the train - test PSNR gap (dB) at each noise level.
    """

    name: Literal["near", "far"]
    clusters: tuple[int, int]
    sizes: tuple[int, int]
    distance: float
    share: Interval
    measured: Measured
    gap_by_sigma: Curve
    dynamics: Dynamics
    unfinished_samples: int


class Data(Frozen):
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


class Result(base.Result):
    """``result.json`` of a clusters run; ``difference`` is far - near, replicate by replicate.

    Means over replicates with Student's t intervals (95 %).
    """

    study: Literal["clusters"] = "clusters"
    data: Data
    near: Side
    far: Side
    difference: Measured

    @property
    def sides(self) -> tuple[Side, Side]:
        """Near, then far."""
        return self.near, self.far

    def table(self) -> str:
        """Near, far and their difference as a plain table."""
        rows = [
            ("", "near", "far", "far - near"),
            ("distance of the centres", *(f"{side.distance:.2f}" for side in self.sides), ""),
            ("share of the first cluster", *(dashed(side.share, 3) for side in self.sides), ""),
        ]
        columns = (*(side.measured for side in self.sides), self.difference)
        for name, label in LABELS.items():
            rows.append((label, *(dashed(getattr(column, name), 3) for column in columns)))
        lost = [
            f"{side.name}: {side.unfinished_samples} samples did not converge"
            for side in self.sides
            if side.unfinished_samples
        ]
        return "\n".join([aligned(rows, left=range(4)), *lost])
