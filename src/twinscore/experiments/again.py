"""Runs whose verdict an earlier version gave by another rule: judged anew from what they keep."""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from twinscore import runs
from twinscore.errors import InputError

JUDGED_SINCE = {"transition": 3, "capacity": 3}
"""Schema version from which on the verdict of a study is by today's rule."""


def judge_again(folder: Path) -> str:
    """Give a finished run of an earlier version the verdict of today, in its ``result.json``.

    Nothing is trained; samples are drawn anew where the kept ones have no checksum. A run whose
    images or networks are not there any more keeps its verdict: the text returned says so. It is
    empty where there is nothing to do, which is mostly.
    """
    try:
        result, spec = (runs.read_json(folder / f"{what}.json") for what in ("result", "spec"))
    except InputError:  # unfinished, or for the report to complain of
        return ""
    version, name = result.get("schema_version"), result.get("study")
    if name not in JUDGED_SINCE or not isinstance(version, int) or version >= JUDGED_SINCE[name]:
        return ""
    try:
        _run(name, spec, folder)
    except (InputError, ValidationError) as error:
        reason = error if isinstance(error, InputError) else "its spec is of an earlier version"
        return f"{folder}: has the verdict of the version that wrote it: {reason}"
    return f"{folder}: was written by an earlier version; judged anew"


def _run(name: str, content: Mapping[str, Any], folder: Path) -> None:
    study = import_module(f"twinscore.experiments.{name}").STUDY
    fields = {field: content[field] for field in study.spec.model_fields if field in content}
    spec = study.spec.model_validate(fields)
    tasks = [task.placed(folder, "", "cpu", None) for task in study.tasks(spec, lambda *_: None)]
    if missing := sum(not task.trained for task in tasks):
        raise InputError(
            f"{missing} of its {len(tasks)} networks are missing, or this version would train "
            "them on other images"
        )
    study.run(spec, folder)
