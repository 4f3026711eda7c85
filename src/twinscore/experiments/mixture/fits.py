"""From replicates to numbers with intervals: best stopping times, exponents, terms of the bound."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from twinscore.analysis.statistics import LEVEL
from twinscore.experiments.mixture.spec import Spec
from twinscore.experiments.mixture.sweep import Measured
from twinscore.results.base import Interval
from twinscore.results.mixture import DIAGONAL, Along, Exponent, Stop, TargetName, Term, Varied

ENOUGH = 0.8
"""Share of replicates that must have reached their tolerance for a training time to count."""
LEAST_SETTINGS = 3
HOW = {"method": "jackknife", "covers": "replicates"}
LARGEST = 709.0  # logarithm of the largest end of an interval; what is larger is not a number


@dataclass(frozen=True, eq=False)
class Means:
    """Means over R replicates (...), and ``without`` each (R, ...); NaN where too few count."""

    value: NDArray[np.float64]
    without: NDArray[np.float64]


def means(values: NDArray[np.float64], kept: NDArray[np.bool_]) -> Means:
    """Means of values (R, ...) that are kept, wherever at least 80 % are."""
    flat = np.where(kept, values, 0.0)
    enough, number = kept.mean(0) >= ENOUGH, kept.sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        value = np.where(enough, flat.sum(0) / number, np.nan)
        others = np.tensordot(1 - np.eye(len(flat)), flat, 1)
        without = np.where(enough, others / (number - kept), np.nan)
    return Means(value, without)


def means_of_all(values: NDArray[np.float64]) -> Means:
    """Means of values (R, ...)."""
    return means(values, np.ones(values.shape, dtype=bool))


def reach(value: NDArray[np.float64], without: NDArray[np.float64]) -> NDArray[np.float64]:
    """Half the length of the 95 % interval of a statistic (...), by the jackknife.

    Student's t over the pseudo-values ``R value - (R - 1) without`` (Tukey 1958), where ``without``
    (R, ...) leaves out one replicate: for a mean they are the values of the replicates.
    """
    count = len(without)
    away = (count - 1) * (value - without)
    away = away - away.mean(0)
    error = np.sqrt((away**2).sum(0) / (count * (count - 1)))
    return float(stdtrit(count - 1, (1 + LEVEL) / 2)) * error


def number(value: float, without: NDArray[np.float64]) -> Interval:
    """A statistic with its interval, given its values without each replicate (R,)."""
    half = float(reach(np.asarray(value), without))
    return Interval(value=float(value), low=float(value) - half, high=float(value) + half, **HOW)


def positive(value: float, without: NDArray[np.float64]) -> Interval:
    """The same of a positive quantity, by its logarithm; in its own units where one is not."""
    if min(value, without.min()) <= 0:
        return number(value, without)
    found = number(np.log(value), np.log(without))
    low, high = found.low, min(found.high, LARGEST)
    return Interval(value=float(value), low=float(np.exp(low)), high=float(np.exp(high)), **HOW)


@dataclass(frozen=True, eq=False)
class Minimum:
    """Least KL along training of one n and m, and without each replicate (R,)."""

    tau: float
    taus: NDArray[np.float64]
    kl: float
    kls: NDArray[np.float64]
    inside: bool


def minimum(curve: Means, times: NDArray[np.float64]) -> Minimum | None:
    """Least KL of a curve (K,); None if no time has a result."""
    known = np.flatnonzero(np.isfinite(curve.value))
    if not len(known):
        return None
    values, rows = curve.without[:, known], curve.value[known]
    return Minimum(
        tau=_bottom(rows, times[known]),
        taus=np.array([_bottom(row, times[known]) for row in values]),
        kl=rows.min(),
        kls=values.min(1),
        inside=bool(0 < rows.argmin() < len(known) - 1),
    )


def _bottom(values: NDArray[np.float64], times: NDArray[np.float64]) -> float:
    """Time of the least value, by a parabola in the logarithm of time through its neighbours."""
    best = int(values.argmin())
    if not 0 < best < len(values) - 1:
        return float(times[best])
    (x0, x1, x2), (y0, y1, y2) = np.log(times[best - 1 : best + 2]), values[best - 1 : best + 2]
    left, right = (y1 - y0) / (x1 - x0), (y2 - y1) / (x2 - x1)
    if right == left:
        return float(times[best])
    return float(np.exp((x0 + x1) / 2 - left * (x2 - x0) / 2 / (right - left)))


def stops(spec: Spec, name: TargetName, measured: Measured) -> tuple[list[Stop], dict]:
    """Best stopping of every n and m of a target, and the minima behind them by (n, m)."""
    found, out = {}, []
    for j, m in enumerate(spec.widths):
        curves = means(measured["kl"][:, :, j], measured["converged"][:, :, j])
        for i, n in enumerate((*spec.sizes, None)):
            best = minimum(Means(curves.value[i], curves.without[:, i]), spec.times)
            if best is not None:
                found[n, m] = best
        for i, n in enumerate((*spec.sizes, None)):
            if (n, m) not in found or (None, m) not in found:
                continue
            best, floor = found[n, m], found[None, m]
            last, tau = curves.value[i, -1], positive(best.tau, best.taus)
            low, high = np.clip([tau.low, tau.high], spec.tau_first, spec.tau_last)
            out.append(
                Stop(
                    target=name,
                    n=n,
                    m=m,
                    tau=tau.model_copy(update={"low": float(low), "high": float(high)}),
                    kl=positive(best.kl, best.kls),
                    floor=positive(floor.kl, floor.kls),
                    last=float(last) if np.isfinite(last) else None,
                    inside=best.inside,
                    left_out=int(np.isnan(curves.value[i]).sum()),
                )
            )
    return out, found


Pairs = list[tuple[int, int]]  # settings (n, m)


def exponents(spec: Spec, name: TargetName, found: dict) -> list[Exponent]:
    """Power laws of the best stopping time and of the least KL above its floor.

    Along m = n; along n up to the largest m; at each m along n; at each n along m.
    """
    sizes, widths, most = spec.sizes, spec.widths, spec.widths[-1]
    paths: list[tuple[Along, Pairs]] = [
        (DIAGONAL, [(n, n) for n in sizes]),
        (Along(Varied.UP_TO_M, most), [(n, most) for n in sizes if n <= most]),
        *((Along(Varied.N, m), [(n, m) for n in sizes]) for m in widths),
        *((Along(Varied.M, n), [(n, m) for m in widths]) for n in sizes),
    ]
    fitted = []
    for along, pairs in paths:
        both = [pair for pair in pairs if pair in found and (None, pair[1]) in found]
        inside = [(n, m, found[n, m], found[None, m]) for n, m in both if found[n, m].inside]
        taus = {(n, m): (best.tau * m, best.taus * m) for n, m, best, _ in inside}
        above = {(n, m): (a.kl - b.kl, a.kls - b.kls) for n, m, a, b in inside}
        above = {p: of for p, of in above.items() if number(*of).low > 0 and of[1].min() > 0}
        fitted.append(_exponent(name, "tau_es", along, pairs, taus))
        fitted.append(_exponent(name, "KL_min", along, pairs, above))
    return fitted


def _exponent(
    name: TargetName,
    quantity: Literal["tau_es", "KL_min"],
    along: Along,
    pairs: Pairs,
    values: Mapping[tuple[int, int], tuple[float, NDArray[np.float64]]],
) -> Exponent:
    """Of the settings that can be used, given their values, of all and without each replicate.

    They are those whose minimum lies inside, where that of infinitely many samples is known too.
    """
    used = list(values)
    grown = [m if along.varied is Varied.M else n for n, m in used]
    measured = _power_law(grown, list(values.values()))
    low, high = _predicted(along, used if measured else pairs)
    above = quantity == "KL_min"
    return Exponent(
        target=name,
        quantity=quantity,
        along=along,
        measured=measured,
        predicted=(-low, -high) if above else (low, high),
        kind="at most" if above else "equal",
        settings=len(used),
    )


def _power_law(
    x: Sequence[float], found: Sequence[tuple[float, NDArray[np.float64]]]
) -> Interval | None:
    """Exponent of positive values at x, each with those without each replicate; None of too few."""
    if len(found) < LEAST_SETTINGS:
        return None
    values, without = zip(*found, strict=True)
    return slope(x, np.log(values), np.log(np.stack(without, axis=1)))


def _predicted(along: Along, used: Pairs) -> tuple[float, float]:
    """Exponent of tau_es, minus that of KL_min (docs/formulas.md#generalisation-bound).

    Along m = n, and along n while m is not smaller, 2/5: there ``n^(-2/5)`` outweighs ``m^(-4/5)``.
    The bound's own minimum at fixed m or n: ``tau = (m n)^(1/5)`` while n is below m^(3/2); beyond,
    ``tau = m^(1/2)``.
    """
    if along.varied in (Varied.BOTH, Varied.UP_TO_M):
        return 0.4, 0.4
    few = [n < m**1.5 for n, m in used]
    later = 0.5 if along.varied is Varied.M else 0.0
    return (0.2 if any(few) else later), (0.2 if all(few) else later)


def slope(x: Sequence[float], logs: NDArray[np.float64], without: NDArray[np.float64]) -> Interval:
    """Least-squares exponent of values at x, from their logarithms (S,); without each (R, S).

    The interval holds what differs between replicates, not how far the values are from a power law.
    """
    away = np.log(np.asarray(x, dtype=float))
    away -= away.mean()
    share = away / (away @ away)
    return number(float(logs @ share), without @ share)


def terms(spec: Spec, name: TargetName, measured: Measured) -> list[Term]:
    """Power laws of each term of the bound: of sampling, of training and of approximation.

    ``tau^4/(m n) + tau^3/m^2`` bounds sampling. Along m it is taken in two ways: at the same
    tau / m, at which functions have moved alike (of ``m^3`` to ``m`` then), and at the same tau.
    """
    m, n = spec.widths[-1], spec.sizes[-1]
    middle, times = spec.tau_count // 2, spec.times
    sampling, training = measured["sampling"], measured["training"][:, -1]
    tau = times[middle] * np.sqrt(spec.widths[0] * m)
    within = [j for j, w in enumerate(spec.widths) if times[0] <= tau / w <= times[-1]]
    at_m, at_n = f"m = {m}", f"n = {n}"
    at = f"tau = {times[middle]:.2g} m"
    widths = list(spec.widths)
    chosen = [
        ("sampling", f"n, {at_m}, {at}", spec.sizes, sampling[:, :, -1, middle], (-1.0, 0.0)),
        ("sampling", f"m, {at_n}, {at}", widths, sampling[:, -1, :, middle], (1.0, 3.0)),
        (
            "sampling",
            f"m, {at_n}, tau = {tau:.2g}",
            [widths[j] for j in within],
            _at_time(sampling[:, -1, within], [tau / widths[j] for j in within], times),
            (-2.0, -1.0),
        ),
        ("sampling", f"tau, {at_m}, {at_n}", times, sampling[:, -1, -1], (3.0, 4.0)),
        ("training", f"tau, {at_m}", times, training, (-1.0, -1.0)),
        ("approximation", "m", widths, measured["approximation"], (-1.0, -1.0)),
    ]
    return [_term(name, *term) for term in chosen]


def _at_time(
    values: NDArray[np.float64], taus: Sequence[float], times: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Positive values (R, M, K) at one of the times for each of M, by logarithms; (R, M)."""
    logs = np.log(values)
    return np.exp(
        [
            [np.interp(np.log(t), np.log(times), row) for t, row in zip(taus, rows, strict=True)]
            for rows in logs
        ]
    )


def distances(spec: Spec, measured: Mapping[float, Measured]) -> list[Term]:
    """Power laws in mu of two modes of equal weights, given the arrays of each mu.

    The theory bounds KL by a polynomial in mu, and what no training removes by ``mu^2/m``.
    """
    shift, middle, times = spec.shift, spec.tau_count // 2, spec.times
    mus, parts = list(measured), list(measured.values())
    n, m = f"n = {shift.samples}", f"m = {shift.width}"

    def at(key: str, k: int) -> NDArray[np.float64]:
        return np.stack([part[key][:, k] for part in parts], axis=1)

    sampling = f"mu, {n}, {m}, tau = {times[middle]:.2g} m"
    training = f"mu, {m}, tau = {times[-1]:.2g} m"
    return [
        *(
            _least_along_mu(f"mu, {said}, {m}", mus, [shift_minimum(spec, p, i) for p in parts])
            for i, said in enumerate((n, "n infinite"))
        ),
        _term("shift", "sampling", sampling, mus, at("sampling", middle), None),
        _term("shift", "training", training, mus, at("training", -1), None),
        _term("shift", "approximation", f"mu, {m}", mus, at("approximation", 0), (2.0, 2.0)),
    ]


def shift_minimum(spec: Spec, part: Measured, row: int) -> Minimum | None:
    """Least KL along training of a mixture: of n samples (row 0), of infinitely many (row 1)."""
    curves = means(part["kl"][:, row], part["converged"][:, row])
    return minimum(curves, spec.times)


def _least_along_mu(along: str, mus: list[float], minima: list[Minimum | None]) -> Term:
    used = [(mu, best) for mu, best in zip(mus, minima, strict=True) if best and best.kls.min() > 0]
    fit = _power_law([mu for mu, _ in used], [(best.kl, best.kls) for _, best in used])
    said = {"target": "shift", "quantity": "least KL", "along": along, "predicted": None}
    return Term(**said, measured=fit, kind="at most", settings=len(used))


def _term(
    target: TargetName | Literal["shift"],
    quantity: Literal["sampling", "training", "approximation"],
    along: str,
    x: Sequence[float],
    values: NDArray[np.float64],
    bound: tuple[float, float] | None,
) -> Term:
    """Power law of values (R, S) at S settings x, which the theory bounds from above."""
    fit = None
    if len(x) >= LEAST_SETTINGS and (values > 0).all():
        curve = means_of_all(values)
        fit = slope(x, np.log(curve.value), np.log(curve.without))
    said = {"target": target, "quantity": quantity, "along": along, "predicted": bound}
    return Term(**said, measured=fit, kind="at most", settings=len(x))
