"""How fast the exact search of an audit is, beside the products that it is made of.

    python benchmarks/audit_search.py [--quick] [--samples S] [--images P]

Random images of 32x32 in a mapped file are searched for the nearest to S samples: by one distance
(the images as they are), and by 50 views of each sample. Prints products per second of the search,
of a bare matrix product of the same shape in the same run, their ratio, and the memory at its peak.
"""

import argparse
import resource
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch

from twinscore import images as image_sets
from twinscore.analysis.audit import search, views
from twinscore.analysis.audit.views import Kind
from twinscore.analysis.similarity import unit
from twinscore.experiments.audit.pool import BLOCK, seen

SIDE = 32


def product_rate(samples: int) -> float:
    """Multiplications per second of a product of samples with a block of images."""
    a, b = torch.rand(samples, SIDE**2), torch.rand(BLOCK, SIDE**2)
    rates = []
    for _ in range(3):
        started = time.perf_counter()
        a @ b.T
        rates.append(samples * BLOCK * SIDE**2 / (time.perf_counter() - started))
    return max(rates)


def timed(samples: torch.Tensor, images: image_sets.ImageSet, kind: Kind) -> float:
    """Seconds of a search."""
    blocks = (
        (first, seen(images, first, min(first + BLOCK, len(images)), kind.look))
        for first in range(0, len(images), BLOCK)
    )
    started = time.perf_counter()
    search.search(kind.look(samples), blocks, kind)
    return time.perf_counter() - started


def kinds() -> dict[str, Kind]:
    """One distance; and the first 50 views of moved images, at full size."""
    plain = views.Pair(unit, unit, {})
    look = partial(views.reduced, side=SIDE)
    moved = next(kind for kind in views.kinds(SIDE, 0.2, look) if kind.name == "moved")
    return {
        "one distance": Kind("plain", SIDE, ("whole",), ((plain,),), look),
        "50 views": Kind("moved", SIDE, ("whole",), (moved.pairs[0][:50],), look),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="500 samples and 16,384 images")
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--images", type=int, default=1_000_000)
    arguments = parser.parse_args()
    count, pool = (500, 16_384) if arguments.quick else (arguments.samples, arguments.images)
    generator = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "images.npy"
        mapped = np.lib.format.open_memmap(file, "w+", np.uint8, (pool, SIDE, SIDE))
        for start in range(0, pool, BLOCK):
            part = mapped[start : start + BLOCK]
            part[:] = generator.integers(256, size=part.shape, dtype=np.uint8)
        del mapped
        images = image_sets.load(str(file))
        print("| search | samples | images | seconds | products / s | bare product | ratio |")
        print("|---|---|---|---|---|---|---|")
        for name, kind in kinds().items():
            few = (500, min(8000, pool)) if name == "50 views" else (count, pool)
            samples = torch.rand(few[0], 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
            seconds = timed(samples, images.take(np.arange(few[1])), kind)
            values = sum(pair.of_image(samples[:1]).shape[1] for pair in kind.pairs[0])
            rate, bare = few[0] * few[1] * values / seconds, product_rate(few[0])
            row = (f"{few[0]:,}", f"{few[1]:,}", f"{seconds:.1f}", f"{rate:.3g}", f"{bare:.3g}")
            print(f"| {name} | {' | '.join(row)} | {rate / bare:.2f} |", flush=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"\npeak memory {peak:.2f} GB, {torch.get_num_threads()} threads")


if __name__ == "__main__":
    main()
