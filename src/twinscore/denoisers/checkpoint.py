"""A denoiser with what is known of its images, and the file that holds a trained one.

The file is one safetensors file that says how to rebuild its network.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from textwrap import shorten
from typing import Annotated, Any

import torch
from pydantic import BaseModel, Field, ValidationError
from safetensors import safe_open
from safetensors.torch import save as serialise
from torch import Tensor, nn

from twinscore import sealed
from twinscore.denoisers import parts
from twinscore.denoisers.base import Denoiser, check, denoise
from twinscore.denoisers.spec import NetworkSpec, build, outlined
from twinscore.denoisers.whole_pipelines import Latents, OwnSampler
from twinscore.errors import Damaged, InputError, one_line

WEIGHTS = "weights.safetensors"

Side = Annotated[int, Field(ge=1, le=2**16)]


@dataclass(frozen=True)
class Checkpoint:
    """A denoiser and what a sampler must know about its images; called, it denoises.

    Attributes
    ----------
    denoiser : Denoiser
        A network is in evaluation mode, on the CPU.
    shape : tuple of (int or None)
        (C, H, W) of its images; None where that is not known.
    mean : tuple of float
        Mean intensity of its data per channel (or one for all), image units: where reverse
        diffusion starts.
    content : str
        Names what the denoiser computes from besides its weights: a digest of the images it was
        fitted to, say. Where it is given, nothing else is looked for.
    notes : tuple of str
        What a user should know of how it was read.
    sampler : OwnSampler or None
        How the pipeline that it was read from draws samples itself.
    latents : Latents or None
        Where that pipeline denoises, if not in pixels; the denoiser then only says so.
    guidance : float or None
        Weight of its class or prompt, if not 1: the estimate is then no posterior mean.

    Raises
    ------
    ValueError
        If the shape does not have three sides, or the mean neither one number nor one per channel.
    """

    denoiser: Denoiser
    shape: tuple[int | None, int | None, int | None]
    mean: tuple[float, ...]
    content: str = ""
    notes: tuple[str, ...] = ()
    sampler: OwnSampler | None = None
    latents: Latents | None = None
    guidance: float | None = None

    def __post_init__(self) -> None:
        """Refuse a shape and a mean that do not go together."""
        if len(self.shape) != 3 or len(self.mean) not in (1, self.shape[0]):
            raise ValueError(
                "shape must be (C, H, W) and mean hold C numbers, or one; "
                f"got {self.shape} and {self.mean}"
            )

    def __call__(self, y: Tensor, sigma: float | Tensor | None = None) -> Tensor:
        """Clean estimate of ``y``, (B, C, H, W)."""
        return denoise(self.denoiser, y, sigma)

    def __repr__(self) -> str:
        return f"<{self._what}>"

    def _repr_html_(self) -> str:
        """For notebooks."""
        return f"<code>{escape(self._what)}</code>"

    @property
    def _what(self) -> str:
        of = type(self.denoiser).__name__
        size = " x ".join("?" if n is None else str(n) for n in self.shape)
        count = ""
        if isinstance(self.denoiser, nn.Module):
            count = f", {sum(p.numel() for p in self.denoiser.parameters()):,} parameters"
        return f"{of} of images {size} (channels, height, width){count}"

    def on(self, device: torch.device | str) -> Denoiser:
        """The denoiser, on a device with its networks; any other follows its images there.

        InputError if a network cannot be moved, having no weights.
        """
        for network in parts.networks(self.denoiser):
            try:
                network.to(device)
            except NotImplementedError:
                raise InputError(
                    "--model: a network lies on the device meta, without values; load its weights"
                ) from None
        return self.denoiser

    def within(self, device: torch.device | str) -> Latents:
        """Where it denoises, on a device: its latents, or the images as they are."""
        denoiser = self.on(device)
        return self.latents or Latents(denoiser, self.shape, _same, _same)


def _same(x: Tensor) -> Tensor:
    return x


def model_digest(checkpoint: Checkpoint) -> str:
    """Sha256 (hex) of a model's weights and of what else it computes from, wherever they lie."""
    return state_digest(checkpoint.denoiser, checkpoint.content)


def state_digest(function: Any, content: str) -> str:
    """Sha256 (hex) of a text and of the state of all networks that a callable reaches."""
    found = hashlib.sha256(content.encode())
    for network in parts.networks(function):
        for name, value in network.state_dict().items():
            found.update(f"{name} ".encode())
            parts.hash_values(found, value)
    return found.hexdigest()


@torch.no_grad()
def sized(checkpoint: Checkpoint, side: int | None) -> Checkpoint:
    """The same model for images of ``side`` x ``side``; None keeps the size that it knows.

    Raises
    ------
    InputError
        If the model does not know its images' channels, or their size and none is given; or if it
        cannot denoise images of that size.
    """
    channels, height, width = checkpoint.shape
    if channels is None:
        raise InputError(
            "--model: does not say how many channels its images have; give a function that returns "
            "Checkpoint(denoiser, shape, mean) (docs/models.md)"
        )
    if side is None and (height is None or width is None):
        raise InputError("--size: not given, and the model does not say how large its images are")
    if side is None or (height, width) == (side, side):
        return checkpoint
    try:
        check(checkpoint.denoiser, torch.zeros(1, channels, side, side), 1.0)
    except (ValueError, RuntimeError) as error:
        raise InputError(f"--size: {side} does not suit the model: {one_line(error)}") from None
    return replace(checkpoint, shape=(channels, side, side))


