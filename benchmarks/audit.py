"""How often an audit is wrong, and what it finds, where the truth is known.

    python benchmarks/audit.py [--quick] [--deals D] [--rows NAME...] [--data SOURCE]

Images are dealt at random to a training set T and a held-out set H, and samples are made:
of fresh images, of images of T, or both. A row is one way to make them, over D deals: in how many
an audit claims copies (or shows them), how often its p is at most 0.05, how often the interval of
the copy rate holds the truth, the share of planted copies that is listed, and the share of listed
images that was not copied.
"""

import argparse
import io
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from twinscore import images as image_sets
from twinscore.analysis.audit import search, views
from twinscore.experiments.audit import Spec
from twinscore.experiments.audit.judgement import judge
from twinscore.experiments.audit.pool import Units

SIDE, SAMPLES = 16, 500

LEAST_CONTRAST = 0.05
"""Standard deviation of the pixels of an image, below which noise of 0.1 drowns it."""

LARGEST_CORRELATION = 0.9
"""Of two images: some patches of one photograph are all but equal."""


@cache
def data(source: str) -> Tensor:
    """The images of a source that have contrast, without near-duplicates."""
    found = image_sets.load(source)
    contrast = torch.cat([found[i].flatten(1).std(1) for i in range(len(found))])
    found = found.take(torch.nonzero(contrast >= LEAST_CONTRAST)[:, 0].numpy())
    drop = image_sets.near_duplicates(found, LARGEST_CORRELATION).drop
    return found[np.flatnonzero(~drop)]


def noisy(x: Tensor, generator: np.random.Generator, sigma: float) -> Tensor:
    """With Gaussian noise."""
    return x + sigma * torch.from_numpy(generator.standard_normal(x.shape)).float()


def blurred(x: Tensor) -> Tensor:
    """By a box of three pixels."""
    return F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, 1)


def moved(x: Tensor, generator: np.random.Generator, by: int = 3) -> Tensor:
    """Down and to the left, with edges that show something else."""
    out = torch.from_numpy(generator.random(x.shape)).float()
    out[..., by:, :-by] = x[..., :-by, by:]
    return out


def cropped(x: Tensor) -> Tensor:
    """The middle nine tenths of the side, enlarged."""
    cut = round(0.05 * x.shape[-1])
    inner = x[..., cut:-cut, cut:-cut]
    return F.interpolate(inner, x.shape[-2:], mode="bicubic", align_corners=False)


def jpeg(x: Tensor, quality: int = 60) -> Tensor:
    """Compressed and read again."""
    out = []
    for image in (255 * x.clamp(0, 1)).round().byte().numpy()[:, 0]:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=quality)
        out.append(np.asarray(Image.open(file)))
    return torch.from_numpy(np.stack(out)[:, None]).float() / 255


COPIES: dict[str, Callable[[Tensor, np.random.Generator], Tensor]] = {
    "exact": lambda x, g: x,
    "noise 0.1": lambda x, g: noisy(x, g, 0.1),
    "shift 3": moved,
    "mirror": lambda x, g: x.flip(-1),
    "brightness": lambda x, g: x + 0.2,
    "contrast 0.7": lambda x, g: 0.15 + 0.7 * x,
    "crop 90 %": lambda x, g: cropped(x),
    "JPEG 60": lambda x, g: jpeg(x),
    "blur": lambda x, g: blurred(x),
    "all at once": lambda x, g: jpeg(
        noisy(0.2 + 0.7 * blurred(moved(cropped(x.flip(-1)), g, 1)), g, 0.02)
    ),
    "one tile": lambda x, g: x,
}
"""What a copy is made of an image."""

HONEST: dict[str, Callable[[Tensor, np.random.Generator], Tensor]] = {
    "fresh": lambda x, g: x,
    "fresh, blurred": lambda x, g: blurred(x),
    "fresh, sharpened": lambda x, g: (x + 0.8 * (x - blurred(x))).clamp(0, 1),
    "fresh, contrast 0.5": lambda x, g: 0.25 + 0.5 * x,
    "fresh, noise 0.1": lambda x, g: noisy(x, g, 0.1),
}


@dataclass(frozen=True)
class Row:
    """One way to make samples: ``rate`` of them by ``copy`` of images of T, others by ``rest``.

    ``model`` draws all of them instead, given T, H and a generator. ``n``, ``m``: images dealt.
    """

    rate: float = 0.0
    copy: str = "exact"
    rest: str = "fresh"
    model: Callable[[Tensor, Tensor, np.random.Generator], Tensor] | None = None
    n: int = 500
    m: int = 500


def gaussian(train: Tensor, generator: np.random.Generator) -> Tensor:
    """Samples of the Gaussian fitted to a set."""
    x = train.flatten(1).double()
    root = torch.linalg.cholesky(torch.cov(x.T) + 1e-6 * torch.eye(x.shape[1]))
    z = torch.from_numpy(generator.standard_normal((SAMPLES, x.shape[1])))
    return (x.mean(0) + z @ root.T).float().view(-1, *train.shape[1:])


