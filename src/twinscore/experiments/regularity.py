"""C-alpha images: does a network denoise at the optimal rate? docs/formulas.md#c-alpha-images."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator

from twinscore.analysis import slopes
from twinscore.analysis.bases import compare_bases
from twinscore.analysis.denoising import error_table
from twinscore.denoisers import Checkpoint, NetworkSpec
from twinscore.denoisers.shrinkage import Bandlets, Cosines, Thresholding, Wavelets, oracle_risk
from twinscore.execution import Report
from twinscore.experiments.estimates import Needs, core_seconds
from twinscore.experiments.intervals import columns, found_by, numbers, of_replicates, psnr
from twinscore.experiments.study import Arrays, Summary, csv_text, of_trials, stacked
from twinscore.experiments.synthetic import MOST_IMAGES, AtLevels, InputPsnrs, fresh_trials
from twinscore.experiments.trials import Trial, open_images
from twinscore.limits import MOST_REPLICATES, Listed
from twinscore.results.base import Interval
from twinscore.results.regularity import NETWORK, Class, Contrast, Curve, Generator, Result
from twinscore.runs import derive_seed
from twinscore.training import TrainingSpec, single_device

ORACLES = {
    "cosines oracle": Cosines(block=8),
    "wavelets oracle": Wavelets(),
    "best-basis oracle": Bandlets(geometry_cost=0),
}
"""Keep-or-kill, with the clean image's coefficients."""
ESTIMATORS = {
    "cosines": Thresholding(Cosines(block=8), multiple=3.0),
    "wavelets": Thresholding(Wavelets(), multiple=3.0),
    "best basis": Thresholding(Bandlets(geometry_cost=2), multiple=3.0),
}
"""Hard thresholds at 3 sigma on noisy images, as in docs/shrinkage.md."""
METHODS = (NETWORK, *ESTIMATORS, *ORACLES)
COMMON_RANGE = (10.0, 31.0)
"""Where slopes are fitted unless the spec says otherwise, dB of input PSNR. A run that fits another
range gives its contrasts over this one too."""
MOST_ALPHA = 10.0
MEASURES_VERSION = 2  # bumped when the same trial gives other measures
_TIMED = 2**14  # pixels on which the baselines are timed, of at least one image


