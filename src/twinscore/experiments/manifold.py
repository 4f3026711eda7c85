"""Discs: how far is a network from the optimum of a smooth five-dimensional class? ([GAHB] 3.2)."""

from collections.abc import Sequence
from typing import Annotated, Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from torch import Tensor

from twinscore.analysis.jacobian import decompose, linearise
from twinscore.analysis.statistics import Statistic
from twinscore.analysis.tangent import extra_directions, principal_cosines
from twinscore.denoisers import Checkpoint, Denoiser, NetworkSpec, check
from twinscore.denoisers.closed_form import Disc, LinearSubspace, disc_tangent
from twinscore.errors import InputError
from twinscore.execution import Report
from twinscore.experiments.estimates import Needs, core_seconds
from twinscore.experiments.intervals import columns, of_replicates, psnr, texts
from twinscore.experiments.study import Arrays, Summary, csv_text, of_trials, stacked
from twinscore.experiments.synthetic import MOST_IMAGES, AtLevels, InputPsnrs, fresh_trials
from twinscore.experiments.trials import Trial
from twinscore.images.synthetic import discs
from twinscore.limits import MOST_REPLICATES
from twinscore.results.base import Interval
from twinscore.results.manifold import Beside, Level, Result
from twinscore.runs import derive_seed
from twinscore.training import TrainingSpec, single_device

DIMENSION = 5  # of the manifold of discs: centre, radius, foreground, background
LARGEST = 64  # eigenvalues that are kept of each Jacobian
SHOWN = 10  # eigenvectors that are shown at each noise level
NEAR_ONE = 0.9  # an eigenvalue above it is near 1: almost nothing of its direction is taken away
MEASURES_VERSION = 2  # bumped when the same trial gives other measures
VALUES = (
    *("network", "tangent", "exact", "gap_tangent", "gap_exact"),
    *("kept", "kept_exact", "near_one", "near_one_exact", "overlap"),
)
"""The numbers with intervals of a ``Level``."""
_PRODUCTS = 300  # pixels at which the products of a Jacobian take as long as a call, about

Radius = Annotated[float, Field(ge=0.25, le=1024)]


class Spec(AtLevels):
    """Networks trained on discs, beside the optimal denoiser of discs."""

    size: int = Field(default=16, ge=8, le=1024, multiple_of=8)
    """Side of the images, pixels."""
    radius: tuple[Radius, Radius] | None = None
    """Least and largest radius, pixels; by default a tenth and four tenths of the side."""
    edge: float = Field(default=1.0, ge=0.25, le=1024)
    """Width of the edge, pixels: the standard deviation of its erf profile."""
    n: int = Field(default=10_000, ge=1, le=MOST_IMAGES)
    """Training images, for each replicate others."""
    test: int = Field(default=256, ge=2, le=MOST_IMAGES)
    """Discs never trained on, for each replicate others."""
    exact: int = Field(default=6, ge=0, le=MOST_IMAGES)
    """Of the test discs, those whose exact posterior mean is computed: about a second each at 16x16
    pixels and more in proportion to the pixels, their Jacobians to the square. With 0 the tangent
    projection is the only reference."""
    bases: int = Field(default=6, ge=1, le=MOST_IMAGES)
    """Of the test discs, those at which the Jacobian is decomposed."""
    levels: InputPsnrs = (10.0, 20.0, 30.0, 40.0)
    """Noise levels as input PSNR, -20 log10(sigma), dB."""
    threshold: float = Field(default=0.5, gt=0, lt=1)
    """A direction whose eigenvalue is above it counts as kept; those above 0.9, as near 1, are
    counted too."""
    replicates: int = Field(default=2, ge=1, le=MOST_REPLICATES)
    """Networks, on other images and from other weights; with 1, intervals cover the test discs
    only."""
    seed: int = Field(default=0, ge=0, le=MOST_IMAGES)
    """Seed of images, weights and noise."""
    network: NetworkSpec = NetworkSpec()
    """The denoiser."""
    training: TrainingSpec = TrainingSpec()
    """How it is trained."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in ("exact", "bases"):
            if getattr(self, name) > self.test:
                raise ValueError(
                    f"{name}: {getattr(self, name)} is more than the {self.test} test discs; "
                    f"give at most {self.test}"
                )
        if self.images > MOST_IMAGES:
            raise ValueError(
                f"n: {self.replicates} replicates take {self.images:,} discs, and there are "
                f"{MOST_IMAGES:,}; give n of at most {MOST_IMAGES // self.replicates - self.test:,}"
            )
        try:
            discs([0], **self.kind)
        except InputError as error:
            raise ValueError(str(error)) from None
        return self

    @property
    def kind(self) -> dict[str, Any]:
        """What the discs are."""
        return {"size": self.size, "radius": self.radius, "edge": self.edge}

    @property
    def images(self) -> int:
        """Discs of the run: each replicate's test discs, then its training images."""
        return self.replicates * (self.test + self.n)

    @property
    def source(self) -> str:
        """The discs, as every command names them."""
        radius = "" if self.radius is None else f"radius={self.radius[0]}..{self.radius[1]},"
        return (
            f"discs:size={self.size},{radius}edge={self.edge},count={self.images},seed={self.seed}"
        )


