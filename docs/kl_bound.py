"""Measure the tables and draw the figure of "The KL bound" in docs/optimality.md.

python docs/kl_bound.py

Small UNets trained on a Gaussian mixture whose posterior mean is known, and two controls.
"""

import math
from pathlib import Path

import torch
from torch import Tensor

from twinscore.analysis.levels import LevelIntegral
from twinscore.analysis.optimality import (
    Gaps,
    KLBound,
    LazyImages,
    gaps,
    kl_bound,
    kl_bound_between_twins,
    twin_errors,
    variance_integral,
)
from twinscore.denoisers import Denoiser, NetworkSpec, build
from twinscore.denoisers.closed_form import Gaussian, GaussianMixture
from twinscore.denoisers.layers import generator_of
from twinscore.images.synthetic import MixtureLaw, mixture, mixture_law
from twinscore.report import style
from twinscore.runs import derive_seed
from twinscore.sampling import ancestral, noise
from twinscore.training import TrainingSpec, fit, single_device

SIZE, COMPONENTS, SEED = 8, 3, 0
IMAGES, TRAINED = 2000, 20_000
ENDS = {"sigma_min": 0.05, "sigma_max": 1.0}
LEVELS = (0.05, 0.1, 0.2, 0.5, 1.0)
NETWORK = NetworkSpec(width=16, levels=2)
STEPS = (100, 500, 2000)


def covariance_of(spectrum: Tensor) -> Tensor:
    """Covariance (d, d) of a periodic stationary field, from its spectrum (H, W)."""
    d = spectrum.numel()
    impulses = torch.eye(d, dtype=spectrum.dtype).view(d, *spectrum.shape)
    return torch.fft.ifft2(torch.fft.fft2(impulses) * spectrum).real.view(d, d)


def optimal(law: MixtureLaw) -> GaussianMixture:
    return GaussianMixture.of(law.weights, law.means[:, None], covariance_of(law.spectra[0]))


def moments(law: MixtureLaw) -> Gaussian:
    """The Gaussian of the same mean and covariance."""
    mean = (law.weights[:, None, None] * law.means).sum(0)
    apart = (law.means - mean).flatten(1)
    between = (apart.T * law.weights) @ apart
    return Gaussian.of(mean[None], covariance_of(law.spectra[0]) + between)


def trained(law: MixtureLaw, steps: int, twin: int) -> Denoiser:
    """A network fitted to images that no other twin and no measurement sees."""
    first = (1 + twin) * 10**6
    images, _ = mixture(range(first, first + TRAINED), law, seed=SEED)
    network = build(NETWORK, 1, derive_seed(SEED, "weights", twin))
    spec = TrainingSpec(steps=steps, batch=64, optimizer="adam", levels="independent")
    return fit(network, images, spec, seed=twin, fabric=single_device("cpu"))


def shown(value: float, low: float, high: float) -> str:
    return f"{value:.3g} [{low:.3g}, {high:.3g}]"


def row(name: str, found: LevelIntegral) -> None:
    value = shown(found.value, found.low, found.high)
    print(f"| {name} | {value} | {found.quadrature_error:.1g} | {len(found.sigmas)} |", flush=True)


def print_gaps(name: str, denoiser: Denoiser, best: Denoiser, images: LazyImages) -> None:
    found = gaps(denoiser, best, images, LEVELS, seed=SEED)
    for k, sigma in enumerate(LEVELS):
        cells = [
            shown(part.value[k], part.low[k], part.high[k])
            for part in (found.decibels, found.mse, found.distance)
        ]
        print(f"| {name} | {sigma:g} | {' | '.join(cells)} |", flush=True)


def print_twins(twins: list[Denoiser], best: Denoiser, images: LazyImages) -> None:
    split = twin_errors(twins, images, LEVELS, seed=SEED)
    least = gaps(best, lambda y, sigma: torch.zeros_like(y), images, LEVELS, seed=SEED)
    for k, sigma in enumerate(LEVELS):
        cells = [
            shown(part.value[k], part.low[k], part.high[k])
            for part in (split.variance, split.common)
        ]
        print(f"| {sigma:g} | {' | '.join(cells)} | {least_error(least, k):.3g} |", flush=True)


def least_error(found: Gaps, k: int) -> float:
    """Error of the first of two denoisers, from the ratio and the difference of the two errors."""
    ratio = 10 ** (found.decibels.value[k] / 10)
    return found.mse.value[k] * ratio / (ratio - 1)


def samples_of(denoiser: Denoiser, mean: float) -> Tensor:
    start = noise(range(1000), (1, SIZE, SIZE))
    return ancestral(denoiser, start, seeds=range(1000), mean=mean, steps=100)


def divergence(law: MixtureLaw, images: Tensor, sigma: float) -> tuple[float, float]:
    """KL of the mixture from the Gaussian of its moments at a level, and its standard error."""
    z = torch.randn(images.shape, generator=generator_of(SEED), dtype=images.dtype)
    y = images + sigma * z
    gap = optimal(law).log_density(y, sigma) - moments(law).log_density(y, sigma)
    return gap.mean().item(), gap.std().item() / math.sqrt(len(gap))


def draw_figure(path: Path, bounds: dict[str, KLBound]) -> None:
    with style.applied("light"):
        figure = style.new_figure(2.6)
        left, right = figure.subplots(1, 2)
        for name, bound in bounds.items():
            left.loglog(bound.sigmas, bound.gaps / SIZE**2, label=name)
            right.loglog(bound.sigmas[1:], bound.cumulative[1:])
        left.set_xlabel("noise level")
        left.set_ylabel("squared distance per pixel")
        right.set_xlabel("least noise level")
        right.set_ylabel("bound, nats")
        left.legend(fontsize=6)
        path.write_bytes(style.png(figure))


def main() -> None:
    law = mixture_law(SIZE, COMPONENTS, seed=SEED)
    best = optimal(law)
    images = LazyImages(lambda indices: mixture(indices, law, seed=SEED)[0], IMAGES)
    networks = {f"UNet, {steps} steps": trained(law, steps, 0) for steps in STEPS}
    denoisers = networks | {"Gaussian of the same moments": moments(law)}
    bounds = {
        name: kl_bound(denoiser, best, images, seed=SEED, **ENDS)
        for name, denoiser in denoisers.items()
    }
    for name, bound in bounds.items():
        row(name, bound)
    print(f"start {bound.start:.3f}, standard error {bound.start_error:.3f}")
    fresh = mixture(range(10**7, 10**7 + 50_000), law, seed=SEED)[0].double()
    for sigma in ENDS.values():
        value, error = divergence(law, fresh, sigma)
        print(f"KL of the Gaussian at {sigma:g}: {value:.4f}, standard error {error:.4f}")
    print_gaps("UNet, 2000 steps", networks["UNet, 2000 steps"], best, images)
    twins = [networks["UNet, 500 steps"], trained(law, 500, 1)]
    row("twins of 500 steps: variance", variance_integral(twins, images, seed=SEED, **ENDS))
    row("the other twin", kl_bound(twins[1], best, images, seed=SEED, **ENDS))
    samples = samples_of(twins[0], law.means.mean().item())
    row("between twins", kl_bound_between_twins(*twins, samples, seed=SEED, **ENDS))
    print_twins(twins, best, images)
    draw_figure(Path(__file__).parent / "figures" / "kl_bound.png", bounds)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
