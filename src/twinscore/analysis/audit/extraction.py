"""Extraction: do images come back from noise, from their half, or again and again by themselves?

Whatever is tried is chosen blind to training set T and held-out set H, and tried on both alike.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.stats import hypergeom
from torch import Tensor

from twinscore.analysis.redealing import redeal
from twinscore.analysis.similarity import CHUNK_VALUES, unit

RETURNED = 0.5
"""Share of the distance to any other image, below which what came out is the image."""


def chosen(score: NDArray, of: NDArray, count: int, seed: int) -> NDArray[np.int64]:
    """Images that are tried, (K,): one of each unit, K at most ``count``.

    Half of them are those of the smallest score, where a model that knows some images has them; the
    others, decoys of which it may know none, are drawn from the rest.

    Parameters
    ----------
    score : array
        (P,): of images of the pool; ties are broken by lot.
    of : array
        (P,): their units, of which the image of the smallest score is taken.
    count, seed : int
        How many, and the seed of the lots.
    """
    generator = np.random.default_rng(seed)
    order = np.lexsort((generator.random(len(score)), score))
    first = order[np.sort(np.unique(of[order], return_index=True)[1])]
    front, rest = np.split(first, [count - count // 2])
    return np.concatenate([front, generator.permutation(rest)[: count // 2]])


def nearness(
    found: Tensor, own: Tensor, of: NDArray, others: Tensor, of_others: NDArray
) -> NDArray[np.float64]:
    """Distance of what came out to its own image, over that to the nearest of another unit, (K,).

    Parameters
    ----------
    found, own : Tensor
        (K, C, H, W): what came out, and the images that were put in.
    of : array
        (K,): units of the latter.
    others : Tensor
        (R, C, H, W): images of the pool, of units ``of_others``, (R,).

    Returns
    -------
    array
        0 for the image itself, infinite for another one of them, and for NaN.
    """
    apart = torch.cdist(found.flatten(1).double(), others.flatten(1).double())
    apart[torch.from_numpy(of[:, None] == of_others)] = torch.inf
    least = apart.amin(1)
    mine = (found - own).flatten(1).double().norm(dim=1)
    ratio = torch.where(mine == 0, 0.0, mine / least)
    return torch.nan_to_num(ratio, nan=torch.inf, posinf=torch.inf).numpy()


def dependence(
    returned: NDArray[np.bool_], trained: NDArray[np.bool_], *, seed: int
) -> tuple[float, NDArray[np.float64]]:
    """Exact p: whether more of T than of H came back, in any of K ways.

    Conditional on what was tried, which was chosen blind: any deal of the labels among it is as
    likely as any other.

    Parameters
    ----------
    returned : array
        (U, K) bool, of units.
    trained : array
        (U,) bool.
    seed : int
        Of the re-dealings.

    Returns
    -------
    p : float
        Corrected for the K ways.
    each : array
        (K,): Fisher's, of each by itself.
    """
    n, u = int(trained.sum()), len(trained)
    known = returned[trained].sum(0)
    each = hypergeom.sf(known - 1, u, n, returned.sum(0))
    if returned.shape[1] == 1:
        return float(each[0]), each
    dealt = redeal(returned.astype(float), trained, np.zeros(u), seed=seed)
    return float(dealt.corrected.min()), each


def clusters(samples: Tensor, above: float) -> NDArray[np.int64]:
    """Cluster of each sample, (S,): samples more similar than ``above`` are linked.

    -1 for a sample that is by itself. Cosines, mean removed; cost S^2 d products.
    """
    u, links = unit(samples), []
    rows = max(1, CHUNK_VALUES // len(u))
    for start in range(0, len(u), rows):
        found = (u[start : start + rows] @ u.T > above).nonzero().numpy()
        links.append(found + np.array([start, 0]))
    one, other = np.concatenate(links).T
    graph = coo_matrix((np.ones(len(one)), (one, other)), shape=(len(u), len(u)))
    of = connected_components(graph, directed=False)[1]
    count = np.bincount(of)
    return np.where(count[of] > 1, of, -1).astype(np.int64)


@dataclass(frozen=True)
class Pointed:
    """Distinct units that clusters show: of T, of H, and p of as many of T, by the deal."""

    trained: int
    held_out: int
    p: float


def pointed(units: NDArray, trained: NDArray[np.bool_], n: int, m: int) -> Pointed:
    """What clusters point at: ``units`` (K,) nearest to them, of n in T and m in H.

    Which unit is nearest was found blind to the sets, so that of the distinct ones as many are in T
    as of any drawn without replacement: ``p = P[Hypergeometric(n + m, n, K) >= x]``.
    """
    distinct = np.unique(units)
    x = int(trained[distinct].sum())
    return Pointed(x, len(distinct) - x, float(hypergeom.sf(x - 1, n + m, n, len(distinct))))
