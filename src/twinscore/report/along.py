"""Along training on paper: error and samples of checkpoints, and what tells their images apart."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from twinscore.report import plots, style
from twinscore.report import transition_axes as draw
from twinscore.report.content import figure
from twinscore.report.reading import Run
from twinscore.report.style import Theme
from twinscore.report.transition_content import size
from twinscore.results.base import Kept, Window
from twinscore.results.transition import Along

HELPS = {"linestyle": plots.DASHED, "linewidth": 1}
STEPS = "training step"
AUC = "AUC, T against H"
MOST = 100.0
"""Of what the vertical axes of error and energy distance show, in units of the best."""


@figure(
    "Along training",
    lambda run: (
        "Each point is a checkpoint. Left: error on held-out images, in units of the smallest of "
        "any checkpoint, and energy distance of samples from held-out images, each as a multiple "
        "of its smallest; what is worse than a hundred times the best is left out. Right: how "
        "often a training image has the smaller error, of all pairs with a held-out one. Full "
        "points depend on the training images: p at most 0.05, tested from the last checkpoint "
        "back to the first that is not rejected. Bars are 95 % intervals. The blue line "
        "is where quality is reached, the orange one where memory begins; a band is between them "
        f"where it may be stopped: {run.result.window.text()}."
    ),
    lambda run: f"Curves of error and AUC over training steps: {run.result.window.text()}.",
)
def along(run: Run, theme: Theme) -> Figure | None:
    """Error, energy distance and AUC of every checkpoint of an audited model."""
    window: Window | None = run.result.window
    if window is None:
        return None
    kept, (drawn, (left, right)) = window.checkpoints, plots.new_row(2.8)
    _quality(left, kept, theme)
    plots.error_bars(right, _steps(kept), [of.auc for of in kept], theme.nearest, linewidth=1.2)
    first = None if window.tau_mem is None else window.tau_mem.value
    for of in kept:
        face = theme.nearest if first is not None and of.step >= first else theme.paper
        look = {"markerfacecolor": face, "color": theme.nearest, "zorder": 3}
        right.plot([of.step], [of.auc.value], marker="o", linestyle="none", **look)
    right.axhline(0.5, color=theme.muted, linewidth=1)
    right.set_ylabel(AUC)
    for axes in (left, right):
        _mark(axes, window, theme)
        _step_axis(axes)
    plots.legend(drawn, left, where="lower center", ncols=2)
    return drawn


def _steps(kept: Sequence[Kept]) -> list[int]:
    return [of.step for of in kept]


def _quality(axes: Axes, kept: Sequence[Kept], theme: Theme) -> None:
    """Error and energy distance, in units of the smallest."""
    plots.error_bars(
        axes,
        *_shown([(of.step, of.error) for of in kept]),
        theme.twins,
        marker="o",
        label="error on held-out images",
    )
    energies = [(of.step, of.energy) for of in kept if of.energy]
    smallest = min((energy.value for _, energy in energies if energy.value > 0), default=None)
    if smallest:
        known = [(step, of.times(1 / smallest)) for step, of in energies if of.value > 0]
        look = {"marker": "s", "linestyle": "--", "label": "energy distance of samples"}
        plots.error_bars(axes, *_shown(known), theme.held_out, **look)
    axes.set_yscale("log")
    axes.set_ylabel("in units of the best")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_ylim(bottom=0.7)


def _shown(points: Sequence[tuple[int, Any]]) -> tuple[list[int], list[Any]]:
    """Those that are not far worse than the best, and whose low end a logarithm can show."""
    near = [(step, of) for step, of in points if of.value <= MOST]
    cut = [(step, of.model_copy(update={"low": max(of.low, of.value / MOST)})) for step, of in near]
    return [step for step, _ in cut], [of for _, of in cut]


def _mark(axes: Axes, window: Window, theme: Theme) -> None:
    """A band from quality to the last step without memory, where there is one."""
    stop = window.stop
    if stop and stop.step > window.tau_gen.value:
        axes.axvspan(window.tau_gen.value, stop.step, color=theme.muted, alpha=0.15, linewidth=0)
    axes.axvline(window.tau_gen.value, color=theme.twins, linewidth=1)
    if window.tau_mem:
        axes.axvline(window.tau_mem.value, color=theme.nearest, linewidth=1)


def _step_axis(axes: Axes) -> None:
    axes.set_xscale("log")
    axes.set_xlabel(STEPS)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _text(run: Run) -> str:
    return "; ".join(found.text() for found in run.result.along)


@figure(
    "Quality and memory along training, against N",
    "Left: the step from which held-out error and samples are as good as they get, and the step "
    "from which the exact test tells the training images of a network from held-out ones, for each "
    "trained network; bars reach down to the checkpoint before. An arrow says that a network did "
    "not remember by its last step. The dashed line grows like N. Then how often a training image "
    "has the smaller error, of all pairs with a held-out one: one half is no memory. Below: error "
    "on held-out images, in units of the smallest of the training, and the share of samples that "
    "the ratio rule calls copies. Curves are means over the trained networks.",
    lambda run: f"Steps against N, AUC and error against the step: {_text(run)}.",
)
def turns(run: Run, theme: Theme) -> Figure | None:
    """Both moments against N, and the curves that they follow from."""
    found: list[Along] = run.result.along
    if not found:
        return None
    drawn = style.new_figure(5.2)
    (left, middle), (right, last) = drawn.subplots(2, 2)
    for name, colour, marker, label in (
        ("tau_gen", theme.twins, "o", "quality"),
        ("tau_mem", theme.nearest, "^", "memory"),
    ):
        _moments(left, found, name, colour, marker, label)
    _slope(left, found, theme)
    left.set_yscale("log")
    left.set_ylabel(STEPS)
    left.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:,.0f}"))
    left.legend(loc="lower right")
    draw.number_axis(left, [of.n for of in found])
    left.set_xlabel("training images N")
    colours = draw.colours(run, theme)
    for of in found:
        look = {"color": colours[of.n], "marker": "o", "markersize": 3, "label": size(of.n)}
        steps = _steps(of.windows[0].checkpoints)
        auc, error = (_means(of, name) for name in ("auc", "error"))
        middle.plot(steps, auc, **look)
        right.plot(steps, np.where(error <= MOST, error, np.nan), **look)
        last.plot(steps, _means(of, "copied"), **look)
    middle.axhline(0.5, color=theme.muted, linewidth=1)
    middle.set_ylabel(AUC)
    right.set_yscale("log")
    right.set_ylabel("error, in units of the smallest")
    last.set_ylabel("share of copies, ratio rule")
    right.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    right.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    right.yaxis.set_minor_formatter(NullFormatter())
    for axes in (middle, right, last):
        _step_axis(axes)
    plots.legend(drawn, middle, title="N")
    return drawn


def _means(of: Along, name: str) -> np.ndarray:
    """Of the trained networks at each checkpoint."""
    found = [[getattr(kept, name) for kept in own.checkpoints] for own in of.windows]
    return np.mean([[np.nan if x is None else x.value for x in row] for row in found], 0)


def _moments(
    axes: Axes, found: Sequence[Along], name: str, colour: str, marker: str, label: str
) -> None:
    """A point for each network, side by side, with a bar down to the checkpoint before."""
    shown = {"color": colour, "marker": marker, "linestyle": "none"}
    for of in found:
        for k, window in enumerate(of.windows):
            x = of.n * 1.06 ** (k - (len(of.windows) - 1) / 2) * (1.1 if marker == "^" else 1)
            turn = getattr(window, name)
            if turn is None:
                if window.tested:
                    last = window.checkpoints[-1].step
                    look = {"color": colour, "ha": "center", "va": "bottom"}
                    axes.text(x, last * 1.2, "↑", clip_on=False, fontsize=11, **look)
                continue
            below = turn.value - (turn.low or window.checkpoints[0].step)
            axes.errorbar([x], [turn.value], yerr=[[below], [0]], capsize=2, **shown)
    axes.plot([], [], label=label, **shown)


def _slope(axes: Axes, found: Sequence[Along], theme: Theme) -> None:
    """A line that grows like N, through the first moments of memory."""
    known = [
        (of.n, float(np.exp(np.mean(np.log(steps)))))
        for of in found
        if (steps := [step for step in of.ends("tau_mem") if step])
    ]
    if known:
        n, start = known[0]
        sizes = np.array([n, found[-1].n])
        axes.plot(sizes, start * sizes / n, color=theme.muted, label="like N", **HELPS)
