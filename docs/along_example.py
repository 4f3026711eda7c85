"""Deal handwritten digits into a training set and a held-out set, as arrays.

    python docs/along_example.py FOLDER

The example of docs/audit.md#along-training. Near-duplicates are left out, so that an image of one
set has none in the other.
"""

import sys
from pathlib import Path

import numpy as np

from twinscore import images

N = 200
SEED = 0


def main(folder: Path) -> None:
    """Write ``train.npy`` and ``held-out.npy``, (N, 8, 8) each."""
    digits = images.load("digits")
    keep = np.flatnonzero(~images.near_duplicates(digits, 0.98).drop)
    order = np.random.default_rng(SEED).permutation(keep)
    folder.mkdir(parents=True, exist_ok=True)
    for part, name in enumerate(("train", "held-out")):
        rows = order[part * N : (part + 1) * N]
        np.save(folder / f"{name}.npy", digits[rows].numpy()[:, 0])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
