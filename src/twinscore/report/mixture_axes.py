"""What several figures of the early-stopping study are drawn with."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter

from twinscore.report.plots import band, entry, legend, reach
from twinscore.report.style import Theme, power_of_ten
from twinscore.results.base import Interval
from twinscore.results.mixture import Exponent, Stop

MOST_CURVES = 6
MOST_TICKS = 5


def some(count: int, most: int = MOST_CURVES) -> list[int]:
    """Up to ``most`` of the indices below a count, evenly, with both ends."""
    return sorted({round(i) for i in np.linspace(0, count - 1, min(count, most))})


def logarithmic(axes: Axes, which: str = "xy") -> None:
    """Logarithmic scales for what is drawn; a panel without any value says so."""
    if np.isfinite(axes.dataLim.minpos).all():
        axes.set(**{f"{axis}scale": "log" for axis in which})
    else:
        axes.text(0.5, 0.5, "no result", transform=axes.transAxes, ha="center", va="center")


def counted(axes: Axes, counts: list[int]) -> None:
    """Logarithmic axes; the ticks of the horizontal one are counts, evenly chosen."""
    logarithmic(axes)
    shown = counts[:: -(-len(counts) // MOST_TICKS)]
    axes.set_xticks(shown, [f"{count:,}" for count in shown])
    axes.xaxis.set_minor_formatter(NullFormatter())


def named(n: int | None) -> str:
    """A number of samples; None is infinitely many."""
    return "n = ∞" if n is None else f"n = {n:,}"


banded = partial(band, alpha=0.18)


def mark_least(axes: Axes, times: np.ndarray, values: np.ndarray, colour: Any) -> None:
    """Mark the least value; hollow where it lies at an end of the range."""
    known = np.flatnonzero(np.isfinite(values))
    if not len(known):
        return
    best = int(np.nanargmin(values))
    fill = colour if known[0] < best < known[-1] else "none"
    axes.plot(times[best], values[best], "o", color=colour, markerfacecolor=fill, zorder=3)


def stopping_times(stops: list[Stop]) -> list[tuple[Stop, Interval]]:
    """Best stopping times tau, of minima inside the range."""
    return [(s, s.tau.times(s.m)) for s in stops if s.inside]


def above_floor(stops: list[Stop]) -> list[tuple[Stop, Interval]]:
    """Least KL above its floor; intervals end at a tenth of the value."""
    found = []
    for s in stops:
        value, low, high = (end - s.floor.value for end in (s.kl.value, s.kl.low, s.kl.high))
        if value > 0:
            found.append((s, Interval(value=value, low=max(low, 0.1 * value), high=high)))
    return found


def error_bars(
    axes: Axes,
    x: list,
    numbers: list,
    colour: Any,
    mark: str,
    label: str,
    filled: list[bool] | None = None,
) -> None:
    """Values with their intervals; marks that are not filled are hollow."""
    value, error = reach(numbers)
    look = {"color": colour, "markersize": 4}
    yerr = error if len(x) else None
    axes.errorbar(x, value, yerr, marker=mark, linewidth=1.1, label=label, **look)
    ends = [k for k, inside in enumerate(filled or []) if not inside]
    look |= {"markerfacecolor": axes.figure.get_facecolor(), "zorder": 3}
    axes.plot(np.array(x)[ends], value[ends], mark, **look)


def guide(axes: Axes, stops: list[Stop], fit: Exponent, theme: Theme) -> None:
    """The theory's slope along m = n, through the middle of the points; the fit in words."""
    if fit.predicted is None:
        return
    said = f"theory {fit.predicted[0]:+g} (dotted)"
    if fit.measured:
        span = f"[{fit.measured.low:+.2f}, {fit.measured.high:+.2f}]"
        said = f"m = n: exponent {fit.measured.value:+.2f} {span}, {said}"
    axes.annotate(said, (0.5, 1.02), xycoords="axes fraction", ha="center", fontsize=7)
    chosen = [s for s in stops if s.n and s.inside]
    values = [
        s.tau.value * s.m if fit.quantity == "tau_es" else s.kl.value - s.floor.value
        for s in chosen
    ]
    points = [(s.n, v) for s, v in zip(chosen, values, strict=True) if s.n and v > 0]
    if len(points) < 2:
        return
    x, y = np.array(points).T
    middle = np.exp(np.log(x).mean()), np.exp(np.log(y).mean())
    ends = np.array([x.min(), x.max()])
    axes.plot(ends, middle[1] * (ends / middle[0]) ** fit.predicted[0], ":", color=theme.muted)


def sampled(theme: Theme, n: int) -> list[Line2D]:
    """Legend of curves of n samples and of infinitely many."""
    return [entry(theme.muted, named(n)), entry(theme.muted, named(None), linestyle="--")]


def marked(colour: Any, label: str, marker: str = "o", **look: Any) -> Line2D:
    """An entry of a legend that is a mark without a line."""
    return entry(colour, label, marker=marker, linestyle="", **look)


def at_an_end(theme: Theme) -> Line2D:
    """What a hollow mark means."""
    return marked(theme.muted, "at an end of the range", markerfacecolor="none")


def power(tau: float) -> str:
    """A training time as a power of ten, where it is a large one."""
    digits = np.log10(tau)
    return power_of_ten(f"{digits:.0f}") if digits >= 3 and digits == round(digits) else f"{tau:g}"


def plain(value: float, _: int | None) -> str:
    """A tick's number as it is."""
    return f"{value:g}"


def legend_below(drawn: Figure, axes: Axes, columns: int, more: Sequence[Line2D] = ()) -> None:
    """What the panel draws, and more, below all panels."""
    legend(drawn, axes, more, "lower center", ncols=columns, fontsize=7.5)
