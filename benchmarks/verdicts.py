"""How often the verdict is wrong, where the truth is known.

    python benchmarks/verdicts.py [--quick] [--repetitions 400] [--rows NAME ...]

Teachers (`verdict_teachers.py`) are judged by the program's own `judge`, each repetition with other
images, samples and seeds. A verdict is *wrong* if it claims what is not so:

- *memorises*, where the true M is below 1/2;
- *generalises*, where more than 5 % are copies, M is 0.2 or more, G is 1/2 or less, or the samples
  have a fault;
- *has not learned*, where they have none.

*transition* claims nothing: it is never wrong, and shown beside. A row passes if no more of them
are wrong than an error of 5 % allows with 99 % (31 of 400). There is no gain over the baseline in
it: teachers do not denoise. `--rows` takes names of rows, "run" and "power".
"""

import argparse
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

import torch
from scipy.stats import binom

from twinscore.analysis.critical import critical_n
from twinscore.analysis.statistics import crossing
from twinscore.runs import derive_seed
from verdict_teachers import Classes, Teacher, judged

SEED = 0
WORDS = ("memorises", "transition", "generalises", "has not learned")

COPYING = Teacher("mixture", samples=128)
PHOTOS = Teacher("photos", n=300, samples=256)
FAULTY = replace(PHOTOS, n=100, samples=128)
ROWS: dict[str, Teacher | Classes] = {
    # nothing is copied
    **{f"honest, N = {n}": Teacher(n=n, samples=128) for n in (1, 2, 3, 10, 400)},
    "honest, 64 samples": Teacher(samples=64),
    "honest, mixture": Teacher("mixture", n=400, samples=128),
    "honest, digits": Teacher("digits", n=100, samples=128),
    "honest, discs": Teacher("discs", n=400, samples=128),
    "honest, photographs": PHOTOS,
    "honest, discs, N = 4000": Teacher("discs", n=4000, samples=128),
    "photographs, 16 samples": replace(PHOTOS, samples=16),
    "photographs, 8 held out": replace(FAULTY, held_out=8),
    # some are
    "copies 1 %": replace(COPYING, law="discs", copies=0.01),
    "copies 2 %": replace(COPYING, n=400, copies=0.02),
    "copies 5 %": replace(COPYING, law="digits", copies=0.05),
    "copies 6 %": replace(COPYING, copies=0.06),
    "copies 6 %, 256 samples": replace(COPYING, samples=256, copies=0.06),
    "copies 20 %, N = 3": replace(COPYING, n=3, copies=0.2),
    "copies 20 %, N = 400": replace(COPYING, n=400, copies=0.2),
    "copies 20 %, plus noise": replace(COPYING, law="digits", n=400, copies=0.2, noise=0.05),
    "copies 45 %, N = 3": replace(COPYING, n=3, copies=0.45),
    "copies 45 %, N = 10": replace(COPYING, law="gaussian", n=10, copies=0.45),
    "copies 45 %, N = 100": replace(COPYING, copies=0.45),
    **{
        f"copies 45 %, {s} samples": replace(COPYING, samples=s, copies=0.45, agreeing=0.0)
        for s in (3, 5, 16)
    },
    "copies 50 %": replace(COPYING, law="discs", copies=0.5),
    **{f"copies all, N = {n}": replace(COPYING, n=n, copies=1.0) for n in (1, 2, 3, 10, 400)},
    # memory without copies, and little agreement
    "leans by 0.22": replace(COPYING, leaning=0.22),
    "leans by 0.45, N = 10": replace(COPYING, n=10, leaning=0.45),
    "agrees on 48 %": replace(COPYING, agreeing=0.48),
    "agrees on 10 %": replace(COPYING, law="discs", agreeing=0.1),
    # what fooled earlier rules
    "mean image": replace(FAULTY, fault="mean image"),
    "blurred by 3 pixels": replace(FAULTY, fault="blurred by 3 pixels"),
    "contrast flattened": replace(FAULTY, fault="contrast flattened"),
    "one image": replace(FAULTY, fault="one image"),
    "40 % plus noise 0.08": replace(PHOTOS, copies=102, noise=0.08),
    "20 of 256 copied": replace(PHOTOS, copies=20),
    "3 of 16 copied": Teacher("digits", n=300, samples=16, copies=3),
    "4 pairs of classes": Classes(4),
    "5 pairs of classes": Classes(5),
    # what it cannot find: copies no nearer than honest samples are
    "10 %, hidden by noise": replace(COPYING, law="discs", n=400, copies=0.1, noise=0.02),
}
LIMITS = ("10 %, hidden by noise",)
"""Rows that no rule is asked to pass."""

