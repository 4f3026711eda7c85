"""Pipelines with a prompt: their own sampler, and the denoiser of latents where it is plain.

Stable Diffusion 1, 2 and XL denoise latents by a UNet that is told the embedded prompt. Of the
others only samples are drawn, by the pipeline as it is.
"""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from twinscore.denoisers.adapters import converted
from twinscore.denoisers.checkpoint import Checkpoint
from twinscore.denoisers.pipeline_folders.asked import Asked
from twinscore.denoisers.pipeline_folders.latents import maps
from twinscore.denoisers.pipeline_folders.networks import guided
from twinscore.denoisers.pipeline_folders.own_sampler import NEEDS_TRANSFORMERS, default, seeded
from twinscore.denoisers.pipeline_folders.reading import (
    Config,
    diffusers_of,
    essential,
    loaded,
    quietly,
    require_finite,
)
from twinscore.denoisers.pipeline_folders.schedulers import wired
from twinscore.denoisers.published import UNKNOWN_MEAN
from twinscore.denoisers.whole_pipelines import Latents, NotInPixels, OwnSampler
from twinscore.errors import InputError, one_line
from twinscore.runs import digest

PIPELINES = {
    "StableDiffusionPipeline": "unet",
    "StableDiffusionXLPipeline": "unet",
    "StableDiffusion3Pipeline": "transformer",
    "FluxPipeline": "transformer",
    "PixArtAlphaPipeline": "transformer",
    "PixArtSigmaPipeline": "transformer",
    "SanaPipeline": "transformer",
}
"""Pipelines with a prompt, and the part that denoises."""
_DENOISERS = ("StableDiffusionPipeline", "StableDiffusionXLPipeline")


def read(asked: Asked, index: Config, folder: Path) -> Checkpoint:
    """Open a pipeline of :data:`PIPELINES`, whose network lies in ``folder``.

    Raises
    ------
    InputError
        If no prompt is given, or a part is missing, does not fit, or is not finite.
    """
    try:
        from transformers.utils import logging
    except ImportError:
        raise InputError(NEEDS_TRANSFORMERS) from None
    with quietly(diffusers_of().logging, logging):
        return _read(asked, index, folder)


def _read(asked: Asked, index: Config, folder: Path) -> Checkpoint:
    kind = index["_class_name"]
    if asked.prompt is None:
        raise InputError(f"{kind} needs a prompt; add ,prompt=TEXT, the last option")
    for name, value in (("class", asked.label), ("null", asked.null)):
        if value is not None:
            raise InputError(f"{kind} knows no classes; leave out {name}={value}")
    pipeline = _loaded(asked.path, index, folder)
    networks = [part for part in pipeline.components.values() if isinstance(part, nn.Module)]
    latents = _latents(pipeline, asked, kind) if kind in _DENOISERS else None
    of = f"latents of {' x '.join(map(str, latents.shape))}" if latents else "coded images"
    outside = NotInPixels(
        f"{kind} denoises {of}, not images; draw samples (twinscore sample), and audit "
        "them (--samples)",
        *networks,
        *([latents.denoiser] if latents else []),
    ).eval()
    weight = default(kind, "guidance_scale") if asked.guidance is None else asked.guidance
    return Checkpoint(
        outside,
        _images(pipeline, kind),
        (UNKNOWN_MEAN,),
        f"diffusers {digest([*_known(pipeline, asked), kind, asked.prompt, asked.guidance])}",
        (f"averaged weights, of {folder.name}",) if folder.name.endswith("_ema") else (),
        OwnSampler(
            _drawing(pipeline, asked.prompt, weight),
            default(kind, "num_inference_steps"),
            {"scheduler": type(pipeline.scheduler).__name__, "guidance": weight},
        ),
        latents,
    )


def _known(pipeline: Any, asked: Asked) -> list[Any]:
    """What its samples depend on besides weights: configurations, and how words become numbers."""
    parts = [part for _, part in sorted(pipeline.components.items()) if part is not None]
    configs = [essential(dict(p.config)) for p in parts if hasattr(p, "register_to_config")]
    files = sorted(asked.path.glob("tokenizer*/*"))
    return [configs, [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]]


