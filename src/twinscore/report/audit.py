"""An audit on paper: what was found, beside what the same search finds among held-out images."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.patches import Rectangle

from twinscore.report import along as along_report
from twinscore.report import extraction, plots, style
from twinscore.report.content import HOLDS, Cell, Content, Table, figure, size_text, table
from twinscore.report.pictures import strip
from twinscore.report.reading import Run
from twinscore.report.style import Theme
from twinscore.results.audit import Assumption, Match, Power, Result

ACROSS = 4
TONES = {True: "holds", False: "does not hold", None: "not known"}
ROWS = 20


def content(run: Run) -> Content:
    """What the page says about the run."""
    result: Result = run.result
    found = result.listed or result.shown
    return Content(
        title="twinscore: audit for copied training images",
        verdict=f"{result.data.samples}: {result.verdict}: {result.why}.",
        facts=tuple(_facts(result)),
        table=_matches(result, found) if found else None,
        more=extraction.tables(result),
        notes=(
            "What p says: samples depend on the training set. A model that learned it well does "
            "too, without a single copy. Copies are claimed only with a list.",
            "A list at a false-discovery rate of q holds on average at most a share q of images "
            "that are there by chance.",
            "The upper end of the copies speaks of those that are changed as planted copies that "
            "are seen. Of the others there may be more.",
            "Published numbers are information. Each means something only beside its value for "
            "held-out images, which no model has copied.",
        ),
        holding=HOLDS,
    )


def _facts(result: Result) -> list[tuple[str, str]]:
    data, p = result.data, result.dependence.p
    sets = f"{data.train}: {data.images[0]:,} images in {data.units[0]:,} units"
    held_out = f"{data.held_out}: {data.images[1]:,} in {data.units[1]:,}" if data.held_out else "–"
    compared = f"{size_text(data.shape)}, compared at {data.side} pixels"
    return [
        ("Copies among the samples", f"{result.copies.times(100).text(1)} %"),
        ("Dependence on the training set", "no p" if p is None else f"p = {p:.2g}"),
        *(_power(result.power) if result.power else []),
        *([("Membership", result.membership.text())] if result.membership else []),
        *([("Base model", result.base.text())] if result.base else []),
        *([("Autoencoder", result.autoencoder.text())] if result.autoencoder else []),
        *([("Extraction", result.extraction.text())] if result.extraction else []),
        *([("Local signs", result.signs.text())] if result.signs else []),
        *([("Along training", result.window.text())] if result.window else []),
        *([("Twins of the recipe", result.twins.text())] if result.twins else []),
        *(("Advice", sentence) for sentence in result.guidance),
        *([("Recall of the shortlist", result.recall.text())] if result.recall else []),
        *(
            [("Images that twice the samples would repeat", f"at least {result.extractable:,.0f}")]
            if result.extractable is not None
            else []
        ),
        ("Training images", sets),
        ("Held-out images", held_out),
        ("Samples", f"{data.samples}: {data.drawn:,} of {compared}"),
        *((f"Assumption: {a.name}", _assumption(a)) for a in result.assumptions),
        *(
            (
                f"{x.name} (information)",
                f"{x.samples:.3g} of samples, "
                + ("–" if x.held_out is None else f"{x.held_out:.3g} of held-out images"),
            )
            for x in result.legacy
        ),
    ]


def _power(power: Power) -> list[tuple[str, str]]:
    """What could have been seen."""
    seen, other = (power.seen_text(covered) for covered in (True, False))
    return [
        ("Power", power.text().partition(": ")[2]),
        *([("Planted copies that are seen", seen)] if seen else []),
        *([("Not covered by the upper end, seen too rarely", other)] if other else []),
    ]


def _assumption(a: Assumption) -> str:
    return f"{TONES[a.holds]}: {a.found}"


def _matches(result: Result, found: list[Match]) -> Table:
    what = (
        f"Training images listed at a false-discovery rate of {result.q:g}"
        if result.listed
        else "Training images nearest to samples, which are shown and not proven to be copies"
    )
    more = f"; the first {ROWS} of {len(found):,}, all in matches.csv" if len(found) > ROWS else ""
    rows = (
        (
            f"{m.rank}",
            m.name,
            m.sample_name,
            Cell(f"{m.score:.1f}", f"distance {m.distance:.2f}"),
            f"{m.votes:,}",
            m.transform.text(),
        )
        for m in found[:ROWS]
    )
    return table(
        f"{what}{more}. Score: how much nearer the image is to the sample than others are, in "
        "units of chance. Votes: samples whose strongest vote is for the image.",
        ("rank", "training image", "sample", "score", "votes", "how the sample shows it"),
        rows,
    )


def _reading(run: Run) -> str:
    return (
        "Each group: a sample, the training image as the sample shows it (mirrored, moved, "
        "zoomed), and what is left of the sample after it, at the best brightness and contrast; "
        "gray is nothing. A box marks the tile that was compared. Below are rank and image. Decoys "
        "are the held-out images of the highest rank: what the same search finds where nothing was "
        "copied."
    )


@figure(
    "The evidence",
    _reading,
    "Groups of three pictures: sample, training image, difference; decoys below.",
    images=True,
)
def evidence(run: Run, theme: Theme) -> Figure | None:
    """Samples beside the images that they repeat, and the strongest decoys."""
    result: Result = run.result
    groups = {
        "training images": ("matches", result.listed or result.shown),
        "decoys: held-out images": ("decoys", result.decoys),
    }
    groups = {
        title: (name, found[: len(run.array(f"{name}/sample"))])
        for title, (name, found) in groups.items()
        if found
    }
    if not groups:
        return None
    height, width = run.array(f"{next(iter(groups.values()))[0]}/sample").shape[2:]
    tile = 0.92 * style.WIDTH / ACROSS * height / (3 * width)
    rows = {title: -(-len(found) // ACROSS) for title, (_, found) in groups.items()}
    heights = [0.32 + count * (tile + 0.24) for count in rows.values()]
    drawn = style.new_figure(sum(heights))
    drawn.get_layout_engine().set(wspace=0.05)
    parts = drawn.subfigures(len(groups), 1, height_ratios=heights, squeeze=False)[:, 0]
    for part, (title, (name, found)) in zip(parts, groups.items(), strict=True):
        part.suptitle(title, x=0.01, ha="left", **plots.HEADING)
        _grid(part, run, name, found, rows[title], theme)
    return drawn


def _grid(
    part: SubFigure, run: Run, name: str, found: list[Match], rows: int, theme: Theme
) -> None:
    pictures = [run.array(f"{name}/{what}") for what in ("sample", "laid", "difference")]
    grid = plots.blank(part.subplots(rows, ACROSS, squeeze=False)).ravel()
    for axes, sample, laid, left, match in zip(grid, *pictures, found, strict=False):
        axes.imshow(strip([sample, laid, 0.5 + left]), interpolation="nearest")
        look = {"fontsize": 6.5, "color": theme.ink}
        plots.beside(axes, f"{match.rank}: {plots.named(match.name, 17)}", 0, ha="left", **look)
        plots.beside(axes, f"{match.score:.1f}", 1, ha="right", weight="bold", **look)
        if match.transform.kind == "tiles":
            _box(axes, match.transform.place, *sample.shape[1:], theme)


def _box(axes: Axes, place: str, height: int, width: int, theme: Theme) -> None:
    """Around one of the nine tiles of the sample."""
    down, across = place.split(" ")
    top = ("top", "middle", "bottom").index(down) * height / 4
    left = ("left", "centre", "right").index(across) * width / 4
    box = {"fill": False, "edgecolor": theme.nearest, "linewidth": 1}
    axes.add_patch(Rectangle((left - 0.5, top - 0.5), width / 2, height / 2, **box))


@figure(
    "Training images and decoys by rank",
    "How many of the strongest images were trained on, and how many held-out ones are among them, "
    "scaled to as many as there are training images. Where nothing is copied, both curves rise "
    "alike. The line marks where the list ends.",
    lambda run: (
        f"Two rising curves over {len(run.array('ranking/trained')):,} ranks; "
        f"{len(run.result.listed):,} training images are listed."
    ),
)
def ranks(run: Run, theme: Theme) -> Figure | None:
    """Counts of both sets among the strongest images."""
    result: Result = run.result
    n, m = result.data.units
    trained = run.array("ranking/trained").astype(bool)
    if not m or not len(trained):
        return None
    rank = np.arange(1, len(trained) + 1)
    drawn, (axes,) = plots.new_row(2.6, 1)
    axes.plot(rank, trained.cumsum(), color=theme.nearest, label="training images")
    scaled = (~trained).cumsum() * n / m
    axes.plot(rank, scaled, color=theme.held_out, label="held-out images, scaled", linestyle="--")
    if result.listed:
        axes.axvline(result.listed[-1].rank, color=theme.muted, linewidth=1)
    axes.set(xscale="log", xlabel="rank, strongest vote first", ylabel="images so far")
    axes.set_yscale("symlog", linthresh=1)
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set_xlim(1, len(trained))
    axes.set_ylim(bottom=0)
    axes.legend(loc="upper left")
    return drawn


@figure(
    "Errors of the model, training against held-out images",
    "How often a training image has the smaller error, of all pairs with a held-out one, at each "
    "noise level; bars are 95 % intervals. A model that does not depend on which images it was "
    "trained on has one half. A small gap does not clear a model: one that overfits a few images "
    "has it too.",
    lambda run: f"Points with bars over noise levels; {run.result.membership.text()}.",
)
def membership(run: Run, theme: Theme) -> Figure | None:
    """The area under the curve at each noise level."""
    result: Result = run.result
    if result.membership is None:
        return None
    levels = result.membership.by_level
    drawn, (axes,) = plots.new_row(2.6, 1)
    axes.axhline(0.5, color=theme.muted, linewidth=1)
    sigma = [level.sigma for level in levels]
    plots.error_bars(axes, sigma, [level.auc for level in levels], theme.nearest, marker="o")
    axes.set(xscale="log", xlabel="noise level σ (image units)", ylabel="AUC, T against H")
    axes.set_xticks(sigma, [f"{s:g}" for s in sigma])
    axes.minorticks_off()
    axes.set_ylim(min(0.4, *(level.auc.low for level in levels)), 1.02)
    return drawn


along = along_report.along


@figure("What comes out of the model", extraction.READING, extraction.ALT, images=True)
def extracted(run: Run, theme: Theme) -> Figure | None:
    """Images of both sets, and what the model made of them."""
    return extraction.draw(run, theme)


@figure(
    "Local signs",
    "Training images of the smallest error, and held-out ones of about equal error: trace of the "
    "model's Jacobian there, how much noise it lets through, and its effective rank, in how many "
    "directions (where the trace is near 0 it says nothing). A model that knows an image by heart "
    "takes all around it to it, and its trace falls towards 0; so it does at plain images, which "
    "is why held-out ones are beside. Information, not a test.",
    lambda run: f"Points of two sets over the error, in two panels: {run.result.signs.text()}.",
)
def local(run: Run, theme: Theme) -> Figure | None:
    """Trace and rank of the Jacobian against the error."""
    result: Result = run.result
    if result.signs is None:
        return None
    drawn, panels = plots.new_row(2.6)
    for axes, what in zip(panels, ("trace", "rank"), strict=True):
        for trained, colour, marker in ((True, theme.nearest, "o"), (False, theme.held_out, "s")):
            signs = [sign for sign in result.signs.images if sign.trained is trained]
            points = [[sign.error, getattr(sign, what)] for sign in signs]
            label = "training images" if trained else "held-out images"
            axes.plot(*np.transpose(points), marker, color=colour, label=label)
        name = "trace" if what == "trace" else "effective rank"
        axes.set(xlabel=f"error at σ = {result.signs.sigma:g}", ylabel=name)
        axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))
        axes.locator_params(axis="x", nbins=5)
    plots.legend(drawn, panels[0], where="upper center", ncols=2)
    return drawn