class Spec(AtLevels):
    """Networks trained on C-alpha images, and how fast their error falls with the noise."""

    alphas: Listed[float] = (1.0, 2.0, 3.0)
    """Regularities; each trains its own networks."""
    generators: Listed[Generator] = ("published", "regularity")
    """Filters of the noise the images are made of: published has exponents alpha, alpha (true
    regularity alpha - 1/2 of the contour, alpha - 1 of the backgrounds), regularity has alpha + 1/2
    and alpha + 1 (true regularity alpha of both)."""
    size: int = Field(default=32, ge=16, le=1024, multiple_of=8)
    """Side of the images, pixels."""
    n: int | None = Field(default=None, ge=1, le=MOST_IMAGES)
    """Training images; by default as many as are shown, so that none is seen twice."""
    test: int = Field(default=256, ge=2, le=MOST_IMAGES)
    """Images never trained on, for each replicate others."""
    replicates: int = Field(default=2, ge=1, le=MOST_REPLICATES)
    """Networks for each class, on other images and from other weights; with 1, intervals cover the
    test images only."""
    levels: InputPsnrs = tuple(float(level) for level in range(4, 41, 3))
    """Noise levels as input PSNR, -20 log10(sigma), dB."""
    fit_range: tuple[float, float] = COMMON_RANGE
    """Least and largest input PSNR of the fitted slope, dB. A range that was chosen after looking
    at runs, as that of quick-c-alpha was, is exploratory: confirm it with another seed."""
    eigenvectors: int = Field(default=12, ge=1, le=64)
    """Eigenvectors of each network's Jacobian that are shown, at one image."""
    seed: int = Field(default=0, ge=0, le=MOST_IMAGES)
    """Seed of images, weights and noise."""
    network: NetworkSpec = NetworkSpec()
    """The denoiser."""
    training: TrainingSpec = TrainingSpec()
    """How it is trained."""

    @field_validator("alphas")
    @classmethod
    def _alphas(cls, alphas: tuple[float, ...]) -> tuple[float, ...]:
        outside = [alpha for alpha in alphas if not 0 < alpha <= MOST_ALPHA]
        if outside or not alphas:
            raise ValueError(
                f"give one or more alphas above 0 and up to {MOST_ALPHA:g}, got {list(alphas)}"
            )
        return tuple(sorted(set(alphas)))

    @field_validator("generators")
    @classmethod
    def _generators(cls, generators: tuple[Generator, ...]) -> tuple[Generator, ...]:
        if not generators:
            raise ValueError("give published, regularity or both")
        return tuple(dict.fromkeys(generators))

    @model_validator(mode="after")
    def _check(self) -> Self:
        try:
            slopes.levels_inside(self.sigmas, self.fit_range)
        except ValueError as error:
            raise ValueError(f"fit_range: {error}") from None
        if self.images > MOST_IMAGES:
            per_replicate = MOST_IMAGES // self.replicates - self.test
            raise ValueError(
                f"n: {self.replicates} networks would be trained on {self.trained_on:,} images "
                f"each, and a class has {MOST_IMAGES:,}; give n, at most {per_replicate:,}"
            )
        return self

    @property
    def middle(self) -> float:
        """Noise level in the middle of the fit range, at which eigenvectors are shown."""
        return 10 ** (-(sum(self.fit_range) / 2) / 20)

    @property
    def classes(self) -> list[tuple[float, Generator]]:
        """Pairs of an alpha and a generator."""
        return [(alpha, generator) for generator in self.generators for alpha in self.alphas]

    @property
    def shown(self) -> int:
        """Images that a training is shown, repeated ones counted again."""
        return self.training.steps * self.training.batch

    @property
    def trained_on(self) -> int:
        """Different training images."""
        return self.n or self.shown

    @property
    def held(self) -> bool:
        """Whether training images are shown more than once, and so kept rather than made again."""
        return self.trained_on < self.shown

    @property
    def images(self) -> int:
        """Images of a class: each replicate's test images, then its training images."""
        return self.replicates * (self.test + self.trained_on)

    def source(self, alpha: float, generator: Generator) -> str:
        """The images of a class, as every command names them."""
        of = f"alpha={alpha},filter={generator},size={self.size}"
        return f"c_alpha:{of},count={self.images},seed={self.seed}"


def trials(spec: Spec, report: Report) -> list[Trial]:
    """A network for each class and replicate; no two replicates share an image."""
    found = []
    for alpha, generator in spec.classes:
        source, part = spec.source(alpha, generator), f"alpha = {alpha:g}, {generator}"
        found += fresh_trials(spec, source, spec.trained_on, report, held=spec.held, part=part)
    return found


def key(spec: Spec, trial: Trial) -> dict[str, Any]:
    """What the measures depend on besides the weights."""
    return {
        "version": MEASURES_VERSION,
        "test": trial.test.tolist(),
        "sigmas": spec.sigmas,
        "sigma": spec.middle,
        "eigenvectors": 0 if trial.replicate else spec.eigenvectors,
    }


def measure(spec: Spec, trial: Trial, model: Checkpoint, report: Report) -> Arrays:
    """Errors of network and baselines on the T test images of a trial, at each of K levels.

    Returns
    -------
    dict
        ``mse/<method>`` for each of ``METHODS``, (K, T): squared error per pixel, expected for
        oracles; and, of the first replicate, what ``compare_bases`` gives.
    """
    device = single_device(trial.device).device
    network = model.on(device)
    x = open_images(trial.source)[trial.test].to(device)
    seed = derive_seed(trial.seed, "psnr", trial.replicate)
    arrays = {
        f"mse/{name}": error_table(denoiser, x, spec.sigmas, seed=seed)
        for name, denoiser in ({NETWORK: network} | ESTIMATORS).items()
    }
    for name, dictionary in ORACLES.items():
        risks = [oracle_risk(x, s, dictionary) / x[0].numel() for s in spec.sigmas]
        arrays[f"mse/{name}"] = torch.stack(risks).cpu().double().numpy()
    if trial.replicate == 0:
        noise = torch.randn(x[:1].shape, generator=torch.Generator().manual_seed(seed)).to(x)
        arrays |= compare_bases(network, x[:1], noise, spec.middle, spec.eigenvectors)
    return arrays


