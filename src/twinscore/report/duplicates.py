"""The near-duplicates of a run folder on paper: pairs of pictures, and their correlations.

`figures` draws and `content` writes; both read the folder alone.
"""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from pydantic import BaseModel, ConfigDict

from twinscore.report import reading, style
from twinscore.report.content import Caption, Cell, Content, Table
from twinscore.report.pictures import strip
from twinscore.report.style import Theme

FIGURES = ("pairs", "histogram")
ACROSS = 6
TITLES = {
    "identical": "equal pixel by pixel",
    "closest": "most correlated",
    "borderline": "just above the threshold",
}


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Data(_Part):
    """A set of images."""

    source: str
    images: int
    shape: tuple[int, int, int]


class Count(_Part):
    """The number of near-duplicates at a threshold."""

    threshold: float
    images: int


class Pair(_Part):
    """An image and the one it repeats."""

    index: int
    partner_index: int
    correlation: float


class Result(_Part):
    """The fields of result.json that the report reads."""

    verdict: str
    data: Data
    against: Data | None
    compared_at: int
    identical: int
    counts: list[Count]
    pairs: dict[str, list[Pair]]


def figures(folder: Path, *, images: bool = True, theme: str = "light") -> dict[str, Figure]:
    """Draw the pairs and the histogram, where there is any near-duplicate.

    Parameters
    ----------
    folder
        Folder of a run of ``twinscore duplicates``.
    images
        Whether to draw ``pairs``, the figure that shows images.
    theme
        ``light`` or ``dark``.

    Returns
    -------
    dict of str to matplotlib.figure.Figure
        ``pairs`` (each image beside the one it repeats) and ``histogram`` (of the correlations).

    Raises
    ------
    InputError
        If the folder is no run folder or one of its files is damaged.
    """
    run, result = _load(folder)
    with style.applied(theme) as look:
        drawn = {}
        if images and any(result.pairs.values()):
            drawn["pairs"] = _pairs(run, result, look)
        if result.counts[0].images:
            drawn["histogram"] = _histogram(run, result, look)
        return {name: style.settle(figure) for name, figure in drawn.items()}


def content(folder: Path, *, images: bool = True) -> Content:
    """Write what the page says about the run.

    Parameters
    ----------
    folder
        Folder of a run of ``twinscore duplicates``.
    images
        Whether the page shows pictures; the words are the same.

    Returns
    -------
    Content
        Verdict, facts, table and captions.

    Raises
    ------
    InputError
        If the folder is no run folder or one of its files is damaged.
    """
    _, result = _load(folder)
    partner = "an image of the other set" if result.against else "an earlier image"
    return Content(
        title=f"twinscore: near-duplicates in {result.data.source}",
        verdict=result.verdict,
        facts=_facts(result),
        table=_table(result),
        captions={
            "pairs": Caption(
                "Images and what they repeat",
                f"In each pair, {partner} is on the left and its near-duplicate on the right. "
                "Below are their indices, which duplicates.csv turns into names, and their "
                "correlation. The pairs just above the threshold tell whether it is right: if they "
                "show different things, raise it; if they are copies, so may be some pairs "
                "below it, and a lower threshold is worth a try.",
                "Pairs of pictures under up to three headings: " + "; ".join(TITLES.values()) + ".",
            ),
            "histogram": Caption(
                "How alike the near-duplicates are",
                "Correlation of each near-duplicate with the image it repeats; the scale of the "
                "counts is logarithmic. A peak near 1 that stands apart is a set of true copies; "
                "counts that grow towards the threshold mean that images of this set are alike "
                "without being copies, and that the threshold cuts into them.",
                f"Histogram of {result.counts[0].images:,} correlations above "
                f"{result.counts[0].threshold:g}.",
            ),
        },
    )


def _load(folder: Path) -> tuple[reading.Run, Result]:
    run = reading.read(folder)
    return run, reading.result_of(run, Result)


