"""The figures of the regularity study, each a function of the run's data and a theme."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from twinscore.report import style
from twinscore.report.regularity_data import Class, Data
from twinscore.report.style import Theme

NETWORK = "network"
VECTORS = 9
CURVES = {NETWORK: ("-", 1.8), "best basis": ("--", 1.2), "cosines": (":", 1.4)}
"""Line and width of the methods whose curves are drawn."""
REFERENCE = {"linewidth": 1.1, "marker": "|", "markersize": 6}
"""How the theory's slope is drawn beside a curve."""
FULL_TONE = 3.0
"""Entries of a vector are drawn at full tone from this multiple of their root mean square: a
constant vector is pale."""


def slopes(data: Data, theme: Theme) -> Figure:
    """Draw the slope of each method in a row of its own, a panel for each generator."""
    methods = [curve.method for curve in data.classes[0].curves]
    figure = style.new_figure(0.9 + 0.36 * len(methods))
    panels = _panels(figure, data)
    for axes, generator in zip(panels, data.generators, strict=True):
        coloured = _coloured(data, generator, theme)
        offsets = 0.5 * (np.arange(len(coloured)) + 0.5) / len(coloured) - 0.25
        for (c, colour), offset in zip(coloured, offsets, strict=True):
            values = [c.curve(method).slope for method in methods]
            middle = np.array([v.value for v in values])
            reach = [[v.value - v.low for v in values], [v.high - v.value for v in values]]
            axes.errorbar(
                middle,
                np.arange(len(methods)) + offset,
                xerr=np.maximum(reach, 0),
                color=colour,
                fmt="o",
                capsize=2,
                linewidth=1.2,
                label=f"alpha {c.alpha:g}",
            )
            axes.axvline(c.theory, color=colour, linestyle=(0, (4, 3)), linewidth=1.2, zorder=1)
        axes.set(title=f"{generator} filter", xlabel="slope, dB per dB")
    panels[0].set_yticks(range(len(methods)), methods)
    panels[0].invert_yaxis()
    handles, labels = panels[0].get_legend_handles_labels()
    handles.append(Line2D([], [], color=theme.ink, linestyle=(0, (4, 3)), linewidth=1.2))
    figure.legend(handles, [*labels, "alpha / (alpha + 1)"], loc="outside right center")
    return figure


def curves(data: Data, theme: Theme) -> Figure:
    """Draw output against input PSNR of the network and two estimators, and the theory's slopes."""
    figure = style.new_figure(4.4)
    panels = _panels(figure, data)
    for axes, generator in zip(panels, data.generators, strict=True):
        _shade(axes, data, theme)
        for c, colour in _coloured(data, generator, theme):
            for method, (line, width) in CURVES.items():
                psnr = c.curve(method).psnr
                axes.plot(
                    data.levels,
                    [v.value for v in psnr],
                    color=colour,
                    linestyle=line,
                    linewidth=width,
                    label=f"alpha {c.alpha:g}" if method == NETWORK else None,
                )
                bounds = [v.low for v in psnr], [v.high for v in psnr]
                axes.fill_between(data.levels, *bounds, color=colour, alpha=0.2, linewidth=0)
            axes.plot(*_reference(data, c), color=theme.ink, **REFERENCE)
        axes.plot(data.levels, data.levels, color=theme.muted, linewidth=1)
        axes.set(title=f"{generator} filter", xlabel="input PSNR (dB)")
    panels[0].set_ylabel("output PSNR (dB)")
    handles, labels = panels[0].get_legend_handles_labels()
    handles += [
        Line2D([], [], color=theme.ink, linestyle=line, linewidth=width)
        for line, width in CURVES.values()
    ]
    handles += [
        Line2D([], [], color=theme.ink, **REFERENCE),
        Line2D([], [], color=theme.muted, linewidth=1),
    ]
    labels += [*CURVES, "slope\nalpha / (alpha + 1)", "output = input"]
    figure.legend(handles, labels, loc="outside right center")
    return figure


def _reference(data: Data, of: Class) -> tuple[np.ndarray, np.ndarray]:
    """A line of the theory's slope over the fit range, from the network's first point in it."""
    low, high = data.fit_range
    inside = (data.levels >= low) & (data.levels <= high)
    levels = data.levels[inside]
    first = of.curve(NETWORK).psnr[inside.argmax()].value
    ends = levels[[0, -1]]
    return ends, first + of.theory * (ends - ends[0])


def local(data: Data, theme: Theme) -> Figure:
    """Draw the network's local slopes with their intervals, and the theory's beside them."""
    figure = style.new_figure(2.9)
    panels = _panels(figure, data)
    middles = (data.levels[1:] + data.levels[:-1]) / 2
    for axes, generator in zip(panels, data.generators, strict=True):
        _shade(axes, data, theme)
        for c, colour in _coloured(data, generator, theme):
            slopes = c.curve(NETWORK).local
            axes.plot(
                middles,
                [v.value for v in slopes],
                color=colour,
                marker="o",
                label=f"alpha {c.alpha:g}",
            )
            bounds = [v.low for v in slopes], [v.high for v in slopes]
            axes.fill_between(middles, *bounds, color=colour, alpha=0.2, linewidth=0)
            axes.plot([0.96, 1.0], [c.theory] * 2, color=colour, linewidth=3,
                      transform=axes.get_yaxis_transform())  # fmt: skip
        axes.set(title=f"{generator} filter", xlabel="input PSNR (dB)")
    panels[0].set_ylabel("local slope, dB per dB")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center")
    return figure


