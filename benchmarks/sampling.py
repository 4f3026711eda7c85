"""Samples per second: batched reverse diffusion against the published one-image loop.

    python benchmarks/sampling.py --published PATH/TO/published/code [--quick]

Same network, same h0, beta, stopping level and cap on the steps; batching and the memory format
differ. The 8x8 network is first trained on the digits, so that paths end by the stopping rule; the
default network at 32x32 is untrained, so that they end at the cap or run away. That part needs
--published. First comes the share of the deterministic sampler's time that is not the network's.
"""

import argparse
import contextlib
import io
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import torch

from twinscore import images, sampling
from twinscore.denoisers import UNet
from twinscore.training import TrainingSpec, fit

H0, BETA, SIGMA_L = 0.01, 0.1, 0.01


def published_seconds(folder: Path, denoiser, side: int, count: int, cap: int) -> tuple[float, int]:
    """Seconds and steps per sample of the published loop."""
    sys.path.insert(0, str(folder))
    from algorithm_inv_prob import univ_inv_sol

    empty = torch.zeros(1, side, side)
    task = SimpleNamespace(M=lambda x: empty, M_T=lambda x: empty)
    steps = 0
    start = time.perf_counter()
    for seed in range(count):
        with contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
            _, _, sigmas, _ = univ_inv_sol(
                lambda y: y - denoiser(y), empty, task, torch.device("cpu"), sig_L=SIGMA_L, h0=H0,
                beta=BETA, freq=0, seed=seed, init_noise_mean=0.5, max_T=cap,
            )  # fmt: skip
        steps += len(sigmas) - 2
    return (time.perf_counter() - start) / count, steps // count


def our_seconds(denoiser, side: int, count: int, cap: int) -> tuple[float, int]:
    """Seconds and steps per sample of ours, in one batch of ``count``."""
    z = sampling.noise(range(count), (1, side, side))
    taken: list[int] = []  # steps, by all images together
    start = time.perf_counter()
    sampling.reverse_diffusion(
        denoiser,
        z,
        seeds=range(count),
        mean=0.5,
        sigma_min=SIGMA_L,
        h0=H0,
        beta=BETA,
        max_steps=cap,
        callback=lambda step, sigma, y: taken.append(len(y)),
    )
    return (time.perf_counter() - start) / count, sum(taken) // count


def share_outside(denoiser, side: int, batch: int, steps: int) -> float:
    """Share of the time of the probability flow that is not spent in the denoiser."""
    inside = 0.0

    def timed(y, sigma):
        nonlocal inside
        start = time.perf_counter()
        x_hat = denoiser(y, sigma)
        inside += time.perf_counter() - start
        return x_hat

    z = sampling.noise(range(batch), (1, side, side))
    start = time.perf_counter()
    sampling.probability_flow(timed, z, mean=0.5, steps=steps, sigma_max=2.0)
    return 1 - inside / (time.perf_counter() - start)


def report(name: str, theirs: tuple[float, int], ours: tuple[float, int], goal: float) -> None:
    ratio = theirs[0] / ours[0]
    per_step = (theirs[0] / theirs[1]) / (ours[0] / ours[1])
    print(
        f"{name:28s}{1 / theirs[0]:12.2f} ({theirs[1]:3d} steps){1 / ours[0]:12.2f} "
        f"({ours[1]:3d} steps){ratio:8.1f}{per_step:8.1f}{goal:7.1f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--published", type=Path, help="the published repository's code folder")
    parser.add_argument("--quick", action="store_true", help="under a minute")
    arguments = parser.parse_args()
    quick = arguments.quick
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, seeds 0...")
    default = UNet().eval()
    ours = UNet().eval().to(memory_format=torch.channels_last)  # as a loaded checkpoint is
    shares = [share_outside(ours, 32, 64, 5 if quick else 20) for _ in range(1 if quick else 3)]
    print(
        "outside the network, UNet default, 32x32, batch 64, probability flow: "
        f"{100 * min(shares):.2f} to {100 * max(shares):.2f} % of the time (goal 2)"
    )
    if not arguments.published:
        print("the rest is skipped: give --published, the published repository's code folder")
        return
    print(
        f"{'network':28s}{'published/s':>24s}{'ours/s':>24s}{'ratio':>8s}{'/step':>8s}{'goal':>7s}"
    )
    small = UNet(1, 32, 2)
    own = {"learning_rate": 3e-3, "optimizer": "adam", "levels": "independent"}
    spec = TrainingSpec(steps=150 if quick else 1000, batch=64, evaluations=1, **own)
    small = fit(small, images.load("digits"), spec)
    for _ in range(1 if quick else 3):
        theirs = published_seconds(arguments.published, small, 8, 1 if quick else 4, 800)
        report("UNet width 32, levels 2, 8x8", theirs, our_seconds(small, 8, 128, 800), 5.0)
    for _ in range(1 if quick else 3):
        theirs = published_seconds(arguments.published, default, 32, 1, 20)
        report("UNet default, 32x32, cap 20", theirs, our_seconds(ours, 32, 64, 20), 2.0)


if __name__ == "__main__":
    main()
