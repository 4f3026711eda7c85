"""A run is a folder: hashes that address it, atomic writes, the lock and derived seeds."""

import contextlib
import hashlib
import json
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import filelock
from safetensors import SafetensorError

from twinscore.errors import InputError

SCHEMA_VERSION = 1


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

    Raises
    ------
    InputError
        If the folder cannot be written or the disk is full; the temporary file is removed and what
        was at ``path`` is untouched.
    """
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write(temporary)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror or error}") from None
    except (SafetensorError, RuntimeError) as error:  # what safetensors and torch.save raise
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: cannot be written (is the disk full?): {reason}") from None


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 ``text`` to ``path`` atomically; errors as :func:`write_atomic`."""
    write_atomic(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON (no NaN) atomically; errors as :func:`write_atomic`."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file of a run folder.

    Raises
    ------
    InputError
        If the file is missing, unreadable or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: not found; is {path.parent} a run folder?") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON: {error}") from None


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
        for stale in folder.glob(".*.tmp*"):  # what a killed process was writing
            stale.unlink(missing_ok=True)
        write_text(holder, f"process {os.getpid()} on {socket.gethostname()}")
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def _read_holder(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:  # it has the lock and is about to say so
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
    return {key: value for key, value in spec.items() if f"{key}_digest" not in spec}


def default_folder(spec: dict[str, Any]) -> Path:
    """``runs/<study>-<hash8>`` for a spec with a ``study``."""
    return Path("runs") / f"{spec['study']}-{digest(identity(spec))[:8]}"


def claim(folder: Path, spec: dict[str, Any], extendable: Sequence[str] = ()) -> None:
    """Make ``folder`` the run of ``spec``: new, continued, or extended. Writes ``spec.json``.

    Parameters
    ----------
    folder : Path
        An existing folder.
    spec : dict
        JSON values; ``data`` names the images, ``data_digest`` is their content; likewise
        for any other place.
    extendable : sequence of str
        Fields that hold lists and may grow.

    Raises
    ------
    InputError
        If the folder holds another run, naming the fields that differ, a newer schema, or files
        that are not a run.
    """
    path = folder / "spec.json"
    if not path.exists():
        if any(not entry.name.startswith(".") for entry in folder.iterdir()):
            raise InputError(f"{folder}: holds files but no run; give an empty or new --out")
    else:
        old = read_json(path)
        check_schema(path, old)
        old.pop("schema_version")
        fields = []
        for name in differing_fields(identity(old), identity(spec)):
            if name not in extendable or not set(old.get(name, [])) <= set(spec[name]):
                fields.append(name.removesuffix("_digest"))
        if fields:
            differing = ", ".join(dict.fromkeys(fields))
            raise InputError(
                f"{folder}: holds a run of another spec (differs in {differing}); "
                "repeat that spec to continue it, or give another --out"
            )
    write_json(path, {"schema_version": SCHEMA_VERSION} | spec)


def check_schema(path: Path, content: Any) -> None:
    """Refuse a file of a run folder that this version cannot read.

    Raises
    ------
    InputError
        If ``content`` has no ``schema_version`` or a newer one.
    """
    version = content.get("schema_version") if isinstance(content, dict) else None
    if not isinstance(version, int):
        raise InputError(f"{path}: has no schema_version; it was not written by twinscore")
    if version > SCHEMA_VERSION:
        raise InputError(
            f"{path}: schema_version {version} is newer than {SCHEMA_VERSION}, the newest this "
            "version reads; upgrade twinscore"
        )


def now() -> str:
    """Current time, ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")
