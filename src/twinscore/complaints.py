"""Complaints of pydantic and tyro about options, boiled down to one line each."""

import re
from collections.abc import Callable, Sequence
from typing import Any

_OF_SPEC = "Value error, "
"""What pydantic puts before a complaint of a spec's own validator."""


def of_pydantic(error: Any, named: Callable[[Sequence[str]], str]) -> str:
    """``field: what is wrong`` of the first of a pydantic error's complaints.

    Parameters
    ----------
    error : pydantic.ValidationError
        With at least one complaint.
    named : callable
        Spells the path of a field: :func:`flag`, or ``'.'.join`` for a file of a spec.
    """
    first = error.errors()[0]
    field = named([str(part) for part in first["loc"]]) if first["loc"] else ""
    text = first["msg"].removeprefix(_OF_SPEC)
    if first["type"] == "extra_forbidden":
        text = "no such field; --print-spec shows all of them"
    elif first["type"] != "value_error":
        text = f"{text}, got {first['input']!r}"
    return f"{field}: {text}" if field else text


def flag(field: Sequence[str]) -> str:
    """The flag of a field, as the help spells it; a number's place in a list is left out."""
    parts = [part.replace("_", "-") for part in field if not part.isdigit()]
    return f"--{'.'.join(parts)}"


def of_tyro(text: str) -> str:
    """Boil a complaint of tyro down to one line."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    rows = [re.sub(r"^[│|\s]+|[│|\s]+$", "", row) for row in plain.splitlines()]
    rules = [i for i, row in enumerate(rows) if re.match(r"╭─ |[-─╰├]{3,}", row)]
    start = rules[0] + 1 if rules else 0
    body = " ".join(rows[start : rules[1] if len(rules) > 1 else None]).strip()
    inner = re.match(
        r"Error parsing (?:spec\.?)?(\S*): \d+ validation errors? for \w+ (.*?) \[type=", body
    )
    if inner:
        parent, complaint = inner.groups()
        if complaint.startswith(_OF_SPEC):
            return f"{flag(parent.split('.'))}: {complaint.removeprefix(_OF_SPEC)}"
        name, _, rest = complaint.partition(" ")
        spelt = flag(f"{parent}.{name}".split("."))
        if rest.startswith(_OF_SPEC):
            return f"{spelt}: {rest.removeprefix(_OF_SPEC)}"
        value = re.search(r"input_value=(.*?), input_type", body)
        return f"{spelt}: {rest}, got {value.group(1) if value else '?'}"
    body = body.removeprefix("Error parsing ")
    unknown = re.match(r"Unrecognized options: (\S+?),?(?: |$)", body)
    if unknown:
        near = re.findall(r"^(--\w[\w.-]*)", "\n".join(rows[start + 1 :]), flags=re.M)
        hint = f"did you mean {near[0]}?" if near else "--help lists the options"
        return f"{unknown.group(1)}: no such option; {hint}"
    missing = re.match(r"Missing from twinscore (\w+): \S+ (.*?)\.? \(required\)", body)
    if missing:
        command, what = missing.groups()
        return f"{command}: {what[0].lower()}{what[1:]} not given; name one after the command"
    choice = re.match(r"invalid choice '(.*)' for argument '(.*)'\. (.*)", body)
    if choice:
        value, option, expected = choice.groups()
        return f"{option}: invalid choice {value!r}; {expected[0].lower()}{expected[1:]}"
    return body or "the options cannot be read; --help lists them"
