"""Many small jobs on all cores, with the outcome of doing them one after the other."""

import sys
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any, TypeVar

from twinscore.environment import available_cores

_JOBS_AT_A_TIME = 16
_LEAST_FOR_PROCESSES = 200

Outcome = TypeVar("Outcome")

_work: Callable[[int], Any]


def for_each(
    work: Callable[[int], Outcome], number: int, progress: Callable[[int, int], None]
) -> list[Outcome]:
    """Call ``work(0)`` to ``work(number - 1)`` on all cores; what they return, in their order.

    On Linux in forked processes, which the interpreter's lock does not hold up; elsewhere, and for
    few jobs, in threads. Raises what the first job that failed, in their order, raised.

    Parameters
    ----------
    work : callable
        Puts large results into shared memory, each job in its own place, and returns small ones;
        must not use torch, whose threads do not survive a fork.
    number : int
        Number of jobs.
    progress : callable
        ``progress(done, number)``, called from here after every few jobs.
    """
    parts = [
        range(start, min(start + _JOBS_AT_A_TIME, number))
        for start in range(0, number, _JOBS_AT_A_TIME)
    ]
    with _pool(work, number) as pool:
        pending = [pool.submit(_do, part) for part in parts]
        outcomes: list[Outcome] = []
        try:
            for part, future in zip(parts, pending, strict=True):
                outcomes += future.result()
                progress(part.stop, number)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return outcomes


@contextmanager
def _pool(work: Callable[[int], Any], number: int) -> Iterator[Executor]:
    global _work
    _work = work
    cores = available_cores()
    if sys.platform != "linux" or number < _LEAST_FOR_PROCESSES:
        with ThreadPoolExecutor(cores) as pool:
            yield pool
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking next to threads
        with ProcessPoolExecutor(cores, mp_context=get_context("fork")) as pool:
            yield pool


def _do(jobs: range) -> list[Any]:
    return [_work(job) for job in jobs]
