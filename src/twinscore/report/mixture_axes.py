"""What several figures of the early-stopping study are drawn with."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter

from twinscore.report.style import Theme
from twinscore.results.mixture import Exponent, Stop

MOST_CURVES = 6
MOST_TICKS = 5
MARKED = 12


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


def banded(
    axes: Axes, x: np.ndarray, values: np.ndarray, colour: object, label: str, dash: str = "-"
) -> None:
    """A curve and its band, of value, low and high (3, K)."""
    value, low, high = values
    axes.plot(x, value, dash, color=colour, label=label)
    axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)


def mark_least(axes: Axes, times: np.ndarray, values: np.ndarray, colour: object) -> None:
    """Mark the least value; hollow where it lies at an end of the range."""
    known = np.flatnonzero(np.isfinite(values))
    if not len(known):
        return
    best = int(np.nanargmin(values))
    fill = colour if known[0] < best < known[-1] else "none"
    axes.plot(times[best], values[best], "o", color=colour, markerfacecolor=fill, zorder=3)


def stopping_times(
    axes: Axes, stops: list[Stop], colour: object, mark: str, label: str, aside: float
) -> None:
    """Best stopping times tau against n, moved ``aside`` by a factor."""
    inside = [s for s in stops if s.inside]
    taus = [s.tau.model_copy(update={k: v * s.m for k, v in vars(s.tau).items()}) for s in inside]
    error_bars(axes, [aside * (s.n or 0) for s in inside], taus, colour, mark, label)


def above_floor(
    axes: Axes, stops: list[Stop], colour: object, mark: str, label: str, aside: float
) -> None:
    """Least KL above its floor against n; intervals end at a tenth of the value."""
    shown = [s for s in stops if s.kl.value > s.floor.value]
    gaps = [
        s.kl.model_copy(
            update={
                "value": s.kl.value - s.floor.value,
                "low": max(s.kl.low - s.floor.value, 0.1 * (s.kl.value - s.floor.value)),
                "high": s.kl.high - s.floor.value,
            }
        )
        for s in shown
    ]
    inside = [s.inside for s in shown]
    error_bars(axes, [aside * (s.n or 0) for s in shown], gaps, colour, mark, label, inside)


def error_bars(
    axes: Axes,
    x: list,
    numbers: list,
    colour: object,
    mark: str,
    label: str,
    filled: list[bool] | None = None,
) -> None:
    """Values with their intervals; marks that are not filled are hollow."""
    value, low, high = (
        np.array([getattr(n, k) for n in numbers]) for k in ("value", "low", "high")
    )
    error = np.maximum([value - low, high - value], 0) if len(x) else None
    axes.errorbar(
        x, value, error, color=colour, marker=mark, markersize=4, linewidth=1.1, label=label
    )
    ends = [k for k, inside in enumerate(filled or []) if not inside]
    axes.plot(
        np.array(x)[ends],
        value[ends],
        mark,
        color=colour,
        markersize=4,
        markerfacecolor=axes.figure.get_facecolor(),
        zorder=3,
    )


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
    return [entry(theme.muted, f"n = {n:,}"), entry(theme.muted, r"n = $\infty$", "--")]


def entry(colour: object, label: str, dash: str = "-", **mark: object) -> Line2D:
    """An entry of a legend: a line, or a mark without one."""
    return Line2D([], [], color=colour, linestyle="" if mark else dash, label=label, **mark)


def power(tau: float) -> str:
    """A training time as a power of ten, where it is a large one."""
    digits = np.log10(tau)
    return f"$10^{{{digits:.0f}}}$" if digits >= 3 and digits == round(digits) else f"{tau:g}"


def plain(value: float, _: int | None) -> str:
    """A tick's number as it is."""
    return f"{value:g}"


def every(times: np.ndarray) -> int:
    """Which of the times are marked: one in so many."""
    return max(1, len(times) // MARKED)


def legend_below(
    figure: Figure, axes: Axes, columns: int, more: list[Line2D] | None = None
) -> None:
    """What the panel draws, and more; labels that are empty are left out."""
    handles: list[Line2D] = [*axes.get_legend_handles_labels()[0], *(more or [])]
    labels = [handle.get_label() for handle in handles]
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, fontsize=7.5)
