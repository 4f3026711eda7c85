"""Every number of every spec: a slip of any size is taken, or refused in one line, at once."""

import time
from contextlib import suppress
from functools import cache
from importlib import import_module
from types import NoneType
from typing import get_args, get_origin

import numpy as np
import pytest
from PIL import Image

from twinscore.commands import StudyOptions
from twinscore.denoisers import NetworkSpec
from twinscore.errors import InputError
from twinscore.experiments import estimates, study, train
from twinscore.experiments.mixture import cost as mixture_cost
from twinscore.options import _flags, parse
from twinscore.results import studies
from twinscore.training import memory

TOOLS = ("prepare", "sample", "train")
SLIPS = ("0", "-1", "0.5", "3", "1000000", "1000000000", f"{10**18}", "1" + "0" * 6000)
SLIPS += ("-1" + "0" * 6000, f"{2**64}", "nan", "inf", "-inf", "1e-300", "1e300", "1e-30")


def spec_of(command):
    module = import_module(f"twinscore.experiments.{command}")
    return module.Spec if command in TOOLS else module.STUDY.spec


def numbers(kind):
    """How many numbers a flag of this type takes; 0 if it takes something else."""
    kinds = [each for each in get_args(kind) if each is not NoneType]
    if NoneType in get_args(kind):
        return numbers(kinds[0])
    if get_origin(kind) is tuple:
        return sum(numbers(each) for each in kinds if each is not Ellipsis)
    if hasattr(kind, "__metadata__"):
        return numbers(kind.__origin__)
    return int(kind in (int, float))


@cache
def numeric_flags(command):
    flags = _flags({"spec": spec_of(command)})
    return {flag: count for flag, (_, kind) in flags.items() if (count := numbers(kind))}


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp("picture") / "image.png"
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(path)
    return str(path)


def given(command, picture):
    """What a command cannot do without."""
    return {
        "harmonics": ["--model=gaussian:digits"],
        "restore": ["--model=gaussian:digits", f"--image={picture}"],
        "manifold": ["--n=8", "--test=8", "--size=8"],
        "regularity": ["--n=8", "--test=8", "--size=16"],
        "shuffled": ["--data=digits"],
    }.get(command, [])


@pytest.fixture
def untimed(monkeypatch):
    """Costs without the seconds that steps are timed for; images and models stay open."""
    monkeypatch.setattr(estimates, "training_seconds", lambda *_, **options: 1.0)
    monkeypatch.setattr(mixture_cost, "_seconds", lambda spec: 1.0)
    monkeypatch.setattr(study, "forget_images", lambda: None)
    monkeypatch.setattr(train, "forget_images", lambda: None)


def cost(command, spec):
    if command == "train":
        return train.cost(spec, device="cpu")
    return import_module(f"twinscore.experiments.{command}").STUDY.cost(spec, None, device="cpu")


def read(words, command):
    """The spec that words stand for, or None and the one line that refuses them."""
    try:
        return parse(words, StudyOptions, spec_of(command), command).spec, ""
    except InputError as error:
        return None, str(error)


@pytest.mark.parametrize("command", [*TOOLS, *studies()])
def test_a_slip_in_a_number_is_refused_in_one_line_or_small(command, picture):
    base = given(command, picture)
    assert read(base, command)[0]
    for flag, count in numeric_flags(command).items():
        for slip in SLIPS:
            spec, said = read([*base, flag, *[slip] * count], command)
            assert "\n" not in said
            assert len(said) < 400
            if spec is not None and not flag.endswith(("seed", "shuffle", "learning-rate")):
                assert abs(float(slip)) <= 10**9


@pytest.mark.slow
@pytest.mark.parametrize("command", ["train", *studies()])
def test_the_cost_of_a_slip_is_told_or_refused(command, picture, untimed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    base = given(command, picture)
    for flag, count in numeric_flags(command).items():
        for slip in SLIPS:
            spec, _ = read([*base, flag, *[slip] * count], command)
            if spec is not None:
                began = time.monotonic()
                with suppress(InputError):
                    assert cost(command, spec).text()
                assert time.monotonic() - began < 20


def test_the_largest_network_is_measured_without_being_made():
    """It would take 23 PB."""
    largest = NetworkSpec(width=4096, levels=10, convolutions=4)
    assert memory.cost(largest, 10**6, (3, 64, 64)).weights > 1e16
    with pytest.raises(InputError, match="GB are free; no size fits"):
        memory.require_memory(memory.cost(largest, 1, (3, 8, 8)), 8, "cpu", 1)


def test_networks_of_a_capacity_study_are_bounded_together():
    values = [str(i) for i in range(1, 100)]
    spec, said = read(["--widths", *values, "--sides", *values, "--sizes", *values], "capacity")
    assert spec is None
    assert said == "widths, levels, kinds, sides: give at most 100 networks"
