"""ONNX networks, run by onnxruntime on the CPU (extra ``onnx``)."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, Field, ValidationError
from torch import Tensor, nn

from twinscore.denoisers.base import per_image
from twinscore.denoisers.checkpoint import Checkpoint, Side
from twinscore.denoisers.published import UNKNOWN_MEAN
from twinscore.errors import InputError, one_line

KNOWN = "twinscore"
"""Name of what an exported file says of its images, in metadata: shape and mean, as JSON."""

IN_TRAINING = (
    "was exported in training mode: its {} draws noise or shares statistics between the images of "
    "a batch; call network.eval() and export it again"
)
"""What is wrong with a graph that has such an operation."""

_FATAL = 4
"""Severity from which onnxruntime says something; its errors are raised anyway."""

_TYPES = {"float16": torch.float16, "float": torch.float32, "double": torch.float64}
"""Types of tensors, by what ONNX calls them."""


class OnnxNetwork(nn.Module):
    """A denoiser whose network is run by onnxruntime, which has no derivatives.

    Parameters
    ----------
    session : onnxruntime.InferenceSession
        Of a network of (y, sigma), or of y alone.
    """

    def __init__(self, session: Any) -> None:
        super().__init__()
        self.session = session
        self.names = [given.name for given in session.get_inputs()]
        self.types = [_TYPES[_kind(given.type)] for given in session.get_inputs()]
        self.training = False

    def forward(self, y: Tensor, sigma: float | Tensor | None = None) -> Tensor:
        """Clean estimate of ``y``, (B, C, H, W).

        Raises
        ------
        InputError
            Where a derivative is asked for, or the network does not take such images.
        ValueError
            Without a level, if it takes one.
        """
        if torch.is_grad_enabled() and y.requires_grad:
            raise InputError(
                "an ONNX network has no derivatives, and so no Jacobian; give the network as "
                "torch-export:FILE.pt2, or as a function of your own (docs/models.md)"
            )
        given = [y, per_image(sigma, y)][: len(self.names)]
        if given[-1] is None:
            raise ValueError("this denoiser needs the noise level; pass sigma")
        feed = {
            name: values.detach().to("cpu", kind).numpy()
            for name, values, kind in zip(self.names, given, self.types, strict=True)
        }
        try:
            out = self.session.run(None, feed)[0]
        except Exception as error:  # of a class of its own for each fault
            raise InputError(
                f"the ONNX network fails on images {tuple(y.shape)}: {one_line(error)}"
            ) from None
        return torch.from_numpy(out).to(y)


def opened(file: Path) -> tuple[Any, str]:
    """Open a network: onnxruntime's session, on as many threads as torch has; its file's digest.

    Raises
    ------
    InputError
        If onnxruntime is not installed, or the file cannot be read or is not a whole network.
    """
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise InputError(
            f"{file} needs {error.name}, which is not installed; pip install 'twinscore[onnx]'"
        ) from None
    try:
        content = file.read_bytes()
        options = onnxruntime.SessionOptions()
        options.log_severity_level = _FATAL
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(content, options)
    except OSError as error:
        raise InputError(f"{file}: {error.strerror or error}") from None
    except Exception as error:  # of a class of its own for each fault
        raise InputError(f"{file} is not an ONNX network: {one_line(error)}") from None
    if name := _training(onnx.load_from_string(content).graph, onnx.numpy_helper.to_array):
        raise InputError(f"{file}: {IN_TRAINING.format(name)}")
    return session, hashlib.sha256(content).hexdigest()


def _training(graph: Any, value: Callable[[Any], Any]) -> str | None:
    """The first operation of a graph that trains; None without any. ``value`` of a tensor."""
    fixed = {one.name: value(one) for one in graph.initializer if not one.dims}
    for node in graph.node:
        given = {one.name: one for one in node.attribute}
        if node.op_type == "Constant" and "value" in given:
            fixed[node.output[0]] = value(given["value"].t)
        batch = node.op_type == "BatchNormalization" and "training_mode" in given
        if batch and given["training_mode"].i:
            return node.op_type
        if node.op_type == "Dropout" and any(fixed.get(name, False) for name in node.input[2:]):
            return node.op_type
    return None


def read(body: str) -> Checkpoint:
    """Open the denoiser of a file: (y, sigma) to its clean estimate, or y alone if it is blind.

    Its weights lie in the file itself. ``UNKNOWN_MEAN`` stands for the images' mean.

    Raises
    ------
    InputError
        As :func:`opened`, or if the network has other inputs or outputs, or a fixed batch.
    """
    session, content = opened(Path(body))
    given, out = session.get_inputs(), session.get_outputs()
    shapes = [list(one.shape) for one in given]
    if [len(shape) for shape in shapes] not in ([4], [4, 1]) or len(out) != 1:
        shown = ", ".join(f"{one.name} {one.shape}" for one in given)
        raise InputError(
            f"{body}: takes {shown} and gives {len(out)} outputs; give a network of y (B, C, H, W) "
            "and sigma (B,), or of y alone, with one output"
        )
    strange = [one.type for one in given if _kind(one.type) not in _TYPES]
    if strange:
        raise InputError(f"{body}: takes {strange[0]}; give a network of floating-point tensors")
    require_free_batch(body, [shape[0] for shape in shapes])
    stated = session.get_modelmeta().custom_metadata_map.get(KNOWN, "")
    return Checkpoint(OnnxNetwork(session), *images_of(body, shapes[0], stated), content)


def require_free_batch(body: str, sizes: list[Any]) -> None:
    """Refuse a network that takes so many images at a time and no others; InputError."""
    fixed = [size for size in sizes if isinstance(size, int)]
    if fixed:
        raise InputError(
            f"{body}: takes batches of {fixed[0]} alone; export it with a dynamic first axis"
        )


class _Stated(BaseModel):
    """What the file of an exported denoiser says of its images."""

    shape: tuple[Side | None, Side | None, Side | None]
    mean: tuple[Annotated[float, Field(allow_inf_nan=False)], ...]


def images_of(
    body: str, taken: Sequence[Any], stated: str
) -> tuple[tuple[int | None, ...], tuple[float, ...]]:
    """Shape (C, H, W) and mean of a network's images: what the graph takes, then what it states.

    Raises
    ------
    InputError
        If the file states something that cannot be, or that its graph does not take.
    """
    graph = tuple(side if isinstance(side, int) else None for side in taken[1:])
    if not stated:
        return graph, (UNKNOWN_MEAN,)
    try:
        known = _Stated.model_validate_json(stated)
    except ValidationError as error:
        raise InputError(f"{body}: does not say what its images are: {one_line(error)}") from None
    pairs = list(zip(graph, known.shape, strict=True))
    if any(None not in pair and pair[0] != pair[1] for pair in pairs):
        raise InputError(f"{body}: says that its images are {known.shape}, and takes {graph}")
    if len(known.mean) not in (1, known.shape[0]):
        raise InputError(f"{body}: says that the mean of its images is {known.mean}; give one")
    return tuple(a if b is None else b for a, b in pairs), known.mean


def _kind(tensor: str) -> str:
    """Of ``tensor(float)``, *float*."""
    return tensor.removeprefix("tensor(").removesuffix(")")
