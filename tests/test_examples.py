"""The examples in docstrings, run as they stand there."""

import doctest
from importlib import import_module
from pathlib import Path

import pytest

import twinscore

ROOT = Path(twinscore.__file__).parent


def with_examples():
    """Names of the modules that have examples; only these are imported."""
    found = [path for path in ROOT.rglob("*.py") if ">>> " in path.read_text(encoding="utf-8")]
    parts = (("twinscore", *path.relative_to(ROOT).with_suffix("").parts) for path in found)
    return sorted(".".join(part for part in each if part != "__init__") for each in parts)


@pytest.mark.parametrize("name", with_examples())
def test_examples_give_what_they_say(name):
    outcome = doctest.testmod(import_module(name))
    assert outcome.attempted
    assert not outcome.failed


def test_most_rooms_have_examples():
    assert len(with_examples()) >= 20
    assert len({name.split(".")[1] for name in with_examples() if "." in name}) >= 6
