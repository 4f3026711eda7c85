"""Intervals say how they were found and what they cover; older folders are still read."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twinscore.experiments.intervals import of_replicates, of_values
from twinscore.results.base import Interval


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 4), st.integers(0, 100))
def test_what_an_interval_covers_depends_on_the_replicates(replicates, seed):
    values = np.random.default_rng(seed).normal(size=(replicates, 9))
    found = of_replicates(values, np.mean, seed)
    several = replicates > 1
    assert found.covers == ("replicates" if several else "images")
    assert found.method == ("Student's t" if several else "bootstrap")
    assert found.low <= found.value <= found.high


def test_a_range_cuts_the_interval():
    found = of_values(np.array([0.0, 1.0]), within=(0, 1))
    assert (found.value, found.low, found.high) == (0.5, 0, 1)
    assert (found.method, found.covers) == ("Student's t", "replicates")


def test_folders_that_do_not_say_so_are_read():
    old = Interval.model_validate({"median": 0.5, "low": 0.4, "high": 0.6})
    assert (old.value, old.method, old.covers) == (0.5, None, None)
    assert Interval.model_validate(old.model_dump()) == old


def test_units_scale_value_and_ends():
    found = Interval(value=2, low=1, high=4, method="bootstrap", covers="samples").times(10)
    assert (found.value, found.low, found.high) == pytest.approx((20, 10, 40))
    assert found.covers == "samples"
