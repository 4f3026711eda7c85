"""Words of a command line, changed by those that tests add."""

from collections.abc import Sequence


def last_of_each(words: Sequence[str]) -> list[str]:
    """Words without the flags, and what follows them, that are given again later."""
    parts: dict[str, list[str]] = {"": []}
    for word in map(str, words):
        if word.startswith("--"):
            flag = word.partition("=")[0]
            parts.pop(flag, None)
            parts[flag] = []
        parts[list(parts)[-1]].append(word)
    return [word for part in parts.values() for word in part]
