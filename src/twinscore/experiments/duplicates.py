"""Which images of a set repeat each other, or repeat images of another set, with their pictures."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import Field

from twinscore import images as image_sets
from twinscore.environment import Execution
from twinscore.execution import Report
from twinscore.experiments.estimates import Estimate, by_the_clock, core_seconds, counted
from twinscore.experiments.single import Whole, of_one
from twinscore.experiments.study import Arrays, Summary, csv_text
from twinscore.experiments.trials import open_images
from twinscore.images import ImageSet
from twinscore.limits import LARGEST_SIDE
from twinscore.results.base import Settings
from twinscore.results.duplicates import Count, Data, Pair, Result
from twinscore.training import memory

LADDER = (0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
SHOWN = {"identical": 6, "closest": 18, "borderline": 18}
LARGEST_PICTURE = 128

_BLOCK, _PIXELS, _SAMPLE, _TIMED = 1024, 2**23, 2048, 128
"""Of near_duplicates: images compared at a time, pixels read at a time, images whose principal axes
are found. Images that are timed."""
_FEATURES, _AXES, _READ, _BOUND, _ROW = 8, 24, 16, 16, 128
"""Bytes: of each value of an image that is compared, in float32 and along the axes; of a sampled
one, float64 three times; of a pixel that is read, float32 and float64 with the smaller image; of a
pair of a block; of an image in table and arrays, at most."""


class Spec(Settings):
    """Near-duplicates within a set of images, or between two sets."""

    data: str = "digits"
    """Images: a name (digits), a path, or kind:body, then ,key=value (docs/images.md)."""
    against: str | None = None
    """Compare with these images instead of with the earlier ones of the set."""
    threshold: float = Field(default=0.95, ge=0, lt=1)
    """An image whose correlation with another exceeds this is a near-duplicate."""
    size: int = Field(default=20, ge=1, le=LARGEST_SIDE)
    """Side in pixels at which images are compared, at most their own."""


def _opened(spec: Spec) -> tuple[ImageSet, ImageSet, int]:
    """The images, those that they are compared with, and the side at which they are."""
    images = open_images(spec.data)
    others = open_images(spec.against) if spec.against else images
    return images, others, min(spec.size, *images.shape[1:], *others.shape[1:])


def compute(spec: Spec, task: Whole, report: Report) -> Arrays:
    """Each near-duplicate: its index and its partner's, correlation, and whether they are equal."""
    images, others, _ = _opened(spec)
    found = image_sets.near_duplicates(
        images,
        spec.threshold,
        spec.size,
        against=others if spec.against else None,
        report=lambda done: report("compared", {"step": done, "steps": len(images)}),
    )
    index = np.flatnonzero(found.drop)
    pairs = zip(index, found.partner[index], strict=True)
    return {
        "index": index,
        "partner": found.partner[index],
        "correlation": found.correlation[index],
        "identical": np.array([images.digests[i] == others.digests[j] for i, j in pairs], bool),
    }


def summarise(spec: Spec, found: Arrays) -> Summary[Result]:
    """Numbers, some of the pairs with their pictures, and the table ``duplicates.csv`` of all."""
    images, others, side = _opened(spec)
    dropped, identical = len(found["index"]), int(found["identical"].sum())
    shown = _shown(found["identical"], found["correlation"])
    arrays = {name: found[name] for name in ("correlation", "identical")}
    for name, chosen in shown.items():
        arrays |= _pictures(name, images, found["index"][chosen], others, found["partner"][chosen])
    pairs = _pairs(images, others, found)
    result = Result(
        verdict=_verdict(spec, len(images), dropped, identical),
        data=_data(spec.data, images),
        against=_data(spec.against, others) if spec.against else None,
        compared_at=side,
        identical=identical,
        counts=[
            Count(threshold=t, images=int((found["identical"] | (found["correlation"] > t)).sum()))
            for t in (spec.threshold, *(level for level in LADDER if level > spec.threshold))
        ],
        pairs={name: [pairs[k] for k in chosen] for name, chosen in shown.items()},
    )
    rows = [
        (*list(vars(pair).values())[:-1], f"{pair.correlation:.9f}", int(equal))
        for pair, equal in zip(pairs, found["identical"], strict=True)
    ]
    table = csv_text([*Pair.model_fields, "identical"], rows)
    return Summary(result, arrays, {"duplicates.csv": table})


def _data(source: str, images: ImageSet) -> Data:
    return Data(source=source, images=len(images), shape=images.shape)


