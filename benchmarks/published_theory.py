"""The published setting of the early-stopping study ([GP]; STUDIES section 6), step by step.

    python benchmarks/published_theory.py [--seeds 3]

Two modes at mu = 3, n = 1000, 16 swish units of which all layers learn, SGD at rate 0.5 on batches
of 32, and a process whose noise grows as ``g = 5^t``: with ``25^t`` that rate is not stable.
Prints KL along training of what the study reads as the density, ``exp`` of the integrated score on
[-10, 10], and of what the reverse SDE draws. Of order 10 s a seed.
"""

import argparse

import numpy as np

from twinscore.theory.coordinates import standard_grid
from twinscore.theory.densities import divergences, integrated_score
from twinscore.theory.descent import train
from twinscore.theory.fokker_planck import reverse_sde
from twinscore.theory.processes import geometric, variance_exploding
from twinscore.theory.random_features import random_features
from twinscore.theory.targets import two_modes

MU, SAMPLES, WIDTH, RATE, BATCH, START = 3.0, 1000, 16, 0.5, 32, 1e-2
STEPS = (10, 100, 1000, 4000)
TOLERANCE = 1e-2


def divergence(seed: int) -> np.ndarray:
    """KL after each number of steps, (2, K): of the integrated score and of the reverse SDE."""
    target, process = two_modes(MU), variance_exploding(geometric(5.0))
    samples = target.draw(SAMPLES, np.random.default_rng(seed))
    rates = dict.fromkeys("AWU", RATE)
    features = random_features(WIDTH, seed=seed)
    learned = train(
        features, samples, process, rates=rates, steps=STEPS, seed=seed, batch=BATCH, start=START
    )
    grid = standard_grid(target, process, START, width=0.4)
    out = []
    for snapshot in learned:
        score = snapshot.score
        scores = lambda t, x, score=score: score(t, x).T  # noqa: E731
        read = integrated_score(scores, grid, interval=(-10.0, 10.0), tolerance=TOLERANCE)
        drawn = reverse_sde(scores, grid, tolerance=TOLERANCE)
        out.append([divergences(found).direct[0] for found in (read, drawn)])
    return np.array(out).T


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    found = np.stack([divergence(seed) for seed in range(parser.parse_args().seeds)])
    print("KL in nats for each seed; nan: missed its tolerance")
    for name, part in zip(("integrated score", "reverse SDE"), found.swapaxes(0, 1), strict=True):
        for steps, values in zip(STEPS, part.T, strict=True):
            print(f"{name:17s}{steps:7,d} steps " + "".join(f"{v:9.3g}" for v in values))


if __name__ == "__main__":
    main()
