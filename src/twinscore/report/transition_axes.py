"""What several figures of the transition study are drawn with: colours and an axis of N."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from twinscore.report import plots
from twinscore.report.reading import Run
from twinscore.report.style import Theme
from twinscore.report.transition_content import size
from twinscore.results.base import Interval
from twinscore.results.transition import CriticalN, Level, TwinsKL


def colours(run: Run, theme: Theme) -> dict[int, tuple[float, ...]]:
    """Of every N with a result or a history."""
    sizes = {level.n for level in run.result.levels} if run.result else set()
    sizes |= {history.n for history in run.histories}
    return dict(zip(sorted(sizes), theme.ordered(len(sizes)), strict=True))


def intervals(
    axes: Axes,
    levels: Sequence[Level | TwinsKL],
    values: Sequence[Interval | None],
    colour: str,
    marker: str,
    label: str,
) -> None:
    """Plot values against N with their intervals, where there are any."""
    known = [(level.n, value) for level, value in zip(levels, values, strict=True) if value]
    n = np.array([size for size, _ in known])
    aside = {"^": -0.012, "v": 0.012}.get(marker, 0.0)
    x = n * (n.max() / n.min()) ** aside if n.size else n
    line = "--" if marker == "v" else "-"
    look = {"marker": marker, "linestyle": line, "linewidth": 1.3, "label": label}
    plots.error_bars(axes, x, [value for _, value in known], colour, **look)


def number_axis(axes: Axes, sizes: list[int]) -> None:
    """Put N on a logarithmic axis with a tick at each size, less those that would collide."""
    axes.set_xscale("log")
    axes.margins(x=0.08)
    span = np.log10(max(sizes) / min(sizes)) or 1.0
    ticks: list[int] = []
    for n in reversed(sizes):
        if not ticks or np.log10(ticks[-1] / n) > 0.11 * span:
            ticks.append(n)
    axes.xaxis.set_major_locator(FixedLocator(ticks[::-1]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda n, _: size(n)))
    axes.set_xlabel("training images of each twin, N")


def mark_critical(axes: Axes, critical: CriticalN | None, theme: Theme) -> None:
    """A band between its ends, up to the edge where one is open, and a line at the value."""
    if critical is None:
        return
    start, end = axes.get_xlim()
    low, high = critical.low or start, critical.high or end
    axes.axvspan(low, high, color=theme.muted, alpha=0.15, linewidth=0, label="critical N")
    if critical.value:
        axes.axvline(critical.value, color=theme.muted, linewidth=1)
    axes.set_xlim(min(start, low), max(end, high))


def finish(panels: Sequence[Axes], run: Run, theme: Theme) -> None:
    """An axis of N, the critical one, and a legend below."""
    for axes in panels:
        number_axis(axes, [level.n for level in run.result.levels])
        mark_critical(axes, run.result.critical_n, theme)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=2, columnspacing=1)
