"""Near-duplicates: images that repeat another one, found exactly in memory that grows as N.

Correlations are inner products of unit vectors. Most pairs are ruled out by a bound on few
coordinates; what the bound lets pass is computed in float32, and what float32 cannot decide in
float64 from the images.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from twinscore.errors import InputError
from twinscore.images.imageset import ImageSet, chunks

_CONSTANT = 1e-9
_PROBES = 1024
_PAIRS = 4096
_FEWEST_AXES = 8
_TIE = 1e-6

Exact = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Float64 correlations of pairs, given the positions of their rows and of their columns."""


@dataclass(frozen=True, eq=False)
class Duplicates:
    """Which of N images are near-duplicates, and of what.

    Attributes
    ----------
    drop : numpy.ndarray
        ``(N,)`` bool, True where the image repeats another.
    partner : numpy.ndarray
        ``(N,)`` int64: the index of the image it repeats, -1 where it repeats none.
    correlation : numpy.ndarray
        ``(N,)`` float64: their correlation, 1 if they are equal pixel by pixel, NaN where there is
        no partner.
    """

    drop: np.ndarray
    partner: np.ndarray
    correlation: np.ndarray


def near_duplicates(
    images: ImageSet,
    threshold: float = 0.95,
    size: int = 20,
    *,
    against: ImageSet | None = None,
    block: int = 1024,
    report: Callable[[int], None] | None = None,
) -> Duplicates:
    r"""Find the images to drop because an earlier image, or one of another set, is nearly the same.

    Image j is dropped when, for any i < j, dropped or not (or for any i of ``against``),

    .. math:: \frac{\langle x_i - \bar x_i,\, x_j - \bar x_j\rangle}
              {\|x_i - \bar x_i\| \, \|x_j - \bar x_j\|} > \text{threshold},

    on gray images (mean of the channels) reduced to ``size x size`` (bilinear, antialiased). The
    sign counts: a negative is not a duplicate. A constant image correlates with nothing. Images of
    equal digest (equal pixel by pixel, same dtype) are dropped in any case, constant ones too.
    An image and its mirrored copy (``ImageSet.originals``) do not count as near; where one of them
    repeats another image, both are dropped.
    The images dropped are exactly those that the whole matrix of correlations in float64 gives.

    The partner is the most correlated such image; of several whose correlations differ by no more
    than rounding (about 1e-6) it is the first. Equal images name the first of them.

    Parameters
    ----------
    images : ImageSet
        N images.
    threshold : float
        Largest correlation that is kept, in [0, 1).
    size : int
        Side in pixels at which images are compared, cut to the smallest side of an image.
    against : ImageSet, optional
        M images, of any shape, with which to compare instead of with the earlier ones.
    block : int
        Images compared at a time; it affects only speed and memory.
    report : callable, optional
        Called with the number of images compared so far.

    Raises
    ------
    InputError
        When the threshold, size or block is out of its range.

    Notes
    -----
    Memory is about ``4 (N + M) (size^2 + k) + 16 block^2`` bytes, with k the coordinates of the
    bound. Time is that of ``k N^2`` (or ``2 k N M``) multiplications, where k is chosen from a
    sample of the data: 16 to 64 of 400 for photographs, at worst all of them.

    References
    ----------
    Kadkhodaie, Guth, Simoncelli and Mallat, ICLR 2024 (arXiv 2310.02557), who take the absolute
    correlation.

    Examples
    --------
    >>> import numpy as np
    >>> from twinscore import images
    >>> pixels = np.random.default_rng(0).random((3, 1, 8, 8)).astype(np.float32)
    >>> found = images.near_duplicates(images.from_data(np.concatenate([pixels, pixels[:1]])))
    >>> found.drop, found.partner[3]
    (array([False, False, False,  True]), np.int64(0))
    """
    _check(threshold, size, block)
    others = images if against is None else against
    side = min(size, *images.shape[1:], *others.shape[1:])
    first: dict[str, int] = {}
    for index, digest in enumerate(others.digests):
        first.setdefault(digest, index)
    partner = np.array([first.get(digest, -1) for digest in images.digests], dtype=np.int64)
    if against is None:
        of = np.arange(len(images)) if images.originals is None else images.originals
        partner[of[partner] == of] = -1
    correlation = np.where(partner < 0, np.nan, 1.0)
    rows = np.flatnonzero(partner < 0)
    columns = rows if against is None else np.array(list(first.values()))

    def exact(i: np.ndarray, j: np.ndarray) -> np.ndarray:
        return _correlations(images, rows[i], others, columns[j], side)

    def tell(compared: int) -> None:
        if report:
            report(len(images) - len(rows) + compared)

    if len(rows):
        limits = _Limits(threshold, _margin(side * side))
        features = _features(images, rows, others, columns, side, limits.cut)
        copies = against is None and images.originals is not None
        of = torch.from_numpy(images.originals[rows]) if copies else None
        near = _search(*features, limits, exact, block, against is None, of, tell)
        found = np.flatnonzero(near >= 0)
        partner[rows[found]] = columns[near[found]]
        correlation[rows[found]] = exact(found, near[found])
    if images.originals is not None:
        _drop_together(images.originals, partner, correlation)
    return Duplicates(partner >= 0, partner, correlation)


