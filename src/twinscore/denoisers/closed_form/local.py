r"""Local empirical denoisers: for each pixel, the posterior mean over patches of training images.

.. math::

    f_u(y) = \sum_r w_r \, v_r, \qquad
    w_r \propto \exp(-\|y_{\Omega(u)} - p_r\|^2 / 2\sigma^2),

with the patches ``p_r`` of training images that may stand at pixel u, their middle values ``v_r``,
and the patch of y around u (docs/formulas.md#local-denoisers). Images are stored by pixel, so that
a chunk of patches is a copy of rows, and its distances to a block of patches of y a matrix product.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from twinscore.denoisers.closed_form.level import Level, differentiated, variance_of

Borders = Literal["known", "circular"]

_CHUNK = 2**20
"""Numbers held at a time: of a chunk of patches, or of its distances to a block of queries."""

_LEAST = -80.0
"""Least log weight, relative to the largest: below it, exponentials that underflow take a hundred
times as long, and no number of patches that fits a memory weighs anything together."""

_QUERIES = 512
"""Patches of y that are compared at a time."""

_TRUSTED = 0.1
"""Largest bound on the error of a log weight at which a matrix product is trusted.

A worst case, of which actual errors are less than a twentieth."""

_DENSE = 1 / 64
"""Share of a chunk's pairs from which a product in float64 is faster than direct differences."""

SIDES = (3, 5, 7, 11, 15, 23, 31, 47, 63)
"""Sides that :func:`fitted_sides` tries."""


@dataclass(frozen=True, eq=False)
class _Group:
    """Pixels whose patches are compared with one another: U of them, patches of P numbers.

    ``pixels`` (U, C) and ``members`` (U, P) are places in a flat image, all channels; ``reach`` is
    the largest norm of a training patch.
    """

    pixels: Tensor
    members: Tensor
    reach: float = math.inf


