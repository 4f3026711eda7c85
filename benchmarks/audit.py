"""How often an audit is wrong, and what it finds, where the truth is known.

    python benchmarks/audit.py [--quick] [--deals D] [--rows NAME...] [--records FILE]
    python benchmarks/audit.py --deals D --lists NAME...

Images are dealt at random to a training set T and a held-out set H, and samples are made:
of fresh images, of images of T, or both. A row is one way to make them, over D deals: in how many
an audit claims copies (or shows them), how often its p is at most 0.05, how often the interval of
the copy rate holds the truth, the share of planted copies that is listed, and the share of listed
images that was not copied; and of the copies that every audit plants by itself, the share that it
sees, whether its upper end covers them, and whether its bound for that kind holds. With
``--lists``: the lists alone, in many deals.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from twinscore import images as image_sets
from twinscore.analysis.audit import views
from twinscore.analysis.audit.changes import CHANGES, blurred, changed, noisy
from twinscore.analysis.audit.ranking import listed
from twinscore.analysis.audit.search import Near, search
from twinscore.experiments.audit import Spec, sensitivity
from twinscore.experiments.audit.judgement import Judged, beyond_chance, judge
from twinscore.experiments.audit.pool import Units
from twinscore.experiments.audit.votes import cast

SIDE, SAMPLES = 16, 500
REDEALINGS = 999
RATES = (0.005, 0.01, 0.02, 0.05)

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
    ``shift``: by how much images may have been moved; 0 is searched faster.
    """

    rate: float = 0.0
    copy: str = "exact"
    rest: str = "fresh"
    model: Callable[[Tensor, Tensor, np.random.Generator], Tensor] | None = None
    n: int = 500
    m: int = 500
    shift: float = 0.2


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
GRID = [Row(rate, change) for change in CHANGES for rate in RATES]
ROWS |= {f"{100 * row.rate:g} %, {row.copy}": row for row in GRID}
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
LISTS = {name: ROWS[name] for name in HONEST} | {
    "30 %, n = 400, m = 40": Row(0.3, n=400, m=40, shift=0),
    "4 %, n = 40, m = 400": Row(0.04, n=40, m=400, shift=0),
}
"""Of which lists alone are made, without p and rates, in many deals."""

QUICK = ["fresh", "fresh, blurred", "5 %, exact", "5 %, all at once", "gaussian:T, n = 500"]


def samples_of(
    row: Row, parts: list[Tensor], sets: dict[str, Tensor], g: np.random.Generator
) -> list[tuple[str, slice]]:
    """Which samples a row takes of which sets; those that are not there yet are made.

    Rows of one deal share their sets, so that each is searched once; copies by one change at a
    lower rate are some of those at the largest.
    """
    train, held_out, fresh = parts
    if row.model:
        name = f"model {len(sets)}"
        sets[name] = row.model(train, held_out, g)
        return [(name, slice(0, SAMPLES))]
    if row.rest not in sets:
        sets[row.rest] = HONEST[row.rest](fresh, g)
    count, most = round(row.rate * SAMPLES), round(max(*RATES, row.rate) * SAMPLES)
    copies = f"{most} by {row.copy}, {row.rest}"
    if count and copies not in sets:
        sets[copies] = changed(row.copy, train[:most], sets[row.rest][:most], g)
    return [*([(copies, slice(0, count))] if count else []), (row.rest, slice(count, SAMPLES))]


def voters(near: Near, searched: int, rows: np.ndarray) -> Near:
    """What is near to some of the samples that were searched, at all places."""
    places = len(near.image) // searched
    at = (np.arange(places)[:, None] * searched + rows).ravel()
    return Near(near.similarity[at], near.image[at])


def dealt(source: str, n: int, m: int, seed: int) -> list[Tensor]:
    """A training set, a held-out set, and fresh images."""
    images = data(source)
    order = torch.from_numpy(np.random.default_rng([seed, 7]).permutation(len(images)))
    return list(images[order[: n + m + SAMPLES]].split([n, m, SAMPLES]))


def units_of(row: Row) -> Units:
    """Every image is one."""
    pool = np.arange(row.n + row.m)
    return Units(pool, pool < row.n, np.ones(len(pool), bool), "image")


