"""Twins whose truth is known: fitted to nothing, they draw from a law, or copy their own half.

Pool, held-out images and samples are all fresh draws from one law. What a teacher remembers, copies
and agrees on is then a parameter of it, not a measurement.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor

from twinscore import images
from twinscore.analysis import coin_toss
from twinscore.analysis.neighbours import votes
from twinscore.experiments.judgement import Drawn, Standard, judge
from twinscore.images import Twins
from twinscore.images.synthetic.discs import parameters_at, render
from twinscore.runs import derive_seed
from twinscore.training.history import SIGMAS

HELD_OUT = 128
DIFFERENCE = 0.005
"""Twins that draw the same never draw it to the last digit: noise added to each sample."""


@dataclass(frozen=True)
class Truth:
    """What is true of a teacher: M, the copy rate, G at most, and whether its samples are right."""

    memory: float
    copies: float
    agreement: float
    learned: bool

    def wrong(self, word: str) -> bool:
        """Whether a verdict claims what is not so; *transition* claims nothing."""
        if word == "memorises":
            return self.memory < 0.5
        if word == "generalises":
            faithful = self.memory < 0.2 and self.copies <= 0.05 and self.agreement > 0.5
            return not (faithful and self.learned)
        return word == "has not learned" and self.learned


# Laws: the first ``count`` of an endless row of images, which the seed names ----------------------


@cache
def _digits() -> Tensor:
    return images.load("digits")[:]


@cache
def _photos(size: int) -> Tensor:
    return images.load(f"photos,size={size}")[:]


@cache
def _moments(of: int | None) -> tuple[NDArray, NDArray]:
    """Mean and a root of the covariance of the digits, or of those of one class."""
    x = _digits().flatten(1).numpy().astype(np.float64)
    if of is not None:
        x = x[np.array(images.load("digits").labels).astype(int) == of]
    values, vectors = np.linalg.eigh(np.cov(x.T))
    return x.mean(0), vectors * np.sqrt(values.clip(0))


def gaussian(seed: int, count: int) -> Tensor:
    """Of the mean and covariance of the digits, 8x8."""
    mean, root = _moments(None)
    z = np.random.default_rng(seed).standard_normal((count, 64))
    return torch.from_numpy(mean + z @ root.T).float().view(-1, 1, 8, 8)


def mixture(seed: int, count: int) -> Tensor:
    """Of ten such Gaussians, one for each class of digits."""
    z = np.random.default_rng(seed).standard_normal((count, 64))
    which = np.random.default_rng([seed, 1]).integers(10, size=count)
    x = np.empty_like(z)
    for k in range(10):
        mean, root = _moments(k)
        x[which == k] = mean + z[which == k] @ root.T
    return torch.from_numpy(x).float().view(-1, 1, 8, 8)


def discs(seed: int, count: int, size: int = 8) -> Tensor:
    """Discs, five parameters, on 8x8 or 16x16 pixels."""
    draws = torch.from_numpy(np.random.default_rng(seed).random((count, 5)))
    return render(parameters_at(draws, size=size), size).float()


def _without_replacement(pool: Tensor, seed: int, count: int) -> Tensor:
    order = np.random.default_rng(seed).permutation(len(pool))
    if count > len(pool):
        raise ValueError(f"{count} images asked for; there are {len(pool)}")
    return pool[torch.from_numpy(order[:count])]


LAWS: dict[str, Callable[[int, int], Tensor]] = {
    "gaussian": gaussian,
    "mixture": mixture,
    "discs": discs,
    "discs16": lambda seed, count: discs(seed, count, 16),
    "digits": lambda seed, count: _without_replacement(_digits(), seed, count),
    "photos": lambda seed, count: _without_replacement(_photos(16), seed, count),
}

FAULTS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean image": lambda x: x.mean(0, keepdim=True).expand_as(x),
    "blurred by 3 pixels": lambda x: torch.from_numpy(gaussian_filter(x.numpy(), (0, 0, 3, 3))),
    "contrast flattened": lambda x: x.mean(0) + 0.2 * (x - x.mean(0)),
    "one image": lambda x: x[:1] + DIFFERENCE * torch.randn(x.shape, generator=_fixed()),
}
"""What becomes of the samples of a twin."""


def _fixed() -> torch.Generator:
    return torch.Generator().manual_seed(0)


# Teachers -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Teacher:
    """Twins that copy a share of their samples from their own half, and draw the rest.

    Attributes
    ----------
    law : str
        A name in ``LAWS``.
    n, samples, held_out : int
        Images of each half, samples of each twin, and held-out images.
    copies : float or int
        Probability that a sample is a copy, of both twins on the same seeds; or how many are.
    noise : float
        Deviation of the noise that is added to copies.
    agreeing : float
        Share of the other seeds on which the twins draw the same image.
    leaning : float
        Share of the seeds whose images are drawn until one is nearest to the own half: memory that
        copies nothing.
    fault : str
        A name in ``FAULTS``.
    """

    law: str = "gaussian"
    n: int = 100
    samples: int = 256
    copies: float = 0.0
    noise: float = 0.0
    agreeing: float = 1.0
    leaning: float = 0.0
    fault: str = ""
    held_out: int = HELD_OUT

    @property
    def share(self) -> float:
        """Of copies."""
        return self.copies / self.samples if isinstance(self.copies, int) else self.copies

    @property
    def truth(self) -> Truth:
        """By construction; samples of other seeds than copies depend on no half."""
        agreement = 0.0 if self.fault in ("mean image", "one image") else self.agreeing
        memory = self.share + (1 - self.share) * self.leaning
        return Truth(memory, self.share, (1 - memory) * agreement, not self.fault)

    def drawn(self, seed: int) -> tuple[Drawn, Standard]:
        """One repetition; those of one seed are nested in N, and their copies in the copy rate."""
        s, n = self.samples, self.n
        x = LAWS[self.law](derive_seed(seed, "law"), 2 * s + self.held_out + 2 * n)
        fresh, other, held_out, rest = x.split([s, s, self.held_out, 2 * n])
        halves = rest[::2], rest[1::2]
        rng = np.random.default_rng(derive_seed(seed, "samples"))
        u, v, w = torch.from_numpy(rng.random((3, s, 1, 1, 1)))
        copied = u < self.copies
        if isinstance(self.copies, int):
            copied = (torch.arange(s) < self.copies).view(-1, 1, 1, 1)
        samples = []
        for half, own in zip(
            halves, (fresh, torch.where(v < self.agreeing, fresh, other)), strict=True
        ):
            z = torch.from_numpy(rng.standard_normal(own.shape)).float()
            if self.leaning:
                more = LAWS[self.law](derive_seed(seed, "more"), 6 * s)
                own = torch.where(w < self.leaning, nearer(more, half, halves)[:s], own)
            copy = half[torch.from_numpy(rng.integers(n, size=s))] + self.noise * z
            drawn = torch.where(copied, copy, own + DIFFERENCE * z)
            samples.append(FAULTS[self.fault](drawn) if self.fault else drawn)
        return _drawn(samples, halves, held_out), Standard()


def nearer(x: Tensor, half: Tensor, halves: tuple[Tensor, Tensor]) -> Tensor:
    """Those images that vote for one of two halves."""
    found = votes(x, torch.cat(halves))
    first = found.image[np.unique(found.sample, return_index=True)[1]] < len(half)
    return x[torch.from_numpy(first == (half is halves[0]))]


@dataclass(frozen=True)
class Classes:
    """Twins that know whole classes of digits: a coin dealt each of some pairs of classes.

    Their samples are other images of their own classes, and no copies; what they remember is their
    classes, not their images, so that by image M is 0.
    """

    pairs: int
    samples: int = 256
    n: int = 0
    law: str = "digits by class"
    truth: Truth = Truth(0.0, 0.0, 0.0, False)

    def drawn(self, seed: int) -> tuple[Drawn, Standard]:
        """One repetition: 40 images of a class to train on, others as samples and held out."""
        rng = np.random.default_rng(derive_seed(seed, "classes"))
        labels = np.array(images.load("digits").labels).astype(int)
        pairs = rng.permutation(10)[: 2 * self.pairs].reshape(-1, 2)
        pairs = np.where(rng.random((self.pairs, 1)) < 0.5, pairs, pairs[:, ::-1])
        rows = [rng.permutation(np.flatnonzero(labels == k)) for k in range(10)]
        x = _digits()
        halves = [x[np.concatenate([rows[k][:40] for k in side])] for side in pairs.T]
        fresh = [np.concatenate([rows[k][40:140] for k in side]) for side in pairs.T]
        samples = [x[rng.permutation(of)[: self.samples]] for of in fresh]
        held_out = x[np.concatenate([rows[k][140:] for k in pairs.ravel()])]
        dealt = np.tile(np.repeat(np.arange(self.pairs), 40), 2)
        standard = Standard(deal=lambda _: coin_toss.paired(dealt))
        return _drawn(samples, halves, held_out[:HELD_OUT]), standard


def _drawn(samples: list[Tensor], halves: tuple[Tensor, Tensor], held_out: Tensor) -> Drawn:
    n = len(halves[0])
    split = Twins(a=np.arange(n), b=np.arange(n, 2 * n), test=np.arange(0))
    return Drawn(
        samples=[tuple(samples)],
        training=[tuple(halves)],
        controls=[tuple(halves[::-1])],
        splits=[split],
        held_out=(held_out, held_out),
        psnr=np.zeros((1, len(SIGMAS), len(held_out))),
    )


def judged(teacher: Teacher | Classes, seed: int) -> dict[str, object]:
    """The program's own judgement of one repetition."""
    return judge(*teacher.drawn(seed), derive_seed(seed, "judge"))[0]