def bases(data: Data, theme: Theme) -> Figure:
    """Draw eigenvectors of each network above best-basis vectors, at one test image each."""
    count = min(VECTORS, len(data.array(data.classes[0], "eigenvectors")))
    across = 3 + count
    tile = 0.95 * style.WIDTH / across
    figure = style.new_figure(len(data.classes) * (0.35 + 2.2 * tile))
    figure.get_layout_engine().set(wspace=0.02, hspace=0.02)
    parts = figure.subfigures(len(data.classes), 1, squeeze=False)[:, 0]
    for part, c in zip(parts, data.classes, strict=True):
        values = data.array(c, "eigenvalues")
        title = (
            f"{c.generator} filter, alpha {c.alpha:g}: asymmetry {c.asymmetry:.2f}, "
            f"{(values < 0).sum()} of {values.size} eigenvalues negative"
        )
        part.suptitle(title, x=0.01, ha="left", fontsize=9, fontweight="bold")
        grid = part.subplots(2, across)
        for axes in grid.flat:
            axes.set_axis_off()
        for axes, name in zip(grid[0], ("clean", "noisy", "denoised"), strict=False):
            axes.imshow(data.array(c, name)[0], cmap="gray", vmin=0, vmax=1)
            axes.set_title(name, fontsize=6.5, fontweight="normal")
        for row, name in zip(grid, ("eigenvectors", "best_basis"), strict=True):
            for k, (axes, vector) in enumerate(zip(row[3:], data.array(c, name), strict=False)):
                bound = max(np.abs(vector).max(), FULL_TONE / vector.size**0.5)
                axes.imshow(vector[0], cmap="RdBu_r", vmin=-bound, vmax=bound)
                if name == "eigenvectors":
                    axes.set_title(f"{values[k]:.2f}", fontsize=6.5, fontweight="normal")
        grid[1, 2].text(0.5, 0.5, "best\nbasis", fontsize=7, ha="center", va="center",
                        color=theme.ink)  # fmt: skip
    return figure


def decay(data: Data, theme: Theme) -> Figure:
    """Draw what the largest coefficients leave in four bases."""
    rows = len(data.generators)
    columns = max(len(data.of(generator)) for generator in data.generators)
    figure = style.new_figure(0.4 + 2.1 * rows)
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    shown = {
        "eigenvectors": ("twins", "-"),
        "best basis": ("closest_pairs", "--"),
        "wavelets": ("nearest", "--"),
        "cosines": ("held_out", "--"),
    }
    for axes in grid.flat:
        axes.set_axis_off()
    for row, generator in zip(grid, data.generators, strict=True):
        for axes, c in zip(row, data.of(generator), strict=False):
            axes.set_axis_on()
            energy = np.square(data.array(c, "clean"), dtype=np.float64).sum()
            for name, (colour, line) in shown.items():
                left = data.array(c, f"residual/{name}")[:-1] / energy
                axes.loglog(
                    np.arange(1, left.size + 1), np.maximum(left, 1e-6),
                    color=getattr(theme, colour), linestyle=line, label=name,
                )  # fmt: skip
            axes.set_title(f"{generator}, alpha {c.alpha:g}")
            axes.set_ylim(1e-5, 2)
    figure.supxlabel("number of coefficients k", fontsize=8.5)
    figure.supylabel("energy left", fontsize=8.5)
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside right center")
    return figure


def eigenvalues(data: Data, theme: Theme) -> Figure:
    """Draw the eigenvalues of each network's Jacobian at one noisy image, with their signs."""
    figure = style.new_figure(2.9)
    panels = _panels(figure, data)
    for axes, generator in zip(panels, data.generators, strict=True):
        axes.axhline(0, color=theme.muted, linewidth=1)
        for c, colour in _coloured(data, generator, theme):
            values = data.array(c, "eigenvalues")
            ranks = np.arange(1, values.size + 1)
            axes.plot(ranks, values, color=colour, label=f"alpha {c.alpha:g}")
        axes.set(title=f"{generator} filter", xlabel="rank")
    panels[0].set_ylabel("eigenvalue")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center")
    return figure


def _panels(figure: Figure, data: Data) -> list[Axes]:
    """A panel for each generator, with the same axes."""
    count = len(data.generators)
    return list(figure.subplots(1, count, squeeze=False, sharex=True, sharey=True)[0])


def _coloured(data: Data, generator: str, theme: Theme) -> list[tuple[Class, tuple[float, ...]]]:
    """Classes of a generator with the colour of their alpha, the same in every panel."""
    alphas = sorted({c.alpha for c in data.classes})
    colours = dict(zip(alphas, theme.ordered(len(alphas)), strict=True))
    return [(c, colours[c.alpha]) for c in data.of(generator)]


def _shade(axes: Axes, data: Data, theme: Theme) -> None:
    axes.axvspan(*data.fit_range, color=theme.muted, alpha=0.12, linewidth=0)