def _drop_together(originals: np.ndarray, partner: np.ndarray, correlation: np.ndarray) -> None:
    """Let copies of one original that have no partner take that of the first that has one."""
    _, unit = np.unique(originals, return_inverse=True)
    found = np.flatnonzero(partner >= 0)[::-1]
    first = np.full(len(originals), -1)
    first[unit[found]] = found
    lacking = np.flatnonzero((partner < 0) & (first[unit] >= 0))
    partner[lacking] = partner[first[unit[lacking]]]
    correlation[lacking] = correlation[first[unit[lacking]]]


def _check(threshold: float, size: int, block: int) -> None:
    if not 0 <= threshold < 1:
        raise InputError(f"threshold: {threshold} is out of range; give 0 <= threshold < 1")
    for name, value in (("size", size), ("block", block)):
        if value < 1:
            raise InputError(f"{name}: {value} is out of range; give at least 1")


def _margin(dimension: int) -> float:
    """Bound on the rounding error of a float32 inner product of two unit vectors.

    Summed in any order, with or without fused multiplication, the product of the rounded
    vectors is off by at most ``n u sum |x_l y_l| / (1 - n u) <= n u / (1 - n u)``, u = 2^-24
    (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1, then Cauchy-Schwarz);
    rounding the vectors adds 2u. The 16 covers that, the n + 1 terms of the bound below, the
    denominator up to n = 10,000, and the float64 projection, whose errors are 1e-14.
    """
    return (dimension * 1.001 + 16) * 2.0**-24


@dataclass(frozen=True)
class _Limits:
    """What decides a pair: the threshold, and the margin of float32's error."""

    threshold: float
    margin: float

    @property
    def cut(self) -> float:
        """What a float32 product exceeds wherever the correlation exceeds the threshold."""
        return self.threshold - self.margin


@dataclass(frozen=True)
class _Features:
    """Unit vectors of n images.

    ``full`` is ``(n, d)`` float32. ``low``, ``(n, k + 1)``, holds k coordinates p of an orthonormal
    system and the norm r of what these leave: by Cauchy-Schwarz
    ``<x, y> <= <p_x, p_y> + r_x r_y``, which is the inner product of two rows of ``low``,
    themselves unit vectors.
    """

    full: torch.Tensor
    low: torch.Tensor


def _features(
    images: ImageSet,
    rows: np.ndarray,
    others: ImageSet,
    columns: np.ndarray,
    side: int,
    cut: float,
) -> tuple[_Features, _Features]:
    """Features of both sides, in as many principal axes of a sample as save the most work."""
    sample = torch.cat(list(_unit_vectors(others, _spread(columns), side)))
    axes = torch.linalg.svd(sample, full_matrices=False).Vh.T
    if images is others:
        probes, sample = sample[::2], sample[1::2]
    else:
        probes = torch.cat(list(_unit_vectors(images, _spread(rows), side)))
    axes = _enough(axes, probes[:_PROBES], sample[:_PROBES], cut)
    features = _projected(others, columns, side, axes)
    if images is others:
        return features, features
    return _projected(images, rows, side, axes), features


def _spread(indices: np.ndarray) -> np.ndarray:
    count = min(len(indices), 2 * _PROBES)
    return indices[np.linspace(0, len(indices) - 1, count).astype(np.int64)]


def _enough(
    axes: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor, cut: float
) -> torch.Tensor:
    """Choose the k leading axes for the least work: the bound on all pairs, then d on the rest.

    What the bound lets pass is every row and every column of a block that takes part in a close
    pair, as in :func:`_close_pairs`; it is counted here on one block of the sample. Where no bound
    saves work, k is 0 for d itself: ``low`` is ``full``.
    """
    dimension = len(axes)
    work = {0: float(dimension)}
    k = _FEWEST_AXES
    while k < axes.shape[1]:
        bound = _low(rows, axes[:, :k]).float() @ _low(columns, axes[:, :k]).float().T
        close = bound > cut
        passed = close.any(dim=1).sum() * close.any(dim=0).sum() / max(1, close.numel())
        work[k] = k + dimension * float(passed)
        k *= 2
    return axes[:, : min(work, key=lambda k: work[k])]


def _low(vectors: torch.Tensor, axes: torch.Tensor) -> torch.Tensor:
    """Coordinates along the axes, and the norm of the rest: ``(n, k + 1)``."""
    coordinates = vectors @ axes
    rest = (vectors - coordinates @ axes.T).norm(dim=1, keepdim=True)
    return torch.cat([coordinates, rest], dim=1)


def _projected(images: ImageSet, indices: np.ndarray, side: int, axes: torch.Tensor) -> _Features:
    count, k = len(indices), axes.shape[1]
    full = torch.empty(count, side * side)
    low = torch.empty(count, k + 1) if k else full
    start = 0
    for vectors in _unit_vectors(images, indices, side):
        stop = start + len(vectors)
        full[start:stop] = vectors
        if k:
            low[start:stop] = _low(vectors, axes)
        start = stop
    return _Features(full, low)