@dataclass(frozen=True, eq=False)
class Local:
    """Posterior mean per pixel over the training patches of a side; made by ``of``.

    Kamb & Ganguli 2025 (arXiv 2412.20292): the local score machine, and, equivariant, the
    equivariant one, broken by the borders where they are known. A patch of even side reaches one
    pixel further down and to the right. Patches are cut at the border of the image and compared
    with those that are cut alike; with circular borders they continue at the other side, and the
    denoiser commutes with circular shifts if it is equivariant.

    It is not the posterior mean of a density of images, and its Jacobian not symmetric. It can be
    differentiated in ``y``, not in ``sigma``: once in forward mode, twice in reverse. Cost of a
    call: ``2 B N d (P + 2)`` flops with P numbers in a patch, times the number of pixels where it
    is equivariant. Memory: the images, an energy in float64 for each pixel, chunks of 2^20 numbers.

    Attributes
    ----------
    columns : Tensor
        (d, N), training images by pixel, less ``centre``.
    energies : Tensor
        (H W, N) float64, half the squared norm of the patch around each pixel.
    shape : tuple of int
        (C, H, W).
    centre : float
        Mean intensity.
    patch : int
        Side.
    groups : tuple
        Pixels whose patches are compared with one another.
    """

    columns: Tensor
    energies: Tensor
    shape: tuple[int, int, int]
    centre: float
    patch: int
    groups: tuple[_Group, ...]

    @classmethod
    def of(
        cls, images: Tensor, patch: int, *, equivariant: bool = True, borders: Borders = "known"
    ) -> "Local":
        """Denoiser from images (N, C, H, W).

        Parameters
        ----------
        images : Tensor
            Training images, floating point.
        patch : int
            Side in pixels; from ``2 max(H, W) - 1`` on a patch holds the whole image.
        equivariant : bool
            Compare with patches from everywhere in the training images, or from the same place.
        borders : str
            ``known`` or ``circular``.

        Raises
        ------
        ValueError
            If there is no image, they are not finite floating-point numbers (N, C, H, W), the side
            is not positive, or exceeds that of circular images.
        """
        if images.ndim != 4 or not len(images):
            raise ValueError(
                f"the training images must be (N, C, H, W) with N at least 1, "
                f"got {tuple(images.shape)}"
            )
        if not images.is_floating_point():
            raise ValueError("the training images must be floating point, in image units")
        if not torch.isfinite(images).all():
            raise ValueError("the training images hold NaN or infinity")
        shape, most = tuple(images.shape[1:]), min(images.shape[2:])
        if patch < 1 or (borders == "circular" and patch > most):
            raise ValueError(
                f"the patch must have a side of at least 1, and at most {most} where borders "
                f"are circular; got {patch}"
            )
        groups = list(_grouped(shape, patch, equivariant, borders))
        centre = images.double().mean().item()
        columns = (images.flatten(1) - centre).T.contiguous()
        energies = columns.new_empty(math.prod(shape[1:]), len(images), dtype=torch.float64)
        for i, group in enumerate(groups):
            for pixel, members in zip(group.pixels[:, 0], group.members, strict=True):
                energies[pixel] = columns[members].double().square().sum(0) / 2
            largest = energies[group.pixels[:, 0]].max().item()
            groups[i] = replace(group, reach=math.sqrt(2 * largest))
        return cls(columns, energies, shape, centre, patch, tuple(groups))

    def __call__(self, y: Tensor, sigma: Level = None) -> Tensor:
        """Posterior mean of each pixel, (B, C, H, W)."""
        return self._posterior(y, sigma)[0].view_as(y)

    def jacobian(self, y: Tensor, sigma: Level) -> Tensor:
        """Derivative of the denoiser at ``y``, (B, d, d).

        In each row the posterior covariance of the pixel with its patch, over ``sigma^2``. Cost:
        2 C P flops for each pair of patches, besides a call.
        """
        noise = variance_of(sigma, y).expand(len(y), 1)
        found = y.new_zeros(len(y), *[self.columns.shape[0]] * 2)
        mean, evidence = self._posterior(y.detach(), sigma)
        for block, covariance in self._covariances(y.detach().flatten(1), noise, mean, evidence):
            rows, columns = block.pixels[:, :, None], block.members[:, None]
            found[block.image[:, None, None], rows, columns] = covariance / block.noise[:, None]
        return found

    def _posterior(self, y: Tensor, sigma: Level) -> tuple[Tensor, Tensor]:
        """Posterior mean (B, d), and the log of the sum of all exponentials, (B, H W) float64."""
        if tuple(y.shape[1:]) != self.shape:
            raise ValueError(
                f"this denoiser is for images of shape {self.shape}, got {tuple(y.shape[1:])}"
            )
        noise = variance_of(sigma, y).expand(len(y), 1)
        if differentiated(noise):
            raise ValueError("Local can be differentiated in y, not in sigma; detach sigma")
        return _Posterior.apply(y.flatten(1), noise, self)

    def _sums(self, y: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """What :meth:`_posterior` returns, in one pass, rescaled whenever the maximum rises."""
        means = torch.empty_like(y)
        evidence = y.new_empty(len(y), len(self.energies), dtype=torch.float64)
        for block in self._blocks(y, noise):
            peak = y.new_full((len(block.patches), 1), -math.inf, dtype=torch.float64)
            sums = y.new_zeros(self.shape[0] + 1, len(peak))
            for exponents, _, values in self._scored(block):
                higher = torch.maximum(peak, exponents.amax(1, keepdim=True).double())
                weights = _weights(exponents, higher).to(y)
                sums = torch.addmm(sums * (peak - higher).exp().to(y).T, values, weights.T)
                peak = higher
            image = block.image[:, None]
            means[image, block.pixels] = (sums[:-1] / sums[-1]).T + self.centre
            evidence[image, block.pixels[:, :1]] = peak + sums[-1:].T.double().log()
        return means, evidence

    def _covariances(
        self, y: Tensor, noise: Tensor, mean: Tensor, evidence: Tensor
    ) -> Iterator[tuple["_Block", Tensor]]:
        """Posterior covariance of each pixel's values with its patch, (Q, C, P), by blocks."""
        for block in self._blocks(y, noise):
            image = block.image[:, None]
            of, middle = evidence[image, block.pixels[:, :1]], mean[image, block.pixels]
            found = y.new_zeros(len(image), self.shape[0], block.patches.shape[1])
            for exponents, patches, values in self._scored(block):
                weights = _weights(exponents, of).to(y)
                for channel, value in enumerate(values[:-1]):
                    spread = weights * (value - (middle[:, channel, None] - self.centre))
                    found[:, channel].addmm_(spread, patches.T)
            yield block, found

    def _curvatures(
        self, u: Tensor, v: Tensor, y: Tensor, noise: Tensor, mean: Tensor, evidence: Tensor
    ) -> Iterator[tuple["_Block", Tensor]]:
        """Derivative of ``<u, J v>`` in each patch of y, (Q, P), by blocks.

        ``E[<u, value - m> <v, patch - n> (patch - n)] / sigma^4`` with the means m and n.
        """
        for block in self._blocks(y, noise):
            image = block.image[:, None]
            of, middle = evidence[image, block.pixels[:, :1]], mean[image, block.pixels]
            ours, theirs = u[image, block.pixels], v[image, block.members]
            offset = (ours * (middle - self.centre)).sum(1, keepdim=True)
            both, once, patch = (torch.zeros_like(block.patches) for _ in range(3))
            for exponents, patches, values in self._scored(block):
                weights = _weights(exponents, of).to(y)
                spread = weights * (ours @ values[:-1] - offset)
                both.addmm_(spread * (theirs @ patches), patches.T)
                once.addmm_(spread, patches.T)
                patch.addmm_(weights, patches.T)
            along = (theirs * patch).sum(1, keepdim=True)
            shared = (theirs * once).sum(1, keepdim=True)
            yield block, (both - along * once - shared * patch) / block.noise**2

    def _blocks(self, y: Tensor, noise: Tensor) -> Iterator["_Block"]:
        """Patches of images (B, d), a block at a time."""
        y, columns, energies = y.detach(), self.columns.to(y), self.energies.to(y.device)
        most = max(group.members.shape[1] for group in self.groups) + 1
        rooms = (y.new_empty(max(_CHUNK, most)), y.new_empty(max(_CHUNK, _QUERIES)))
        for group in self.groups:
            placed = {"pixels": group.pixels.to(y.device), "members": group.members.to(y.device)}
            group = replace(group, **placed)
            every = torch.arange(len(y) * len(group.pixels), device=y.device)
            for part in every.split(_QUERIES):
                image, place = part // len(group.pixels), part % len(group.pixels)
                members = group.members[place]
                patches = y[image[:, None], members] - self.centre
                yield _Block(
                    image, group.pixels[place], members, patches, noise[image], group, columns,
                    energies, rooms,
                )  # fmt: skip

    def _scored(self, block: "_Block") -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Exponents of all training patches that may weigh anything, less one number a query.

        With each chunk of R of them their numbers (P, R), and values and ones, (C + 1, R).
        Exponents are those of a matrix product where its rounding leaves the weights intact. Where
        not, the product only tells which patches may weigh anything, and their exponents are
        taken in float64.
        """
        queries, noise = block.patches, block.noise
        left = torch.cat([queries, torch.ones_like(noise)], 1) / noise
        count = len(block.group.pixels) * self.columns.shape[1]
        cut = math.log(count / torch.finfo(queries.dtype).eps)
        error = _rounding(block, queries.dtype)
        trusted = (error <= _TRUSTED).all()
        exact = trusted or (_rounding(block, torch.float64) <= _TRUSTED).all()
        best = torch.full_like(noise, -math.inf)
        for patches, values in self._chunks(block):
            room = block.rooms[1][: len(left) * patches.shape[1]]
            exponents = torch.mm(left, patches, out=room.view(len(left), -1))
            if not trusted:
                best = torch.maximum(best, exponents.amax(1, keepdim=True))
                pairs = exponents >= best - 2 * error - cut
                near = pairs.any(0).nonzero()[:, 0]
                if not len(near):
                    continue
                patches, values = patches[:, near], values[:, near]
                exponents = _refined(block, patches, pairs[:, near], dense=exact)
            yield exponents, patches[:-1], values

    def _chunks(self, block: "_Block") -> Iterator[tuple[Tensor, Tensor]]:
        """Patches and their negative energies, (P + 1, R), and values and ones, (C + 1, R)."""
        group, images = block.group, self.columns.shape[1]
        places, size = group.members.shape
        step = max(1, min(_CHUNK // len(block.patches), _CHUNK // (2 * size + 2)))
        for at in torch.arange(places, device=group.pixels.device).split(max(1, step // images)):
            rows, middles = group.members[at].T.flatten(), group.pixels[at].T.flatten()
            for start in range(0, images, step):
                part = block.columns[:, start : start + step]
                width = part.shape[1]
                room = block.rooms[0][: (size + 1) * len(at) * width]
                chunk = room.view(size + 1, len(at) * width)
                torch.index_select(part, 0, rows, out=chunk[:-1].view(-1, width))
                energies = block.energies[group.pixels[at, 0], start : start + step].flatten()
                chunk[-1] = -energies.to(chunk)
                values = part[middles].view(-1, chunk.shape[1])
                values = torch.cat([values, torch.ones_like(values[:1])])
                yield chunk, values


@dataclass(frozen=True, eq=False)
class _Block:
    """Q patches of y, (Q, P), the noise variance of each (Q, 1), and where they lie.

    ``image`` (Q,), ``pixels`` (Q, C) and ``members`` (Q, P) are places in the batch; ``columns``
    and ``energies`` those of the training images, where y is; ``rooms`` where each chunk of
    patches, and its exponents, are written over the last.
    """

    image: Tensor
    pixels: Tensor
    members: Tensor
    patches: Tensor
    noise: Tensor
    group: _Group
    columns: Tensor
    energies: Tensor
    rooms: tuple[Tensor, Tensor]


class _Posterior(torch.autograd.Function):
    """Posterior mean, whose derivative passes over the patches again."""

    @staticmethod
    def forward(y: Tensor, noise: Tensor, form: Local) -> tuple[Tensor, Tensor]:
        return form._sums(y, noise)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
        y, noise, ctx.form = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(y, noise, *output)
        ctx.save_for_forward(y, noise, *output)

    @staticmethod
    def backward(ctx: Any, of_mean: Tensor, _: Tensor) -> tuple[Tensor, None, None]:
        return _Pull.apply(of_mean, *ctx.saved_tensors, ctx.form), None, None

    @staticmethod
    def jvp(ctx: Any, of_y: Tensor, *_: None) -> tuple[Tensor, None]:
        return _pushed(of_y, *ctx.saved_tensors, ctx.form), None

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple, y: Tensor, noise: Tensor, form: Local
    ) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
        y, noise = (
            part.expand(info.batch_size, *part.shape) if at is None else part.movedim(at, 0)
            for part, at in zip((y, noise), in_dims, strict=False)
        )
        mean, evidence = _Posterior.apply(y.flatten(0, 1), noise.flatten(0, 1), form)
        return (mean.view_as(y), evidence.view(*y.shape[:2], -1)), (0, 0)


class _Pull(torch.autograd.Function):
    """``J' u``, linear in u; mean and evidence follow from ``y``."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        u: Tensor, y: Tensor, noise: Tensor, mean: Tensor, evidence: Tensor, form: Local
    ) -> Tensor:
        found = torch.zeros_like(u)
        for block, covariance in form._covariances(y, noise, mean, evidence):
            of_pixels = u[block.image[:, None], block.pixels]
            change = torch.einsum("qc,qcp->qp", of_pixels, covariance) / block.noise
            found.index_put_((block.image[:, None], block.members), change, accumulate=True)
        return found

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple, output: Tensor) -> None:
        *tensors, ctx.form = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor | None, ...]:
        u, *around = ctx.saved_tensors
        of_u, of_y = _pushed(v, *around, ctx.form), None
        if ctx.needs_input_grad[1]:
            of_y = torch.zeros_like(v)
            for block, change in ctx.form._curvatures(u, v, *around):
                of_y.index_put_((block.image[:, None], block.members), change, accumulate=True)
        return of_u, of_y, None, None, None, None


