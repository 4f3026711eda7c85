"""The near-duplicates of a run on paper: pairs of pictures, and their correlations."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from twinscore.report import plots, style
from twinscore.report.content import Content, figure, table
from twinscore.report.pictures import strip
from twinscore.report.reading import Run
from twinscore.report.style import Theme
from twinscore.results.duplicates import Result

ACROSS = 6
TITLES = {
    "identical": "equal pixel by pixel",
    "closest": "most correlated",
    "borderline": "just above the threshold",
}


def content(run: Run) -> Content:
    """What the page says about the run."""
    result: Result = run.result
    data, at = {"Images": result.data, "Compared with": result.against}, result.compared_at
    rows = (
        (f"{count.threshold:g}", f"{count.images:,}", f"{count.images / result.data.images:.2%}")
        for count in result.counts
    )
    return Content(
        title=f"twinscore: near-duplicates in {result.data.source}",
        verdict=result.verdict,
        facts=(
            *(
                (name, f"{of.source}: {of.images:,} images of {_shape(of.shape)}")
                for name, of in data.items()
                if of
            ),
            ("Compared at", f"{at} x {at} pixels, gray, mean removed; the sign counts"),
            ("Equal pixel by pixel", f"{result.identical:,}"),
        ),
        table=table(
            "Near-duplicates at the threshold of this run, and at higher ones.",
            ("threshold", "near-duplicates", "of images"),
            rows,
        ),
    )


def _shape(shape: tuple[int, int, int]) -> str:
    channels, height, width = shape
    kind = {1: "gray", 3: "colour"}.get(channels, f"{channels} channels")
    return f"{height} x {width} pixels, {kind}"


def _reading(run: Run) -> str:
    partner = "an image of the other set" if run.result.against else "an earlier image"
    return (
        f"In each pair, {partner} is on the left and its near-duplicate on the right. "
        "Below are their indices, which duplicates.csv turns into names, and their "
        "correlation. The pairs just above the threshold tell whether it is right: if they "
        "show different things, raise it; if they are copies, so may be some pairs "
        "below it, and a lower threshold is worth a try."
    )


@figure(
    "Images and what they repeat",
    _reading,
    "Pairs of pictures under up to three headings: " + "; ".join(TITLES.values()) + ".",
    images=True,
)
def pairs(run: Run, theme: Theme) -> Figure | None:
    """Each image beside the one it repeats."""
    groups = {name: found for name, found in run.result.pairs.items() if found}
    if not groups:
        return None
    pictures = {name: (run.array(f"{name}/partner"), run.array(f"{name}/image")) for name in groups}
    height, width = next(iter(pictures.values()))[0].shape[2:]
    tile = 0.9 * style.WIDTH / ACROSS * height / (2 * width)
    rows = {name: -(-len(found) // ACROSS) for name, found in groups.items()}
    heights = [0.3 + count * (tile + 0.2) for count in rows.values()]
    drawn = style.new_figure(sum(heights))
    drawn.get_layout_engine().set(wspace=0.06)
    parts = drawn.subfigures(len(groups), 1, height_ratios=heights, squeeze=False)[:, 0]
    for part, (name, found) in zip(parts, groups.items(), strict=True):
        part.suptitle(TITLES[name], x=0.01, ha="left", **plots.HEADING)
        grid = plots.blank(part.subplots(rows[name], ACROSS, squeeze=False)).ravel()
        for axes, left, right, pair in zip(grid, *pictures[name], found, strict=False):
            axes.imshow(strip([left, right]), interpolation="nearest")
            look = {"fontsize": 6.5, "color": theme.ink}
            plots.beside(axes, str(pair.partner_index), 0, ha="left", **look)
            plots.beside(axes, f"{pair.correlation:.3f}", weight="bold", **look)
            plots.beside(axes, str(pair.index), 1, ha="right", **look)
    return drawn


@figure(
    "How alike the near-duplicates are",
    "Correlation of each near-duplicate with the image it repeats; the scale of the counts is "
    "logarithmic. A peak near 1 that stands apart is a set of true copies; counts that grow "
    "towards the threshold mean that images of this set are alike without being copies, and that "
    "the threshold cuts into them.",
    lambda run: (
        f"Histogram of {run.result.counts[0].images:,} correlations above "
        f"{run.result.counts[0].threshold:g}."
    ),
)
def histogram(run: Run, theme: Theme) -> Figure | None:
    """Of the correlations, where there are near-duplicates."""
    threshold, count = run.result.counts[0].threshold, run.result.counts[0].images
    if not count:
        return None
    values, identical = run.array("correlation"), run.array("identical")
    drawn, (axes,) = plots.new_row(2.4, 1)
    axes.hist(
        [values[~identical], values[identical]],
        bins=np.linspace(threshold, 1, 51),
        stacked=True,
        color=[theme.twins, theme.nearest],
        label=["near-duplicates", TITLES["identical"]],
    )
    axes.set(xlim=(threshold, 1), xlabel="correlation, mean removed", ylabel="images", yscale="log")
    axes.set_ylim(bottom=0.7)  # so that a single image shows
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    if identical.any():
        axes.legend()
    return drawn
