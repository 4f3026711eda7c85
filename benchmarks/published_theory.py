"""The published setting of early stopping, step by step ([GP]; docs/formulas.md#modes-shift).

    python benchmarks/published_theory.py [--seeds 3] [--samples 1000] [--figure FILE.png]

Two modes at mu = 3, n = 1000, 16 swish units of which all layers learn, SGD at rate 0.5 on batches
of 32, and a process whose noise grows as ``g = 5^t``: with ``25^t`` that rate is not stable.
Prints, and draws if told where, KL along training of what the study reads as the density (``exp``
of the integrated score on [-10, 10]) and of what the reverse SDE draws. Of order 20 s a seed.
"""

import argparse
from pathlib import Path

import numpy as np
from matplotlib.ticker import StrMethodFormatter

from twinscore.report import style
from twinscore.theory.coordinates import standard_grid
from twinscore.theory.densities import divergences, integrated_score
from twinscore.theory.descent import train
from twinscore.theory.fokker_planck import reverse_sde
from twinscore.theory.processes import geometric, variance_exploding
from twinscore.theory.random_features import random_features
from twinscore.theory.targets import two_modes

MU, WIDTH, RATE, BATCH, START = 3.0, 16, 0.5, 32, 1e-2
STEPS = (10, 30, 100, 300, 1000, 2000, 4000, 8000, 16000)
NAMES = ("integrated score", "reverse SDE")
TOLERANCE = 1e-2


def divergence(seed: int, count: int) -> np.ndarray:
    """KL after each number of steps on ``count`` samples, (2, K), a row for each of ``NAMES``."""
    target, process = two_modes(MU), variance_exploding(geometric(5.0))
    samples = target.draw(count, np.random.default_rng(seed))
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


def draw(found: np.ndarray, path: Path) -> None:
    """Draw KL (seeds, 2, K) against the number of steps, a line for each seed."""
    with style.applied("light") as theme:
        figure = style.new_figure(2.8)
        axes = figure.subplots()
        for name, part, colour, mark in zip(
            NAMES, found.swapaxes(0, 1), (theme.nearest, theme.twins), "so", strict=True
        ):
            first, *_ = axes.plot(STEPS, part.T, color=colour, marker=mark, alpha=0.8)
            first.set_label(name)
        axes.set(xscale="log", ylim=(0, None), xlabel="steps of SGD", ylabel="KL divergence (nats)")
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        figure.legend(loc="outside lower center", ncols=2)
        path.write_bytes(style.png(figure))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--figure", type=Path, help="PNG of KL against the number of steps")
    chosen = parser.parse_args()
    found = np.stack([divergence(seed, chosen.samples) for seed in range(chosen.seeds)])
    print("KL in nats for each seed; nan: missed its tolerance")
    for name, part in zip(NAMES, found.swapaxes(0, 1), strict=True):
        for steps, values in zip(STEPS, part.T, strict=True):
            print(f"{name:17s}{steps:7,d} steps " + "".join(f"{v:9.3g}" for v in values))
    if chosen.figure:
        draw(found, chosen.figure)


if __name__ == "__main__":
    main()
