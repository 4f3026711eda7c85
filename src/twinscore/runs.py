"""A run is a folder: hashes that address it, atomic writes, the lock and derived seeds."""

import contextlib
import hashlib
import json
import os
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import filelock
from safetensors import SafetensorError

from twinscore.errors import Damaged, InputError, one_line

SCHEMA_VERSION = 3
"""Of JSON files; since 2 they have a checksum."""
_SEALED = range(2, SCHEMA_VERSION + 1)
SHA256 = "sha256"
"""The field or metadatum that holds a checksum."""
TEMPORARY = ".twinscore-tmp-"
"""How names of temporary files begin: nobody else's do."""


def canonical_json(value: Any) -> str:
    """JSON text that depends on the value alone: keys sorted, no spaces, NaN refused."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(value: Any) -> str:
    """SHA-256 hex digest of :func:`canonical_json`."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def derive_seed(*parts: int | str) -> int:
    """Independent 63-bit seed for each list of parts, e.g. ``derive_seed(seed, "noise", step)``.

    Distinct parts give unrelated streams, so that no two draws of a study share randomness
    by accident.
    """
    return int(digest(list(parts))[:16], 16) >> 1


def write_atomic(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary file next to ``path``, then rename it into place.

    File and folder are synced to the disk.

    Raises
    ------
    InputError
        If the folder is not there or cannot be written, or the disk is full; the temporary file is
        removed and what was at ``path`` is untouched.
    """
    temporary = path.with_name(f"{TEMPORARY}{os.getpid()}-{path.name}")
    try:
        try:
            write(temporary)
            _sync(temporary)
            temporary.replace(path)
            _sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        gone = "its folder is gone" if not path.parent.is_dir() else ""
        raise InputError(f"{path}: cannot be written: {gone or error.strerror or error}") from None
    except (SafetensorError, RuntimeError) as error:  # what safetensors and torch.save raise
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: cannot be written (is the disk full?): {reason}") from None


def _sync(path: Path) -> None:
    if path.is_dir() and os.name == "nt":  # Windows opens no folders
        return
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 ``text`` to ``path`` atomically; errors as :func:`write_atomic`."""
    write_atomic(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` atomically; errors as :func:`write_atomic`."""
    write_atomic(path, lambda temporary: temporary.write_bytes(content))


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write an object as indented JSON (no NaN) with its checksum; errors as ``write_atomic``."""
    own = {name: item for name, item in value.items() if name != SHA256}
    whole = own | {SHA256: digest(own)}
    write_text(path, json.dumps(whole, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read an object that :func:`write_json` wrote, without its checksum.

    Files of ``schema_version`` 1 may lack the checksum: earlier ones had none.

    Raises
    ------
    InputError
        If there is no such file.
    Damaged
        If it is unreadable, not a JSON object, or not what was written.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(value, dict):
            raise ValueError("it is not a JSON object")
        stated = value.pop(SHA256, None)
        sealed = stated is not None or value.get("schema_version") in _SEALED
        same = stated == digest(value) if sealed else True
    except FileNotFoundError:
        raise InputError(f"{path}: not found; is {path.parent} a run folder?") from None
    except (OSError, ValueError, RecursionError) as error:
        raise Damaged(f"{path}: cannot be read as JSON: {one_line(error)}") from None
    if not same:
        raise Damaged(f"{path}: was changed after it was written: its checksum is another")
    return value


def make_folder(folder: Path) -> None:
    """Create ``folder`` and its parents.

    Raises
    ------
    InputError
        If that is not possible.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError(13, "permission denied")
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be used as an output folder: {error.strerror}"
        ) from None


def make_within(folder: Path, inner: Path) -> Path:
    """Create ``inner``, a folder somewhere below ``folder``, which must be there; gives ``inner``.

    Raises
    ------
    InputError
        If ``folder`` is gone, since what is written below would lack the rest, or it cannot be
        written.
    """
    try:
        for part in (*reversed(inner.relative_to(folder).parents), inner.relative_to(folder)):
            if part.parts:
                (folder / part).mkdir(exist_ok=True)
    except FileNotFoundError:
        raise InputError(
            f"{folder}: was deleted while a run was writing it; run it again"
        ) from None
    except OSError as error:
        raise InputError(f"{inner}: cannot be made: {error.strerror or error}") from None
    return inner


@contextlib.contextmanager
def held(
    folder: Path, spec: dict[str, Any], extendable: Sequence[str] = ()
) -> Iterator[str | None]:
    """Hold a run folder of ``spec``: made, locked, claimed, without what a killed run left half.

    Yields what :func:`claim` says. Only a folder that is new, empty or this run's is touched.

    Raises
    ------
    InputError
        As :func:`claim` and :func:`locked` do.
    """
    if folder.is_dir():
        _check(folder, spec, extendable)
    make_folder(folder)
    with locked(folder):
        said = claim(folder, spec, extendable)
        clear_temporaries(folder)
        yield said


def require_utf8(what: str, text: Path | str) -> None:
    """Refuse bytes that are not UTF-8: neither JSON nor safetensors take them.

    Raises
    ------
    InputError
        If the text has some; begins with ``what`` it is.
    """
    try:
        str(text).encode("utf-8")
    except UnicodeEncodeError:
        more = "" if sys.getfilesystemencoding() == "utf-8" else ", or set PYTHONUTF8=1"
        raise InputError(
            f"{what}: {str(text)!a} is not UTF-8; give it another name{more}"
        ) from None


def clear_temporaries(folder: Path) -> None:
    """Delete what killed processes were writing, anywhere below a folder that is locked."""
    for stale in folder.rglob(f"{TEMPORARY}*"):
        stale.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(folder: Path, timeout: float = 0.0) -> Iterator[None]:
    """Hold ``folder/.lock`` so that two processes cannot write one folder.

    The lock is released by the operating system when its holder dies, however it dies.

    Raises
    ------
    InputError
        If another process still holds it after ``timeout`` seconds; names process and host.
    """
    lock = filelock.FileLock(folder / ".lock")
    holder = folder / ".lock.holder"
    try:
        lock.acquire(timeout=timeout, poll_interval=0.05)
    except filelock.Timeout:
        raise InputError(
            f"{folder}: in use by {_read_holder(holder)}; wait for it or choose another --out"
        ) from None
    except OSError as error:
        raise InputError(f"{folder}: cannot be locked: {error.strerror or error}") from None
    try:
        with contextlib.suppress(OSError):  # it only serves to be named
            holder.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def _read_holder(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8") or "another process"
    except (OSError, ValueError):  # it has the lock and is about to say so
        return "another process"


def differing_fields(old: Any, new: Any, prefix: str = "") -> list[str]:
    """Dotted names of the fields in which two nested dicts differ, sorted."""
    if isinstance(old, dict) and isinstance(new, dict):
        names: list[str] = []
        for key in sorted(old.keys() | new.keys()):
            names += differing_fields(
                old.get(key), new.get(key), f"{prefix}.{key}" if prefix else key
            )
        return names
    return [] if old == new else [prefix]


def identity(spec: dict[str, Any]) -> dict[str, Any]:
    """The part of a run's spec that its hash covers.

    What names a place (``data``, say) is replaced by the digest of its content (``data_digest``).
    """
    return {
        key: identity(value) if isinstance(value, dict) else value
        for key, value in spec.items()
        if f"{key}_digest" not in spec
    }


def default_folder(spec: dict[str, Any]) -> Path:
    """``runs/<study>-<hash8>`` for a spec with a ``study``."""
    return Path("runs") / f"{spec['study']}-{digest(identity(spec))[:8]}"


def run_digest(spec: dict[str, Any], extendable: Sequence[str] = ()) -> str:
    """Names a run whatever its ``extendable`` lists hold."""
    fixed = {key: value for key, value in identity(spec).items() if key not in extendable}
    return digest(fixed)


def claim(folder: Path, spec: dict[str, Any], extendable: Sequence[str] = ()) -> str | None:
    """Make ``folder`` the run of ``spec``: new, continued, or extended. Writes ``spec.json``.

    Parameters
    ----------
    folder : Path
        An existing folder.
    spec : dict
        JSON values; ``data`` names the images, ``data_digest`` is their content; likewise
        for any other place.
    extendable : sequence of str
        Fields that may change: lists, which may grow, and what no task depends on.

    Returns
    -------
    str or None
        What to tell the user: a damaged or missing ``spec.json`` was written anew.

    Raises
    ------
    InputError
        If the folder holds another run, naming the fields that differ, a newer schema, or files
        that are not a run.
    """
    said = _check(folder, spec, extendable)
    write_json(folder / "spec.json", {"schema_version": SCHEMA_VERSION} | spec)
    return said


def _check(folder: Path, spec: dict[str, Any], extendable: Sequence[str]) -> str | None:
    """Refuse a folder that cannot become the run of ``spec``, as :func:`claim` says; only reads."""
    path = folder / "spec.json"
    if not path.exists():
        if all(entry.name.startswith(".") for entry in folder.iterdir()):
            return None
        if _is_this(folder, spec, extendable):
            return f"{path}: was missing; written anew"
        raise InputError(f"{folder}: holds files but no run; give an empty or new --out")
    try:
        old = read_json(path)
    except Damaged as error:
        if _is_this(folder, spec, extendable):
            return f"{error}; written anew"
        raise Damaged(
            f"{error}, so that nobody knows what run this is; move {folder} away or give another "
            "--out"
        ) from None
    check_schema(path, old)
    old.pop("schema_version")
    fields = []
    for name in differing_fields(identity(old), identity(spec)):
        top = name.partition(".")[0]
        if top not in extendable or not _may_become(old.get(top), spec[top]):
            fields.append(name.removesuffix("_digest"))
    if fields:
        differing = ", ".join(dict.fromkeys(fields))
        raise InputError(
            f"{folder}: holds a run of another spec (differs in {differing}); "
            "repeat that spec to continue it, or give another --out"
        )
    return None


def _may_become(old: Any, new: Any) -> bool:
    if not isinstance(new, list):
        return True
    return isinstance(old, list) and all(item in new for item in old)


def _is_this(folder: Path, spec: dict[str, Any], extendable: Sequence[str]) -> bool:
    """Whether ``environment.json``, which names the run too, is that of ``spec``."""
    try:
        known = read_json(folder / "environment.json")
    except InputError:
        return False
    return known.get("run") == run_digest(spec, extendable)


def check_schema(path: Path, content: Any) -> None:
    """Refuse a file of a run folder that this version cannot read.

    Raises
    ------
    InputError
        If ``content`` has no ``schema_version`` or a newer one.
    """
    version = content.get("schema_version") if isinstance(content, dict) else None
    if type(version) is not int or version < 1:
        raise InputError(f"{path}: has no schema_version; it was not written by twinscore")
    if version > SCHEMA_VERSION:
        raise InputError(
            f"{path}: schema_version {version} is newer than {SCHEMA_VERSION}, the newest this "
            "version reads; upgrade twinscore"
        )


def now() -> str:
    """Current time, ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")
