"""What ``result.json`` of each study holds: types alone, read by experiments and reports.

A study is known by its module here; the module's first line is its line in ``twinscore --help``.
"""

import ast
from functools import cache
from pathlib import Path
from pkgutil import iter_modules


@cache
def studies() -> dict[str, str]:
    """Name and purpose of every study, in alphabetical order; imports none of them."""
    found = {}
    for module in iter_modules(__path__):
        if module.name != "base":
            path = Path(__path__[0]) / f"{module.name}.py"
            text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
            line = text.splitlines()[0].rstrip(".")
            found[module.name] = line[:1].lower() + line[1:]
    return found
