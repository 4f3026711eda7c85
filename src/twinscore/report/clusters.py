"""Near and far clusters on paper: the words of the page, and five figures."""

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from twinscore.report import plots, style
from twinscore.report.content import Content, Table, figure, images_text, interval_cell, table
from twinscore.report.pictures import strip
from twinscore.report.reading import Run
from twinscore.report.style import Theme
from twinscore.results.clusters import Curve, Result, Side

ROWS = {
    "gap": "train − test PSNR (dB)",
    "test_psnr": "test PSNR (dB)",
    "twin_similarity": "cosine similarity of the twins' samples",
    "memorised_fraction": "fraction of samples memorised",
    "elsewhere": "fraction of samples in other clusters",
    "test_bits": "bits per dimension, test images",
    "bits_gap": "bits per dimension, test − train",
}
EXAMPLES = 16
BINS = 24


def content(run: Run) -> Content:
    """What the page says about the run."""
    result: Result = run.result
    return Content(
        title=f"twinscore: near and far clusters of {result.data.source}",
        verdict=result.verdict,
        facts=_facts(result),
        table=_table(result),
        notes=tuple(
            f"{side.name}: {side.unfinished_samples} samples did not converge."
            for side in result.sides
            if side.unfinished_samples
        ),
    )


def _facts(result: Result) -> tuple[tuple[str, str], ...]:
    data, pairs = result.data, []
    for side, word in zip(result.sides, ("Nearest", "Farthest"), strict=True):
        (first, second), (larger, smaller) = side.clusters, side.sizes
        text = f"clusters {first} and {second}, of {larger:,} and {smaller:,} images"
        pairs.append((f"{word} two", f"{text}, centres {side.distance:.2f} apart"))
    return (
        ("Images", images_text(data)),
        (
            "Clusters",
            f"{len(data.cluster_sizes)} by k-means in {data.components} principal components of "
            f"standardised pixels; sizes {', '.join(f'{size:,}' for size in data.cluster_sizes)}",
        ),
        *pairs,
        (
            "Training sets",
            f"{data.n:,} images for each twin, half from each cluster; {data.test:,} test images; "
            f"{data.replicates} replicates",
        ),
    )


def _table(result: Result) -> Table:
    cell = partial(interval_cell, form=lambda value: f"{value:.3f}".replace("-", "−"))
    share = "fraction of samples on the side of the first cluster"
    measured = [*(side.measured for side in result.sides), result.difference]
    return table(
        "Means over replicates with Student's t intervals (95 %); A and B are averaged. PSNR is "
        "averaged over images and noise levels. The difference is taken replicate by replicate.",
        ("", "near", "far", "far − near"),
        (
            (share, *(cell(side.share) for side in result.sides), "–"),
            *((text, *(cell(getattr(of, k)) for of in measured)) for k, text in ROWS.items()),
        ),
    )


@figure(
    "The two nearest and the two farthest clusters",
    "Held-out images of each cluster of the first replicate, which no network has seen.",
    "Four rows of images: both clusters of the near pair, both of the far pair.",
    images=True,
)
def clusters(run: Run, theme: Theme) -> Figure:
    """Draw held-out images of each cluster, a row for each."""
    return _rows(
        [
            (f"{side.name}, {label}", run.array(f"{side.name}/images")[which::2][:EXAMPLES])
            for side in run.result.sides
            for which, label in enumerate(side.clusters)
        ]
    )


@figure(
    "Loss and denoising during training",
    "Against the training step: training loss, PSNR on test images, and PSNR on training "
    "less that on test images (both averaged over noise levels). Lines are means over "
    "replicates, bands their intervals. All networks and both sets take the same noise, "
    "which is not that of the table: the last values differ a little. A test PSNR that "
    "falls while the gap grows is a network that starts to memorise.",
    "Training loss, test PSNR and train − test gap against the step, near and far.",
)
def dynamics(run: Run, theme: Theme) -> Figure:
    """Draw loss, test PSNR (dB) and train - test gap (dB) against the training step."""
    drawn, panels = plots.new_row(2.7, 3)
    titles = {
        "loss": ("training loss", "summed squared error"),
        "test_psnr": ("test images", plots.OUTPUT),
        "gap": ("train − test", "difference in PSNR (dB)"),
    }
    for axes, (name, (title, label)) in zip(panels, titles.items(), strict=True):
        for side, colour in _sides(run, theme):
            _curve(axes, getattr(side.dynamics, name), colour, side.name)
        axes.set(title=title, ylabel=label, xlabel="step")
        axes.locator_params(axis="x", nbins=4)
    panels[0].set_yscale("log")
    panels[0].yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    panels[0].yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    panels[0].yaxis.set_minor_locator(NullLocator())
    plots.legend(drawn, panels[0])
    return drawn


