"""Shrinkage estimators by name, for ``threshold:BASIS``: nothing is fitted."""

from collections.abc import Callable
from typing import Any

from twinscore.denoisers.checkpoint import Checkpoint
from twinscore.denoisers.published import UNKNOWN_MEAN
from twinscore.denoisers.shrinkage import (
    Bandlets,
    Cosines,
    Dictionary,
    Thresholding,
    Wavelets,
    hard,
    soft,
)
from twinscore.errors import InputError

BASES: dict[str, Dictionary] = {
    "wavelets": Wavelets(),
    "cosines": Cosines(),
    "best-basis": Bandlets(geometry_cost=2),  # as measured in docs/shrinkage.md
}

_OPTIONS: dict[str, tuple[Callable[[str], Any], str]] = {
    "rule": ({"hard": hard, "soft": soft}.__getitem__, "hard or soft"),
    "multiple": (float, "a number"),
    "block": (int, "a side in pixels"),
}
"""What reads an option's value, and what that must be."""


def thresholding(body: str) -> Checkpoint:
    """Thresholding in the basis of a name, for images of any shape that the basis takes.

    ``body`` is ``wavelets``, ``cosines`` or ``best-basis``, followed by any of ``,rule=soft``
    (default: hard), ``,multiple=M``, the threshold in units of sigma (default: the universal one),
    and for cosines ``,block=B``, the side of blocks in pixels (default: the whole image).
    ``UNKNOWN_MEAN`` stands for the images' mean. InputError if there is no such basis or option, or
    its value is wrong.
    """
    name, *words = body.split(",")
    if name not in BASES:
        raise InputError(f"threshold:{body}: no basis {name!r}; give one of {', '.join(BASES)}")
    try:
        options = _read(words)
        block = options.pop("block", None)
        if block is not None and name != "cosines":
            raise ValueError("block is an option of cosines only")
        denoiser = Thresholding(BASES[name] if block is None else Cosines(block), **options)
    except ValueError as error:
        raise InputError(f"threshold:{body}: {error}") from None
    content = f"threshold {name} {block} {denoiser.rule.__name__} {denoiser.multiple}"
    return Checkpoint(denoiser, (None, None, None), (UNKNOWN_MEAN,), content)


def _read(words: list[str]) -> dict[str, Any]:
    """Options and their values.

    Raises
    ------
    ValueError
        For an option that does not exist, is given twice, or has a value of the wrong kind.
    """
    options: dict[str, Any] = {}
    for word in words:
        option, _, value = word.partition("=")
        if option not in _OPTIONS or option in options:
            wrong = "is given twice" if option in options else "is not an option"
            raise ValueError(f"{option!r} {wrong}; options are {', '.join(_OPTIONS)}")
        read, kind = _OPTIONS[option]
        try:
            options[option] = read(value)
        except (KeyError, ValueError):
            raise ValueError(f"{option}={value!r} is not {kind}") from None
    return options
