"""Twins of random-feature models: do two training sets give the same score? One replicate."""

import numpy as np
from numpy.typing import NDArray

from twinscore import runs
from twinscore.experiments.mixture.spec import Spec, forward, likelihood_rule, resolving_grid
from twinscore.experiments.mixture.sweep import densities, kl, nats
from twinscore.experiments.study import Arrays
from twinscore.theory.densities import Learned
from twinscore.theory.gradient_flow import gradient_flow
from twinscore.theory.nodes import TimeRule, empirical_nodes, population_nodes
from twinscore.theory.processes import Process
from twinscore.theory.random_features import RandomFeatures, random_features
from twinscore.theory.score_matching import quadratic_losses
from twinscore.theory.targets import Target, two_modes


def times(spec: Spec) -> NDArray[np.float64]:
    """Training times tau / m of the twins."""
    return np.geomspace(spec.tau_first, spec.tau_last, spec.twins.count)


def measure(spec: Spec, replicate: int) -> Arrays:
    """Models of two disjoint training sets, with features of their own and with shared ones.

    Shared features are a control: what they agree on, they may owe to their features.

    Returns
    -------
    dict of str to array
        (N, K) each: ``variance`` and ``variance_shared``, half the mean squared distance of the
        twins' scores, and ``error``, the mean squared distance of the two from the target's score,
        both in nats of the bound; ``variation`` and ``variation_shared``, total variation between
        the twins' densities, and ``off``, between twin a's and the target; ``converged``.
    """
    target, process = two_modes(spec.mu), forward(spec.rate)
    rule = likelihood_rule(process, spec.start)
    grid = resolving_grid(target, process, spec.start)

    def seed(what: str, twin: str) -> int:
        return runs.derive_seed(spec.seed, "twins", what, twin, replicate)

    own, others = (
        random_features(spec.twins.width, seed=seed("features", twin), activation=spec.activation)
        for twin in "ab"
    )
    a, b = (
        target.draw(spec.sizes[-1], np.random.default_rng(seed("samples", twin))) for twin in "ab"
    )
    models, taus = [], spec.twins.width * times(spec)
    for features, drawn in ((own, a), (others, b), (own, b)):
        nodes = empirical_nodes([drawn[:n] for n in spec.sizes], process, rule)
        flows = map(gradient_flow, quadratic_losses(features, nodes))
        models.append((features, np.stack([flow.at(taus) for flow in flows])))
    error, variance, shared = _distances(models, target, process, rule)
    laws = [densities(features, A, grid, spec.tolerance) for features, A in models]
    shape = len(spec.sizes), spec.twins.count
    return {
        "variance": nats(grid) * variance / 2,
        "variance_shared": nats(grid) * shared / 2,
        "error": nats(grid) * error,
        "variation": _variation(laws[0], laws[1].log_density).reshape(shape),
        "variation_shared": _variation(laws[0], laws[2].log_density).reshape(shape),
        "off": _variation(laws[0], laws[0].target).reshape(shape),
        "kl": kl(laws[0]).reshape(shape),
        "converged": np.all([law.converged for law in laws], axis=0).reshape(shape),
    }


def _distances(
    models: list[tuple[RandomFeatures, NDArray[np.float64]]],
    target: Target,
    process: Process,
    rule: TimeRule,
) -> tuple[NDArray[np.float64], ...]:
    """Weighted mean squared distances (N, K).

    Of the first two models from the target, averaged; of the first from the second and the third.
    """
    shape = models[0][1].shape[:2]
    error, apart, shared = (np.zeros(shape) for _ in range(3))
    for block in population_nodes(target, process, rule):
        a, b, c = (features.score(A)(block.t, block.points)[..., 0] for features, A in models)
        exact, weights = block.targets[0, :, 0], block.weights[0]
        error += ((a - exact) ** 2 + (b - exact) ** 2) @ weights / 2
        apart += (a - b) ** 2 @ weights
        shared += (a - c) ** 2 @ weights
    return error, apart, shared


def _variation(law: Learned, other: NDArray[np.float64]) -> NDArray[np.float64]:
    """Total variation between densities and others, given as logarithms."""
    return np.abs(np.exp(law.log_density) - np.exp(other)) @ law.weights / 2
