"""Words of the early-stopping study's page: facts, the table of exponents, notes and captions."""

from collections.abc import Mapping

import numpy as np

from twinscore.report.content import Caption, Cell, Table
from twinscore.report.mixture_data import Data, Learned, Number, Shifted

QUANTITIES = {
    "tau_es": "best stopping time",
    "KL_min": "least KL above the floor",
    "least KL": "least KL",
}
TARGETS = {"shift": "two modes, at -mu and mu"}

CAPTIONS: Mapping[str, Caption] = {
    "training": Caption(
        "KL along training",
        "KL divergence of what the reverse SDE draws from its target, at the largest width. A disc "
        "marks the least value, where stopping is best; it is hollow at an end of the range. Bands "
        "are 95 % intervals over replicates (Student's t over the jackknife of the logarithm). "
        "Gaps: too few replicates reached the tolerance.",
        "KL divergence against training time for several numbers of training samples.",
    ),
    "rates": Caption(
        "Best stopping and least KL against n",
        "Left, training time of least KL, where it lies inside the range; right, that least KL "
        "above the least one with infinitely many samples, which is mostly its value at the last "
        "training time. Hollow marks: minima at an end of the range, which enter no fit. Dotted, "
        "the slope of the theory along m = n. The theory bounds KL from above: falling faster does "
        "not contradict it. Series stand a little apart, so that all can be seen. Intervals that "
        "reach the floor end at a tenth of the value, those of times at the ends of the range.",
        "Best stopping time and least KL against the number of samples, with fitted exponents.",
    ),
    "terms": Caption(
        "Each term of the bound on its own",
        "Error of the score, weighted as in the bound, at the largest width. Sampling: distance of "
        "the score learned from n samples to the one learned in the same time from infinitely "
        "many. Training: what that one still lacks. Approximation: what no coefficients can give. "
        "Start: divergence of the noised target from the Gaussian the reverse process starts from. "
        "Bound (rings): the error of the score learned from the most samples, plus start; KL lies "
        "below.",
        "Sampling, training, approximation and start terms against training time, with KL.",
    ),
    "capacity": Caption(
        "Least KL against the number of features",
        "Least KL along training for several n, and for infinitely many samples. Hollow marks are "
        "minima at an end of the range of training times.",
        "Least KL divergence against the number of features for several numbers of samples.",
    ),
    "shift": Caption(
        "Modes shift",
        "Left, KL along training for modes ever further apart: finite n (lines, with 95 % "
        "intervals), infinitely many samples (dashed). Gaps, after a stub at the first times too: "
        "too few replicates reached the tolerance, mostly since mass left the grid. Right, "
        "its least value. Where finite and infinite n are the same, the error is not of "
        "generalisation; how the error of the score with infinitely many samples splits into "
        "approximation and training left over (dotted, dash-dotted; nats of the bound) tells what "
        "else it is.",
        "KL divergence along training, and its least value against the distance of the modes.",
    ),
    "dynamics": Caption(
        "What is learned when",
        "Density drawn at chosen training times against the target, of the first replicate. "
        "A star: one of the two missed its tolerance, mostly since mass left the grid.",
        "Learned densities and target at several training times for near and far modes.",
    ),
    "modes": Caption(
        "Unequal weights: mass near the lighter mode",
        "Mass that the model draws within 3 deviations of the lighter mode (the right one), on its "
        "side of 0, in units of the target's mass there: 1 is right, 0 a lost mode. One broad hump "
        "has mass there too: when a mode stands out is in the notes. Dashed: infinitely many "
        "samples. Gaps: too few replicates reached the tolerance. Values above the panel are cut "
        "off.",
        "Relative mass of the lighter mode against training time for several weights.",
    ),
    "twins": Caption(
        "Twins: do two training sets give the same score?",
        "Left, half the mean squared distance between the scores of twins trained on disjoint "
        "samples with their own features, beside their mean error. Where twins agree but "
        "are off, they share a bias. Right, total variation between their densities where KL is "
        "least, with their own features and had they the same, beside that from the target.",
        "Distance of twins' scores against training time, and of their densities against n.",
    ),
}