def _pushed(
    v: Tensor, y: Tensor, noise: Tensor, mean: Tensor, evidence: Tensor, form: Local
) -> Tensor:
    """``J v`` of one vector for each image, (B, d)."""
    found = torch.zeros_like(v)
    for block, covariance in form._covariances(y, noise, mean, evidence):
        of_patches = v[block.image[:, None], block.members]
        change = torch.einsum("qp,qcp->qc", of_patches, covariance) / block.noise
        found.index_put_((block.image[:, None], block.pixels), change)
    return found


@dataclass(frozen=True, eq=False)
class LocalByLevel:
    """A local denoiser whose side depends on the noise level.

    Attributes
    ----------
    forms : dict of float to Local
        Denoisers by noise level, image units. Each image takes that of the nearest level, on a
        logarithmic scale.
    """

    forms: dict[float, Local]

    def __call__(self, y: Tensor, sigma: Level = None) -> Tensor:
        """Posterior mean of each pixel, (B, C, H, W)."""
        logs = variance_of(sigma, y).expand(len(y), 1).log() / 2
        levels = logs.new_tensor(list(self.forms)).log()
        nearest, found = (logs - levels).abs().argmin(1), torch.empty_like(y)
        for i, form in enumerate(self.forms.values()):
            own = nearest == i
            if own.any():
                found = found.masked_scatter(
                    own.view(-1, 1, 1, 1).expand_as(y), form(y[own], logs[own, 0].exp())
                )
        return found

    def at(self, sigma: float) -> Local:
        """The denoiser of the level nearest to one."""
        return self.forms[min(self.forms, key=lambda level: abs(math.log(level / sigma)))]


