"""Random-feature score models, linear in what they learn: ``s(t, x) = (1/m) A phi(W x + U e(t))``.

[GP] section 2; docs/formulas.md#gradient-flow. Only A is learned; W and U stay as they were drawn.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import erf, expit

from twinscore.theory.processes import Process, Score

Embedding = Callable[[ArrayLike], NDArray[np.float64]]
"""``e(t)``: times of any shape (...) to (..., q)."""

ACTIVATIONS: Mapping[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "relu": lambda a: np.maximum(a, 0.0),
    "silu": lambda a: a * expit(a),
    "tanh": np.tanh,
    "erf": erf,
    "identity": lambda a: a,
}
"""``phi``; the identity gives linear models, whose flow is known in closed form."""


@dataclass(frozen=True, eq=False)
class RandomFeatures:
    """The features ``phi(W x + U e(t))``; draw some with :func:`random_features`.

    Attributes
    ----------
    W : array
        Input weights, (m, dim).
    U : array
        Weights of the time embedding, (m, q).
    activation : str
        A name in ``ACTIVATIONS``.
    embedding : Embedding
        ``e(t)``.
    """

    W: NDArray[np.float64]
    U: NDArray[np.float64]
    activation: str
    embedding: Embedding

    @property
    def width(self) -> int:
        """Number of features m."""
        return len(self.W)

    @property
    def dim(self) -> int:
        """Dimension of a point."""
        return self.W.shape[1]

    def narrowed(self, width: int) -> "RandomFeatures":
        """The first features only.

        Raises
        ------
        ValueError
            For a width below 1 or above m.
        """
        check_width(width, self.width)
        return RandomFeatures(self.W[:width], self.U[:width], self.activation, self.embedding)

    def __call__(self, t: float, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Features at one time of points (n, dim), (n, m).

        Raises
        ------
        ValueError
            For points of the wrong dimension.
        """
        if x.ndim != 2 or x.shape[1] != self.dim:
            raise ValueError(f"points must be (n, {self.dim}), got {x.shape}")
        return ACTIVATIONS[self.activation](x @ self.W.T + self.U @ self.embedding(t))

    def score(self, A: NDArray[np.float64]) -> Score:
        """Score model of coefficients (dim, m), or of many at once, (..., dim, m).

        Returns
        -------
        Score
            Of (t, x) with x (n, dim), giving (n, dim) or (..., n, dim): features are computed
            once for all the coefficients, which costs ``n m`` activations and ``2 n m dim`` flops
            for each of them.

        Raises
        ------
        ValueError
            For coefficients of the wrong shape.
        """
        if A.shape[-2:] != (self.dim, self.width):
            raise ValueError(f"coefficients must be (..., {self.dim}, {self.width}), got {A.shape}")
        rows = A.reshape(-1, self.width).T / self.width

        def score(t: float, x: NDArray[np.float64]) -> NDArray[np.float64]:
            values = (self(t, x) @ rows).reshape(len(x), *A.shape[:-1])
            return np.moveaxis(values, 0, -2)

        return score


def random_features(
    width: int,
    *,
    seed: int,
    dim: int = 1,
    activation: str = "silu",
    embedding: Embedding | None = None,
    input_scale: float = 1.0,
    time_scale: float = 1.0,
) -> RandomFeatures:
    """Draw features: entries of W and U are independent centred Gaussians.

    Their standard deviations are ``input_scale`` and ``time_scale``. The features of a smaller
    width m are the first ones of a larger width. The activation is ``relu``, ``silu`` (swish),
    ``tanh``, ``erf`` or ``identity``, the embedding ``e(t)`` by default :func:`affine`. ValueError
    for a width or dimension below 1, an unknown activation, or a scale that is not positive.
    """
    if width < 1 or dim < 1:
        raise ValueError(f"a model needs features and dimensions, got m = {width}, dim = {dim}")
    if activation not in ACTIVATIONS:
        raise ValueError(f"the activation must be one of {', '.join(ACTIVATIONS)}: {activation!r}")
    if not (0 < input_scale < np.inf and 0 < time_scale < np.inf):
        raise ValueError(f"scales must be positive, got {input_scale} and {time_scale}")
    embedding = embedding or affine
    q = np.shape(embedding(1.0))[-1]
    drawn = np.random.default_rng(seed).standard_normal((width, dim + q))
    W, U = np.split(drawn, [dim], axis=1)
    return RandomFeatures(input_scale * W, time_scale * U, activation, embedding)


def affine(t: ArrayLike) -> NDArray[np.float64]:
    """``e(t) = (t, 1)``: time enters linearly, next to a bias."""
    at = np.asarray(t, dtype=np.float64)
    return np.stack([at, np.ones_like(at)], axis=-1)


def fourier(*frequencies: float) -> Embedding:
    """``e(t) = (sin 2 pi f t, cos 2 pi f t)`` over frequencies f; f = 0 gives the bias.

    Raises
    ------
    ValueError
        For no frequency.
    """
    if not frequencies:
        raise ValueError("a Fourier embedding needs frequencies, such as fourier(0, 0.5, 1)")

    def embedding(t: ArrayLike) -> NDArray[np.float64]:
        phase = 2 * np.pi * np.multiply.outer(np.asarray(t, dtype=np.float64), frequencies)
        return np.concatenate([np.sin(phase), np.cos(phase)], axis=-1)

    return embedding


def log_deviation(process: Process) -> Embedding:
    """``e(t) = (log deviation(t), 1)``, for t > 0: even in ratios of noise levels."""

    def embedding(t: ArrayLike) -> NDArray[np.float64]:
        level = np.log(process.deviation(np.asarray(t, dtype=np.float64)))
        return np.stack([level, np.ones_like(level)], axis=-1)

    return embedding


def check_width(width: int, available: int) -> None:
    """Refuse to keep fewer than one feature, or more than there are.

    Raises
    ------
    ValueError
        For a width below 1 or above those available.
    """
    if not 1 <= width <= available:
        raise ValueError(f"can keep 1 to {available} features, got m = {width}")