def summarise(spec: Spec, done: Sequence[tuple[Trial, Arrays]]) -> Summary[Result]:
    """Slopes and contrasts of the classes that are done; pictures of their first replicates."""
    measured = {}
    for of in spec.classes:
        replicates = [arrays for trial, arrays in done if trial.source == spec.source(*of)]
        if replicates:
            names = [f"mse/{method}" for method in METHODS]
            measured[of] = replicates[0] | stacked(replicates, names)
    classes = [_class(spec, *of, arrays) for of, arrays in measured.items()]
    found = contrasts(spec, measured)
    result = Result(
        verdict=verdict(spec, classes, found),
        levels=list(spec.levels),
        fit_range=spec.fit_range,
        trained_on=spec.trained_on,
        shown=spec.shown,
        classes=classes,
        contrasts=found,
    )
    arrays = {
        f"{generator}/{alpha:g}/{name}": values
        for (alpha, generator), of in measured.items()
        for name, values in of.items()
    }
    return Summary(result, arrays, _tables(spec, classes))


def _class(spec: Spec, alpha: float, generator: Generator, arrays: Arrays) -> Class:
    regularity = alpha if generator == "regularity" else max(alpha - 1, 0.0)
    return Class(
        alpha=alpha,
        generator=generator,
        theory=alpha / (alpha + 1),
        of_filter=regularity / (regularity + 1),
        asymmetry=arrays["asymmetry"].item(),
        curves=[_curve(spec, method, arrays[f"mse/{method}"]) for method in METHODS],
    )


def _curve(spec: Spec, method: str, errors: NDArray) -> Curve:
    """Curve, slope and local slopes of one method from errors (R, K, T)."""
    seed = derive_seed(spec.seed, "slope", method)
    return Curve(
        method=method,
        slope=_interval(
            slopes.fitted_slope(spec.sigmas, errors, spec.fit_range, seed=seed), len(errors)
        ),
        psnr=[of_replicates(level, psnr, seed) for level in errors.transpose(1, 0, 2)],
        mean_psnr=(-10 * np.log10(errors)).mean((0, 2)).tolist(),
        local=[
            _interval(s, len(errors))
            for s in slopes.fitted_local_slopes(spec.sigmas, errors, seed=seed)
        ],
    )


def _interval(slope: slopes.Slope, replicates: int) -> Interval:
    return Interval(value=slope.value, low=slope.low, high=slope.high, **found_by(replicates))


def contrasts(spec: Spec, measured: Mapping[tuple[float, Generator], Arrays]) -> list[Contrast]:
    """Differences of slopes between the largest and the smallest alpha of each generator.

    They are paired: two classes of one replicate share the initial weights, the order and noise of
    training, and the numbers and noise of their test images.
    """
    seed = derive_seed(spec.seed, "contrast")

    def difference(*pair: NDArray, within: tuple[float, float]) -> Interval:
        found = slopes.slope_difference(spec.sigmas, *pair, within, seed=seed)
        return _interval(found, len(pair[0]))

    low, high = COMMON_RANGE
    inside = sum(low <= level <= high for level in spec.levels)
    has_common = spec.fit_range != COMMON_RANGE and inside >= slopes.LEAST_LEVELS
    found = []
    for generator in spec.generators:
        alphas = sorted(alpha for alpha, of in measured if of == generator)
        if len(alphas) < 2:
            continue
        ends = alphas[0], alphas[-1]
        for method in METHODS:
            pair = [measured[alpha, generator][f"mse/{method}"] for alpha in ends]
            contrast = Contrast(
                generator=generator,
                method=method,
                alphas=ends,
                difference=difference(*pair, within=spec.fit_range),
                common=difference(*pair, within=COMMON_RANGE) if has_common else None,
                theory=ends[1] / (ends[1] + 1) - ends[0] / (ends[0] + 1),
            )
            found.append(contrast)
    return found


