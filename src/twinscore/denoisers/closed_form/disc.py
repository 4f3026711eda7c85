r"""Images of discs: the exact posterior mean by quadrature, and its limit at small noise.

The images are those of ``images/synthetic/discs.py``, :math:`x = f\varphi + b(1 - \varphi)` with
the mask :math:`\varphi` of a disc: linear in foreground and background, which are uniform in
[0, 1]. The three numbers of the mask are uniform in a cube once the centre is measured from where
the disc just fits.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from twinscore.denoisers.closed_form.level import Level, centred, variance_of
from twinscore.denoisers.closed_form.quadrature import adaptive_nodes, cut_normal, window
from twinscore.denoisers.closed_form.subspace import LinearSubspace
from twinscore.images.synthetic.discs import parameters_at, render, tangents

_CHUNK = 2**21
"""Numbers held at a time, of masks."""

_RANK = 1e-9
"""Smallest singular value of the tangents, relative to the largest, that counts as a direction."""

_NEGLIGIBLE = math.log(1e-12)
"""Log probability of a node, relative to the most probable one, from which it is left out."""


@dataclass(frozen=True)
class Disc:
    """Posterior mean of discs of random centre, radius, foreground and background.

    The integral over the masks is refined where an image's posterior lies; for each mask, that over
    the foreground is exact, and that over the background takes 20 nodes about its peak. All is done
    in float64. What results is the exact denoiser of the density that the nodes make, and so
    is its Jacobian. Error: ``tolerance`` times the posterior's spread, by estimate.
    Images are taken one at a time; each costs some 10^4 to 10^5 masks. Memory is bounded by chunks,
    but for derivatives by autograd, which keep an image's masks.

    Attributes
    ----------
    size : int
        Side of the image in pixels.
    radius : tuple of float, optional
        Least and largest radius in pixels, as for ``discs:``.
    edge : float
        Width of the edge in pixels.
    tolerance : float
        Estimated error of the integral over masks, relative to it.

    Raises
    ------
    InputError
        If the discs do not fit, or (in a call) the edge is out of its range.
    ValueError
        If the tolerance is not between 0 and 1, or the images of a call are not finite.
    RuntimeError
        If 2^18 cells do not reach the tolerance.
    """

    size: int = 80
    radius: tuple[float, float] | None = None
    edge: float = 1.0
    tolerance: float = 1e-3

    def __post_init__(self) -> None:
        """Refuse discs that do not fit, and no tolerance."""
        parameters_at(torch.zeros(0, 5), size=self.size, radius=self.radius)
        if not 0 < self.tolerance < 1:
            raise ValueError(f"the tolerance must be between 0 and 1, got {self.tolerance}")

    def __call__(self, y: Tensor, sigma: Level = None) -> Tensor:
        """E[x | y], (B, 1, H, W)."""
        means = [self._mean(self._nodes(*one)) for one in self._each(y, sigma)]
        return torch.stack(means).to(y).view_as(y)

    def score(self, y: Tensor, sigma: Level) -> Tensor:
        """Gradient of the log density of ``y``, (B, 1, H, W)."""
        return (self(y, sigma) - y) / variance_of(sigma, y).view(-1, 1, 1, 1)

    def log_density(self, y: Tensor, sigma: Level) -> Tensor:
        """Log density of ``y = x + sigma z``, (B,), nats."""
        evidence = [self._nodes(*one).log_evidence for one in self._each(y, sigma)]
        return torch.stack(evidence).to(y)

    def jacobian(self, y: Tensor, sigma: Level) -> Tensor:
        """Derivative of the denoiser at ``y``, ``Cov[x | y] / sigma^2``, (B, d, d).

        Cost: 6 d^2 flops a mask, besides a call.
        """
        parts = self._each(y, sigma)
        return torch.stack([self._covariance(self._nodes(*p)) / p[1] for p in parts]).to(y)

    def _each(self, y: Tensor, sigma: Level) -> list[tuple[Tensor, Tensor]]:
        """Images (d,) and noise variances in float64."""
        centred(y[:0], y.new_zeros(1, self.size, self.size))
        if not torch.isfinite(y).all():
            raise ValueError("y holds NaN or infinity")
        noise = variance_of(sigma, y.double()).expand(len(y), 1)[:, 0]
        return list(zip(y.double().flatten(1), noise, strict=True))

    def _nodes(self, y: Tensor, noise: Tensor) -> "_Nodes":
        """Masks that matter to ``p(x | y)``, and what ``y`` says about the intensities of each."""
        step = self._step()

        def log_evidence(points: Tensor) -> Tensor:
            parts = points.to(y.device).split(step)
            return torch.cat([_intensities(self._masks(p), y, noise)[0] for p in parts]).cpu()

        with torch.no_grad():
            points, volumes, values = adaptive_nodes(log_evidence, 3, self.tolerance)
        masses = volumes + values
        kept = masses > masses.max() + _NEGLIGIBLE
        points, volumes = points[kept].to(y.device), volumes[kept].to(y.device)
        parts = [_intensities(self._masks(p), y, noise) for p in points.split(step)]
        log_evidence, means, covariances = (torch.cat(p) for p in zip(*parts, strict=True))
        joint = volumes + log_evidence
        return _Nodes(points, joint.softmax(0), means, covariances, joint.logsumexp(0))

    def _mean(self, nodes: "_Nodes") -> Tensor:
        """``E[x]``, (d,)."""
        foreground, background = (nodes.probabilities[:, None] * nodes.means).unbind(1)
        contrast, step, found = foreground - background, self._step(), background.sum()
        for points, part in zip(nodes.points.split(step), contrast.split(step), strict=True):
            found = found + part @ self._masks(points)
        return found

    def _covariance(self, nodes: "_Nodes") -> Tensor:
        """``Cov[x]``, (d, d): between masks and within each."""
        values, vectors = torch.linalg.eigh(nodes.covariances)
        roots = (vectors * values.clamp_min(0).sqrt()[:, None]).mT
        theta = torch.cat([nodes.means[:, None], roots], 1)
        step, centre, found = self._step(), self._mean(nodes), 0.0
        parts = (of.split(step) for of in (nodes.points, theta, nodes.probabilities))
        for points, two, probabilities in zip(*parts, strict=True):
            masks = self._masks(points)[:, None]
            images = two[:, :, :1] * masks + two[:, :, 1:] * (1 - masks)
            images[:, 0] -= centre
            rows = (images * probabilities.sqrt()[:, None, None]).flatten(0, 1)
            found = found + rows.T @ rows
        return found

    def _masks(self, points: Tensor) -> Tensor:
        """Masks (M, d) of points (M, 3) of the unit cube."""
        white_on_black = points.new_tensor([1.0, 0.0]).expand(len(points), 2)
        draws = torch.cat([points, white_on_black], 1)
        parameters = parameters_at(draws, size=self.size, radius=self.radius)
        return render(parameters, self.size, edge=self.edge).flatten(1)

    def _step(self) -> int:
        return max(1, _CHUNK // self.size**2)


def disc_tangent(parameters: Tensor, size: int, *, edge: float = 1.0) -> LinearSubspace:
    """Denoiser of the discs near a given one, at small noise: projection on their tangent space.

    ``f(y) = x + P (y - x)`` with the image x of the parameters and P the orthogonal projection on
    the derivatives of x in them: the limit of the posterior mean as sigma falls to 0, for y about
    x. It must be told the parameters, true or fitted, and the noise level has no effect on it. Its
    error is ``5 sigma^2``, summed over pixels, or ``2 sigma^2`` where the intensities are equal.

    Parameters
    ----------
    parameters : Tensor
        (5,) of one disc, in the order of ``discs.PARAMETERS``.
    size : int
        Side of the image in pixels.
    edge : float
        Width of the edge in pixels.

    Returns
    -------
    LinearSubspace
        Flat, of 5 dimensions, or of 2 without contrast.

    Raises
    ------
    InputError
        If the disc does not fit, or a value is out of its range.
    """
    image = render(parameters[None], size, edge=edge)[0]
    directions = tangents(parameters[None], size, edge=edge)[0].flatten(1)
    _, values, basis = torch.linalg.svd(directions, full_matrices=False)
    basis = basis[values > _RANK * values[0]]
    return LinearSubspace(image, basis.view(-1, *image.shape))


@dataclass(frozen=True, eq=False)
class _Nodes:
    """M masks with their probabilities, and the intensities' moments given each; log evidence."""

    points: Tensor
    probabilities: Tensor
    means: Tensor
    covariances: Tensor
    log_evidence: Tensor


