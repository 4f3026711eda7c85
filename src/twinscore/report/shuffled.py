"""Shuffled pixels on paper: PSNR with and without, what is lost, and some estimates."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from twinscore.report import style
from twinscore.report.content import HOLDS_TEST, Cell, Content, Table, covers, figure
from twinscore.report.pictures import to_rgb
from twinscore.report.reading import Run
from twinscore.report.style import Theme
from twinscore.results.base import Interval
from twinscore.results.shuffled import Result

ROWS = ("clean", "noisy", "plain", "shuffled")
NAMES = 0.7
"""Inches for the names of the rows."""


def content(run: Run) -> Content:
    """What the page says about the run."""
    result: Result = run.result
    channels, height, width = result.shape
    return Content(
        title="twinscore: shuffled pixels",
        verdict=result.verdict,
        facts=(
            ("Images", f"{result.data}, {height} x {width}, {channels} channels"),
            ("Trained on", f"{result.n:,} images, {result.replicates} replicates"),
            ("Measured on", f"{result.test:,} other images, the same noise for both"),
            ("Control", f"closed-form Gaussian: gap of at most {result.control:.1g} dB"),
        ),
        table=_table(result),
        notes=(covers(result.replicates, "test images"),),
        holding=HOLDS_TEST,
    )


def _table(result: Result) -> Table:
    rows = tuple(
        (
            Cell(f"{level.sigma:g}"),
            _cell(level.plain),
            _cell(level.shuffled),
            _cell(level.gap),
        )
        for level in result.levels
    )
    columns = ("Noise level", "Plain (dB)", "Shuffled (dB)", "Loss (dB)")
    return Table("PSNR of the mean squared error on test images.", columns, rows)


def _cell(part: Interval) -> Cell:
    return Cell(f"{part.value:.2f}", f"{part.low:.2f} to {part.high:.2f}")


@figure(
    "What shuffling costs",
    "Left, PSNR of the mean squared error against that of the noisy image. Right, what the network "
    "trained on shuffled pixels loses. Bands and bars are 95 % intervals. Below the gray line an "
    "estimate is worse than the noisy image. The optimal denoiser would lose nothing.",
    "Two curves of output against input PSNR, and their difference with intervals.",
)
def loss(run: Run, theme: Theme) -> Figure:
    """Output against input PSNR with and without shuffling, and their difference, dB."""
    result, drawn = run.result, style.new_figure(2.8)
    left, right = drawn.subplots(1, 2)
    x = -20 * np.log10([level.sigma for level in result.levels])
    for name, colour in (("plain", theme.twins), ("shuffled", theme.nearest)):
        value, low, high = style.curve([getattr(level, name) for level in result.levels])
        left.fill_between(x, low, high, color=colour, alpha=0.25, linewidth=0)
        left.plot(x, value, color=colour, marker="o", label=name)
    left.plot(x, x, color=theme.muted, linewidth=1, label="output = input")
    left.legend()
    left.set_ylabel("output PSNR (dB)")
    value, low, high = style.curve([level.gap for level in result.levels])
    right.errorbar(x, value, (value - low, high - value), color=theme.ink, marker="o", capsize=2)
    right.axhline(0, color=theme.muted, linestyle=(0, (4, 3)), linewidth=1)
    right.set_ylabel("loss by shuffling (dB)")
    for axes in (left, right):
        axes.set_xlabel("input PSNR (dB)")
    return drawn


@figure(
    "Estimates",
    "Test images at noise level 0.2, and what both networks make of them. The second sees and "
    "returns shuffled pixels; they are put back in order here.",
    "Rows of clean and noisy images and of the estimates of both networks.",
    images=True,
)
def estimates(run: Run, theme: Theme) -> Figure:
    """Test images, with noise, and both networks' estimates."""
    rows = {name: run.array(name) for name in ROWS}
    count = len(rows["clean"])
    height, width = rows["clean"].shape[-2:]
    tile = (style.WIDTH - NAMES) / count
    drawn = style.new_figure(len(rows) * tile * height / width)
    drawn.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    ratios = [NAMES, *[tile] * count]
    grid = drawn.subplots(len(rows), count + 1, squeeze=False, width_ratios=ratios)
    for (title, images), line in zip(rows.items(), grid, strict=True):
        line[0].text(1, 0.5, title, ha="right", va="center", fontsize=8)
        line[0].set_axis_off()
        for axes, image in zip(line[1:], to_rgb(images), strict=True):
            _show(axes, image)
    return drawn


def _show(axes: Axes, image: np.ndarray) -> None:
    axes.imshow(image, interpolation="nearest")
    axes.set_axis_off()
