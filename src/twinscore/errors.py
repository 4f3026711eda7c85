"""The one exception for bad input: the command line prints it as one line and exits with 2."""


class InputError(ValueError):
    """What the caller gave cannot be used.

    The message is one line that names the file, flag or field, says what was wrong with it and
    what would be right.
    """


class Damaged(InputError):  # noqa: N818
    """A file of a run folder is not what was written there, or belongs to something else."""


def one_line(error: BaseException) -> str:
    """What an exception says, on one line; its type's name where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__