def empirical(train: Tensor, generator: np.random.Generator) -> Tensor:
    """Images of a set, some of them several times."""
    return train[generator.integers(len(train), size=SAMPLES)]


ROWS = {name: Row(rest=name) for name in HONEST}
ROWS |= {
    f"{100 * rate:g} %, {copy}": Row(rate, copy)
    for copy in COPIES
    for rate in (0.005, 0.01, 0.02, 0.05)
}
ROWS |= {
    "30 %, others over-contrasted": Row(0.3, rest="fresh, sharpened"),
    "30 %, n = 10 m": Row(0.3, n=1500, m=150),
    "10 %, m = 10 n": Row(0.1, n=150, m=1500),
    "one image 500 times": Row(model=lambda t, h, g: t[:1].repeat(SAMPLES, 1, 1, 1)),
    "empirical:T": Row(model=lambda t, h, g: empirical(t, g)),
    **{
        f"gaussian:T, n = {n}": Row(model=lambda t, h, g: gaussian(t, g), n=n)
        for n in (250, 350, 500)
    },
    "gaussian:H": Row(model=lambda t, h, g: gaussian(h, g)),
}
QUICK = ["fresh", "fresh, blurred", "5 %, exact", "5 %, all at once", "gaussian:T, n = 500"]


def samples_of(row: Row, parts: list[Tensor], g: np.random.Generator) -> tuple[Tensor, set[int]]:
    """Samples, and which images of T were copied."""
    train, held_out, fresh = parts
    if row.model:
        return row.model(train, held_out, g), set()
    samples = HONEST[row.rest](fresh.clone(), g)
    count = round(row.rate * len(samples))
    source = g.choice(len(train), count, replace=False)
    copies = COPIES[row.copy](train[source], g)
    if row.copy == "one tile":
        half = SIDE // 2
        samples[:count, :, half:, half:] = copies[..., half:, half:]
    else:
        samples[:count] = copies
    return samples, set(source.tolist())


def audited(source: str, name: str, seed: int) -> tuple[float, ...]:
    """Claimed, shown, p, whether the interval holds, recall, false share, how many are listed."""
    row, g, images = ROWS[name], np.random.default_rng([seed, 7]), data(source)
    order = torch.from_numpy(g.permutation(len(images)))
    parts = list(images[order[: row.n + row.m + SAMPLES]].split([row.n, row.m, SAMPLES]))
    samples, copied = samples_of(row, parts, g)
    pool = torch.cat(parts[:2])
    near = {
        kind.name: search.search(kind.look(samples), [(0, kind.look(pool))], kind)
        for kind in views.kinds(SIDE, 0.2, views.Evened.of([pool]))
    }
    trained = np.arange(len(pool)) < row.n
    units = Units(np.arange(len(pool)), trained, np.ones(len(pool), bool), "image")
    found = judge(Spec(seed=seed), near, units, SAMPLES, [])
    listed = set(found.votes.ranking.unit[found.listed].tolist())
    copies = found.copies
    return (
        found.verdict == "copies",
        found.verdict == "copies shown, not provable",
        found.dependence.p,
        copies.low <= row.rate <= copies.high,
        len(listed & copied) / len(copied) if copied else np.nan,
        len(listed - copied) / max(1, len(listed)),
        len(listed),
    )


def table(pool: ProcessPoolExecutor, source: str, names: list[str], deals: int) -> None:
    """Print a row of figures for each way to make samples."""
    columns = (
        "claimed | shown | p <= 0.05 | interval holds | listed of planted | not planted | listed"
    )
    print(f"{deals} deals, q = 0.1, {SAMPLES} samples of 16x16, {source}\n")
    print(f"| samples | {columns} |\n|{'---|' * 8}")
    for name in names:
        row = ROWS[name]
        found = np.array(list(pool.map(partial(audited, source, name), range(deals))), float)
        p = (found[:, 2] <= 0.05).mean()
        planted = row.rate > 0
        cells = [
            f"{int(found[:, 0].sum())}",
            f"{int(found[:, 1].sum())}",
            f"{100 * p:.1f} %",
            "-" if row.model else f"{100 * found[:, 3].mean():.1f} %",
            f"{100 * found[:, 4].mean():.0f} %" if planted else "-",
            f"{100 * found[:, 5].mean():.1f} %" if planted else "-",
            f"{found[:, 6].mean():.1f}",
        ]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few rows, 4 deals")
    parser.add_argument("--deals", type=int, default=200)
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), metavar="NAME")
    parser.add_argument("--data", default="photos,size=16")
    arguments = parser.parse_args()
    deals = 4 if arguments.quick else arguments.deals
    names = arguments.rows or (QUICK if arguments.quick else list(ROWS))
    started = time.perf_counter()
    torch.set_num_threads(1)
    with ProcessPoolExecutor(2, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        table(pool, arguments.data, names, deals)
    print(f"\n{(time.perf_counter() - started) / 60:.1f} minutes")


if __name__ == "__main__":
    main()
