"""Does a seed give the same image in batches of another size? Exceptions counted.

    python benchmarks/batches.py MODEL [--count 512] [--quick]

MODEL is any model string whose images have a known shape. The same seeds are drawn in batches of
several sizes; an image counts as an exception where a pixel differs by more than 1e-4 from that of
the largest batch. float32: another batch rounds otherwise, and a path that passes close to the
border between two basins may end in the other one.
"""

import argparse

import numpy as np

from twinscore.denoisers import load
from twinscore.sampling import SamplingSpec
from twinscore.sampling.samples import draw

SAMPLERS = {
    "dpm, 20 steps": SamplingSpec(),
    "ancestral, 30 steps": SamplingSpec(method="ancestral", steps=30),
    "reverse diffusion, h0 .1, beta .3": SamplingSpec(
        method="stochastic", sigma_max=1.0, h0=0.1, beta=0.3
    ),
}
BATCHES = (128, 48, 7)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--count", type=int, default=512)
    parser.add_argument("--quick", action="store_true", help="48 seeds")
    arguments = parser.parse_args()
    count = 48 if arguments.quick else arguments.count
    checkpoint, seeds = load(arguments.model), np.arange(count)
    print(f"{count} seeds, shape {checkpoint.shape}, against batches of {BATCHES[0]}")
    print(f"{'sampler':36s}{'batch':>6s}{'exceptions':>12s}{'median':>10s}{'largest':>10s}")
    for name, spec in SAMPLERS.items():
        reference, _ = draw(checkpoint, seeds, spec, batch=BATCHES[0])
        for batch in BATCHES[1:]:
            x, _ = draw(checkpoint, seeds, spec, batch=batch)
            away = np.abs(x - reference).max((1, 2, 3))
            print(
                f"{name:36s}{batch:6d}{(away > 1e-4).sum():12d}"
                f"{np.median(away):10.1e}{away.max():10.1e}",
                flush=True,
            )


if __name__ == "__main__":
    main()
