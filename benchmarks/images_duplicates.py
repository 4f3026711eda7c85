"""Near-duplicates: time and peak memory against the dense computation, with planted copies.

    python benchmarks/images_duplicates.py [--quick] [--number 200000]

Images of 80x80 pixels are made on request: each is a weighted sum of four patches of the
photographs that come with scikit-image and scikit-learn, turned and mirrored at random. One in a
hundred is instead a copy of an earlier one with other brightness and contrast and noise added. In
the hard case, with a quarter as many images, all share a strong common part at low frequencies, as
aligned faces do. The time includes making every image once, which is also timed alone. "Dense" is
the blockwise float32 product of all pairs of vectors of 400 numbers, without the images; it is
timed on 20,000 vectors and multiplied by the square of the ratio of the numbers.
"""

import argparse
import hashlib
import resource
import time

import numpy as np
import torch

from twinscore import images

SIDE = 80
TERMS = 4
PLANTED = 100  # one image in so many
DENSE = 20_000


def natural(number: int, common: float, seed: int = 0) -> tuple[images.ImageSet, np.ndarray]:
    """Images made when they are read, and the indices of the planted copies."""
    rng = np.random.default_rng(seed)
    patches = images.load(f"photos,size={SIDE}")[:][:, 0].numpy()
    patches = patches[patches.std(axis=(1, 2)) > 0.05]
    patches -= patches.mean(axis=(1, 2), keepdims=True)
    patches /= patches.std(axis=(1, 2), keepdims=True)
    turned = [np.rot90(patches, k, axes=(1, 2)) for k in range(4)]
    bank = np.concatenate([*turned, *(view[:, :, ::-1] for view in turned)])
    template = bank[rng.integers(0, len(bank), 8)].sum(axis=0)
    template = np.fft.irfft2(np.fft.rfft2(template)[:4, :4], s=(4, 4)).repeat(20, 0).repeat(20, 1)
    template = common * (template - template.mean()) / template.std()

    source = np.arange(number)
    planted = np.arange(PLANTED - 1, number, PLANTED)
    source[planted] = (rng.random(len(planted)) * planted).astype(np.int64)
    terms = rng.integers(0, len(bank), (number, TERMS))
    weights = rng.uniform(0.5, 1.0, (number, TERMS)).astype(np.float32)
    level = rng.uniform(-0.1, 0.1, number).astype(np.float32)
    contrast = rng.uniform(0.6, 1.0, number).astype(np.float32)
    noise = rng.normal(0, 0.02, (64, SIDE, SIDE)).astype(np.float32)

    def make(indices: np.ndarray) -> np.ndarray:
        pixels = np.empty((len(indices), 1, SIDE, SIDE), dtype=np.uint8)
        for start in range(0, len(indices), 256):
            part = indices[start : start + 256]
            origin = source[part]
            x = np.broadcast_to(template, (len(part), SIDE, SIDE)).astype(np.float32)
            for term in range(TERMS):
                x += weights[origin, term, None, None] * bank[terms[origin, term]]
            x *= (0.12 / (1 + common)) * contrast[part, None, None]
            x += 0.5 + level[part, None, None] + noise[part % 64]
            pixels[start : start + 256, 0] = np.rint(255 * x.clip(0, 1))
        return pixels

    lazy = images.LazyPixels((number, 1, SIDE, SIDE), np.dtype(np.uint8), make)
    names = tuple(f"{k:06d}" for k in range(number))
    digests = tuple(hashlib.sha256(name.encode()).hexdigest() for name in names)  # all differ
    return images.ImageSet(pixels=lazy, peak=255.0, names=names, digests=digests), planted


def dense_seconds(count: int, number: int, block: int = 1024) -> float:
    """Seconds for all pairs of `number` vectors of 400, from those of `count`."""
    vectors = torch.nn.functional.normalize(
        torch.randn(count, 400, generator=torch.Generator().manual_seed(0)), dim=1
    )
    scratch = torch.empty(block * block)
    started = time.perf_counter()
    for top in range(0, count, block):
        rows = vectors[top : top + block]
        for left in range(0, top + 1, block):
            columns = vectors[left : left + block]
            out = scratch[: len(rows) * len(columns)].view(len(rows), -1)
            torch.mm(rows, columns.T, out=out)
            out.amax(dim=1)
    return (time.perf_counter() - started) * (number / count) ** 2


def measure(what: str, number: int, common: float) -> None:
    data, planted = natural(number, common)
    started = time.perf_counter()
    for start in range(0, number, 1024):
        data.pixels[start : start + 1024]
    making = time.perf_counter() - started
    started = time.perf_counter()
    found = images.near_duplicates(data)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    dense = dense_seconds(min(DENSE, number), number)
    print(
        f"{what:24s}{number:9,}{seconds:9.1f}{making:9.1f}{peak:9.2f}{found.drop.sum():8,}"
        f"{found.drop[planted].sum():8,} of {len(planted):,}{dense:9.1f}{dense / seconds:8.1f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--number", type=int, default=200_000, help="images of the natural case")
    parser.add_argument("--quick", action="store_true", help="20,000 images")
    arguments = parser.parse_args()
    number = 20_000 if arguments.quick else arguments.number
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; threshold 0.95 at 20x20")
    print(
        f"{'images':24s}{'number':>9s}{'s':>9s}{'making':>9s}{'peak GiB':>9s}{'found':>8s}"
        f"{'planted':>15s}{'dense s':>9s}{'ratio':>8s}"
    )
    measure("natural", number, 0.0)
    measure("alike at low frequencies", number // 4, 3.0)


if __name__ == "__main__":
    main()