def save(
    path: Path,
    checkpoint: Checkpoint,
    network: NetworkSpec | str,
    *,
    history: Sequence[Mapping[str, float]] = (),
    key: str = "",
) -> None:
    """Write weights and description atomically to a ``.safetensors`` file with a checksum.

    ``network`` is what rebuilds the network: a spec, or the name of the user's own factory;
    ``history`` the rows of its training, ``key`` the digest of all that the weights depend on.
    InputError if the file cannot be written.
    """
    header = {
        "network": network if isinstance(network, str) else network.placed.model_dump(),
        "shape": checkpoint.shape,
        "mean": checkpoint.mean,
        "history": list(history),
    }
    state = {
        name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, value in checkpoint.denoiser.state_dict().items()
    }
    metadata = {"twinscore": json.dumps(header)}
    sealed.write(path, serialise(state, metadata), key)


def read(
    path: Path,
    network: Callable[[int], nn.Module] | None = None,
    *,
    key: str | None = None,
) -> Checkpoint:
    """Read a trained denoiser; no class is needed for the networks of this package.

    Parameters
    ----------
    path : Path
        A trial folder or its weights file.
    network : callable, optional
        For a network of the user's own: the factory that made it, ``network(channels)``.
    key : str, optional
        What the file must have been saved with.

    Returns
    -------
    Checkpoint
        With the denoiser in evaluation mode, ready for every sampler and analysis, and in the
        memory format of training, so that it computes what it computed then, bit for bit.

    Raises
    ------
    InputError
        If there is no such file, it is not a checkpoint of twinscore, its weights do not fit, or
        (``Damaged``) it is not as it was written or has another key.
    """
    file = path / WEIGHTS if path.is_dir() else path
    if not file.is_file():
        raise InputError(_not_a_model(path))
    try:
        sealed.check(file, key)
    except Damaged as error:
        reason = str(error).removeprefix(f"{file}: ")
        raise Damaged(f"{file}: not a checkpoint that twinscore wrote: {reason}") from None
    try:
        with safe_open(file, framework="pt") as content:
            header = _header(content, network)
            denoiser = _rebuild(header, content, network)
        denoiser.to(memory_format=torch.channels_last)
        code = parts.fingerprint(denoiser, partly=True) if header.own else ""
        return Checkpoint(denoiser.eval(), header.shape, header.mean, code)
    except InputError as error:
        raise InputError(f"{file}: {error}") from None
    except RuntimeError as error:
        reason = shorten(str(error), 300, placeholder=" ...")
        raise InputError(f"{file}: the weights do not fit their network: {reason}") from None
    except Exception as error:  # the readers may raise anything on damaged bytes
        first = error.errors()[0] if isinstance(error, ValidationError) else {}
        wrong = f"{'.'.join(map(str, first['loc']))}: {first['msg']}" if first else one_line(error)
        reason = shorten(wrong, 300, placeholder=" ...")
        raise InputError(f"{file}: not a checkpoint that twinscore wrote: {reason}") from error


def _not_a_model(path: Path) -> str:
    """Why a path holds no weights, and what to give instead."""
    models = "give a finished trial folder, a weights file or another model (docs/models.md)"
    if not path.is_dir():
        return f"{path}: not found; {models}"
    if (path / "trials").is_dir() or (path / "result.json").is_file():
        trained = sorted(path.glob(f"trials/*/{WEIGHTS}"))
        instead = f"give one of its models, such as {trained[0].parent}" if trained else models
        return f"{path}: a run folder, not a model; {instead}"
    return f"{path}: has no weights yet: its training is unfinished; {models}"


def recorded(file: Path) -> list[dict[str, float]]:
    """Rows of a weights file's training, without times; none in files of earlier versions."""
    return json.loads(sealed.check(file)["twinscore"]).get("history", [])


class _Header(BaseModel):
    """What a file says of its network and its images."""

    network: NetworkSpec | str
    shape: tuple[Side | None, Side | None, Side | None]
    mean: tuple[Annotated[float, Field(allow_inf_nan=False)], ...]

    @property
    def own(self) -> bool:
        """Whether the network is of the user's."""
        return isinstance(self.network, str) or self.network.root.kind == "own"


def _header(content: safe_open, own: Callable[[int], nn.Module] | None) -> _Header:
    """What the file says; the factory of the user's takes the place of a class that it names."""
    found = json.loads((content.metadata() or {})["twinscore"])
    named = isinstance(found["network"], dict) and found["network"].get("source")
    if named and own is not None:
        found["network"] = named
    try:
        return _Header.model_validate(found)
    except ValidationError as error:
        if not named:
            raise
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise InputError(
            f"the weights belong to a network of your own: {reason}; or pass network= from Python"
        ) from None


def _rebuild(header: _Header, content: safe_open, own: Callable[[int], nn.Module] | None) -> Any:
    """The network with the weights of the file; one of ours is made once they are known to fit."""
    if isinstance(header.network, str):
        if own is None:
            raise InputError(
                f"the weights belong to your own network {header.network}; pass network="
            )
        with torch.random.fork_rng(devices=[]):
            network = own(header.shape[0])
    elif header.own:
        network = build(header.network, header.shape[0], seed=0)
    else:
        described = {name: content.get_slice(name) for name in content.keys()}  # noqa: SIM118
        strange = {s.get_dtype() for s in described.values()} - {"F64", "F32", "F16", "BF16"}
        if strange:
            raise InputError(f"weights must be real numbers, got {', '.join(sorted(strange))}")
        network = outlined(header.network, header.shape[0])
        outlines = {
            name: torch.empty(s.get_shape(), device="meta") for name, s in described.items()
        }
        network.load_state_dict(outlines)  # refuses what does not fit; nothing is copied
        network.to_empty(device="cpu")
    network.load_state_dict({name: content.get_tensor(name) for name in content.keys()})  # noqa: SIM118
    return network
