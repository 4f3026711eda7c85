"""Folders that the library diffusers writes: a pipeline, or a network with its scheduler.

The scheduler says by which convention the network was trained; its sampler, and what that does to
its samples (clipping, thresholding, a shift of its times), are no part of the denoiser.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from twinscore.denoisers.adapters import (
    Convention,
    converted,
    edm,
    flow_time,
    tabulated,
)
from twinscore.denoisers.checkpoint import Checkpoint
from twinscore.denoisers.published import UNKNOWN_MEAN
from twinscore.errors import InputError, one_line
from twinscore.runs import digest

NETWORKS = ("UNet2DModel",)
_KNOWN = f"known are pipelines of {', '.join(NETWORKS)} in pixels"
_PARTS = ("unet", "transformer")
_WEIGHTS = "diffusion_pytorch_model"
"""How the names of files with weights begin."""
_AVERAGED = "_ema"
"""How the name of a folder with averaged weights ends."""

Config = dict[str, Any]


@dataclass(frozen=True)
class Wired:
    """What a scheduler says of the network: convention, times (None: its own), lowest intensity."""

    convention: str | Convention
    time: Callable[[Tensor], Tensor] | None
    low: float


def read(body: str) -> Checkpoint:
    """Open ``PATH``, or ``PATH,class=K`` for a network of classes.

    Weights are read from safetensors alone, as float32, averaged ones (``unet_ema``) first; no code
    of the folder's is run, and nothing is fetched. ``UNKNOWN_MEAN`` stands for the images' mean.

    Raises
    ------
    InputError
        If diffusers is not installed, the folder is not complete, its network or scheduler is none
        of those known, its weights do not fit or are not finite, or a class is missing or too many.
    """
    path, _, label = body.partition(",class=")
    try:
        return _checkpoint(Path(path), label)
    except InputError as error:
        raise InputError(f"diffusers:{body}: {error}") from None


def _checkpoint(path: Path, label: str) -> Checkpoint:
    if not path.is_dir():
        raise InputError("is not a folder; give one that save_pretrained wrote")
    folder, scheduler = _found(path)
    network, about = _json(folder / "config.json"), _json(scheduler / "scheduler_config.json")
    shape = _shape(network)
    number = _class(network, label)
    wired = _wired(about)
    if network.get("time_embedding_type") == "fourier" and wired.convention != "score":
        raise InputError(
            f"a network with Fourier features of the noise level does not go with "
            f"{about['_class_name']}, whose times may be 0; it takes ScoreSdeVeScheduler"
        )
    denoiser = converted(
        _called(_loaded(folder, network["_class_name"]), shape[0], number),
        wired.convention,
        time=wired.time,
        low=wired.low,
        high=1.0,
    )
    known = [_essential(network), _essential(about), number]
    averaged = (f"averaged weights, of {folder.name}",) if folder.name.endswith(_AVERAGED) else ()
    return Checkpoint(
        denoiser.eval(), shape, (UNKNOWN_MEAN,), f"diffusers {digest(known)}", averaged
    )


def _found(path: Path) -> tuple[Path, Path]:
    """Folders of the network and of the scheduler."""
    if (path / "model_index.json").is_file():
        index = _json(path / "model_index.json")
        kind = index.get("_class_name")
        parts = {name for name, part in index.items() if isinstance(part, list) and any(part)}
        for name, what in (("vae", "latents"), ("vqvae", "latents"), ("text_encoder", "a prompt")):
            if name in parts:
                raise InputError(f"{kind} works with {what} ({name}); {_KNOWN}")
        own = [name for name in _PARTS if name in parts]
        if not own:
            raise InputError(f"{kind} has no part {' or '.join(_PARTS)}; {_KNOWN}")
        folder, scheduler = path / own[0], path / "scheduler"
    else:
        folder = path
        beside = (path / "scheduler", path.parent / "scheduler", path)
        scheduler = next((f for f in beside if (f / "scheduler_config.json").is_file()), path)
    averaged = folder.with_name(folder.name + _AVERAGED)
    if not folder.name.endswith(_AVERAGED) and (averaged / "config.json").is_file():
        folder = averaged
    if not (folder / "config.json").is_file():
        raise InputError(f"has no network: {folder / 'config.json'} is missing")
    if not (scheduler / "scheduler_config.json").is_file():
        raise InputError(
            "has no scheduler, which says how the network was trained; put its "
            f"scheduler_config.json into {path / 'scheduler'}"
        )
    return folder, scheduler


def _json(file: Path) -> Config:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{file.name} cannot be read: {one_line(error)}") from None
    if not isinstance(found, dict):
        raise InputError(f"{file.name} is not a JSON object")
    return found


def _essential(config: Config) -> Config:
    """A configuration without what names places and versions."""
    return {name: value for name, value in config.items() if not name.startswith("_diff")} | {
        "_name_or_path": None
    }


def _shape(network: Config) -> tuple[int, int | None, int | None]:
    """(C, H, W) of the images."""
    kind = network.get("_class_name")
    if kind not in NETWORKS:
        raise InputError(f"{kind} is not a network that is known; known are {', '.join(NETWORKS)}")
    channels, returned = network.get("in_channels", 3), network.get("out_channels", 3)
    if returned not in (channels, 2 * channels):
        raise InputError(
            f"its network takes {channels} channels and returns {returned}; known are as many, or "
            "twice as many with a learned variance"
        )
    side = network.get("sample_size")
    height, width = side if isinstance(side, list | tuple) else (side, side)
    return channels, height, width


def _class(network: Config, label: str) -> int | None:
    """The class to draw, where the network knows classes."""
    count, kind = network.get("num_class_embeds"), network.get("class_embed_type")
    if kind not in (None, "timestep"):
        raise InputError(f"classes as {kind!r} are not known; known are those with numbers")
    if count is None and kind is None:
        if label:
            raise InputError(f"its network knows no classes; leave out class={label}")
        return None
    most = "a number" if count is None else f"0 to {count - 1}"
    if not label.isdecimal() or (count is not None and int(label) >= count):
        given = f"class={label!r} is none of them" if label else "none is given"
        raise InputError(f"its network knows classes, and {given}; add ,class=K, {most}")
    return int(label)


def _loaded(folder: Path, kind: str) -> nn.Module:
    """The network in float32, every weight from the file."""
    import diffusers
    from diffusers.models.attention_processor import AttnProcessor

    files = {file.name.removeprefix(_WEIGHTS) for file in folder.glob(f"{_WEIGHTS}*")}
    whole = {name for name in files if name.endswith(".safetensors") and ".fp16" not in name}
    halved = {name for name in files if name.endswith(".safetensors")} - whole
    if not whole | halved:
        raise InputError(f"{folder.name} has no weights in safetensors; save them so")
    own = {} if whole else {"variant": "fp16"}
    try:
        with torch.random.fork_rng(devices=[]), _quietly(diffusers):
            network, said = getattr(diffusers, kind).from_pretrained(
                folder,
                use_safetensors=True,
                local_files_only=True,
                low_cpu_mem_usage=False,
                torch_dtype=torch.float32,
                output_loading_info=True,
                **own,
            )
    except Exception as error:  # of a library that reads what may be damaged
        raise InputError(f"{folder.name} cannot be loaded: {one_line(error)}") from None
    lost = [*said["missing_keys"], *said["unexpected_keys"], *said["mismatched_keys"]]
    if lost:
        raise InputError(f"the weights do not fit the network: {lost[0]}")
    if not all(torch.isfinite(value).all() for value in network.state_dict().values()):
        raise InputError("its weights hold NaN or infinity; were they saved in half precision?")
    for part in network.modules():
        if hasattr(part, "set_processor"):  # the fused attention has no derivative of derivatives
            part.set_processor(AttnProcessor())
    return network


@contextmanager
def _quietly(diffusers: Any) -> Iterator[None]:
    """Leave out what diffusers says of its own installation while it loads."""
    level = diffusers.logging.get_verbosity()
    diffusers.logging.set_verbosity(diffusers.logging.CRITICAL)
    try:
        yield
    finally:
        diffusers.logging.set_verbosity(level)


def _called(
    network: nn.Module, channels: int, number: int | None
) -> Callable[[Tensor, Tensor], Tensor]:
    """The network as conventions call it; of a learned variance, the mean alone."""

    def call(x: Tensor, t: Tensor) -> Tensor:
        labels = None if number is None else torch.full_like(t, number, dtype=torch.long)
        return network(x, t, class_labels=labels, return_dict=False)[0][:, :channels]

    return call


def _table(scheduler: Any) -> Callable[[Tensor], Tensor]:
    """Times of a scheduler's own noise levels, ``sqrt((1 - abar) / abar)``."""
    kept = scheduler.alphas_cumprod.double()
    return tabulated(torch.sqrt((1 - kept) / kept), range(len(kept)))


