"""What follows ``diffusers:``: a folder, and how its network is to be conditioned."""

import re
from dataclasses import dataclass
from pathlib import Path

from twinscore.errors import InputError, one_line

OPTIONS = ("class", "null", "guidance")
"""Each takes a number; a prompt comes last."""
_HUB = "hf:"
_NAME = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Asked:
    """``PATH,class=K,null=K,guidance=W,prompt=TEXT``; None for what is not given."""

    path: Path
    label: int | None = None
    null: int | None = None
    guidance: float | None = None
    prompt: str | None = None

    @property
    def guided(self) -> bool:
        """Whether the class or prompt counts for more or less than it does by itself."""
        return self.guidance not in (None, 1.0)


def parse(body: str) -> Asked:
    """Read the body of a model string; a prompt, which is the last, may hold commas.

    ``hf:OWNER/NAME`` in place of the path is fetched from the hub, or found where it was fetched.

    Raises
    ------
    InputError
        If there is no such folder, or an option is not one of these, or not a number.
    """
    before, mark, prompt = body.partition(",prompt=")
    if mark and not prompt.strip():
        raise InputError("prompt= is empty; give a text after it")
    path, *words = before.split(",")
    while words and "=" not in words[0]:  # of a path with commas
        path += f",{words.pop(0)}"
    given: dict[str, str] = {}
    for word in words:
        name, _, value = word.partition("=")
        if name not in OPTIONS or name in given:
            wrong = "is given twice" if name in given else "is not an option"
            known = ", ".join(f"{each}=" for each in OPTIONS)
            raise InputError(f"{word!r} {wrong}; known are {known} and, last, prompt=")
        given[name] = value
    return Asked(
        _folder(path),
        _whole(given, "class"),
        _whole(given, "null"),
        _number(given, "guidance"),
        prompt if mark else None,
    )


def _folder(path: str) -> Path:
    if path.startswith(_HUB):
        return _fetched(path.removeprefix(_HUB))
    if not Path(path).is_dir():
        hub = f", or diffusers:{_HUB}{path} to fetch it" if _NAME.fullmatch(path) else ""
        raise InputError(f"is not a folder; give one that save_pretrained wrote{hub}")
    return Path(path)


def _fetched(name: str) -> Path:
    """The folder of a name of the hub; the library keeps what it fetched."""
    if not _NAME.fullmatch(name):
        raise InputError(f"{name!r} is not a name of the hub; give {_HUB}OWNER/NAME")
    from diffusers import DiffusionPipeline

    try:
        found = DiffusionPipeline.download(name, use_safetensors=True, trust_remote_code=False)
    except Exception as error:  # of the network, the hub, or what lies there
        raise InputError(f"cannot be fetched: {one_line(error)}") from None
    return Path(found)


def _whole(given: dict[str, str], name: str) -> int | None:
    value = given.get(name)
    if value is not None and not (value.isascii() and value.isdecimal()):
        raise InputError(f"{name}={value!r} is not a number; give {name}=0, 1, ...")
    return None if value is None else int(value)


def _number(given: dict[str, str], name: str) -> float | None:
    value = given.get(name)
    try:
        number = None if value is None else float(value)
    except ValueError:
        number = float("nan")
    if number is not None and not 0 <= number <= 1000:
        raise InputError(f"{name}={value!r} is not a number from 0 to 1000")
    return number
