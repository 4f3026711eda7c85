"""The empirical denoiser's speed beside the machine's float32 matrix products.

    python benchmarks/empirical.py [--quick]

Training images are random fields (field: source's law, contrast 0.2), 32x32 pixels; a call takes 128 of them with
noise. Rates count the two products of 2 B N d operations each; that of the machine is the best of
several shapes, measured before and after every level, by medians. The last columns are the error
of a float32 call against float64 (Euclidean distance, largest of 16 images) and its reported bound.
"""

import argparse
import statistics
import time

import torch

from twinscore.denoisers.closed_form import Empirical
from twinscore.denoisers.layers import generator_of
from twinscore.images.synthetic import field_law, mixture

SIZE, BATCH = 32, 128
LEVELS = (0.01, 0.03, 0.1, 0.3, 0.5, 1.0, 3.0, 10.0)


def seconds(call, repeats: int) -> float:
    call()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def matrix_rate(images: torch.Tensor, y: torch.Tensor, repeats: int) -> float:
    """Operations per second of the best product among both kinds a call needs and a square one."""
    square = torch.rand(1536, 1536, generator=generator_of(0))
    weights = torch.rand(len(y), len(images), generator=generator_of(1))
    products = [(y, images.T), (weights, images), (square, square)]
    return max(
        2 * a.shape[0] * a.shape[1] * b.shape[1] / seconds(lambda a=a, b=b: a @ b, repeats)
        for a, b in products
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="10,000 images, fewer repeats")
    quick = parser.parse_args().quick
    count, repeats = (10_000, 3) if quick else (50_000, 5)
    images, _ = mixture(range(count), field_law(SIZE, 2.0, contrast=0.2))
    form, flat = Empirical.of(images), images.flatten(1)
    z = torch.randn(BATCH, 1, SIZE, SIZE, generator=generator_of(2))
    print(f"{count} images of {SIZE}x{SIZE}, batch {BATCH}, {torch.get_num_threads()} threads")
    print("  sigma  products GFlop/s  empirical GFlop/s  share     error     bound")
    for sigma in LEVELS:
        y = images[:BATCH] + sigma * z
        before = matrix_rate(flat, y.flatten(1), repeats)
        rate = 4 * BATCH * flat.numel() / seconds(lambda y=y, s=sigma: form(y, s), repeats)
        machine = max(before, matrix_rate(flat, y.flatten(1), repeats))
        few = y[:16]
        error = (form(few, sigma) - form(few.double(), sigma)).flatten(1).norm(dim=1).max()
        bound = form.error_bound(few, sigma).max()
        print(
            f"{sigma:7g} {machine / 1e9:17.1f} {rate / 1e9:18.1f} {rate / machine:6.0%}"
            f"  {error:8.1e}  {bound:8.1e}",
            flush=True,
        )


if __name__ == "__main__":
    main()
