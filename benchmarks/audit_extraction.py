"""What comes out of models that know T, that know neither set, and that know T without a copy.

    python benchmarks/audit_extraction.py [--deals 200]

Digits without near-duplicates, n = m = 120, dealt anew each time, with 120 others. Of each kind of
model: deals in which the smaller p of paths and halves, times two, is at most 0.05, and the share
of the images that were tried that came back, of both sets, from the lowest noise and from their
half. Takes about half an hour on a busy core.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from twinscore import images
from twinscore.denoisers import load
from twinscore.experiments import audit
from twinscore.experiments.audit import extraction, membership, returns
from twinscore.experiments.audit.pool import opened, units

N = 120
MODELS = {
    "empirical:T": "empirical:{}/train.npy",
    "gaussian:T": "gaussian:{}/train.npy",
    "gaussian of others": "gaussian:{}/other.npy",
    "empirical of others": "empirical:{}/other.npy",
}
NONE = np.empty((0, 2), dtype=np.int64)


def dealt(deal: int, folder: Path) -> None:
    """Write three sets of digits."""
    digits = images.load("digits")
    keep = np.flatnonzero(~images.near_duplicates(digits, 0.97).drop)
    order = np.random.default_rng(deal).permutation(keep)
    for i, name in enumerate(("train", "held", "other")):
        np.save(folder / f"{name}.npy", digits[order[i * N : (i + 1) * N]].numpy()[:, 0])


def tried(model: str, folder: Path, deal: int) -> tuple[float, list[float]]:
    """P of paths and halves together, and shares of T and H that came back from each."""
    train, held_out = (f"{folder}/{name}.npy" for name in ("train", "held"))
    spec = audit.Spec(model=model, samples=held_out, train=train, held_out=held_out, seed=deal)
    sets, own = opened(spec), (load(model), torch.device("cpu"))
    errors = membership.errors(spec, sets, *own, lambda *_: None)
    found = extraction.tried(spec, sets, own[0], errors, own[1], lambda *_: None)
    came = returns.Came.of(spec, sets, units(sets, NONE, NONE), found)
    trials, each = came.trials(spec, sound=True)
    shares = [side.share.value for trial in (trials[0], trials[-1])
              for side in (trial.trained, trial.held_out)]  # fmt: skip
    return min(1.0, 2 * min(each)), shares


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--deals", type=int, default=200)
    deals, began = parser.parse_args().deals, time.monotonic()
    found: dict[str, list[tuple[float, list[float]]]] = {name: [] for name in MODELS}
    with tempfile.TemporaryDirectory() as folder:
        for deal in range(deals):
            own = Path(folder) / str(deal)
            own.mkdir()
            dealt(deal, own)
            for name, model in MODELS.items():
                found[name].append(tried(model.format(own), own, deal))
    print(f"{deals} deals, {time.monotonic() - began:.0f} s")
    print("| model | p <= 0.05 | back from noise, T | H | from their half, T | H |")
    print("|---|---|---|---|---|---|")
    for name, rows in found.items():
        p, shares = np.array([p for p, _ in rows]), np.mean([of for _, of in rows], 0)
        cells = [f"{100 * np.mean(p <= 0.05):.1f} %", *(f"{100 * x:.1f} %" for x in shares)]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
