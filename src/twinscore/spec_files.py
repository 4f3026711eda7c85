"""Specs as YAML files: plain values alone, each field once, within bounds of size and depth.

A spec needs no anchors, aliases, merge keys or tags, so a file that has them is refused before
anything is expanded. What is not null, true, false or a number is text, a date too.
"""

import re
from importlib import resources
from typing import Any

import yaml

from twinscore.errors import InputError, one_line

SHIPPED = resources.files("twinscore") / "recipes"
MOST_BYTES = 100_000
MOST_DEPTH = 10

_PLAIN = {
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "bool": (r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    "int": (r"[-+]?(0|[1-9][0-9]{0,18})", list("-+0123456789")),
    "float": (
        r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+)([eE][-+][0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
}
"""What a plain value must match to be of a type, and its first letters."""


def shipped() -> dict[str, str]:
    """Names of the shipped specs, each with its command: ``# twinscore COMMAND --spec NAME``."""
    files = [file for file in SHIPPED.iterdir() if file.name.endswith(".yaml")]
    first = (file.read_text(encoding="utf-8").partition("\n")[0].split() for file in files)
    return dict(sorted((words[4], words[2]) for words in first))


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader without what specs do not need."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - as PyYAML spells it

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Refuse anchors, aliases, tags and deep nesting before they are followed."""
        event, self.depth = self.peek_event(), getattr(self, "depth", 0) + 1
        if isinstance(event, yaml.AliasEvent) or event.anchor:
            raise _wrong("anchors (&) and aliases (*) are not taken; write the value out", event)
        if event.tag:
            raise _wrong("tags (!) are not taken; write the value alone", event)
        if self.depth > MOST_DEPTH:
            raise _wrong(f"nested more than {MOST_DEPTH} deep", event)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[str, Any]:
        """Refuse names of fields that are not text, or are there twice."""
        seen: set[str] = set()
        for key, _ in node.value:
            if key.tag != "tag:yaml.org,2002:str":
                shown = f" {key.value}" if isinstance(key, yaml.ScalarNode) else ""
                raise _wrong(f"the name of a field must be text, got{shown} {_kind(key)}", key)
            if key.value in seen:
                raise _wrong(f"{key.value} is given twice", key)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


for _name, (_pattern, _first) in _PLAIN.items():
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_name}", re.compile(f"(?:{_pattern})\\Z"), _first
    )


def _kind(node: Any) -> str:
    return f"({node.tag.rpartition(':')[2]})"


def _wrong(problem: str, where: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=where.start_mark)


def read(path: Any) -> dict[str, Any]:
    """Fields and values of a YAML file.

    Parameters
    ----------
    path : Path
        Or what :mod:`importlib.resources` gives.

    Raises
    ------
    InputError
        If it cannot be read, is larger than ``MOST_BYTES``, or is not a mapping as described above.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        raise InputError(f"{path}: cannot be read: {reason}; give a YAML file") from None
    if len(content) > MOST_BYTES:
        raise InputError(f"{path}: has more than {MOST_BYTES:,} bytes; a spec has a few thousand")
    try:
        values = yaml.load(content.decode("utf-8"), _Loader)
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        problem = " ".join(filter(None, (error.context, error.problem)))
        raise InputError(f"{path}: not a spec: {line}{one_line(ValueError(problem))}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"{path}: not YAML: {one_line(error)}") from None
    if not isinstance(values, dict):
        raise InputError(f"{path}: must hold fields and values, as --print-spec prints them")
    return values
