"""Shuffled pixels ([GAHB] section 3.2): what a network loses when its inductive bias does not fit.

One fixed permutation of the pixels leaves the optimal error unchanged. Networks are trained on the
same images with and without it, with the same budget and the same seeds, and measured on the same
noisy images; a closed-form denoiser that does not know neighbourhoods is the control.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from twinscore.analysis.levels import image_errors
from twinscore.denoisers import Checkpoint, Denoiser, NetworkSpec, check
from twinscore.denoisers.closed_form import Gaussian
from twinscore.denoisers.fitted import covariance
from twinscore.errors import InputError
from twinscore.execution import Report
from twinscore.experiments.estimates import Needs
from twinscore.experiments.intervals import cells, columns, of_replicates, psnr
from twinscore.experiments.study import Arrays, Summary, csv_text, of_trials, stacked
from twinscore.experiments.trials import Trial, held_out, open_images
from twinscore.images import ImageSet
from twinscore.images.sources import parse
from twinscore.images.synthetic import PixelShuffle, pixel_shuffle
from twinscore.limits import MOST_IMAGES, MOST_REPLICATES, Seed
from twinscore.results.base import Settings
from twinscore.results.shuffled import Level, Result
from twinscore.runs import derive_seed
from twinscore.training import TrainingSpec, memory, single_device
from twinscore.training.history import SIGMAS

EXAMPLES = 8
EXAMPLE_LEVEL = 0.2
_SQUARES = 6
"""Matrices (d, d) that the control holds at a time, float64; most of them the eigensolver's."""
_CHUNK_VALUES = 2**22  # pixels of the images that are summed at once, float64: 32 MiB


class Spec(Settings):
    """The same images with and without one fixed permutation of their pixels."""

    data: str = "photos,size=16"
    """Images: a name (digits), a path, or kind:body, then ,key=value (docs/images.md)."""
    n: int | None = Field(default=None, ge=2, le=MOST_IMAGES)
    """Training images; by default all but the test images."""
    test: int = Field(default=128, ge=2, le=MOST_IMAGES)
    """Held-out images on which both are measured."""
    replicates: int = Field(default=3, ge=1, le=MOST_REPLICATES)
    """Times to repeat with other splits and seeds; with 1, intervals cover images only."""
    shuffle: Seed = 0
    """Seed of the permutation, the same for all images and replicates."""
    split: Literal["auto", "random", "group", "label"] = "auto"
    """How the test images are held out: at random, by group (no person or photograph in both), by
    label (the same share of each), auto (by group where there are groups, else random)."""
    seed: Seed = 0
    """Seed of splits, weights and noise."""
    network: NetworkSpec = NetworkSpec()
    """The denoiser."""
    training: TrainingSpec = TrainingSpec()
    """How it is trained."""


def check_split(spec: Spec, *_: Any) -> Mapping[str, Any]:
    """Refuse data that are shuffled already or do not suffice."""
    if parse(spec.data)[2].shuffle is not None:
        raise InputError(f"data: {spec.data} is shuffled already; give it without shuffle=")
    held_out(spec, derive_seed(spec.seed, "split", 0))
    return {}


def trials(spec: Spec, report: Report) -> list[Trial]:
    """Both arms of every replicate."""
    mean = tuple(open_images(spec.data).mean())
    sources = {"plain": spec.data, "shuffled": f"{spec.data},shuffle={spec.shuffle}"}
    seeds = [derive_seed(spec.seed, "split", replicate) for replicate in range(spec.replicates)]
    splits = [held_out(spec, seed) for seed in seeds]
    return [
        Trial.of(spec, source, indices=of, test=test, mean=mean, replicate=replicate, arm=arm)
        for arm, source in sources.items()
        for replicate, (of, test) in enumerate(splits)
    ]


def _order(spec: Spec, shape: tuple[int, int, int], arm: str) -> PixelShuffle:
    if arm == "shuffled":
        return pixel_shuffle(*shape[1:], spec.shuffle)
    return PixelShuffle(np.arange(math.prod(shape[1:])))


def measure(spec: Spec, trial: Trial, model: Checkpoint, report: Report) -> Arrays:
    """Errors per pixel of each test image, (K, N), and some estimates, their pixels in order."""
    images, device = open_images(trial.source), single_device(trial.device).device
    order = _order(spec, images.shape, trial.arm)
    x = order.invert(images[trial.test]).to(device)
    denoiser = unshuffled(model.on(device), order)
    seed = derive_seed(trial.seed, "shuffled", trial.replicate)
    errors = squared_errors(denoiser, x, seed, spec.training.batch)
    with torch.no_grad():
        shown = denoiser(_noisy(x[:EXAMPLES]), EXAMPLE_LEVEL).cpu()
    return {"errors": errors, "estimates": shown.numpy()}


def key(spec: Spec, trial: Trial) -> dict[str, Any]:
    """What the measures depend on besides the weights."""
    return {"shuffle": spec.shuffle, "test": trial.test.tolist()}


def _noisy(x: Tensor) -> Tensor:
    z = torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).to(x)
    return x + EXAMPLE_LEVEL * z


def unshuffled(denoiser: Denoiser, order: PixelShuffle) -> Denoiser:
    """What a denoiser of shuffled images does to images: noise is permuted with them."""
    return lambda y, sigma=None: order.invert(denoiser(order.apply(y), sigma))


