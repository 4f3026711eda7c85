"""How few steps the default recipe needs to reach the published one, at every noise level.

    python benchmarks/recipes.py [--quick] [--data celebA,crop=80,size=40,gray] [--steps 2700]

The published recipe (Adam at 0.001, halved at every tenth; `recipe: published`) trains a network
for so many steps; the default one the same network, from the same weights, on the same images in
the same order, for a share of them. Printed is the PSNR on images that neither was trained on, in
dB at each noise level, and what each part of the recipe adds. One thread a training, two at a time.
Seeds 0 and 1.
"""

import argparse
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import torch

from twinscore import images
from twinscore.analysis.denoising import psnr_table
from twinscore.denoisers import UNet
from twinscore.training import TrainingSpec, fit, single_device
from twinscore.training.history import SIGMAS

TEST = 128
SOURCES = {  # images, batch, width
    "digits": (64, 24),
    "photos,size=32": (32, 16),
    "c_alpha:alpha=2,count=20000,size=32": (32, 16),
}
PUBLISHED = {"recipe": "published"}
PARTS = {  # from the published recipe to the default one, at a third of the steps
    "published": (3, PUBLISHED),
    "cosine, Adam at 0.003": (3, {"optimizer": "adam", "levels": "independent"}),
    "and levels spread": (3, {"optimizer": "adam"}),
    "default: and Muon": (3, {}),
    "default": (9, {}),
}


def train(job: tuple[str, str, int, dict, int, int]) -> str:
    """One training, and its row of the table."""
    source, name, steps, recipe, seed, n = job
    torch.set_num_threads(1)
    batch, width = SOURCES.get(source, (32, 16))
    loaded = images.load(source)
    training, test = images.held_out(loaded, TEST, seed=seed)
    if recipe.get("optimizer") == "adam":
        recipe = {"learning_rate": 3e-3} | recipe
    spec = TrainingSpec(steps=steps, batch=batch, evaluations=1, **recipe)
    network = UNet(loaded.shape[0], width, 2, seed=seed)
    began = time.process_time()
    fit(network, loaded[training[: n or None]], spec, seed=seed, fabric=single_device("cpu"))
    seconds = time.process_time() - began
    curve = psnr_table(network, loaded[test], SIGMAS).mean(1)
    shown = "  ".join(f"{value:6.2f}" for value in curve.tolist())
    return f"{name:24s} {steps:6d} {seed:5d}  {shown}  {seconds:6.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", default=list(SOURCES), help="sources of images")
    parser.add_argument("--steps", type=int, default=2700, help="of the published recipe")
    parser.add_argument("--n", type=int, default=0, help="training images; 0: all")
    parser.add_argument("--quick", action="store_true", help="digits, a tenth of the steps")
    arguments = parser.parse_args()
    quick = arguments.quick
    steps = arguments.steps // 10 if quick else arguments.steps
    levels = "  ".join(f"{sigma:6g}" for sigma in SIGMAS)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        for source in arguments.data[:1] if quick else arguments.data:
            print(f"{source}: test PSNR, dB, at each sigma")
            print(f"{'recipe':24s} {'steps':>6s} {'seed':>5s}  {levels}  seconds")
            parts = {"published ": (1, PUBLISHED)} | PARTS
            jobs = [
                (source, name, steps // share, recipe, seed, arguments.n)
                for name, (share, recipe) in parts.items()
                for seed in ((0,) if quick else (0, 1))
            ]
            for row in pool.map(train, jobs):
                print(row, flush=True)


if __name__ == "__main__":
    main()
