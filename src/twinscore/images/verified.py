"""Which files were read whole and found right: remembered, so that it is done once per file."""

import hashlib
import json
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
        return json.loads(_note(file).read_text(encoding="utf-8")) == _identity(file)
    except (OSError, ValueError, RuntimeError):  # no note, no JSON, no home
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
        runs.write_json(_note(file), _identity(file))
    except (InputError, RuntimeError):
        return


def _note(file: OpenFile) -> Path:
    given = os.environ.get("XDG_CACHE_HOME")
    cache = Path(given) if given else Path.home() / ".cache"
    name = hashlib.sha256(os.fsencode(file.path.absolute())).hexdigest()
    return cache / "twinscore" / "verified" / f"{name}.json"


def _identity(file: OpenFile) -> list[int | str]:
    status = file.status
    return [
        str(file.path.absolute()),
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    ]
