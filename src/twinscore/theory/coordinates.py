"""Coordinates in which all reverse processes look the same, and grids that resolve a target.

With ``h(t) = (deviation/scale)^2`` the process ``x / scale`` only gains variance, h; with C^2
the target's second moment, ``z = x / (scale c)``, ``c^2 = C^2 + h``, has variance 1 at all times
(docs/formulas.md#processes).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import CubicSpline

from twinscore.theory.processes import Process
from twinscore.theory.quadrature import grid
from twinscore.theory.targets import Target

REACH = 8.0
"""Standard deviations of x_t that a grid covers on either side."""

_LEVELS = 9
_FINE = 4001
_FLOOR = 0.15
_TAIL = 0.25
_BISECTIONS = 60


@dataclass(frozen=True, eq=False)
class Grid:
    """Points z in standard coordinates, smoothly spaced, dense where a target has mass.

    ``z = Z(xi)`` for xi evenly spaced on [0, 1]; the trapezoid rule in xi converges faster than any
    power for smooth densities that vanish at both ends.

    Attributes
    ----------
    target : Target
        In one dimension.
    process : Process
        The forward process.
    start : float
        Smallest time, at which densities are wanted.
    width : float
        Smallest length over which densities are expected to rise or fall.
    moment : float
        C^2, second moment of the target.
    mapped : CubicSpline
        ``xi(z)`` on [-reach, reach].
    """

    target: Target
    process: Process
    start: float
    width: float
    moment: float
    mapped: CubicSpline

    def nodes(self, intervals: int) -> NDArray[np.float64]:
        """Z at ``intervals + 1`` evenly spaced xi; every second one is that of half as many."""
        z = self.mapped.x
        xi = np.linspace(0.0, 1.0, intervals + 1)
        out = np.interp(xi, self.mapped(z), z)
        for _ in range(6):
            out = np.clip(out - (self.mapped(out) - xi) / self.mapped(out, 1), z[0], z[-1])
        return out

    def weights(self, nodes: NDArray[np.float64]) -> NDArray[np.float64]:
        """Trapezoid weights of all the nodes of a grid, in z."""
        weights = 1 / (self.mapped(nodes, 1) * (len(nodes) - 1))
        weights[[0, -1]] /= 2
        return weights

    def unit(self, t: ArrayLike) -> NDArray[np.float64]:
        """``scale c``: the standard deviation of x_t about 0, the factor from z to x."""
        scale, deviation = self.process.scale(t), self.process.deviation(t)
        return np.sqrt(scale**2 * self.moment + deviation**2)

    def pace(self, t: NDArray[np.float64]) -> NDArray[np.float64]:
        """Derivative of the clock in the share of :func:`reverse_times` done, at falling t."""
        width = self.width**2
        h = gained(self.process, t)
        return (width + h) / (self.moment + h) * np.log((width + h[0]) / (width + h[-1]))

    def times(self, steps: int) -> NDArray[np.float64]:
        """:func:`reverse_times` of the grid's width."""
        return reverse_times(self.process, self.start, steps, self.width)

    def clock(self, t: ArrayLike) -> NDArray[np.float64]:
        """``log(C^2 + h)``, the time in which the reverse process is ``dz = .. + dw``."""
        return np.log(self.moment + gained(self.process, t))


def standard_grid(
    target: Target,
    process: Process,
    start: float,
    *,
    reach: float = REACH,
    width: float | None = None,
) -> Grid:
    """Grid for a target in one dimension and its reverse process from T down to ``start``.

    The number of points follows the fourth root of the density, averaged over 9 times, above a
    floor of 15 % spread evenly: tails to twice as many deviations are resolved, and mass that a
    learned score sends elsewhere is not lost.

    Parameters
    ----------
    target : Target
        In one dimension.
    process : Process
        The forward process.
    start : float
        Smallest time, at which densities are wanted.
    reach : float
        Standard deviations of x_t about 0 covered on either side.
    width : float, optional
        Smallest length over which densities rise or fall, which sets the steps in time; by default
        the target's. A model that has memorised points needs less: the noise at ``start``.

    Raises
    ------
    ValueError
        For a target of the wrong dimension, an impossible start, reach or width, or a process whose
        ``h(T)`` overflows.
    """
    if target.dim != 1:
        raise ValueError(f"densities on a grid need a target in one dimension, got {target.dim}")
    width = target.width if width is None else width
    if not (0 < reach < np.inf and 0 <= width < np.inf):
        raise ValueError(f"need a positive reach and a width of 0 or more, got {reach}, {width}")
    _check_gain(process)
    nodes, weights = grid(target.edges())
    moment = float((weights * target.density(nodes)) @ nodes[:, 0] ** 2)
    z = np.linspace(-reach, reach, _FINE)
    average = np.zeros(_FINE)
    for t in reverse_times(process, start, _LEVELS - 1, width):
        scale, deviation = process.scale(t), process.deviation(t)
        unit = np.sqrt(scale**2 * moment + deviation**2)
        logs = _TAIL * target.at(process, float(t)).log_density(unit * z[:, None])
        part = np.exp(logs - logs.max())
        average += part / part.sum()
    spread = (1 - _FLOOR) * average / average.sum() + _FLOOR / _FINE
    mapped = CubicSpline(z, spread).antiderivative()
    mapped = CubicSpline(z, mapped(z) / mapped(z[-1]))
    return Grid(target, process, start, width, moment, mapped)


def reverse_times(process: Process, start: float, steps: int, width: float) -> NDArray[np.float64]:
    """Times falling from T to ``start``, (steps + 1,), evenly spaced in ``log(width^2 + h)``.

    Each step then changes the shape of a feature of that width by the same factor.

    Raises
    ------
    ValueError
        For a start outside [0, T), or 0 with a width of 0 (a density that jumps has no score).
    """
    if not (0 <= start < process.end) or (start == 0 and width == 0):
        raise ValueError(
            f"the start must lie in [0, {process.end}), above 0 for a target that jumps; "
            f"got {start}"
        )
    first, last = (np.log(width**2 + gained(process, t)) for t in (process.end, start))
    wanted = np.linspace(first, last, steps + 1)
    low, high = np.full(steps + 1, float(start)), np.full(steps + 1, float(process.end))
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        above = np.log(width**2 + gained(process, middle)) > wanted
        low, high = np.where(above, low, middle), np.where(above, middle, high)
    times = (low + high) / 2
    times[[0, -1]] = process.end, start
    return times


def gained(process: Process, t: ArrayLike) -> NDArray[np.float64]:
    """h, the variance that ``x / scale`` has gained by time t."""
    return (process.deviation(t) / process.scale(t)) ** 2


def _check_gain(process: Process) -> None:
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        last = float(gained(process, process.end))
    if not np.isfinite(last):
        raise ValueError(
            f"the process adds too much noise: (deviation/scale)^2 is {last} at "
            f"T = {process.end:g}; lower its rate"
        )