def fitted_sides(
    training: Tensor,
    held_out: Tensor,
    levels: Sequence[float],
    *,
    seed: int = 0,
    sides: Sequence[int] = SIDES,
    equivariant: bool = True,
    borders: Borders = "known",
) -> dict[float, int]:
    """Side of least error on held-out images at each noise level.

    Sides are tried from the smallest on, until one leaves more error than the one before.

    Parameters
    ----------
    training, held_out : Tensor
        Images (N, C, H, W).
    levels : sequence of float
        Noise levels, image units.
    seed : int
        Of the noise, which is the same at all levels.
    sides : sequence of int
        Ascending. Those after the first that holds the whole image, or that are larger than
        circular images, are left out.
    equivariant, borders
        As for :meth:`Local.of`.
    """
    side, generator = max(training.shape[2:]), torch.Generator().manual_seed(seed)
    most = min(training.shape[2:]) if borders == "circular" else 2 * side - 1
    sides = [s for s in sides if s < most] + [most]
    z = torch.randn(held_out.shape, generator=generator).to(held_out)
    found, forms = {}, {}
    for level in levels:
        least = math.inf
        for patch in sides:
            if patch not in forms:
                own = {"equivariant": equivariant, "borders": borders}
                forms[patch] = Local.of(training, patch, **own)
            left = forms[patch](held_out + level * z, level) - held_out
            if (error := left.double().square().mean().item()) >= least:
                break
            least, found[level] = error, patch
    return found


