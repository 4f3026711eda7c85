"""Speed of the images room, one section a goal.

    python benchmarks/images.py --published PATH/TO/published/code [--only c_alpha] [--quick]

``c_alpha``: images per second at 80x80, beta = alpha = 2, blur 2x2, against the published generator
(in turns, ratio within each turn), and the floor set by drawing the numbers and by the FFTs.
"""

import argparse
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch

from twinscore.images.synthetic import CAlpha, c_alpha, stream

SIZE = 80


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):8.1f} ({min(values):.1f}..{max(values):.1f})"


def draw(count: int) -> None:
    for start in range(0, count, 40):
        stream.uniform(range(start, start + 40), 2 * SIZE * SIZE + SIZE + 3, 0)


def transform(noise: torch.Tensor, count: int) -> None:
    for _ in range(0, count, 40):
        torch.fft.ifft2(torch.fft.fft2(noise))


def bench_c_alpha(published: Path | None, quick: bool) -> None:
    """Print microseconds an image: ours, its floor, the published generator's, and the ratio."""
    count, turns = (400, 5) if quick else (2000, 15)
    law = CAlpha(size=SIZE, alpha=2.0)
    noise = torch.view_as_complex(stream.uniform(range(40), 2 * SIZE**2, 0).view(40, SIZE, SIZE, 2))
    theirs = published_generator(published) if published else None
    columns: dict[str, list[float]] = {"ours": [], "drawing": [], "FFTs": []}
    columns |= {"published": [], "ratio": []} if theirs else {}
    c_alpha(range(40), law)
    for _ in range(turns):
        columns["ours"].append(seconds(lambda: c_alpha(range(count), law)) / count * 1e6)
        columns["drawing"].append(seconds(lambda: draw(count)) / count * 1e6)
        columns["FFTs"].append(seconds(lambda: transform(noise, count)) / count * 1e6)
        if theirs:
            few = count // 8
            columns["published"].append(seconds(lambda few=few: theirs(few)) / few * 1e6)
            columns["ratio"].append(columns["published"][-1] / columns["ours"][-1])
    print(f"c_alpha {SIZE}x{SIZE}: microseconds an image, median (least..most) of {turns} turns")
    for name in ("ours", "drawing", "FFTs", *(("published",) if theirs else ())):
        print(f"  {name:32s}{spread(columns[name])}")
    floor = [a + b for a, b in zip(columns["drawing"], columns["FFTs"], strict=True)]
    times_floor = [own / least for own, least in zip(columns["ours"], floor, strict=True)]
    print(f"  {'floor: drawing + FFTs':32s}{spread(floor)}")
    print(f"  {'ours / floor':32s}{spread(times_floor)}")
    if theirs:
        print(f"  {'published / ours (goal 8, aim 12)':32s}{spread(columns['ratio'])}")
        at_floor = [a / b for a, b in zip(columns["published"], floor, strict=True)]
        print(f"  {'published / floor':32s}{spread(at_floor)}")
    else:
        print("  published: skipped; give --published, the published repository's code folder")


def published_generator(folder: Path) -> Callable[[int], object]:
    warnings.simplefilter("ignore")
    sys.path.insert(0, str(folder))
    from synthetic_data_generators import make_C_alpha_images

    def make(count: int) -> torch.Tensor:
        return make_C_alpha_images(2.0, 2.0, im_size=SIZE, num_samples=count, factor=(2, 2))

    make(4)
    return make


SECTIONS = {"c_alpha": bench_c_alpha}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--published", type=Path, help="the published repository's code folder")
    parser.add_argument("--only", choices=SECTIONS, help="one section instead of all")
    parser.add_argument("--quick", action="store_true", help="under a minute")
    arguments = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, seed 0", flush=True)
    for name, section in SECTIONS.items():
        if arguments.only in (None, name):
            section(arguments.published, arguments.quick)


if __name__ == "__main__":
    main()
