"""What the critical N depends on, on paper: how it grows with the network and the images."""

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from twinscore.report import plots
from twinscore.report.content import Content, figure, table
from twinscore.report.reading import Run
from twinscore.report.style import Theme


def content(run: Run) -> Content:
    """What the page says about the run."""
    result = run.result
    return Content(
        title=f"twinscore: critical N of {len(result.cells)} networks on {result.data}",
        verdict=result.verdict,
        facts=(("Training images", ", ".join(f"{n:,}" for n in result.sizes)),),
        table=table(
            "Critical N, in images, between sizes that were tried; < and >: beyond them.",
            ("Network", "Parameters", "Pixels", "Critical N"),
            ((c.name, f"{c.parameters:,}", f"{c.pixels:,}", c.text()) for c in result.cells),
        ),
        notes=(
            "Intervals of a critical N lie between sizes that were tried, so that they are never "
            "narrower; those of an exponent cover the scatter of the networks about the line. A "
            "critical N beyond the sizes tried enters the exponent as a bound; one that is not "
            "known, since no network has learned, or the intervals decide nothing, is left out.",
        ),
        holding="This page shows no images.",
    )


@figure(
    "How the critical N grows",
    "Critical N against the number of parameters, a line for each kind of network and image size, "
    "with their intervals. An arrow points to where the critical N lies beyond the sizes tried.",
    "Critical N against parameters on logarithmic axes, with intervals.",
)
def growth(run: Run, theme: Theme) -> Figure | None:
    """Critical N against the number of parameters; nothing where none is known."""
    cells = run.result.cells
    if not any(cell.critical_n or cell.beyond for cell in cells):
        return None
    drawn, (axes,) = plots.new_row(3.2, 1)
    groups = sorted({(c.kind, c.pixels) for c in cells})
    for i, (group, colour) in enumerate(zip(groups, theme.ordered(len(groups)), strict=True)):
        own, aside = (
            [c for c in cells if (c.kind, c.pixels) == group],
            1.05 ** (i - len(groups) / 2),
        )
        inside = sorted((c for c in own if c.critical_n), key=lambda c: c.parameters)
        x, known = [aside * c.parameters for c in inside], [c.critical_n for c in inside]
        label, mark = f"{group[0]}, {group[1]:,} pixels", "s" if group[0] == "bf_cnn" else "o"
        plots.error_bars(axes, x, known, colour, marker=mark, label=label)
        for cell in (c for c in own if c.beyond):
            x, arrow = aside * cell.parameters, "↓" if cell.beyond == "below" else "↑"
            axes.plot(x, cell.bound, marker="")
            look = {"color": colour, "fontsize": 12, "fontweight": "bold"}
            axes.text(x, cell.bound, arrow, ha="center", va="center", **look)
    axes.set(xscale="log", yscale="log", xlabel="parameters", ylabel="critical N (images)")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:,.0f}")
        axis.set_minor_locator(NullLocator())
    plots.legend(drawn, axes)
    return drawn
