"""Samplers against densities that are known: variance of Gaussian data, weights of a mixture.

    python benchmarks/moments.py [--count 4096] [--quick]

The Gaussian has the mean and covariance of the 8x8 digits; every sampler starts at its exact law
at sigma 1. Ratios are those of the samples' variance to the exact one of the estimate at sigma_min,
over all components, over the eight broadest, and over those narrower than a tenth of the broadest;
with the standard error of the first. The mixture has two 8x8 modes, of weights 0.3 and 0.7,
deviation 0.1 per pixel and a distance of 4 (0.5 per pixel); its last column is the share of samples
in the first mode, with its binomial standard error. The denoisers are exact: what is off is the
sampler.
"""

import argparse
import math
import time
from functools import partial

import torch

from twinscore import images, sampling
from twinscore.denoisers.closed_form import Gaussian, GaussianMixture
from twinscore.sampling import dpm, euler, heun, probability_flow

SIGMA_MAX, SIGMA_MIN = 1.0, 0.01
WEIGHTS = (0.3, 0.7)


def gaussian_of_digits() -> Gaussian:
    x = images.load("digits")[:].double()
    return Gaussian.of(x.mean(0), torch.cov(x.flatten(1).T))


def mixture() -> GaussianMixture:
    means = torch.full((2, 1, 8, 8), 0.25, dtype=torch.float64)
    means[1] += 0.5
    return GaussianMixture.of(
        torch.tensor(WEIGHTS, dtype=torch.float64), means, 0.1**2 * torch.eye(64).double()
    )


def flow(solver, steps):
    return partial(probability_flow, solver=solver, steps=steps)


def published(**options):
    return partial(sampling.reverse_diffusion, max_steps=4000, **options)


def samplers(quick: bool):
    yield from ((f"euler, {n} steps", flow(euler, n)) for n in (20, 100))
    yield "heun, 15 steps", flow(heun, 15)
    yield from ((f"dpm, {n} steps", flow(dpm, n)) for n in (10, 20, 100))
    for n in (60,) if quick else (60, 400):
        yield f"ancestral, {n} steps", partial(sampling.ancestral, steps=n)
    yield "Langevin-corrected, 30 steps", partial(sampling.langevin_corrected, steps=30)
    for h0, beta in ((0.1, 0.3),) if quick else ((0.1, 0.3), (0.01, 0.1), (0.01, 0.5), (0.01, 1.0)):
        yield f"reverse diffusion, h0 {h0:g}, beta {beta:g}", published(h0=h0, beta=beta)


def ratios(form: Gaussian, x: torch.Tensor) -> tuple[float, ...]:
    """Variance over the exact one: all components (and its error), broad ones, narrow ones."""
    exact = form.variances**2 / (form.variances + SIGMA_MIN**2)
    found = ((x - form.mean).flatten(1) @ form.components).var(0)
    narrow = (form.variances > 0) & (form.variances < 0.1 * form.variances[-1])
    error = math.sqrt(2 / len(x) * exact.square().sum()) / exact.sum()
    parts = (slice(None), slice(-8, None), narrow)
    total, broad, rest = ((found[k].sum() / exact[k].sum()).item() for k in parts)
    return total, float(error), broad, rest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=4096)
    parser.add_argument("--quick", action="store_true", help="fewer samples and samplers")
    arguments = parser.parse_args()
    count = 512 if arguments.quick else arguments.count
    gaussian, modes = gaussian_of_digits(), mixture()
    z, other = (sampling.noise(range(s, s + count), (1, 8, 8)).double() for s in (0, count))
    u = torch.rand(count, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    starts = (gaussian.draw(other) + SIGMA_MAX * z, modes.draw(other, u) + SIGMA_MAX * z)
    levels = {"sigma_max": SIGMA_MAX, "sigma_min": SIGMA_MIN, "seeds": range(count)}
    print(f"{count} samples, float64, from sigma {SIGMA_MAX:g} to {SIGMA_MIN:g}, exact denoisers")
    head = f"{'sampler':36s}{'converged':>10s}{'variance':>17s}{'broad':>7s}{'narrow':>8s}"
    print(head + f"{'first mode':>18s}{'seconds':>9s}")
    for name, sampler in samplers(arguments.quick):
        begin = time.perf_counter()
        drawn = (
            sampler(form, start / SIGMA_MAX, **levels)
            for form, start in zip((gaussian, modes), starts, strict=True)
        )
        one, two = (x[torch.isfinite(x).flatten(1).all(1)] for x in drawn)
        total, error, broad, narrow = ratios(gaussian, one)
        share = modes.responsibilities(two, SIGMA_MIN)[:, 0].round().mean().item()
        spread = math.sqrt(share * (1 - share) / len(two))
        kept = min(len(one), len(two)) / count
        print(
            f"{name:36s}{kept:10.3f}{total:9.3f} ± {error:.3f}{broad:7.3f}"
            f"{narrow:8.3f}{share:10.3f} ± {spread:.3f}{time.perf_counter() - begin:9.1f}",
            flush=True,
        )
    print(f"exact{'':31s}{'':10s}{1:9.3f}{'':8s}{1:7.3f}{1:8.3f}{WEIGHTS[0]:10.3f}")


if __name__ == "__main__":
    main()
