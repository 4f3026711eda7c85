"""Draws from the density inside a denoiser: plain functions of one signature, `Sampler`."""

from twinscore.sampling import operators
from twinscore.sampling.flow import encode, probability_flow, round_trip_error
from twinscore.sampling.likelihood import log_density
from twinscore.sampling.noise import noise
from twinscore.sampling.operators import Operator
from twinscore.sampling.paths import Sampler
from twinscore.sampling.restoration import (
    Solves,
    completed,
    conditioned,
    inconsistency,
    projected,
)
from twinscore.sampling.reverse_diffusion import reverse_diffusion
from twinscore.sampling.solvers import Callback, dpm, euler, heun, noise_levels
from twinscore.sampling.spec import SamplingSpec
from twinscore.sampling.stochastic import ancestral, langevin_corrected

__all__ = [
    "Callback",
    "Operator",
    "Sampler",
    "SamplingSpec",
    "Solves",
    "ancestral",
    "completed",
    "conditioned",
    "dpm",
    "encode",
    "euler",
    "heun",
    "inconsistency",
    "langevin_corrected",
    "log_density",
    "noise",
    "noise_levels",
    "operators",
    "probability_flow",
    "projected",
    "reverse_diffusion",
    "round_trip_error",
]
