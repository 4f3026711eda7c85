"""Shuffled pixels on paper: PSNR with and without, what is lost, and some estimates."""

import numpy as np
from matplotlib.figure import Figure

from twinscore.report import plots, style
from twinscore.report.content import (
    HOLDS_TEST,
    Content,
    covers,
    figure,
    interval_cell,
    table,
)
from twinscore.report.pictures import to_rgb
from twinscore.report.reading import Run
from twinscore.report.style import Theme
from twinscore.results.shuffled import Result

ROWS = ("clean", "noisy", "plain", "shuffled")
NAMES = 0.7  # inches, for the names of the rows


def content(run: Run) -> Content:
    """What the page says about the run."""
    result: Result = run.result
    channels, height, width = result.shape
    rows = (
        (f"{level.sigma:g}", *map(interval_cell, (level.plain, level.shuffled, level.gap)))
        for level in result.levels
    )
    return Content(
        title="twinscore: shuffled pixels",
        verdict=result.verdict,
        facts=(
            ("Images", f"{result.data}, {height} x {width}, {channels} channels"),
            ("Trained on", f"{result.n:,} images, {result.replicates} replicates"),
            ("Measured on", f"{result.test:,} other images, the same noise for both"),
            ("Control", f"closed-form Gaussian: gap of at most {result.control:.1g} dB"),
        ),
        table=table(
            "PSNR of the mean squared error on test images.",
            ("Noise level", "Plain (dB)", "Shuffled (dB)", "Loss (dB)"),
            rows,
        ),
        notes=(covers(result.replicates, "test images"),),
        holding=HOLDS_TEST,
    )


@figure(
    "What shuffling costs",
    "Left, PSNR of the mean squared error against that of the noisy image. Right, what the network "
    "trained on shuffled pixels loses. Bands and bars are 95 % intervals. Below the gray line an "
    "estimate is worse than the noisy image. The optimal denoiser would lose nothing.",
    "Two curves of output against input PSNR, and their difference with intervals.",
)
def loss(run: Run, theme: Theme) -> Figure:
    """Output against input PSNR with and without shuffling, and their difference, dB."""
    levels, (drawn, (left, right)) = run.result.levels, plots.new_row(2.8)
    x = -20 * np.log10([level.sigma for level in levels])
    for name, colour in (("plain", theme.twins), ("shuffled", theme.nearest)):
        psnr = plots.curve([getattr(level, name) for level in levels])
        plots.band(left, x, psnr, colour, alpha=0.25, marker="o", label=name)
    left.plot(x, x, color=theme.muted, linewidth=1, label="output = input")
    left.legend()
    plots.error_bars(right, x, [level.gap for level in levels], theme.ink, marker="o")
    right.axhline(0, color=theme.muted, linestyle=plots.DASHED, linewidth=1)
    left.set(xlabel=plots.INPUT, ylabel=plots.OUTPUT)
    right.set(xlabel=plots.INPUT, ylabel="loss by shuffling (dB)")
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
    grid = plots.blank(drawn.subplots(len(rows), count + 1, squeeze=False, width_ratios=ratios))
    for (title, images), line in zip(rows.items(), grid, strict=True):
        line[0].text(1, 0.5, title, ha="right", va="center", fontsize=8)
        for axes, image in zip(line[1:], to_rgb(images), strict=True):
            axes.imshow(image, interpolation="nearest")
    return drawn
