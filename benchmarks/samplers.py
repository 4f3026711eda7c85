"""Samplers compared: evaluations, seconds, and distance of the samples to held-out images.

    python benchmarks/samplers.py --model TRIAL --data SOURCE [--count 1000] [--quick]

TRIAL is a folder of `runs/*/trials/`; SOURCE the images it was trained on, of which those it has
not seen are held out. Distances are sliced Wasserstein distances with 95 % bootstrap intervals,
beside the floor, the distance between halves of the held-out images. For the deterministic
samplers the last column is the root mean squared difference per pixel from the same noise's sample
by 200 steps of Heun's method. `--published PATH/TO/published/code` adds the published one-image
loop, and ratios of samples per second to it.
"""

import argparse
import contextlib
import csv
import io
import json
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import torch

from twinscore import images, sampling
from twinscore.analysis.quality import quality
from twinscore.denoisers import load
from twinscore.sampling import dpm, euler, heun, probability_flow

SIGMA_MIN = 0.01
BATCH = 128


def flow(solver, steps):
    return partial(probability_flow, solver=solver, steps=steps)


def stochastic(**options):
    """From sigma 1, as published."""

    def run(denoiser, z, **levels):
        levels["sigma_max"] = 1.0
        taken = []
        count = lambda step, sigma, y: taken.append(len(y))  # noqa: E731
        x = sampling.reverse_diffusion(denoiser, z, callback=count, **options, **levels)
        run.steps = sum(taken) / len(z)
        return x

    return run


def samplers(quick: bool):
    yield from ((f"euler, {n} steps", flow(euler, n), n) for n in (15, 30, 60, 120))
    yield from ((f"heun, {n} steps", flow(heun, n), 2 * n - 1) for n in (8, 15, 30))
    yield from ((f"dpm, {n} steps", flow(dpm, n), n) for n in (8, 10, 12, 15, 20, 30, 60))
    for n in (30, 60) if quick else (30, 60, 200):
        yield f"ancestral, {n} steps", partial(sampling.ancestral, steps=n), n
    yield "Langevin-corrected, 30 steps", partial(sampling.langevin_corrected, steps=30), 59
    yield "reverse diffusion, h0 .1, beta .3", stochastic(h0=0.1, beta=0.3), None
    if not quick:
        yield "reverse diffusion, h0 .01, beta .1", stochastic(h0=0.01, beta=0.1), None


def held_out(model: Path, source: str) -> torch.Tensor:
    """Images that had no part in the training of ``model``, after the run's ``images.csv``."""
    spec = json.loads((model / "spec.json").read_text())
    with (model.parents[1] / "images.csv").open(newline="") as file:
        roles = [row[f"role_{spec['replicate']}"] for row in csv.DictReader(file)]
    twin, n = spec["twin"], spec["n"]
    unseen = lambda role: role[:1] != twin or int(role[1:]) >= n  # noqa: E731
    keep = [i for i, role in enumerate(roles) if role != "near-duplicate" and unseen(role)]
    return images.load(source)[keep]


def published(folder: Path, checkpoint, count: int):
    """Samples, seconds and steps a sample of the published loop."""
    sys.path.insert(0, str(folder))
    from algorithm_inv_prob import univ_inv_sol

    empty = torch.zeros(checkpoint.shape)
    task = SimpleNamespace(M=lambda x: empty, M_T=lambda x: empty)
    drawn, steps = [], 0
    start = time.perf_counter()
    for seed in range(count):
        with contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
            x, _, sigmas, _ = univ_inv_sol(
                lambda y: y - checkpoint.denoiser(y), empty, task, torch.device("cpu"),
                sig_0=1.0, sig_L=SIGMA_MIN, h0=0.01, beta=0.1, freq=0, seed=seed,
                init_noise_mean=checkpoint.mean[0], max_T=2000,
            )  # fmt: skip
        steps += len(sigmas) - 1
        if float(sigmas[-1]) <= SIGMA_MIN:  # the others ran away or out of steps
            drawn.append(x)
    seconds = time.perf_counter() - start
    return torch.stack(drawn).view(-1, *checkpoint.shape), seconds / count, steps / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--sigma-max", type=float, default=2.0)
    parser.add_argument("--published", type=Path)
    parser.add_argument("--quick", action="store_true", help="fewer samples and samplers")
    arguments = parser.parse_args()
    count = min(arguments.count, 256) if arguments.quick else arguments.count
    checkpoint = load(str(arguments.model))
    denoiser, mean = checkpoint.denoiser, torch.tensor(checkpoint.mean).view(-1, 1, 1)
    real = held_out(arguments.model, arguments.data)
    levels = {"mean": mean, "sigma_max": arguments.sigma_max, "sigma_min": SIGMA_MIN}
    z = sampling.noise(range(count), checkpoint.shape)
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, {arguments.data} "
        f"{checkpoint.shape}, {count} samples in batches of {BATCH}, {len(real)} held out"
    )
    reference = None
    if not arguments.quick:
        parts = [
            probability_flow(denoiser, p, solver=heun, steps=200, **levels) for p in z.split(BATCH)
        ]
        reference = torch.cat(parts)
    columns = f"{'sampler':36s}{'evaluations':>12s}{'samples/s':>11s}"
    print(f"{columns}  sliced Wasserstein (floor)  to exact flow")
    rates = {}
    for name, sampler, evaluations in samplers(arguments.quick):
        start, parts = time.perf_counter(), []
        for first in range(0, count, BATCH):
            part = z[first : first + BATCH]
            seeds = range(first, first + len(part))
            parts.append(sampler(denoiser, part, seeds=seeds, **levels))
        rates[name] = count / (time.perf_counter() - start)
        x = torch.cat(parts)
        kept = x[torch.isfinite(x).flatten(1).all(1)]
        found = quality(kept, real, resamples=40).sliced_wasserstein
        away = ""
        if reference is not None and getattr(sampler, "func", None) is probability_flow:
            away = f"{(x - reference).square().mean().sqrt().item():.4f}"
        print(
            f"{name:36s}{evaluations or sampler.steps:12.0f}{rates[name]:11.1f}"
            f"  {found.value:.4f} [{found.low:.4f}, {found.high:.4f}] ({found.floor:.4f})  {away}",
            flush=True,
        )
    if arguments.published:
        few = 16 if arguments.quick else 64
        x, seconds, steps = published(arguments.published, checkpoint, few)
        found = quality(x, real, resamples=40).sliced_wasserstein
        print(
            f"published loop, h0 .01, beta .1: {steps:.0f} steps, {1 / seconds:.2f} samples/s, "
            f"{found.value:.4f} ({found.floor:.4f}) over {len(x)} samples"
        )
        for name, rate in rates.items():
            print(f"  {name:34s} {rate * seconds:6.1f} times as many samples per second")


if __name__ == "__main__":
    main()