def _loaded(path: Path, index: Config, folder: Path) -> Any:
    """The pipeline in float32, with this network; without the parts that it was saved without."""
    kind = index["_class_name"]
    own: dict[str, Any] = {name: None for name, part in index.items() if part == [None, None]}
    if kind in _DENOISERS:
        own[PIPELINES[kind]] = loaded(folder, "UNet2DConditionModel")
    if not list(path.glob("*/*.safetensors")):
        raise InputError("has no weights in safetensors; save them so")
    halved = all(".fp16" in file.name for file in folder.glob("*.safetensors"))
    try:
        with torch.random.fork_rng(devices=[]):
            pipeline = getattr(diffusers_of(), kind).from_pretrained(
                path,
                use_safetensors=True,
                local_files_only=True,
                low_cpu_mem_usage=False,
                trust_remote_code=False,
                variant="fp16" if halved else None,
                **own,
            )
    except Exception as error:  # of libraries that read what may be damaged
        raise InputError(f"cannot be loaded as {kind}: {one_line(error)}") from None
    for name, part in pipeline.components.items():
        if isinstance(part, nn.Module):
            require_finite(part.float().eval(), name)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _images(pipeline: Any, kind: str) -> tuple[int, int, int]:
    """(C, H, W) of the images that it draws by itself."""
    side = getattr(pipeline, "default_sample_size", None)
    side = side or pipeline.components[PIPELINES[kind]].config.sample_size
    height, width = side if isinstance(side, list | tuple) else (side, side)
    fold = pipeline.vae_scale_factor
    return getattr(pipeline.vae.config, "out_channels", 3), fold * height, fold * width


def _drawing(pipeline: Any, prompt: str, weight: float) -> Callable[..., Tensor]:
    """Its own call, with a generator for each image."""

    @torch.no_grad()
    def draw(
        seeds: Sequence[int], shape: tuple[int, int, int], steps: int, device: torch.device | str
    ) -> Tensor:
        words = {"prompt": [prompt] * len(seeds), "guidance_scale": weight, "output_type": "pt"}
        with seeded(seeds, device) as generators:
            try:
                found = pipeline(**words, num_inference_steps=steps, generator=generators)
            except (ValueError, IndexError) as error:  # of steps that its scheduler does not take
                name = type(pipeline.scheduler).__name__
                raise InputError(f"{name} with {steps} steps: {one_line(error)}") from None
        return found.images

    return draw


class _Prompted(nn.Module):
    """A UNet that is told an embedded prompt, the same for every image."""

    def __init__(self, network: nn.Module, words: Tensor, added: dict[str, Tensor]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("words", words)
        self.added = list(added)
        for name, value in added.items():
            self.register_buffer(name, value)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """What the network returns, (B, C, H, W)."""
        own = {name: getattr(self, name).expand(len(x), -1) for name in self.added}
        words = self.words.expand(len(x), -1, -1)
        return self.network(x, t, words, added_cond_kwargs=own or None, return_dict=False)[0]


def _latents(pipeline: Any, asked: Asked, kind: str) -> Latents:
    """The denoiser of latents of Stable Diffusion 1, 2 and XL."""
    unet, found = pipeline.unet, wired(dict(pipeline.scheduler.config) | _name(pipeline.scheduler))
    with torch.no_grad():
        if kind == "StableDiffusionPipeline":
            words = pipeline.encode_prompt(asked.prompt, "cpu", 1, True)
            own, plain = (_Prompted(unet, each, {}) for each in words)
        else:
            words, none, pooled, pooled_none = pipeline.encode_prompt(asked.prompt, device="cpu")
            _, *sides = _images(pipeline, kind)
            size = torch.tensor([[*sides, 0, 0, *sides]], dtype=torch.float32)
            own = _Prompted(unet, words, {"text_embeds": pooled, "time_ids": size})
            plain = _Prompted(unet, none, {"text_embeds": pooled_none, "time_ids": size})
    channels, side = unet.config.in_channels, unet.config.sample_size
    height, width = side if isinstance(side, list | tuple) else (side, side)
    denoiser = converted(
        guided(own, plain, asked.guidance, channels),
        found.convention,
        time=found.time,
        low=0.0,
        high=1.0,
    )
    return Latents(denoiser.eval(), (channels, height, width), *maps(pipeline.vae))


def _name(scheduler: Any) -> Config:
    return {"_class_name": type(scheduler).__name__}
