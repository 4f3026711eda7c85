"""Modes shift: what the model draws as two modes move apart or one gets lighter, one replicate."""

import numpy as np

from twinscore import runs
from twinscore.experiments.mixture.spec import Spec, forward, resolving_grid
from twinscore.experiments.mixture.sweep import (
    Arrays,
    densities,
    kl,
    population_loss,
    sampled_loss,
)
from twinscore.theory.gradient_flow import gradient_flow
from twinscore.theory.random_features import random_features
from twinscore.theory.targets import two_modes

NEAR = 3.0
"""Deviations of a mode within which mass counts as its own."""


def measure(spec: Spec, mu: float, lighter: float, replicate: int) -> Arrays:
    """Train on n samples, and on infinitely many, of a mixture whose mode at mu weighs less.

    Parameters
    ----------
    spec : Spec
        The study; its ``shift``.
    mu : float
        Distance of a mode from 0.
    lighter : float
        Weight of the mode at mu.
    replicate : int
        Its number. Features are the same for all mixtures of a replicate.

    Returns
    -------
    dict of str to array
        For n samples, then infinitely many, and K times: ``kl`` and ``converged`` (2, K);
        ``kept`` (2, K, 2): mass near the mode at -mu and at mu, in units of the target's there;
        ``points`` (P,), ``target`` (P,) and ``shown`` (2, S, P): densities, and
        ``shown_converged`` (2, S).
    """
    shift = spec.shift
    target, process = two_modes(mu, (1 - lighter, lighter)), forward(shift.rate)
    grid = resolving_grid(target, process, spec.start)
    generator = np.random.default_rng(
        runs.derive_seed(spec.seed, "shift", repr(mu), repr(lighter), replicate)
    )
    features = random_features(
        shift.width,
        seed=runs.derive_seed(spec.seed, "shift", "features", replicate),
        activation=spec.activation,
    )
    losses = (
        sampled_loss(features, target.draw(shift.samples, generator), grid),
        population_loss(features, target, grid),
    )
    times, wanted = np.unique(np.append(spec.times, shift.shown), return_inverse=True)
    curve, shown = wanted[: spec.tau_count], wanted[spec.tau_count :]
    A = np.stack([gradient_flow(loss).at(shift.width * times) for loss in losses])
    learned = densities(features, A, grid, shift.tolerance)
    density = np.exp(learned.log_density).reshape(2, len(times), -1)
    divergence, converged = (v.reshape(2, -1) for v in (kl(learned), learned.converged))
    p = np.exp(learned.target)
    scale = float(process.scale(spec.start))
    modes = np.stack([np.abs(learned.points - scale * c) < NEAR for c in (-mu, mu)])
    modes &= np.stack([learned.points < 0, learned.points >= 0])
    near = modes * learned.weights
    kept = (density @ near.T) / (near @ p)
    return {
        "kl": divergence[:, curve],
        "converged": converged[:, curve],
        "kept": kept[:, curve],
        "points": learned.points,
        "target": p,
        "shown": density[:, shown],
        "shown_converged": converged[:, shown],
    }
