"""Folders that the library diffusers writes: a pipeline, or a network with its scheduler.

The scheduler says by which convention the network was trained; its sampler, and what that does to
its samples (clipping, thresholding, a shift of its times), are no part of the denoiser. They are of
the pipeline's own sampler, by which its samples are drawn.
"""

from dataclasses import replace
from pathlib import Path

from twinscore.denoisers.adapters import Adapted, converted
from twinscore.denoisers.checkpoint import Checkpoint
from twinscore.denoisers.exported import read_program
from twinscore.denoisers.exporting import PROGRAM
from twinscore.denoisers.pipeline_folders import prompts
from twinscore.denoisers.pipeline_folders.asked import Asked, parse
from twinscore.denoisers.pipeline_folders.latents import PARTS as CODERS
from twinscore.denoisers.pipeline_folders.latents import coder, image_shape
from twinscore.denoisers.pipeline_folders.networks import (
    Call,
    classes,
    guided,
    mean_of,
    of_class,
    shape_of,
)
from twinscore.denoisers.pipeline_folders.own_sampler import by_scheduler, default
from twinscore.denoisers.pipeline_folders.reading import Config, essential, loaded, read_json
from twinscore.denoisers.pipeline_folders.schedulers import Wired, wired
from twinscore.denoisers.published import UNKNOWN_MEAN
from twinscore.denoisers.whole_pipelines import Latents, NotInPixels
from twinscore.errors import InputError
from twinscore.runs import digest

IN_PIXELS = ("DDPMPipeline", "DDIMPipeline", "ScoreSdeVePipeline")
IN_LATENTS = ("LDMPipeline", "DiTPipeline")
PIPELINES = (*IN_PIXELS, *IN_LATENTS, *prompts.PIPELINES)
_PARTS = ("unet", "transformer")
_AVERAGED = "_ema"
"""How the name of a folder with averaged weights ends."""


def read(body: str) -> Checkpoint:
    """Open ``PATH``, then ``,class=K``, ``,guidance=W``, ``,null=K`` and, last, ``,prompt=TEXT``.

    Weights are read from safetensors alone, as float32, averaged ones (``unet_ema``) first; no code
    of the folder's is run, and nothing is fetched unless the path is ``hf:OWNER/NAME``.
    ``UNKNOWN_MEAN`` stands for the images' mean.

    Raises
    ------
    InputError
        If diffusers is not installed, the folder is not complete, its pipeline, network or
        scheduler is none of those known, its weights do not fit or are not finite, or a class or a
        prompt is missing or too many.
    """
    if (program := Path(body) / PROGRAM).is_file():  # of `twinscore export`
        return read_program(str(program))
    try:
        asked = parse(body)
        index = _index(asked.path)
        kind = index.get("_class_name")
        if kind in prompts.PIPELINES:
            opened = prompts.read(
                asked, index, _network(asked.path, index, prompts.PIPELINES[kind])
            )
        else:
            opened = _checkpoint(asked, index)
    except InputError as error:
        raise InputError(f"diffusers:{body}: {error}") from None
    weighed = asked.guidance if asked.guided else None
    return replace(opened, guidance=weighed)


def _index(path: Path) -> Config:
    """What a pipeline says of its parts; nothing of a bare network."""
    if not (path / "model_index.json").is_file():
        around = path.parent / "model_index.json"
        if around.is_file() and set(read_json(around)) & set(CODERS):
            raise InputError(f"is a part of a pipeline that codes images; give {path.parent}")
        return {}
    index = read_json(path / "model_index.json")
    kind = index.get("_class_name")
    if not isinstance(kind, str) or kind not in PIPELINES:
        raise InputError(
            f"{kind} is not a pipeline that is known; known are {', '.join(PIPELINES)}, and a "
            "network of pixels with its scheduler alone"
        )
    for name, part in index.items():
        if isinstance(part, list) and part[0] not in (None, "diffusers", "transformers", *_OWN):
            raise InputError(f"its part {name} is code of {part[0]}, which is not run")
    return index


