"""Which files were read whole and found right: remembered, so that it is done once per file."""

import hashlib
import os
import time
from pathlib import Path

from twinscore import runs
from twinscore.errors import InputError
from twinscore.images.mapping import OpenFile

_SETTLED_SECONDS = 2.0


def is_verified(file: OpenFile) -> bool:
    """Whether :func:`remember` was told of this file, and it has not been changed since."""
    try:
        return runs.read_json(_note(file)) == _identity(file)
    except (InputError, RuntimeError):  # no note, no JSON, no home
        return False


def remember(file: OpenFile) -> None:
    """Note in the user's cache folder that a file was found right.

    The note is a small file in ``$XDG_CACHE_HOME/twinscore/verified`` (or below ``~/.cache``), of
    the path, device, inode, size, and the times of the last change of content and of inode. A file
    that was changed less than two seconds ago is not noted, since another change could bear the
    same time; nor is any where the folder cannot be written. Each is then verified again.
    """
    latest = max(file.status.st_mtime, file.status.st_ctime)
    if time.time() - latest < _SETTLED_SECONDS:
        return
    try:
        runs.make_folder(_note(file).parent)
        runs.write_json(_note(file), _identity(file))
    except (InputError, RuntimeError):
        return


def _note(file: OpenFile) -> Path:
    given = os.environ.get("XDG_CACHE_HOME")
    cache = Path(given) if given else Path.home() / ".cache"
    name = hashlib.sha256(os.fsencode(file.path.absolute())).hexdigest()
    return cache / "twinscore" / "verified" / f"{name}.json"


def _identity(file: OpenFile) -> dict[str, int | str]:
    names = ("st_dev", "st_ino", "st_size", "st_mtime_ns", "st_ctime_ns")
    status = {name: getattr(file.status, name) for name in names}
    return {"path": str(file.path.absolute())} | status
