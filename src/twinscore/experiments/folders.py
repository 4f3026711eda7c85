"""How every study holds its run folder: made, locked, claimed for one spec, with its log."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file
from safetensors.numpy import save as serialise

from twinscore import runs
from twinscore.errors import InputError
from twinscore.progress import Reporter

ResultT = TypeVar("ResultT")


@dataclass(frozen=True)
class Done(Generic[ResultT]):
    """A finished run: its folder and its numbers."""

    folder: Path
    result: ResultT


def require(spec: Any, field: str, what: str) -> None:
    """Refuse a spec without one of its fields; InputError."""
    if not getattr(spec, field):
        raise InputError(f"--{field}: not given; give {what}")


def require_new(out: Path | None, ends: Sequence[str], what: str) -> None:
    """Refuse a file that is there, or whose name has another end; InputError."""
    if out is None or out.suffix[1:] not in ends:
        raise InputError(f"--out: {out} is not {what}; give one that ends in .{' or .'.join(ends)}")
    if out.exists():
        raise InputError(f"--out: {out} exists; give a new name")


@contextmanager
def run_folder(
    content: Mapping[str, Any], out: Path | None, *, extendable: Sequence[str] = ()
) -> Iterator[tuple[Path, Reporter]]:
    """Hold a run's folder while it runs, and its reporter.

    ``content`` is what the run is: ``study``, its spec, and the digests of what it reads; lists of
    it that are ``extendable`` may have grown. The folder is by default ``runs/<study>-<hash>``.

    Raises
    ------
    InputError
        For a folder of another run or in use.
    """
    folder = out or runs.default_folder(content)
    runs.make_folder(folder)
    with runs.locked(folder), Reporter(folder / "log.txt") as report:
        runs.claim(folder, content, extendable=extendable)
        yield folder, report


def remembered(
    folder: Path, what: str, key: Mapping[str, Any], compute: Callable[[], Mapping[str, Any]]
) -> dict[str, NDArray]:
    """Read the arrays that ``compute`` gave before under this ``key``, or compute and keep them.

    They lie in ``<folder>/<what>-<hash of key>.safetensors``.
    """
    return kept(folder / f"{what}-{runs.digest(key)[:8]}.safetensors", compute)


def kept(path: Path, compute: Callable[[], Mapping[str, Any]]) -> dict[str, NDArray]:
    """Read the arrays of a safetensors file, or compute them and keep them there."""
    if not path.exists():
        arrays = compute()
        runs.make_folder(path.parent)
        write_arrays(path, arrays)
    return load_file(path)


def write_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write a safetensors file."""
    encoded = serialise({name: np.ascontiguousarray(value) for name, value in arrays.items()})
    runs.write_atomic(path, lambda temporary: temporary.write_bytes(encoded))