_OWN = ("stable_diffusion",)
"""Module of a pipeline of diffusers that has a part of its own, the safety checker."""


def _network(path: Path, index: Config, part: str | None = None) -> Path:
    """Folder of the network, with averaged weights where there are any."""
    if part:
        folder = path / part
    elif index:
        own = [name for name in _PARTS if name in index]
        if not own:
            raise InputError(f"{index['_class_name']} has no part {' or '.join(_PARTS)}")
        folder = path / own[0]
    else:
        folder = path
    averaged = folder.with_name(folder.name + _AVERAGED)
    if not folder.name.endswith(_AVERAGED) and (averaged / "config.json").is_file():
        folder = averaged
    if not (folder / "config.json").is_file():
        raise InputError(f"has no network: {folder / 'config.json'} is missing")
    return folder


def _scheduler(path: Path, index: Config) -> Config:
    """Configuration of the scheduler: a pipeline's own, or one beside a bare network."""
    beside = (path / "scheduler", *(() if index else (path.parent / "scheduler", path)))
    found = next((f for f in beside if (f / "scheduler_config.json").is_file()), None)
    if found is None:
        raise InputError(
            "has no scheduler, which says how the network was trained; put its "
            f"scheduler_config.json into {path / 'scheduler'}"
        )
    return read_json(found / "scheduler_config.json")


def _checkpoint(asked: Asked, index: Config) -> Checkpoint:
    """A network of classes, or of nothing but the image, in pixels or in latents."""
    folder, about = _network(asked.path, index), _scheduler(asked.path, index)
    config = read_json(folder / "config.json")
    shape, (label, null) = shape_of(config), classes(config, asked)
    found, kind = wired(about), index.get("_class_name")
    if config.get("time_embedding_type") == "fourier" and found.convention != "score":
        raise InputError(
            f"a network with Fourier features of the noise level does not go with "
            f"{about['_class_name']}, whose times may be 0; it takes ScoreSdeVeScheduler"
        )
    network = loaded(folder, config["_class_name"])
    own, plain = of_class(network, label), of_class(network, null)

    def weighed(weight: float | None) -> Call:
        return guided(own, plain, weight, shape[0])

    in_latents = kind in IN_LATENTS
    denoiser = _denoiser(mean_of(weighed(asked.guidance), shape[0]), found, in_latents)
    known = [essential(config), essential(about), label, null, asked.guidance, kind]
    of_pipeline = default(kind, "guidance_scale") if kind else None
    drawn = asked.guidance if asked.guidance is not None else of_pipeline
    with_it = weighed(None if null is None else drawn)
    notes = (f"averaged weights, of {folder.name}",) if folder.name.endswith(_AVERAGED) else ()
    if not in_latents:
        sampler = by_scheduler(with_it, shape[0], found, kind, drawn)
        content = f"diffusers {digest(known)}"
        return Checkpoint(denoiser, shape, (UNKNOWN_MEAN,), content, notes, sampler)
    vae, encode, decode = coder(asked.path, index)
    latents = Latents(denoiser, shape, encode, decode)
    sampler = by_scheduler(with_it, shape[0], found, kind, drawn, latents)
    content = f"diffusers {digest([*known, essential(dict(vae.config))])}"
    images = image_shape(vae, shape)
    outside = NotInPixels(_why(kind, shape), denoiser, vae).eval()
    return Checkpoint(outside, images, (UNKNOWN_MEAN,), content, notes, sampler, latents)


def _denoiser(call: Call, found: Wired, in_latents: bool) -> Adapted:
    low = 0.0 if in_latents else found.low  # latents are taken as they are
    return converted(call, found.convention, time=found.time, low=low, high=1.0).eval()


def _why(kind: str, shape: tuple[int | None, ...]) -> str:
    size = " x ".join(map(str, shape))
    return (
        f"{kind} denoises latents of {size} (channels, height, width), not images; draw samples "
        "(twinscore sample), and audit them (--samples)"
    )