def verdict(spec: Spec, classes: Sequence[Class], contrasts: Sequence[Contrast]) -> str:
    """The run in a sentence: is the slope larger where images are more regular?"""
    low, high = spec.fit_range
    where = f"from {low:g} to {high:g} dB of input PSNR"
    parts = [
        f"with the {contrast.generator} filter the network's slope at alpha = "
        f"{contrast.alphas[1]:g} is {_compared(contrast)}"
        for contrast in contrasts
        if contrast.method == NETWORK
    ]
    if parts:
        return f"On C-alpha images, {where}: {'; '.join(parts)}."
    ends = "; ".join(
        f"{c.curve(NETWORK).slope.text(3)} at alpha = {c.alpha:g} with the {c.generator} filter "
        f"(theory {c.theory:.3f})"
        for c in classes
    )
    return f"On C-alpha images, {where}, the network's slope is {ends}."


def _compared(contrast: Contrast) -> str:
    by, least = contrast.difference.text(3), f"that at alpha = {contrast.alphas[0]:g}"
    if contrast.difference.low > 0:
        said = f"above {least} by {by}"
    elif contrast.difference.high < 0:
        said = f"not above but below {least}: difference {by}"
    else:
        said = f"not told apart from {least}: difference {by}"
    beside = f"theory {contrast.theory:.3f}"
    if contrast.common:
        low, high = COMMON_RANGE
        beside += f"; the difference from {low:g} to {high:g} dB is {contrast.common.text(3)}"
    return f"{said} ({beside})"


def _tables(spec: Spec, classes: Sequence[Class]) -> dict[str, str]:
    """Every curve and every local slope as CSV, a row for each class, method and level or pair."""
    named = [((c.generator, c.alpha, curve.method), curve) for c in classes for curve in c.curves]
    inputs = list(zip(spec.sigmas, spec.levels, strict=True))
    levels = [
        (*name, *at, *numbers(psnr), mean)
        for name, of in named
        for at, psnr, mean in zip(inputs, of.psnr, of.mean_psnr, strict=True)
    ]
    local = [
        (*name, *ends, *numbers(slope))
        for name, of in named
        for ends, slope in zip(pairwise(spec.levels), of.local, strict=True)
    ]
    psnrs, ends = [*columns(["psnr"]), "mean_psnr"], columns(["slope"])
    return {
        "levels.csv": _csv(["sigma", "input_psnr", *psnrs], levels),
        "local_slopes.csv": _csv(["from_input_psnr", "to_input_psnr", *ends], local),
    }


def _csv(names: Sequence[str], rows: Sequence[tuple[str | float, ...]]) -> str:
    cells = [[x if isinstance(x, str) else f"{x:.6g}" for x in row] for row in rows]
    return csv_text(["generator", "alpha", "method", *names], cells)


def needs(spec: Spec) -> Needs:
    """Baselines at each level, and a whole Jacobian for the first replicate of each class."""
    pixels, values = spec.size**2, len(spec.levels) * spec.test
    pictures = 4 * (4 + 2 * spec.eigenvectors) + 8 * 4  # float32, and residuals in four bases
    return Needs(
        shape=(1, spec.size, spec.size),
        held=spec.trained_on if spec.held else 0,
        jacobians=1,
        passes=values + 3 * pixels / spec.replicates,
        stored=8 * values * len(METHODS) + pictures * pixels / spec.replicates,
        seconds=lambda device: values * baseline_seconds(spec.size, device),
    )


def baseline_seconds(size: int, device: str) -> float:
    """Time of all baselines at one noise level, for each image of this side, from a few at once."""
    count = max(1, _TIMED // size**2)
    x = torch.rand((count, 1, size, size), generator=torch.Generator().manual_seed(0))
    x = x.to(single_device(device).device)

    def baselines() -> None:
        for estimator in ESTIMATORS.values():
            estimator(x, 0.1)
        for dictionary in ORACLES.values():
            oracle_risk(x, 0.1, dictionary).cpu()  # waits for the device

    core_seconds(baselines)  # tables of the transforms are made once
    return core_seconds(baselines) / count


STUDY = of_trials(
    name="regularity",
    spec=Spec,
    count=lambda spec: len(spec.classes) * spec.replicates,
    trials=trials,
    measure=measure,
    key=key,
    summarise=summarise,
    needs=needs,
    extendable=("alphas", "generators"),
)
run = STUDY.run