def trials(spec: Spec, report: Report) -> list[Trial]:
    """A network for each replicate; no two replicates share a disc."""
    return fresh_trials(spec, spec.source, spec.n, report, held=True)


def key(spec: Spec, trial: Trial) -> dict[str, Any]:
    """What the measures depend on besides the weights."""
    fields = {"size", "radius", "edge", "exact", "bases", "levels", "threshold"}
    asked = spec.model_dump(mode="json", include=fields)
    return {"version": MEASURES_VERSION} | asked | {"test": trial.test.tolist()}


def measure(spec: Spec, trial: Trial, model: Checkpoint, report: Report) -> Arrays:
    """Set a denoiser beside the optimum, on the T test discs of a trial, with the same noise.

    A disc has the same noise, times sigma, at each of K levels. What needs float64, which not
    every device has, is computed on the CPU.

    Returns
    -------
    dict
        ``mse/network``, ``mse/tangent`` (K, T), ``mse/exact`` (K, E): squared error per pixel of
        the denoiser, of the projection on the tangent at the true disc, of the exact posterior
        mean. ``eigenvalues/network`` (K, J, 64) and ``eigenvalues/exact`` (K, min(E, J), 64): the
        largest of the symmetric part, falling. ``kept/network`` and ``kept/exact``: how many exceed
        the threshold; ``near_one/...``: how many exceed 0.9. ``cosines`` (K, J, 5): of the
        principal angles between the tangent and the span of the kept eigenvectors, falling, 0 where
        there are fewer. ``shown/...``: pictures at the disc of most contrast among the J.
    """
    device = single_device(trial.device).device
    denoiser, seed = model.on(device), derive_seed(trial.seed, "noise", trial.replicate)
    x, parameters = discs(trial.test, seed=spec.seed, device=device, **spec.kind)
    z = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed)).to(x)
    planes = [disc_tangent(p, spec.size, edge=spec.edge) for p in parameters.cpu().double()]
    contrast = (parameters[: spec.bases, 3] - parameters[: spec.bases, 4]).abs()
    chosen = int(contrast.argmax())
    levels = []
    for level, sigma in zip(spec.levels, spec.sigmas, strict=True):
        report("measuring", {"text": f"input PSNR {level:g} dB"})
        y = x + sigma * z
        found = _errors(denoiser, x, y, sigma, planes, spec)
        levels.append(found | _bases(denoiser, y, sigma, planes, spec, chosen))
    shown = {"shown/clean": x[chosen], "shown/tangent": planes[chosen].basis}
    return stacked(levels) | {name: _array(value) for name, value in shown.items()}


def _errors(
    denoiser: Denoiser, x: Tensor, y: Tensor, sigma: float, planes: list[LinearSubspace], spec: Spec
) -> Arrays:
    """Squared error per pixel of each method on each disc."""
    with torch.no_grad():
        parts = y.split(spec.training.batch)
        found = {"network": torch.cat([check(denoiser, part, sigma) for part in parts])}
    found["tangent"] = torch.cat([f(one[None], sigma) for f, one in zip(planes, y, strict=True)])
    if spec.exact:
        found["exact"] = Disc(**spec.kind)(y[: spec.exact].cpu().double(), sigma)
    return {
        f"mse/{name}": _array((f.cpu() - x[: len(f)].cpu()).double().square().flatten(1).mean(1))
        for name, f in found.items()
    }


