"""Progress on stderr, bars in a terminal and plain lines elsewhere, and in the run's log."""

import io
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_LINE_SECONDS = 20.0


class _Forgiving(io.TextIOBase):
    """A stream that may be closed, full or gone: what cannot be written is lost."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    @property
    def encoding(self) -> str:
        return getattr(self._stream, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError, AttributeError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError, AttributeError):
            self._stream.flush()

    def isatty(self) -> bool:
        with suppress(OSError, ValueError, AttributeError):
            return self._stream.isatty()
        return False

    def fileno(self) -> int:
        return self._stream.fileno()


class Reporter:
    """Shows the steps of several named tasks; use as a context manager and call with events.

    That is a service: where it cannot be shown or logged, the work goes on.

    An event is a dict with ``step`` and ``steps``, or with ``text`` to say once.

    Parameters
    ----------
    log : Path, optional
        File to which the plain lines are appended.
    """

    def __init__(self, log: Path | None = None) -> None:
        self._log = log
        self._stderr = _Forgiving(sys.stderr)
        console = Console(file=self._stderr)
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
        )
        self._live = console.is_terminal
        self._ids: dict[str, Any] = {}
        self._shown: dict[str, float] = {}

    def __enter__(self) -> Self:
        if self._live:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Leave the bars as they are: what follows has its own."""
        if self._live:
            self._bars.stop()

    def __call__(self, name: str, event: dict[str, Any]) -> None:
        """Take one event of task ``name``."""
        if "text" in event:
            self._say(f"{name}: {event['text']}")
        else:
            if self._live:
                self._move(name, event)
            self._line(name, event)

    def _say(self, line: str, *, beside_bars: bool = True) -> None:
        if self._log:
            with suppress(OSError), self._log.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        if not self._live:
            print(line, file=self._stderr, flush=True)
        elif beside_bars:
            self._bars.console.print(line, markup=False, highlight=False)

    def _move(self, name: str, event: dict[str, Any]) -> None:
        if name not in self._ids:
            self._ids[name] = self._bars.add_task(name, total=event["steps"], note="")
        note = event.get("note")
        fields = {} if note is None else {"note": note}
        self._bars.update(self._ids[name], completed=event["step"], **fields)

    def _line(self, name: str, event: dict[str, Any]) -> None:
        now, last = time.monotonic(), event["step"] == event["steps"]
        if last or now - self._shown.get(name, 0.0) > _LINE_SECONDS:
            self._shown[name] = now
            note = event.get("note") or ""
            line = f"{name}: step {event['step']} of {event['steps']} {note}".rstrip()
            self._say(line, beside_bars=False)
