"""Worker processes: each does one task at a time, ends with its parent, and takes no signals.

A thread of the parent attends to each worker: it starts it, hands it tasks, passes on what it says
and sees to its end. So nothing that happens to one worker, nor a signal, can keep another waiting.
A worker begins as a bare interpreter: it imports the caller's main program only where a task refers
to it.
"""

import contextlib
import math
import multiprocessing
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing import spawn
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

from twinscore.errors import InputError, RunFailed, one_line
from twinscore.interrupts import SIGNALS

Report = Callable[[str, dict[str, Any]], None]
"""Called with (task name, what happened)."""

Task = TypeVar("Task")
Outcome = TypeVar("Outcome")

PATIENCE = 5.0
"""Seconds that a worker has for its next step and its checkpoint, once it is told to stop."""
_POLL_SECONDS = 0.1
_MAIN = b"__main__"
_BEGIN = (
    "import sys; pipe, parent, *sys.path = sys.argv[1:]; "
    "from twinscore.workers import spawn_main; spawn_main(int(pipe), int(parent))"
)
_REASONS = {
    signal.SIGKILL: "the system does that when memory is short",
    signal.SIGBUS: "a file that it had mapped became shorter",
}


class Interrupted(Exception):  # noqa: N818
    """Raised in a worker between two steps when the run is being stopped."""


class WorkerDied(RunFailed):
    """A worker process ended before its task; what it finished and its checkpoints are kept."""


@dataclass
class _Desk:
    """What the threads that attend to the workers share."""

    waiting: deque[tuple[Any, bytes]]
    threads: int
    main: dict[str, Any] | None
    heard: queue.SimpleQueue = field(default_factory=queue.SimpleQueue)
    stop: threading.Event = field(default_factory=threading.Event)


def on_workers(
    function: Callable[[Task, Report], Outcome],
    tasks: Sequence[Task],
    *,
    workers: int,
    threads: int,
    report: Report,
) -> Iterator[tuple[Task, Outcome]]:
    """Run tasks on worker processes; parameters, what is yielded and raised as ``run_tasks``."""
    pickled = [pickle.dumps((function, task)) for task in tasks]
    main = _main_program() if any(_MAIN in each for each in pickled) else None
    desk = _Desk(deque(zip(tasks, pickled, strict=True)), threads, main)
    attending = []
    try:
        with _signals_held():
            for _ in range(min(workers, len(tasks))):
                attending.append(threading.Thread(target=_attend, args=(desk, *_started(desk))))
                attending[-1].daemon = True
                attending[-1].start()
        left = len(tasks)
        while left:
            kind, task, value = desk.heard.get()
            if kind == "failed":
                raise value
            if kind == "said":
                report(*value)
            else:
                left -= 1
                yield task, value
    finally:
        desk.stop.set()
        for thread in attending:
            thread.join(2 * PATIENCE)
        with contextlib.suppress(queue.Empty):
            while True:
                kind, _, value = desk.heard.get_nowait()
                if kind == "said":
                    report(*value)


