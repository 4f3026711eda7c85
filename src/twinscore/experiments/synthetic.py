"""What studies of synthetic images share: their noise levels, and images for every replicate."""

from typing import Annotated, Any

import numpy as np
from pydantic import AfterValidator

from twinscore.execution import Report
from twinscore.experiments.trials import Trial, open_images
from twinscore.limits import Listed
from twinscore.results.base import Settings

MOST_IMAGES = 9_999_999  # largest number of images of a synthetic source


def _levels(levels: tuple[float, ...]) -> tuple[float, ...]:
    if not levels or not all(-20 <= level <= 80 for level in levels):
        raise ValueError(f"give input PSNRs of -20 to 80 dB, got {list(levels)}")
    return tuple(sorted(set(levels)))


InputPsnrs = Annotated[Listed[float], AfterValidator(_levels)]
"""Noise levels as input PSNR, -20 log10(sigma), dB, ascending."""


class AtLevels(Settings):
    """A spec with noise levels, ``levels``."""

    @property
    def sigmas(self) -> list[float]:
        """Noise levels in image units, falling."""
        return [10 ** (-level / 20) for level in self.levels]


def fresh_trials(spec: Any, source: str, n: int, report: Report, **roles: Any) -> list[Trial]:
    """A trial for each replicate of a synthetic source; no two replicates share an image.

    For each it holds ``spec.test`` test images, then ``n`` training images. ``roles`` are fields of
    :class:`Trial`.
    """
    count = spec.replicates * (spec.test + n)
    report("images", {"text": f"{source}: making {count:,} to address them"})
    images, found = open_images(source), []
    for replicate, own in enumerate(np.split(np.arange(count), spec.replicates)):
        test, indices = own[: spec.test], own[spec.test :]
        role = {"replicate": replicate, "mean": tuple(images.take(test).mean())} | roles
        found.append(Trial.of(spec, source, indices=indices, test=test, **role))
    return found