def facts(data: Data) -> tuple[tuple[str, str], ...]:
    """Size of the run, and what was left out."""
    spec, result = data.run.spec, data.result
    times = f"{spec['tau_count']} training times, tau / m = {spec['tau_first']:g}"
    return (
        ("Sweep", f"n = {_span(data.sizes)}, n infinite; m = {_span(data.widths)}"),
        ("Training", f"{times} to {spec['tau_last']:g}; {spec['replicates']} replicates"),
        ("Densities", f"{result.densities:,} by the reverse SDE's Fokker-Planck equation"),
        (
            "Left out",
            f"{result.failed:,} that missed the tolerance of {spec['tolerance']:g} nats "
            f"({spec['shift']['tolerance']:g} for the modes shift)",
        ),
    )


def table(data: Data) -> Table:
    """Exponents along m = n, at the largest m and at the extreme n, then the bound's terms."""
    widest, least, most = data.widths[-1], data.sizes[0], data.sizes[-1]
    shown = {"m = n", f"n <= m, at m = {widest}", f"n, at m = {widest}"}
    shown |= {f"m, at n = {n}" for n in (least, most)}
    chosen = [e for e in data.result.exponents if e.along in shown] + data.result.terms
    rows = tuple(
        (
            Cell(QUANTITIES.get(e.quantity, f"{e.quantity} term"), TARGETS.get(e.target, e.target)),
            Cell(e.along),
            Cell(f"{e.measured.value:+.2f}", _interval(e.measured)) if e.measured else Cell("-"),
            Cell(e.theory),
            Cell(e.answer, f"{e.settings} settings"),
        )
        for e in chosen
    )
    return Table(
        "Fitted exponents with 95 % intervals over replicates (Student's t over the jackknife), "
        "beside what the theory gives. Intervals hold what differs between replicates, not how far "
        "the values are from a power law. Of KL and of the terms the theory gives upper bounds; "
        "best stopping times are tau, not tau / m. The degree of a polynomial is left open. "
        "Of tau_es and KL_min only minima inside the range of training times count.",
        ("Exponent of", "along", "measured", "theory", "answer"),
        rows,
    )


def notes(data: Data) -> tuple[str, ...]:
    """Cautions, the bound beside the least KL of each target, and what became of each mode."""
    cautions = [f"Caution: {text}." for text in data.result.cautions]
    bounds = [text for target in data.targets for text in _bound(data, target)]
    return (*cautions, *bounds, *(_mode(data, s) for s in data.result.shifted))


def _bound(data: Data, target: str) -> list[str]:
    """KL and its bound where KL is least, at the most samples and features."""
    kl = data.array(f"{target}/kl")[0, len(data.sizes) - 1, -1]
    if np.isnan(kl).all():
        return []
    best = int(np.nanargmin(kl))
    total = data.array(f"{target}/excess")[0, -2, best] + data.result.prior[target]
    setting = f"n = {data.sizes[-1]:,}, m = {data.widths[-1]:,}"
    tau = data.array("times")[best]
    return [
        f"{target}, {setting}, tau / m = {tau:.3g}: least KL {kl[best]:.2g} nats; the "
        f"score-matching bound gives at most {total:.2g}."
    ]


def _mode(data: Data, shifted: Shifted) -> str:
    n = "infinitely many samples" if shifted.n is None else f"{shifted.n:,} samples"
    kl = f"least KL {shifted.kl.value:.2g} nats" if shifted.kl else "no KL reached its tolerance"
    text = f"mu = {shifted.mu:g}, right mode's weight {shifted.lighter:g}, {n}: {kl}; "
    if shifted.learned_at is None:
        text += "the target has one peak"
    else:
        text += "; ".join(
            f"{side} mode {_when(at)}"
            for side, at in zip(("left", "right"), shifted.learned_at, strict=True)
        )
    if shifted.n is None:
        text += (
            f"; nats of the bound: approximation {shifted.approximation.value:.2g}, training left "
            f"at tau / m = {data.run.spec['tau_last']:g} {shifted.training.value:.2g}, start "
            f"{shifted.prior:.2g}"
        )
    return f"{text}."


def _when(at: Learned | None) -> str:
    if at is None:
        return "lost"
    last = "never" if at.last is None else f"{at.last:.3g}"
    return f"there from tau / m = {at.median:.3g} on ({at.first:.3g} to {last})"


def _interval(number: Number) -> str:
    return f"{number.low:+.2f} to {number.high:+.2f}"


def _span(values: list[int]) -> str:
    return f"{values[0]:,} ... {values[-1]:,} ({len(values)})"
