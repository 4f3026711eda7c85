"""Copies: samples nearer to their own half than any sample is to images that it has not seen."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from twinscore.analysis.neighbours import TIES
from twinscore.analysis.statistics import clopper_pearson

TAIL = 0.05
"""Of each bound of a rate."""


def copied(own: NDArray, other: NDArray, within: float = -1.0) -> NDArray[np.bool_]:
    """Which samples of twins are copies, (2, S) bool.

    What no sample of either twin reaches by chance, on images that its twin has not seen, is the
    standard: where training and control images are alike to the samples, and equally many, half of
    all samples have their nearest image in their own half, and on average one of the 2 S passes it.
    More controls let fewer pass. They matter where a few images are all there is to tell by: where
    samples are alike, these are copies all at once or not at all, as a coin falls.

    Parameters
    ----------
    own, other : array
        (2, S): similarity of each twin's samples to the nearest image of its own half, and of
        those that it was not trained on.
    within : float
        Similarity of the two most similar images of one half: the standard is no lower. For halves
        that groups were dealt to; a sample is then more similar to its own half by its group alone,
        as the images of a group are to each other.
    """
    return own > max(other.max(), within) + TIES


def rate(copies: Sequence[NDArray] | NDArray) -> tuple[float, float, float]:
    """Share of copies among samples, and its one-sided 95 % bounds, low and high.

    Clopper and Pearson's, over all samples given (of all replicates, which are then taken for
    alike). With no copy at all it takes 59 samples to put the high end below 0.05.
    """
    found = np.concatenate([np.ravel(part) for part in copies])
    return float(found.mean()), *clopper_pearson(int(found.sum()), len(found), TAIL)