def audited(names: list[str], source: str, seed: int) -> list[dict[str, object]]:
    """What audits of one deal say, of rows that have as many images."""
    n, m = ROWS[names[0]].n, ROWS[names[0]].m
    parts, g = dealt(source, n, m, seed), np.random.default_rng([seed, 8])
    pool = torch.cat(parts[:2])
    kinds = views.kinds(SIDE, 0.2, views.Evened.of([pool]))

    of, sets = sensitivity.sources(n + m, seed), {}
    taken = [samples_of(ROWS[name], parts, sets, g) for name in names]
    copies = sensitivity.looked(pool[of], parts[2][: len(of)], seed, lambda x: x)
    together = torch.cat([copies, *sets.values()])
    near = {k.name: search(k.look(together), [(0, k.look(pool))], k) for k in kinds}
    first = dict(zip(sets, len(copies) + np.cumsum([0, *map(len, sets.values())]), strict=False))

    def found(rows: np.ndarray) -> dict[str, Near]:
        return {name: voters(x, len(together), rows) for name, x in near.items()}

    planted = sensitivity.Planted(found(np.arange(len(copies))), of)
    units = units_of(ROWS[names[0]])
    records = []
    for name, which in zip(names, taken, strict=True):
        rows = np.concatenate([first[key] + np.arange(SAMPLES)[part] for key, part in which])
        said = judge(Spec(seed=seed), found(rows), units, SAMPLES, [], planted, REDEALINGS)
        records.append({"row": name, "deal": seed} | record(ROWS[name], said))
    return records


def record(row: Row, found: Judged) -> dict[str, object]:
    """What an audit says, beside the truth."""
    listed = set(found.votes.ranking.unit[found.listed].tolist())
    copied = set(range(round(row.rate * SAMPLES)))
    seen, copies = found.power.seen, found.copies
    return {
        "claimed": found.verdict == "copies",
        "shown": found.verdict == "copies shown, not provable",
        "p": found.dependence.p,
        "low": copies.low,
        "high": copies.high,
        "recall": len(listed & copied) / len(copied) if copied else None,
        "false": len(listed - copied) / max(1, len(listed)),
        "listed": len(listed),
        "seen": {name: [of.share.value, of.high, of.covered] for name, of in seen.items()},
    }


def mean(values: Sequence[float], digits: int = 0) -> str:
    """In per cent."""
    return f"{100 * np.mean(values):.{digits}f} %" if len(values) else "-"


def holding(records: list[dict]) -> list[bool]:
    """Whether the interval of each audit holds the rate of its row."""
    return [r["low"] <= ROWS[r["row"]].rate <= r["high"] for r in records]


def table(records: list[dict], names: list[str]) -> None:
    """Print a row of figures for each way to make samples."""
    columns = (
        "deals | claimed | shown | p <= 0.05 | interval holds | listed of planted | not planted"
    )
    print(f"| samples | {columns} | listed |\n|{'---|' * 9}")
    for name in names:
        row, own = ROWS[name], [r for r in records if r["row"] == name]
        planted = own if row.rate else []
        cells = [
            f"{len(own)}",
            f"{sum(r['claimed'] for r in own)}",
            f"{sum(r['shown'] for r in own)}",
            mean([r["p"] <= 0.05 for r in own], 1),
            mean([] if row.model else holding(own), 1),
            mean([r["recall"] for r in planted]),
            mean([r["false"] for r in planted], 1),
            f"{np.mean([r['listed'] for r in own]):.1f}",
        ]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def grid(records: list[dict]) -> None:
    """Print a row for each change: claims and finds by rate, and what bounds are worth."""
    rates = ", ".join(f"{100 * rate:g}" for rate in RATES)
    print(f"\nCopies planted, at {rates} %:\n")
    print(
        "| copies | seen | deals | claimed | claimed or shown | listed of planted | not planted "
        "| covered | "
        f"interval holds: covered | not covered | bound of the kind holds |\n|{'---|' * 11}"
    )
    for change in CHANGES:
        names = [name for name, row in ROWS.items() if row in GRID and row.copy == change]
        by_rate = [[r for r in records if r["row"] == name] for name in names]
        own = [r for part in by_rate for r in part]
        if not all(by_rate):
            continue
        covered = [r for r in own if r["seen"][change][2]]
        others = [r for r in own if not r["seen"][change][2]]
        claims = [sum(r["claimed"] for r in part) for part in by_rate]
        shown = [sum(r["claimed"] or r["shown"] for r in part) for part in by_rate]
        cells = [
            mean([r["seen"][change][0] for r in own]),
            f"{len(by_rate[0])}",
            ", ".join(map(str, claims)),
            ", ".join(map(str, shown)),
            ", ".join(mean([r["recall"] for r in part])[:-2] for part in by_rate) + " %",
            mean([r["false"] for r in by_rate[-1]], 1),
            mean([r["seen"][change][2] for r in own]),
            mean(holding(covered), 1),
            mean(holding(others), 1),
            mean([r["seen"][change][1] >= ROWS[r["row"]].rate for r in own], 1),
        ]
        print(f"| {change} | {' | '.join(cells)} |", flush=True)