def _bases(
    denoiser: Denoiser,
    y: Tensor,
    sigma: float,
    planes: list[LinearSubspace],
    spec: Spec,
    chosen: int,
) -> Arrays:
    """Eigenbases of the denoiser's Jacobian and of the optimum's, on the first discs."""
    spectra: dict[str, list[Tensor]] = {"network": [], "exact": []}
    cosines, shown = [], {}
    for i, plane in enumerate(planes[: spec.bases]):
        here, tangent = y[i : i + 1], plane.basis.flatten(1)
        whole = decompose(linearise(denoiser, here, sigma))
        values, vectors = whole.values, whole.vectors
        spectra["network"].append(values)
        cosines.append(principal_cosines(vectors[values > spec.threshold], tangent))
        if i < spec.exact:
            optimal = Disc(**spec.kind).jacobian(here.cpu().double(), sigma)[0]
            spectra["exact"].append(torch.linalg.eigvalsh(optimal).flip(0))
        if i == chosen:
            extra = extra_directions(whole.symmetric, tangent)
            pairs = {"eigen": (values, vectors), "extra": extra}
            shown = {"noisy": here[0], "denoised": denoiser(here, sigma)[0]}
            for name, (shares, directions) in pairs.items():
                shown[f"{name}values"] = shares[:SHOWN]
                shown[f"{name}vectors"] = directions[:SHOWN].view(-1, *here.shape[1:])
    found = {"cosines": torch.stack(cosines)}
    for name, of in spectra.items():
        if of:
            stacked = torch.stack(of)
            found[f"eigenvalues/{name}"] = stacked[:, :LARGEST]
            found[f"kept/{name}"] = (stacked > spec.threshold).sum(1).double()
            found[f"near_one/{name}"] = (stacked > NEAR_ONE).sum(1).double()
    found |= {f"shown/{name}": value for name, value in shown.items()}
    return {name: _array(value) for name, value in found.items()}


def _array(values: Tensor) -> NDArray:
    return values.detach().cpu().numpy()


def summarise(spec: Spec, done: Sequence[tuple[Trial, Arrays]]) -> Summary[Result]:
    """Errors, gaps and eigenvalues of the replicates that are done; pictures of the first."""
    first, measured = done[0][1], [arrays for _, arrays in done]
    shown = {name: values for name, values in first.items() if name.startswith("shown/")}
    arrays = stacked(measured, first.keys() - shown)
    levels = [
        _level(spec, k, {name: values[:, k] for name, values in arrays.items()})
        for k in range(len(spec.levels))
    ]
    result = Result(
        verdict=_verdict(spec, levels),
        size=spec.size,
        threshold=spec.threshold,
        test=spec.test,
        exact=spec.exact,
        bases=spec.bases,
        replicates=len(measured),
        levels=levels,
        dimension=DIMENSION,
        near_one=NEAR_ONE,
    )
    rows = [
        [f"{level.sigma:.6g}", f"{level.input_psnr:g}", *texts(level, VALUES, ".6f")]
        for level in levels
    ]
    table = csv_text(["sigma", "input_psnr", *columns(VALUES)], rows)
    return Summary(result, arrays | shown, {"levels.csv": table})


def _level(spec: Spec, k: int, arrays: Arrays) -> Level:
    """Numbers of one noise level from arrays (R, discs, ...)."""
    seed = derive_seed(spec.seed, "intervals")
    network, tangent, exact = (arrays.get(f"mse/{of}") for of in ("network", "tangent", "exact"))

    def interval(values: NDArray | None, statistic: Statistic = np.mean) -> Interval | None:
        return None if values is None else of_replicates(values, statistic, seed)

    counts = {
        f"{name}{suffix}": interval(arrays.get(f"{name}/{of}"))
        for name in ("kept", "near_one")
        for suffix, of in (("", "network"), ("_exact", "exact"))
    }
    return Level(
        sigma=spec.sigmas[k],
        input_psnr=spec.levels[k],
        network=interval(network, psnr),
        tangent=interval(tangent, psnr),
        exact=interval(exact, psnr),
        gap_tangent=_gap(network, tangent, seed),
        gap_exact=None if exact is None else _gap(network, exact, seed),
        beside_exact=None if exact is None else _beside(network, tangent, exact.shape[1], seed),
        **counts,
        overlap=interval(np.square(arrays["cosines"]).sum(2) / DIMENSION),
        cosines=arrays["cosines"].mean((0, 1)).tolist(),
    )


