"""What came out of an audited model, in a table and in pictures, beside held-out images."""

from collections.abc import Iterator

import numpy as np
from matplotlib.figure import Figure

from twinscore.report import plots, style
from twinscore.report.content import Cell, Table, table
from twinscore.report.pictures import strip
from twinscore.report.reading import Run
from twinscore.report.style import Theme
from twinscore.results.audit import Extraction, Result, Tally, Trial

ACROSS = 3
SETS = {"trained": "training images", "held_out": "held-out images"}
COLUMNS = ("tried", "training images", "held-out images", "p")


def tables(result: Result) -> tuple[Table, ...]:
    """Every way that was tried, a row each; none without a model."""
    found = result.extraction
    if not found or not found.trials:
        return ()
    caption = (
        f"What {found.images:,} images of both sets came back from, half of them those of the "
        "smallest error, the others drawn from the rest, blind to the sets; at "
        f"{found.evaluations:,} evaluations of the model each. An image has come back where it is "
        "less than half as far away as any other one. p is exact, of each row by itself; "
        + (
            f"of all together {found.p:.2g}."
            if found.p is not None
            else "none where the deal fails."
        )
    )
    return (table(caption, COLUMNS, _rows(found)),)


def _rows(found: Extraction) -> Iterator[tuple[Cell | str, ...]]:
    for trial in found.trials:
        p = "–" if trial.p is None else f"{trial.p:.2g}"
        yield (_way(trial), _tally(trial.trained), _tally(trial.held_out), p)
    own = found.recurrence
    p = "–" if own.p is None else f"{own.p:.2g}"
    what = f"{own.recurring:,} of {own.samples:,} samples recur, {own.clusters:,} clusters: nearest"
    yield (what, f"{own.trained:,}", f"{own.held_out:,}", p)


def _way(trial: Trial) -> str:
    return f"path from noise of σ = {trial.sigma:.2g}" if trial.way == "noise" else "right half"


def _tally(of: Tally) -> Cell:
    share = of.share.times(100)
    return Cell(of.text(), f"{share.low:.0f} to {share.high:.0f} %")


READING = (
    "Each group: an image; where the reverse process ends that starts at it with noise; the half "
    "that is given; and the image as the model fills it in. Of either set, those that came back "
    "the nearest. Below are the noise level and, for path and half, the distance to the image over "
    "that to the nearest other one, bold where it is below one half. A held-out image may come "
    "back too, where it is plain; p says whether training images do so more often."
)
ALT = "Groups of four pictures: image, end of its path, given half, filled in; held-out ones below."


def draw(run: Run, theme: Theme) -> Figure | None:
    """Images of both sets, and what the model made of them."""
    if "extraction/trained/image" not in run.arrays:
        return None
    groups = {name: run.array(f"extraction/{name}/image") for name in SETS
              if f"extraction/{name}/image" in run.arrays}  # fmt: skip
    height, width = groups["trained"].shape[2:]
    tile = 0.92 * style.WIDTH / ACROSS * height / (4.25 * width)
    rows = {name: -(-len(images) // ACROSS) for name, images in groups.items()}
    heights = [0.32 + count * (tile + 0.24) for count in rows.values()]
    drawn = style.new_figure(sum(heights))
    drawn.get_layout_engine().set(wspace=0.05)
    parts = drawn.subfigures(len(groups), 1, height_ratios=heights, squeeze=False)[:, 0]
    for part, (name, images) in zip(parts, groups.items(), strict=True):
        part.suptitle(SETS[name], x=0.01, ha="left", **plots.HEADING)
        grid = plots.blank(part.subplots(rows[name], ACROSS, squeeze=False)).ravel()
        of = {what: run.array(f"extraction/{name}/{what}")
              for what in ("end", "given", "half", "sigma", "near")}  # fmt: skip
        for i, (axes, image) in enumerate(zip(grid, images, strict=False)):
            tiles = [image, of["end"][i], of["given"][i], of["half"][i]]
            axes.imshow(strip(tiles), interpolation="nearest")
            look = {"fontsize": 6.5, "color": theme.ink}
            plots.beside(axes, f"σ = {of['sigma'][i]:.2g}", 0, ha="left", **look)
            for x, near in zip((0.37, 0.88), of["near"][i], strict=True):
                weight = "bold" if near < 0.5 else "normal"
                plots.beside(axes, _ratio(near), x, weight=weight, **look)
    return drawn


def _ratio(near: float) -> str:
    return f"{near:.2f}" if near < np.float32(9) else "> 9"
