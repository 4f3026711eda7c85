"""What the rest of a run takes: time, memory and disk, before it is begun."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from twinscore import environment
from twinscore.environment import Execution, on_cpu
from twinscore.execution import settled_torch
from twinscore.sampling.spec import evaluations
from twinscore.training import memory
from twinscore.training.history import SIGMAS
from twinscore.training.timing import training_seconds

_UNITS = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


@dataclass(frozen=True)
class Estimate:
    """What is left of a run: ``seconds`` by the clock, ``memory`` and ``disk`` in bytes."""

    what: str
    seconds: float
    memory: float
    disk: float

    def __add__(self, then: "Estimate") -> "Estimate":
        """One after the other."""
        both = self.seconds + then.seconds, max(self.memory, then.memory), self.disk + then.disk
        return Estimate(f"{self.what}, {then.what}", *both)

    def text(self) -> str:
        """In one line."""
        return (
            f"{self.what}: about {_duration(self.seconds)}, {_size(self.memory)} of memory and "
            f"{_size(self.disk)} of disk"
        )


NOTHING = Estimate("nothing left to do", 0.0, 0.0, 0.0)


def counted(number: int, noun: str) -> str:
    """``1 network``, ``2 networks``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


@dataclass(frozen=True)
class Needs:
    """What the trials of a study need, apart from what their spec says of network and training.

    ``shape`` is the (C, H, W) of the images; ``held`` training images kept in memory; ``jacobians``
    how many of them, or of other matrices of (d, d), are formed whole and decomposed at a time, and
    ``matrix`` what a refusal calls one, which begins with ``field``; ``before`` what else must fit
    the memory; ``passes`` images that a trained network denoises while it is measured, a product
    with its Jacobian counted as three; ``stored`` bytes of a trial's measures on disk;
    ``seconds(device)`` what else is computed for a trial, seconds of a core or the device.
    """

    shape: tuple[int, int, int]
    held: int = 0
    jacobians: int = 0
    matrix: str = "Jacobian"
    before: tuple[memory.Demand, ...] = ()
    passes: float = 0.0
    stored: float = 0.0
    seconds: Callable[[str], float] = lambda device: 0.0
    field: str = "size:"

    def cost(self, spec: Any) -> memory.Cost:
        """Memory of one training of a spec with ``network`` and ``training``."""
        own = {"held": self.held, "jacobians": self.jacobians}
        return memory.cost(spec.network, spec.training.batch, self.shape, **own)


def sampling_needs(spec: Any, shape: tuple[int, int, int]) -> Needs:
    """Of trials that :func:`twins.measure` measures: samples, and PSNR of two sets of images."""
    images = 2 * spec.test * len(SIGMAS)
    return Needs(
        shape=shape,
        passes=images + spec.samples * evaluations(spec.sampling.resolved),
        stored=4 * (images + spec.samples * math.prod(shape)),
        field="data: size",
    )


Cells = Callable[[Any], Sequence[Any]]
"""The specs of which a study trains equally many networks each."""


def alone(spec: Any) -> Sequence[Any]:
    """The spec itself, of most studies."""
    return (spec,)


def refuse_trainings(
    needs: Callable[[Any], Needs], spec: Any, device: str, workers: int, *, cells: Cells = alone
) -> None:
    """Refuse trials that do not fit the memory; see :func:`memory.require_memory`."""
    for cell in cells(spec):
        need = needs(cell)
        cost, side = need.cost(cell), max(need.shape[1:])
        own = {"before": need.before, "matrix": need.matrix}
        memory.require_memory(cost, side, device, workers, need.field, **own)


def of_trainings(
    needs: Callable[[Any], Needs], spec: Any, left: int, how: Execution, *, cells: Cells = alone
) -> Estimate:
    """Estimate ``left`` trials from a few real steps of training; takes some seconds itself."""
    work = most = disk = 0.0
    at_once, parts = min(how.workers, left), cells(spec)
    for cell in parts:
        need, training = needs(cell), cell.training
        cost, number = need.cost(cell), left / len(parts)
        each = training_seconds(cell.network, training, need.shape, how.device, threads=how.threads)
        image = each / (training.steps * training.batch) / 3
        work += number * (each + need.passes * image + need.seconds(how.device))
        most = max(most, at_once * (memory.PROCESS + cost.total))
        disk += number * (cost.parameters + need.stored) + at_once * cost.weights / len(parts)
    return Estimate(counted(left, "network"), by_the_clock(left, work, how), most, disk)


def by_the_clock(tasks: int, work: float, how: Execution) -> float:
    """How long tasks that together are ``work``, in seconds of one core or the device, take.

    Workers and threads share out the cores of a CPU, which may be fewer than they; workers that
    find no task left are idle. Any other device is one, however many use it.
    """
    if not on_cpu(how.device):
        return work
    cores = environment.available_cores()
    side_by_side = min(how.workers, cores)
    idle = math.ceil(tasks / side_by_side) * side_by_side / tasks
    return work * idle / min(how.workers * how.threads, cores)


def _duration(seconds: float) -> str:
    if seconds < 1.5:
        return "a second"
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    minutes = seconds / 60
    if minutes < 60:
        return f"{minutes:.1f} minutes"
    hours = minutes / 60
    return f"{hours:.1f} hours" if hours < 48 else f"{hours / 24:.1f} days"


def _size(count: float) -> str:
    for unit, name in _UNITS:
        if count >= unit:
            return f"{count / unit:.{0 if count >= 10 * unit else 1}f} {name}"
    return "less than 1 kB"


def core_seconds(call: Callable[[], object]) -> float:
    """Time of a call on one core, or on the device that it uses."""
    with settled_torch(1):
        started = time.perf_counter()
        call()
        return time.perf_counter() - started
