"""Write a model with its code, for programs that know nothing of this package."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from twinscore import environment, runs
from twinscore.denoisers import Checkpoint, exporting, load
from twinscore.errors import InputError
from twinscore.execution import settled_torch
from twinscore.experiments.folders import require, require_end
from twinscore.limits import Sigma
from twinscore.results.base import Frozen, Settings

_ENDS = {"torch-export": ("pt2",), "onnx": ("onnx",)}


class Spec(Settings):
    """Which model, and who is to read it."""

    model: str = ""
    """A trial folder, its weights file, or another model (docs/models.md)."""
    format: Literal["torch-export", "onnx", "diffusers"] = "torch-export"
    """torch-export: a .pt2 file; onnx: an .onnx file; diffusers: a folder whose pipeline diffusers
    runs with trust_remote_code."""
    sigma_max: Sigma = 1.0
    """diffusers: noise level at which its pipeline begins, image units: of a network that is told
    the level, the largest that it was trained on."""


class Result(Frozen):
    """What was written, and for which images."""

    path: Path
    shape: tuple[int | None, int | None, int | None]
    free: bool

    def table(self) -> str:
        """What it takes."""
        channels, height, width = self.shape
        size = "of any size" if self.free else f"of {height}x{width} alone"
        return f"takes images of {channels} channel{'s' * (channels != 1)}, {size}"


@settled_torch()
def run(spec: Spec, out: Path | str | None = None, *, threads: int | None = None) -> Result:
    """Write a new file or folder, once it is known to give the model's estimates.

    Those that are read back differ by at most ``TOLERANCE max(1, sigma)``. It is written under a
    temporary name, and renamed.

    Raises
    ------
    InputError
        For a missing model, one that no graph can hold, or ``out`` that exists or ends otherwise.
    """
    environment.check("cpu", threads=threads)
    with settled_torch(environment.own_threads(threads)):
        return _exported(spec, out)


def _exported(spec: Spec, out: Path | str | None) -> Result:
    require(spec, "model", "a trial folder or another model (docs/models.md)")
    out = _free(spec, out)
    if spec.format == "diffusers" and spec.model.startswith("diffusers:"):
        raise InputError(f"--format: {spec.model} is a folder of diffusers already; copy it")
    model = load(spec.model)
    try:
        graph = exporting.traced(model)
        _written(out, _writer(spec, model, graph))
    except InputError as error:
        reason = str(error).replace("--model: ", f"--model: {spec.model} ", 1)
        raise InputError(reason) from None
    return Result(path=out, shape=model.shape, free=graph.free)


def _free(spec: Spec, out: Path | str | None) -> Path:
    """Where to write, once nothing is there."""
    if ends := _ENDS.get(spec.format):
        out = require_end(out, ends, f"a file for {spec.format}")
    elif out is None:
        raise InputError("--out: not given; give the name of a new folder")
    runs.require_utf8("--out", out)
    if Path(out).exists():
        raise InputError(f"--out: {out} exists; give a new name")
    return Path(out)


def _writer(spec: Spec, model: Checkpoint, graph: exporting.Traced) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        if spec.format == "diffusers":
            exporting.write_pipeline(path, model, graph, spec.sigma_max)
        elif spec.format == "onnx":
            exporting.write_onnx(path, model, graph)
        else:
            exporting.write_program(path, model, graph)

    return write


def _written(out: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` fill a temporary file or folder beside ``out``, and rename it."""
    temporary = out.with_name(f"{runs.TEMPORARY}{os.getpid()}-{out.name}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        temporary.rename(out)
    except OSError as error:
        raise InputError(f"{out}: cannot be written: {error.strerror or error}") from None
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        temporary.unlink(missing_ok=True)
