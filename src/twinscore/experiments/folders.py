"""How runs hold their folders, what is kept in them, and how a single file is made."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from numpy.typing import NDArray

from twinscore import runs, sealed
from twinscore.errors import Damaged, InputError
from twinscore.execution import Report
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


def require_end(out: Path | str | None, ends: Sequence[str], what: str) -> Path:
    """Refuse a file whose name has another end, or none at all; InputError."""
    if out is None or Path(out).suffix[1:] not in ends:
        found = "not given" if out is None else f"{out} is not {what}"
        raise InputError(f"--out: {found}; give one that ends in .{' or .'.join(ends)}")
    return Path(out)


@contextmanager
def run_folder(
    content: Mapping[str, Any], out: Path | str | None, *, extendable: Sequence[str] = ()
) -> Iterator[tuple[Path, Reporter]]:
    """Hold a run's folder while it runs, and its reporter.

    ``content`` is what the run is: ``study``, its spec, and the digests of what it reads; lists of
    it that are ``extendable`` may have grown. The folder is by default ``runs/<study>-<hash>``.

    Raises
    ------
    InputError
        For a folder of another run or in use.
    """
    folder = Path(out or runs.default_folder(content))
    runs.require_utf8("--out", folder)
    with runs.held(folder, content, extendable) as said, Reporter(folder / "log.txt") as report:
        if said:
            report("files", {"text": said})
        yield folder, report


@dataclass(frozen=True)
class Making:
    """A file on its way: ``whole`` is where to write it, beside what else survives a break.

    ``told`` holds what is to be told of it: JSON values, to be filled unless it is ``done``.
    """

    whole: Path
    done: bool
    told: dict[str, Any]


@contextmanager
def making(out: Path, content: Mapping[str, Any]) -> Iterator[Making]:
    """Make a new file in a hidden folder beside it, which is gone when the file is there.

    It is ``done`` if the file was finished when an earlier run was killed. ``content`` is what the
    file is made of.

    Raises
    ------
    InputError
        If ``out`` exists, or its folder is in use or holds something else.
    """
    runs.require_utf8("--out", out)
    parts = out.with_name(f".{out.name}.parts")
    whole, finished = parts / f"whole{out.suffix}", parts / "finished.json"
    exists = InputError(f"--out: {out} exists; give a new name")
    if out.exists() and not finished.exists():
        if parts.is_dir():
            _leave(parts, [parts])
        raise exists
    made = [folder for folder in (parts, *parts.parents) if not folder.exists()]
    with runs.held(parts, dict(content)):
        try:
            done = finished.exists() and not whole.exists()
            file = Making(whole, done, _told(finished, out) if done else {})
            if not done:
                finished.unlink(missing_ok=True)
            yield file
            if not done:
                runs.write_json(finished, file.told)
                if out.exists():
                    raise exists
                whole.replace(out)
            for path in _inside(parts):
                path.unlink()
            finished.unlink()
        finally:
            _leave(parts, made or [parts])


def _told(finished: Path, out: Path) -> dict[str, Any]:
    """What was told of a file that is finished."""
    try:
        return runs.read_json(finished)
    except Damaged as error:
        raise Damaged(f"{error}; {out} is finished: delete the folder {finished.parent}") from None


def _leave(parts: Path, folders: Sequence[Path]) -> None:
    """Remove a hidden folder and those made for it, unless something is kept in it."""
    if _inside(parts) or (parts / "finished.json").exists():
        return
    for name in ("spec.json", ".lock.holder", ".lock"):
        (parts / name).unlink(missing_ok=True)
    with suppress(OSError):  # those around it may be in use
        for folder in folders:
            folder.rmdir()


def _inside(parts: Path) -> list[Path]:
    own = ("finished.json", "spec.json", ".lock", ".lock.holder")
    return [path for path in parts.iterdir() if path.name not in own]


def remembered(
    folder: Path,
    what: str,
    key: Mapping[str, Any],
    compute: Callable[[], Mapping[str, Any]],
    *,
    of: str,
    report: Report,
) -> dict[str, NDArray]:
    """Read the arrays that ``compute`` gave before under this ``key``, or compute and keep them.

    They lie in ``<folder>/<what>-<hash of key>.safetensors``; the rest as :func:`kept`.
    """
    path = folder / f"{what}-{runs.digest(key)[:8]}.safetensors"
    return kept(path, compute, of=runs.digest([of, key]), report=report)


def kept(
    path: Path, compute: Callable[[], Mapping[str, Any]], *, of: str, report: Report
) -> dict[str, NDArray]:
    """Read the arrays of a safetensors file, or compute them and keep them there.

    ``of`` names all that they depend on. A file that is damaged, or of something else, is named to
    ``report`` and computed again.
    """
    of = runs.digest([path.name, of])
    if path.exists():
        try:
            return sealed.read_arrays(path, of)
        except Damaged as error:
            report("files", {"text": f"{error}; computed again"})
    sealed.write_arrays(path, compute(), of)
    return sealed.read_arrays(path, of)
