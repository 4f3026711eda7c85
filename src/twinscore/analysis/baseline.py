"""The best that second moments can do: the Gaussian posterior mean, with what a network knows.

A network has learned something if it denoises held-out images at least as well. The comparison is
fair only with the network's own knowledge: a blind network has to infer the noise level, and one
without additive terms does not know the mean.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from twinscore.denoisers import Denoiser
from twinscore.denoisers.closed_form import Gaussian
from twinscore.denoisers.closed_form.level import Level, centred
from twinscore.images import ImageSet

_CHUNK = 2**22
"""Numbers of images held at a time in float64."""


@dataclass(frozen=True, eq=False)
class BlindGaussian:
    """Posterior mean under a Gaussian and a law of noise levels; it is not told the level.

    ``f(y) = sum_k p(sigma_k | y) f_k(y)``, where ``f_k`` is the Gaussian's posterior mean at
    ``sigma_k``, and ``p(sigma_k | y)`` goes as the density of y, ``N(y; mean, C + sigma_k^2)``.
    Cost of a call: 4 B d^2 + 4 B d K flops.

    Attributes
    ----------
    prior : Gaussian
        Of the images.
    levels : Tensor
        (K,) equally probable noise levels above 0, such as quantiles of a law.
    """

    prior: Gaussian
    levels: Tensor

    def __call__(self, y: Tensor, sigma: Level = None) -> Tensor:
        """E[x | y], (B, C, H, W); ``sigma`` is ignored."""
        basis, variances = self.prior.components.to(y), self.prior.variances.to(y)
        c = centred(y, self.prior.mean) @ basis
        total = variances[:, None] + self.levels.to(y).square()
        weights = torch.softmax(-0.5 * (c.square() @ (1 / total) + total.log().sum(0)), 1)
        shrunk = c * (weights @ (variances[:, None] / total).T)
        return self.prior.mean.to(y) + (shrunk @ basis.T).view_as(y)


def fitted(
    images: Tensor | ImageSet, *, levels: Tensor | None = None, centre: bool = True
) -> Denoiser:
    """Gaussian baseline of N images.

    Its covariance is the images' own, shrunk towards a multiple of the identity as far as Ledoit
    & Wolf (2004) advise: hardly at all for many images, and far for fewer than an image has
    numbers, where their own covariance would be certain of what it has not seen.

    Parameters
    ----------
    images : Tensor or ImageSet
        (N, C, H, W). Cost: N d^2 flops and an eigendecomposition; memory: some five (d, d) matrices
        of float64.
    levels : Tensor, optional
        (K,) equally probable noise levels of the law that a blind network was trained on; None for
        a network that is told the level.
    centre : bool
        Whether the network can know the mean. If not, the Gaussian has mean zero and the images'
        second moment.

    Raises
    ------
    ValueError
        If there are no images.
    """
    count = len(images)
    if not count:
        raise ValueError("a baseline needs images to be fitted to")
    shape = images[:1].shape[1:]
    rows = max(1, _CHUNK // shape.numel())
    parts = lambda: (images[i : i + rows].flatten(1).double() for i in range(0, count, rows))  # noqa: E731
    mean = torch.zeros(shape.numel(), dtype=torch.float64)
    if centre:
        mean = sum(part.sum(0) for part in parts()) / count
    second, fourth = torch.zeros(len(mean), len(mean), dtype=torch.float64), 0.0
    for part in parts():
        centred_part = part - mean
        second.addmm_(centred_part.T, centred_part, alpha=1 / count)
        fourth += centred_part.square().sum(1).square().sum().item()
    prior = Gaussian.of(mean.view(shape), _shrunk(second, fourth, count))
    return prior if levels is None else BlindGaussian(prior, levels)


def _shrunk(covariance: Tensor, fourth: float, count: int) -> Tensor:
    """Ledoit and Wolf's estimate, from the covariance and the sum of fourth powers of norms."""
    d = len(covariance)
    square = covariance.square().sum().item()
    level = covariance.trace().item() / d
    noise = (fourth / count - square) / count
    away = square - d * level**2
    share = 1.0 if away <= 0 else min(1.0, max(0.0, noise) / away)
    eye = torch.eye(d, dtype=covariance.dtype)
    return (1 - share) * covariance + share * level * eye