QUICK = (
    "honest, N = 10",
    "copies 6 %",
    "copies 45 %, 5 samples",
    "copies all, N = 3",
    "3 of 16 copied",
    "run",
)

RUN = {10: 1.0, 30: 0.5, 100: 0.02, 300: 0.0}
"""Copy rate at each N of a whole run; where nothing is copied, twins agree on 90 % of the seeds."""
RATES = (0.0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
COUNTS = {59: 1, 128: 1, 256: 1, 512: 2, 1024: 8, 2048: 8}
"""Samples, and by what the repetitions of the power table are divided."""


def allowed(repetitions: int) -> int:
    """Wrong ones that an error of 5 % exceeds with 1 % only."""
    return int(binom.ppf(0.99, repetitions, 0.05))


def tally(name: str, seeds: range) -> Counter:
    """Verdicts of some repetitions of a row."""
    row = ROWS[name]
    return Counter(judged(row, derive_seed(SEED, name, i))["verdict"] for i in seeds)


def true_crossing() -> float:
    """Where G - M of the run turns positive, on the curve that joins the true gaps."""
    truths = [replace(COPYING, copies=c, agreeing=0.9).truth for c in RUN.values()]
    return crossing(list(RUN), torch.tensor([[t.agreement - t.memory for t in truths]]).numpy())[0]


def runs(name: str, seeds: range) -> Counter:
    """Wrong levels and missed critical N of some whole runs, whose sizes share images and seeds."""
    found: Counter = Counter()
    for i in seeds:
        teachers = [replace(COPYING, n=n, copies=c, agreeing=0.9) for n, c in RUN.items()]
        levels = [judged(teacher, derive_seed(SEED, name, i)) for teacher in teachers]
        wrong = [t.truth.wrong(of["verdict"]) for t, of in zip(teachers, levels, strict=True)]
        learned = [n for n, of in zip(RUN, levels, strict=True) if of["learned"].passed]
        at, _ = critical_n(list(RUN), [of["excess"] for of in levels], learned)
        missed = at is not None and not (at.low or 0) <= true_crossing() <= (at.high or math.inf)
        found["wrong"] += any(wrong)
        found["missed"] += missed
        found["either"] += any(wrong) or missed
        found["claimed"] += at is not None
    return found


def power(cell: str, seeds: range) -> Counter:
    """What some repetitions show of a copy rate, by a number of samples: "RATE SAMPLES"."""
    rate, samples = cell.split()
    teacher = replace(COPYING, copies=float(rate), samples=int(samples))
    found: Counter = Counter()
    for i in seeds:
        of = judged(teacher, derive_seed(SEED, "power", cell, i))
        found["not generalises"] += of["verdict"] != "generalises"
        found["above"] += max(of["copies"].a.low, of["copies"].b.low) > 0.05
        found["memorises"] += of["verdict"] == "memorises"
    return found


Measure = Callable[[str, range], Counter]


def counted(
    pool: ProcessPoolExecutor, asked: Sequence[tuple[Measure, str, int]]
) -> Iterator[Counter]:
    """Sums of measures over repetitions, in order, by all processes at once."""
    parts = [
        [pool.submit(measure, name, range(i, min(i + 20, count))) for i in range(0, count, 20)]
        for measure, name, count in asked
    ]
    for of in parts:
        yield sum((part.result() for part in of), Counter())


def show_rows(pool: ProcessPoolExecutor, names: Sequence[str], repetitions: int) -> bool:
    """Print the table of rows; whether all passed."""
    columns = ["row", "law", "N", "samples", "true M", "copies", "G", "faults", *WORDS, "wrong"]
    print(f"| {' | '.join(columns)} | passes |\n{'|---' * (len(columns) + 1)}|")
    passed, most = True, allowed(repetitions)
    found = counted(pool, [(tally, name, repetitions) for name in names])
    for name, words in zip(names, found, strict=True):
        row, truth = ROWS[name], ROWS[name].truth
        wrong = sum(count for word, count in words.items() if truth.wrong(word))
        passes = "limit" if name in LIMITS else ("yes" if wrong <= most else "NO")
        passed &= passes != "NO"
        about = f"{row.law} | {row.n or 40 * row.pairs} | {row.samples}"
        true = f"{truth.memory:.2g} | {truth.copies:.2g} | {truth.agreement:.2g}"
        fault = "no" if truth.learned else "yes"
        shares = " | ".join(f"{100 * words[word] / repetitions:.3g} %" for word in WORDS)
        print(
            f"| {name} | {about} | {true} | {fault} | {shares} | {wrong} | {passes} |", flush=True
        )
    return passed


def show_runs(pool: ProcessPoolExecutor, repetitions: int) -> None:
    [found] = counted(pool, [(runs, "run", repetitions)])
    print(
        f"\nRuns at N = {', '.join(map(str, RUN))} with copies {', '.join(map(str, RUN.values()))}"
    )
    print(
        f"{repetitions} runs: a wrong level in {found['wrong']}; critical N (true "
        f"{true_crossing():.0f}) claimed in {found['claimed']} and missed in {found['missed']}; "
        f"either in {found['either']} (allowed {allowed(repetitions)})",
        flush=True,
    )


def show_power(pool: ProcessPoolExecutor, repetitions: int) -> None:
    print("\nPower: not 'generalises' / lower bound of a copy rate above 5 % / 'memorises', %")
    print(
        f"| copies | {' | '.join(f'{s} samples' for s in COUNTS)} |\n{'|---' * (len(COUNTS) + 1)}|"
    )
    each = [max(1, repetitions // share) for share in COUNTS.values()]
    cells = [(power, f"{r} {s}", n) for r in RATES for s, n in zip(COUNTS, each, strict=True)]
    found = counted(pool, cells)
    for rate in RATES:
        shares = []
        for n in each:
            of = next(found)
            parts = (100 * of[what] / n for what in ("not generalises", "above", "memorises"))
            shares.append(" / ".join(f"{part:.0f}" for part in parts))
        print(f"| {100 * rate:g} % | {' | '.join(shares)} |", flush=True)
    print(f"({', '.join(f'{n} repetitions at {s}' for s, n in zip(COUNTS, each, strict=True))})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few rows, 20 repetitions")
    parser.add_argument("--repetitions", type=int, default=0)
    parser.add_argument("--rows", nargs="+", metavar="NAME", choices=[*ROWS, "run", "power"])
    arguments = parser.parse_args()
    repetitions = arguments.repetitions or (20 if arguments.quick else 400)
    names = arguments.rows or (QUICK if arguments.quick else [*ROWS, "run", "power"])
    begun = time.perf_counter()
    print(f"{repetitions} repetitions, seed {SEED}; wrong at most {allowed(repetitions)}\n")
    with ProcessPoolExecutor(2, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        rows = [name for name in names if name in ROWS]
        passed = show_rows(pool, rows, repetitions) if rows else True
        if "run" in names:
            show_runs(pool, repetitions)
        if "power" in names:
            show_power(pool, max(1, repetitions // 4))
    print(f"\n{(time.perf_counter() - begun) / 60:.1f} minutes")
    raise SystemExit(not passed)


if __name__ == "__main__":
    main()
