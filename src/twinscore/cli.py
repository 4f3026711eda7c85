"""The command line: exit codes, signals, and one line for every error."""

import os
import sys
from collections.abc import Sequence
from contextlib import suppress

from twinscore.errors import InputError, RunFailed, one_line, say
from twinscore.interrupts import STOPPED, Interrupts, listening

TOOLS = {
    "prepare": "pack images into one file that every command maps",
    "train": "train one denoiser",
    "sample": "draw samples from a model",
    "export": "write a model for other programs: torch.export, ONNX, diffusers",
    "report": "draw the report of a run folder",
}


def commands() -> dict[str, str]:
    """Name and purpose of every command."""
    from twinscore.results import studies

    return TOOLS | {name.replace("_", "-"): purpose for name, purpose in studies().items()}


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``twinscore`` with ``argv`` and return its exit code.

    0; 2 for bad input; 1 when the run failed, or what ``--fail-if`` says is so; 3 for an audit that
    is inconclusive; 130 after Ctrl-C, with the command that resumes. By
    default it is the whole program, with the words of the command line: signals and the standard
    streams are its own until the process ends.
    """
    program = argv is None
    words = list(sys.argv[1:] if program else argv)
    interrupts = Interrupts("twinscore: stopped", program=program)
    try:
        if program:
            _open_streams()
        with listening(interrupts):
            interrupts.farewell += f"; continue with: twinscore {_quoted(words)}"
            code = _call(words, interrupts)
            interrupts.done = True
    except KeyboardInterrupt:
        say(interrupts.farewell)
        code, interrupts.done = STOPPED, True
    if program:
        _close_streams()
    return code


def _call(words: Sequence[str], interrupts: Interrupts) -> int:
    """Do what the words ask for; whatever is raised becomes one line and an exit code."""
    try:
        code = _do(words)
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except InputError as error:
        say(f"twinscore: {one_line(error)}")
        return 2
    except BrokenPipeError:  # who reads stdout has seen enough, and the work is done
        return 0
    except Exception as error:
        if interrupts.came:  # and was taken for a failure by what it came in the way of
            raise KeyboardInterrupt from None
        if os.environ.get("TWINSCORE_DEBUG"):
            import traceback

            say(traceback.format_exc())
        say(f"twinscore: {_what_failed(error)}")
        return 1


def _do(words: Sequence[str]) -> int:
    if not words or words[0] in {"-h", "--help"}:
        print(_help())
        return 0 if words else 2
    if words[0] == "--version":
        from twinscore import __version__

        print(f"twinscore {__version__}")
        return 0
    if words[0] == "--print-completion":
        return _complete(words[1:])
    command = words[0].replace("_", "-")
    if command not in commands():
        raise InputError(_no_such_command(words[0]))
    from twinscore.commands import call

    with suppress(SystemExit):  # after --help
        return call(command.replace("-", "_"), words[1:])
    return 0


def _complete(words: Sequence[str]) -> int:
    from twinscore.commands import complete
    from twinscore.options import SHELLS

    if len(words) != 1 or words[0] not in SHELLS:
        raise InputError(f"--print-completion: name a shell: {', '.join(SHELLS)}")
    with suppress(SystemExit):  # once it is printed
        complete(words[0], list(commands()))
    return 0


def _no_such_command(typed: str) -> str:
    from difflib import get_close_matches

    near = get_close_matches(typed.lower(), commands(), n=1)
    if typed.startswith("-") and not near:
        return f"{' '.join(typed.split())[:80]}: give a command first; --help lists them"
    hint = f"did you mean {near[0]}?" if near else f"give one of {', '.join(commands())}"
    return f"{' '.join(typed.split())[:80]}: no such command; {hint}"


def _what_failed(error: Exception) -> str:
    if isinstance(error, MemoryError) or _is_out_of_memory(error):
        return f"failed: out of memory: {one_line(error)}"
    if isinstance(error, RunFailed | OSError):
        return f"failed: {one_line(error)}"
    return (
        f"bug: {type(error).__name__}: {one_line(error)}; please report it with the output of the "
        "same command under TWINSCORE_DEBUG=1"
    )


def _is_out_of_memory(error: Exception) -> bool:
    """Whether torch had no memory left, on an accelerator or the host."""
    return type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)


def _quoted(words: Sequence[str]) -> str:
    import shlex

    return shlex.join(words)


def _help() -> str:
    width = max(map(len, commands())) + 2
    lines = [f"  {name:{width}}{text}" for name, text in (commands()).items()]
    return "\n".join(
        [
            "usage: twinscore COMMAND [--spec NAME|file.yaml] [options]",
            "",
            "Did your diffusion model learn the distribution, or the training set?",
            "",
            *lines,
            "",
            "--spec sets all options at once, and flags override it: a YAML file, or one shipped:",
            *(f"  {study:{width}}{', '.join(names)}" for study, names in _specs().items()),
            "",
            "twinscore COMMAND --help shows the options of a command, COMMAND --print-spec their",
            "values as such a file; twinscore --print-completion bash|zsh prints a script for",
            "the shell, which then completes them; twinscore --version prints the version.",
        ]
    )


def _specs() -> dict[str, list[str]]:
    """Names of the shipped specs of each command."""
    from twinscore.spec_files import shipped

    by_command: dict[str, list[str]] = {}
    for name, command in shipped().items():
        by_command.setdefault(command, []).append(name)
    return dict(sorted(by_command.items()))


def _open_streams() -> None:
    """Let no file that is opened later take the place of a standard stream that is closed.

    What stdout cannot encode is written with backslashes, as stderr does.
    """
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
        if getattr(sys, name) is None:
            mode = "w" if descriptor else "r"
            setattr(sys, name, os.fdopen(descriptor, mode, closefd=False))
    sys.stdout.reconfigure(errors="backslashreplace")


def _close_streams() -> None:
    """Drop what stdout and stderr could not write, so that the interpreter does not try again."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
