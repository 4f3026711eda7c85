"""Figures of the early-stopping study: curves along training, rates, terms, modes and twins."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from twinscore.report import style
from twinscore.report.mixture_data import Data, Exponent, Stop
from twinscore.report.style import Theme

NAMES = {"mixture": "Two Gaussian modes", "bounded": "Raised cosine, compact support"}
TAU = r"training time $\tau/m$"
KL = "KL divergence (nats)"
MARKS = ("o", "s", "^", "D", "v", "P")
MOST_CURVES = 6
MOST_TICKS = 5
APART = 1.07
"""Factor between series that would hide each other."""


def training(data: Data, look: Theme) -> Figure:
    """KL along training for several n, at the largest width; the least value marked."""
    figure = style.new_figure(3.1)
    times = data.array("times")
    rows = _some(len(data.sizes))
    all_axes = figure.subplots(1, len(data.targets), sharey=True, squeeze=False)[0]
    for axes, target in zip(all_axes, data.targets, strict=True):
        kl = data.array(f"{target}/kl")[:, :, -1]
        for row, colour in zip(rows, look.ordered(len(rows)), strict=True):
            _curve(axes, times, kl[:, row], colour, f"n = {data.sizes[row]:,}")
            _mark(axes, times, kl[0, row], colour)
        _curve(axes, times, kl[:, -1], look.ink, r"n = $\infty$", "--")
        axes.set(xlabel=TAU, title=NAMES[target])
        _logarithmic(axes)
    all_axes[0].set_ylabel(KL)
    marks = [
        _handle(look.muted, "least value", marker="o"),
        _handle(look.muted, "at an end of the range", marker="o", markerfacecolor="none"),
    ]
    _legend_below(figure, all_axes[0], 5, marks)
    return figure


def rates(data: Data, look: Theme) -> Figure:
    """Best stopping time and least KL against n: along m = n, and at fixed m."""
    figure = style.new_figure(0.4 + 2.6 * len(data.targets))
    grid = figure.subplots(len(data.targets), 2, squeeze=False)
    widths = [data.widths[i] for i in _some(len(data.widths), 3)]
    paths = [*((f"n, at m = {m}", m) for m in widths), ("m = n", None)]
    colours = [*look.ordered(len(widths)), look.nearest]
    for row, target in zip(grid, data.targets, strict=True):
        for k, ((along, m), colour) in enumerate(zip(paths, colours, strict=True)):
            stops = [
                s
                for s in data.result.stops
                if s.target == target and s.n is not None and s.m == (m or s.n)
            ]
            label = "m = n" if m is None else f"m = {m}"
            aside = APART ** (k - len(widths) / 2)
            _stopping(row[0], stops, colour, MARKS[k], label, aside)
            _above(row[1], stops, colour, MARKS[k], label, aside)
            if m is None:
                fits = [e for e in data.result.exponents if (e.target, e.along) == (target, along)]
                for axes, fit in zip(row, fits, strict=True):
                    _guide(axes, stops, fit, look)
        row[0].set_ylabel(r"best stopping time $\tau_{es}$")
        row[0].set_title(NAMES[target], pad=16)
        row[1].set_ylabel("least KL above the\nfloor of n = $\\infty$ (nats)")
        for axes in row:
            axes.set_xlabel("training samples n")
            _counted(axes, data.sizes)
            axes.set_xlim(data.sizes[0] / APART**4, data.sizes[-1] * APART**4)
    hollow = _handle(look.muted, "at an end of the range", marker="o", markerfacecolor="none")
    _legend_below(figure, grid[0, 1], 5, [hollow])
    return figure


def terms(data: Data, look: Theme) -> Figure:
    """Each term of the bound along training, at the largest width, beside the KL it bounds."""
    figure = style.new_figure(3.3)
    times = data.array("times")
    rows = _some(len(data.sizes), 3)
    all_axes = figure.subplots(1, len(data.targets), sharey=True, squeeze=False)[0]
    for axes, target in zip(all_axes, data.targets, strict=True):
        sampling = data.array(f"{target}/sampling")
        for row, colour in zip(rows, look.ordered(len(rows)), strict=True):
            _curve(axes, times, sampling[:, row], colour, f"sampling, n = {data.sizes[row]:,}")
        least = data.array(f"{target}/approximation")[0, -1]
        _curve(axes, times, data.array(f"{target}/training")[:, -1], look.nearest, "training", "--")
        axes.axhline(least, color=look.closest_pairs, linestyle=":", label="approximation")
        prior = data.result.prior[target]
        axes.axhline(prior, color=look.held_out, linestyle="-.", label=r"start: KL$(p_T\|\pi)$")
        bound = data.array(f"{target}/excess")[0, rows[-1]] + prior
        label = f"bound, n = {data.sizes[rows[-1]]:,}"
        rings = {"marker": "o", "markerfacecolor": "none", "markersize": 5, "linestyle": ""}
        axes.plot(times, bound, color=look.ink, label=label, markevery=_every(times), **rings)
        kl = data.array(f"{target}/kl")[:, rows[-1], -1]
        _curve(axes, times, kl, look.ink, f"KL, n = {data.sizes[rows[-1]]:,}", "-")
        axes.set(xlabel=TAU, title=NAMES[target])
        _logarithmic(axes)
        axes.set_ylim(bottom=max(1e-6, 0.3 * min(least, prior)))
    all_axes[0].set_ylabel("nats")
    _legend_below(figure, all_axes[0], 4)
    return figure


def capacity(data: Data, look: Theme) -> Figure:
    """Least KL along training against m, for several n."""
    figure = style.new_figure(2.9)
    all_axes = figure.subplots(1, len(data.targets), sharey=True, squeeze=False)[0]
    sizes = [data.sizes[i] for i in _some(len(data.sizes), 4)]
    series = [*zip(sizes, look.ordered(len(sizes)), strict=True), (None, look.ink)]
    for axes, target in zip(all_axes, data.targets, strict=True):
        for (n, colour), mark in zip(series, MARKS, strict=False):
            stops = [s for s in data.result.stops if (s.target, s.n) == (target, n)]
            label = r"n = $\infty$" if n is None else f"n = {n:,}"
            inside = [s.inside for s in stops]
            _bars(axes, [s.m for s in stops], [s.kl for s in stops], colour, mark, label, inside)
        axes.set(xlabel="features m", title=NAMES[target])
        _counted(axes, data.widths)
    all_axes[0].set_ylabel("least KL along training (nats)")
    hollow = _handle(look.muted, "at an end of the range", marker="o", markerfacecolor="none")
    _legend_below(figure, all_axes[0], 6, [hollow])
    return figure


def shift(data: Data, look: Theme) -> Figure:
    """KL along training for modes ever further apart, and its least value against mu."""
    figure = style.new_figure(3.4)
    left, right = figure.subplots(1, 2, sharey=True)
    spec = data.run.spec["shift"]
    times, distances, n = data.array("times"), spec["distances"], spec["samples"]
    for mu, colour in zip(distances, look.ordered(len(distances)), strict=True):
        kl = data.array(f"shift/{mu:g}/0.5/kl")
        _curve(left, times, kl[:, 0], colour, rf"$\mu$ = {mu:g}")
        left.plot(times, kl[0, 1], "--", color=colour)
    left.set(xlabel=TAU, ylabel="nats", title="KL along training")
    _logarithmic(left)
    equal = [s for s in data.result.shifted if s.lighter == 0.5]
    for count, colour, mark in ((n, look.nearest, "o"), (None, look.ink, "s")):
        found = [s for s in equal if s.n == count and s.kl]
        label = r"least KL, n = $\infty$" if count is None else f"least KL, n = {count:,}"
        kls = [s.kl for s in found if s.kl]
        _bars(right, [s.mu for s in found], kls, colour, mark, label)
    endless = [s for s in equal if s.n is None]
    for key, label, dash in (
        ("approximation", "approximation", ":"),
        ("training", "training left at the end", "-."),
    ):
        values = [getattr(s, key).value for s in endless]
        right.plot([s.mu for s in endless], values, dash, color=look.ink, label=label)
    right.set(xlabel=r"$\mu$ (modes at $\pm\mu$)", title="Least KL, and error of the score")
    _logarithmic(right, "y")
    right.legend(fontsize=7, loc="lower right")
    _legend_below(figure, left, 7, _sampled(look, n))
    return figure


def dynamics(data: Data, look: Theme) -> Figure:
    """Learned densities against the target at chosen training times."""
    spec = data.run.spec["shift"]
    figure = style.new_figure(0.5 + 1.75 * len(spec["watched"]))
    grid = figure.subplots(len(spec["watched"]), len(spec["shown"]), squeeze=False, sharey="row")
    for row, mu in zip(grid, spec["watched"], strict=True):
        name = f"shift/{mu:g}/0.5"
        points, target = data.array(f"{name}/points"), data.array(f"{name}/target")
        shown, known = data.array(f"{name}/shown"), data.array(f"{name}/shown_converged")
        for k, (axes, tau) in enumerate(zip(row, spec["shown"], strict=True)):
            axes.fill_between(points, target, color=look.grid, label="target", linewidth=0)
            for i, (colour, dash) in enumerate(((look.nearest, "-"), (look.ink, "--"))):
                label = r"n = $\infty$" if i else f"n = {spec['samples']:,}"
                axes.plot(points, shown[i, k], dash, color=colour, linewidth=1.1, label=label)
            failed = "" if known[:, k].all() else " *"
            axes.set_title(
                rf"$\mu$ = {mu:g}, $\tau/m$ = {_said(tau)}{failed}", fontsize=7.5, weight="normal"
            )
            axes.set(xlim=(-mu - 5, mu + 5), xlabel="x")
        row[0].set(ylabel="density", ylim=(0, max(1.3 * target.max(), shown[known].max(initial=0))))
    star = _handle(look.ink, "one of the two missed its tolerance", "", marker="$*$")
    _legend_below(figure, grid[0, 0], 4, [star])
    return figure


def modes(data: Data, look: Theme) -> Figure:
    """Share of a mode's mass that the model draws, along training."""
    spec = data.run.spec["shift"]
    figure = style.new_figure(3.0)
    all_axes = figure.subplots(1, len(spec["watched"]), sharex=True, sharey=True, squeeze=False)[0]
    weights = [0.5, *spec["weights"]]
    times = data.array("times")
    for axes, mu in zip(all_axes, spec["watched"], strict=True):
        for weight, colour in zip(weights, look.ordered(len(weights)), strict=True):
            kept = data.array(f"shift/{mu:g}/{weight:g}/kept")
            _curve(axes, times, kept[:, 0, :, 1], colour, f"weight {weight:g}")
            axes.plot(times, kept[0, 1, :, 1], "--", color=colour)
        axes.axhline(1, color=look.muted, linewidth=0.7)
        axes.set(xlabel=TAU, title=rf"$\mu$ = {mu:g}", ylim=(0, 3))
        _logarithmic(axes, "x")
    all_axes[0].set_ylabel("mass near the lighter mode,\nin units of the target's")
    _legend_below(figure, all_axes[0], 6, _sampled(look, spec["samples"]))
    return figure


