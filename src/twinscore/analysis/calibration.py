"""Whether a model is wired right: of all known conventions, the one that it is said to follow fits.

A network says nothing of what it returns. Under a wrong convention the estimate is still an image,
and everything measured on it is wrong; but it is a worse estimate, and that can be seen.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from twinscore.denoisers import Denoiser, denoise
from twinscore.denoisers.adapters import Wiring, wiring_of, wirings
from twinscore.denoisers.layers import generator_of
from twinscore.errors import one_line
from twinscore.runs import derive_seed

MARGIN = 0.9
"""A convention is taken to fit better where its error is smaller than this part of the other's."""
BIAS = 0.5
"""Largest mean of the error, over the noise level, that passes for none at the smallest level; of
networks that were trained for a few steps, twice the largest (benchmarks/calibration.py)."""


@dataclass(frozen=True)
class Fit:
    """How well one convention fits.

    Attributes
    ----------
    wiring : str
        The convention and the range of intensities.
    errors : tuple of float
        Squared error per pixel at each noise level, image units; infinite where the network cannot
        be called like this.
    bias : float
        Mean of ``x_hat - x`` at the smallest level.
    silent : tuple of float
        The errors of a network that returns 0 under this convention.
    why : str
        What the network says where it cannot be called.
    """

    wiring: str
    errors: tuple[float, ...]
    bias: float
    silent: tuple[float, ...]
    why: str = ""

    def denoises(self, sigmas: Sequence[float]) -> bool:
        """Whether at the smallest level it leaves less than the noise, and no offset."""
        return self.errors[0] < sigmas[0] ** 2 and abs(self.bias) < BIAS * sigmas[0]

    def beats(self, errors: Sequence[float]) -> bool:
        """Whether its error is clearly smaller than others at most levels."""
        pairs = zip(self.errors, errors, strict=True)
        return sum(e < MARGIN * o for e, o in pairs) > len(self.errors) / 2

    @property
    def score(self) -> float:
        """Mean of the log errors."""
        return sum(math.log(max(e, 1e-30)) for e in self.errors) / len(self.errors)


def noisy(x: Tensor, sigma: float, seed: int) -> Tensor:
    """Images with noise of a level, the same for every convention."""
    z = torch.randn(x.shape, generator=generator_of(derive_seed(seed, "calibration")))
    return x + sigma * z.to(x)


@torch.no_grad()
def fits(denoiser: Denoiser, x: Tensor, sigmas: Sequence[float], seed: int) -> list[Fit]:
    """Fit every known convention: the denoiser as it is comes first.

    Parameters
    ----------
    denoiser : Denoiser
        Any; one that :func:`~twinscore.denoisers.adapters.converted` did not make is itself the
        network whose output may mean something else.
    x : Tensor
        Clean images that the model knows, (N, C, H, W).
    sigmas : sequence of float
        Noise levels, ascending, image units.
    seed : int
        Of the noise.
    """
    network, own = wiring_of(denoiser)
    found = [_fit(own, denoiser, x, sigmas, seed)]
    for wiring in wirings(own)[1:]:

        def other(y: Tensor, sigma: Tensor, wiring: Denoiser = wiring) -> Tensor:
            return wiring(network, y, sigma)

        found.append(_fit(wiring, other, x, sigmas, seed))
    return found


def _fit(wiring: Wiring, denoiser: Denoiser, x: Tensor, sigmas: Sequence[float], seed: int) -> Fit:
    name, silent = str(wiring), tuple(_silent(wiring, x, sigma, seed) for sigma in sigmas)
    try:
        left = [denoise(denoiser, noisy(x, sigma, seed), sigma).double() - x for sigma in sigmas]
        errors, bias = [e.square().mean().item() for e in left], left[0].mean().item()
    except Exception as error:  # a network may refuse a time or a scale in whatever way it likes
        return Fit(name, (math.inf,) * len(sigmas), math.inf, silent, one_line(error))
    finite = tuple(e if math.isfinite(e) else math.inf for e in errors)
    return Fit(name, finite, bias if math.isfinite(bias) else math.inf, silent)


def _silent(wiring: Wiring, x: Tensor, sigma: float, seed: int) -> float:
    """Squared error per pixel of a network that returns 0."""
    y = noisy(x, sigma, seed)
    x_hat = wiring(lambda x, t: torch.zeros_like(x), y, y.new_full((len(y),), sigma))
    return (x_hat.double() - x).square().mean().item()


def better(found: Sequence[Fit], sigmas: Sequence[float]) -> Fit | None:
    """The convention that fits best of those that beat the first and denoise; None without any.

    Some conventions shrink their input whatever the network returns, and so suit one that has
    learned nothing yet: the network must clearly add to that.
    """
    rivals = [
        fit
        for fit in found[1:]
        if fit.beats(found[0].errors) and fit.beats(fit.silent) and fit.denoises(sigmas)
    ]
    return min(rivals, key=lambda fit: fit.score, default=None)


def fault(found: Sequence[Fit], sigmas: Sequence[float]) -> str | None:
    """What is wrong with a model on images that it was trained on, or drew; None if nothing is."""
    own, sigma = found[0], sigmas[0]
    if rival := better(found, sigmas):
        smaller = sum(r < o for r, o in zip(rival.errors, own.errors, strict=True))
        return (
            f"this looks like {rival.wiring}, not {own.wiring}: that leaves a smaller error at "
            f"{smaller} of {len(sigmas)} noise levels"
        )
    if math.isinf(max(own.errors)):
        return f"as {own.wiring} it gives no estimate: {own.why or 'NaN or infinity'}"
    if own.errors[0] >= sigma**2:
        return (
            f"as {own.wiring} it leaves an error of {own.errors[0]:.2g} a pixel at sigma "
            f"{sigma:g}, no less than the noise itself ({sigma**2:.2g}), and no other known "
            "convention fits"
        )
    if abs(own.bias) >= BIAS * sigma:
        return (
            f"as {own.wiring} its estimates are {own.bias:+.2g} off on average at sigma {sigma:g}; "
            "the range of intensities is probably another"
        )
    return None
