"""The order of the verdict's checks, and the critical N, of every kind of evidence."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinscore.analysis import critical
from twinscore.analysis import verdict as rule
from twinscore.analysis.learned import Energy, Trait
from twinscore.analysis.verdict import Evidence, Thresholds, verdict
from twinscore.results.base import Interval

LIMITS = Thresholds()


def around(value, half=0.02):
    return Interval(value=value, low=value - half, high=value + half)


def between(low, high):
    return Interval(value=(low + high) / 2, low=low, high=high)


NONE, FEW, MANY = between(0, 0.01), between(0.04, 0.06), between(0.6, 0.9)
GOOD = Evidence(memorisation=around(0.05), p=0.2, copies=(NONE, NONE), agreement=around(0.9))


def word(**changes):
    return verdict(replace(GOOD, **changes), LIMITS)[0]


def test_honest_twins_generalise():
    assert word() == "generalises"
    assert word(others=0.06) == "generalises"
    assert word(p=0.001) == "generalises"  # a small index may be significant


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        # memorises: size and p
        ({"memorisation": between(0.51, 0.9), "p": 0.05}, "memorises"),
        ({"memorisation": between(0.50, 0.9), "p": 0.001}, "transition"),
        ({"memorisation": between(0.9, 1), "p": 0.06}, "transition"),
        ({"memorisation": between(-1, -0.8)}, "generalises"),
        # where no p can be small, both copy rates
        ({"memorisation": between(0.9, 1), "p": None, "copies": (MANY, MANY)}, "memorises"),
        ({"memorisation": between(0.9, 1), "p": None, "copies": (MANY, FEW)}, "transition"),
        ({"memorisation": between(0.9, 1), "p": None}, "transition"),
        ({"p": None, "copies": (MANY, MANY)}, "memorises"),
        ({"p": None}, "generalises"),
        # nor where groups were dealt: their look alone makes M large
        ({"grouped": True, "memorisation": between(0.9, 1), "p": 1e-4}, "transition"),
        ({"grouped": True, "p": 1e-4, "copies": (MANY, MANY)}, "memorises"),
        # copies alone do not convict where there is a p
        ({"copies": (MANY, MANY)}, "transition"),
        # transition
        ({"memorisation": between(0.1, 0.2)}, "transition"),
        ({"memorisation": between(0.1, 0.199)}, "generalises"),
        ({"copies": (NONE, between(0.051, 0.1))}, "transition"),
        # has not learned comes after memory, before everything that may acquit
        ({"not_learned": "blur"}, "has not learned"),
        ({"not_learned": "blur", "memorisation": between(0.6, 1), "p": 1e-4}, "memorises"),
        ({"not_learned": "blur", "memorisation": between(0.01, 0.2), "p": 0.05}, "transition"),
        ({"not_learned": "blur", "copies": (MANY, NONE), "p": 0.05}, "transition"),
        ({"not_learned": "blur", "copies": (MANY, NONE), "p": None}, "transition"),
        # of three images no bootstrap shows M above 0, but p and the copies do
        (
            {"not_learned": "blur", "memorisation": between(0, 0.5), "p": 0.05}
            | {"copies": (MANY, MANY)},
            "transition",
        ),
        # which says nothing where M is only in doubt, or samples are alike and copies by chance
        ({"not_learned": "blur", "memorisation": between(0, 0.9), "p": 0.05}, "has not learned"),
        ({"not_learned": "blur", "memorisation": between(0.3, 0.9)}, "has not learned"),
        ({"not_learned": "blur", "copies": (MANY, NONE)}, "has not learned"),
        ({"not_learned": "blur", "copies": (FEW, NONE)}, "has not learned"),
        ({"not_learned": "blur", "agreement": around(0.1)}, "has not learned"),
        # what generalises needs
        ({"copies": (NONE, FEW)}, "transition"),
        ({"copies": (NONE, between(0, 0.05))}, "generalises"),
        ({"agreement": between(0.5, 0.9)}, "transition"),
        ({"agreement": between(0.501, 0.9)}, "generalises"),
        ({"others": 0.05}, "transition"),
        # not testable comes first
        ({"untestable": "lists", "memorisation": between(0.9, 1), "p": 1e-4}, "not testable"),
        ({"untestable": "lists", "not_learned": "blur"}, "not testable"),
    ],
)
def test_the_order_of_checks(changes, expected):
    assert word(**changes) == expected


def test_every_reason_says_what_decided():
    for changes, part in [
        ({"untestable": "lists of the user's own"}, "lists of the user's own"),
        ({"not_learned": "power"}, "power"),
        ({"memorisation": between(0.6, 1), "p": 1e-4}, "M 0.80 [0.60, 1.00] with p = 0.0001"),
        ({"memorisation": between(0.1, 0.3), "p": 1e-4}, "M 0.20 [0.10, 0.30] may reach 0.2"),
        ({"memorisation": between(0.1, 0.3)}, "M 0.20 [0.10, 0.30] may reach 0.2"),
        ({"p": None, "copies": (MANY, MANY)}, "copies of A 75.0% [60.0, 90.0]"),
        ({"copies": (NONE, MANY)}, "75.0% [60.0, 90.0] are more than 5%"),
        ({"copies": (NONE, FEW)}, "5.0% [4.0, 6.0] may be more than 5%"),
        ({"agreement": around(0.4)}, "G 0.40 [0.38, 0.42]"),
        ({"others": 0.001}, "another similarity, with p = 0.001"),
        ({}, "M 0.05 [0.03, 0.07], G 0.90 [0.88, 0.92], copies 0.5%"),
    ]:
        assert part in verdict(replace(GOOD, **changes), LIMITS)[1]


def test_every_threshold_is_in_force():
    for changes, name, value in [
        ({"memorisation": between(0.6, 0.9), "p": 0.01}, "memorises", 0.7),
        ({"memorisation": between(0.6, 0.9), "p": 0.01}, "significance", 0.001),
        ({"memorisation": between(0.1, 0.3)}, "transition", 0.4),
        ({"copies": (NONE, FEW)}, "copies", 0.1),
        ({"agreement": around(0.4)}, "agreement", 0.3),
        ({"others": 0.03}, "significance", 0.01),
    ]:
        evidence = replace(GOOD, **changes)
        other = Thresholds(**{name: value})
        assert verdict(evidence, LIMITS)[0] != verdict(evidence, other)[0], name


ENDS = st.tuples(st.floats(0, 1), st.floats(0, 1)).map(lambda ends: between(*sorted(ends)))


@given(ENDS, st.none() | st.floats(1e-4, 1), ENDS, ENDS, ENDS, st.sampled_from(["", "blur"]))
def test_no_evidence_of_memory_is_overlooked(m, p, a, b, g, not_learned):
    evidence = Evidence(m, p, (a, b), g, not_learned)
    found, reason = verdict(evidence, LIMITS)
    assert reason
    if found == "generalises":
        assert m.high < 0.2
        assert max(a.high, b.high) <= 0.05
        assert g.low > 0.5
        assert not not_learned
    if found == "memorises":
        assert (m.low > 0.5 and p is not None) or (p is None and min(a.low, b.low) > 0.5)


def test_undecided_is_where_a_threshold_lies_inside():
    assert not rule.undecided(GOOD, LIMITS)
    for changes in (
        {"memorisation": between(0.1, 0.3)},
        {"memorisation": between(0.4, 0.6)},
        {"copies": (NONE, FEW)},
        {"agreement": between(0.4, 0.6)},
    ):
        assert rule.undecided(replace(GOOD, **changes), LIMITS)


def test_samples_needed_to_decide():
    needed = lambda **changes: rule.samples_needed(replace(GOOD, **changes), LIMITS, 100)  # noqa: E731
    assert needed() == 100 or needed() < 130
    # Half width 0.1, distance 0.05: four times as many.
    nothing = Interval(value=0.0, low=0.0, high=0.01)
    assert needed(memorisation=around(0.15, 0.1), copies=(nothing, nothing)) == 400
    few = Interval(value=0.0, low=0.0, high=0.14)
    found = rule.samples_needed(replace(GOOD, copies=(few, few)), LIMITS, 20)
    assert 59 <= found <= 61
    assert needed(memorisation=around(0.2, 0.1)) is None
    assert needed(copies=(NONE, Interval(value=0.05, low=0.01, high=0.1))) is None


# Learned ----------------------------------------------------------------------------------------

ALIKE, SAME = {"contrast": Trait(1, 0.9, 1.1)}, Energy(0.01, 0, 0.02, 0.01)


BETTER = around(0.3)


def lacking(gain=BETTER, traits=ALIKE, energy=SAME):
    return rule.not_learned(gain, {"A": ALIKE, "B": traits}, {"A": SAME, "B": energy}, LIMITS)


def test_what_failed_is_named_with_its_figure_and_what_to_change():
    assert lacking() == ""
    assert lacking(gain=None) == ""
    assert "-0.50 [-0.60, -0.40] dB" in lacking(gain=around(-0.5, 0.1))
    assert lacking(gain=between(-0.25, 1)) != ""
    assert lacking(gain=between(-0.24, 1)) == ""
    blurred = lacking(traits={"power 2-4": Trait(0.4, 0.3, 0.49)})
    assert blurred.startswith("power 2-4 of B's samples is 0.40 [0.30, 0.49] times")
    assert "sampler" in blurred
    assert "factor" in lacking(traits={"contrast": Trait(2.2, 2.01, 2.4)})
    assert lacking(traits={"contrast": Trait(2.2, 1.99, 2.4)}) == ""
    assert lacking(traits={"contrast": Trait(0.4, 0.3, 0.5)}) == ""
    assert "energy distance of B's" in lacking(energy=Energy(0.07, 0.06, 0.08, 0.01))
    assert lacking(energy=Energy(0.06, 0.05, 0.07, 0.01)) == ""


# Critical N -------------------------------------------------------------------------------------

SIZES = (10, 30, 100, 300)


def found(*gaps, learned=SIZES, half=0.1):
    return critical.critical_n(SIZES, [around(gap, half) for gap in gaps], learned)


def test_it_lies_between_the_sizes_that_decide():
    at, phrase = found(-0.8, -0.2, 0.2, 0.8)
    assert (at.low, at.high, at.lost) == (30, 100, False)
    assert at.value == pytest.approx(math.sqrt(30 * 100))
    assert phrase == "about 55 images (between 30 and 100)"


def test_sizes_that_do_not_decide_widen_it():
    at, _ = found(-0.8, -0.05, 0.05, 0.8)
    assert (at.low, at.high) == (10, 300)
    at, phrase = found(-0.05, 0.05, 0.5, 0.8)
    assert (at.low, at.high) == (None, 100)
    assert "between open and 100" in phrase
    at, phrase = found(-0.8, -0.5, 0.02, 0.05)
    assert (at.low, at.high) == (30, None)
    assert "between 30 and open" in phrase


def test_ends_are_open_where_there_are_none():
    at, phrase = found(0.5, 0.6, 0.7, 0.8)
    assert (at.value, at.low, at.high) == (None, None, 10)
    assert phrase.startswith("below the smallest size tried, 10 images")
    at, phrase = found(-0.8, -0.7, -0.6, -0.5)
    assert at is None
    assert phrase == "not reached: needs more than 300 images"
    at, phrase = found(-0.8, -0.7, -0.6, -0.05)
    assert at is None
    assert phrase.startswith("not decided")


def test_crossed_then_lost_again_is_said():
    at, phrase = found(-0.5, 0.5, -0.5, 0.5)
    assert (at.low, at.high, at.lost) == (100, 300, True)
    assert phrase.endswith("; crossed before, then lost again")
    at, phrase = found(-0.5, 0.5, 0.5, -0.5)
    assert at is None
    assert phrase == "not reached: crossed, then lost again; needs more than 300 images"
    at, _ = found(-0.5, 0.5, -0.05, 0.5)  # not shown to be lost
    assert (at.low, at.high, at.lost) == (10, 300, False)


def test_it_is_null_unless_a_size_at_or_above_it_has_learned():
    for learned, known in (((), False), ((10, 30), False), ((100,), True), ((300,), True)):
        at, phrase = found(-0.8, -0.2, 0.2, 0.8, learned=learned)
        assert (at is not None) == known
        assert ("no size" in phrase) != known
    assert found(0.5, 0.6, 0.7, 0.8, learned=())[0] is None
    assert found(0.5, 0.6, 0.7, 0.8, learned=(10,))[0] is not None


@given(st.lists(st.tuples(st.floats(-1, 1), st.floats(0.001, 0.5)), min_size=1, max_size=6))
def test_the_value_lies_within_its_bracket(parts):
    sizes = [10 * 3**k for k in range(len(parts))]
    at = critical.bracket(sizes, [around(*part) for part in parts])
    if at is None:
        assert parts[-1][0] <= 0
        return
    value = at.value or 0
    assert (at.low or 0) <= value * (1 + 1e-9)
    assert value <= (at.high or math.inf) * (1 + 1e-9)


@pytest.mark.parametrize("noise", [0.02, 0.1, 0.3])
def test_it_covers_the_true_one_and_is_as_wide_as_what_was_tried(noise):
    """A gap that turns positive at a known N, measured with normal errors, 1,000 times."""
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(1000):
        truth = math.exp(rng.uniform(math.log(12), math.log(280)))
        true = [math.tanh(math.log(n / truth)) for n in SIZES]
        gaps = [around(gap + noise * rng.standard_normal(), 1.96 * noise) for gap in true]
        at = critical.bracket(SIZES, gaps)
        if at is None:  # nothing is claimed
            hits += 1
            continue
        hits += (at.low or 0) <= truth <= (at.high or math.inf)
        assert {at.low, at.high} <= {None, *SIZES}
    assert hits / 1000 > 0.95


def test_refinement_ends_with_a_narrow_bracket():
    truth, sizes = 77.0, [10, 1000]
    for _ in range(30):
        gaps = [around(math.tanh(math.log(n / truth)), 0.001) for n in sizes]
        at = critical.bracket(sizes, gaps)
        size = critical.refined(at, sizes, 1.2)
        if size is None:
            break
        assert size not in sizes
        sizes = sorted([*sizes, size])
    assert at.low <= truth <= at.high <= 1.2 * at.low
    assert len(sizes) <= 8


def test_refinement_of_what_only_samples_can_decide_ends():
    sizes = [10, 100]
    for _ in range(30):
        gaps = [around(math.log(n / 30), 0.5) for n in sizes]
        size = critical.refined(critical.bracket(sizes, gaps), sizes, 1.3)
        if size is None:
            break
        sizes = sorted([*sizes, size])
    assert len(sizes) < 25  # gaps of more than the root of 1.3 are halved
    assert all(b / a <= 1.3 for a, b in itertools.pairwise(sizes) if a > 15 and b < 60)
    open_end = critical.bracket([10, 100], [around(0.5), around(0.6)])
    assert critical.refined(open_end, [10, 100], 1.3) is None
    assert critical.refined(critical.bracket([4, 5], [around(-1), around(1)]), [4, 5], 1.01) is None


def test_refinement_goes_on_beside_a_size_that_does_not_decide():
    """Between 30 and 150, with 100 undecided, 55 may narrow it, although no gap exceeds 3.4."""
    sizes = [10, 30, 100, 150]
    found = critical.bracket(sizes, [around(g, 0.05) for g in (-1, -0.5, 0.02, 0.4)])
    assert (found.low, found.high) == (30, 150)
    assert critical.refined(found, sizes, 3.4) == 55