def _main_program() -> dict[str, Any]:
    """What a worker needs to import the caller's main program."""
    found = spawn.get_preparation_data("worker")
    del found["authkey"]  # which is not for pipes
    path = found.get("init_main_from_path")
    if "init_main_from_name" not in found and not (path and Path(path).is_file()):
        raise InputError(
            "workers: the tasks need what the main program defines, and workers cannot import that "
            "(it comes from a prompt, a notebook or -c); put it into a module, or give workers=1"
        )
    return found


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """Let processes and threads that begin here leave signals to this thread, which waits."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _started(desk: _Desk) -> tuple[subprocess.Popen, Connection]:
    """A new worker, and the pipe to it; it ends where that is closed."""
    pipe, theirs = multiprocessing.Pipe()
    flags = subprocess._args_from_interpreter_flags()
    words = ["-P", "-c", _BEGIN, str(theirs.fileno()), str(os.getpid()), *sys.path]
    with theirs:
        try:
            process = subprocess.Popen(
                [spawn.get_executable(), *flags, *words],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        except OSError as error:
            raise WorkerDied(f"a worker could not start: {one_line(error)}") from None
    return process, pipe


def _attend(desk: _Desk, process: subprocess.Popen, pipe: Connection) -> None:
    """Give a worker tasks until none is left or the run is being stopped; then end it."""
    task = None
    try:
        with contextlib.suppress(OSError):  # it is dead: the first task will say how
            pipe.send_bytes(pickle.dumps((desk.threads, desk.main)))
        for task, pickled in _taken(desk):
            _do_one(desk, task, pickled, process, pipe)
    except BaseException as error:
        desk.heard.put(("failed", task, error))
    with contextlib.suppress(OSError):
        pipe.send_bytes(b"")
    try:
        process.wait(PATIENCE + 1)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    pipe.close()


def _taken(desk: _Desk) -> Iterator[tuple[Any, bytes]]:
    """Tasks from those that wait, until none is left or the run is being stopped."""
    with contextlib.suppress(IndexError):
        while not desk.stop.is_set():
            yield desk.waiting.popleft()


def _do_one(
    desk: _Desk, task: Any, pickled: bytes, process: subprocess.Popen, pipe: Connection
) -> None:
    try:
        pipe.send_bytes(pickled)
        while not desk.stop.is_set():
            if pipe.poll(_POLL_SECONDS):
                kind, value = pickle.loads(pipe.recv_bytes())
                desk.heard.put((kind, task, value))
                if kind != "said":
                    return
    except (EOFError, OSError):
        raise WorkerDied(_how_it_died(process)) from None


def _how_it_died(process: subprocess.Popen) -> str:
    """What is known of the end of a worker that is not heard any more."""
    try:
        code = process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        return "a worker process closed its pipe; run the same command again to continue"
    if code >= 0:
        how = f"ended by itself with exit code {code}"
    else:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else "unknown"
        reason = _REASONS.get(-code)
        how = f"was killed by signal {-code} ({name}{f'; {reason}' if reason else ''})"
    return f"a worker process {how}; run the same command again to continue" + (
        ", with fewer --workers if memory was short" if code == -signal.SIGKILL else ""
    )


def spawn_main(descriptor: int, parent: int) -> None:
    """In a worker: do the tasks that come, and say what happens and what they gave."""
    pipe = Connection(descriptor)
    os.register_at_fork(after_in_child=pipe.close)  # what is forked must not keep it open
    told, said, stop = queue.SimpleQueue(), queue.SimpleQueue(), threading.Event()
    for target, words in ((_listen, (pipe, parent, told, stop)), (_speak, (pipe, said))):
        threading.Thread(target=target, args=words, daemon=True).start()

    def report(name: str, event: dict[str, Any]) -> None:
        if stop.is_set():
            raise Interrupted
        said.put(pickle.dumps(("said", (name, event))))

    threads, main = pickle.loads(told.get())
    try:
        if main:
            spawn.prepare(main)
    except BaseException as error:
        said.put(_failed(_not_imported(error)))
        return deque(iter(told.get, b""), maxlen=0).clear()
    from twinscore.execution import settled_torch

    with settled_torch(threads):
        for pickled in iter(told.get, b""):
            said.put(_answer(pickled, report))
    return None


def _answer(pickled: bytes, report: Report) -> bytes:
    try:
        function, task = pickle.loads(pickled)
        return pickle.dumps(("done", function(task, report)))
    except BaseException as error:
        return _failed(error)


def _failed(error: BaseException) -> bytes:
    """An exception as bytes, with its traceback if it is not expected; if need be, its text."""
    if not isinstance(error, InputError | RunFailed):
        error.add_note("in a worker:\n" + "".join(traceback.format_exception(error)))
    with contextlib.suppress(Exception):
        whole = pickle.dumps(("failed", error))
        if isinstance(pickle.loads(whole)[1], Exception):
            return whole
    return pickle.dumps(("failed", RuntimeError(f"{type(error).__name__}: {one_line(error)}")))


def _not_imported(error: BaseException) -> InputError:
    return InputError(
        "workers: the tasks need what the main program defines, and importing that failed "
        f"({type(error).__name__}: {one_line(error)}); let its work begin below "
        'if __name__ == "__main__":, or give workers=1'
    )


def _listen(pipe: Connection, parent: int, told: queue.SimpleQueue, stop: threading.Event) -> None:
    """Take what the parent sends, and end this process with it, or soon after the word to stop."""
    deadline = math.inf
    with contextlib.suppress(EOFError, OSError):
        while os.getppid() == parent and time.monotonic() < deadline:
            if stop.is_set():
                time.sleep(_POLL_SECONDS)
            elif pipe.poll(_POLL_SECONDS):
                told.put(word := pipe.recv_bytes())
                if not word:
                    stop.set()
                    deadline = time.monotonic() + PATIENCE
    os._exit(1)


def _speak(pipe: Connection, out: queue.SimpleQueue) -> None:
    """Send what is said, without the task having to wait."""
    with contextlib.suppress(OSError):
        while True:
            pipe.send_bytes(out.get())
