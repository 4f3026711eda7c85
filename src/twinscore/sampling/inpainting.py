"""Fill in what is missing of images, by paths whose noise is renewed at every step."""

from collections.abc import Sequence

import torch
from torch import Tensor

from twinscore.denoisers import Denoiser, denoise
from twinscore.sampling.noise import noise
from twinscore.sampling.paths import Mean, spread_out
from twinscore.sampling.solvers import noise_levels


@torch.no_grad()
def filled_in(
    denoiser: Denoiser,
    images: Tensor,
    known: Tensor,
    *,
    seeds: Sequence[int],
    mean: Mean = 0.0,
    sigma_max: float = 1.0,
    sigma_min: float = 0.01,
    steps: int = 20,
) -> Tensor:
    """Images with their unknown pixels filled in; of several paths the one that fits best.

    At each noise level the known pixels of the estimate are put right, and new noise of the next
    level is added to the whole: the published rule of projections (see
    :func:`~twinscore.sampling.restoration.projected`) with ``y <- f + sigma' z``, so that what is
    known steers what is not before either is settled. A heuristic, not a posterior sample.

    Parameters
    ----------
    denoiser : Denoiser
        Any denoiser.
    images : Tensor
        (B, C, H, W); unknown pixels are not looked at.
    known : Tensor
        (C, H, W) bool.
    seeds : sequence of int
        One for each path. All images get the same noise, so that nothing but the image differs.
    mean : Tensor, float or sequence of float
        What unknown pixels start at.
    sigma_max, sigma_min, steps
        Noise levels, see :func:`~twinscore.sampling.solvers.noise_levels`.

    Returns
    -------
    Tensor
        (B, C, H, W). Kept is, for each image, the path whose own estimates of the known pixels were
        nearest to them, on average over the levels. Cost: ``steps`` evaluations for each seed.
    """
    levels = noise_levels(steps, sigma_max, sigma_min)
    start = torch.where(known, images, images.new_zeros(()) + spread_out(mean, images))
    best, least = start, images.new_full((len(images),), torch.inf)
    for seed in seeds:
        y, misfit = start, torch.zeros_like(least)
        for step, sigma in enumerate(levels):
            z = noise([seed], tuple(images.shape[1:]), step).to(images)
            x_hat = denoise(denoiser, y + sigma * z, sigma)
            misfit += ((x_hat - images) * known).square().flatten(1).sum(1)
            y = torch.where(known, images, x_hat)
        better = misfit < least  # a lost path, of NaN, is not
        best = torch.where(better.view(-1, 1, 1, 1), y, best)
        least = torch.where(better, misfit, least)
    return best
