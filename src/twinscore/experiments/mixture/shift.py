"""Modes shift: what the model draws as two modes move apart or one gets lighter, one replicate."""

import numpy as np
from numpy.typing import NDArray

from twinscore import runs
from twinscore.experiments.mixture.spec import Spec, forward, likelihood_rule, resolving_grid
from twinscore.experiments.mixture.sweep import densities, kl, score_error
from twinscore.experiments.study import Arrays
from twinscore.theory.densities import Learned
from twinscore.theory.gradient_flow import gradient_flow
from twinscore.theory.nodes import empirical_nodes, population_nodes
from twinscore.theory.random_features import random_features
from twinscore.theory.score_matching import quadratic_losses
from twinscore.theory.targets import two_modes

NEAR = 3.0  # deviations of a mode within which mass counts as its own


def measure(spec: Spec, mu: float, lighter: float, replicate: int) -> Arrays:
    """Train on n samples, and on infinitely many, of a mixture whose mode at mu weighs less.

    Features are the same for all mixtures of a replicate.

    Returns
    -------
    dict of str to array
        For n samples, then infinitely many, and K times: ``kl`` and ``converged`` (2, K);
        ``kept`` and ``rise`` (2, K, 2): of the mode at -mu and at mu, mass near it in units of the
        target's there, and how far it rises (:func:`near_modes`); ``target_rise`` (2,);
        ``points`` (P,), ``target`` (P,) and ``shown`` (2, S, P): densities, and
        ``shown_converged`` (2, S). The score's error in nats of the bound: ``sampling`` and
        ``training`` (K,), ``approximation`` (1,).
    """
    shift = spec.shift
    target, process = two_modes(mu, (1 - lighter, lighter)), forward(shift.rate)
    grid = resolving_grid(target, process, spec.start)
    seed = runs.derive_seed(spec.seed, "shift", repr(mu), repr(lighter), replicate)
    generator = np.random.default_rng(seed)
    seed = runs.derive_seed(spec.seed, "shift", "features", replicate)
    features = random_features(shift.width, seed=seed, activation=spec.activation)
    rule, samples = likelihood_rule(process, spec.start), target.draw(shift.samples, generator)
    losses = quadratic_losses(features, empirical_nodes([samples], process, rule))
    losses += quadratic_losses(features, population_nodes(target, process, rule))
    times, wanted = np.unique(np.append(spec.times, shift.shown), return_inverse=True)
    curve, shown = wanted[: spec.tau_count], wanted[spec.tau_count :]
    flows = [gradient_flow(loss) for loss in losses]
    A = np.stack([flow.at(shift.width * times) for flow in flows])
    learned = densities(features, A, grid, shift.tolerance)
    density = np.exp(learned.log_density).reshape(2, len(times), -1)
    divergence, converged = (v.reshape(2, -1) for v in (kl(learned), learned.converged))
    scale = float(process.scale(spec.start))
    mass, rise, target_mass, target_rise = near_modes(learned, scale * mu)
    error = score_error(A, losses[1], flows[1], shift.width * times, grid)
    return {
        "kl": divergence[:, curve],
        "converged": converged[:, curve],
        "kept": (mass / target_mass).reshape(2, -1, 2)[:, curve],
        "rise": rise.reshape(2, -1, 2)[:, curve],
        "target_rise": target_rise,
        "points": learned.points,
        "target": np.exp(learned.target),
        "shown": density[:, shown],
        "shown_converged": converged[:, shown],
        "sampling": error["sampling"][0, curve],
        "training": error["training"][curve],
        "approximation": error["approximation"],
    }


def near_modes(learned: Learned, centre: float) -> tuple[NDArray[np.float64], ...]:
    """What B densities, and their target, have near the modes at -centre and centre.

    Mass (B, 2) within 3 deviations on the mode's side of 0; rise (B, 2), nats: by how much the log
    density at its highest there exceeds the one halfway between the modes, at 0; then both of the
    target, (2,). A hump at 0 has mass near both modes and rises at neither.
    """
    x = learned.points
    near = np.stack([np.abs(x + centre) < NEAR, np.abs(x - centre) < NEAR])
    near &= np.stack([x < 0, x >= 0])
    log_density = np.vstack([learned.log_density, learned.target])
    mass = np.exp(log_density) @ (near * learned.weights).T
    halfway = np.array([np.interp(0.0, x, row) for row in log_density])
    rise = np.stack([log_density[:, side].max(1) for side in near], axis=1) - halfway[:, None]
    return mass[:-1], rise[:-1], mass[-1], rise[-1]
