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
LARGEST = 709.0
"""Logarithm of the largest end of an interval; what is larger is not a number."""


@dataclass(frozen=True, eq=False)
class Means:
    """Means over replicates, and without each of them; NaN where too few have a result.

    Attributes
    ----------
    value : array
        (...).
    without : array
        (R, ...): of all replicates but one.
    """

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


def reach(value: NDArray[np.float64], without: NDArray[np.float64]) -> NDArray[np.float64]:
    """Half the length of the 95 % interval of a statistic (...), by the jackknife.

    Student's t over the pseudo-values ``R value - (R - 1) without`` (Tukey 1958): for a mean they
    are the values of the replicates.

    Parameters
    ----------
    value : array
        (...): of all R replicates.
    without : array
        (R, ...): of all but one.
    """
    count = len(without)
    away = (count - 1) * (value - without)
    away = away - away.mean(0)
    error = np.sqrt((away**2).sum(0) / (count * (count - 1)))
    return float(stdtrit(count - 1, (1 + LEVEL) / 2)) * error


def number(value: float, without: NDArray[np.float64]) -> Interval:
    """A statistic with its interval, given its values without each replicate (R,)."""
    half = float(reach(np.asarray(value), without))
    return Interval(value=float(value), low=float(value) - half, high=float(value) + half)


def positive(value: float, without: NDArray[np.float64]) -> Interval:
    """The same of a positive quantity, by its logarithm; in its own units where one is not."""
    if min(value, without.min()) <= 0:
        return number(value, without)
    found = number(np.log(value), np.log(without))
    low, high = found.low, min(found.high, LARGEST)
    return Interval(value=float(value), low=float(np.exp(low)), high=float(np.exp(high)))


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


def _within(spec: Spec, tau: Interval) -> Interval:
    """An interval of training times, cut at the ends of the range."""
    low, high = np.clip([tau.low, tau.high], spec.tau_first, spec.tau_last)
    return Interval(value=tau.value, low=float(low), high=float(high))


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
            last = curves.value[i, -1]
            out.append(
                Stop(
                    target=name,
                    n=n,
                    m=m,
                    tau=_within(spec, positive(best.tau, best.taus)),
                    kl=positive(best.kl, best.kls),
                    floor=positive(floor.kl, floor.kls),
                    last=float(last) if np.isfinite(last) else None,
                    inside=best.inside,
                    left_out=int(np.isnan(curves.value[i]).sum()),
                )
            )
    return out, found


Pairs = list[tuple[int, int]]
"""Settings (n, m)."""


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
        fitted += [_stopping(name, along, pairs, found), _least(name, along, pairs, found)]
    return fitted


def _predicted(along: Along, used: Pairs) -> tuple[float, float]:
    """Exponent of tau_es in the settings used, which is minus that of KL_min (STUDIES section 6).

    Along m = n, and along n while m is no smaller, 2/5: there ``n^(-2/5)`` outweighs ``m^(-4/5)``.
    The bound's own minimum at fixed m or n: ``tau = (m n)^(1/5)`` while n is below m^(3/2); beyond,
    ``tau = m^(1/2)``.
    """
    if along.varied in (Varied.BOTH, Varied.UP_TO_M):
        return 0.4, 0.4
    few = [n < m**1.5 for n, m in used]
    later = 0.5 if along.varied is Varied.M else 0.0
    return (0.2 if any(few) else later), (0.2 if all(few) else later)


def _grown(along: Along, used: Pairs) -> list[int]:
    """What the fit is against: m along m, else n."""
    return [m if along.varied is Varied.M else n for n, m in used]


def _inside(pairs: Pairs, found: dict) -> Pairs:
    """Settings whose minimum lies inside, where that of infinitely many samples is known too."""
    known = [(n, m) for n, m in pairs if (n, m) in found and (None, m) in found]
    return [pair for pair in known if found[pair].inside]


def _stopping(name: TargetName, along: Along, pairs: Pairs, found: dict) -> Exponent:
    used = _inside(pairs, found)
    enough = len(used) >= LEAST_SETTINGS
    measured = None
    if enough:
        logs = np.log([found[n, m].tau * m for n, m in used])
        without = np.log(np.stack([found[n, m].taus * m for n, m in used], axis=1))
        measured = slope(_grown(along, used), logs, without)
    return Exponent(
        target=name,
        quantity="tau_es",
        along=along,
        measured=measured,
        predicted=_predicted(along, used if enough else pairs),
        kind="equal",
        settings=len(used),
    )


def _least(name: TargetName, along: Along, pairs: Pairs, found: dict) -> Exponent:
    used, values, without = [], [], []
    for n, m in _inside(pairs, found):
        above, others = (found[n, m].kl - found[None, m].kl), found[n, m].kls - found[None, m].kls
        if number(above, others).low > 0 and others.min() > 0:
            used.append((n, m))
            values.append(np.log(above))
            without.append(np.log(others))
    enough, measured = len(used) >= LEAST_SETTINGS, None
    if enough:
        measured = slope(_grown(along, used), np.array(values), np.stack(without, axis=1))
    low, high = _predicted(along, used if enough else pairs)
    return Exponent(
        target=name,
        quantity="KL_min",
        along=along,
        measured=measured,
        predicted=(-low, -high),
        kind="at most",
        settings=len(used),
    )


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
    measured = None
    if len(used) >= LEAST_SETTINGS:
        logs = np.log([best.kl for _, best in used])
        without = np.log(np.stack([best.kls for _, best in used], axis=1))
        measured = slope([mu for mu, _ in used], logs, without)
    return Term(
        target="shift",
        quantity="least KL",
        along=along,
        measured=measured,
        predicted=None,
        kind="at most",
        settings=len(used),
    )


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
        curve = means(values, np.ones(values.shape, dtype=bool))
        fit = slope(x, np.log(curve.value), np.log(curve.without))
    return Term(
        target=target,
        quantity=quantity,
        along=along,
        measured=fit,
        predicted=bound,
        kind="at most",
        settings=len(x),
    )