@figure(
    "Where samples fall",
    "Left: fraction of samples on the first centre's side, which is one half in the training set "
    "(broken line), and fraction nearest to the centre of a third cluster; small dots are single "
    "networks, bars intervals over replicates. Middle and right: position of samples and of "
    "held-out images along the line through the two centres, 0 at the first and 1 at the second. "
    "Samples between two humps are blends of both clusters.",
    "Fractions of samples with intervals; histograms of positions between the centres.",
)
def shares(run: Run, theme: Theme) -> Figure:
    """Draw the fraction of samples in each cluster, and where they lie between the centres."""
    drawn, (left, *panels) = plots.new_row(3.0, 3, width_ratios=(1.1, 1, 1))
    left.axhline(0.5, color=theme.muted, linestyle=plots.DASHED, linewidth=1)
    for x, (side, colour) in enumerate(_sides(run, theme)):
        single = run.array(f"{side.name}/shares").reshape(-1, 2)
        for k, mean in enumerate((side.share, side.measured.elsewhere)):
            at = 2.5 * k + x
            aside = np.linspace(-0.3, 0.3, len(single))
            left.plot(at + aside, single[:, k], ".", color=colour, alpha=0.45, markersize=4)
            plots.error_bars(left, [at], [mean], colour, marker="o", capsize=3)
    left.set_xticks([0.5, 3.0], ["first cluster's\nside", "in another\ncluster"])
    left.set_ylabel("fraction of samples")
    left.grid(visible=False, axis="x")
    entries = []
    for axes, (side, colour) in zip(panels, _sides(run, theme), strict=True):
        ours = run.array(f"{side.name}/positions_samples").ravel()
        real = run.array(f"{side.name}/positions_images").ravel()
        bins = np.linspace(min(ours.min(), real.min()), max(ours.max(), real.max()), BINS + 1)
        grey = axes.hist(real, bins, density=True, color=theme.muted, alpha=0.35)[2]
        axes.hist(ours, bins, density=True, histtype="step", color=colour, linewidth=1.4)
        entries.append(axes.plot([], [], color=colour, label=f"samples, {side.name}")[0])
        axes.set(title=side.name, xlabel="position between centres", ylabel="density")
        axes.locator_params(nbins=4)
    grey.set_label("held-out images")
    drawn.legend(handles=[grey, *entries], loc="outside lower center", ncols=3)
    return drawn


@figure(
    "Samples of both twins from the same noise",
    "Columns share their noise. From the top, for each pair of clusters: training image "
    "of A nearest to A's sample, sample of A, sample of B, training image of B nearest to "
    "B's sample. Twins that agree have learned it from the distribution.",
    "For near and far, four rows of images: nearest in A, sample of A, sample of B, nearest in B.",
    images=True,
)
def samples(run: Run, theme: Theme) -> Figure:
    """Draw both twins' samples from shared noise, between their nearest training images."""
    labels = {"nearest_a": "nearest in A", "samples_a": "sample of A"}
    labels |= {"samples_b": "sample of B", "nearest_b": "nearest in B"}
    return _rows(
        [
            (f"{side.name}\n{label}", run.array(f"{side.name}/{name}")[:EXAMPLES])
            for side in run.result.sides
            for name, label in labels.items()
        ]
    )


@figure(
    "Agreement of the twins, and the gap at each noise level",
    "Left: cosine similarity (mean removed) between the samples of A and B from the same "
    "noise, over all replicates. Right: PSNR on training less that on test images against "
    "the noise level, with intervals over replicates.",
    "Histograms of cosine similarity; train − test PSNR against the noise level.",
)
def agreement(run: Run, theme: Theme) -> Figure:
    """Draw the similarity of the twins' samples, and the train - test gap at each noise level."""
    drawn, (left, right) = plots.new_row(2.8)
    values = [run.array(f"{side.name}/agreement").ravel() for side in run.result.sides]
    bins = np.linspace(min(value.min() for value in values), 1, 41)
    for value, (side, colour) in zip(values, _sides(run, theme), strict=True):
        plots.fractions(left, value, bins, colour)
        left.axvline(float(np.median(value)), color=colour, linestyle=":")
        _curve(right, side.gap_by_sigma, colour, side.name)
    left.set(xlabel="cosine similarity of A's and B's sample", ylabel="fraction of samples")
    left.set_title("agreement (dotted: median)")
    right.set(xlabel="noise level σ", ylabel="train − test PSNR (dB)", title="gap")
    right.axhline(0, color=theme.muted, linewidth=1)
    plots.legend(drawn, right)
    return drawn


def _sides(run: Run, theme: Theme) -> Iterator[tuple[Side, str]]:
    """Near and far, each with its colour."""
    return zip(run.result.sides, (theme.twins, theme.nearest), strict=True)


def _curve(axes: Axes, of: Curve, colour: str, label: str) -> None:
    plots.band(axes, of.at, (of.value, of.low, of.high), colour, label=label)


def _rows(rows: Sequence[tuple[str, np.ndarray]]) -> Figure:
    """Put images in rows with a label before each."""
    height, width = rows[0][1].shape[-2:]
    tile = 0.8 * style.WIDTH / max(len(pictures) for _, pictures in rows)
    drawn = style.new_figure(0.1 + len(rows) * (0.06 + tile * height / width))
    lines = plots.blank(drawn.subplots(len(rows), 1, squeeze=False))[:, 0]
    for axes, (label, pictures) in zip(lines, rows, strict=True):
        axes.imshow(strip(pictures), interpolation="nearest")
        at = {"xy": (0, 0.5), "xycoords": "axes fraction", "ha": "right", "va": "center"}
        axes.annotate(label, xytext=(-5, 0), textcoords="offset points", fontsize=7, **at)
    return drawn
