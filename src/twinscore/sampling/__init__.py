"""Draws from the density inside a denoiser: plain functions of (denoiser, noise)."""

from twinscore.sampling.flow import noise_levels, probability_flow
from twinscore.sampling.noise import noise
from twinscore.sampling.reverse_diffusion import Diffused, reverse_diffusion

__all__ = ["Diffused", "noise", "noise_levels", "probability_flow", "reverse_diffusion"]
