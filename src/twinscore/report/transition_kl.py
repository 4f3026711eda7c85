"""How far apart what the twins generate can be, on paper: KL bounds and variance."""

import math

from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from twinscore.report import plots
from twinscore.report import transition_axes as draw
from twinscore.report.content import figure
from twinscore.report.reading import Run
from twinscore.report.style import Theme
from twinscore.report.transition_content import size
from twinscore.results.transition import TwinsKL


def _ends(run: Run) -> TwinsKL:
    """Any of them: the noise levels are those of all."""
    return run.result.twins_kl[0]


@figure(
    "KL between the twins",
    lambda run: (
        "Left: upper bounds on the KL divergence of A's density from B's and of B's from A's, and "
        f"the integral of the twins' variance, from σ = {_ends(run).sigma_min:g} to "
        f"{_ends(run).sigma_max:g}. The bounds are for reverse SDEs that start alike at the upper "
        "level and end with the noise of the lower one; they assume that at every level between, a "
        "twin's SDE has the law of its samples with noise added, which a trained network meets "
        "only nearly. The variance, on test images, is what the KL bound of a twin against the "
        "best denoiser amounts to at least, on average. Right: where it comes from. Small values "
        "say that the twins agree, and nothing of bias: twins that miss the optimum in the same "
        "way agree. Intervals are of 95 %."
    ),
    lambda run: (
        "Bounds on the KL divergence between the twins and variance integral, in nats, against N; "
        "variance per dimension against the noise level, one curve for each N "
        f"({', '.join(size(found.n) for found in run.result.twins_kl)})."
    ),
)
def twins_kl(run: Run, theme: Theme) -> Figure | None:
    """Draw KL bounds and variance integral (nats) against N, and the variance by noise level."""
    if not (found := run.result.twins_kl):
        return None
    drawn, (left, right) = plots.new_row(3.3, width_ratios=(3, 2))
    bounds = ([x.a_from_b for x in found], [x.b_from_a for x in found])
    draw.intervals(left, found, bounds[0], theme.nearest, "^", "KL(A‖B), upper bound")
    draw.intervals(left, found, bounds[1], theme.nearest, "v", "KL(B‖A), upper bound")
    draw.intervals(left, found, [x.variance for x in found], theme.twins, "o", "variance integral")
    draw.finish((left,), run, theme)
    colours, dimension = draw.colours(run, theme), math.prod(run.result.data.shape)
    for x in found:
        of = x.by_level
        values = [[v / dimension for v in part] for part in (of.variance, of.low, of.high)]
        plots.band(right, of.sigma, values, colours[x.n], label=f"N = {size(x.n)}")
    for axes in (left, right):
        axes.set_yscale("log")
    right.set_xscale("log")
    left.set_ylabel("nats")
    right.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    right.xaxis.set_minor_formatter(NullFormatter())
    right.xaxis.set_major_formatter(FuncFormatter(lambda sigma, _: f"{sigma:g}"))
    right.set_xlabel("noise level σ (image units)")
    right.set_ylabel("variance per dimension\n(image units²)")
    right.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=2, columnspacing=1)
    return drawn
