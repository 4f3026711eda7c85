"""The five figures of the transition study, each a function of the run's data and a theme."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from twinscore.report import style
from twinscore.report.pictures import strip
from twinscore.report.style import Theme
from twinscore.report.transition_data import Level, Median, Transition, Value

SHOWN_SIGMAS = (0.1, 0.5)
STRIPS = 3
COLUMNS = ("near A", "A", "B", "near B")


def denoising(data: Transition, theme: Theme) -> Figure:
    """Draw output against input PSNR (dB) on training and on test images, a curve for each N."""
    figure = style.new_figure(3.1)
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    colours = _colours(data, theme)
    for axes, part in zip(panels, ("train", "test"), strict=True):
        for level in data.levels:
            colour = colours[level.n]
            x, middle, low, high = _psnr_curve(level, part)
            axes.fill_between(x, low, high, color=colour, alpha=0.25, linewidth=0)
            axes.plot(x, middle, color=colour, marker="o", label=_count(level.n))
        ends = np.array(axes.get_xlim())
        axes.plot(ends, ends, color=theme.muted, linestyle=(0, (4, 3)), linewidth=1, zorder=1)
        axes.set_xlim(*ends)
        axes.set_title({"train": "training images", "test": "test images"}[part])
        axes.set_xlabel("input PSNR (dB)")
    panels[0].set_ylabel("output PSNR (dB)")
    handles, labels = panels[0].get_legend_handles_labels()
    handles.append(Line2D([], [], color=theme.muted, linestyle=(0, (4, 3)), linewidth=1))
    figure.legend(handles, [*labels, "output = input"], loc="outside right center", title="N")
    return figure


def samples(data: Transition, theme: Theme) -> Figure:
    """Draw, for each N and a few noises, both twins' samples beside their nearest images."""
    seeds = min(STRIPS, *(data.array(level, "noise_seeds").size for level in data.sampled))
    rows = len(data.sampled)
    height, width = data.array(data.sampled[0], "samples_a", 1).shape[-2:]
    tile = 0.9 * style.WIDTH / (4 * seeds)
    figure = style.new_figure(0.3 + rows * (0.22 + tile * height / width))
    figure.get_layout_engine().set(wspace=0.06)
    grid = figure.subplots(rows, seeds, squeeze=False)
    gap = max(1, width // 12)
    centres = (width - 1) / 2 + (width + gap) * np.arange(4)
    for row, level in zip(grid, data.sampled, strict=True):
        names = ("nearest_a", "samples_a", "samples_b", "nearest_b")
        tiles = [data.array(level, name, seeds) for name in names]
        numbers = [
            data.array(level, name)[0, :seeds]
            for name in ("nearest_similarity_a", "twin_similarity", "nearest_similarity_b")
        ]
        for k, axes in enumerate(row):
            axes.imshow(strip([tile[k] for tile in tiles], gap), interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            axes.grid(visible=False)
            for between, number in enumerate(numbers):
                _beside(axes, centres[between : between + 2].mean(), f"{number[k]:.2f}", below=True)
            if level is data.sampled[0]:
                for centre, word in zip(centres, COLUMNS, strict=True):
                    _beside(axes, centre, word, below=False)
        row[0].set_ylabel(f"N = {_count(level.n)}", color=theme.ink, fontweight="bold")
    return figure


def histograms(data: Transition, theme: Theme) -> Figure:
    """Draw the distributions of cosine similarity at each N, with the medians of both baselines."""
    figure = style.new_figure(1.1 + 0.95 * len(data.sampled))
    panels = figure.subplots(len(data.sampled), 1, sharex=True, squeeze=False)[:, 0]
    kinds = (
        ("twin_similarity", "between the twins' samples", theme.twins, "-"),
        ("nearest_similarity_a", "sample of A to nearest in A", theme.nearest, "-"),
        ("nearest_similarity_b", "sample of B to nearest in B", theme.nearest, (0, (3, 1.5))),
    )
    values = {
        (level.n, name): np.minimum(data.array(level, name).ravel(), 1)
        for level in data.sampled
        for name, *_ in kinds
    }
    lowest = min(float(value.min()) for value in values.values())
    bins = np.linspace(min(np.floor(lowest * 20) / 20, 0.95), 1, 61)
    for axes, level in zip(panels, data.sampled, strict=True):
        for name, label, colour, line in kinds:
            value = values[level.n, name]
            weights = np.full(value.size, 1 / value.size)
            shared = {"bins": bins, "weights": weights, "color": colour}
            axes.hist(value, histtype="stepfilled", alpha=0.18, **shared)
            axes.hist(value, histtype="step", linestyle=line, linewidth=1.3, label=label, **shared)
        for name, label, colour, line in _baselines(theme):
            middle = float(np.median(data.array(level, name)))
            axes.axvline(middle, color=colour, linestyle=line, label=f"{label} (median)")
        axes.set_title(f"N = {_count(level.n)}", loc="left", pad=2)
        axes.set_yscale("function", functions=(np.sqrt, np.square))
        axes.set(xlim=(bins[0], 1 + 0.01 * (1 - bins[0])), ylim=(0, None), yticks=(0, 0.1, 0.5, 1))
        axes.yaxis.set_minor_locator(NullLocator())
    panels[-1].set_xlabel("cosine similarity, mean removed")
    figure.supylabel("fraction of samples", fontsize=8.5)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure


def similarity(data: Transition, theme: Theme) -> Figure:
    """Draw median similarities, the fraction memorised and the diversity against N."""
    figure = style.new_figure(3.3)
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    levels = data.levels
    _intervals(left, levels, [x.twin_similarity for x in levels], theme.twins, "o", "between twins")
    for twin, marker in (("a", "^"), ("b", "v")):
        medians = [getattr(level.nearest_similarity, twin) for level in levels]
        label = f"to nearest in {twin.upper()}"
        _intervals(left, levels, medians, theme.nearest, marker, label)
    for name, label, colour, line in _baselines(theme):
        baseline = getattr(data.result, name)
        if baseline is not None:
            left.axhline(baseline.median, color=colour, linestyle=line, label=label)
    left.set_ylabel("median cosine similarity")
    for twin, marker in (("a", "^"), ("b", "v")):
        side = twin.upper()
        for field, colour, label in (
            ("memorised_fraction", theme.nearest, f"memorised, {side}"),
            ("diversity", theme.ink, f"similarity within {side}"),
        ):
            known = [x for x in levels if getattr(getattr(x, field), twin) is not None]
            values = [getattr(getattr(level, field), twin) for level in known]
            _intervals(right, known, values, colour, marker, label)
    right.set_ylabel("fraction, or mean similarity")
    for axes in (left, right):
        _number_axis(axes, [level.n for level in levels])
        _mark_critical(axes, data, theme)
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=2, columnspacing=1)
    return figure


def training(data: Transition, theme: Theme) -> Figure:
    """Draw each trial's loss and test PSNR (dB) against the training step."""
    sigmas = _shown_sigmas(data)
    figure = style.new_figure(2.7)
    panels = figure.subplots(1, 1 + len(sigmas), squeeze=False)[0]
    sizes = sorted({history.n for history in data.histories})
    colours = _colours(data, theme)
    for history in data.histories:
        look = {
            "color": colours[history.n],
            "linestyle": "-" if history.twin == "a" else (0, (3, 1.5)),
            "linewidth": 1.1,
        }
        names = ("train_loss", *(column for _, column in sigmas))
        for axes, name in zip(panels, names, strict=True):
            step = history.columns.get("step", np.empty(0))
            value = history.columns.get(name, np.full(step.shape, np.nan))
            known = np.isfinite(value)
            axes.plot(step[known], value[known], **look)
    panels[0].set_yscale("log")
    panels[0].set_title("training loss")
    panels[0].set_ylabel("loss")
    for axes, (sigma, _) in zip(panels[1:], sigmas, strict=True):
        axes.set_title(f"test images, σ = {sigma:g}")
        axes.set_ylabel("output PSNR (dB)")
    for axes in panels:
        axes.set_xlabel("step")
        axes.locator_params(axis="x", nbins=4)
    handles = [Line2D([], [], color=colours[n], label=f"N = {_count(n)}") for n in sizes]
    handles += [
        Line2D([], [], color=theme.ink, linestyle=line, label=label)
        for line, label in (("-", "A"), ((0, (3, 1.5)), "B"))
    ]
    figure.legend(handles=handles, loc="outside right center")
    return figure


def _colours(data: Transition, theme: Theme) -> dict[int, tuple[float, ...]]:
    return dict(zip(data.sizes, theme.ordered(len(data.sizes)), strict=True))


def _baselines(theme: Theme) -> tuple[tuple[str, str, str, object], ...]:
    return (
        ("closest_pairs", "closest pairs of A and B", theme.closest_pairs, ":"),
        ("held_out_nearest", "held-out to nearest", theme.held_out, (0, (5, 1.5, 1, 1.5))),
    )


def _psnr_curve(level: Level, part: str) -> tuple[np.ndarray, ...]:
    sigma = np.array(level.psnr.sigma)
    keep = np.flatnonzero(sigma > 0)
    keep = keep[np.argsort(sigma[keep])]
    names = (part, f"{part}_low", f"{part}_high")
    return (-20 * np.log10(sigma[keep]), *(np.array(getattr(level.psnr, n))[keep] for n in names))


def _beside(axes: Axes, x: float, text: str, *, below: bool) -> None:
    axes.annotate(
        text,
        (x, 0 if below else 1),
        xycoords=("data", "axes fraction"),
        xytext=(0, -2 if below else 2),
        textcoords="offset points",
        ha="center",
        va="top" if below else "bottom",
        fontsize=7,
    )


def _intervals(
    axes: Axes,
    levels: Sequence[Level],
    values: Sequence[Median | Value],
    colour: str,
    marker: str,
    label: str,
) -> None:
    """Plot values against N with their intervals."""
    n = np.array([level.n for level in levels])
    aside = {"^": -0.012, "v": 0.012}.get(marker, 0.0)
    middle = np.array([v.median if isinstance(v, Median) else v.value for v in values])
    low = np.array([v.low for v in values], dtype=float)
    high = np.array([v.high for v in values], dtype=float)
    axes.errorbar(
        n * (n.max() / n.min()) ** aside if n.size else n,
        middle,
        yerr=np.maximum([middle - low, high - middle], 0),
        color=colour,
        marker=marker,
        linestyle="--" if marker == "v" else "-",
        capsize=2,
        linewidth=1.3,
        label=label,
    )


def _number_axis(axes: Axes, sizes: list[int]) -> None:
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
    axes.xaxis.set_major_formatter(FuncFormatter(lambda n, _: _count(int(n))))
    axes.set_xlabel("training images of each twin, N")


def _mark_critical(axes: Axes, data: Transition, theme: Theme) -> None:
    critical = data.result.critical_n
    if critical is None:
        return
    start, end = axes.get_xlim()
    low = start if critical.low is None else critical.low
    high = end if critical.high is None else critical.high
    axes.axvspan(low, high, color=theme.muted, alpha=0.15, linewidth=0, label="critical N")
    axes.axvline(critical.value, color=theme.muted, linewidth=1)
    axes.set_xlim(min(start, low), max(end, high))


def _shown_sigmas(data: Transition) -> list[tuple[float, str]]:
    """Choose the recorded noise levels nearest to those worth a panel, each with its column."""
    recorded = {
        (float(name.removeprefix("test_psnr_")), name)
        for history in data.histories
        for name in history.columns
        if name.startswith("test_psnr_")
    }
    chosen = {min(recorded, key=lambda s: abs(s[0] - w)) for w in SHOWN_SIGMAS if recorded}
    return sorted(chosen)


def _count(n: int) -> str:
    return f"{n:,}"
