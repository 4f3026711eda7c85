"""A foreign network with the rule that makes it a denoiser, and the plainest of these rules."""

from collections.abc import Callable

from torch import Tensor, nn

from twinscore.denoisers import parts
from twinscore.denoisers.base import per_image
from twinscore.denoisers.closed_form.level import Level


class Adapted(nn.Module):
    """A foreign network and the rule that turns what it predicts into a clean estimate.

    A module, so that the network moves between devices, has its weights and tells whether it is in
    training mode as if it stood alone, wherever a callable holds it
    (``denoisers.parts``): what it holds becomes a part of the adapter, and must not
    hold the adapter itself. Made by the functions of this module.

    Parameters
    ----------
    network : callable
        A module or any other callable.
    rule : callable
        ``rule(network, y, sigma) -> x_hat``.
    """

    def __init__(self, network: Callable[..., Tensor], rule: Callable[..., Tensor]) -> None:
        super().__init__()
        self.network = network
        self.inside = nn.ModuleList(n for n in parts.networks(network) if n is not network)
        self.rule = rule
        self.training = self.inside.training = getattr(network, "training", False)

    def forward(self, y: Tensor, sigma: Level = None) -> Tensor:
        """Clean estimate of ``y``, (B, C, H, W)."""
        return self.rule(self.network, y, sigma)


def level_per_image(network: Callable[[Tensor, Tensor], Tensor]) -> Adapted:
    """Denoiser ``D(x, sigma)`` of EDM and k-diffusion, which takes the level as a tensor only.

    Karras et al. 2022, section 5: the preconditioned network, ``network(y, sigma) -> x_hat`` with
    sigma (B,) of the dtype and on the device of ``y``. The adapter takes a float too, and raises
    ValueError without a level.
    """
    return Adapted(network, lambda net, y, sigma: net(y, needed(sigma, y)))


def residual_predicting(network: Callable[[Tensor], Tensor]) -> Adapted:
    """Blind denoiser of a network that predicts the noise as it is in the image: ``y - net(y)``.

    ``network(y)`` estimates ``sigma z`` in ``y = x + sigma z``, as the published networks of [GAHB]
    do; the noise level is ignored.
    """
    return Adapted(network, lambda net, y, sigma: y - net(y))


def with_range(denoiser: Callable[..., Tensor], low: float, high: float) -> Adapted:
    """Denoiser of images in [0, 1], from one of images in [low, high]; EDM's are in [-1, 1].

    ``(f(low + r y, r sigma) - low) / r`` with ``r = high - low``: ``denoiser(y, sigma)`` has units
    of its own, for sigma too. ValueError if ``low`` is not below ``high``.
    """
    width = high - low
    if not width > 0:
        raise ValueError(f"low must be below high; got {low} and {high}")

    def rule(inner: Callable[..., Tensor], y: Tensor, sigma: Level) -> Tensor:
        level = None if sigma is None else width * sigma
        return (inner(low + width * y, level) - low) / width

    return Adapted(denoiser, rule)


def needed(sigma: Level, y: Tensor) -> Tensor:
    """``sigma`` as a (B,) tensor like ``y``; ValueError without it."""
    if sigma is None:
        raise ValueError("this denoiser needs the noise level; pass sigma")
    return per_image(sigma, y)