def false_share(name: str, source: str, seed: int) -> float:
    """Share of the listed that was not copied, in one deal of a row of ``LISTS``."""
    row = LISTS[name]
    parts, sets = dealt(source, row.n, row.m, seed), {}
    taken = samples_of(row, parts, sets, np.random.default_rng([seed, 8]))
    samples = torch.cat([sets[key][part] for key, part in taken])
    pool = torch.cat(parts[:2])
    kinds = views.kinds(SIDE, row.shift, views.Evened.of([pool]))
    near = {k.name: search(k.look(samples), [(0, k.look(pool))], k) for k in kinds}
    votes = cast(near, units_of(row), SAMPLES, seed)
    length = listed(votes.ranking, Spec().q, beyond_chance(votes))
    unit = votes.ranking.unit[:length][votes.ranking.trained[:length]]
    return float((unit >= round(row.rate * SAMPLES)).sum() / max(1, len(unit)))


def lists(pool: ProcessPoolExecutor, source: str, names: list[str], deals: int) -> None:
    """Print the mean share of false finds; where nothing was copied, how often there is a list."""
    print("| samples | deals | not planted | standard error |\n|---|---|---|---|")
    for name in names:
        found = np.array(list(pool.map(partial(false_share, name, source), range(deals))))
        error = found.std(ddof=1) / np.sqrt(deals)
        print(
            f"| {name} | {deals} | {100 * found.mean():.2f} % | {100 * error:.2f} % |", flush=True
        )


def gathered(
    pool: ProcessPoolExecutor, source: str, names: list[str], deals: int, file: Path | None
) -> list[dict]:
    """Records of all deals of some rows; those in a file are not made again, new ones are added."""
    records = []
    if file and file.exists():
        records = [json.loads(line) for line in file.read_text().splitlines()]
    there = {(r["row"], r["deal"]) for r in records}
    work = []
    for seed in range(deals):
        left = [name for name in names if (name, seed) not in there]
        for size in sorted({(ROWS[name].n, ROWS[name].m) for name in left}):
            work.append((seed, [x for x in left if (ROWS[x].n, ROWS[x].m) == size]))
    run = [pool.submit(audited, rows, source, seed) for seed, rows in work]
    for future in run:
        records += future.result()
        if file:
            with file.open("a") as out:
                out.writelines(json.dumps(r) + "\n" for r in future.result())
    return records


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few rows, 4 deals")
    parser.add_argument("--deals", type=int, default=200)
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), metavar="NAME")
    parser.add_argument("--lists", nargs="+", choices=list(LISTS), metavar="NAME")
    parser.add_argument("--records", type=Path, help="file of deals, added to and read again")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--data", default="photos,size=16")
    arguments = parser.parse_args()
    deals, source = 4 if arguments.quick else arguments.deals, arguments.data
    names = arguments.rows or (QUICK if arguments.quick else list(ROWS))
    started = time.perf_counter()
    own = {"initializer": torch.set_num_threads, "initargs": (1,)}
    with ProcessPoolExecutor(arguments.workers, **own) as pool:
        print(f"q = 0.1, {SAMPLES} samples of 16x16, {source}\n")
        if arguments.lists:
            lists(pool, source, arguments.lists, deals)
        else:
            records = gathered(pool, source, names, deals, arguments.records)
            planted = [name for name in names if ROWS[name] in GRID]
            table(records, [name for name in names if name not in planted])
            grid([r for r in records if r["row"] in planted])
    print(f"\n{(time.perf_counter() - started) / 60:.1f} minutes")


if __name__ == "__main__":
    main()
