"""What reaches the best denoiser for the demo's budget: schedule, learning rate, batch, width, EMA.

    python benchmarks/schedules.py [--quick]

Trains the demo's network on 800 digits with each recipe (two at a time, one thread each) and
prints test PSNR in dB, the largest train-test gap over the noise levels, and the time. Every
recipe sees the same number of images unless it says otherwise. Seeds 0 and 1, one row each.
"""

import argparse
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import torch
from lightning_fabric import Fabric

from twinscore import images
from twinscore.analysis.denoising import psnr_table
from twinscore.denoisers import UNet
from twinscore.training import TrainingSpec, fit
from twinscore.training.history import SIGMAS

BASE = {"steps": 2000, "batch": 64, "learning_rate": 3e-3}
RECIPES = {
    "demo: cosine, 3e-3, batch 64": BASE,
    "published halving, 3e-3": BASE | {"schedule": "halving"},
    "published halving, 1e-3": BASE | {"schedule": "halving", "learning_rate": 1e-3},
    "cosine, 1e-3": BASE | {"learning_rate": 1e-3},
    "cosine, 3e-3, batch 128, half the steps": BASE | {"steps": 1000, "batch": 128},
    "cosine, 3e-3, average 0.99": BASE | {"ema": 0.99},
    "cosine, 3e-3, width 24": BASE | {"width": 24},
    "cosine, 3e-3, half as many steps": BASE | {"steps": 1000},
}


def train(job: tuple[str, dict, int]) -> str:
    name, recipe, seed = job
    torch.set_num_threads(1)
    digits = images.load("digits")
    keep = np.flatnonzero(~images.near_duplicates(digits, threshold=0.98).drop)
    split = images.twins(digits, 800, seed=seed, among=keep)
    x, test = digits[split.a], digits[split.test]
    recipe = dict(recipe)
    network = UNet(1, recipe.pop("width", 32), 2, seed=seed)
    started = time.perf_counter()
    spec = TrainingSpec(evaluations=1, **recipe)
    fit(network, x, spec, seed=seed, fabric=Fabric(accelerator="cpu", devices=1))
    seconds = time.perf_counter() - started
    curve = psnr_table(network, test, SIGMAS).mean(1)
    gap = (psnr_table(network, x[: len(test)], SIGMAS).mean(1) - curve).max()
    shown = "  ".join(f"{value:6.2f}" for value in curve.tolist())
    return f"{name:40s} {seed:4d}  {shown}  {gap:5.2f}  {seconds:5.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two recipes, a tenth of the steps")
    quick = parser.parse_args().quick
    jobs = [(name, recipe, seed) for name, recipe in RECIPES.items() for seed in (0, 1)]
    if quick:
        jobs = [(n, r | {"steps": r["steps"] // 10}, s) for n, r, s in jobs[:4]]
    levels = "  ".join(f"{sigma:6g}" for sigma in SIGMAS)
    print(f"{'recipe':40s} seed  {levels}    gap  seconds   (test PSNR in dB at each sigma)")
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        for row in pool.map(train, jobs):
            print(row, flush=True)


if __name__ == "__main__":
    main()
