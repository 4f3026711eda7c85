"""Training steps per second: against the published step, and how to use the cores.

    python benchmarks/training.py --published PATH/TO/published/code [--quick] [--threads T]

Same network, same batch, float32, identical mathematics. The steps of both take turns, and the
ratio is the median over turns, so that a noisy machine disturbs both alike. Without --published
that comparison is skipped.
"""

import argparse
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import nn

from twinscore.denoisers import UNet

CASES = [  # side, width, levels, batch, least ratio
    (16, 16, 2, 128, 1.5),
    (16, 64, 3, 64, 0.95),
    (40, 64, 3, 16, 1.3),
    (80, 64, 3, 4, 1.3),
]


def published_step(folder: Path, side: int, width: int, levels: int, batch: int):
    """The published training step on random images, as its trainer runs it."""
    sys.path.insert(0, str(folder))
    from dataloader_func import add_noise_torch
    from network import UNet as PublishedUNet
    from quality_metrics_func import batch_ave_psnr_torch

    sizes = {"num_blocks": levels, "num_kernels": width, "num_channels": 1, "pool_window": 2}
    counts = dict.fromkeys(("num_enc_conv", "num_mid_conv", "num_dec_conv"), 2)
    model = PublishedUNet(SimpleNamespace(**sizes, **counts, kernel_size=3, padding=1, bias=False))
    model.train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    criterion = nn.MSELoss(reduction="sum")
    clean = torch.rand(batch, 1, side, side)

    def step():
        optimizer.zero_grad()
        noisy, noise = add_noise_torch(clean, [0, 255], torch.device("cpu"), True, True)
        output = model(noisy)
        loss = criterion(output, noise) / clean.size()[0]
        psnr = batch_ave_psnr_torch(clean, noisy - output, max_I=1.0)
        loss.backward()
        optimizer.step()
        return loss.item() + psnr.item()

    return step


def our_step(side: int, width: int, levels: int, batch: int):
    """The inner part of ``twinscore.training.fit`` on random images."""
    model = UNet(1, width, levels).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    clean = torch.rand(batch, 1, side, side)

    def step():
        sigma = torch.rand(batch, 1, 1, 1).square()
        noisy = clean + sigma * torch.randn(clean.shape)
        x, y = (t.to(memory_format=torch.channels_last) for t in (clean, noisy))
        optimizer.zero_grad()
        loss = (model(y) - x).square().sum() / batch
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def seconds(step, count: int) -> float:
    start = time.perf_counter()
    for _ in range(count):
        step()
    return (time.perf_counter() - start) / count


def against_published(folder: Path, cases, turns: int) -> None:
    print(
        "side  width  levels  batch  published ms    ours ms  images/s   ratio (least..most)  goal"
    )
    for side, width, levels, batch, goal in cases:
        theirs = published_step(folder, side, width, levels, batch)
        ours = our_step(side, width, levels, batch)
        warm = [seconds(step, 2) for step in (theirs, ours)]
        count = max(1, round(0.4 / warm[0]))
        pairs = [(seconds(theirs, count), seconds(ours, count)) for _ in range(turns)]
        ratios = [a / b for a, b in pairs]
        a, b = (statistics.median(column) for column in zip(*pairs, strict=True))
        print(
            f"{side:4d}  {width:5d}  {levels:6d}  {batch:5d}  {1e3 * a:12.1f}  {1e3 * b:9.1f}"
            f"  {batch / b:8.0f}   {statistics.median(ratios):5.2f} "
            f"({min(ratios):.2f}..{max(ratios):.2f})  {goal:5.2f}",
            flush=True,
        )


def timed(threads: int, count: int) -> float:
    torch.set_num_threads(threads)
    step = our_step(8, 32, 2, 64)
    seconds(step, 5)
    return seconds(step, count)


def side_by_side(turns: int, count: int) -> None:
    """Two twins at once with one thread each, or one after the other with two threads."""
    ratios = []
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        list(pool.map(timed, [1, 1], [5, 5]))
        for _ in range(turns):
            together = max(pool.map(timed, [1, 1], [count, count]))
            alone = pool.submit(timed, 2, count).result()
            ratios.append(2 * alone / together)
    print(
        f"two twins side by side, 1 thread each, against one after the other with 2 threads "
        f"(8x8, width 32, batch 64): {statistics.median(ratios):.2f} times as fast "
        f"({min(ratios):.2f}..{max(ratios):.2f})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--published", type=Path, help="the published repository's code folder")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--quick", action="store_true", help="under a minute: fewer turns")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, {arguments.threads} threads, seed 0")
    if arguments.published:
        against_published(arguments.published, CASES, 3 if arguments.quick else 15)
    else:
        print("comparison with the published code: skipped (give --published)")
    side_by_side(2 if arguments.quick else 7, 40 if arguments.quick else 150)


if __name__ == "__main__":
    main()
