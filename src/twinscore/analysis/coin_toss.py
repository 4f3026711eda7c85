"""Memory, by a coin toss: do samples lie nearer to the images that a coin dealt to their twin?

Twins split one set at random, so that each twin's half is the other's control. The pool holds
both halves, every sample votes for its nearest image, and the memorisation index is

    M = P(the vote of A's sample is for A's half) - P(the vote of B's sample is for A's half).

Where samples do not depend on which half an image is in, M has mean 0 and its p-value is exact,
whatever the quality or the diversity of the samples, the metric or N; a copier has M = 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from twinscore.analysis.neighbours import Votes
from twinscore.analysis.redealing import REDEALINGS, Redealt, redeal
from twinscore.analysis.statistics import RESAMPLES, Estimate, seed_counts

_CHUNK_VALUES = 2**24


@dataclass(frozen=True, eq=False)
class Deal:
    """How the images of a pool were dealt.

    Attributes
    ----------
    labels : array
        (P,) bool: heads, the images of one side.
    strata : array
        (P,) int: the coin dealt labels out among the images of one stratum.
    units : array
        (P,) int, 0 to U - 1: images that went together, which have one label and one stratum.
    grouped : bool
        Whether some went together as a group, which samples may look like without a copy.

    Raises
    ------
    ValueError
        If sizes differ, or images of a unit differ in label or stratum.
    """

    labels: NDArray[np.bool_]
    strata: NDArray[np.int64]
    units: NDArray[np.int64]
    grouped: bool = False

    def __post_init__(self) -> None:
        """Refuse what no coin can have dealt."""
        if not len(self.labels) == len(self.strata) == len(self.units):
            raise ValueError("labels, strata and units must have one entry for each image")
        first = self.first
        for name in ("labels", "strata"):
            values = getattr(self, name)
            if not np.array_equal(values[first][self.units], values):
                raise ValueError(f"images of one unit must have the same {name}")

    @property
    def first(self) -> NDArray[np.int64]:
        """First image of each unit, (U,)."""
        return np.unique(self.units, return_index=True)[1]

    @property
    def scores(self) -> NDArray[np.float64]:
        """Label of each image less the share of heads among the units of its stratum, (P,)."""
        first = self.first
        _, stratum = np.unique(self.strata, return_inverse=True)
        heads = np.bincount(stratum[first], self.labels[first])
        return self.labels - (heads / np.bincount(stratum[first]))[stratum]


def halves(n: int, strata: NDArray | None = None) -> Deal:
    """Deal of the n images of A, which are heads, and then the n of B, one by one.

    ``strata``, (2 n,), is given where the split dealt by label: the label of each image.
    """
    labels = np.arange(2 * n) < n
    return of_images(labels, np.zeros(2 * n, dtype=np.int64) if strata is None else strata)


def of_images(labels: NDArray, strata: NDArray) -> Deal:
    """Deal of images one by one, within strata that may be named by anything."""
    stratum = np.unique(strata, return_inverse=True)[1]
    return Deal(np.asarray(labels, dtype=bool), stratum, np.arange(len(labels)))


def paired(pairs: NDArray) -> Deal:
    """Deal of two groups at a time, a coin for each pair: of the images of A, then those of B.

    ``pairs``, (2 n,), names the pair that the group of each image belongs to.
    """
    labels = np.arange(len(pairs)) < len(pairs) // 2
    stratum = np.unique(pairs, return_inverse=True)[1]
    unit = np.unique(2 * stratum + labels, return_inverse=True)[1]
    return Deal(labels, stratum, unit, grouped=bool(unit.max() + 1 < len(unit)))


def together(deal: Deal, originals: NDArray) -> Deal:
    """The same deal where the images of one original, (P,), were dealt as one.

    Originals of which unequally many images are in the pool are told apart: a coin cannot have
    exchanged them.
    """
    units = np.unique(originals, return_inverse=True)[1]
    sizes = np.bincount(units)[units]
    strata = np.unique(deal.strata * (sizes.max() + 1) + sizes, return_inverse=True)[1]
    return Deal(deal.labels, strata, units)


def with_controls(n: int) -> Deal:
    """Deal where each twin has a control set: n images of A, n controls, n of B, n controls.

    Of twins that differ in kind (a split by attribute): heads are a twin's own images.
    """
    block = np.arange(4 * n) // n
    return of_images(block % 2 == 0, block // 2)


@dataclass(frozen=True, eq=False)
class Toss:
    """A deal and the votes of one or two models about its pool.

    Attributes
    ----------
    deal : Deal
        Of P images.
    votes : sequence of Votes
        Of the samples of each model among these P images; sample i of all comes from seed i.
    signs : sequence of int
        What a vote for heads counts: (1, -1) where heads are A's images; (1, 1) where they are
        each twin's own; (1,) for a single model.

    Raises
    ------
    ValueError
        If votes are about another number of images, or models differ in the number of samples.
    """

    deal: Deal
    votes: Sequence[Votes]
    signs: Sequence[int] = (1, -1)

    def __post_init__(self) -> None:
        """Refuse votes that do not go together."""
        images = {of.images for of in self.votes}
        if images != {len(self.deal.labels)} or len({len(of.similarity) for of in self.votes}) > 1:
            raise ValueError(
                f"votes must be about the {len(self.deal.labels)} images of the deal, and of "
                "equally many samples"
            )
        if len(self.signs) != len(self.votes):
            raise ValueError("give one sign for each model")


def by_seed(toss: Toss) -> NDArray[np.float64]:
    """What the votes from each seed add to M, (S,): M is their mean."""
    scores, total = toss.deal.scores, 0.0
    for sign, votes in zip(toss.signs, toss.votes, strict=True):
        weight = votes.share * scores[votes.image]
        total = total + sign * np.bincount(votes.sample, weight, minlength=len(votes.similarity))
    return total


def tallies(toss: Toss) -> NDArray[np.float64]:
    """Votes of each model for each unit, (models, U); the shares of a tied vote."""
    units = toss.deal.units
    count = len(toss.deal.first)
    return np.stack([np.bincount(units[v.image], v.share, minlength=count) for v in toss.votes])


def memorisation(tosses: Sequence[Toss], *, seed: int, resamples: int = RESAMPLES) -> Estimate:
    """The memorisation index M of R replicates.

    With bootstrap distributions over all seeds, which of one replicate come first, and over the
    images of one replicate. For images neighbours are not searched again: every unit gets a Poisson
    weight, which its votes inherit (searched again, the interval does not cover). Two distributions
    hold a seed that was not drawn, of a Poisson weight and the least or the most that a seed can
    add: three seeds, or two replicates, that agree by chance make no interval of no width.

    Parameters
    ----------
    tosses : sequence of Toss
        One for each replicate.
    seed : int
        Of the bootstrap. :func:`~twinscore.analysis.agreement.agreement` of the same seed draws
        the same noise seeds, so that differences of the two are covered.
    resamples : int
        Number of draws.
    """
    values = np.array([by_seed(toss).mean() for toss in tosses])
    contributions = np.concatenate([by_seed(toss) for toss in tosses])
    samples = len(contributions)
    sums = np.concatenate([c @ contributions for c in seed_counts(samples, seed, resamples)])
    unseen = np.random.default_rng([seed, 2]).poisson(1, size=resamples)
    most = len(tosses[0].signs) / 2
    ends = [(sums + end * unseen) / (samples + unseen) for end in (-most, most)]
    units = [_over_units(toss, seed, resamples) for toss in tosses] if len(tosses) == 1 else []
    return Estimate(values, (sums / samples, *units, *ends))


def _over_units(toss: Toss, seed: int, resamples: int) -> NDArray[np.float64]:
    """M by Poisson weights of the units, (resamples,); a model with no vote left keeps its mean."""
    tally, scores = tallies(toss), toss.deal.scores[toss.deal.first]
    voted = tally.any(0)
    tally, scores = tally[:, voted], scores[voted]
    samples = len(toss.votes[0].similarity)
    abstained, means = samples - tally.sum(1), tally @ scores / samples
    generator = np.random.default_rng([seed, 1])
    out = np.empty(resamples)
    chunk = max(1, _CHUNK_VALUES // max(1, len(scores)))
    for start in range(0, resamples, chunk):
        weights = generator.poisson(1, size=(min(chunk, resamples - start), len(scores)))
        heads, weight = weights @ (tally * scores).T, weights @ tally.T + abstained
        drawn = np.divide(heads, weight, out=np.tile(means, (len(weights), 1)), where=weight > 1e-9)
        out[start : start + len(weights)] = drawn @ np.asarray(toss.signs, dtype=np.float64)
    return out


def redealt(
    tosses: Sequence[Sequence[Toss]], *, seed: int, redealings: int = REDEALINGS
) -> Redealt:
    """M by K similarities as dealt, and with the labels of all pools dealt out again.

    Parameters
    ----------
    tosses : sequence of sequence of Toss
        ``tosses[k][r]``: by similarity k, of replicate r. Those of a replicate share its deal;
        replicates were dealt independently, and M is their mean.
    seed, redealings : int
        As for ``analysis.redealing.redeal``.
    """
    columns, labels, strata, offset = [], [], [], 0
    for by_similarity in zip(*tosses, strict=True):
        deal = by_similarity[0].deal
        signs = [np.asarray(toss.signs, dtype=np.float64) for toss in by_similarity]
        votes = [s @ tallies(toss) for s, toss in zip(signs, by_similarity, strict=True)]
        samples = len(by_similarity[0].votes[0].similarity)
        columns.append(np.stack(votes, axis=1) / (samples * len(tosses[0])))
        labels.append(deal.labels[deal.first])
        strata.append(deal.strata[deal.first] + offset)
        offset = strata[-1].max() + 1
    parts = [np.concatenate(part) for part in (columns, labels, strata)]
    return redeal(*parts, seed=seed, redealings=redealings)
