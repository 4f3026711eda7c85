"""What the page of an early-stopping run says: facts, the table of exponents, and notes."""

import numpy as np

from twinscore.report.content import HOLDS_NOT, Cell, Content, Table, interval_cell, table
from twinscore.report.reading import Run
from twinscore.results.mixture import DIAGONAL, Along, Learned, Shifted, Varied

QUANTITIES = {
    "tau_es": "best stopping time",
    "KL_min": "least KL above the floor",
    "least KL": "least KL",
}
TARGETS = {"shift": "two modes, at -mu and mu"}


def content(run: Run) -> Content:
    """What the page says about the run."""
    return Content(
        title="twinscore: early stopping, capacity and modes shift",
        verdict=run.result.verdict,
        facts=_facts(run),
        table=_table(run),
        notes=_notes(run),
        holding=HOLDS_NOT,
    )


def _facts(run: Run) -> tuple[tuple[str, str], ...]:
    """Size of the run, and what was left out."""
    spec, result = run.spec, run.result
    times = f"{spec['tau_count']} training times, tau / m = {spec['tau_first']:g}"
    return (
        ("Sweep", f"n = {_span(spec['sizes'])}, n infinite; m = {_span(spec['widths'])}"),
        ("Training", f"{times} to {spec['tau_last']:g}; {spec['replicates']} replicates"),
        ("Densities", f"{result.densities:,} by the reverse SDE's Fokker-Planck equation"),
        (
            "Left out",
            f"{result.failed:,} that missed the tolerance of {spec['tolerance']:g} nats "
            f"({spec['shift']['tolerance']:g} for the modes shift)",
        ),
    )


def _table(run: Run) -> Table:
    """Exponents along m = n, at the largest m and at the extreme n, then the bound's terms."""
    sizes, widest = run.spec["sizes"], run.spec["widths"][-1]
    shown = {DIAGONAL, Along(Varied.UP_TO_M, widest), Along(Varied.N, widest)}
    shown |= {Along(Varied.M, n) for n in (sizes[0], sizes[-1])}
    chosen = [e for e in run.result.exponents if e.along in shown] + run.result.terms
    rows = (
        (
            Cell(QUANTITIES.get(e.quantity, f"{e.quantity} term"), TARGETS.get(e.target, e.target)),
            str(e.along),
            interval_cell(e.measured, "{:+.2f}".format, absent="-"),
            e.theory,
            Cell(e.answer, f"{e.settings} settings"),
        )
        for e in chosen
    )
    return table(
        "Fitted exponents with 95 % intervals over replicates (Student's t over the jackknife), "
        "beside what the theory gives. Intervals hold what differs between replicates, not how far "
        "the values are from a power law. Of KL and of the terms the theory gives upper bounds; "
        "best stopping times are tau, not tau / m. The degree of a polynomial is left open. "
        "Of tau_es and KL_min only minima inside the range of training times count.",
        ("Exponent of", "along", "measured", "theory", "answer"),
        rows,
    )


def _notes(run: Run) -> tuple[str, ...]:
    """Cautions, the bound beside the least KL of each target, and what became of each mode."""
    cautions = [f"Caution: {text}." for text in run.result.cautions]
    bounds = [text for target in run.spec["targets"] for text in _bound(run, target)]
    return (*cautions, *bounds, *(_mode(run, s) for s in run.result.shifted))


def _bound(run: Run, target: str) -> list[str]:
    """KL and its bound where KL is least, at the most samples and features."""
    kl = run.array(f"{target}/kl")[0, len(run.spec["sizes"]) - 1, -1]
    if np.isnan(kl).all():
        return []
    best = int(np.nanargmin(kl))
    total = run.array(f"{target}/excess")[0, -2, best] + run.result.prior[target]
    setting = f"n = {run.spec['sizes'][-1]:,}, m = {run.spec['widths'][-1]:,}"
    tau = run.array("times")[best]
    return [
        f"{target}, {setting}, tau / m = {tau:.3g}: least KL {kl[best]:.2g} nats; the "
        f"score-matching bound gives at most {total:.2g}."
    ]


def _mode(run: Run, shifted: Shifted) -> str:
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
            f"at tau / m = {run.spec['tau_last']:g} {shifted.training.value:.2g}, start "
            f"{shifted.prior:.2g}"
        )
    return f"{text}."


def _when(at: Learned | None) -> str:
    if at is None:
        return "lost"
    last = "never" if at.last is None else f"{at.last:.3g}"
    return f"there from tau / m = {at.median:.3g} on ({at.first:.3g} to {last})"


def _span(values: list[int]) -> str:
    return f"{values[0]:,} ... {values[-1]:,} ({len(values)})"
