"""How often the verdict is wrong on teachers: a short form of `benchmarks/verdicts.py`."""

import numpy as np
import pytest
import torch

import verdict_teachers as teachers
import verdicts
from twinscore.analysis.neighbours import votes

pytestmark = pytest.mark.usefixtures("global_random_state_untouched")


def wrong(name, repetitions):
    words = verdicts.tally(name, range(repetitions))
    assert words.total() == repetitions
    return sum(count for word, count in words.items() if verdicts.ROWS[name].truth.wrong(word))


SHORT = ("5 pairs of classes", "3 of 16 copied", "copies all, N = 3")


@pytest.mark.parametrize("name", SHORT)
def test_few_are_wrong(name):
    assert wrong(name, 3) <= verdicts.allowed(3) == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in verdicts.ROWS if name not in verdicts.LIMITS])
def test_few_are_wrong_of_more(name):
    assert wrong(name, 20) <= verdicts.allowed(20) == 4


def test_who_draw_one_image_have_not_learned():
    """A coin toss puts its nearest image into the own half of both twins, one time in four.

    They were in transition then, and wherever all samples of one twin were its "copies".
    """
    assert verdicts.tally("one image", range(3)) == {"has not learned": 3}


def test_claims_that_are_not_so_are_wrong():
    honest, copier = teachers.Teacher().truth, teachers.Teacher(copies=0.6).truth
    faulty = teachers.Teacher(fault="mean image").truth
    for truth, expected in (
        (honest, {"memorises", "has not learned"}),
        (copier, {"generalises", "has not learned"}),
        (faulty, {"memorises", "generalises"}),
        (teachers.Teacher(agreeing=0.5).truth, {"memorises", "generalises", "has not learned"}),
        (teachers.Teacher(copies=20).truth, {"memorises", "generalises", "has not learned"}),
    ):
        assert {word for word in verdicts.WORDS if truth.wrong(word)} == expected
    assert verdicts.allowed(400) == 31


def test_teachers_are_what_they_are_said_to_be():
    """Of many samples the votes have the true M; sizes of one seed share samples and images."""
    teacher = teachers.Teacher(samples=4000, copies=0.3, leaning=0.2)
    drawn, _ = teacher.drawn(0)
    [pair], [halves] = drawn.samples, drawn.training
    shares = []
    for x in pair:
        found = votes(x, torch.cat(halves))
        shares.append(np.sum(found.share[found.image < 100]) / 4000)
    assert shares[0] - shares[1] == pytest.approx(teacher.truth.memory, abs=4 / np.sqrt(4000))
    own = (pair[0][:, None] == halves[0][None]).flatten(2).all(2).any(1)
    assert own.float().mean() == pytest.approx(0.3, abs=0.03)
    small, large = (teachers.Teacher(n=n).drawn(3)[0] for n in (10, 30))
    assert torch.equal(small.samples[0][0], large.samples[0][0])
    assert torch.equal(small.training[0][1], large.training[0][1][:10])
