"""The conventions by which networks are trained: what they are given, and what they return.

A network ``F`` is called as ``F(c y, t)`` with an image ``y = x + sigma z`` in its own range, and
what it returns gives the clean estimate. docs/models.md lists the formulas.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from twinscore.denoisers.adapters.times import Levels, flow_time, linear_table, tabulated


@dataclass(frozen=True)
class Convention:
    """How a network is called, and how its output becomes a clean estimate.

    Attributes
    ----------
    name : str
        What it is called in messages and by :func:`converted`.
    returns : str
        What the network returns, in words.
    scale : callable
        ``c(sigma)``, by which the noisy image is multiplied before the network sees it.
    time : callable
        The time that goes with a noise level, where the network has no table of its own.
    estimate : callable
        ``estimate(y, F, sigma)``: the clean image. All are in the network's own range, sigma too,
        which can be combined with images.
    """

    name: str
    returns: str
    scale: Levels
    time: Levels
    estimate: Callable[[Tensor, Tensor, Tensor], Tensor]


def _one(sigma: Tensor) -> Tensor:
    return torch.ones_like(sigma)


def _itself(sigma: Tensor) -> Tensor:
    return sigma


def _preserving(sigma: Tensor) -> Tensor:
    """Scale at which image and noise have variance 1 together, if the image has."""
    return 1 / torch.sqrt(1 + sigma**2)


def _straight(sigma: Tensor) -> Tensor:
    """``1 - s`` of the flow ``(1 - s) x + s z``, whose noise level is ``s / (1 - s)``."""
    return 1 / (1 + sigma)


_STEPS = tabulated(*linear_table())


def _quarter_log(sigma: Tensor) -> Tensor:
    return torch.log(sigma) / 4


def edm(deviation: float = 0.5, sign: float = 1.0) -> Convention:
    """Preconditioning of Karras et al. 2022, table 1, for data of a standard deviation.

    ``sign`` -1 is the other prediction type of its schedulers.
    """
    variance = deviation**2
    return Convention(
        "edm" if sign > 0 else "edm-velocity",
        "what EDM adds to the image, scaled" + (", its sign reversed" if sign < 0 else ""),
        lambda s: 1 / torch.sqrt(s**2 + variance),
        _quarter_log,
        lambda y, F, s: (
            variance / (s**2 + variance) * y
            + sign * s * deviation / torch.sqrt(s**2 + variance) * F
        ),
    )


def trigflow(deviation: float = 0.5) -> Convention:
    """TrigFlow of Lu and Song 2025: ``cos(t) x + sin(t) z`` with ``z`` of the data's deviation.

    The noise level is ``deviation tan(t)``; the network is given that image over the deviation.
    """

    def angle(s: Tensor) -> Tensor:
        return torch.atan2(s, torch.full_like(s, deviation))

    return Convention(
        "trigflow",
        "TrigFlow's velocity",
        lambda s: torch.cos(angle(s)) / deviation,
        angle,
        lambda y, F, s: torch.cos(angle(s)) ** 2 * y - torch.sin(angle(s)) * deviation * F,
    )


_PRESERVING = (
    Convention(
        "epsilon", "the noise, of unit variance", _preserving, _STEPS, lambda y, F, s: y - s * F
    ),
    Convention("sample", "the clean image", _preserving, _STEPS, lambda y, F, s: F),
    Convention(
        "velocity",
        "the velocity (v-prediction)",
        _preserving,
        _STEPS,
        lambda y, F, s: y / (1 + s**2) - s / torch.sqrt(1 + s**2) * F,
    ),
)
"""Conventions that share their input, and so a scheduler's table."""

_FLOW = Convention(
    "flow", "noise minus image", _straight, flow_time(1000), lambda y, F, s: (y - s * F) / (1 + s)
)
_EXPLODING = (
    Convention("score", "the score", _one, _itself, lambda y, F, s: y + s**2 * F),
    Convention("noise", "the noise, of unit variance", _one, _itself, lambda y, F, s: y - s * F),
    Convention("residual", "the noise as it is in the image", _one, _itself, lambda y, F, s: y - F),
    Convention("denoised", "the clean image", _one, _itself, lambda y, F, s: F),
)
_ALL = (*_PRESERVING, _FLOW, edm(), edm(sign=-1.0), trigflow(), *_EXPLODING)

CONVENTIONS: dict[str, Convention] = {convention.name: convention for convention in _ALL}
"""Every convention by its name."""

NO_DENOISERS = {
    "consistency": "a consistency model returns one sample that fits the noisy image, not the mean "
    "of all; draw samples with it, and audit them"
}
"""What is often taken for a denoiser, and why it is none."""
