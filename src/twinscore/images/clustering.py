"""Clusters of images: k-means in principal components, and the nearest and farthest pairs."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from twinscore.errors import InputError
from twinscore.images.imageset import ImageSet

STARTS = 10
"""Random starts of k-means, of which the best is kept."""


@dataclass(frozen=True, eq=False)
class Clusters:
    """Images partitioned by k-means, and what assigns any image to a centre.

    Clusters are numbered by falling size.

    Attributes
    ----------
    labels : array
        (N,) int64, the cluster of each image.
    centres : array
        (k, p) float64, the mean of each cluster's coordinates.
    mean, scale : array
        (d,): pixels are standardised by ``(x - mean) / scale``; the scale of a constant pixel is 1.
    components : array
        (p, d), orthonormal rows: principal components of the standardised images.
    """

    labels: NDArray[np.int64]
    centres: NDArray[np.float64]
    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    components: NDArray[np.float64]

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Images in each cluster, (k,)."""
        return np.bincount(self.labels, minlength=len(self.centres))

    def coordinates(self, images: Tensor | NDArray) -> NDArray[np.float64]:
        """Standardised principal components of images, (B, C, H, W) to (B, p)."""
        flat = np.asarray(images, dtype=np.float64).reshape(len(images), -1)
        return (flat - self.mean) / self.scale @ self.components.T

    def nearest(self, images: Tensor | NDArray) -> NDArray[np.int64]:
        """The cluster whose centre is nearest to each image, (B, C, H, W) to (B,)."""
        x = self.coordinates(images)
        distances = (self.centres**2).sum(1) - 2 * x @ self.centres.T
        return distances.argmin(1)

    def positions(self, images: Tensor | NDArray, first: int, second: int) -> NDArray[np.float64]:
        """Where images lie on the line through two centres, (B, C, H, W) to (B,).

        0 at the first centre, 1 at the second; 1/2 is equally far from both.
        """
        line = self.centres[second] - self.centres[first]
        return (self.coordinates(images) - self.centres[first]) @ line / (line @ line)


@dataclass(frozen=True)
class Pair:
    """Two clusters and the distance of their centres, in standardised principal components."""

    first: int
    second: int
    distance: float


def cluster(images: ImageSet, count: int, *, components: int = 100, seed: int = 0) -> Clusters:
    """Partition images by k-means in the principal components of their standardised pixels.

    The clusters of Li et al. 2023 ([GP], its experiment on MNIST: 30 clusters in 100 components).

    Parameters
    ----------
    images : ImageSet
        N images.
    count : int
        Number of clusters k.
    components : int
        Principal components p; at most ``min(d, N - 1)`` are used.
    seed : int
        Seed of k-means and of the randomised decomposition that large sets get.

    Returns
    -------
    Clusters
        The best of ``STARTS`` starts. Cost: ``N k p`` products per iteration; all N images are held
        as float32, twice.

    Raises
    ------
    InputError
        If there are fewer than two clusters, or fewer different images than clusters.
    """
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA

    different = len(set(images.digests))
    if not 2 <= count <= different:
        raise InputError(
            f"clusters: {count} clusters of {different:,} different images are impossible; "
            + (f"give 3 to {different}" if different >= 3 else "give a set of at least 3")
        )
    flat = images[:].flatten(1).numpy()
    mean, scale = flat.mean(0, dtype=np.float64), flat.std(0, dtype=np.float64)
    scale[scale == 0] = 1
    used = min(components, flat.shape[1], len(flat) - 1)
    standard = ((flat - mean) / scale).astype(np.float32)
    basis = PCA(used, random_state=seed % 2**32).fit(standard).components_.astype(np.float64)
    x = standard @ basis.T
    found = KMeans(count, n_init=STARTS, random_state=seed % 2**32).fit_predict(x)
    order = np.argsort(-np.bincount(found, minlength=count), kind="stable")
    labels = np.argsort(order)[found].astype(np.int64)
    centres = np.stack([x[labels == c].mean(0, dtype=np.float64) for c in range(count)])
    return Clusters(labels, centres, mean, scale, basis)


def extreme_pairs(clusters: Clusters, need: int) -> tuple[Pair, Pair]:
    """The two nearest and the two farthest of the clusters that hold ``need`` images.

    By Euclidean distance of the centres; the two pairs differ in at least one cluster. ValueError
    if fewer than three clusters are large enough.
    """
    large = np.flatnonzero(clusters.sizes >= need)
    if len(large) < 3:
        raise ValueError(f"need 3 clusters of {need} images; got {len(large)}")
    first, second = (large[side] for side in np.triu_indices(len(large), 1))
    distances = np.linalg.norm(clusters.centres[first] - clusters.centres[second], axis=1)
    order = np.argsort(distances, kind="stable")
    nearest, farthest = (
        Pair(int(first[i]), int(second[i]), float(distances[i])) for i in order[[0, -1]]
    )
    return nearest, farthest
