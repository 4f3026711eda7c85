"""Where trials run: in this process, or on a pool of worker processes that die with it."""

import contextlib
import ctypes
import multiprocessing
import os
import pickle
import queue
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection
from typing import Any, TypeVar

Report = Callable[[str, dict[str, Any]], None]
"""Called with (task name, what happened)."""

Task = TypeVar("Task")
Outcome = TypeVar("Outcome")

_POLL_SECONDS = 0.1


class Interrupted(Exception):  # noqa: N818
    """Raised in a worker between two steps when the run is being stopped."""


class WorkerDied(RuntimeError):  # noqa: N818
    """A worker process was killed; what it finished and its checkpoints are kept."""


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
        Receives ``(task name, event)`` in this process, wherever the task ran.

    Yields
    ------
    tuple
        (task, outcome).

    Raises
    ------
    WorkerDied
        If a worker was killed.
    Exception
        What a task raised, after the others were stopped at their next step.
    """
    with torch_threads(threads):
        if workers == 1:
            for task in tasks:
                yield task, function(task, report)
        else:
            yield from _on_pool(function, tasks, workers, threads, report)


@contextlib.contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let torch use ``count`` threads in this process, and afterwards as many as before."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _on_pool(
    function: Callable[[Task, Report], Outcome],
    tasks: Sequence[Task],
    workers: int,
    threads: int,
    report: Report,
) -> Iterator[tuple[Task, Outcome]]:
    context = multiprocessing.get_context("spawn")
    events = context.Queue()
    stop = context.RawValue(ctypes.c_bool, False)  # an Event's lock could die with a worker
    with ProcessPoolExecutor(
        workers, mp_context=context, initializer=_start, initargs=(events, stop, threads)
    ) as pool:
        try:
            with _deaf_to_interrupts():
                pending = {pool.submit(_call, function, task): task for task in tasks}
                pool.submit(int)  # wakes the pool, which watches only workers it had when it woke
            while pending:
                done, _ = wait(pending, _POLL_SECONDS, FIRST_COMPLETED)
                _forward(events, report)
                for future in done:
                    yield pending.pop(future), _outcome(future)
        except BaseException:
            stop.value = True
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        finally:
            _forward(events, report)


def _outcome(future: Future) -> Any:
    try:
        return future.result()
    except BrokenProcessPool:
        raise WorkerDied(
            "a worker process was killed (out of memory?); run the same command again to continue, "
            "with fewer --workers if memory was short"
        ) from None


def _forward(events: Any, report: Report) -> None:
    """Pass on what has been said; what a killed worker left half said is dropped."""
    with contextlib.suppress(queue.Empty, EOFError, pickle.UnpicklingError):
        while True:
            report(*events.get_nowait())


@contextlib.contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Let processes started here inherit that Ctrl-C is for their parent to handle."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


_worker: dict[str, Any] = {}


def _start(events: Any, stop: Any, threads: int) -> None:
    """In a new worker: die with the parent, and use the threads it was given."""
    import torch

    torch.set_num_threads(threads)
    _worker.update(events=events, stop=stop)
    parent = multiprocessing.parent_process()
    threading.Thread(target=_die_with, args=(parent.sentinel,), daemon=True).start()


def _die_with(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)


def _call(function: Callable[[Any, Report], Any], task: Any) -> Any:
    def report(name: str, event: dict[str, Any]) -> None:
        if _worker["stop"].value:
            raise Interrupted
        _worker["events"].put((name, event))

    return function(task, report)
