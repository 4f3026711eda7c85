r"""Images of discs: the exact posterior mean by quadrature, and its limit at small noise.

The images are those of ``images/synthetic/discs.py``, :math:`x = f\varphi + b(1 - \varphi)` with
the mask :math:`\varphi` of a disc: linear in foreground and background, which are uniform in
[0, 1]. The three numbers of the mask are uniform in a cube once the centre is measured from where
the disc just fits.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from twinscore.denoisers.closed_form.intensities import Intensities, intensities
from twinscore.denoisers.closed_form.level import Level, centred, differentiated, variance_of
from twinscore.denoisers.closed_form.quadrature import adaptive_nodes
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
    Images are taken one at a time, and copies of one together; each costs some 10^4 to 10^5 masks.
    Memory: chunks of 2^21 numbers, and four numbers for each mask; no more for derivatives of first
    and second order, which pass over the masks again. Those of third order keep the masks.
    It can be differentiated in ``y``, not in ``sigma``, in reverse or forward mode. A second order
    takes reverse mode at least once: for forward over forward mode torch gives 0. Derivatives of a
    reverse pass compute those in ``y`` too, asked for or not: twice the cost.

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
        If the tolerance is not between 0 and 1, the images of a call are not finite, or sigma
        needs a gradient.
    RuntimeError
        If 2^18 cells do not reach the tolerance.
    """

    size: int = 80
    radius: tuple[float, float] | None = None
    edge: float = 1.0
    tolerance: float = 1e-3

    def __post_init__(self) -> None:
        """Refuse discs that do not fit, and an impossible tolerance."""
        parameters_at(torch.zeros(0, 5), size=self.size, radius=self.radius)
        if not 0 < self.tolerance < 1:
            raise ValueError(f"the tolerance must be between 0 and 1, got {self.tolerance}")

    def __call__(self, y: Tensor, sigma: Level = None) -> Tensor:
        """E[x | y], (B, 1, H, W)."""
        return self._posterior(y, sigma)[0].to(y).view_as(y)

    def score(self, y: Tensor, sigma: Level) -> Tensor:
        """Gradient of the log density of ``y``, (B, 1, H, W)."""
        return (self(y, sigma) - y) / variance_of(sigma, y).view(-1, 1, 1, 1)

    def log_density(self, y: Tensor, sigma: Level) -> Tensor:
        """Log density of ``y = x + sigma z``, (B,), nats."""
        return self._posterior(y, sigma)[1].to(y)

    def jacobian(self, y: Tensor, sigma: Level) -> Tensor:
        """Derivative of the denoiser at ``y``, ``Cov[x | y] / sigma^2``, (B, d, d).

        Cost: 6 d^2 flops per mask, besides a call.
        """
        flat, noise = self._checked(y.detach(), sigma)
        mean, evidence, *nodes = _Posterior.apply(flat, noise, self)
        rows, points = _distinct(flat, noise, mean, evidence)
        found = [
            (self._covariance(at, of) / at.noise).expand(len(copies), -1, -1)
            for copies, at, of in zip(rows, points, nodes, strict=True)
        ]
        return _in_order(found, rows).to(y)

    def _checked(self, y: Tensor, sigma: Level) -> tuple[Tensor, Tensor]:
        """Images (B, d) and noise variances (B, 1) in float64."""
        centred(y[:0], y.new_zeros(1, self.size, self.size))
        if not torch.isfinite(y).all():
            raise ValueError("y holds NaN or infinity")
        noise = variance_of(sigma, y.double()).expand(len(y), 1)
        if differentiated(noise):
            raise ValueError("Disc can be differentiated in y, not in sigma; detach sigma")
        return y.double().flatten(1), noise

    def _posterior(self, y: Tensor, sigma: Level) -> tuple[Tensor, Tensor]:
        """Posterior mean (B, d) and log density (B,), float64."""
        return _Posterior.apply(*self._checked(y, sigma), self)[:2]

    def _integral(self, y: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean (d,) and log density of one image, and the nodes (M, 4) that matter to it.

        A node is a point of the unit cube and the logarithm of its volume.
        """

        def log_evidence(points: Tensor) -> Tensor:
            parts = points.to(y.device).split(self._step())
            found = [intensities(self._masks(part), y, noise).evidence() for part in parts]
            return torch.cat(found).cpu()

        points, volumes, values = adaptive_nodes(log_evidence, 3, self.tolerance)
        masses = volumes + values
        kept = masses > masses.max() + _NEGLIGIBLE
        nodes = torch.cat([points, volumes[:, None]], 1)[kept].to(y.device)
        evidence = masses[kept].logsumexp(0).to(y.device)
        mean = torch.zeros_like(y)
        at = _Point(y, noise, mean, evidence)
        for masks, law, weights in self._passing(at, nodes, self._step()):
            mean = mean + _images((weights[:, None] * law.mean())[:, None], masks)[0]
        return mean, evidence, nodes

    def _passing(
        self, at: "_Point", nodes: Tensor, step: int
    ) -> Iterator[tuple[Tensor, Intensities, Tensor]]:
        """Masks (M, d), the law of the intensities given each, and their probabilities (M,)."""
        for part in nodes.split(step):
            masks = self._masks(part[:, :3])
            law = intensities(masks, at.y, at.noise)
            yield masks, law, (part[:, 3] + law.evidence() - at.evidence).exp()

    def _product(self, v: Tensor, at: "_Point", nodes: Tensor) -> Tensor:
        """``Cov[x | y] v`` of vectors (k, d), at one image."""
        sums, total = torch.zeros_like(v), torch.zeros_like(v[:, 0])
        for masks, law, weights in self._passing(at, nodes, self._step(len(v))):
            theta = law.mean()[:, None]
            slopes, offsets = _along(v, masks, theta, at.mean)
            change = offsets[:, :, None] * theta + slopes @ law.covariance()
            sums = sums + _images(weights[:, None, None] * change, masks)
            total = total + weights @ offsets
        return sums - total[:, None] * at.mean

    def _curvature(self, v: Tensor, w: Tensor, at: "_Point", nodes: Tensor) -> Tensor:
        """``E[(x - m) <v, x - m> <w, x - m> | y]`` of pairs of vectors (k, d), at one image.

        The derivative of ``Cov[x | y] v`` in ``y`` along w, times ``sigma^2``.
        """
        sums, total = torch.zeros_like(v), torch.zeros_like(v[:, 0])
        for masks, law, weights in self._passing(at, nodes, self._step(len(v))):
            theta, covariance = law.mean()[:, None], law.covariance()
            (slopes, offsets), (others, ends) = (_along(u, masks, theta, at.mean) for u in (v, w))
            mixed = offsets[:, :, None] * others + ends[:, :, None] * slopes
            share = offsets * ends + ((slopes @ covariance) * others).sum(2)
            third = torch.einsum("mabc,mkb,mkc->mka", law.third(), slopes, others)
            change = share[:, :, None] * theta + mixed @ covariance + third
            sums = sums + _images(weights[:, None, None] * change, masks)
            total = total + weights @ share
        return sums - total[:, None] * at.mean

    def _covariance(self, at: "_Point", nodes: Tensor) -> Tensor:
        """``Cov[x | y]`` of one image, (d, d): between masks and within each."""
        found = at.y.new_zeros(len(at.y), len(at.y))
        for masks, law, weights in self._passing(at, nodes, self._step()):
            values, vectors = torch.linalg.eigh(law.covariance())
            roots = (vectors * values.clamp_min(0).sqrt()[:, None]).mT
            theta = torch.cat([law.mean()[:, None], roots], 1)
            images = theta[:, :, :1] * masks[:, None] + theta[:, :, 1:] * (1 - masks[:, None])
            images[:, 0] -= at.mean
            rows = (images * weights.sqrt()[:, None, None]).flatten(0, 1)
            found = torch.addmm(found, rows.T, rows)
        return found

    def _masks(self, points: Tensor) -> Tensor:
        """Masks (M, d) of points (M, 3) of the unit cube."""
        white_on_black = points.new_tensor([1.0, 0.0]).expand(len(points), 2)
        draws = torch.cat([points, white_on_black], 1)
        parameters = parameters_at(draws, size=self.size, radius=self.radius)
        return render(parameters, self.size, edge=self.edge).flatten(1)

    def _step(self, vectors: int = 1) -> int:
        return max(1, _CHUNK // max(self.size**2, vectors))


def disc_tangent(parameters: Tensor, size: int, *, edge: float = 1.0) -> LinearSubspace:
    """Denoiser of the discs near a given one, at small noise: projection on their tangent space.

    ``f(y) = x + P (y - x)`` with the image x of the parameters and P the orthogonal projection on
    the derivatives of x in them: the limit of the posterior mean as sigma falls to 0, for y near x.
    It must be told the parameters, true or fitted, and the noise level has no effect on it. Its
    error is ``5 sigma^2``, summed over pixels, or ``2 sigma^2`` where the intensities are equal:
    the space is flat, with 5 dimensions, or 2 without contrast.

    Parameters are (5,), in the order of ``discs.PARAMETERS``; side and width of the edge in pixels.
    InputError if the disc does not fit, or a value is out of its range.
    """
    image = render(parameters[None], size, edge=edge)[0]
    directions = tangents(parameters[None], size, edge=edge)[0].flatten(1)
    _, values, basis = torch.linalg.svd(directions, full_matrices=False)
    basis = basis[values > _RANK * values[0]]
    return LinearSubspace(image, basis.view(-1, *image.shape))


class _Point(NamedTuple):
    """An image (d,), its noise variance, and the mean (d,) and log density that belong to it."""

    y: Tensor
    noise: Tensor
    mean: Tensor
    evidence: Tensor


class _Posterior(torch.autograd.Function):
    """Posterior mean, log density and nodes, whose derivatives pass over the nodes again."""

    generate_vmap_rule = True

    @staticmethod
    def forward(y: Tensor, noise: Tensor, form: Disc) -> tuple[Tensor, ...]:
        rows = _alike(y, noise)
        means, evidences, nodes = [], [], []
        for copies in rows:
            mean, evidence, of = form._integral(y[copies[0]], noise[copies[0], 0])
            means.append(mean.expand(len(copies), -1))
            evidences.append(evidence.expand(len(copies)))
            nodes.append(of)
        return _in_order(means, rows), _in_order(evidences, rows), *nodes

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple[Tensor, ...]) -> None:
        y, noise, ctx.form = inputs
        ctx.mark_non_differentiable(*output[2:])
        ctx.save_for_backward(y, noise, *output)
        ctx.save_for_forward(y, noise, *output)

    @staticmethod
    def backward(
        ctx: Any, of_mean: Tensor, of_evidence: Tensor, *_: None
    ) -> tuple[Tensor, None, None]:
        y, noise, mean, *_ = ctx.saved_tensors
        from_mean = _Product.apply(ctx.form, of_mean, *ctx.saved_tensors)
        return (from_mean + of_evidence[:, None] * (mean - y)) / noise, None, None

    @staticmethod
    def jvp(ctx: Any, of_y: Tensor, *_: None) -> tuple[Tensor | None, ...]:
        y, noise, mean, _, *nodes = ctx.saved_tensors
        of_mean = _Product.apply(ctx.form, of_y, *ctx.saved_tensors) / noise
        return of_mean, ((mean - y) / noise * of_y).sum(1), *[None] * len(nodes)


class _Product(torch.autograd.Function):
    """``Cov[x | y] v``, whose derivatives are moments too; what is not v or y follows from y."""

    generate_vmap_rule = True

    @staticmethod
    def forward(form: Disc, v: Tensor, *around: Tensor) -> Tensor:
        return _each(form._product, (v,), *around)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        ctx.form, *tensors = inputs
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        v, *around = ctx.saved_tensors
        of_v, of_y = None, None
        if ctx.needs_input_grad[1]:
            of_v = _Product.apply(ctx.form, g, *around)
        if ctx.needs_input_grad[2]:
            of_y = _each(ctx.form._curvature, (v, g), *around) / around[1]
        return None, of_v, of_y, *[None] * (len(around) - 1)

    @staticmethod
    def jvp(ctx: Any, _: None, of_v: Tensor, of_y: Tensor, *__: None) -> Tensor:
        v, *around = ctx.saved_tensors
        along_v = _each(ctx.form._product, (of_v,), *around)
        return along_v + _each(ctx.form._curvature, (v, of_y), *around) / around[1]


def _each(
    moment: Callable[..., Tensor],
    along: tuple[Tensor, ...],
    y: Tensor,
    noise: Tensor,
    mean: Tensor,
    evidence: Tensor,
    *nodes: Tensor,
) -> Tensor:
    """A moment along vectors (B, d) at each image, copies of an image together; (B, d)."""
    rows, points = _distinct(y, noise, mean, evidence)
    parts = [
        moment(*(v[copies] for v in along), at, of)
        for copies, at, of in zip(rows, points, nodes, strict=True)
    ]
    return _in_order(parts, rows)


def _distinct(
    y: Tensor, noise: Tensor, mean: Tensor, evidence: Tensor
) -> tuple[list[Tensor], list[_Point]]:
    """The rows of each distinct image, and one of its copies."""
    rows = _alike(y, noise)
    return rows, [_Point(y[i], noise[i, 0], mean[i], evidence[i]) for i, *_ in rows]


def _alike(y: Tensor, noise: Tensor) -> list[Tensor]:
    """Rows of the batch that hold the same image at the same noise level, (k,) each."""
    distinct, image = torch.cat([y, noise], 1).detach().unique(dim=0, return_inverse=True)
    return [(image == i).nonzero()[:, 0] for i in range(len(distinct))]


def _in_order(parts: list[Tensor], rows: list[Tensor]) -> Tensor:
    """Put the rows of all parts at their places in the batch."""
    return torch.cat(parts)[torch.cat(rows).argsort()]


def _along(v: Tensor, masks: Tensor, theta: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
    """Products of vectors (k, d) with mask and complement, (M, k, 2), and with x - mean, (M, k).

    x is the image of a mask and its intensities' mean theta, (M, 1, 2).
    """
    inside = masks @ v.T
    slopes = torch.stack([inside, v.sum(1) - inside], 2)
    return slopes, (slopes * theta).sum(2) - v @ mean


def _images(theta: Tensor, masks: Tensor) -> Tensor:
    """Sum over masks (M, d) of the images of intensities (M, k, 2); (k, d)."""
    foreground, background = theta.unbind(2)
    return (foreground - background).T @ masks + background.sum(0)[:, None]
