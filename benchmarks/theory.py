"""The sweep of the early-stopping study: seconds of each part, and of plain gradient descent.

    python benchmarks/theory.py [--quick | --largest]

Two modes at mu = 3, variance preserving, swish features: 10 values of n, 6 of m up to 512, 100
training times, 20 replicates, two at a time on one thread each: replicates of ``twinscore mixture
--spec paper-mixture``, with the KL of every density and infinitely many samples beside the ten n.
Each draws its own features and samples; narrower models are the first features of the widest, fewer
samples the first samples. Seconds are also processor time, which other work hardly changes.
Then, on three cells (n, m), two with ``--quick``, the time plain gradient descent of the same loss
(process, weighting and times of the sweep) needs to reach the last tau, from the
measured time of a step and the number of steps at half the largest stable rate: by full batches of
noised samples, one pair of noise draws for each sample and time, and on the cell's own Gram matrix.
Last the largest cell that ``twinscore mixture`` allows, n = 100,000 and m = 4,096, exact only, with
the peak memory of its process; ``--largest`` measures nothing else, in minutes.
"""

import argparse
import os
import resource
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np

from twinscore.experiments import mixture
from twinscore.experiments.mixture import sweep
from twinscore.experiments.mixture.spec import (
    MOST_FEATURES,
    MOST_SAMPLES,
    forward,
    likelihood_rule,
)
from twinscore.theory import nodes
from twinscore.theory.gradient_flow import gradient_flow
from twinscore.theory.random_features import random_features
from twinscore.theory.score_matching import quadratic_losses
from twinscore.theory.targets import two_modes

MU = 3.0
SPEC = mixture.Spec(mu=MU)
CELLS = ((128, 64), (1024, 512), (16384, 512))
LARGEST = (MOST_SAMPLES, MOST_FEATURES)
STEPS = 3
_UNIT = 2**30 if sys.platform == "darwin" else 2**20
"""What the system counts memory in, in a GiB."""


def replicate(number: int) -> tuple[float, float, int]:
    """Seconds by the clock and of the processor for one replicate, and densities that failed."""
    began, worked = time.perf_counter(), time.process_time()
    converged = sweep.measure(SPEC, "mixture", number)["converged"]
    return time.perf_counter() - began, time.process_time() - worked, int((~converged).sum())


def exactly(size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Processor seconds of Gram matrix and flow, and peak GiB of the process before and after."""
    n, m = size
    process = forward(SPEC.rate)
    samples = two_modes(MU).draw(n, np.random.default_rng(0))
    before, started = peak(), time.process_time()
    rule = likelihood_rule(process, SPEC.start)
    blocks = nodes.empirical_nodes([samples], process, rule)
    [loss] = quadratic_losses(random_features(m, seed=0), blocks)
    summed = time.process_time()
    gradient_flow(loss).at(m * SPEC.times)
    return summed - started, time.process_time() - summed, before, peak()


def peak() -> float:
    """Most memory that this process has held, GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _UNIT


def cell(size: tuple[int, int]) -> tuple[float, int, float, float]:
    """Seconds of the flow, steps of descent, seconds a step on samples and on the Gram matrix."""
    n, m = size
    process = forward(SPEC.rate)
    rule = likelihood_rule(process, SPEC.start)
    samples = two_modes(MU).draw(n, np.random.default_rng(0))
    features = random_features(m, seed=0)
    started = time.perf_counter()
    [loss] = quadratic_losses(features, nodes.empirical_nodes([samples], process, rule))
    flow = gradient_flow(loss)
    flow.at(m * SPEC.times)
    exact = time.perf_counter() - started
    rate = 1 / flow.rates[-1]
    A = np.zeros((1, m))
    started = time.perf_counter()
    for _ in range(STEPS):
        A = A - rate * sampled_gradient(features, A, samples, process, rule)
    sampled = (time.perf_counter() - started) / STEPS
    started = time.perf_counter()
    for _ in range(100 * STEPS):
        A = A - rate * loss.gradient(A)
    on_gram = (time.perf_counter() - started) / (100 * STEPS)
    return exact, int(np.ceil(m * SPEC.tau_last / rate)), sampled, on_gram


def sampled_gradient(features, A, samples, process, rule) -> np.ndarray:
    """Gradient of the denoising loss of noised samples, all of them."""
    gradient, m = np.zeros_like(A), features.width
    for block in nodes.sampled_nodes(samples, process, rule, seed=0):
        for part in range(0, len(block.points), 2**14):
            rows = slice(part, part + 2**14)
            phi = features(block.t, block.points[rows])
            residual = phi @ A.T / m - block.targets[0, rows]
            gradient += 2 / m * (block.weights[0, rows, None] * residual).T @ phi
    return gradient


def sweep_and_descent(quick: bool) -> None:
    """Time replicates of the sweep, then each cell against descent."""
    seeds, cells = range(2 if quick else SPEC.replicates), CELLS[: 2 if quick else None]
    print(
        f"{len(seeds)} replicates, n {SPEC.sizes[0]}..{SPEC.sizes[-1]}, "
        f"m {SPEC.widths[0]}..{SPEC.widths[-1]}, {SPEC.tau_count} times; "
        f"numpy {np.__version__}, 2 processes"
    )
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        started = time.perf_counter()
        parts = np.array(list(pool.map(replicate, seeds)))
        print(f"whole sweep with KL: {time.perf_counter() - started:.0f} s")
        for name, column in zip(("clock", "processor"), parts.T[:2], strict=True):
            low, high = column.min(), column.max()
            print(f"  {name:10s}{column.mean():7.2f} s a replicate ({low:.2f}-{high:.2f})")
        print(f"  {parts[:, 2].sum():.0f} densities missed their tolerance")
        print("     n    m  flow s    steps      descent on samples             on Gram")
        for (n, m), (exact, steps, *each) in zip(cells, pool.map(cell, cells), strict=True):
            took = "".join(f"{steps * s:12.1f} s {steps * s / exact:7.1f} x" for s in each)
            print(f"{n:6d}{m:5d}{exact:8.2f}{steps:9d}{took}", flush=True)


def largest() -> None:
    """Time the largest cell in a process of its own, whose memory nothing else has raised."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        gram, flow, before, most = pool.submit(exactly, LARGEST).result()
    n, m = LARGEST
    print(
        f"n = {n:,}, m = {m:,}: Gram matrix {gram:.0f} s, eigenvectors and {SPEC.tau_count} times "
        f"{flow:.0f} s, at most {most:.2f} GiB ({before:.2f} before; a matrix has "
        f"{8 * m**2 / 2**30:.3f})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    less = parser.add_mutually_exclusive_group()
    less.add_argument("--quick", action="store_true", help="two replicates, two cells")
    less.add_argument("--largest", action="store_true", help="the largest cell only")
    chosen = parser.parse_args()
    for library in ("OMP", "OPENBLAS", "MKL"):
        os.environ[f"{library}_NUM_THREADS"] = "1"  # of the processes to come
    if not chosen.largest:
        sweep_and_descent(chosen.quick)
    if not chosen.quick:
        largest()


if __name__ == "__main__":
    main()
