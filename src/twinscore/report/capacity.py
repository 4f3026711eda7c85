"""What the critical N depends on, on paper: how it grows with the network and the images."""

from matplotlib.figure import Figure

from twinscore.report import style
from twinscore.report.content import Cell, Content, Table, figure
from twinscore.report.reading import Run
from twinscore.report.style import Theme


def content(run: Run) -> Content:
    """What the page says about the run."""
    result = run.result
    columns = ("Network", "Parameters", "Pixels", "Critical N")
    rows = [(c.name, f"{c.parameters:,}", f"{c.pixels:,}", c.text()) for c in result.cells]
    return Content(
        title=f"twinscore: critical N of {len(result.cells)} networks on {result.data}",
        verdict=result.verdict,
        facts=(("Training images", ", ".join(f"{n:,}" for n in result.sizes)),),
        table=Table(
            "Critical N, in images, with its 95 % interval; < and >: beyond the sizes tried.",
            columns,
            tuple(tuple(map(Cell, row)) for row in rows),
        ),
        notes=(
            "Intervals of a critical N cover the draw of samples, and of replicates where there "
            "are several; those of an exponent the scatter of the networks about the line. A "
            "critical N beyond the sizes tried enters the exponent as a bound.",
        ),
        holding="This page shows no images.",
    )


@figure(
    "How the critical N grows",
    "Critical N against the number of parameters, a line for each kind of network and image size, "
    "with 95 % intervals. An arrow points to where the critical N lies beyond the sizes tried.",
    "Critical N against parameters on logarithmic axes, with intervals.",
)
def growth(run: Run, theme: Theme) -> Figure:
    """Critical N against the number of parameters."""
    drawn, cells = style.new_figure(3.2), run.result.cells
    axes, groups = drawn.subplots(), sorted({(c.kind, c.pixels) for c in cells})
    for group, colour in zip(groups, theme.ordered(len(groups)), strict=True):
        own = [c for c in cells if (c.kind, c.pixels) == group]
        inside = sorted((c for c in own if c.critical_n), key=lambda c: c.parameters)
        look = {"color": colour, "marker": "s" if group[0] == "bf_cnn" else "o"}
        label = f"{group[0]}, {group[1]:,} pixels"
        value, low, high = style.curve([c.critical_n for c in inside])
        x, reach = [c.parameters for c in inside], (value - low, high - value)
        axes.errorbar(x, value, reach, capsize=2, label=label, **look)
        for cell in (c for c in own if c.beyond):
            arrow = "$\\downarrow$" if cell.beyond == "below" else "$\\uparrow$"
            axes.plot(cell.parameters, cell.bound, marker=arrow, color=colour, markersize=9)
    axes.set(xscale="log", yscale="log", xlabel="parameters", ylabel="critical N (images)")
    drawn.legend(loc="outside right center")
    return drawn
