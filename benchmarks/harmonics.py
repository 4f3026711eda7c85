"""Jacobian of the default UNet: the whole matrix and the top 64 eigenpairs.

    python benchmarks/harmonics.py [--quick] [--model runs/demo/trials/...] [--steps 1000]

Against the published row-by-row loop, one reverse pass for each pixel of the output through a graph
that is kept; it is timed on a sample of rows and scaled to all of them. The floor is the network's
own forward pass in batches, one vector an image. Without --model, the default network (--quick: a
narrow one) is first trained on the photographs that come with scikit-image and scikit-learn; how
many products eigenpairs take depends on how fast the eigenvalues decay, so on the training too.
Ratios are taken within each turn. Peak memory is the process's, the training's included.
"""

import argparse
import copy
import resource
import statistics
import time
from collections import defaultdict
from collections.abc import Callable

import torch
from torch import Tensor, nn

from twinscore import denoisers, images
from twinscore.analysis.jacobian import (
    Linearisation,
    asymmetry,
    eigenpairs,
    full,
    linearise,
    symmetric_eigenpairs,
)
from twinscore.training import TrainingSpec, fit

PAIRS = 64
RESIDUAL = 1e-3
SAMPLE = 32
SIGMA = 0.3


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):9.2f} ({min(values):.2f}..{max(values):.2f})"


def network(model: str | None, steps: int, quick: bool) -> denoisers.UNet:
    if model:
        return denoisers.load(model).denoiser
    spec = TrainingSpec(
        steps=steps,
        batch=8 if quick else 16,
        evaluations=1,
        optimizer="adam",
        levels="independent",
    )
    made = denoisers.UNet(width=8) if quick else denoisers.UNet()
    return fit(made, images.load("photos,size=40"), spec).eval()


def noisy(denoiser: nn.Module, side: int) -> tuple[Linearisation, Tensor]:
    x = images.load(f"photos,size={side}")[:1]
    y = x + SIGMA * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    return linearise(denoiser, y), y


def published_seconds(denoiser: nn.Module, y: Tensor, sample: int) -> float:
    """Seconds of the row-by-row loop, scaled from a sample of rows spread over the image."""
    y = y.clone().requires_grad_()
    outputs = denoiser(y).flatten()
    rows = torch.linspace(0, len(outputs) - 1, sample).long().tolist()
    start = time.perf_counter()
    for row in rows:
        torch.autograd.grad(outputs[row], y, retain_graph=True)
    return (time.perf_counter() - start) * len(outputs) / sample


def forward_seconds(denoiser: nn.Module, y: Tensor, batch: int, sample: int) -> float:
    """Seconds of as many forward passes as there are pixels, the floor, scaled from a sample."""
    vectors = torch.randn(batch, *y.shape[1:], generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        total = sum(seconds(lambda: denoiser(vectors)) for _ in range(-(-sample // batch)))
    return total * y.numel() / (batch * -(-sample // batch))


def turn(
    denoiser: nn.Module, published: nn.Module, pairs: int, columns: dict[str, list[float]]
) -> None:
    """Time the loop, the floor, the whole matrix and both kinds of eigenpairs once."""
    _, y = noisy(denoiser, 40)
    loop = published_seconds(published, y, SAMPLE)
    floor = forward_seconds(denoiser, y, 20, 4 * SAMPLE)
    whole = seconds(lambda: full(linearise(denoiser, y)))
    columns["published loop, s"].append(loop)
    columns["whole matrix, s"].append(whole)
    columns["  times the loop (goal 3, aim 4)"].append(loop / whole)
    columns["  over the floor"].append(whole / floor)
    columns["  floor itself, times the loop"].append(loop / floor)
    solvers = {"eigenpairs of J": eigenpairs, "of the symmetric part": symmetric_eigenpairs}
    for name, solve in solvers.items():
        start = time.perf_counter()
        around = linearise(denoiser, y)
        found = solve(around, pairs, tolerance=RESIDUAL)
        took = time.perf_counter() - start
        columns[f"{pairs} {name}, s"].append(took)
        columns[f"  {name}: times the loop (goal 15)"].append(loop / took)
        columns[f"  {name}: products"].append(found.products)
        columns[f"  {name}: worst residual, 1e-3"].append(found.residuals.max().item() * 1e3)


def large(denoiser: nn.Module) -> None:
    """Print the time of the leading eigenpairs at 80x80."""
    for solve in (eigenpairs, symmetric_eigenpairs):
        start = time.perf_counter()
        found = solve(noisy(denoiser, 80)[0], PAIRS, tolerance=RESIDUAL)
        took = time.perf_counter() - start
        print(
            f"80x80, {PAIRS} pairs, {solve.__name__}: {took:.0f} s (goal 300), "
            f"{found.products} products, worst residual {found.residuals.max():.1e}",
            flush=True,
        )


def print_peak(where: str) -> None:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"peak memory of the process, {where}: {peak:.2f} GiB (goal 2)", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="trial folder or weights file of a UNet for gray images")
    parser.add_argument("--steps", type=int, help="training steps without --model (1000; quick 60)")
    parser.add_argument(
        "--quick", action="store_true", help="width 8, 8 pairs, one turn: under a minute"
    )
    arguments = parser.parse_args()
    quick = arguments.quick
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, sigma {SIGMA}, seed 0")
    denoiser = network(arguments.model, arguments.steps or (60 if quick else 1000), quick)
    published = copy.deepcopy(denoiser).to(memory_format=torch.contiguous_format)
    published.requires_grad_(False)
    denoiser.to(memory_format=torch.channels_last)
    print_peak("before")
    columns: dict[str, list[float]] = defaultdict(list)
    for _ in range(1 if quick else 3):
        turn(denoiser, published, 8 if quick else PAIRS, columns)
    width = denoiser.first.weight.shape[0]
    print(f"UNet of width {width}, 40x40: median (least..most) of the turns")
    for name, values in columns.items():
        print(f"  {name:56s}{spread(values)}")
    print_peak("40x40")
    degree = asymmetry(noisy(denoiser, 40)[0])
    print(f"asymmetry |J - J'|/|J|: {degree.value:.3f} +- {degree.standard_error:.3f}")
    if not quick:
        large(denoiser)
        print_peak("80x80")


if __name__ == "__main__":
    main()
