"""Progress on stderr, bars in a terminal and plain lines elsewhere, and in the run's log."""

import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_LINE_SECONDS = 20.0


class Reporter:
    """Shows the steps of several named tasks; use as a context manager and call with events.

    An event is a dict with ``step`` and ``steps``, or with ``text`` to say once.

    Parameters
    ----------
    log : Path, optional
        File to which the plain lines are appended.
    """

    def __init__(self, log: Path | None = None) -> None:
        self._log = log
        console = Console(stderr=True)
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
            with self._log.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        if not self._live:
            print(line, file=sys.stderr, flush=True)
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