def twins(data: Data, look: Theme) -> Figure:
    """Distance of twins' scores along training, and of their densities against n."""
    figure = style.new_figure(3.2)
    left, right = figure.subplots(1, 2)
    times = data.array("twin_times")
    variance, error = data.array("twins/variance"), data.array("twins/error")
    rows = _some(len(data.sizes), 4)
    for row, colour in zip(rows, look.ordered(len(rows)), strict=True):
        _curve(left, times, variance[:, row], colour, f"n = {data.sizes[row]:,}")
        left.plot(times, error[0, row], ":", color=colour)
    left.set(xlabel=TAU, ylabel="nats of the bound")
    _logarithmic(left)
    left.set_title("Scores")
    ways = [_handle(look.muted, "apart"), _handle(look.muted, "off the target's", ":")]
    _legend_below(figure, left, 6, ways)
    found = data.result.twins
    series = {
        "twins": ([t.variation for t in found], look.twins, "o"),
        "twins, shared features": ([t.variation_shared for t in found], look.closest_pairs, "s"),
        "one of them from the target": ([t.off for t in found], look.nearest, "^"),
    }
    for label, (numbers, colour, mark) in series.items():
        _bars(right, [t.n for t in found], numbers, colour, mark, label)
    right.set(xlabel="training samples n", ylabel="total variation")
    _counted(right, data.sizes)
    if right.get_yscale() == "log":
        right.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
        right.yaxis.set_major_formatter(_plain)
        right.yaxis.set_minor_formatter(_plain)
    right.set_title("Densities, at the best stop")
    right.legend(fontsize=7, loc="lower left")
    return figure


