"""Many small jobs on all cores, with the outcome of doing them one after the other."""

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from multiprocessing import connection
from typing import Any, TypeVar

from twinscore.environment import available_cores
from twinscore.execution import WorkerDied
from twinscore.images.quiet import quiet

_JOBS_AT_A_TIME = 16
_LEAST_FOR_PROCESSES = 200
_POLL_SECONDS = 0.1
_SET_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of <sys/prctl.h>

Outcome = TypeVar("Outcome")
Work = Callable[[int], Outcome]


def for_each(
    work: Work[Outcome], number: int, progress: Callable[[int, int], None]
) -> list[Outcome]:
    """Call ``work(0)`` to ``work(number - 1)`` on all cores; what they return, in their order.

    On Linux in forked processes, which the interpreter's lock does not hold up; elsewhere, for few
    jobs, and where processes may not be started, in threads. The processes end with this one, also
    when it is killed, and leave Ctrl-C to it.

    Parameters
    ----------
    work : callable
        Puts large results into shared memory, each job in its own place, and returns small ones;
        must not use torch, whose threads do not survive a fork.
    number : int
        Number of jobs.
    progress : callable
        ``progress(done, number)``, called from here after every few jobs.

    Raises
    ------
    WorkerDied
        If one of the processes was killed.
    Exception
        What the first job that failed, in their order, raised.
    """
    parts = [
        range(start, min(start + _JOBS_AT_A_TIME, number))
        for start in range(0, number, _JOBS_AT_A_TIME)
    ]
    forks = sys.platform == "linux" and not multiprocessing.current_process().daemon
    run = _in_processes if forks and number >= _LEAST_FOR_PROCESSES else _in_threads
    outcomes: list[Outcome] = []
    with closing(run(work, parts)) as found:
        for part, some in zip(parts, found, strict=True):
            outcomes += some
            progress(part.stop, number)
    return outcomes


def _in_threads(work: Work[Outcome], parts: Sequence[range]) -> Iterator[list[Outcome]]:
    """What the jobs of each part return; a thread stops after its job when this is closed."""
    stopped = threading.Event()

    def do(part: range) -> list[Outcome]:
        return [work(job) for job in part if not stopped.is_set()]

    with ThreadPoolExecutor(available_cores()) as pool:
        try:
            yield from pool.map(do, parts)
        finally:
            stopped.set()


@dataclass(frozen=True)
class _Fork:
    """A forked process, and where it says what its jobs returned."""

    process: Any
    receiver: connection.Connection


def _in_processes(work: Work[Outcome], parts: Sequence[range]) -> Iterator[list[Outcome]]:
    """As :func:`_in_threads`; the processes are killed when this is closed."""
    context = multiprocessing.get_context("fork")
    taken = context.Value("q", 0)
    serve = (work, parts, taken, os.getpid(), ctypes.CDLL(None).prctl)
    forks: list[_Fork] = []
    try:
        with quiet(), _interrupts_held():
            for _ in range(min(available_cores(), len(parts))):
                receiver, sender = context.Pipe(duplex=False)
                with sender:
                    process = context.Process(target=_serve, args=(*serve, sender), daemon=True)
                    forks.append(_Fork(process, receiver))
                    process.start()
        yield from _in_order(forks, len(parts))
    finally:
        for fork in forks:
            if fork.process.pid is not None:
                fork.process.kill()
        for fork in forks:
            if fork.process.pid is not None:
                fork.process.join()
            fork.receiver.close()


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Hold back what asks this process to stop; those started here inherit that, and keep to it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(
    work: Work[Any],
    parts: Sequence[range],
    taken: Any,
    parent: int,
    prctl: Callable[[int, int], int],
    sender: connection.Connection,
) -> None:
    """In a forked process: do one part after the other, then wait to be killed."""
    prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:  # it was killed before it could be said
        return
    while True:
        with taken:
            mine, taken.value = taken.value, taken.value + 1
        if mine >= len(parts):
            break
        try:
            outcome: Any = [work(job) for job in parts[mine]]
        except Exception as error:
            outcome = error
        sender.send((mine, outcome))
    signal.pause()


def _in_order(forks: Sequence[_Fork], number: int) -> Iterator[list[Any]]:
    """What each part returned; raises what the first that failed raised."""
    receivers = [fork.receiver for fork in forks]
    found: dict[int, Any] = {}
    for part in range(number):
        while part not in found:
            for receiver in connection.wait(receivers, _POLL_SECONDS):
                try:
                    found.update([receiver.recv()])
                except (EOFError, OSError):  # nobody will say more, or half was said
                    forks[receivers.index(receiver)].process.join()
            for fork in forks:
                if fork.process.exitcode is not None:
                    raise WorkerDied(_obituary(fork.process.exitcode))
        outcome = found.pop(part)
        if isinstance(outcome, Exception):
            raise outcome
        yield outcome


def _obituary(code: int) -> str:
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
    return f"a process that was reading images {how}; run the same again"
