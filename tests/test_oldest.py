"""The versions that are allowed: each dependency has a lowest one, below the one in use."""

from pathlib import Path

from packaging.version import Version

from oldest import floors


def test_every_dependency_has_a_lowest_version_below_the_one_developed_with():
    text = (Path(__file__).parents[1] / "constraints.txt").read_text(encoding="utf-8")
    used = dict(line.split("==") for line in text.lower().split())
    lowest = floors()
    assert len(lowest) >= 18
    for name, version in lowest.items():
        assert Version(version) <= Version(used[name.lower()])
