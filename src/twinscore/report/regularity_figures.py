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
LOOKS = {
    "network": ("twins", "-", "o"),
    "cosines": ("held_out", "--", "s"),
    "wavelets": ("nearest", "--", "^"),
    "best basis": ("closest_pairs", "--", "v"),
    "cosines oracle": ("held_out", ":", "s"),
    "wavelets oracle": ("nearest", ":", "^"),
    "best-basis oracle": ("closest_pairs", ":", "v"),
}
"""Colour, line and marker of each method."""


def slopes(data: Data, theme: Theme) -> Figure:
    """Draw the slope of each method against alpha, a panel for each generator."""
    figure = style.new_figure(3.2)
    panels = _panels(figure, data)
    for axes, generator in zip(panels, data.generators, strict=True):
        classes = data.of(generator)
        alphas = np.array([c.alpha for c in classes])
        for k, (method, (colour, line, marker)) in enumerate(LOOKS.items()):
            values = [c.curve(method).slope for c in classes]
            middle = np.array([v.value for v in values])
            reach = [[v.value - v.low for v in values], [v.high - v.value for v in values]]
            axes.errorbar(
                alphas + 0.03 * (k - 3),
                middle,
                yerr=np.maximum(reach, 0),
                color=getattr(theme, colour),
                linestyle=line,
                marker=marker,
                markerfacecolor=getattr(theme, colour) if line != ":" else "none",
                capsize=2,
                linewidth=1.2,
                label=method,
            )
        fine = np.linspace(max(alphas.min() - 0.3, 0.05), alphas.max() + 0.3, 100)
        axes.plot(fine, fine / (fine + 1), color=theme.ink, linewidth=2, alpha=0.6, zorder=1)
        axes.set(title=f"{generator} filter", xlabel="alpha")
    panels[0].set_ylabel("slope, dB per dB")
    handles, labels = panels[0].get_legend_handles_labels()
    handles.append(Line2D([], [], color=theme.ink, linewidth=2, alpha=0.6))
    figure.legend(handles, [*labels, "alpha / (alpha + 1)"], loc="outside right center")
    return figure


def curves(data: Data, theme: Theme) -> Figure:
    """Draw output against input PSNR of the network and of thresholding in the best basis."""
    figure = style.new_figure(3.2)
    panels = _panels(figure, data)
    for axes, generator in zip(panels, data.generators, strict=True):
        _shade(axes, data, theme)
        for c, colour in _coloured(data, generator, theme):
            for method, line in ((NETWORK, "-"), ("best basis", "--")):
                psnr = c.curve(method).psnr
                label = f"alpha {c.alpha:g}" if method == NETWORK else None
                axes.plot(
                    data.levels, [v.value for v in psnr], color=colour, linestyle=line, label=label
                )
                bounds = [v.low for v in psnr], [v.high for v in psnr]
                axes.fill_between(data.levels, *bounds, color=colour, alpha=0.2, linewidth=0)
        axes.plot(data.levels, data.levels, color=theme.muted, linewidth=1)
        axes.set(title=f"{generator} filter", xlabel="input PSNR (dB)")
    panels[0].set_ylabel("output PSNR (dB)")
    handles, labels = panels[0].get_legend_handles_labels()
    handles += [
        Line2D([], [], color=theme.ink, linestyle="--"),
        Line2D([], [], color=theme.muted, linewidth=1),
    ]
    figure.legend(handles, [*labels, "best basis", "output = input"], loc="outside right center")
    return figure


def local(data: Data, theme: Theme) -> Figure:
    """Draw the network's local slopes, with the theory's beside them."""
    figure = style.new_figure(2.9)
    panels = _panels(figure, data)
    middles = (data.levels[1:] + data.levels[:-1]) / 2
    for axes, generator in zip(panels, data.generators, strict=True):
        _shade(axes, data, theme)
        for c, colour in _coloured(data, generator, theme):
            axes.plot(
                middles,
                c.curve(NETWORK).local,
                color=colour,
                marker="o",
                label=f"alpha {c.alpha:g}",
            )
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
        title = f"{c.generator} filter, alpha {c.alpha:g}"
        part.suptitle(title, x=0.01, ha="left", fontsize=9, fontweight="bold")
        grid = part.subplots(2, across)
        for axes in grid.flat:
            axes.set_axis_off()
        for axes, name in zip(grid[0], ("clean", "noisy", "denoised"), strict=False):
            axes.imshow(data.array(c, name)[0], cmap="gray", vmin=0, vmax=1)
            axes.set_title(name, fontsize=6.5, fontweight="normal")
        values = data.array(c, "eigenvalues")
        for row, name in zip(grid, ("eigenvectors", "best_basis"), strict=True):
            for k, (axes, vector) in enumerate(
                zip(
                    row[3:],
                    data.array(
                        c,
                        name,
                    ),
                    strict=False,
                )
            ):
                bound = np.abs(vector).max()
                axes.imshow(vector[0], cmap="RdBu_r", vmin=-bound, vmax=bound)
                if name == "eigenvectors":
                    axes.set_title(f"{values[k]:.2f}", fontsize=6.5, fontweight="normal")
        grid[1, 2].text(0.5, 0.5, "best\nbasis", fontsize=7, ha="center", va="center",
                        color=theme.ink)  # fmt: skip
    return figure


def decay(data: Data, theme: Theme) -> Figure:
    """Draw what the largest coefficients leave in four bases, and the eigenvalues."""
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
            eigenvalues = np.abs(data.array(c, "eigenvalues"))
            axes.loglog(
                np.arange(1, eigenvalues.size + 1), np.maximum(eigenvalues, 1e-6),
                color=theme.muted, linestyle=":", label="|eigenvalues|",
            )  # fmt: skip
            axes.set_title(f"{generator}, alpha {c.alpha:g}")
            axes.set_ylim(1e-5, 2)
    figure.supxlabel("number of coefficients k", fontsize=8.5)
    figure.supylabel("energy left", fontsize=8.5)
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside right center")
    return figure


def _panels(figure: Figure, data: Data) -> list[Axes]:
    return list(figure.subplots(1, len(data.generators), squeeze=False, sharey=True)[0])


def _coloured(data: Data, generator: str, theme: Theme) -> list[tuple[Class, tuple[float, ...]]]:
    """Classes of a generator with the colour of their alpha, the same in every panel."""
    alphas = sorted({c.alpha for c in data.classes})
    colours = dict(zip(alphas, theme.ordered(len(alphas)), strict=True))
    return [(c, colours[c.alpha]) for c in data.of(generator)]


def _shade(axes: Axes, data: Data, theme: Theme) -> None:
    axes.axvspan(*data.fit_range, color=theme.muted, alpha=0.12, linewidth=0)
