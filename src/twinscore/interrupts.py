"""Ctrl-C, SIGTERM and SIGHUP: the first ends the work in good order, the second ends it at once."""

import atexit
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

STOPPED = 130
"""Exit code after a signal."""
SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
_SHOW_CURSOR = b"\x1b[?25h"


class Interrupts:
    """What signals do to this process while it is :func:`listening`.

    The first raises KeyboardInterrupt in the main thread. Where this ``program`` is all that the
    process is there for, any other ends the process, and so does the first in the middle of an
    import, which may take the exception for its own. A fork ends at once, without a word: it is for
    its parent to speak.

    Attributes
    ----------
    program : bool
        Whether the process is there for this alone.
    farewell : str
        What is said where the process ends before anybody could say it.
    came, done : bool
        Whether a signal has come; whether the work is done, so that any signal ends the process.
    """

    def __init__(self, farewell: str, *, program: bool) -> None:
        self.farewell, self.program = farewell, program
        self.came = self.done = False
        self._process = os.getpid()

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Take a signal."""
        if os.getpid() != self._process or (self.program and (self.came or self.done)):
            end()
        if self.program and _imports(frame):
            end(self.farewell)
        self.came = True
        raise KeyboardInterrupt


def _imports(frame: FrameType | None) -> bool:
    """Whether a module is being imported there."""
    while frame and frame.f_code.co_filename != "<frozen importlib._bootstrap>":
        frame = frame.f_back
    return frame is not None


def end(farewell: str = "") -> None:
    """End this process at once, and with it its workers; give the terminal its cursor back."""
    with suppress(OSError):
        said = os.fsencode(farewell + "\n") if farewell else b""
        os.write(2, (_SHOW_CURSOR if os.isatty(2) else b"") + said)
    os._exit(STOPPED)


@contextmanager
def listening(interrupts: Interrupts) -> Iterator[None]:
    """Let ``interrupts`` take the signals, but not those that are ignored, as ``nohup`` wants.

    Only the main thread can. What was there before is restored, but for a program that ends.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    taken = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    before = [(number, signal.signal(number, interrupts)) for number in taken]
    if interrupts.program:
        atexit.register(_ignore, taken)  # the first that is registered is the last to be called
        _watch(interrupts)
        yield
        return
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)


def _ignore(numbers: Sequence[int]) -> None:
    """Let the interpreter finish its end, for which it would restore what kills it."""
    for number in numbers:
        signal.signal(number, signal.SIG_IGN)


def _watch(interrupts: Interrupts) -> None:
    """End the process also where Python cannot see the second signal, or loses the first.

    The main thread may be in one long computation; KeyboardInterrupt may be raised in a callback of
    the garbage collector, whence it goes nowhere.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))

    def count() -> None:
        seen = 0
        while True:
            seen += os.read(reader, 1)[0] in SIGNALS
            if seen > 1 or (seen and interrupts.done):
                end()

    def lost(what: Any) -> None:
        if issubclass(what.exc_type, KeyboardInterrupt):
            end(interrupts.farewell)
        sys.__unraisablehook__(what)

    sys.unraisablehook = lost
    threading.Thread(target=count, daemon=True).start()
