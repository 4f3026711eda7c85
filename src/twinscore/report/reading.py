"""Read a run folder: its JSON files, its arrays and the training history of its trials."""

import csv
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open

from twinscore.errors import InputError
from twinscore.results import studies
from twinscore.runs import check_schema, read_json


@dataclass(frozen=True)
class Run:
    """A run folder as reports read it.

    Attributes
    ----------
    folder : Path
        Where it lies.
    study : str
        Name of the study.
    result : Result or None
        What ``result.json`` holds, of the type in ``results/<study>.py``; None until a part of it
        is finished.
    spec, environment : dict
        What ``spec.json`` and ``environment.json`` hold.
    images : bool
        Whether the report may show images.
    """

    folder: Path
    study: str
    result: Any
    spec: dict[str, Any]
    environment: dict[str, Any]
    images: bool = True

    @cached_property
    def arrays(self) -> frozenset[str]:
        """Names of its arrays."""
        return array_names(self)

    def array(self, name: str, first: int | None = None) -> np.ndarray:
        """One of its arrays, or the first entries of it."""
        return array(self, name, first)


@dataclass(frozen=True)
class History:
    """The training history of one trial: a 1-D array per column, NaN where a cell is empty."""

    name: str
    n: int
    twin: str
    replicate: int
    finished: bool
    columns: dict[str, np.ndarray]


def read(folder: Path, *, images: bool = True) -> Run:
    """Read the JSON files of a run folder.

    Parameters
    ----------
    folder
        A run folder, finished or not.
    images
        Whether the report may show images.

    Returns
    -------
    Run
        Its result, spec and environment.

    Raises
    ------
    InputError
        If the folder is no run folder, a file is not valid JSON or its schema is newer.
    """
    folder = Path(folder)
    started = (folder / "result.json").is_file() or (folder / "trials").is_dir()
    if not (started and (folder / "spec.json").is_file()):
        raise InputError(
            f"{folder}: not a run folder: it lacks spec.json, or both result.json and trials/; "
            "give the folder that a study wrote (its --out)"
        )
    spec = _read_object(folder / "spec.json")
    result = _read_object(folder / "result.json", required=False)
    check_schema(folder / "spec.json", spec)
    if result:
        check_schema(folder / "result.json", result)
    study = str(result.get("study", spec.get("study", "transition")))
    return Run(
        folder=folder,
        study=study,
        result=_typed(folder, study, result),
        spec=spec,
        environment=_read_object(folder / "environment.json", required=False),
        images=images,
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


def array_names(run: Run) -> frozenset[str]:
    """List the arrays of a run, none if it has not written any.

    Raises
    ------
    InputError
        If arrays.safetensors cannot be read.
    """
    path = run.folder / "arrays.safetensors"
    if not path.is_file():
        return frozenset()
    try:
        with safe_open(path, framework="numpy") as arrays:
            return frozenset(arrays.keys())
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from error


def array(run: Run, name: str, first: int | None = None) -> np.ndarray:
    """Read one array of a run, or only its first entries.

    Parameters
    ----------
    run
        The run.
    name
        Name of the array, such as ``n00010/samples_a``.
    first
        Read this many entries of the first axis; all of them by default.

    Returns
    -------
    numpy.ndarray
        The array as stored.

    Raises
    ------
    InputError
        If the array cannot be read.
    """
    path = run.folder / "arrays.safetensors"
    try:
        with safe_open(path, framework="numpy") as arrays:
            return arrays.get_slice(name)[slice(first)]
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from error


def histories(run: Run) -> list[History]:
    """Read the training history of every trial that has one, ordered by the trial's name.

    A last row that was cut short while being written is left out.

    Raises
    ------
    InputError
        If a trial's spec or history cannot be read.
    """
    found = []
    for path in sorted((run.folder / "trials").glob("*/history.csv")):
        spec_path = path.parent / "spec.json"
        spec = _read_object(spec_path)
        absent = [key for key in ("n", "twin") if key not in spec]
        if absent:
            raise InputError(f"{spec_path}: has no field {absent[0]!r}; run the study again")
        weights, resume = path.parent / "weights.safetensors", path.parent / "resume.pt"
        found.append(
            History(
                name=path.parent.name,
                n=int(spec["n"]),
                twin=str(spec["twin"]),
                replicate=int(spec.get("replicate", 0)),
                finished=weights.exists() and not resume.exists(),
                columns=_read_columns(path),
            )
        )
    return found


def _read_object(path: Path, *, required: bool = True) -> dict[str, Any]:
    if not required and not path.is_file():
        return {}
    value = read_json(path)
    if not isinstance(value, dict):
        raise InputError(f"{path}: holds no JSON object; run the study again to rewrite it")
    return value


def _read_columns(path: Path) -> dict[str, np.ndarray]:
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    if not rows:
        return {}
    header, body = rows[0], rows[1:]
    if body and len(body[-1]) != len(header):
        body.pop()
    try:
        table = np.array([[float(cell or "nan") for cell in row] for row in body], dtype=float)
    except ValueError as error:
        raise _damaged(path, error) from error
    return dict(zip(header, table.reshape(-1, len(header)).T, strict=True))


def _damaged(path: Path, error: Exception) -> InputError:
    reason = " ".join(str(error).split())
    return InputError(f"{path}: cannot be read ({reason}); run the study again to rewrite it")
