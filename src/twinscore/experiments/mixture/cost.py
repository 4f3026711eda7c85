"""What the study takes of time, memory and disk, before it is begun."""

import math
import time
from typing import NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from twinscore.environment import Execution
from twinscore.errors import InputError
from twinscore.experiments.estimates import Estimate, by_the_clock, counted
from twinscore.experiments.mixture import sweep
from twinscore.experiments.mixture.replicates import Condition, conditions, count
from twinscore.experiments.mixture.spec import Spec, forward, likelihood_rule, resolving_grid
from twinscore.theory.gradient_flow import gradient_flow
from twinscore.theory.nodes import population_nodes
from twinscore.theory.random_features import random_features
from twinscore.theory.score_matching import quadratic_losses
from twinscore.theory.targets import Target, two_modes
from twinscore.training import memory

_FLOAT = 8  # bytes of a number; all are float64
_SOLVER = 6
"""Matrices (m, m) that are held beside the Gram matrices: eigenvectors, and what eigh needs."""
_POINTS, _FINEST, _ARRAYS = 129, 1025, 20
"""Points of a density, and of the finest grid; arrays (B, points) that its solver holds."""
_TIMED = 256  # features, at most, of the models that are timed
_FEW, _MORE = 4, 24  # densities that are timed


class Size(NamedTuple):
    """What one replicate of a condition computes, holds and stores.

    ``field`` of the spec gives the numbers of features, ``widths``, ascending. The Gram matrices of
    ``held`` of the ``losses`` are held at a time. ``densities`` are computed at a time, so many
    ``times``. Its arrays take ``stored`` bytes.
    """

    field: str
    widths: tuple[int, ...]
    held: int
    losses: int
    densities: int
    times: int
    stored: int

    @property
    def growing(self) -> int:
        """Bytes of memory that grow with the square of the width."""
        return _FLOAT * (self.held + _SOLVER) * self.widths[-1] ** 2

    @property
    def fixed(self) -> int:
        """Other bytes: coefficients, and densities of which all need the finest grid."""
        return _FLOAT * self.densities * (_ARRAYS * _FINEST + 4 * self.widths[-1])


def size(spec: Spec, condition: Condition) -> Size:
    """The size of one replicate of a condition."""
    sizes, shift, twins = len(spec.sizes), spec.shift, spec.twins
    match condition:
        case "sweep", _:
            drawn, losses, widths = (sizes + 1) * spec.tau_count, sizes + 1, len(spec.widths)
            stored = widths * (25 * drawn + _FLOAT)
            return Size("widths", spec.widths, losses, losses, drawn, widths, stored)
        case "shift", _:
            drawn = 2 * (spec.tau_count + len(shift.shown))
            stored = 98 * spec.tau_count + 2 * _FLOAT * _POINTS * (1 + len(shift.shown))
            return Size("shift.width", (shift.width,), 2, 2, drawn, 1, stored)
        case _:
            drawn = sizes * twins.count
            return Size("twins.width", (twins.width,), sizes, 3 * sizes, drawn, 3, 57 * drawn)


def refuse(spec: Spec, device: str, workers: int) -> None:
    """Refuse numbers of features whose Gram matrices do not fit the memory: says how many fit."""
    free = memory.available_memory("cpu")
    for condition in conditions(spec):
        need = size(spec, condition)
        needed = workers * (need.growing + need.fixed)
        if needed > free:
            width = need.widths[-1]
            fits = int(width * math.sqrt(max(0, free / workers - need.fixed) / need.growing))
            advice = f"{fits} features fit" if fits else "give fewer sizes or a smaller tau_count"
            raise InputError(
                f"{need.field}: {width} needs about {needed / 1e9:.1f} GB for "
                f"{counted(workers, 'replicate')} side by side and {free / 1e9:.1f} GB are free; "
                f"{advice}" + (", or give fewer --workers" if workers > 1 else "")
            )


def estimate(spec: Spec, left: int, how: Execution) -> Estimate:
    """Estimate ``left`` tasks from a few densities; takes some seconds itself."""
    needs = {condition: size(spec, condition) for condition in conditions(spec)}
    share, at_once = left / count(spec), min(how.workers, left)
    with threadpool_limits(how.threads):
        work = share * _seconds(spec)
    most = at_once * (memory.PROCESS + max(n.growing + n.fixed for n in needs.values()))
    disk = share * sum(times * needs[c].stored for c, times in conditions(spec).items())
    return Estimate(counted(left, "replicate"), by_the_clock(left, work, how), most, disk)


def _seconds(spec: Spec) -> float:
    """Of all replicates, on one core; for the modes shift the mean of nearest and farthest."""
    total, modes, shift = 0.0, two_modes(spec.mu), spec.shift
    for name in spec.targets:
        target, need = sweep.target_of(spec, name), size(spec, ("sweep", (name,)))
        total += spec.replicates * _replicate(spec, need, target, spec.rate, spec.tolerance)
    for mu in (shift.distances[0], shift.distances[-1]):
        target, need = two_modes(mu), size(spec, ("shift", (mu, 0.5)))
        each = _replicate(spec, need, target, shift.rate, shift.tolerance)
        total += len(shift.conditions) / 2 * shift.replicates * each
    need = size(spec, ("twins", ()))
    return total + spec.twins.replicates * _replicate(spec, need, modes, spec.rate, spec.tolerance)


def _replicate(spec: Spec, need: Size, target: Target, rate: float, tolerance: float) -> float:
    """Of one replicate, on one core; every loss as the widest, densities as the mean of the ends.

    At most 256 features are timed: from there on Gram matrices take time as the square of their
    number, eigenvectors as the cube, densities in proportion.
    """
    process = forward(rate)
    grid = resolving_grid(target, process, spec.start)
    nodes = list(population_nodes(target, process, likelihood_rule(process, spec.start)))
    losses, drawn = [], []
    for width in (need.widths[0], need.widths[-1]):
        m = min(width, _TIMED)
        features = random_features(m, seed=0, activation=spec.activation)
        laps = [time.process_time()]
        [gram] = quadratic_losses(features, nodes)
        laps.append(time.process_time())
        flow = gradient_flow(gram)
        laps.append(time.process_time())
        for number in (_FEW, _MORE):
            A = flow.at(m * np.geomspace(spec.tau_first, spec.tau_last, number))
            sweep.densities(features, A, grid, tolerance)
            laps.append(time.process_time())
        summed, solved, few, more = np.diff(laps)
        slope, wider = max(0.0, more - few) / (_MORE - _FEW), width / m
        losses.append(summed * wider**2 + solved * wider**3)
        drawn.append((few + (need.densities - _FEW) * slope) * wider)
    return need.losses * losses[-1] + need.times * sum(drawn) / 2
