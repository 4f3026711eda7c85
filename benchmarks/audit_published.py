"""Are the published numbers of an audit those of the published code, and is the search as fast?

    python benchmarks/audit_published.py PATH [--images N]

PATH is a checkout of dgm-eval (layer6ai-labs): its AuthPct and C_T are computed on the digits, and
on N random images of 32x32 for the time of AuthPct and of the search that an audit does instead.
Without PATH nothing is done.
"""

import argparse
import importlib.util
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from scipy.stats import mannwhitneyu

from twinscore import images as image_sets
from twinscore.analysis.audit import legacy, search, views
from twinscore.analysis.audit.views import Kind
from twinscore.analysis.similarity import unit


def published(path: Path, name: str) -> ModuleType:
    """A module of metrics."""
    spec = importlib.util.spec_from_file_location(name, path / "dgm_eval/metrics" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if name == "ct":  # newer releases of SciPy give an array for columns
        module.mannwhitneyu = lambda a, b, **how: mannwhitneyu(a.ravel(), b.ravel(), **how)
    return module


def compare(path: Path) -> None:
    """Print both numbers of both metrics, for samples without and with copies."""
    digits = image_sets.load("digits")
    order = np.random.default_rng(0).permutation(len(digits))
    train, held_out, fresh = (digits[part] for part in np.split(order[:1500], [500, 1000]))
    copying = torch.cat([train[:150], fresh[150:]])
    print("| samples | number | published | ours |\n|---|---|---|---|")
    for name, samples in (("fresh", fresh), ("30 % copies", copying)):
        t, h, x = (
            part.flatten(1).numpy().astype(np.float64) for part in (train, held_out, samples)
        )
        np.random.seed(0)  # noqa: NPY002 - the published k-means takes the global state
        theirs = published(path, "ct").compute_CTscore(t, h, x)
        ours = legacy.data_copying(samples, held_out, train, seed=0)
        print(f"| {name} | C_T | {theirs:.6f} | {ours:.6f} |")
        theirs = published(path, "authpct").compute_authpct(t, x)
        ours = 100 * legacy.legacy(samples, train).authentic
        print(f"| {name} | AuthPct | {theirs:.4f} | {ours:.4f} |")


def race(path: Path, count: int) -> None:
    """Print the time of the published search of 1,000 samples, and of ours."""
    generator = torch.Generator().manual_seed(0)
    pool, samples = (torch.rand(n, 1, 32, 32, generator=generator) for n in (count, 1000))
    plain = Kind("plain", 32, ("whole",), ((views.Pair(unit, unit, {}),),))
    x, t = samples.flatten(1).numpy(), pool.flatten(1).numpy()
    authpct = published(path, "authpct").compute_authpct
    rounds = []
    for _ in range(3):
        started = time.perf_counter()
        authpct(t, x)
        middle = time.perf_counter()
        search.search(samples, [(0, pool)], plain)
        rounds.append((middle - started, time.perf_counter() - middle))
    theirs, ours = np.min(rounds, 0)
    print(f"\n{count:,} images: AuthPct {theirs:.2f} s, search {ours:.2f} s")
    print(f"ratio {theirs / ours:.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", type=Path, nargs="?")
    parser.add_argument("--images", type=int, default=10_000)
    arguments = parser.parse_args()
    if arguments.path is None:
        print("skipped: give the path of a checkout of dgm-eval")
        return
    compare(arguments.path)
    race(arguments.path, arguments.images)


if __name__ == "__main__":
    main()