def _pairs(images: ImageSet, others: ImageSet, found: Arrays) -> list[Pair]:
    """All near-duplicates, in the order of the images."""
    columns = (found[name].tolist() for name in ("index", "partner", "correlation"))
    rows = ((i, images.names[i], j, others.names[j], c) for i, j, c in zip(*columns, strict=True))
    return [Pair(**dict(zip(Pair.model_fields, row, strict=True))) for row in rows]


def _shown(identical: NDArray, correlation: NDArray) -> dict[str, NDArray]:
    """Choose the pairs to show: no pair twice, the closest and the borderline ones evenly."""
    rest = np.flatnonzero(~identical)
    rest = rest[np.argsort(-correlation[rest], kind="stable")]
    closest = min(SHOWN["closest"], -(-len(rest) // 2))
    borderline = min(SHOWN["borderline"], len(rest) - closest)
    return {
        "identical": np.flatnonzero(identical)[: SHOWN["identical"]],
        "closest": rest[:closest],
        "borderline": rest[len(rest) - borderline :][::-1],
    }


def _pictures(
    name: str, images: ImageSet, indices: NDArray, others: ImageSet, partners: NDArray
) -> Arrays:
    """Both sides of the pairs at one size and number of channels, at most 128 pixels large."""
    if not len(indices):
        return {}
    _, height, width = images.shape
    shrink = min(1.0, LARGEST_PICTURE / max(height, width))
    shape = (max(1, round(height * shrink)), max(1, round(width * shrink)))
    colour = images.shape[0] == others.shape[0]
    arrays = {}
    for side, source, chosen in (("image", images, indices), ("partner", others, partners)):
        pictures = source[chosen] if colour else source[chosen].mean(dim=1, keepdim=True)
        if pictures.shape[2:] != shape:
            pictures = F.interpolate(pictures, shape, mode="bilinear", antialias=True)
        arrays[f"{name}/{side}"] = pictures.numpy()
    return arrays


def _verdict(spec: Spec, total: int, dropped: int, identical: int) -> str:
    of_what = f"an image of {spec.against}" if spec.against else "an earlier one"
    what = f"{of_what} (correlation above {spec.threshold:g})"
    if not dropped:
        return f"None of the {total:,} images of {spec.data} is a near-duplicate of {what}."
    share = f"{dropped / total:.1%}" if dropped / total >= 0.001 else "under 0.1%"
    verb = "is a near-duplicate" if dropped == 1 else "are near-duplicates"
    exact = f"; {identical:,} equal it pixel by pixel" if identical else ""
    return f"Of the {total:,} images of {spec.data}, {dropped:,} ({share}) {verb} of {what}{exact}."


def _memory(spec: Spec) -> tuple[int, int]:
    """Bytes of what is done in blocks, and of what is kept of all images, which grows with size."""
    images, others, side = _opened(spec)
    sets = (images,) if others is images else (images, others)
    count, largest = sum(map(len, sets)), max(len(each) * math.prod(each.shape) for each in sets)
    blocks = _READ * min(_PIXELS, largest) + _BOUND * _BLOCK**2
    return blocks, (_FEATURES * count + _AXES * min(count, _SAMPLE)) * side**2


def refuse(spec: Spec, device: str) -> None:
    """Refuse to compare at a size at which the images do not fit the memory."""
    images, _, side = _opened(spec)
    memory.require(f"comparing {counted(len(images), 'image')}", device, *_memory(spec), side)


def estimate(spec: Spec, how: Execution) -> Estimate:
    """From the time of a block, multiplied in full, and of a few images that are reduced."""
    images, others, side = _opened(spec)
    count, within = len(images), others is images
    few = images.take(np.arange(min(count, _TIMED)))
    block = torch.rand(_BLOCK, side**2, generator=torch.Generator().manual_seed(0))
    pair = core_seconds(lambda: block @ block.T) / _BLOCK**2
    each = core_seconds(lambda: image_sets.near_duplicates(few, size=side)) / len(few)
    pairs = count**2 / 2 if within else count * len(others)
    work = pairs * pair + (count if within else count + len(others)) * each
    shown = 2 * sum(SHOWN.values()) * images.shape[0] * min(LARGEST_PICTURE, *images.shape[1:]) ** 2
    seconds, most = by_the_clock(1, work, how), memory.PROCESS + sum(_memory(spec))
    return Estimate(counted(count, "image"), seconds, most, 4 * shown + _ROW * count)


STUDY = of_one(
    name="duplicates",
    version=1,
    spec=Spec,
    compute=compute,
    summarise=summarise,
    estimate=estimate,
    refuse=refuse,
    reads=("data", "against"),
    machine=(),
)
run = STUDY.run
