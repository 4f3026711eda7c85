r"""The empirical density: what perfect training on a finite set of images gives.

.. math:: f(y) = \sum_i w_i x_i, \qquad w_i \propto \exp(-\|y - x_i\|^2 / 2\sigma^2).

Images are read in chunks, and a running maximum keeps every exponential at most 1. Distances come
from a matrix product where its rounding leaves the weights intact. At smaller noise levels the
product only tells which images may weigh anything; their distances are then taken directly.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from twinscore.denoisers.closed_form.level import Level, centred, differentiated, variance_of

_CHUNK = 2**20
"""Numbers held at a time: of a chunk of images, or of its distances to the batch."""

_BLOCK = 128
"""Terms of an inner product that are summed before the sum joins the others."""

_TRUSTED = 0.01
"""Largest error of a log weight at which a matrix product is trusted."""

_DENSE = 1 / 64
"""Share of a chunk's pairs from which a product in float64 is faster than direct differences."""

Scored = Iterator[tuple[Tensor, Tensor]]
"""``-||y - x_i||^2 / 2``, (B, k), and the images (k, d) of a chunk; -inf if they weigh nothing."""


@dataclass(frozen=True, eq=False)
class Empirical:
    """Posterior mean of ``x`` uniform over N training images; made by ``of``.

    Cost of a call: 4 B N d flops, half of that where few images weigh anything. Memory: chunks of
    2^20 numbers for any N, also for derivatives of first and second order, which pass over the
    images again; those of third order keep some B N numbers. It can be differentiated in ``y``, not
    in ``sigma``, in reverse or forward mode. A second order takes reverse mode at least once: for
    forward over forward mode torch gives 0. Derivatives of a reverse pass, such as ``J v`` of
    ``linearise``, compute those in ``y`` too, asked for or not: 2.5 times the cost of a reverse
    pass.

    Attributes
    ----------
    images : Tensor or ndarray
        (N, C, H, W), floating point; a memory map, writable or not, is read chunk by chunk.
    centre : Tensor
        (C, H, W), the mean image.
    energies : Tensor
        (N,) float64, half the squared distance of each image to the centre.
    norm : float
        The largest Euclidean norm of an image.

    Examples
    --------
    >>> import torch
    >>> from twinscore.denoisers.closed_form import Empirical
    >>> black_or_white = Empirical.of(torch.tensor([0.0, 1.0]).view(2, 1, 1, 1))
    >>> black_or_white(torch.tensor([0.6]).view(1, 1, 1, 1), 0.1).round(decimals=3).item()
    1.0
    """

    images: Tensor | np.ndarray
    centre: Tensor
    energies: Tensor
    norm: float

    @classmethod
    def of(cls, images: Tensor | np.ndarray) -> "Empirical":
        """Density of images (N, C, H, W), which are not copied. Cost: they are read twice.

        Raises
        ------
        ValueError
            If there is no image, or they are not finite floating-point numbers (N, C, H, W).
        """
        if images.ndim != 4 or not len(images):
            raise ValueError(
                f"the training images must be (N, C, H, W) with N at least 1, "
                f"got {tuple(images.shape)}"
            )
        if not _read(images, slice(1)).is_floating_point():
            raise ValueError("the training images must be floating point, in image units")
        step = max(1, _CHUNK // math.prod(images.shape[1:]))
        chunks = [slice(a, a + step) for a in range(0, len(images), step)]
        total = sum(_read(images, c).double().sum(0) for c in chunks)
        centre = total / len(images)
        energies, norms = [], []
        for c in chunks:
            part = _read(images, c).double()
            energies.append((part - centre).flatten(1).square().sum(1) / 2)
            norms.append(part.flatten(1).norm(dim=1).max())
        norm = torch.stack(norms).max().item()
        if not math.isfinite(norm):
            raise ValueError("the training images hold NaN or infinity")
        return cls(images, centre, torch.cat(energies), norm)

    def __call__(self, y: Tensor, sigma: Level = None) -> Tensor:
        """E[x | y], (B, C, H, W)."""
        return self._posterior(y, sigma)[0].view_as(y)

    def score(self, y: Tensor, sigma: Level) -> Tensor:
        """Gradient of the log density of ``y``, (B, C, H, W)."""
        return (self(y, sigma) - y) / variance_of(sigma, y).view(-1, 1, 1, 1)

    def log_density(self, y: Tensor, sigma: Level) -> Tensor:
        """Log density of ``y = x + sigma z``, (B,), nats."""
        normaliser = variance_of(sigma, y)[:, 0].mul(2 * math.pi).log() * self.centre.numel() / 2
        evidence = self._posterior(y, sigma)[1] - math.log(len(self.images))
        return evidence.to(y) - normaliser

    def jacobian(self, y: Tensor, sigma: Level) -> Tensor:
        """Derivative of the denoiser at ``y``, ``Cov[x | y] / sigma^2``, (B, d, d).

        Cost: 2 d^2 flops for every pair of an image of the batch and one that weighs anything.
        """
        noise = variance_of(sigma, y).expand(len(y), 1)
        means, evidence = (part.split(1) for part in self._posterior(y, sigma))
        return torch.cat(
            [
                self._covariance(*one) / one[1]
                for one in zip(y.flatten(1).split(1), noise.split(1), means, evidence, strict=True)
            ]
        )

    def error_bound(self, y: Tensor, sigma: Level) -> Tensor:
        """Bound on the Euclidean distance of the computed estimate to the exact one, (B,).

        ``expm1(2 e)`` times the largest distance of two images, for log weights off by at most e,
        and the rounding of a sum of N weighted images. Where inner products are trusted, e is their
        rounding, at most 0.01 (Higham 2002, section 3.1, for sums by blocks); elsewhere distances
        are taken in float64, and e holds the rounding of the exponents and the weight of all
        images left out. A worst case: errors are some hundred times smaller.
        """
        noise, flat = variance_of(sigma, y)[:, 0], centred(y, self.centre)
        unit, step = torch.finfo(y.dtype).eps / 2, self._step(len(y))
        reach = math.sqrt(2 * self.energies.max().item())
        product = self._rounding(flat, y.dtype) / noise
        direct = flat.shape[1] * 2**-53 * (flat.norm(dim=1) + reach).square() / noise
        exact = direct + (self._rounding(flat, torch.float64) / noise).clamp(max=_TRUSTED)
        error = torch.where(product <= _TRUSTED, product, exact) + 4 * unit * self._cut(y.dtype)
        terms = min(step, len(self.images)) + math.ceil(len(self.images) / step) + 4
        return torch.expm1(2 * error) * 2 * reach + terms * unit * self.norm

    def _posterior(self, y: Tensor, sigma: Level) -> tuple[Tensor, Tensor]:
        """Posterior mean (B, d), and log of ``sum_i exp(-||y - x_i||^2 / 2 sigma^2)``, (B,)."""
        centred(y[:0], self.centre)
        noise = variance_of(sigma, y).expand(len(y), 1)
        if differentiated(noise):
            raise ValueError("Empirical can be differentiated in y, not in sigma; detach sigma")
        return _Posterior.apply(y.flatten(1), noise, self)

    def _sums(self, y: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """What :meth:`_posterior` returns, in one pass, rescaled whenever the maximum rises."""
        peak = y.new_full((len(y), 1), -math.inf, dtype=torch.float64)
        total, sums = torch.zeros_like(peak), torch.zeros_like(y)
        for scores, x in self._scored(y, noise):
            exponents = scores.div_(noise)
            higher = torch.maximum(peak, exponents.amax(1, keepdim=True).double())
            weights = exponents.sub_(higher.to(exponents)).exp_().to(y)
            shrink = (peak - higher).exp()
            total = total * shrink + weights.sum(1, keepdim=True)
            sums = torch.addmm(sums * shrink.to(y), weights, x)
            peak = higher
        return sums / total.to(y), (peak + total.log())[:, 0]

    def _moment(
        self, along: tuple[Tensor, ...], y: Tensor, noise: Tensor, mean: Tensor, evidence: Tensor
    ) -> Tensor:
        """``E[(x - m) prod_j <v_j, x - m> | y]`` for vectors ``v_j`` (B, d) and the mean m, (B, d).

        One vector gives ``Cov[x | y] v``, two give its derivative in ``y`` times ``sigma^2``.
        """
        sums, total = torch.zeros_like(y), torch.zeros_like(noise)
        for scores, x in self._scored(y, noise):
            weights = (scores / noise - evidence[:, None]).exp().to(y)
            for v in along:
                weights = weights * (v @ x.T - (v * mean).sum(1, keepdim=True))
            sums, total = sums + weights @ x, total + weights.sum(1, keepdim=True)
        return sums - total * mean

    def _covariance(self, y: Tensor, noise: Tensor, mean: Tensor, evidence: Tensor) -> Tensor:
        """``Cov[x | y]`` of a single image, (1, d, d)."""
        found = y.new_zeros(y.shape[1], y.shape[1])
        for scores, x in self._scored(y, noise):
            weights = (scores / noise - evidence[:, None]).exp()[0].to(y)
            near = weights > 0
            spread = (x[near] - mean) * weights[near, None].sqrt()
            found = torch.addmm(found, spread.T, spread)
        return found[None]

    def _scored(self, y: Tensor, noise: Tensor) -> Scored:
        """Scores as exact as the smallest noise level of the batch demands."""
        error = self._rounding(self._reference(y)[0], y.dtype)
        trusted = (error <= _TRUSTED * noise[:, 0]).all()
        return self._products(y) if trusted else self._selected(y, noise)

    def _products(self, y: Tensor) -> Scored:
        """Scores of all images, by matrix products in the precision of ``y``."""
        flat, constant = (part.to(y) for part in self._reference(y))
        for x, energies in self._chunks(y):
            yield _product(flat, x, constant - energies.to(y)), x

    def _selected(self, y: Tensor, noise: Tensor) -> Scored:
        """Scores in float64, of the images that may weigh anything going by their products."""
        flat, constant = self._reference(y)
        slack = 2 * self._rounding(flat, y.dtype)[:, None] + self._cut(y.dtype) * noise
        safe = (self._rounding(flat, torch.float64) <= _TRUSTED * noise[:, 0]).all()
        best = torch.full_like(noise, -math.inf)
        for x, energies in self._chunks(y):
            products = _product(flat.to(y), x, constant.to(y) - energies.to(y))
            best = torch.maximum(best, products.amax(1, keepdim=True))
            pairs = products >= best - slack
            near = pairs.any(0)
            if safe and pairs.sum() > _DENSE * pairs.numel():
                yield _product(flat, x[near].double(), constant - energies[near]), x[near]
            elif near.any():
                yield _differences(y.double(), x[near].double(), pairs[:, near]), x[near]

    def _reference(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """``y - centre``, and the part of the scores that y alone determines, (B, 1); float64."""
        centre = self.centre.to(y.device).flatten()
        flat = y.double() - centre
        return flat, -(flat.square().sum(1) / 2 + flat @ centre)[:, None]

    def _chunks(self, like: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Images (k, d), of the dtype and on the device of ``like``, and their energies (k,)."""
        step = self._step(len(like))
        for start in range(0, len(self.images), step):
            images = _read(self.images, slice(start, start + step)).to(like)
            yield images.flatten(1), self.energies[start : start + step].to(like.device)

    def _step(self, batch: int) -> int:
        return max(1, _CHUNK // max(self.centre.numel(), batch))

    def _cut(self, dtype: torch.dtype) -> float:
        """How far below the largest the log weights of N images sum to less than rounding."""
        return math.log(len(self.images)) - math.log(torch.finfo(dtype).eps / 2)

    def _rounding(self, flat: Tensor, dtype: torch.dtype) -> Tensor:
        """Bound on the error of the scores that a product of blocks gives, (B,)."""
        blocks, norms = math.ceil(flat.shape[1] / _BLOCK), flat.detach().norm(dim=1)
        start = norms.square() / 2 + norms * self.centre.norm() + self.energies.max()
        terms = norms * self.norm * (_BLOCK + 4) + (blocks + 4) * (start + norms * self.norm)
        return torch.finfo(dtype).eps / 2 * terms


class _Posterior(torch.autograd.Function):
    """Posterior mean and log evidence, whose derivatives pass over the images again."""

    @staticmethod
    def forward(y: Tensor, noise: Tensor, form: Empirical) -> tuple[Tensor, Tensor]:
        return form._sums(y, noise)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
        y, noise, ctx.form = inputs
        ctx.save_for_backward(y, noise, *output)
        ctx.save_for_forward(y, noise, *output)

    @staticmethod
    def backward(ctx: Any, of_mean: Tensor, of_evidence: Tensor) -> tuple[Tensor, None, None]:
        y, noise, mean, _ = ctx.saved_tensors
        from_mean = _Product.apply(of_mean, *ctx.saved_tensors, ctx.form)
        return (from_mean + of_evidence[:, None].to(y) * (mean - y)) / noise, None, None

    @staticmethod
    def jvp(ctx: Any, of_y: Tensor, *_: None) -> tuple[Tensor, Tensor]:
        y, noise, mean, _ = ctx.saved_tensors
        of_mean = _Product.apply(of_y, *ctx.saved_tensors, ctx.form) / noise
        return of_mean, ((mean - y) / noise * of_y).double().sum(1)

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple, y: Tensor, noise: Tensor, form: Empirical
    ) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
        y, noise = (
            part.expand(info.batch_size, *part.shape) if at is None else part.movedim(at, 0)
            for part, at in zip((y, noise), in_dims, strict=False)
        )
        mean, evidence = _Posterior.apply(y.flatten(0, 1), noise.flatten(0, 1), form)
        return (mean.view_as(y), evidence.view(y.shape[:2])), (0, 0)


class _Product(torch.autograd.Function):
    """``Cov[x | y] v``, whose derivatives are moments too; mean and evidence follow from ``y``."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        v: Tensor, y: Tensor, noise: Tensor, mean: Tensor, evidence: Tensor, form: Empirical
    ) -> Tensor:
        return form._moment((v,), y, noise, mean, evidence)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        *tensors, ctx.form = inputs
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        v, y, noise, *rest = ctx.saved_tensors
        of_v, of_y = None, None
        if ctx.needs_input_grad[0]:
            of_v = _Product.apply(g, y, noise, *rest, ctx.form)
        if ctx.needs_input_grad[1]:
            of_y = ctx.form._moment((v, g), y, noise, *rest) / noise
        return of_v, of_y, None, None, None, None

    @staticmethod
    def jvp(ctx: Any, of_v: Tensor, of_y: Tensor, *_: None) -> Tensor:
        v, y, noise, *rest = ctx.saved_tensors
        along_v = ctx.form._moment((of_v,), y, noise, *rest)
        return along_v + ctx.form._moment((v, of_y), y, noise, *rest) / noise


def _read(images: Tensor | np.ndarray, rows: slice) -> Tensor:
    """Some images as a tensor: a view, or a copy of what may not be written to."""
    part = images[rows]
    if isinstance(part, np.ndarray) and not part.flags.writeable:
        part = np.array(part)
    return torch.as_tensor(part)


def _product(left: Tensor, right: Tensor, start: Tensor) -> Tensor:
    """Add ``left @ right.T`` to ``start``, block by block: shorter sums round less."""
    for a, b in zip(left.split(_BLOCK, dim=1), right.split(_BLOCK, dim=1), strict=True):
        start.addmm_(a, b.T)
    return start


def _differences(y: Tensor, x: Tensor, pairs: Tensor) -> Tensor:
    """``-||y - x||^2 / 2`` of the chosen pairs of (B, d) and (k, d), (B, k); elsewhere -inf."""
    scores = y.new_full(pairs.shape, -math.inf)
    rows, columns = pairs.nonzero(as_tuple=True)
    step = max(1, _CHUNK // y.shape[1])
    for r, c in zip(rows.split(step), columns.split(step), strict=True):
        scores[r, c] = -(y[r] - x[c]).square().sum(1) / 2
    return scores
