"""The five figures of the clusters study, and the fields of its result that they draw."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter
from pydantic import BaseModel, ConfigDict

from twinscore.report import reading, style
from twinscore.report.pictures import strip
from twinscore.report.style import Theme

EXAMPLES = 16
BINS = 24


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Mean(_Part):
    """A mean with its interval."""

    value: float
    low: float
    high: float


class Curve(_Part):
    """Means with their intervals at each entry of `at`."""

    at: list[float]
    value: list[float]
    low: list[float]
    high: list[float]


class Dynamics(_Part):
    """Loss and PSNR against the step."""

    loss: Curve
    test_psnr: Curve
    gap: Curve


class Side(_Part):
    """What networks trained on one pair of clusters do."""

    name: str
    clusters: tuple[int, int]
    sizes: tuple[int, int]
    distance: float
    share: Mean
    measured: dict[str, Mean | None]
    gap_by_sigma: Curve
    dynamics: Dynamics
    unfinished_samples: int


class Data(_Part):
    """The images of the run and their clusters."""

    source: str
    images: int
    dropped: int
    threshold: float
    shape: tuple[int, int, int]
    cluster_sizes: list[int]
    components: int
    n: int
    test: int
    replicates: int


def clusters(run: reading.Run, sides: Sequence[Side]) -> Figure:
    """Draw held-out images of each cluster, a row for each."""
    rows = []
    for side in sides:
        pictures = reading.array(run, f"{side.name}/images")
        for which, label in enumerate(side.clusters):
            rows.append((f"{side.name}, {label}", pictures[which::2][:EXAMPLES]))
    return _rows(rows)


def dynamics(sides: Sequence[Side], theme: Theme) -> Figure:
    """Draw loss, test PSNR (dB) and train - test gap (dB) against the training step."""
    figure = style.new_figure(2.7)
    panels = figure.subplots(1, 3)
    titles = {
        "loss": ("training loss", "summed squared error"),
        "test_psnr": ("test images", "output PSNR (dB)"),
        "gap": ("train − test", "difference in PSNR (dB)"),
    }
    for axes, (name, (title, label)) in zip(panels, titles.items(), strict=True):
        for side, colour in zip(sides, _colours(theme), strict=True):
            _band(axes, getattr(side.dynamics, name), colour, side.name)
        axes.set(title=title, ylabel=label, xlabel="step")
        axes.locator_params(axis="x", nbins=4)
    panels[0].set_yscale("log")
    panels[0].yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    panels[0].yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    panels[0].yaxis.set_minor_locator(NullLocator())
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center")
    return figure


def shares(run: reading.Run, sides: Sequence[Side], theme: Theme) -> Figure:
    """Draw the fraction of samples in each cluster, and where they lie between the centres."""
    figure = style.new_figure(3.0)
    left, *panels = figure.subplots(1, 3, width_ratios=(1.1, 1, 1))
    left.axhline(0.5, color=theme.muted, linestyle=(0, (4, 3)), linewidth=1)
    for x, (side, colour) in enumerate(zip(sides, _colours(theme), strict=True)):
        single = reading.array(run, f"{side.name}/shares").reshape(-1, 2)
        for k, mean in enumerate((side.share, side.measured["elsewhere"])):
            at = 2.5 * k + x
            aside = np.linspace(-0.3, 0.3, len(single))
            left.plot(at + aside, single[:, k], ".", color=colour, alpha=0.45, markersize=4)
            reach = [[max(mean.value - mean.low, 0)], [max(mean.high - mean.value, 0)]]
            left.errorbar(at, mean.value, yerr=reach, color=colour, marker="o", capsize=3)
    left.set_xticks([0.5, 3.0], ["first cluster's\nside", "in another\ncluster"])
    left.set_ylabel("fraction of samples")
    left.grid(visible=False, axis="x")
    entries = []
    for axes, side, colour in zip(panels, sides, _colours(theme), strict=True):
        drawn = reading.array(run, f"{side.name}/positions_samples").ravel()
        real = reading.array(run, f"{side.name}/positions_images").ravel()
        bins = np.linspace(min(drawn.min(), real.min()), max(drawn.max(), real.max()), BINS + 1)
        grey = axes.hist(real, bins, density=True, color=theme.muted, alpha=0.35)[2]
        axes.hist(drawn, bins, density=True, histtype="step", color=colour, linewidth=1.4)
        entries.append(axes.plot([], [], color=colour, label=f"samples, {side.name}")[0])
        axes.set(title=side.name, xlabel="position between centres", ylabel="density")
        axes.locator_params(nbins=4)
    grey.set_label("held-out images")
    figure.legend(handles=[grey, *entries], loc="outside lower center", ncols=3)
    return figure


def samples(run: reading.Run, sides: Sequence[Side]) -> Figure:
    """Draw both twins' samples from shared noise, between their nearest training images."""
    rows = []
    for side in sides:
        for name, label in (
            ("nearest_a", "nearest in A"),
            ("samples_a", "sample of A"),
            ("samples_b", "sample of B"),
            ("nearest_b", "nearest in B"),
        ):
            pictures = reading.array(run, f"{side.name}/{name}")[:EXAMPLES]
            rows.append((f"{side.name}\n{label}", pictures))
    return _rows(rows)


