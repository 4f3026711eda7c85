"""A pipeline's own sampler: its scheduler steps as in the pipelines of diffusers, whatever it does.

What a pipeline draws without a seed for each image is drawn with the first one's.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from twinscore.denoisers.pipeline_folders.networks import Call
from twinscore.denoisers.pipeline_folders.reading import diffusers_of
from twinscore.denoisers.pipeline_folders.schedulers import Wired
from twinscore.denoisers.whole_pipelines import Latents, OwnSampler
from twinscore.errors import InputError, one_line

NEEDS_TRANSFORMERS = "needs the package transformers: pip install 'twinscore[diffusers]'"
_STEPS = {"DDPMScheduler": "DDPMPipeline", "ScoreSdeVeScheduler": "ScoreSdeVePipeline"}
"""Pipelines that say how many steps go with a scheduler alone; otherwise that of DDIM."""


def by_scheduler(
    network: Call,
    channels: int,
    wired: Wired,
    kind: str | None,
    guidance: float | None,
    latents: Latents | None = None,
) -> OwnSampler:
    """The sampler of a pipeline without a prompt.

    Parameters
    ----------
    network : callable
        As its sampler calls it: guided, with a learned variance where there is one.
    channels : int
        Of the mean.
    wired : Wired
        The scheduler.
    kind : str or None
        Class of the pipeline; None for a network with a scheduler alone.
    guidance : float or None
        How much the class counts, where there are classes.
    latents : Latents, optional
        Where it denoises, if not in pixels.
    """
    name = type(wired.scheduler).__name__
    learned = str(wired.scheduler.config.get("variance_type")).startswith("learned")
    whole = learned and name == "DDPMScheduler"  # the only one that takes a variance
    told: Call = network if whole else lambda x, t: network(x, t)[:, :channels]
    steps = default(kind or _STEPS.get(name, "DDIMPipeline"), "num_inference_steps")
    steps = min(steps, wired.scheduler.config.num_train_timesteps)
    walk = _exploding if name == "ScoreSdeVeScheduler" else _walk

    @torch.no_grad()
    def draw(
        seeds: Sequence[int], shape: tuple[int, int, int], steps: int, device: torch.device | str
    ) -> Tensor:
        from diffusers.utils.torch_utils import randn_tensor

        scheduler = type(wired.scheduler).from_config(wired.scheduler.config)
        scheduled(scheduler, steps, device)
        with seeded(seeds, device) as generators:
            place = (len(seeds), *(latents.shape if latents else shape))
            noise = randn_tensor(place, generator=generators, device=torch.device(device))
            x = walk(told, scheduler, noise, generators)
            images = latents.decode(x) if latents else (x - wired.low) / (1 - wired.low)
        return images.clamp(0, 1)

    about = {"scheduler": name} | ({} if guidance is None else {"guidance": guidance})
    return OwnSampler(draw, steps, about)


def default(kind: str, option: str) -> Any:
    """What a pipeline takes for an option that is not given; None if it has no such option."""
    try:
        call = getattr(diffusers_of(), kind).__call__
    except ImportError:
        raise InputError(NEEDS_TRANSFORMERS) from None
    found = inspect.signature(call).parameters.get(option)
    return None if found is None else found.default


def scheduled(scheduler: Any, steps: int, device: torch.device | str) -> None:
    """Set the times of so many steps; InputError if the scheduler does not take them."""
    try:
        scheduler.set_timesteps(steps, device=device)
        if hasattr(scheduler, "set_sigmas"):
            scheduler.set_sigmas(steps)
    except Exception as error:
        raise InputError(
            f"--sampling.steps: {steps} does not suit {type(scheduler).__name__}: {one_line(error)}"
        ) from None


@contextmanager
def seeded(seeds: Sequence[int], device: torch.device | str) -> Iterator[list[torch.Generator]]:
    """A generator for each image; what is drawn without one is a function of the first seed."""
    device = torch.device(device)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seeds[0])
        yield [torch.Generator().manual_seed(seed) for seed in seeds]


def _walk(
    network: Call, scheduler: Any, noise: Tensor, generators: list[torch.Generator]
) -> Tensor:
    """From noise to an image, as the scheduler steps."""
    x = noise * getattr(scheduler, "init_noise_sigma", 1.0)
    scale: Callable[[Tensor, Tensor], Tensor] = getattr(
        scheduler, "scale_model_input", lambda x, t: x
    )
    takes = "generator" in inspect.signature(scheduler.step).parameters
    own = {"generator": generators} if takes else {}
    for t in scheduler.timesteps:
        output = network(scale(x, t), t.expand(len(x)))
        x = scheduler.step(output, t, x, **own).prev_sample
    return x


def _exploding(
    network: Call, scheduler: Any, noise: Tensor, generators: list[torch.Generator]
) -> Tensor:
    """Predictor and corrector of Song et al. 2021; a correction's step is the batch's."""
    x = noise * scheduler.init_noise_sigma
    for t, sigma in zip(scheduler.timesteps, scheduler.sigmas, strict=False):
        level = sigma.to(x).expand(len(x))
        for _ in range(scheduler.config.correct_steps):
            x = scheduler.step_correct(network(x, level), x, generator=generators).prev_sample
        found = scheduler.step_pred(network(x, level), t, x, generator=generators)
        x = found.prev_sample
    return found.prev_sample_mean
