"""Print the lowest versions that pyproject.toml allows, as constraints for pip."""

import re
import tomllib
from pathlib import Path


def floors():
    """The lowest version of each dependency, by name."""
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    project = tomllib.loads(text)["project"]
    extras = project["optional-dependencies"]
    needed = [extras[name] for name in extras if name != "dev"]
    wanted = [*project["dependencies"], *(one for extra in needed for one in extra)]
    return dict(
        re.fullmatch(r"([\w.-]+)>=([\d.]+)(?:,<[\d.]+)?", one).groups()
        for one in wanted
        if not one.startswith("twinscore[")
    )


if __name__ == "__main__":
    for name, version in floors().items():
        print(f"{name}=={version}")
