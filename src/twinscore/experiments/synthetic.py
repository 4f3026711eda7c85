"""What studies of synthetic images share: their noise levels, and images for every replicate."""

from typing import Annotated, Any

import numpy as np
from pydantic import AfterValidator

from twinscore.execution import Report
from twinscore.experiments.trials import Trial, open_images

MOST_IMAGES = 9_999_999
"""Largest number of images of a synthetic source."""


def _levels(levels: tuple[float, ...]) -> tuple[float, ...]:
    if not levels or not all(-20 <= level <= 80 for level in levels):
        raise ValueError(f"give input PSNRs of -20 to 80 dB, got {list(levels)}")
    return tuple(sorted(set(levels)))


InputPsnrs = Annotated[tuple[float, ...], AfterValidator(_levels)]
"""Noise levels as input PSNR, -20 log10(sigma), dB, ascending."""


def sigmas(levels: tuple[float, ...]) -> list[float]:
    """Noise levels in image units, falling."""
    return [10 ** (-level / 20) for level in levels]


def fresh_trials(
    spec: Any, source: str, n: int, report: Report, *, held: bool, part: str = ""
) -> list[Trial]:
    """A trial for each replicate of a synthetic source; no two replicates share an image.

    Parameters
    ----------
    spec : BaseModel
        With ``replicates`` and ``test``, the test images of each.
    source : str
        Each replicate's test images, then its ``n`` training images.
    n : int
        Training images.
    report : callable
        Told that the images are made.
    held : bool
        Whether to keep the training images in memory.
    part : str
        Of the result; by default each replicate is a part.
    """
    count = spec.replicates * (spec.test + n)
    report("images", {"text": f"{source}: making {count:,} to address them"})
    images, trials = open_images(source), []
    for replicate in range(spec.replicates):
        start = replicate * (spec.test + n)
        test = np.arange(start, start + spec.test)
        trial = Trial.of(
            spec,
            images,
            source,
            indices=np.arange(n) + start + spec.test,
            test=test,
            mean=tuple(images.take(test).mean()),
            twin="a",
            replicate=replicate,
            part=part or f"replicate {replicate}",
            held=held,
        )
        trials.append(trial)
    return trials