def _unit_vectors(images: ImageSet, indices: np.ndarray, side: int) -> Iterator[torch.Tensor]:
    """Reduce distinct images, remove their means and norms: ``(n, side^2)`` float64 at a time."""
    for chunk in chunks(images.pixels):
        if not len(indices[chunk]):
            return
        batch = images[indices[chunk]].double()
        small = F.interpolate(batch, (side, side), mode="bilinear", antialias=True)
        small = small.mean(dim=1).flatten(1)  # gray last: fewer pixels, the same by linearity
        small -= small.mean(dim=1, keepdim=True)
        norm = small.norm(dim=1, keepdim=True)
        yield torch.where(norm > _CONSTANT * side, small / norm, 0.0)


def _correlations(
    images: ImageSet, i: np.ndarray, others: ImageSet, j: np.ndarray, side: int
) -> np.ndarray:
    """Correlations of the pairs (i, j) in float64, straight from the images."""
    values = np.empty(len(i))
    for start in range(0, len(i), _PAIRS):
        part = slice(start, start + _PAIRS)
        sides = []
        for source, indices in ((images, i[part]), (others, j[part])):
            distinct, inverse = np.unique(indices, return_inverse=True)
            sides.append(torch.cat(list(_unit_vectors(source, distinct, side)))[inverse])
        values[part] = (sides[0] * sides[1]).sum(dim=1).clamp(max=1.0).numpy()
    return values


def _search(
    rows: _Features,
    columns: _Features,
    limits: _Limits,
    exact: Exact,
    block: int,
    earlier_only: bool,
    of: torch.Tensor | None,
    report: Callable[[int], None],
) -> np.ndarray:
    """Position of each row's most correlated column above the threshold, -1 where there is none.

    A column counts only if it is earlier, or of another original, where these are given.
    """
    count, others = len(rows.full), len(columns.full)
    near = np.full(count, -1, dtype=np.int64)
    best = np.full(count, -np.inf)
    scratch = torch.empty(block * block)
    for top in range(0, count, block):
        part = slice(top, min(top + block, count))
        for left in range(0, part.stop if earlier_only else others, block):
            other = slice(left, min(left + block, others))
            shape = (part.stop - top, other.stop - left)
            bound = scratch[: shape[0] * shape[1]].view(shape)
            torch.mm(rows.low[part], columns.low[other].T, out=bound)
            if earlier_only and left == top:
                bound.masked_fill_(torch.ones(shape, dtype=torch.bool).triu(), -torch.inf)
            if of is not None:
                bound.masked_fill_(of[part, None] == of[other], -torch.inf)
            cut = (
                torch.from_numpy(best[part]).clamp(min=limits.threshold).sub(limits.margin).float()
            )
            near_rows = (bound.amax(dim=1) > cut).nonzero()[:, 0]
            if len(near_rows):
                i, j, values = _close_pairs(
                    bound, near_rows, cut, rows.full[part], columns.full[other], limits.margin
                )
                uncertain = values <= limits.threshold + limits.margin
                values[uncertain] = exact(top + i[uncertain], left + j[uncertain])
                above = values > limits.threshold
                _keep_best(near[part], best[part], i[above], left + j[above], values[above])
        report(part.stop)
    return near


def _close_pairs(
    bound: torch.Tensor,
    i: torch.Tensor,
    cut: torch.Tensor,
    rows: torch.Tensor,
    columns: torch.Tensor,
    margin: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of a block that may be above the threshold and the most correlated of their row so far.

    ``cut`` is the margin below the threshold, or below the best that the row has. The rows ``i``
    and the columns that the bound lets pass are multiplied in full, at worst the whole block. Of a
    row whose largest product is m, only products above ``m - 2 margin`` can be the largest
    correlation; when m itself is within the margin of the threshold, that leaves every product
    that may be above it.
    """
    bound, cut = bound[i], cut[i, None]
    j = (bound > cut).any(dim=0).nonzero()[:, 0]
    products = rows[i] @ columns[j].T
    products.masked_fill_(bound[:, j] <= cut, -torch.inf)
    floor = torch.maximum(products.amax(dim=1, keepdim=True) - 2 * margin, cut)
    p, q = (products > floor).nonzero(as_tuple=True)
    return i[p].numpy(), j[q].numpy(), products[p, q].double().numpy()


def _keep_best(
    near: np.ndarray, best: np.ndarray, i: np.ndarray, j: np.ndarray, values: np.ndarray
) -> None:
    """Let each row keep its most correlated column, the first of those that tie."""
    top = np.full(len(best), -np.inf)
    np.maximum.at(top, i, values)
    leading = values >= top[i] - _TIE
    i, where = np.unique(i[leading], return_index=True)
    j, values = j[leading][where], values[leading][where]
    better = values > best[i] + _TIE
    near[i[better]], best[i[better]] = j[better], values[better]
