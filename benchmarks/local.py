"""Local empirical denoisers' speed beside the machine's float32 matrix products.

    python benchmarks/local.py [--quick]

Training images are random fields of 32x32 pixels, of contrast 0.2; a call takes 64 of them with
noise, and patches of side 9. Rates count the two products of ``2 P`` and ``2 (C + 1)`` operations
that a pair of patches of P numbers needs. Plain products, of the size of a block, take turns with
the calls; the best of several counts, in time of the processor. Equivariant, each patch
meets those of all pixels that are cut alike, a thousand times as many: there are fewer images then.
The error is that of a float32 call against float64, the largest of a pixel.
"""

import argparse
import time

import torch

from twinscore.denoisers.closed_form import Local
from twinscore.denoisers.layers import generator_of
from twinscore.images.synthetic import field_law, mixture

SIZE, BATCH, PATCH = 32, 64, 9
LEVELS = (0.01, 0.03, 0.1, 0.3, 1.0, 10.0)


def seconds(calls: list, repeats: int) -> list[float]:
    """Shortest processor time of each call; they take turns, so that they meet the same machine."""
    best = [float("inf")] * len(calls)
    for _ in range(repeats):
        for i, call in enumerate(calls):
            started = time.process_time()
            call()
            best[i] = min(best[i], time.process_time() - started)
    return best


def operations(form: Local, batch: int) -> float:
    """Of the two products, for all pairs of patches that a call compares."""
    count = form.columns.shape[1] * batch
    per = (len(g.members) ** 2 * (g.members.shape[1] + len(g.pixels[0]) + 1) for g in form.groups)
    return 2 * count * sum(per)


def product_rate() -> float:
    """Operations per second of processor time, of products of the size of a block."""
    generator = generator_of(0)
    queries, patches = (torch.randn(*s, generator=generator) for s in ((512, 81), (81, 2048)))
    (once,) = seconds([lambda: queries @ patches], 30)
    return 2 * 512 * 2048 * 81 / once


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two noise levels, fewer repeats")
    quick = parser.parse_args().quick
    levels, repeats = ((0.1, 1.0), 1) if quick else (LEVELS, 3)
    images, _ = mixture(range(10_000), field_law(SIZE, 2.0, contrast=0.2))
    z = torch.randn(BATCH, 1, SIZE, SIZE, generator=generator_of(1))
    print(f"images of {SIZE}x{SIZE}, patches of {PATCH}x{PATCH}, {torch.get_num_threads()} threads")
    print(
        " equivariant  images  batch  sigma  seconds  products GFlop/s  local GFlop/s  share  error"
    )
    for equivariant, count, batch in ((False, 10_000, BATCH), (True, 50, 16)):
        form = Local.of(images[:count], PATCH, equivariant=equivariant)
        small = Local.of(images[:100].double(), PATCH, equivariant=False)
        for sigma in levels:
            y = images[:batch] + sigma * z[:batch]
            rates, times = [], []
            for _ in range(repeats):
                rates.append(product_rate())
                times += seconds([lambda f=form, y=y, s=sigma: f(y, s)], 1)
            rate, machine = operations(form, batch) / min(times), max(rates)
            few = y[:4]
            error = Local.of(images[:100], PATCH, equivariant=False)(few, sigma).double()
            error = (error - small(few.double(), sigma)).abs().max()
            print(
                f"{equivariant!s:>12} {count:7} {batch:6} {sigma:6g} {min(times):8.2f}"
                f" {machine / 1e9:17.1f} {rate / 1e9:14.1f} {rate / machine:6.0%}  {error:.0e}",
                flush=True,
            )


if __name__ == "__main__":
    main()
