"""Metadata of Parquet files, looked at in a child first: pyarrow aborts on some damaged ones."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from twinscore.errors import InputError
from twinscore.images.quiet import quiet


def require_sound(paths: Sequence[Path]) -> None:
    """Refuse Parquet files whose metadata would end this process, as soon as they were looked at.

    Other faults are left to the reader, which raises errors for them. Where there is no fork,
    nothing is looked at.

    Raises
    ------
    InputError
        Naming the first such file.
    """
    if not hasattr(os, "fork"):
        return
    sys.stderr.flush()
    receiver, sender = os.pipe()
    with quiet():  # Python warns of forks beside threads; the child starts none and takes no lock
        child = os.fork()
    if child == 0:
        try:
            _look(paths, sender)
        finally:
            os._exit(0)
    os.close(sender)
    with os.fdopen(receiver, "rb") as told:
        sound = len(told.read())
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) < 0 and sound < len(paths):
        raise InputError(
            f"{str(paths[sound])!r}: cannot be read (its metadata are damaged); "
            "give a whole Parquet file"
        )


def _look(paths: Sequence[Path], sender: int) -> None:
    """Look at each column of each file, and tell of each file."""
    from pyarrow import parquet

    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    for path in paths:
        try:
            with parquet.ParquetFile(path) as file:
                for row_group in range(file.num_row_groups):
                    group = file.metadata.row_group(row_group)
                    for column in range(group.num_columns):
                        group.column(column)
        except Exception as error:  # the reader will say what is wrong
            del error
        os.write(sender, b".")
