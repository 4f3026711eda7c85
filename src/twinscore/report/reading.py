"""Read a run folder: its JSON files, its arrays and the training history of its trials."""

import csv
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open

from twinscore import sealed
from twinscore.errors import Damaged, InputError
from twinscore.results import studies
from twinscore.runs import check_schema, read_json, require_utf8

AGAIN = "run the same command again to write it anew"
_WEIGHTS, _RESUME = "weights.safetensors", "resume.safetensors"


@dataclass(frozen=True)
class History:
    """The training history of one trial: a 1-D array per column, NaN where a cell is empty."""

    name: str
    n: int
    twin: str
    finished: bool
    columns: dict[str, np.ndarray]


@dataclass(frozen=True)
class Run:
    """A run folder as reports read it.

    ``result`` is what ``result.json`` holds, of the type in ``results/<study>.py``, or None until
    a part of it is finished; ``images`` tells whether the report may show images. Damaged files
    raise an InputError where they are read.
    """

    folder: Path
    study: str
    result: Any
    spec: dict[str, Any]
    environment: dict[str, Any]
    images: bool = True

    @cached_property
    def arrays(self) -> frozenset[str]:
        """Names of its arrays; none if it has not written any."""
        path = self.folder / "arrays.safetensors"
        if not path.is_file():
            return frozenset()
        with _remedied():
            found = sealed.check(path).get(sealed.SHA256, "")
        if self.result and self.result.arrays != found:
            raise Damaged(f"{path}: is not that of result.json; {AGAIN}")
        with self._opened() as arrays:
            return frozenset(arrays.keys())

    def array(self, name: str, first: int | None = None) -> np.ndarray:
        """One of its arrays, or the first entries of its first axis."""
        with self._opened() as arrays:
            return arrays.get_slice(name)[slice(first)]

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        path = self.folder / "arrays.safetensors"
        try:
            with safe_open(path, framework="numpy") as arrays:
                yield arrays
        except (SafetensorError, OSError) as error:
            raise _damaged(path, error) from error

    @cached_property
    def histories(self) -> list[History]:
        """The training history of every trial that has one, ordered by the trial's name."""
        folders = sorted(path.parent for path in self.folder.glob("trials/*/spec.json"))
        return [found for folder in folders if (found := _history(folder))]


def read(folder: Path, *, images: bool = True) -> Run:
    """Read the JSON files of a run folder, finished or not.

    Raises
    ------
    InputError
        If the folder is not a run folder, a file is not valid JSON or its schema is newer.
    """
    folder = Path(folder)
    require_utf8("run folder", folder)
    started = (folder / "result.json").is_file() or (folder / "trials").is_dir()
    if not (started and (folder / "spec.json").is_file()):
        raise InputError(_not_a_run(folder))
    spec = _read_object(folder / "spec.json")
    result = _read_object(folder / "result.json", required=False)
    check_schema(folder / "spec.json", spec)
    if result:
        check_schema(folder / "result.json", result)
    study = str(result.get("study", spec.get("study", "transition")))
    environment = _read_object(folder / "environment.json", required=False)
    return Run(folder, study, _typed(folder, study, result), spec, environment, images)


def _not_a_run(folder: Path) -> str:
    """Why a path is not a run folder, and what to give instead."""
    around = folder.parent
    if folder.is_file() and (around / "spec.json").is_file():
        return f"{folder}: a file, not a run folder; give its folder, {around}"
    if (folder / _WEIGHTS).is_file():
        instead = "give the folder that a study wrote (its --out)"
        if around.name == "trials":
            instead = f"give its run folder, {around.parent}"
        return (
            f"{folder}: a model, which has no report; {instead}, or give it to a study as --model"
        )
    return (
        f"{folder}: not a run folder: it lacks spec.json, or both result.json and trials/; "
        "give the folder that a study wrote (its --out)"
    )


def _typed(folder: Path, study: str, result: dict[str, Any]) -> Any:
    """The content of ``result.json`` as the study's type; None where there is none."""
    if study not in studies():
        raise InputError(
            f"{folder / 'result.json'}: unknown study {study!r}; "
            f"this twinscore reports on: {', '.join(studies())}"
        )
    if not result:
        return None
    try:
        return import_module(f"twinscore.results.{study}").Result.model_validate(result)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise InputError(
            f"{folder / 'result.json'}: {field}: {first['msg']}; "
            f"run twinscore {study} again with a new --out"
        ) from None


def _history(folder: Path) -> History | None:
    """Of a trial's folder: from its weights or checkpoint, or from the table of earlier versions.

    None where nothing was measured yet.
    """
    spec_path = folder / "spec.json"
    spec = _read_object(spec_path)
    absent = [key for key in ("n", "twin") if key not in spec]
    if absent:
        raise InputError(f"{spec_path}: has no field {absent[0]!r}; {AGAIN}")
    weights, resume = folder / _WEIGHTS, folder / _RESUME
    kept = next((path for path in (weights, resume) if path.is_file()), None)
    table = folder / "history.csv"
    columns = _recorded(kept) if kept else None
    if columns is None and not table.is_file():
        return None
    return History(
        name=folder.name,
        n=int(spec["n"]),
        twin=str(spec["twin"]),
        finished=weights.is_file(),
        columns=_read_columns(table) if columns is None else columns,
    )


def _recorded(path: Path) -> dict[str, np.ndarray] | None:
    """A 1-D array per column of the history in a weights file or a checkpoint; None without one.

    Those of earlier versions have no checksum, so that anything may stand there.
    """
    with _remedied():
        known = sealed.check(path)
    try:
        rows = json.loads(known.get("twinscore", "{}")).get("history")
        if rows is None:
            return None
        names = rows[0] if rows else ()
        return {name: np.array([row[name] for row in rows], dtype=float) for name in names}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _damaged(path, error) from None


def _read_object(path: Path, *, required: bool = True) -> dict[str, Any]:
    if not required and not path.is_file():
        return {}
    with _remedied():
        return read_json(path)


@contextmanager
def _remedied() -> Iterator[None]:
    """Say of a damaged file what helps."""
    try:
        yield
    except Damaged as error:
        raise Damaged(f"{error}; {AGAIN}") from None


def _read_columns(path: Path) -> dict[str, np.ndarray]:
    """Columns of a table, without a last row that was cut short while being written."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))
        if not rows:
            return {}
        header, body = rows[0], rows[1:]
        if body and len(body[-1]) != len(header):
            body.pop()
        cells = [[float(cell or "nan") for cell in row] for row in body]
        columns = np.array(cells, dtype=float).reshape(len(body), len(header)).T
        return dict(zip(header, columns, strict=True))
    except (OSError, ValueError, csv.Error) as error:
        raise _damaged(path, error) from None


def _damaged(path: Path, error: Exception) -> InputError:
    reason = " ".join(str(error).split())
    return Damaged(f"{path}: cannot be read ({reason}); {AGAIN}")
