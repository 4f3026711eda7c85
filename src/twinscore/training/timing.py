"""How long a training takes, from a few real steps of it."""

import contextlib
import statistics
import time
from itertools import pairwise

import torch

from twinscore.denoisers import NetworkSpec, build
from twinscore.environment import on_cpu
from twinscore.execution import settled_torch
from twinscore.training.fit import SHOWN, fit, single_device
from twinscore.training.history import SIGMAS
from twinscore.training.spec import TrainingSpec

_CROP = 2**16  # pixels of the part of a batch that a CPU is timed with
_LONG = 1.0  # seconds of a step that a CPU is not asked to make whole
_STEPS, _COUNTED = 12, 8  # made, and of these counted, the last ones
_PATIENCE = 3.0  # seconds after the first step until no further one is made


def training_seconds(
    network: NetworkSpec,
    training: TrainingSpec,
    shape: tuple[int, int, int],
    device: str,
    *,
    threads: int,
) -> float:
    """Time of one training, from a few of its steps, in seconds of one core or of the device.

    The steps are those of :func:`~twinscore.training.fit`, with noise, optimiser and average of the
    weights, on images of random pixels. Reading or making images is not counted, nor is what
    workers side by side cost each other.

    Parameters
    ----------
    network, training : NetworkSpec, TrainingSpec
        What is trained, and how.
    shape : tuple of int
        (C, H, W).
    device : str
        Where. An accelerator is timed with the whole batch; a CPU, where a step would take long,
        with part of it.
    threads : int
        Threads of a CPU that each training uses.

    Returns
    -------
    float
        For a CPU the time times ``threads``. An evaluation is counted as so many images forward,
        a third of a step each. Takes some seconds itself.
    """
    batch = training.batch
    part = min(batch, max(1, _CROP // (shape[1] * shape[2]))) if on_cpu(device) else batch
    with settled_torch(threads):
        step = _step_seconds(network, training, shape, device, part) * batch / part
        if part < batch and step < _LONG:
            step = _step_seconds(network, training, shape, device, batch)
    if not on_cpu(device):
        torch.accelerator.empty_cache()  # it is the workers' now
    evaluation = 2 * SHOWN * len(SIGMAS) / (3 * batch)
    seconds = step * (training.steps + training.evaluations * evaluation)
    return seconds * threads if on_cpu(device) else seconds


class _Timed(Exception):  # noqa: N818
    """Ends a training whose steps have been timed."""


def _step_seconds(
    network: NetworkSpec,
    training: TrainingSpec,
    shape: tuple[int, int, int],
    device: str,
    batch: int,
) -> float:
    """Median time of the steps after the first, at a learning rate that moves no weights."""
    ends: list[float] = []

    def lap(step: int, row: dict[str, float] | None) -> None:
        if not on_cpu(device):
            torch.accelerator.synchronize()
        ends.append(time.perf_counter())
        if step > 1 and (step == _STEPS or ends[-1] - ends[0] > _PATIENCE):
            raise _Timed

    x = torch.rand(SHOWN, *shape, generator=torch.Generator().manual_seed(0))
    changes = {"steps": 2 * _STEPS, "batch": batch, "evaluations": 1, "learning_rate": 1e-12}
    with contextlib.suppress(_Timed):
        fit(
            build(network, shape[0], seed=0),
            x,
            training.model_copy(update=changes),
            fabric=single_device(device),
            on_step=lap,
        )
    return statistics.median(after - before for before, after in pairwise(ends[-_COUNTED - 1 :]))
