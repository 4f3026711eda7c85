"""How well can encoding an image as noise be undone? Error of going up the flow and down again.

    python benchmarks/round_trip.py MODEL DATA [--count 64] [--quick]

MODEL is any model string, DATA any images of its shape. From sigma 0.01 to 2 and back, by
Heun's method; the median over images of the root mean squared error per pixel, and its largest.
"""

import argparse

from twinscore import images
from twinscore.denoisers import load
from twinscore.sampling import noise_levels, round_trip_error


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("--count", type=int, default=64)
    parser.add_argument("--quick", action="store_true", help="8 images")
    arguments = parser.parse_args()
    count = 8 if arguments.quick else arguments.count
    x = images.load(arguments.data)[:count]
    denoiser = load(arguments.model).denoiser
    print(f"{count} images of {arguments.data}, {arguments.model}")
    print(f"{'steps':>6s}{'median':>12s}{'largest':>12s}")
    for steps in (10, 20, 40, 80, 160):
        found = round_trip_error(denoiser, x, levels=noise_levels(steps, 2.0, 0.01))
        print(f"{steps:6d}{found.median().item():12.1e}{found.max().item():12.1e}", flush=True)


if __name__ == "__main__":
    main()
