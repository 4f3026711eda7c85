"""Explain what a network learned: memory, a mosaic of patches, a linear map, or thresholding."""

from typing import Literal

from twinscore.results import base
from twinscore.results.base import Frozen, Interval, aligned, dashed

CLOSED = ("memory", "mosaic", "linear", "thresholding")
"""Companions whose formula is known: the exact denoiser of the training images, that of their
patches, of their Gaussian, and an estimator that saw no images."""


class Explained(Frozen):
    """How much of the model's outputs one companion explains."""

    companion: str
    """One of ``CLOSED``, or twin."""
    r2: Interval | None
    """Coefficient of determination; None where the outputs do not differ."""


class Level(Frozen):
    """Outputs on noisy images of one noise level."""

    sigma: float
    explained: list[Explained]
    best: str | None
    """The closed form that explains most."""


class Sample(Frozen):
    """Where the patches of one sample come from."""

    near: float
    """Share of its patches that are nearer to training images than to held-out ones."""
    image: int
    """Training image that holds most of its nearest training patches, as an index of ``train``."""
    share: float
    """Share of its patches that it holds."""
    sources: float
    """Effective number of training images that its patches lie in."""
    control_share: float
    """The same of the nearest held-out patches."""
    control_sources: float


class Patches(Frozen):
    """Patches of samples, traced to training images and to as many held-out ones."""

    side: int
    images: int
    """Of either kind."""
    near: Interval
    """Mean share of a sample's patches that are nearer to training images; by chance 1/2."""
    p: float
    """That it is as large by chance: images dealt out again."""
    distance: float
    """Root mean squared difference of patches to the nearest training patch, a pixel."""
    control_distance: float
    samples: list[Sample]


class Samples(Frozen):
    """Samples of model and companions from the same noise, by the probability flow."""

    count: int
    lost: int
    """Samples that ran away, of the model or a companion."""
    explained: list[Explained]
    best: str | None
    patches: Patches | None
    """None without held-out images."""


class Result(base.Result):
    """``result.json``: noise levels in ascending order; samples once they are drawn."""

    study: Literal["explain"] = "explain"
    model: str
    twin: str | None
    train: str
    held_out: str | None
    trained: int
    """Training images."""
    images: int
    """Noisy images at each level."""
    shape: tuple[int, int, int]
    sides: list[int]
    """Side of the patches of the mosaic at each level."""
    learned: str | None
    """The closed form that explains most, by the mean of r2 (at least 0) over noise levels."""
    levels: list[Level]
    samples: Samples | None

    @property
    def companions(self) -> list[str]:
        """Names of the companions, in order."""
        return [*CLOSED, *(["twin"] if self.twin else [])]

    def table(self) -> str:
        """r2 of each companion at each noise level, and of the samples."""
        rows = [("r2 at sigma", "patch", *self.companions)]
        for level, side in zip(self.levels, self.sides, strict=True):
            cells = (dashed(each.r2) for each in level.explained)
            rows.append((f"{level.sigma:g}", str(side), *cells))
        if self.samples:
            rows.append(("samples", "", *(dashed(each.r2) for each in self.samples.explained)))
        lines = [aligned(rows, left=(0,))]
        if self.samples and (patches := self.samples.patches):
            lines.append(
                f"patches nearer to training images: {patches.near.times(100).text(1)} % "
                f"(chance: 50 %), p = {patches.p:.2g}"
            )
        return "\n".join(lines)
