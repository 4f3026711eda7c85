"""The early-stopping study on paper: curves along training, rates, terms, modes and twins."""

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from twinscore.report import mixture_axes as draw
from twinscore.report import mixture_content, plots, style
from twinscore.report.content import figure
from twinscore.report.reading import Run
from twinscore.report.style import Theme
from twinscore.results.mixture import DIAGONAL

NAMES = {"mixture": "Two Gaussian modes", "bounded": "Raised cosine, compact support"}
TAU = "training time τ/m"
ASTERISK = (6, 2, 0)  # rays, asterisk, angle
KL = "KL divergence (nats)"
MARKS = ("o", "s", "^", "D", "v", "P")
APART = 1.07  # factor between series that would hide each other

content = mixture_content.content


@figure(
    "KL along training",
    "KL divergence of what the reverse SDE draws from its target, at the largest width. A disc "
    "marks the least value, where stopping is best; it is hollow at an end of the range. Bands "
    "are 95 % intervals over replicates (Student's t over the jackknife of the logarithm). "
    "Gaps: too few replicates reached the tolerance.",
    "KL divergence against training time for several numbers of training samples.",
)
def training(run: Run, theme: Theme) -> Figure:
    """KL along training for several n, at the largest width; the least value marked."""
    targets, sizes = run.spec["targets"], run.spec["sizes"]
    drawn, all_axes = plots.new_row(3.1, len(targets), sharey=True)
    times, rows = run.array("times"), draw.some(len(sizes))
    for axes, target in zip(all_axes, targets, strict=True):
        kl = run.array(f"{target}/kl")[:, :, -1]
        for row, colour in zip(rows, theme.ordered(len(rows)), strict=True):
            draw.banded(axes, times, kl[:, row], colour, label=draw.named(sizes[row]))
            draw.mark_least(axes, times, kl[0, row], colour)
        draw.banded(axes, times, kl[:, -1], theme.ink, label=draw.named(None), linestyle="--")
        axes.set(xlabel=TAU, title=NAMES[target])
        draw.logarithmic(axes)
    all_axes[0].set_ylabel(KL)
    marks = [draw.marked(theme.muted, "least value"), draw.at_an_end(theme)]
    draw.legend_below(drawn, all_axes[0], 5, marks)
    return drawn


@figure(
    "Best stopping and least KL against n",
    "Left, training time of least KL, where it lies inside the range; right, that least KL "
    "above the least one with infinitely many samples, which is mostly its value at the last "
    "training time. Hollow marks: minima at an end of the range, which enter no fit. Dotted, "
    "the slope of the theory along m = n. The theory bounds KL from above: falling faster does "
    "not contradict it. Series stand a little apart, so that all can be seen. Intervals that "
    "reach the floor end at a tenth of the value, those of times at the ends of the range.",
    "Best stopping time and least KL against the number of samples, with fitted exponents.",
)
def rates(run: Run, theme: Theme) -> Figure:
    """Best stopping time and least KL against n: along m = n, and at fixed m."""
    targets, sizes, widths = run.spec["targets"], run.spec["sizes"], run.spec["widths"]
    drawn = style.new_figure(0.4 + 2.6 * len(targets))
    grid = drawn.subplots(len(targets), 2, squeeze=False)
    series: list[int | None] = [*(widths[i] for i in draw.some(len(widths), 3)), None]
    colours = [*theme.ordered(len(series) - 1), theme.nearest]
    for row, target in zip(grid, targets, strict=True):
        for k, (m, colour) in enumerate(zip(series, colours, strict=True)):
            finite = (s for s in run.result.stops if s.target == target and s.n is not None)
            stops = [s for s in finite if s.m == (m or s.n)]
            label = "m = n" if m is None else f"m = {m}"
            aside = APART ** (k - (len(series) - 1) / 2)
            for axes, found in zip(
                row, (draw.stopping_times(stops), draw.above_floor(stops)), strict=True
            ):
                x, numbers = [aside * s.n for s, _ in found], [number for _, number in found]
                inside = [s.inside for s, _ in found]
                draw.error_bars(axes, x, numbers, colour, MARKS[k], label, inside)
            if m is None:
                exponents = run.result.exponents
                fits = (e for e in exponents if (e.target, e.along) == (target, DIAGONAL))
                for axes, fit in zip(row, fits, strict=True):
                    draw.guide(axes, stops, fit, theme)
        row[0].set_ylabel("best stopping time τₑₛ")
        row[0].set_title(NAMES[target], pad=16)
        row[1].set_ylabel("least KL above the\nfloor of n = ∞ (nats)")
        for axes in row:
            axes.set_xlabel("training samples n")
            draw.counted(axes, sizes)
            axes.set_xlim(sizes[0] / APART**4, sizes[-1] * APART**4)
    draw.legend_below(drawn, grid[0, 1], 5, [draw.at_an_end(theme)])
    return drawn


