"""The empirical denoiser's speed beside the machine's float32 matrix products.

    python benchmarks/empirical.py [--quick]

Training images are random fields of 32x32 pixels, of contrast 0.2; a call takes 128 of them with
noise. Rates count the two products of 2 B N d operations each that a call needs; they are of the
best of several calls, which take turns with plain products. The last columns are the error of a
float32 call against float64 (Euclidean distance, largest of 16 images) and its reported bound.
Shares above 100 % are of levels where few images weigh anything: the second product is left out.
"""

import argparse
import time

import torch

from twinscore.denoisers.closed_form import Empirical
from twinscore.denoisers.layers import generator_of
from twinscore.images.synthetic import field_law, mixture

SIZE, BATCH = 32, 128
LEVELS = (0.01, 0.03, 0.1, 0.3, 0.5, 1.0, 3.0, 10.0)


def seconds(calls: list, repeats: int) -> list[float]:
    """Shortest time of each call; they take turns, so that they meet the same machine."""
    best = [float("inf")] * len(calls)
    for _ in range(repeats + 1):
        for i, call in enumerate(calls):
            started = time.perf_counter()
            call()
            best[i] = min(best[i], time.perf_counter() - started)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="10,000 images, fewer repeats")
    quick = parser.parse_args().quick
    count, repeats = (10_000, 5) if quick else (50_000, 7)
    images, _ = mixture(range(count), field_law(SIZE, 2.0, contrast=0.2))
    form, flat = Empirical.of(images), images.flatten(1)
    weights = torch.rand(BATCH, count, generator=generator_of(1))
    z = torch.randn(BATCH, 1, SIZE, SIZE, generator=generator_of(2))
    print(f"{count} images of {SIZE}x{SIZE}, batch {BATCH}, {torch.get_num_threads()} threads")
    print("  sigma  products GFlop/s  empirical GFlop/s  share     error     bound")
    for sigma in LEVELS:
        y = images[:BATCH] + sigma * z
        calls = [lambda y=y: y.flatten(1) @ flat.T, lambda: weights @ flat]
        first, second, whole = seconds([*calls, lambda y=y, s=sigma: form(y, s)], repeats)
        work = 2 * BATCH * flat.numel()
        machine, rate = work / min(first, second), 2 * work / whole
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
