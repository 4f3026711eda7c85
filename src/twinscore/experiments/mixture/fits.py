"""From replicates to numbers with intervals: best stopping times, exponents, terms of the bound."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from twinscore import runs
from twinscore.analysis.statistics import interval
from twinscore.experiments.mixture.results import Exponent, Number, Stop
from twinscore.experiments.mixture.spec import Spec
from twinscore.experiments.mixture.sweep import Measured

RESAMPLES = 1000
ENOUGH = 0.8
"""Share of replicates that must have reached their tolerance for a training time to count."""
LEAST_SETTINGS = 3


@dataclass(frozen=True, eq=False)
class Means:
    """Means over replicates, and over bootstrap draws of them; NaN where too few have a result.

    Attributes
    ----------
    value : array
        (...).
    draws : array
        (B, ...).
    """

    value: NDArray[np.float64]
    draws: NDArray[np.float64]


def draws_of(replicates: int, seed: int) -> NDArray[np.float64]:
    """How often each replicate is in each bootstrap draw, (B, R)."""
    generator = np.random.default_rng(runs.derive_seed(seed, "bootstrap"))
    return generator.multinomial(replicates, np.full(replicates, 1 / replicates), RESAMPLES).astype(
        float
    )


def means(
    values: NDArray[np.float64], kept: NDArray[np.bool_], counts: NDArray[np.float64]
) -> Means:
    """Means of values (R, ...) that are kept, wherever at least 80 % are."""
    flat, mask = values.reshape(len(values), -1), kept.reshape(len(kept), -1).astype(float)
    flat = np.where(mask > 0, flat, 0.0)
    enough = mask.mean(0) >= ENOUGH
    total, number = counts @ flat, counts @ mask
    with np.errstate(invalid="ignore", divide="ignore"):
        value = np.where(enough, flat.sum(0) / mask.sum(0), np.nan)
        drawn = np.where(enough, total / number, np.nan)
    return Means(value.reshape(values.shape[1:]), drawn.reshape(-1, *values.shape[1:]))


def number(value: float, draws: NDArray[np.float64]) -> Number:
    """A value with the interval of its draws."""
    low, high = interval(draws[np.isfinite(draws)])
    return Number(value=float(value), low=low, high=high)


@dataclass(frozen=True, eq=False)
class Minima:
    """Least KL along training of one n and m, with draws (B,)."""

    tau: float
    taus: NDArray[np.float64]
    kl: float
    kls: NDArray[np.float64]
    inside: bool


def minimum(curve: Means, times: NDArray[np.float64]) -> Minima | None:
    """Least KL of a curve (K,); None if no time has a result."""
    known = np.flatnonzero(np.isfinite(curve.value))
    if not len(known):
        return None
    values = np.where(np.isfinite(curve.draws), curve.draws, np.inf)
    best, bests = np.nanargmin(curve.value), values.argmin(1)
    return Minima(
        tau=times[best],
        taus=times[bests],
        kl=curve.value[best],
        kls=values.min(1),
        inside=bool(known[0] < best < known[-1]),
    )


def stops(spec: Spec, name: str, measured: Measured) -> tuple[list[Stop], dict]:
    """Best stopping of every n and m of a target, and the minima behind them by (n, m)."""
    counts = draws_of(spec.replicates, spec.seed)
    found, out = {}, []
    for j, m in enumerate(spec.widths):
        curves = means(measured["kl"][:, :, j], measured["converged"][:, :, j], counts)
        for i, n in enumerate((*spec.sizes, None)):
            curve = Means(curves.value[i], curves.draws[:, i])
            best = minimum(curve, spec.times)
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
                    tau=number(best.tau, best.taus),
                    kl=number(best.kl, best.kls),
                    floor=number(floor.kl, floor.kls),
                    last=float(last) if np.isfinite(last) else None,
                    inside=best.inside,
                    left_out=int(np.isnan(curves.value[i]).sum()),
                )
            )
    return out, found


def exponents(spec: Spec, name: str, found: dict) -> list[Exponent]:
    """Power laws of the best stopping time and of the least KL above its floor.

    Along m = n; at each m along n; at each n along m.
    """
    paths = [("m = n", [(n, n) for n in spec.sizes], 0)]
    paths += [(f"n, at m = {m}", [(n, m) for n in spec.sizes], 0) for m in spec.widths]
    paths += [(f"m, at n = {n}", [(n, m) for m in spec.widths], 1) for n in spec.sizes]
    out = []
    for along, path, axis in paths:
        settings = [(n, m) for n, m in path if (n, m) in found and (None, m) in found]
        low, high = _predicted(along, path)
        out.append(_stopping(name, along, axis, settings, found, (low, high)))
        out.append(_least(name, along, axis, settings, found, (-low, -high)))
    return out


def _predicted(along: str, path: list[tuple[int, int]]) -> tuple[float, float]:
    """Exponent of tau_es, which is minus that of KL_min (STUDIES section 6).

    Along m = n, 2/5. Else tau = (m n)^(1/5) while n is below m^(3/2); beyond, tau = m^(1/2).
    """
    if along == "m = n":
        return 0.4, 0.4
    few = [n < m**1.5 for n, m in path]
    later = 0.0 if along.startswith("n") else 0.5
    return (0.2 if any(few) else later), (0.2 if all(few) else later)


def _stopping(
    name: str, along: str, axis: int, settings: list, found: dict, predicted: tuple[float, float]
) -> Exponent:
    used = [s for s in settings if found[s].inside]
    x = [s[axis] for s in used]
    measured = None
    if len(used) >= LEAST_SETTINGS:
        logs = np.log([found[s].tau * s[1] for s in used])
        draws = np.log(np.stack([found[s].taus * s[1] for s in used], axis=1))
        measured = slope(x, logs, draws)
    return Exponent(
        target=name,
        quantity="tau_es",
        along=along,
        measured=measured,
        predicted=predicted,
        kind="equal",
        settings=len(used),
    )


def _least(
    name: str, along: str, axis: int, settings: list, found: dict, predicted: tuple[float, float]
) -> Exponent:
    used, values, draws = [], [], []
    for n, m in settings:
        above = found[n, m].kls - found[None, m].kls
        if interval(above)[0] > 0:
            used.append((n, m)[axis])
            values.append(np.log(found[n, m].kl - found[None, m].kl))
            draws.append(np.log(np.maximum(above, above[above > 0].min())))
    enough = len(used) >= LEAST_SETTINGS
    return Exponent(
        target=name,
        quantity="KL_min",
        along=along,
        measured=slope(used, np.array(values), np.stack(draws, axis=1)) if enough else None,
        predicted=predicted,
        kind="at most",
        settings=len(used),
    )


def slope(x: list[int], logs: NDArray[np.float64], draws: NDArray[np.float64]) -> Number:
    """Least-squares exponent of values at x, given their logarithms (S,) and draws (B, S)."""
    away = np.log(np.asarray(x, dtype=float))
    away -= away.mean()
    share = away / (away @ away)
    return number(float(logs @ share), draws @ share)


def terms(spec: Spec, name: str, measured: Measured) -> list[Exponent]:
    """Power laws of each term of the bound: of sampling, of training and of approximation."""
    counts = draws_of(spec.replicates, spec.seed)
    weights = counts / spec.replicates

    def fitted(
        quantity: str, along: str, x: list, values: NDArray, theory: tuple[float, float]
    ) -> Exponent:
        fit = None
        if len(x) >= LEAST_SETTINGS and (values > 0).all():
            fit = slope(x, np.log(values.mean(0)), np.log(weights @ values))
        return Exponent(
            target=name,
            quantity=quantity,
            along=along,
            measured=fit,
            predicted=theory,
            kind="at most",
            settings=len(x),
        )

    m, n = spec.widths[-1], spec.sizes[-1]
    middle, times = spec.tau_count // 2, spec.times
    sampling, training = measured["sampling"], measured["training"][:, -1]
    at = f"m = {m}"
    return [
        fitted(
            "sampling",
            f"n, {at}, tau = {times[middle]:.2g} m",
            list(spec.sizes),
            sampling[:, :, -1, middle],
            (-1.0, 0.0),
        ),
        fitted("sampling", f"tau, {at}, n = {n}", list(times), sampling[:, -1, -1], (3.0, 4.0)),
        fitted("training", f"tau, {at}", list(times), training, (-1.0, -1.0)),
        fitted(
            "approximation",
            "m",
            list(spec.widths),
            measured["approximation"],
            (-1.0, -1.0),
        ),
    ]