def squared_errors(denoiser: Denoiser, x: Tensor, seed: int, batch: int) -> NDArray[np.float64]:
    """Squared error per pixel of each image at each training level, (K, N)."""

    def errors(x: Tensor, y: Tensor, sigma: float) -> Tensor:
        return (check(denoiser, y, sigma) - x).cpu().double().square().flatten(1).mean(1)

    return image_errors(errors, x, SIGMAS, seed=seed, batch=batch)


def control(spec: Spec, training: NDArray, test: NDArray) -> float:
    """Largest gap of the Gaussian denoisers of plain and of shuffled images, dB, unsigned.

    Each has the mean and the covariance of the training images: nothing but rounding is lost.
    Cost: an eigendecomposition of (d, d), d = C H W, and two passes over the training images each;
    memory: six matrices (d, d) of float64, and chunks.
    """
    images, risks = open_images(spec.data), []
    x = images[test].double()
    for arm in ("plain", "shuffled"):
        order = _order(spec, images.shape, arm)
        denoiser = unshuffled(Gaussian.of(*moments(images, training, order)), order)
        with torch.no_grad():
            risks.append(squared_errors(denoiser, x, spec.seed, spec.training.batch).mean(1))
    plain, shuffled = risks
    return float(np.abs(10 * np.log10(shuffled / plain)).max())


def demand(shape: tuple[int, int, int]) -> memory.Demand:
    """Memory of the control for images (C, H, W)."""
    matrices = _SQUARES * 8 * math.prod(shape) ** 2
    return memory.Demand("the control", memory.available_memory("cpu"), 0, matrices, 4)


def moments(images: ImageSet, indices: NDArray, order: PixelShuffle) -> tuple[Tensor, Tensor]:
    """Mean (C, H, W) and covariance (d, d) of images in an order of their pixels.

    Both are float64 and summed in chunks, the covariance about the mean.
    """
    n = len(indices)
    parts = np.array_split(indices, math.ceil(n * math.prod(images.shape) / _CHUNK_VALUES))
    mean = sum(order.apply(images[part]).double().sum(0) / n for part in parts)
    return mean, covariance((order.apply(images[part]) for part in parts), mean, n - 1)


def summarise(spec: Spec, done: Sequence[tuple[Trial, Arrays]]) -> Summary[Result]:
    """PSNR with and without shuffling, and what it costs, from the replicates that are done."""
    arms = {arm: stacked([x for of, x in done if of.arm == arm]) for arm in ("plain", "shuffled")}
    errors = stacked(list(arms.values()), ["errors"], axis=-1)["errors"]
    images, first = open_images(spec.data), done[0][0]
    levels = [_level(s, errors[:, k], spec.seed) for k, s in enumerate(SIGMAS)]
    result = Result(
        verdict=_verdict(levels),
        data=spec.data,
        shape=images.shape,
        n=first.n,
        test=spec.test,
        replicates=len(errors),
        levels=levels,
        control=control(spec, first.indices, first.test),
    )
    x = images[first.test[:EXAMPLES]]
    arrays = {"errors": errors, "clean": x.numpy(), "noisy": _noisy(x).numpy()}
    arrays |= {arm: of_arm["estimates"][0] for arm, of_arm in arms.items()}
    names = ("plain", "shuffled", "gap")
    rows = ((level.sigma, *cells(level, names)) for level in levels)
    table = csv_text(["sigma", *columns(names)], rows)
    return Summary(result, arrays, {"levels.csv": table})


def _level(sigma: float, errors: NDArray[np.float64], seed: int) -> Level:
    """From errors (R, N, 2) of plain and shuffled."""

    def gap(drawn: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
        return -np.diff(psnr(drawn, axis))[..., 0]

    return Level(
        sigma=sigma,
        plain=of_replicates(errors[..., 0], psnr, seed),
        shuffled=of_replicates(errors[..., 1], psnr, seed),
        gap=of_replicates(errors, gap, seed),
    )


def _verdict(levels: Sequence[Level]) -> str:
    gaps = [level.gap for level in levels]
    worse, better = sum(gap.low > 0 for gap in gaps), sum(gap.high < 0 for gap in gaps)
    least, most = min(gap.value for gap in gaps), max(gap.value for gap in gaps)
    if least >= 0:
        change = f"loses {least:.2f} to {most:.2f} dB"
    elif most <= 0:
        change = f"gains {-most:.2f} to {-least:.2f} dB"
    else:
        change = f"loses up to {most:.2f} dB and gains up to {-least:.2f} dB"
    return (
        f"With shuffled pixels the network {change}, depending on the noise level; it is worse "
        f"(95 % intervals above 0) at {worse} of {len(levels)} noise levels"
        + (f", and better at {better}." if better else ".")
    )


def needs(spec: Spec) -> Needs:
    """Nothing beyond training but the control and the estimates of the test images."""
    shape = open_images(spec.data).shape
    return Needs(
        shape=shape,
        before=(demand(shape),),
        passes=spec.test * len(SIGMAS),
        stored=8 * spec.test * len(SIGMAS) + 4 * EXAMPLES * math.prod(shape),
        field="data: size",
    )


STUDY = of_trials(
    name="shuffled",
    spec=Spec,
    count=lambda spec: 2 * spec.replicates,
    trials=trials,
    measure=measure,
    key=key,
    summarise=summarise,
    needs=needs,
    reads=("data",),
    check=check_split,
)
run = STUDY.run
