"""What the figures of several studies draw alike: bands, error bars, tiles, words and legends."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from twinscore.report import style
from twinscore.report.pictures import to_rgb
from twinscore.results.base import Interval

DASHED = (0, (4, 3))
SMALL = {"fontsize": 6.5, "fontweight": "normal"}
HEADING = {"fontsize": 9, "fontweight": "bold"}
INPUT = "input PSNR (dB)"
OUTPUT = "output PSNR (dB)"


def new_row(height: float, panels: int = 2, **options: Any) -> tuple[Figure, np.ndarray]:
    """A figure of this height (inches) and its panels, side by side."""
    drawn = style.new_figure(height)
    return drawn, drawn.subplots(1, panels, squeeze=False, **options)[0]


def named(name: str, most: int = 48) -> str:
    """A name that the user gave, on one line, cut where it is long."""
    name = " ".join(name.split())
    return name if len(name) <= most else f"{name[: most - 1]}…"


def curve(intervals: Sequence[Interval]) -> np.ndarray:
    """Values, lower and upper ends of K intervals, (3, K)."""
    return np.array([[each.value, each.low, each.high] for each in intervals]).reshape(-1, 3).T


def reach(intervals: Sequence[Interval]) -> tuple[np.ndarray, np.ndarray]:
    """Values (K,) and how far the intervals reach below and above them, (2, K)."""
    value, low, high = curve(intervals)
    return value, np.maximum([value - low, high - value], 0)


def error_bars(axes: Axes, x: Any, intervals: Sequence[Interval], colour: Any, **look: Any) -> None:
    """Intervals against x."""
    axes.errorbar(x, *reach(intervals), color=colour, **{"capsize": 2, **look})


def band(axes: Axes, x: Any, values: Any, colour: Any, *, alpha: float = 0.2, **look: Any) -> None:
    """A curve of values, lower and upper ends (3, K), with its band."""
    value, low, high = values
    axes.plot(x, value, color=colour, **look)
    axes.fill_between(x, low, high, color=colour, alpha=alpha, linewidth=0)


def entry(colour: Any, label: str, **look: Any) -> Line2D:
    """An entry of a legend."""
    return Line2D([], [], color=colour, label=label, **look)


def legend(
    drawn: Figure, axes: Axes, more: Sequence[Line2D] = (), where: str = "right center", **look: Any
) -> None:
    """The legend of one panel, and more, beside all of them."""
    handles = [*axes.get_legend_handles_labels()[0], *more]
    labels = [handle.get_label() for handle in handles]
    drawn.legend(handles, labels, loc=f"outside {where}", **look)


def fractions(axes: Axes, values: np.ndarray, bins: np.ndarray, colour: Any, **line: Any) -> None:
    """A histogram of cosine similarities, a bar a fraction of them: a pale area and its outline."""
    inside, weights = np.minimum(values, 1), np.full(values.size, 1 / values.size)
    shared = {"bins": bins, "weights": weights, "color": colour}
    axes.hist(inside, histtype="stepfilled", alpha=0.18, **shared)
    axes.hist(inside, histtype="step", linewidth=1.3, **shared, **line)


def beside(
    axes: Axes, text: str, x: float = 0.5, *, above: bool = False, data: bool = False, **look: Any
) -> None:
    """Words under the axes, or above them, at a fraction of the width, or at an x of the data."""
    look = {"xytext": (0, 2 if above else -2), "va": "bottom" if above else "top", **look}
    look = {"ha": "center", "fontsize": 7, "textcoords": "offset points", **look}
    across = "data" if data else "axes fraction"
    axes.annotate(text, (x, int(above)), xycoords=(across, "axes fraction"), **look)


def blank(grid: np.ndarray) -> np.ndarray:
    """Hide the axes of a grid, and return it."""
    for axes in grid.flat:
        axes.set_axis_off()
    return grid


def show(axes: Axes, image: np.ndarray, above: str, below: str = "", pad: float | None = 2) -> None:
    """An image (C, H, W) with a word above and one below."""
    axes.imshow(to_rgb(image[None])[0], interpolation="nearest")
    axes.set_axis_off()
    axes.set_title(above, fontsize=7.5, pad=pad)
    beside(axes, below)
