"""What follows from the replicates: the result, the curves its figures draw, and its tables."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from twinscore.experiments.intervals import columns, texts
from twinscore.experiments.mixture import fits, sweep
from twinscore.experiments.mixture.replicates import Condition, Task, conditions
from twinscore.experiments.mixture.spec import Spec, forward, resolving_grid
from twinscore.experiments.mixture.sweep import Measured
from twinscore.experiments.mixture.twins import times as twin_times
from twinscore.experiments.study import Arrays, Summary, csv_text, stacked
from twinscore.results.base import Interval
from twinscore.results.mixture import DIAGONAL, Exponent, Learned, Result, Shifted, Stop, Twin
from twinscore.theory.bounds import score_matching_bound
from twinscore.theory.targets import Target, two_modes

HALF = 0.5  # share of a mode's mass below which the mode counts as lost
MOST_START = 0.5  # share of the least KL above which ``KL(p_T || pi)`` is reported
LEAST_REPLICATES = 2  # of every condition: intervals are over replicates


def summarise(spec: Spec, done: Sequence[tuple[Task, Arrays]]) -> Summary[Result] | None:
    """Fit everything; None while a condition has fewer than two replicates."""
    found: dict[Condition, list[Arrays]] = {condition: [] for condition in conditions(spec)}
    for task, arrays in done:
        found[task.condition].append(arrays)
    if any(len(each) < LEAST_REPLICATES for each in found.values()):
        return None
    measured = {condition: stacked(each) for condition, each in found.items()}
    stops, exponents, terms = [], [], []
    arrays: Arrays = {"times": spec.times, "twin_times": twin_times(spec)}
    for name in spec.targets:
        part = measured["sweep", (name,)]
        best, minima = fits.stops(spec, name, part)
        stops += best
        exponents += fits.exponents(spec, name, minima)
        terms += fits.terms(spec, name, part)
        arrays |= _sweep_arrays(name, part)
    shifted = []
    for mu, lighter in spec.shift.conditions:
        part = measured["shift", (mu, lighter)]
        shifted += _shifted(spec, mu, lighter, part)
        arrays |= _shift_arrays(spec, mu, lighter, part)
    terms += fits.distances(
        spec, {mu: measured["shift", (mu, HALF)] for mu in spec.shift.distances}
    )
    twins = measured["twins", ()]
    arrays |= _twin_arrays(twins)
    prior = {name: _prior(spec, sweep.target_of(spec, name), spec.rate) for name in spec.targets}
    cautions = _cautions(spec, prior, stops, shifted)
    converged = [part["converged"] for part in measured.values()]
    result = Result(
        verdict=_verdict(spec, stops, exponents, shifted, cautions),
        cautions=cautions,
        prior=prior,
        densities=sum(c.size for c in converged),
        failed=sum(int((~c).sum()) for c in converged),
        stops=stops,
        exponents=exponents,
        terms=terms,
        shifted=shifted,
        twins=_twins(spec, twins),
    )
    return Summary(result, arrays, {"levels.csv": _levels(result), "shift.csv": _shift(result)})


def _prior(spec: Spec, target: Target, rate: float) -> float:
    grid = resolving_grid(target, forward(rate), spec.start)
    exact = score_matching_bound(lambda t, x: target.at(grid.process, t).score(x).T, grid)
    return exact.start


def _cautions(
    spec: Spec, prior: dict[str, float], stops: list[Stop], shifted: list[Shifted]
) -> list[str]:
    """Where the reverse process starts too far from the noised target to measure training alone."""
    said = []
    for name, start in prior.items():
        least = min((s.kl.value for s in stops if s.target == name), default=spec.tolerance)
        if start > MOST_START * least:
            about = f"modes at -{spec.mu:g} and {spec.mu:g}" if name == "mixture" else "bounded"
            said.append(_far_start(about, start, "--rate", spec.rate))
    far = [
        s for s in shifted if s.prior > MOST_START * (s.kl.value if s.kl else spec.shift.tolerance)
    ]
    for mu in dict.fromkeys(s.mu for s in far):
        at = [s for s in far if s.mu == mu]
        weights = ", ".join(f"{w:g}" for w in dict.fromkeys(s.lighter for s in at))
        about = f"modes at -{mu:g} and {mu:g}, the latter of weight {weights}"
        start = max(s.prior for s in at)
        said.append(_far_start(about, start, "--shift.rate", spec.shift.rate))
    return said


def _far_start(about: str, start: float, flag: str, rate: float) -> str:
    return (
        f"{about}: the reverse process starts KL(p_T || pi) = {start:.2g} nats from the noised "
        f"target, not small against the least KL; raise {flag} above {rate:g}"
    )


def _banded(curve: fits.Means) -> NDArray[np.float64]:
    """Mean, low and high of positive values, (3, ...); NaN where a mean of theirs is not."""
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        factor = np.exp(fits.reach(np.log(curve.value), np.log(curve.without)))
        return np.stack([curve.value, curve.value / factor, curve.value * factor])


def _number(values: NDArray[np.float64]) -> Interval:
    """Mean of positive values (R,) of all replicates."""
    curve = fits.means_of_all(values)
    return fits.positive(float(curve.value), curve.without)


def _everywhere(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return _banded(fits.means_of_all(values))


def _sweep_arrays(name: str, part: Measured) -> Arrays:
    """KL of every width, and the terms of the bound."""
    widths = range(part["kl"].shape[2])
    curves = [_banded(fits.means(part["kl"][:, :, j], part["converged"][:, :, j])) for j in widths]
    return {
        f"{name}/kl": np.stack(curves, axis=2),
        f"{name}/sampling": _everywhere(part["sampling"][:, :, -1]),
        f"{name}/training": _everywhere(part["training"]),
        f"{name}/approximation": _everywhere(part["approximation"]),
        f"{name}/excess": _everywhere(part["excess"][:, :, -1]),
    }


def _shift_arrays(spec: Spec, mu: float, lighter: float, part: Measured) -> Arrays:
    name = f"shift/{mu:g}/{lighter:g}"
    kl = _banded(fits.means(part["kl"], part["converged"]))
    watched = ("points", "target", "shown", "shown_converged") if mu in spec.shift.watched else ()
    shown = {f"{name}/{key}": part[key][0] for key in watched}
    return {f"{name}/kl": kl, f"{name}/kept": _shares(part)} | shown


def _shifted(spec: Spec, mu: float, lighter: float, part: Measured) -> list[Shifted]:
    curves = fits.means(part["kl"], part["converged"])
    margin = spec.shift.tolerance
    two = (part["target_rise"] > margin).all()
    approximation, training = (_number(part[key][:, -1]) for key in ("approximation", "training"))
    prior = _prior(spec, two_modes(mu, (1 - lighter, lighter)), spec.shift.rate)
    out = []
    for i, n in enumerate((spec.shift.samples, None)):
        best = fits.shift_minimum(spec, part, i)
        there = (part["kept"][:, i] >= HALF) & (part["rise"][:, i] > margin)
        there &= part["converged"][:, i, :, None]
        learned = tuple(_learned_at(there[..., k], spec.times) for k in (0, 1))
        out.append(
            Shifted(
                mu=mu,
                lighter=lighter,
                n=n,
                tau=best and best.tau,
                kl=best and fits.positive(best.kl, best.kls),
                left_out=int(np.isnan(curves.value[i]).sum()),
                learned_at=learned if two else None,
                approximation=approximation,
                training=training,
                prior=prior,
            )
        )
    return out


def _shares(part: Measured) -> NDArray[np.float64]:
    """Mass near each mode of the densities that reached their tolerance, (3, 2, K, 2)."""
    curve = fits.means(
        part["kept"], np.broadcast_to(part["converged"][..., None], part["kept"].shape)
    )
    half = fits.reach(curve.value, curve.without)
    return np.stack([curve.value, curve.value - half, curve.value + half])


def _learned_at(there: NDArray[np.bool_], times: NDArray[np.float64]) -> Learned | None:
    """When a mode is there for good: the times after the last (R, K) at which it is not."""
    after = [np.flatnonzero(~row)[-1] + 1 if not row.all() else 0 for row in there]
    starts = np.append(times, np.inf)[after]
    if not np.isfinite(np.median(starts)):
        return None
    first, latest = float(starts.min()), float(starts.max())
    last = latest if np.isfinite(latest) else None
    return Learned(median=float(np.median(starts)), first=first, last=last)


def _twin_arrays(part: Measured) -> Arrays:
    scores = {key: _everywhere(part[key]) for key in ("variance", "variance_shared", "error")}
    laws = {
        key: _banded(fits.means(part[key], part["converged"]))
        for key in ("variation", "variation_shared", "off", "kl")
    }
    return {f"twins/{key}": values for key, values in (scores | laws).items()}


def _twins(spec: Spec, part: Measured) -> list[Twin]:
    kl, out = fits.means(part["kl"], part["converged"]).value, []
    curves = {key: fits.means(part[key], part["converged"]) for key in _TWIN_NUMBERS}
    for i, n in enumerate(spec.sizes):
        if np.isnan(kl[i]).all():
            continue
        k = int(np.nanargmin(kl[i]))
        found = {
            key: fits.positive(curve.value[i, k], curve.without[:, i, k])
            for key, curve in curves.items()
        }
        out.append(Twin(n=n, tau=float(twin_times(spec)[k]), **found))
    return out


_TWIN_NUMBERS = ("variance", "error", "variation", "variation_shared", "off")


def _verdict(
    spec: Spec,
    stops: list[Stop],
    exponents: list[Exponent],
    shifted: list[Shifted],
    cautions: list[str],
) -> str:
    name = spec.targets[0]
    said = [
        f"{e.quantity} moves as n^{e.measured.text()} (theory {e.predicted[0]:+.1f}: {e.answer})"
        for e in exponents
        if e.target == name and e.along == DIAGONAL and e.measured
    ]
    one = [s for s in stops if s.target == name and s.n == spec.sizes[0]][-1:]
    text = " and ".join(said) + " along m = n" if said else "too few minima for an exponent"
    if one and one[0].inside and one[0].last:
        text += (
            f"; with {one[0].n} samples stopping early takes KL from {one[0].last:.2g} "
            f"to {one[0].kl.value:.2g} nats"
        )
    far = [s for s in shifted if s.mu == spec.shift.distances[-1] and s.lighter == HALF and s.kl]
    if len(far) == 2:
        text += (
            f"; modes {2 * far[0].mu:g} apart are learned to {far[0].kl.value:.2g} nats, "
            f"with infinitely many samples to {far[1].kl.value:.2g}"
        )
    return "; ".join([text, *cautions]) + "."


def _levels(result: Result) -> str:
    """Best stopping for every target, n and m, as CSV; n is empty for infinitely many."""
    names = ("tau", "kl", "floor")
    header = ["target", "n", "m", *columns(names), "last", "inside", "left_out"]
    rows = [
        [s.target, s.n, s.m, *texts(s, names, ".6g"), _text(s.last), int(s.inside), s.left_out]
        for s in result.stops
    ]
    return csv_text(header, rows)


def _shift(result: Result) -> str:
    """What each mixture cost and when its modes are there, as CSV; n is empty for infinitely many.

    ``left_at`` and ``right_at`` are medians over replicates, empty for a mode that is lost.
    """
    names = ("kl", "approximation", "training")
    header = ["mu", "lighter", "n", "tau", *columns(names), "prior", "left_at", "right_at"]
    rows = []
    for s in result.shifted:
        times = [at and at.median for at in s.learned_at or (None, None)]
        tau, *last = map(_text, (s.tau, s.prior, *times))
        rows.append([s.mu, s.lighter, s.n, tau, *texts(s, names, ".6g"), *last])
    return csv_text(header, rows)


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"
