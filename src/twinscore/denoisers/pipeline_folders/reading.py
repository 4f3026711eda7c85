"""Files of a folder that diffusers wrote: configurations, and networks from their weights."""

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from twinscore.errors import InputError, one_line

Config = dict[str, Any]

_WEIGHTS = "diffusion_pytorch_model"
"""How the names of files with weights begin."""


def read_json(file: Path) -> Config:
    """A configuration; InputError if it is none."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{file.name} cannot be read: {one_line(error)}") from None
    if not isinstance(found, dict):
        raise InputError(f"{file.name} is not a JSON object")
    return found


def essential(config: Config) -> Config:
    """A configuration without what names places and versions, fit for JSON."""
    kept = {n: value for n, value in config.items() if n == "_class_name" or n[0] != "_"}
    endless = {n: str(value) for n, value in kept.items() if value in (math.inf, -math.inf)}
    return kept | endless


def diffusers_of() -> Any:
    """The library; InputError where it is not installed."""
    try:
        import diffusers
    except ImportError:
        raise InputError(
            "needs the package diffusers: pip install 'twinscore[diffusers]'"
        ) from None
    return diffusers


@contextmanager
def quietly(*logs: Any) -> Iterator[None]:
    """Leave out what libraries say of their installation and progress while they load.

    ``logs`` are the modules ``logging`` of diffusers and transformers.
    """
    levels = [(log, log.get_verbosity(), log.is_progress_bar_enabled()) for log in logs]
    for log in logs:
        log.set_verbosity(log.CRITICAL)
        log.disable_progress_bar()
    try:
        yield
    finally:
        for log, level, shown in levels:
            log.set_verbosity(level)
            if shown:
                log.enable_progress_bar()


def loaded(folder: Path, kind: str) -> nn.Module:
    """The network of a class in float32, in evaluation mode, every weight from its file.

    Raises
    ------
    InputError
        If there are no weights in safetensors, or they do not fit or are not finite.
    """
    diffusers = diffusers_of()
    from diffusers.models.attention_processor import AttnProcessor

    files = {file.name.removeprefix(_WEIGHTS) for file in folder.glob(f"{_WEIGHTS}*")}
    whole = {name for name in files if name.endswith(".safetensors") and ".fp16" not in name}
    halved = {name for name in files if name.endswith(".safetensors")} - whole
    if not whole | halved:
        raise InputError(f"{folder.name} has no weights in safetensors; save them so")
    own = {} if whole else {"variant": "fp16"}
    try:
        with torch.random.fork_rng(devices=[]), quietly(diffusers.logging):
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
    require_finite(network, folder.name)
    for part in network.modules():
        if hasattr(part, "set_processor"):  # the fused attention has no derivative of derivatives
            part.set_processor(AttnProcessor())
    return network.eval()


def require_finite(network: nn.Module, name: str) -> None:
    """Refuse weights that are not numbers; InputError."""
    if not all(torch.isfinite(value).all() for value in network.state_dict().values()):
        raise InputError(
            f"the weights of {name} hold NaN or infinity; were they saved in half precision?"
        )