def _preserving(scheduler: Any, config: Config) -> Wired:
    names = {"epsilon": "epsilon", "sample": "sample", "v_prediction": "velocity"}
    kind = config.get("prediction_type", "epsilon")
    if kind not in names:
        raise InputError(f"prediction_type {kind!r} is not known; known are {', '.join(names)}")
    if kind == "epsilon" and config.get("rescale_betas_zero_snr"):
        raise InputError(
            "prediction_type epsilon with rescale_betas_zero_snr: at the last time the image is "
            "noise alone, and predicting it says nothing of a clean one; it takes v_prediction"
        )
    return Wired(names[kind], _table(scheduler), -1.0)


def _edm(scheduler: Any, config: Config) -> Wired:
    signs = {"epsilon": 1.0, "v_prediction": -1.0}
    kind = config.get("prediction_type", "epsilon")
    if kind not in signs:
        raise InputError(f"prediction_type {kind!r} is not known; known are {', '.join(signs)}")
    return Wired(edm(config.get("sigma_data", 0.5), signs[kind]), None, -1.0)


def _exploding(scheduler: Any, config: Config) -> Wired:
    return Wired("score", None, 0.0)


def _flow(scheduler: Any, config: Config) -> Wired:
    return Wired("flow", flow_time(config.get("num_train_timesteps", 1000)), -1.0)


SCHEDULERS: dict[str, Callable[[Any, Config], Wired]] = {
    "DDPMScheduler": _preserving,
    "DDIMScheduler": _preserving,
    "EDMEulerScheduler": _edm,
    "ScoreSdeVeScheduler": _exploding,
    "FlowMatchEulerDiscreteScheduler": _flow,
}


def _wired(config: Config) -> Wired:
    """What a scheduler's configuration says of the network."""
    name = config.get("_class_name")
    if name not in SCHEDULERS:
        raise InputError(
            f"{name} is not a scheduler that is known; known are {', '.join(SCHEDULERS)}"
        )
    try:
        import diffusers
    except ImportError:
        raise InputError(
            "needs the package diffusers: pip install 'twinscore[diffusers]'"
        ) from None
    try:
        with _quietly(diffusers):
            scheduler = getattr(diffusers, name).from_config(config)
    except Exception as error:
        raise InputError(f"its scheduler cannot be made: {one_line(error)}") from None
    return SCHEDULERS[name](scheduler, config)
