"""Where tasks run: in this process or on workers, with torch as it is in a new process."""

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from functools import partial
from typing import Any

from twinscore.errors import InputError
from twinscore.workers import Interrupted, Outcome, Report, Task, WorkerDied, on_workers

__all__ = ["Interrupted", "Report", "WorkerDied", "granted_threads", "run_tasks", "settled_torch"]

_GRANTED: ContextVar[int | None] = ContextVar("granted", default=None)


def run_tasks(
    function: Callable[[Task, Report], Outcome],
    tasks: Sequence[Task],
    *,
    workers: int,
    threads: int,
    report: Report,
) -> Iterator[tuple[Task, Outcome]]:
    """Run independent tasks and yield each with its outcome as it finishes.

    Parameters
    ----------
    function : callable
        ``function(task, report)``; for more than one worker it and the tasks must pickle.
    tasks : sequence
        The tasks, started in this order.
    workers : int
        Processes; with 1 the tasks run here, one after another.
    threads : int
        Threads that torch uses in each, and here until the last task is done.
    report : callable
        Receives ``(task name, event)`` in this thread, wherever the task ran.

    Yields
    ------
    tuple
        (task, outcome).

    Raises
    ------
    WorkerDied
        If a worker could not start or ended before its task; says how.
    InputError
        If tasks refer to the caller's main program, and workers cannot import that.
    Exception
        What a task raised, after the others were stopped at their next step.
    """
    main, imported = (sys.modules.get(name) for name in ("__main__", "__mp_main__"))
    if imported not in (None, main):  # the main program of this worker is being imported
        raise InputError("the main program begins its work as soon as it is imported")
    with settled_torch(threads):
        if workers == 1:
            for task in tasks:
                yield task, function(task, report)
        else:
            yield from on_workers(function, tasks, workers=workers, threads=threads, report=report)


@contextlib.contextmanager
def settled_torch(threads: int | None = None) -> Iterator[None]:
    """Let torch and numpy compute as in a new process, on so many threads, if a number is given.

    What else could use more, processes that decode pictures say, is granted as many.
    Whatever the caller set is put back afterwards: default dtype and device, precision of float32
    products, autocast, gradients, inference mode, deterministic algorithms, detection of anomalies,
    denormal numbers, backends, numpy's floating-point errors. Global random states are not drawn
    from and so not touched; filters of warnings are left to the caller. Dtype, precision,
    algorithms, backends and threads belong to the process: other threads that set them meanwhile
    are not kept out.
    """
    import numpy as np
    import torch
    from threadpoolctl import threadpool_limits

    with contextlib.ExitStack() as stack:
        for get, put, *fresh in _settings(threads):
            with contextlib.suppress(RuntimeError):  # of a getter, where old and new settings mix
                if (before := get()) not in fresh:
                    stack.callback(put, before)
                    put(fresh[0])
        if threads:
            stack.callback(_GRANTED.set, _GRANTED.get())
            _GRANTED.set(threads)
            stack.enter_context(threadpool_limits(threads))
        for kind in ("cpu", "cuda", "mps"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(np.errstate(divide="warn", over="warn", under="ignore", invalid="warn"))
        yield


def granted_threads() -> int | None:
    """What :func:`settled_torch` was given, where this runs inside; None elsewhere."""
    return _GRANTED.get()


def _settings(threads: int | None) -> Iterator[tuple[Any, ...]]:
    """Of the whole process: how each is read, how it is set, and its values in a new process."""
    import torch

    def attribute(owner: Any, name: str, *fresh: Any) -> tuple[Any, ...]:
        return partial(getattr, owner, name), partial(setattr, owner, name), *fresh

    if threads:
        yield torch.get_num_threads, torch.set_num_threads, threads
    yield torch.get_default_dtype, torch.set_default_dtype, torch.float32
    yield torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "highest"
    yield (
        lambda: (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
        ),
        lambda value: torch.use_deterministic_algorithms(value[0], warn_only=value[1]),
        (False, False),
    )
    yield (
        lambda: (torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()),
        lambda value: torch.autograd.set_detect_anomaly(*value),
        *((False, True), (False, False)),
    )
    yield lambda: sys.float_info.min / 2 == 0.0, torch.set_flush_denormal, False
    mkldnn, cudnn, cuda = torch.backends.mkldnn, torch.backends.cudnn, torch.backends.cuda
    yield attribute(mkldnn, "enabled", True)
    yield attribute(mkldnn, "deterministic", False)
    yield attribute(cudnn, "enabled", True)
    yield attribute(cudnn, "benchmark", False)
    yield attribute(cudnn, "deterministic", False)
    if not hasattr(torch.backends, "fp32_precision"):  # before torch 2.9
        yield attribute(cudnn, "allow_tf32", True)
        return
    for exact in (torch.backends, mkldnn.matmul, mkldnn.conv, mkldnn.rnn, cuda.matmul):
        yield attribute(exact, "fp32_precision", "none", "ieee")
    for fast in (cudnn.conv, cudnn.rnn):
        yield attribute(fast, "fp32_precision", "tf32")