@figure(
    "Each term of the bound on its own",
    "Error of the score, weighted as in the bound, at the largest width. Sampling: distance of the "
    "score learned from n samples to the one learned in the same time from infinitely many. "
    "Training: what that one still lacks. Approximation: what no coefficients can give. Start: "
    "divergence of the noised target from the Gaussian the reverse process starts from. Bound "
    "(rings): the error of the score learned from the most samples, plus start; KL lies below.",
    "Sampling, training, approximation and start terms against training time, with KL.",
)
def terms(run: Run, theme: Theme) -> Figure:
    """Each term of the bound along training, at the largest width, beside the KL it bounds."""
    targets, sizes = run.spec["targets"], run.spec["sizes"]
    drawn, all_axes = plots.new_row(3.3, len(targets), sharey=True)
    times, rows = run.array("times"), draw.some(len(sizes), 3)
    for axes, target in zip(all_axes, targets, strict=True):
        sampling = run.array(f"{target}/sampling")
        for row, colour in zip(rows, theme.ordered(len(rows)), strict=True):
            label = f"sampling, {draw.named(sizes[row])}"
            draw.banded(axes, times, sampling[:, row], colour, label=label)
        least = run.array(f"{target}/approximation")[0, -1]
        look = {"label": "training", "linestyle": "--"}
        draw.banded(axes, times, run.array(f"{target}/training")[:, -1], theme.nearest, **look)
        axes.axhline(least, color=theme.closest_pairs, linestyle=":", label="approximation")
        prior = run.result.prior[target]
        axes.axhline(prior, color=theme.held_out, linestyle="-.", label="start: KL(p(T)‖π)")
        bound = run.array(f"{target}/excess")[0, rows[-1]] + prior
        label = f"bound, {draw.named(sizes[rows[-1]])}"
        every = max(1, len(times) // 12)
        rings = {"marker": "o", "markerfacecolor": "none", "markersize": 5, "linestyle": ""}
        axes.plot(times, bound, color=theme.ink, label=label, markevery=every, **rings)
        kl = run.array(f"{target}/kl")[:, rows[-1], -1]
        draw.banded(axes, times, kl, theme.ink, label=f"KL, {draw.named(sizes[rows[-1]])}")
        axes.set(xlabel=TAU, title=NAMES[target])
        draw.logarithmic(axes)
        axes.set_ylim(bottom=max(1e-6, 0.3 * min(least, prior)))
    all_axes[0].set_ylabel("nats")
    draw.legend_below(drawn, all_axes[0], 4)
    return drawn


@figure(
    "Least KL against the number of features",
    "Least KL along training for several n, and for infinitely many samples. Hollow marks are "
    "minima at an end of the range of training times.",
    "Least KL divergence against the number of features for several numbers of samples.",
)
def capacity(run: Run, theme: Theme) -> Figure:
    """Least KL along training against m, for several n."""
    targets, widths, sizes = run.spec["targets"], run.spec["widths"], run.spec["sizes"]
    drawn, all_axes = plots.new_row(2.9, len(targets), sharey=True)
    chosen = [sizes[i] for i in draw.some(len(sizes), 4)]
    series = [*zip(chosen, theme.ordered(len(chosen)), strict=True), (None, theme.ink)]
    for axes, target in zip(all_axes, targets, strict=True):
        for (n, colour), mark in zip(series, MARKS, strict=False):
            stops = [s for s in run.result.stops if (s.target, s.n) == (target, n)]
            x, kls, inside = [s.m for s in stops], [s.kl for s in stops], [s.inside for s in stops]
            draw.error_bars(axes, x, kls, colour, mark, draw.named(n), inside)
        axes.set(xlabel="features m", title=NAMES[target])
        draw.counted(axes, widths)
    all_axes[0].set_ylabel("least KL along training (nats)")
    draw.legend_below(drawn, all_axes[0], 6, [draw.at_an_end(theme)])
    return drawn


@figure(
    "Modes shift",
    "Left, KL along training for modes ever further apart: finite n (lines, with 95 % intervals), "
    "infinitely many samples (dashed). Gaps, after a stub at the first times too: too few "
    "replicates reached the tolerance, mostly since mass left the grid. Right, its least value. "
    "Where finite and infinite n are the same, the error is not of generalisation; how the error "
    "of the score with infinitely many samples splits into approximation and training left over "
    "(dotted, dash-dotted; nats of the bound) tells what else it is.",
    "KL divergence along training, and its least value against the distance of the modes.",
)
def shift(run: Run, theme: Theme) -> Figure:
    """KL along training for modes ever further apart, and its least value against mu."""
    spec, (drawn, (left, right)) = run.spec["shift"], plots.new_row(3.4, sharey=True)
    times, distances, n = run.array("times"), spec["distances"], spec["samples"]
    for mu, colour in zip(distances, theme.ordered(len(distances)), strict=True):
        kl = run.array(f"shift/{mu:g}/0.5/kl")
        draw.banded(left, times, kl[:, 0], colour, label=f"μ = {mu:g}")
        left.plot(times, kl[0, 1], "--", color=colour)
    left.set(xlabel=TAU, ylabel="nats", title="KL along training")
    draw.logarithmic(left)
    equal = [s for s in run.result.shifted if s.lighter == 0.5]
    for count, colour, mark in ((n, theme.nearest, "o"), (None, theme.ink, "s")):
        found = [s for s in equal if s.n == count and s.kl]
        kls, label = [s.kl for s in found], f"least KL, {draw.named(count)}"
        draw.error_bars(right, [s.mu for s in found], kls, colour, mark, label)
    endless = [s for s in equal if s.n is None]
    for key, label, dash in (
        ("approximation", "approximation", ":"),
        ("training", "training left at the end", "-."),
    ):
        values = [getattr(s, key).value for s in endless]
        right.plot([s.mu for s in endless], values, dash, color=theme.ink, label=label)
    right.set(xlabel="μ (modes at ±μ)", title="Least KL, and error of the score")
    draw.logarithmic(right, "y")
    right.legend(fontsize=7, loc="lower right")
    draw.legend_below(drawn, left, 7, draw.sampled(theme, n))
    return drawn


@figure(
    "What is learned when",
    "Density drawn at chosen training times against the target, of the first replicate. "
    "A star: one of the two missed its tolerance, mostly since mass left the grid.",
    "Learned densities and target at several training times for near and far modes.",
)
def dynamics(run: Run, theme: Theme) -> Figure:
    """Learned densities against the target at chosen training times."""
    spec = run.spec["shift"]
    drawn = style.new_figure(0.5 + 1.75 * len(spec["watched"]))
    grid = drawn.subplots(len(spec["watched"]), len(spec["shown"]), squeeze=False, sharey="row")
    for row, mu in zip(grid, spec["watched"], strict=True):
        name = f"shift/{mu:g}/0.5"
        points, target = run.array(f"{name}/points"), run.array(f"{name}/target")
        shown, known = run.array(f"{name}/shown"), run.array(f"{name}/shown_converged")
        for k, (axes, tau) in enumerate(zip(row, spec["shown"], strict=True)):
            axes.fill_between(points, target, color=theme.grid, label="target", linewidth=0)
            for i, (colour, dash) in enumerate(((theme.nearest, "-"), (theme.ink, "--"))):
                label = draw.named(None if i else spec["samples"])
                axes.plot(points, shown[i, k], dash, color=colour, linewidth=1.1, label=label)
            failed = "" if known[:, k].all() else " *"
            title = f"μ = {mu:g}, τ/m = {draw.power(tau)}{failed}"
            axes.set_title(title, fontsize=7.5, weight="normal")
            axes.set(xlim=(-mu - 5, mu + 5), xlabel="x")
        row[0].set(ylabel="density", ylim=(0, max(1.3 * target.max(), shown[known].max(initial=0))))
    star = draw.marked(theme.ink, "one of the two missed its tolerance", ASTERISK)
    draw.legend_below(drawn, grid[0, 0], 4, [star])
    return drawn


@figure(
    "Unequal weights: mass near the lighter mode",
    "Mass that the model draws within 3 deviations of the lighter mode (the right one), on its "
    "side of 0, in units of the target's mass there: 1 is right, 0 a lost mode. One broad hump has "
    "mass there too: when a mode stands out is in the notes. Dashed: infinitely many samples. "
    "Gaps: too few replicates reached the tolerance. Values above the panel are cut off.",
    "Relative mass of the lighter mode against training time for several weights.",
)
def modes(run: Run, theme: Theme) -> Figure:
    """Share of a mode's mass that the model draws, along training."""
    spec, times = run.spec["shift"], run.array("times")
    drawn, all_axes = plots.new_row(3.0, len(spec["watched"]), sharex=True, sharey=True)
    weights = [0.5, *spec["weights"]]
    for axes, mu in zip(all_axes, spec["watched"], strict=True):
        for weight, colour in zip(weights, theme.ordered(len(weights)), strict=True):
            kept = run.array(f"shift/{mu:g}/{weight:g}/kept")
            draw.banded(axes, times, kept[:, 0, :, 1], colour, label=f"weight {weight:g}")
            axes.plot(times, kept[0, 1, :, 1], "--", color=colour)
        axes.axhline(1, color=theme.muted, linewidth=0.7)
        axes.set(xlabel=TAU, title=f"μ = {mu:g}", ylim=(0, 3))
        draw.logarithmic(axes, "x")
    all_axes[0].set_ylabel("mass near the lighter mode,\nin units of the target's")
    draw.legend_below(drawn, all_axes[0], 6, draw.sampled(theme, spec["samples"]))
    return drawn


@figure(
    "Twins: do two training sets give the same score?",
    "Left, half the mean squared distance between the scores of twins trained on disjoint "
    "samples with their own features, beside their mean error. Where twins agree but "
    "are off, they share a bias. Right, total variation between their densities where KL is "
    "least, with their own features and had they the same, beside that from the target.",
    "Distance of twins' scores against training time, and of their densities against n.",
)
def twins(run: Run, theme: Theme) -> Figure:
    """Distance of twins' scores along training, and of their densities against n."""
    sizes, (drawn, (left, right)) = run.spec["sizes"], plots.new_row(3.2)
    times = run.array("twin_times")
    variance, error = run.array("twins/variance"), run.array("twins/error")
    rows = draw.some(len(sizes), 4)
    for row, colour in zip(rows, theme.ordered(len(rows)), strict=True):
        draw.banded(left, times, variance[:, row], colour, label=draw.named(sizes[row]))
        left.plot(times, error[0, row], ":", color=colour)
    left.set(xlabel=TAU, ylabel="nats of the bound", title="Scores")
    draw.logarithmic(left)
    off = plots.entry(theme.muted, "off the target's", linestyle=":")
    draw.legend_below(drawn, left, 6, [plots.entry(theme.muted, "apart"), off])
    found = run.result.twins
    series = {
        "twins": ([t.variation for t in found], theme.twins, "o"),
        "twins, shared features": ([t.variation_shared for t in found], theme.closest_pairs, "s"),
        "one of them from the target": ([t.off for t in found], theme.nearest, "^"),
    }
    for label, (numbers, colour, mark) in series.items():
        draw.error_bars(right, [t.n for t in found], numbers, colour, mark, label)
    right.set(xlabel="training samples n", ylabel="total variation")
    right.set_title("Densities, at the best stop")
    draw.counted(right, sizes)
    if right.get_yscale() == "log":
        right.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
        right.yaxis.set_major_formatter(draw.plain)
        right.yaxis.set_minor_formatter(draw.plain)
    right.legend(fontsize=7, loc="lower left")
    return drawn