def _facts(result: Result) -> tuple[tuple[str, str], ...]:
    described = [("Images", result.data)]
    if result.against:
        described.append(("Compared with", result.against))
    facts = [
        (name, f"{data.source}: {data.images:,} images of {_shape(data.shape)}")
        for name, data in described
    ]
    at = result.compared_at
    return (
        *facts,
        ("Compared at", f"{at} x {at} pixels, gray, mean removed; the sign counts"),
        ("Equal pixel by pixel", f"{result.identical:,}"),
    )


def _shape(shape: tuple[int, int, int]) -> str:
    channels, height, width = shape
    kind = {1: "gray", 3: "colour"}.get(channels, f"{channels} channels")
    return f"{height} x {width} pixels, {kind}"


def _table(result: Result) -> Table:
    rows = tuple(
        (
            Cell(f"{count.threshold:g}"),
            Cell(f"{count.images:,}"),
            Cell(f"{count.images / result.data.images:.2%}"),
        )
        for count in result.counts
    )
    caption = "Near-duplicates at the threshold of this run, and at higher ones."
    return Table(caption, ("threshold", "near-duplicates", "of images"), rows)


def _pairs(run: reading.Run, result: Result, theme: Theme) -> Figure:
    groups = {name: pairs for name, pairs in result.pairs.items() if pairs}
    pictures = {
        name: (reading.array(run, f"{name}/partner"), reading.array(run, f"{name}/image"))
        for name in groups
    }
    height, width = next(iter(pictures.values()))[0].shape[2:]
    tile = 0.9 * style.WIDTH / ACROSS * height / (2 * width)
    rows = {name: -(-len(pairs) // ACROSS) for name, pairs in groups.items()}
    heights = [0.3 + count * (tile + 0.2) for count in rows.values()]
    figure = style.new_figure(sum(heights))
    figure.get_layout_engine().set(wspace=0.06)
    parts = figure.subfigures(len(groups), 1, height_ratios=heights, squeeze=False)[:, 0]
    for part, (name, pairs) in zip(parts, groups.items(), strict=True):
        part.suptitle(TITLES[name], x=0.01, ha="left", fontsize=9, fontweight="bold")
        grid = part.subplots(rows[name], ACROSS, squeeze=False).ravel()
        for axes in grid:
            axes.set_axis_off()
        gap = max(1, width // 12)
        for axes, left, right, pair in zip(grid, *pictures[name], pairs, strict=False):
            axes.imshow(strip([left, right], gap), interpolation="nearest")
            for x, text, weight in (
                (0.0, pair.partner_index, "normal"),
                (0.5, f"{pair.correlation:.3f}", "bold"),
                (1.0, pair.index, "normal"),
            ):
                _below(axes, x, str(text), color=theme.ink, weight=weight)
    return figure


def _below(axes: Axes, x: float, text: str, **look: str) -> None:
    axes.annotate(
        text,
        (x, 0),
        xycoords="axes fraction",
        xytext=(0, -2),
        textcoords="offset points",
        ha={0.0: "left", 0.5: "center", 1.0: "right"}[x],
        va="top",
        fontsize=6.5,
        **look,
    )


def _histogram(run: reading.Run, result: Result, theme: Theme) -> Figure:
    values = reading.array(run, "correlation")
    identical = reading.array(run, "identical")
    threshold = result.counts[0].threshold
    figure = style.new_figure(2.4)
    axes = figure.subplots()
    axes.hist(
        [values[~identical], values[identical]],
        bins=np.linspace(threshold, 1, 51),
        stacked=True,
        color=[theme.twins, theme.nearest],
        label=["near-duplicates", TITLES["identical"]],
    )
    axes.set_yscale("log")
    axes.set(xlim=(threshold, 1), xlabel="correlation, mean removed", ylabel="images")
    axes.set_ylim(bottom=0.7)  # so that a single image shows
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    if identical.any():
        axes.legend()
    return figure