def agreement(run: reading.Run, sides: Sequence[Side], theme: Theme) -> Figure:
    """Draw the similarity of the twins' samples, and the train - test gap at each noise level."""
    figure = style.new_figure(2.8)
    left, right = figure.subplots(1, 2)
    values = [reading.array(run, f"{side.name}/agreement").ravel() for side in sides]
    bins = np.linspace(min(value.min() for value in values), 1, 41)
    for side, value, colour in zip(sides, values, _colours(theme), strict=True):
        shared = {"bins": bins, "weights": np.full(value.size, 1 / value.size), "color": colour}
        inside = np.minimum(value, 1)
        left.hist(inside, histtype="stepfilled", alpha=0.18, **shared)
        left.hist(inside, histtype="step", linewidth=1.3, **shared)
        left.axvline(float(np.median(value)), color=colour, linestyle=":")
        _band(right, side.gap_by_sigma, colour, side.name)
    left.set(xlabel="cosine similarity of A's and B's sample", ylabel="fraction of samples")
    left.set_title("agreement (dotted: median)")
    right.set(xlabel="noise level σ", ylabel="train − test PSNR (dB)", title="gap")
    right.axhline(0, color=theme.muted, linewidth=1)
    figure.legend(*right.get_legend_handles_labels(), loc="outside right center")
    return figure


def _colours(theme: Theme) -> tuple[str, str]:
    return theme.twins, theme.nearest


def _band(axes: Axes, curve: Curve, colour: str, label: str) -> None:
    axes.fill_between(curve.at, curve.low, curve.high, color=colour, alpha=0.2, linewidth=0)
    axes.plot(curve.at, curve.value, color=colour, label=label)


def _rows(rows: Sequence[tuple[str, np.ndarray]]) -> Figure:
    """Put images in rows with a label before each."""
    height, width = rows[0][1].shape[-2:]
    tile = 0.8 * style.WIDTH / max(len(pictures) for _, pictures in rows)
    figure = style.new_figure(0.1 + len(rows) * (0.06 + tile * height / width))
    for axes, (label, pictures) in zip(
        figure.subplots(len(rows), 1, squeeze=False)[:, 0], rows, strict=True
    ):
        axes.imshow(strip(list(pictures), max(1, width // 12)), interpolation="nearest")
        axes.set_axis_off()
        axes.annotate(
            label,
            (0, 0.5),
            xycoords="axes fraction",
            xytext=(-5, 0),
            textcoords="offset points",
            ha="right",
            va="center",
            fontsize=7,
        )
    return figure
