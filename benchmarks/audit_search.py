"""How fast the exact search of an audit is, beside the products that it is made of.

    python benchmarks/audit_search.py [--quick] [--samples S] [--images P] [--data SOURCE]
        [--fld PATH]

Random images of 32x32 in a mapped file are searched for the nearest to S samples: by one distance
(the images as they are), and by 50 views of each sample. Prints products per second of the search,
of a bare matrix product of the same shape in the same run, their ratio, and the memory at its peak,
without pages of the file. Then the shortlist of moved images, with real ones: how often it finds an
image that was moved on purpose, and its time beside that of comparing all. Last, with a checkout of
FLD (marcojira), the time of its search for the nearest image, on the same vectors.
"""

import argparse
import importlib
import importlib.util
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from unittest.mock import MagicMock

import numpy as np
import torch

from twinscore import images as image_sets
from twinscore.analysis.audit import search, shortlist, views
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


def shortlisted(source: str, count: int) -> None:
    """Print the recall of the shortlist among the images of a source, and its time."""
    images = image_sets.load(source)
    moved = next(k for k in views.kinds(SIDE, 0.2, lambda x: x) if k.name == "moved")
    rough, generator = shortlist.coarse(0.2), np.random.default_rng(0)
    of = generator.permutation(len(images))[:count]
    planted = shortlist.probes(moved.look(images[of]), moved, generator)

    def blocks(kind: Kind) -> Iterator[tuple[int, torch.Tensor]]:
        for first in range(0, len(images), BLOCK):
            yield first, seen(images, first, min(first + BLOCK, len(images)), kind.look)

    times, found = [], []
    for how in ("all", "shortlist"):
        started = time.perf_counter()
        if how == "all":
            near = search.search(planted, blocks(moved), moved)
        else:
            rows = search.search(rough.look(planted), blocks(rough), rough, shortlist.CANDIDATES)
            near = shortlist.among(planted, blocks(moved), moved, rows.image, search.NEAREST)
        times.append(time.perf_counter() - started)
        found.append(int((near.image[:, 0] == of).sum()))
    print(
        f"\nmoved images, {count:,} probes among {len(images):,} images of {source}: comparing all "
        f"finds {found[0]:,} in {times[0]:.1f} s, {shortlist.CANDIDATES} candidates {found[1]:,} "
        f"in {times[1]:.1f} s ({times[0] / times[1]:.1f} times as fast); "
        f"{int((rows.image == of[:, None]).any(1).sum()):,} were among the candidates"
    )


def fld(path: Path) -> ModuleType:
    """The published search; packages that it imports for its plots alone need not be there."""
    for name in ("seaborn", "tqdm"):
        if importlib.util.find_spec(name) is None:
            sys.modules[name] = MagicMock()
    sys.path.insert(0, str(path))
    return importlib.import_module("fld.sample_evaluation")


def race(path: Path, samples: int, count: int) -> None:
    """Print the time of the published search for the nearest image, and of ours for the nearest 50.

    Of unit vectors, whose distances have the order of their cosines. The best of three rounds.
    """
    theirs = fld(path).nn
    generator = torch.Generator().manual_seed(0)
    x, pool = (torch.rand(n, 1, SIDE, SIDE, generator=generator) for n in (samples, count))
    plain = kinds()["one distance"]
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        index = theirs(unit(x), unit(pool))[0]
        middle = time.perf_counter()
        near = search.search(x, [(0, pool)], plain)
        seconds.append((middle - started, time.perf_counter() - middle))
    same = float((near.image[:, 0] == index.numpy()).mean())
    first, second = np.min(seconds, 0)
    print(
        f"\nFLD, {samples:,} samples, {count:,} images: {first:.2f} s, ours {second:.2f} s "
        f"({first / second:.1f} times as fast); the same image for {100 * same:.1f} % of samples"
    )


def peak_memory() -> float:
    """Of this process, GB, without the pages of mapped files."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Anonymous:")) / 1e6


def watched(stop: threading.Event, peak: list[float]) -> None:
    """Keep the largest memory seen until ``stop``."""
    while not stop.wait(0.2):
        peak[0] = max(peak[0], peak_memory())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="500 samples and 16,384 images")
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--data", default="photos,size=32", help="real images for the shortlist")
    parser.add_argument("--fld", type=Path, help="a checkout of FLD; without it, it is skipped")
    arguments = parser.parse_args()
    peak, stop = [0.0], threading.Event()
    threading.Thread(target=watched, args=(stop, peak)).start()
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
    stop.set()
    print(f"\npeak memory {peak[0]:.2f} GB, {torch.get_num_threads()} threads")
    shortlisted(arguments.data, 50 if arguments.quick else 500)
    if arguments.fld is None:
        print("\nFLD: skipped, no --fld PATH")
    else:
        race(arguments.fld, 500 if arguments.quick else 1000, 50_000)


if __name__ == "__main__":
    main()
