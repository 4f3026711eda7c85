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
    Drawn,
    KLBound,
    gaps,
    kl_bound,
    kl_bound_between_twins,
    twin_errors,
    variance_integral,
)
from twinscore.denoisers import Denoiser, NetworkSpec, build
from twinscore.denoisers.closed_form import Gaussian, GaussianMixture
from twinscore.images.synthetic import MixtureLaw, mixture, mixture_law
from twinscore.report import style
from twinscore.runs import derive_seed
from twinscore.sampling import noise, noise_levels, solvers
from twinscore.training import TrainingSpec, fit, single_device

SIZE, COMPONENTS, SEED = 8, 3, 0
IMAGES, TRAINED = 2000, 20_000
ENDS = {"sigma_min": 0.05, "sigma_max": 10.0}
LEVELS = (0.05, 0.1, 0.2, 0.4, 0.8)
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
    spec = TrainingSpec(steps=steps, batch=64, noise="log", sigma_max=ENDS["sigma_max"])
    return fit(network, images, spec, seed=twin, fabric=single_device("cpu"))


def shown(value: float, low: float, high: float) -> str:
    return f"{value:.3g} [{low:.3g}, {high:.3g}]"


def row(name: str, found: LevelIntegral) -> None:
    cells = [
        shown(found.value, found.low, found.high),
        f"{found.quadrature_error:.1g}",
        str(len(found.sigmas)),
    ]
    print(f"| {name} | {' | '.join(cells)} |", flush=True)


def divergence(law: MixtureLaw, sigma: float, count: int = 20_000) -> str:
    """KL of the mixture from the Gaussian of the same moments, by Monte Carlo of log densities."""
    x = mixture(range(-count - 1 + 10**8, 10**8 - 1), law, seed=SEED)[0].double()
    y = x + sigma * torch.randn(
        x.shape, generator=torch.Generator().manual_seed(SEED), dtype=x.dtype
    )
    gap = optimal(law).log_density(y, sigma) - moments(law).log_density(y, sigma)
    half = 1.96 * gap.std().item() / math.sqrt(count)
    return shown(gap.mean().item(), gap.mean().item() - half, gap.mean().item() + half)


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