def _grouped(
    shape: tuple[int, int, int], patch: int, equivariant: bool, borders: Borders
) -> Iterator[_Group]:
    """Pixels by what of a patch they see, or each alone; with their patches."""
    channels, height, width = shape
    reach = torch.arange(-((patch - 1) // 2), patch // 2 + 1)
    alike: dict[tuple[int, ...], list[tuple[Tensor, Tensor]]] = {}
    for row in range(height):
        for column in range(width):
            rows, across = row + reach, column + reach
            if borders == "known":
                rows = rows[(rows >= 0) & (rows < height)]
                across = across[(across >= 0) & (across < width)]
            cut = tuple(int(n) for n in (rows[0] - row, len(rows), across[0] - column, len(across)))
            key = cut if equivariant else (row, column)
            members = (rows % height)[:, None] * width + across % width
            pixel = torch.tensor([row * width + column])
            alike.setdefault(key, []).append((pixel, members.flatten()))
    over = torch.arange(channels)[:, None] * height * width
    for pairs in alike.values():
        pixels, members = (torch.stack(part) for part in zip(*pairs, strict=True))
        yield _Group(*((part[:, None] + over).flatten(1) for part in (pixels, members)))


def _rounding(block: _Block, dtype: torch.dtype) -> Tensor:
    """Bound on the rounding of exponents that a product gives, (Q, 1); Higham 2002, section 3.1."""
    norms, size = block.patches.norm(dim=1, keepdim=True), block.patches.shape[1]
    largest = norms * block.group.reach + block.group.reach**2 / 2
    return torch.finfo(dtype).eps / 2 * (size + 4) * largest / block.noise


def _weights(exponents: Tensor, less: Tensor) -> Tensor:
    """Exponentials of exponents, in place of them, less a number a query."""
    return exponents.sub_(less.to(exponents)).clamp_min_(_LEAST).exp_()


def _refined(block: _Block, patches: Tensor, pairs: Tensor, *, dense: bool) -> Tensor:
    """Exponents in float64 of these pairs, or of all if they are many and a product serves."""
    noise, queries = block.noise.double(), block.patches.double()
    if dense and pairs.sum() > _DENSE * pairs.numel():
        ones = torch.ones_like(noise)
        return (torch.cat([queries, ones], 1) / noise) @ patches.double()
    exponents = queries.new_full(pairs.shape, -math.inf)
    rows, columns = pairs.nonzero(as_tuple=True)
    step = max(1, _CHUNK // queries.shape[1])
    energies = queries.square().sum(1) / 2
    for r, c in zip(rows.split(step), columns.split(step), strict=True):
        distances = (queries[r] - patches[:-1, c].T.double()).square().sum(1) / 2
        exponents[r, c] = (energies[r] - distances) / noise[r, 0]
    return exponents
