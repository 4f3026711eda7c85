"""Many small jobs on all cores, with the outcome of doing them one after the other."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait

from twinscore.environment import available_cores

_REPORT_SECONDS = 0.5


def for_each(
    work: Callable[[int], None], number: int, progress: Callable[[int, int], None]
) -> None:
    """Call ``work(0)`` to ``work(number - 1)`` from one thread per core.

    Jobs are begun in order and no job waits in a queue, so that at most one per core is in memory.

    Parameters
    ----------
    work : callable
        Should spend its time where the interpreter's lock is released, and leave its result where
        no other job does.
    number : int
        Number of jobs.
    progress : callable
        ``progress(done, number)``, called from this thread twice a second and at the end.

    Raises
    ------
    Exception
        What the first job that failed, in their order, has raised; later jobs are not begun.
    """
    jobs = iter(range(number))
    turn = threading.Lock()
    stop = threading.Event()
    done = 0
    failures: dict[int, Exception] = {}

    def serve() -> None:
        nonlocal done
        while not stop.is_set():
            with turn:
                job = next(jobs, None)
            if job is None:
                return
            try:
                work(job)
            except Exception as error:
                failures[job] = error
                stop.set()
            with turn:
                done += 1

    with ThreadPoolExecutor(available_cores()) as pool:
        try:
            servers = [pool.submit(serve) for _ in range(min(available_cores(), number))]
            while wait(servers, timeout=_REPORT_SECONDS).not_done:
                progress(done, number)
        finally:
            stop.set()
    for server in servers:
        server.result()
    if failures:
        raise failures[min(failures)]
    progress(number, number)
