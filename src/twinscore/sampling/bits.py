"""Likelihood of images under a trained denoiser, in bits per dimension."""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from twinscore.denoisers import Denoiser
from twinscore.denoisers.closed_form.gaussian import Gaussian
from twinscore.limits import MOST_SAMPLES, Sigma
from twinscore.runs import derive_seed
from twinscore.sampling.likelihood import log_density
from twinscore.sampling.noise import noise


class LikelihoodSpec(BaseModel):
    """How the likelihood of images is computed, by the probability flow."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )

    images: int = Field(default=32, ge=0, le=MOST_SAMPLES)
    """Training and test images, as many of each; 0 leaves the likelihood out."""
    steps: int = Field(default=25, ge=1, le=10**6)
    """Runge-Kutta steps, evenly spaced in log sigma."""
    probes: int | None = Field(default=8, ge=1, le=10**6)
    """Random signs that estimate the trace of the Jacobian; none for the exact trace."""
    sigma_max: Sigma | None = None
    """Noise level at which the density is taken for Gaussian, image units; none for the largest
    the networks are trained on, above which their density is only extrapolated."""
    sigma_min: Sigma = 0.05
    """Noise level whose density is measured, on images with that noise, image units."""

    def highest(self, trained: float) -> float:
        """``sigma_max`` for networks trained on noise levels up to ``trained``.

        Raises
        ------
        ValueError
            If it is above ``trained``, or not above ``sigma_min``.
        """
        sigma_max = trained if self.sigma_max is None else self.sigma_max
        if sigma_max > trained:
            raise ValueError(
                f"likelihood.sigma_max {sigma_max:g} is above training.sigma_max {trained:g}, "
                "beyond which networks only extrapolate; give at most that"
            )
        if self.sigma_min >= sigma_max:
            raise ValueError(
                f"likelihood.sigma_min {self.sigma_min:g} is not below the largest noise level, "
                f"{sigma_max:g}"
            )
        return sigma_max

    def passes(self, d: int) -> int:
        """Passes of the network that an image of ``d`` values takes."""
        return 4 * self.steps * (1 + (self.probes or d))


def bits_per_dimension(
    denoiser: Denoiser,
    images: Tensor,
    training: Tensor,
    spec: LikelihoodSpec,
    *,
    trained: float,
    seed: int,
    batch: int,
) -> NDArray[np.float32]:
    """Bits per dimension, ``-log2 p(y) / d``, of noisy images ``y = x + sigma_min z``.

    ``p`` is the density at ``sigma_min`` whose probability flow the denoiser drives, in image
    units: it can exceed 1, and the bits be negative. Noise keeps it finite on 8-bit images; the
    same ``seed`` gives the same noise and probes. At ``sigma_max`` the density is taken to be
    Gaussian with the mean of the training images and their covariance plus that of the noise,
    whatever the shape of their law: the noise hides it, the better the higher the level.

    Parameters
    ----------
    denoiser : Denoiser
        Differentiable.
    images, training : Tensor
        (B, C, H, W) and (N, C, H, W), N >= 2.
    spec : LikelihoodSpec
        Noise levels, steps and probes.
    trained : float
        Largest noise level the denoiser was trained on, image units.
    seed : int
        Seed of noise and probes.
    batch : int
        Images at once; bounds memory.

    Returns
    -------
    array
        (B,) float32. Cost: :meth:`LikelihoodSpec.passes` of the network over all images, and an
        eigendecomposition of a (d, d) covariance.

    Raises
    ------
    ValueError
        For noise levels above ``trained``, or that leave no range.
    """
    sigma_max = spec.highest(trained)
    flat = training.flatten(1).double().cpu()
    prior = Gaussian.of(flat.mean(0).view(training.shape[1:]), torch.cov(flat.T))
    shape = tuple(images.shape[1:])
    z = noise([derive_seed(seed, "noisy", i) for i in range(len(images))], shape)
    y = images + spec.sigma_min * z.to(images)
    found = [
        log_density(
            denoiser,
            y[part],
            lambda end: prior.log_density(end, sigma_max),
            sigma_max=sigma_max,
            sigma_min=spec.sigma_min,
            steps=spec.steps,
            probes=spec.probes,
            seeds=[derive_seed(seed, "probes", i) for i in part.tolist()],
        )
        for part in torch.arange(len(y)).split(batch)
    ]
    return (-torch.cat(found) / (math.log(2) * math.prod(shape))).cpu().numpy()
