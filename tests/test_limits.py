"""Every number of every spec: a slip of any size is taken, or refused in one line, at once."""

import math
import time
from functools import cache
from importlib import import_module
from types import NoneType
from typing import get_args, get_origin

import numpy as np
import pytest
from PIL import Image

from twinscore.denoisers import NetworkSpec
from twinscore.errors import InputError
from twinscore.experiments import estimates, study, train
from twinscore.experiments.mixture import cost as mixture_cost
from twinscore.options import _flags, _with_spec, parse
from twinscore.cli import StudyOptions
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
    if command in TOOLS:
        return None
    return import_module(f"twinscore.experiments.{command}").STUDY.cost(spec, None, device="cpu")


@pytest.mark.parametrize("command", [*TOOLS, *studies()])
def test_a_slip_in_a_number_is_taken_or_refused_in_one_line(command, picture, untimed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    base, spec_type = given(command, picture), spec_of(command)
    for flag, count in numeric_flags(command).items():
        for slip in SLIPS:
            began = time.monotonic()
            try:
                options = parse([*base, flag, *[slip] * count], StudyOptions, spec_type, command)
                cost(command, options.spec)
            except InputError as error:
                assert "\n" not in str(error)
                assert len(str(error)) < 400
            if (t:=time.monotonic() - began) >1: print(command, flag, slip[:30], round(t,2))
