"""KL against training time for every n and m, and each term of the bound: one replicate of it."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from twinscore import runs
from twinscore.experiments.mixture.spec import (
    Spec,
    forward,
    likelihood_rule,
    raised_cosine,
    resolving_grid,
)
from twinscore.experiments.study import Arrays, stacked
from twinscore.results.mixture import TargetName
from twinscore.theory.coordinates import Grid
from twinscore.theory.densities import Learned
from twinscore.theory.fokker_planck import reverse_sde
from twinscore.theory.gradient_flow import GradientFlow, gradient_flow
from twinscore.theory.nodes import empirical_nodes, population_nodes
from twinscore.theory.random_features import RandomFeatures, random_features
from twinscore.theory.score_matching import QuadraticLoss, quadratic_losses
from twinscore.theory.targets import Target, two_modes


def measure(spec: Spec, name: TargetName, replicate: int) -> Arrays:
    """One replicate of the sweep of a target; samples and features depend on its number.

    Returns
    -------
    dict of str to array
        For N sizes and infinitely many samples, M widths and K times: ``kl`` and ``converged``
        (N + 1, M, K), nats; ``excess`` (N + 1, M, K), the score error in the bound;
        ``sampling`` (N, M, K), ``training`` (M, K) and ``approximation`` (M,), its parts. Cost: of
        order 1 ms for each density, and the Gram matrices. Memory: those of all sizes, (m, m) each,
        and the eigenvectors of one at a time.
    """
    target = target_of(spec, name)
    process = forward(spec.rate)
    rule = likelihood_rule(process, spec.start)
    generator = np.random.default_rng(runs.derive_seed(spec.seed, name, "samples", replicate))
    samples = target.draw(spec.sizes[-1], generator)
    seed = runs.derive_seed(spec.seed, name, "features", replicate)
    features = random_features(spec.widths[-1], seed=seed, activation=spec.activation)
    nodes = empirical_nodes([samples[:n] for n in spec.sizes], process, rule)
    losses = quadratic_losses(features, nodes)
    losses += quadratic_losses(features, population_nodes(target, process, rule))
    grid = resolving_grid(target, process, spec.start)
    parts = [
        _at_width(spec, features.narrowed(m), [loss.narrowed(m) for loss in losses], grid)
        for m in spec.widths
    ]
    out = stacked(parts, axis=-2)
    return out | {"approximation": out["approximation"][:, 0]}


def target_of(spec: Spec, name: TargetName) -> Target:
    """The target of that name."""
    return two_modes(spec.mu) if name == "mixture" else raised_cosine()


def _at_width(
    spec: Spec, features: RandomFeatures, losses: list[QuadraticLoss], grid: Grid
) -> Arrays:
    """What :func:`measure` returns, without the axis of widths."""
    exact, taus = losses[-1], features.width * spec.times
    sampled = [gradient_flow(loss).at(taus) for loss in losses[:-1]]
    population = gradient_flow(exact)
    A = np.stack([*sampled, population.at(taus)])
    learned = densities(features, A, grid, spec.tolerance)
    return {
        "kl": kl(learned).reshape(A.shape[:2]),
        "converged": learned.converged.reshape(A.shape[:2]),
        "excess": nats(grid) * exact(A),
        **score_error(A, exact, population, taus, grid),
    }


def score_error(
    A: NDArray[np.float64],
    exact: QuadraticLoss,
    flow: GradientFlow,
    taus: NDArray[np.float64],
    grid: Grid,
) -> Arrays:
    """The parts of the score's error, nats of the bound, on the target of a grid.

    Of coefficients A (N + 1, K, 1, m) at training times (K,), learned from N training sets, then
    from infinitely many, to which ``exact`` and ``flow`` belong.

    Returns
    -------
    dict of str to array
        ``sampling`` (N, K): distance of the score learned from samples to the one learned in the
        same time from infinitely many; ``training`` (K,): what that one still lacks;
        ``approximation`` (1,): what no coefficients can give.
    """
    away = (A[:-1] - A[-1])[..., 0, :]
    return {
        "sampling": nats(grid) * ((away @ exact.gram) * away).sum(-1) / exact.width**2,
        "training": nats(grid) * flow.loss_above_limit(taus),
        "approximation": nats(grid) * exact(flow.at([np.inf])),
    }


def nats(grid: Grid) -> float:
    """What a loss weighted by ``g(t)^2`` counts in the bound on KL: half the length of its time."""
    return (grid.process.end - grid.start) / 2


def densities(
    features: RandomFeatures, A: NDArray[np.float64], grid: Grid, tolerance: float
) -> Learned:
    """What the reverse SDE draws with each of the coefficients (..., 1, m), in one long list."""
    score = features.score(A.reshape(-1, 1, features.width))
    return reverse_sde(lambda t, x: score(t, x)[..., 0], grid, tolerance=tolerance)


def kl(learned: Learned) -> NDArray[np.float64]:
    """``KL(p || p_theta)`` of each density, (B,), nats; NaN where it missed its tolerance."""
    p = learned.weights * np.exp(learned.target)
    return np.where(learned.converged, (learned.target - learned.log_density) @ p, np.nan)


Measured = Mapping[str, NDArray]  # arrays of all replicates, stacked along a new first axis