def _some(count: int, most: int = MOST_CURVES) -> list[int]:
    """Up to ``most`` of the indices below a count, evenly, with both ends."""
    return sorted({round(i) for i in np.linspace(0, count - 1, min(count, most))})


def _logarithmic(axes: Axes, which: str = "xy") -> None:
    """Logarithmic scales for what is drawn; a panel without any value says so."""
    if np.isfinite(axes.dataLim.minpos).all():
        axes.set(**{f"{axis}scale": "log" for axis in which})
    else:
        axes.text(0.5, 0.5, "no result", transform=axes.transAxes, ha="center", va="center")


def _counted(axes: Axes, counts: list[int]) -> None:
    """Logarithmic axes; the ticks of the horizontal one are counts, evenly chosen."""
    _logarithmic(axes)
    shown = counts[:: -(-len(counts) // MOST_TICKS)]
    axes.set_xticks(shown, [f"{count:,}" for count in shown])
    axes.xaxis.set_minor_formatter(NullFormatter())


def _curve(
    axes: Axes, x: np.ndarray, banded: np.ndarray, colour: object, label: str, dash: str = "-"
) -> None:
    value, low, high = banded
    axes.plot(x, value, dash, color=colour, label=label)
    axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)


def _mark(axes: Axes, times: np.ndarray, values: np.ndarray, colour: object) -> None:
    """Mark the least value; hollow where it lies at an end of the range."""
    known = np.flatnonzero(np.isfinite(values))
    if not len(known):
        return
    best = int(np.nanargmin(values))
    fill = colour if known[0] < best < known[-1] else "none"
    axes.plot(times[best], values[best], "o", color=colour, markerfacecolor=fill, zorder=3)


def _stopping(
    axes: Axes, stops: list[Stop], colour: object, mark: str, label: str, aside: float
) -> None:
    inside = [s for s in stops if s.inside]
    taus = [s.tau.model_copy(update={k: v * s.m for k, v in vars(s.tau).items()}) for s in inside]
    _bars(axes, [aside * (s.n or 0) for s in inside], taus, colour, mark, label)


def _above(
    axes: Axes, stops: list[Stop], colour: object, mark: str, label: str, aside: float
) -> None:
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
    _bars(axes, [aside * (s.n or 0) for s in shown], gaps, colour, mark, label, inside)


def _bars(
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


def _guide(axes: Axes, stops: list[Stop], fit: Exponent, look: Theme) -> None:
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
    axes.plot(ends, middle[1] * (ends / middle[0]) ** fit.predicted[0], ":", color=look.muted)


def _sampled(look: Theme, n: int) -> list[Line2D]:
    """Legend of curves of n samples and of infinitely many."""
    return [_handle(look.muted, f"n = {n:,}"), _handle(look.muted, r"n = $\infty$", "--")]


def _handle(colour: object, label: str, dash: str = "-", **mark: object) -> Line2D:
    """An entry of a legend: a line, or a mark without one."""
    return Line2D([], [], color=colour, linestyle="" if mark else dash, label=label, **mark)


def _said(tau: float) -> str:
    """A training time as a power of ten, where it is a large one."""
    power = np.log10(tau)
    return f"$10^{{{power:.0f}}}$" if power >= 3 and power == round(power) else f"{tau:g}"


def _plain(value: float, _: int | None) -> str:
    return f"{value:g}"


def _every(times: np.ndarray, count: int = 12) -> int:
    return max(1, len(times) // count)


def _legend_below(
    figure: Figure, axes: Axes, columns: int, more: list[Line2D] | None = None
) -> None:
    """What the panel draws, and more; labels that are empty are left out."""
    handles: list[Line2D] = [*axes.get_legend_handles_labels()[0], *(more or [])]
    labels = [handle.get_label() for handle in handles]
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, fontsize=7.5)
