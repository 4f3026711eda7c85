"""How a network is wired to be a denoiser of images in [0, 1]: convention, time and range."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from twinscore.denoisers.adapters.adapted import Adapted, needed
from twinscore.denoisers.adapters.conventions import (
    CONVENTIONS,
    NO_DENOISERS,
    Convention,
    Levels,
)
from twinscore.denoisers.closed_form.level import Level

RANGES = ((-1.0, 1.0), (0.0, 1.0))
"""Of the intensities with which networks are trained."""


@dataclass(frozen=True)
class Wiring:
    """The rule of :func:`converted`: what the network is given, and what its output means.

    Attributes
    ----------
    convention : Convention
        Its formulas.
    time : callable
        The time that goes with (B,) noise levels in the network's range.
    low, high : float
        That range.
    """

    convention: Convention
    time: Levels
    low: float
    high: float

    def __call__(self, network: Callable[..., Tensor], y: Tensor, sigma: Level = None) -> Tensor:
        """Clean estimate of ``y``, (B, C, H, W), of images in [0, 1].

        ValueError if the network returns no tensor.
        """
        width = self.high - self.low
        level = width * needed(sigma, y)
        own, per_image = self.low + width * y, level.view(-1, 1, 1, 1)
        output = network(self.convention.scale(per_image) * own, self.time(level))
        if not isinstance(output, Tensor):
            raise ValueError(
                f"the network returned {type(output).__name__}, not a tensor; give a function that "
                "takes the tensor out of it, such as output[0] or output.sample"
            )
        return (self.convention.estimate(own, output, per_image) - self.low) / width

    def __str__(self) -> str:
        return f"{self.convention.name} in [{self.low:g}, {self.high:g}]"


def converted(
    network: Callable[[Tensor, Tensor], Tensor],
    convention: str | Convention,
    *,
    time: Levels | None = None,
    low: float = -1.0,
    high: float = 1.0,
) -> Adapted:
    """Denoiser of images in [0, 1] from a network that follows a convention.

    Parameters
    ----------
    network : callable
        ``network(c y, t) -> F``, (B, C, H, W), with ``t`` (B,), both of the dtype and on the device
        of ``y``.
    convention : str or Convention
        A name of ``CONVENTIONS``, or what :func:`edm` or :func:`trigflow` gave.
    time : callable, optional
        The time ``t`` of (B,) noise levels in the network's range: :func:`tabulated` for a
        scheduler's own table; default: the convention's.
    low, high : float
        The range of the network's images.

    Returns
    -------
    Adapted
        The denoiser; ValueError when it is called without a level.

    Raises
    ------
    ValueError
        If there is no such convention, or ``low`` is not below ``high``.

    Examples
    --------
    >>> import torch
    >>> from twinscore.denoisers.adapters import converted
    >>> denoiser = converted(lambda y, t: torch.zeros_like(y), "noise")  # predicts none
    >>> y = torch.rand(2, 1, 8, 8)
    >>> torch.allclose(denoiser(y, torch.tensor([0.1, 0.2])), y)
    True
    """
    if isinstance(convention, str):
        if convention not in CONVENTIONS:
            why = NO_DENOISERS.get(convention, f"give one of {', '.join(CONVENTIONS)}")
            raise ValueError(f"{convention!r} is not a convention of denoisers: {why}")
        convention = CONVENTIONS[convention]
    if not low < high:
        raise ValueError(f"low must be below high; got {low} and {high}")
    return Adapted(network, Wiring(convention, time or convention.time, low, high))


def wiring_of(denoiser: Callable[..., Tensor]) -> tuple[Callable[..., Tensor], Wiring]:
    """A network and how it is wired; any other denoiser is its own network, ``denoised``."""
    if isinstance(denoiser, Adapted) and isinstance(denoiser.rule, Wiring):
        return denoiser.network, denoiser.rule
    plain = CONVENTIONS["denoised"]
    return denoiser, Wiring(plain, plain.time, 0.0, 1.0)


def wirings(own: Wiring) -> list[Wiring]:
    """``own`` first, then every other convention in every range, with the times known of it.

    A variance-preserving network keeps its table under the other conventions of its kind.
    """
    found = [own]
    for convention in CONVENTIONS.values():
        kept = own.convention.scale is convention.scale
        time = own.time if kept else convention.time
        for low, high in RANGES:
            each = Wiring(convention, time, low, high)
            if str(each) != str(own):
                found.append(each)
    return found
