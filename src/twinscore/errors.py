"""What the command line says in one line: bad input is exit code 2, a run that failed is 1."""

import sys
from contextlib import suppress


class InputError(ValueError):
    """What the caller gave cannot be used.

    The message is one line that names the file, flag or field, says what was wrong with it and
    what would be right.
    """


class Damaged(InputError):  # noqa: N818
    """A file of a run folder is not what was written there, or belongs to something else."""


class RunFailed(RuntimeError):  # noqa: N818
    """A run cannot go on, for a reason that lies neither in its input nor in this package.

    The message is one line; what was finished is kept.
    """


def one_line(error: BaseException) -> str:
    """What an exception says, on one line; its type's name where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__


def say(text: str) -> None:
    """Print on stderr; where nobody can hear it, the work goes on."""
    if sys.stderr is not None:  # print would take stdout
        with suppress(OSError, ValueError):
            print(text, file=sys.stderr, flush=True)