def _beside(network: NDArray, tangent: NDArray, count: int, seed: int) -> Beside:
    """Of the first discs alone."""
    network, tangent = network[:, :count], tangent[:, :count]
    return Beside(
        network=of_replicates(network, psnr, seed),
        tangent=of_replicates(tangent, psnr, seed),
        gap_tangent=_gap(network, tangent, seed),
    )


def _gap(errors: NDArray, reference: NDArray, seed: int) -> Interval:
    """How many dB the mean of ``errors`` (R, T) is above that of ``reference`` (R, E).

    Of the first E discs, disc by disc paired; the mean of the replicates' gaps.
    """
    pairs = np.stack([errors[:, : reference.shape[1]], reference], axis=2)
    return of_replicates(pairs, _decibels, seed)


def _decibels(drawn: NDArray, axis: int) -> NDArray[np.float64]:
    network, reference = drawn.mean(axis).T
    return 10 * np.log10(network / reference)


def _verdict(spec: Spec, levels: Sequence[Level]) -> str:
    """The run in a sentence: the gap at the largest and the smallest noise, and what is kept."""
    exact, tangent = "the exact posterior mean", "the projection on the true disc's tangent"
    reference = exact if spec.exact else tangent
    ends = levels if len(levels) == 1 else (levels[0], levels[-1])
    sides = ["below" if end.gap.value < 0 else "above" for end in ends]
    gaps = [f"{sides[0]} that of {reference} {_by(ends[0])}"]
    if len(ends) == 2:
        turned = f"{sides[1]} it " if sides[1] != sides[0] else ""
        gaps.append(f"{turned}{_by(ends[1])}")
    last = levels[-1]
    return (
        f"On discs of {spec.size}x{spec.size} pixels the network's squared error is "
        f"{' and '.join(gaps)}, where its Jacobian has {last.kept.text(1)} eigenvalues above "
        f"{spec.threshold:g} and {last.near_one.text(1)} above {NEAR_ONE:g}; {DIMENSION} suffice."
    )


def _by(level: Level) -> str:
    """How far above or below the reference; the sign is left to the words."""
    gap = level.gap
    if gap.value < 0:
        gap = gap.model_copy(update={"value": -gap.value, "low": -gap.high, "high": -gap.low})
    return f"by {gap.text()} dB at sigma = {level.sigma:.2g}"


def needs(spec: Spec) -> Needs:
    """Held discs, whole Jacobians, and the exact posterior means."""
    pixels = spec.size**2
    return Needs(
        shape=(1, spec.size, spec.size),
        held=spec.n,
        jacobians=1,
        passes=len(spec.levels) * (spec.test + 3 * spec.bases * pixels),
        stored=8 * len(spec.levels) * (3 * spec.test + 2 * spec.bases * LARGEST)
        + 8 * len(spec.levels) * 2 * SHOWN * pixels,
        seconds=lambda device: _posterior_seconds(spec) if spec.exact else 0.0,
    )


def _posterior_seconds(spec: Spec) -> float:
    """Of a trial's posterior means and their Jacobians: each a call, and products as pixels^2."""
    sigma = spec.sigmas[len(spec.sigmas) // 2]
    x, _ = discs([0], seed=spec.seed, **spec.kind)
    z = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    call = core_seconds(lambda: Disc(**spec.kind)((x + sigma * z).double(), sigma))
    products = call * spec.size**2 / _PRODUCTS
    each = spec.exact * call + min(spec.exact, spec.bases) * (call + products)
    return len(spec.levels) * each


STUDY = of_trials(
    name="manifold",
    spec=Spec,
    count=lambda spec: spec.replicates,
    trials=trials,
    measure=measure,
    key=key,
    summarise=summarise,
    needs=needs,
)
run = STUDY.run
