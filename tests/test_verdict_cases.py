"""Verdicts on samples whose making is known: what fools a rule, and what it must not accuse."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from twinscore import images as image_sets
from twinscore.analysis import coin_toss, copies, learned, similarity, verdict
from twinscore.analysis.agreement import agreement
from twinscore.analysis.coin_toss import Toss, halves
from twinscore.analysis.neighbours import SIMILARITIES, votes
from twinscore.analysis.statistics import bounds
from twinscore.denoisers.layers import generator_of
from twinscore.results.base import Interval

pytestmark = pytest.mark.usefixtures("global_random_state_untouched")

LIMITS = verdict.Thresholds()


def interval(triple):
    return Interval(**dict(zip(("value", "low", "high"), triple, strict=True)))


def judged(samples, training, held_out, deal=None, names=SIMILARITIES):
    """Verdict and reason from the samples of A and B alone."""
    n, pool = len(training[0]), torch.cat(training)
    deal = deal or halves(n)
    tosses = [[Toss(deal, [votes(x, pool, name) for x in samples])] for name in names]
    dealt = coin_toss.redealt(tosses, seed=0, redealings=999)
    own, other = (
        np.stack([similarity.nearest(x, half)[0] for x, half in zip(samples, order, strict=True)])
        for order in (training, training[::-1])
    )
    evidence = verdict.Evidence(
        memorisation=interval(bounds(coin_toss.memorisation(tosses[0], seed=0), (-1, 1))),
        p=dealt.p[0] if dealt.smallest <= LIMITS.significance else None,
        copies=tuple(interval(copies.rate(of)) for of in copies.copied(own, other)),
        agreement=interval(bounds(agreement([tuple(samples)], seed=0))),
        not_learned=verdict.not_learned(
            None,
            {k: learned.traits(x, held_out, seed=0) for k, x in zip("AB", samples, strict=True)},
            {k: learned.energy(x, held_out, seed=0) for k, x in zip("AB", samples, strict=True)},
            LIMITS,
        ),
        others=min(dealt.corrected[1:], default=None),
    )
    return verdict.verdict(evidence, LIMITS)


def parts(source, *sizes, seed=0):
    """Disjoint random parts of a set of images."""
    data = image_sets.load(source)
    order = torch.randperm(len(data), generator=generator_of(seed))[: sum(sizes)]
    return [data[part.numpy()] for part in order.split(sizes)]


def noisy(x, seed=1):
    """Twins never draw the same to the last digit."""
    return x + 0.005 * torch.randn(x.shape, generator=generator_of(seed))


@pytest.mark.parametrize("source", ["digits", "photos,size=16"])
def test_who_draw_from_the_law_generalise(source):
    a, b, fresh, held_out = parts(source, 300, 300, 256, 128)
    assert judged([noisy(fresh), noisy(fresh, 2)], [a, b], held_out)[0] == "generalises"


@pytest.mark.parametrize(
    ("fault", "named"),
    [
        (lambda x: x.mean(0, keepdim=True).expand_as(x), "diversity"),
        (lambda x: torch.from_numpy(gaussian_filter(x.numpy(), (0, 0, 3, 3))), "power"),
        (lambda x: x.mean(0) + 0.2 * (x - x.mean(0)), "times that of held-out"),
    ],
    ids=["mean image", "blurred by 3 pixels", "flat"],
)
def test_who_agree_on_what_they_did_not_learn_have_not_learned(fault, named):
    a, b, fresh, held_out = parts("photos,size=16", 300, 300, 256, 128)
    word, reason = judged([fault(fresh), fault(fresh)], [a, b], held_out)
    assert word == "has not learned"
    assert named in reason


@pytest.mark.parametrize("count", [102, 20])
def test_copies_among_honest_samples_are_a_transition(count):
    """40 % of 256 are training images plus noise of 0.08; 20 of 256 are training images."""
    a, b, fresh, held_out = parts("photos,size=16", 300, 300, 256, 128)
    noise = 0.08 if count > 100 else 0
    samples = []
    for i, half in enumerate((a, b)):
        x = noisy(fresh, i)
        z = torch.randn(x[:count].shape, generator=generator_of(9 + i))
        x[:count] = half[:count] + noise * z
        samples.append(x)
    assert judged(samples, [a, b], held_out)[0] == "transition"


def test_few_samples_never_generalise():
    a, b, fresh, held_out = parts("digits", 300, 300, 58, 128)
    word, reason = judged([noisy(fresh), noisy(fresh, 2)], [a, b], held_out)
    assert word != "generalises"
    assert "may" in reason


@pytest.mark.parametrize("n", [1, 2, 3, 10, 100])
def test_copiers_memorise_at_every_size(n):
    a, b, held_out = parts("digits", n, n, 128)
    rng = np.random.default_rng(0)
    samples = [noisy(half[rng.integers(n, size=100)], i) for i, half in enumerate((a, b))]
    assert judged(samples, [a, b], held_out, names=["pixels"])[0] == "memorises"


def test_few_classes_dealt_whole_cannot_accuse():
    """Four pairs of classes: samples of the own classes are near them, and no copies."""
    digits = image_sets.load("digits")
    labels = np.array(digits.labels).astype(int)
    rows = [np.flatnonzero(labels == k) for k in range(8)]
    sides = [np.concatenate([rows[k][:40] for k in range(first, 8, 2)]) for first in (0, 1)]
    drawn = [np.concatenate([rows[k][40:80] for k in range(first, 8, 2)]) for first in (0, 1)]
    pairs = np.tile(np.repeat(np.arange(4), 40), 2)
    samples = [noisy(digits[of]) for of in drawn]
    training, held_out = [digits[of] for of in sides], digits[np.flatnonzero(labels > 7)]
    found = judged(samples, training, held_out, coin_toss.paired(pairs), ["pixels"])
    assert found[0] == "transition"
    assert judged(samples, training, held_out, names=["pixels"])[0] == "memorises"  # as if by image


@pytest.mark.parametrize("moved", ["mirrored", "corner"])
def test_another_similarity_vetoes(moved):
    """A quarter of the samples hold a training image, mirrored or moved: pixels do not find it."""
    a, b, fresh, held_out = parts("photos,size=16", 400, 400, 256, 128)
    samples = []
    for i, half in enumerate((a, b)):
        x = noisy(fresh, i)
        if moved == "mirrored":
            x[:60] = half[:60].flip(-1)
        else:
            x[:60, :, 8:, 8:] = half[:60, :, 8:, 8:]
        samples.append(x)
    word, reason = judged(samples, [a, b], held_out)
    assert word == "transition"
    assert "another similarity" in reason