def _intensities(masks: Tensor, y: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Log evidence (M,), mean (M, 2) and covariance (M, 2, 2) of the two intensities, given masks.

    Their likelihood is Gaussian, with precision the Gram matrix of mask and complement, and cut to
    the unit square: the integral over the foreground is exact, that over the background by nodes.
    """
    d, area, ff = masks.shape[1], masks.sum(1), masks.square().sum(1)
    fb, bb = area - ff, d - 2 * area + ff
    with_mask = masks @ y
    with_rest = y.sum() - with_mask
    given = noise / ff
    with torch.no_grad():
        free = bb - fb**2 / ff
        peak = (with_rest - fb * with_mask / ff) / free
        b, volumes = window(peak, (noise / free).sqrt())
    left = with_mask[:, None] - fb[:, None] * b
    mass, f, spread = cut_normal(left / ff[:, None], given.sqrt()[:, None])
    energy = b * (b * bb[:, None] / 2 - with_rest[:, None]) - left**2 / (2 * ff[:, None])
    over_f = mass + (2 * math.pi * given).log()[:, None] / 2
    log_joint = volumes + over_f - (energy + y.square().sum() / 2) / noise
    weights = log_joint.softmax(1)
    pairs = torch.stack([f, b], 2)
    means = (weights[:, None] @ pairs)[:, 0]
    off = pairs - means[:, None]
    within = torch.stack([(weights * spread).sum(1), torch.zeros_like(area)], 1)
    covariances = off.mT @ (weights[:, :, None] * off) + torch.diag_embed(within)
    return log_joint.logsumexp(1) - d / 2 * (2 * math.pi * noise).log(), means, covariances
