"""Time of `twinscore prepare` on a folder of JPEGs against a bare decode-and-resize loop.

    python benchmarks/images_prepare.py [--quick] [--number 10000] [--size 80] [--colour]

The JPEGs are pieces of 178x218 pixels (the size of CelebA's aligned images) of the photographs that
come with scikit-image, quality 95. The bare loop is what one would write by hand with Pillow alone,
one process per core: open, convert, crop to the central square, resize (Lanczos), keep the bytes.
They take turns; each turn is a new process. Wall time counts; processor time, of all threads and
processes, says more on a machine that others use too.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from twinscore import cli
from twinscore.environment import available_cores
from twinscore.images.embedded import PHOTOGRAPHS

HEIGHT, WIDTH = 218, 178


def make(folder: Path, number: int) -> None:
    import skimage.data

    names = ("astronaut", "chelsea", "coffee", "rocket", "retina", "hubble_deep_field")
    photographs = [np.asarray(getattr(skimage.data, name)()) for name in names]
    assert set(names) <= set(PHOTOGRAPHS)
    generator = np.random.default_rng(0)
    for k in range(number):
        photograph = photographs[k % len(photographs)]
        top = generator.integers(photograph.shape[0] - HEIGHT)
        left = generator.integers(photograph.shape[1] - WIDTH)
        piece = photograph[top : top + HEIGHT, left : left + WIDTH, :3]
        Image.fromarray(piece).save(folder / f"{k:06d}.jpg", quality=95)


def bare_one(path: str, size: int, mode: str) -> bytes:
    with Image.open(path) as image:
        image = image.convert(mode)
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        square = image.crop((left, top, left + side, top + side))
        return square.resize((size, size), Image.Resampling.LANCZOS).tobytes()


def bare(folder: Path, size: int, mode: str, pool: type) -> float:
    start = time.perf_counter()
    paths = [str(path) for path in sorted(folder.iterdir())]
    with pool(available_cores()) as workers:
        chunksize = max(1, len(paths) // (8 * available_cores()))
        one = partial(bare_one, size=size, mode=mode)
        pixels = b"".join(workers.map(one, paths, chunksize=chunksize))
    assert len(pixels) == len(paths) * size * size * len(mode)
    return time.perf_counter() - start


def prepare(folder: Path, size: int, mode: str) -> float:
    source = f"{folder},size={size}{',gray' if mode == 'L' else ''}"
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as out:
        words = ["prepare", "--data", source, "--out", f"{out}/packed.safetensors"]
        assert cli.main(words) == 0
    return time.perf_counter() - start


WAYS = {
    "processes": partial(bare, pool=ProcessPoolExecutor),
    "threads": partial(bare, pool=ThreadPoolExecutor),
    "prepare": prepare,
}


def processor_seconds() -> float:
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def turn(way: str, folder: Path, size: int, mode: str) -> tuple[float, float, float]:
    """Seconds, processor seconds, and peak resident memory in MiB, of a new process."""
    words = [sys.executable, __file__, "--turn", way, str(folder), str(size), mode]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    return tuple(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="1,000 images, 3 turns")
    parser.add_argument("--number", type=int, default=10_000)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--size", type=int, default=80)
    parser.add_argument("--colour", action="store_true")
    parser.add_argument("--turn", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.turn:
        way, folder, size, mode = arguments.turn
        before = processor_seconds()
        seconds = WAYS[way](Path(folder), int(size), mode)
        kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(json.dumps([seconds, processor_seconds() - before, kilobytes / 1024]))
        return
    number, turns = (1000, 3) if arguments.quick else (arguments.number, arguments.turns)
    mode = "RGB" if arguments.colour else "L"
    with tempfile.TemporaryDirectory() as name:
        make(Path(name), number)
        taken = {way: [] for way in WAYS}
        for _ in range(turns):
            for way in WAYS:
                taken[way].append(turn(way, Path(name), arguments.size, mode))
    print(
        f"{number} JPEGs of {WIDTH}x{HEIGHT} to {arguments.size}x{arguments.size} {mode}, ", end=""
    )
    print(f"{available_cores()} cores, median of {turns} turns (least..most)")
    for way, results in taken.items():
        wall, processor, peak = np.array(results).T
        print(
            f"{way:9s} {np.median(wall):6.2f} s ({wall.min():.2f}..{wall.max():.2f}), "
            f"processor {np.median(processor):6.2f} s, peak {peak.max():.0f} MiB"
        )
    table = np.array([taken[way] for way in WAYS])
    for column, what in enumerate(("time", "processor time")):
        ratio = table[2, :, column] / table[:2, :, column].min(axis=0)
        print(
            f"prepare / lesser bare loop, {what}: {np.median(ratio):.2f} "
            f"({ratio.min():.2f}..{ratio.max():.2f}), goal 1.25"
        )


if __name__ == "__main__":
    main()
