"""Networks that torch has written with their code: ``torch.export`` and TorchScript files."""

import hashlib
import logging
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from twinscore.denoisers.base import per_image
from twinscore.denoisers.checkpoint import Checkpoint
from twinscore.denoisers.onnx import IN_TRAINING, KNOWN, images_of, require_free_batch
from twinscore.denoisers.published import UNKNOWN_MEAN
from twinscore.errors import InputError, one_line
from twinscore.images.quiet import quiet
from twinscore.runs import write_atomic

_UNKNOWN = (None, None, None), (UNKNOWN_MEAN,)


class Exported(nn.Module):
    """A denoiser whose network is a graph, in the mode in which it was exported.

    Parameters
    ----------
    network : nn.Module
        Of (y, sigma), or of y alone.
    arguments : int
        How many it takes.
    blind : bool
        Whether its second argument is None.
    """

    def __init__(self, network: nn.Module, arguments: int, *, blind: bool = False) -> None:
        super().__init__()
        self.network, self.arguments, self.blind = network, arguments, blind
        for part in self.modules():
            part.training = False

    def train(self, mode: bool = True) -> "Exported":
        """Nothing: a graph has no modes."""
        return self

    def forward(self, y: Tensor, sigma: float | Tensor | None = None) -> Tensor:
        """Clean estimate of ``y``, (B, C, H, W).

        Raises
        ------
        ValueError
            Without a level, if it takes one, or for images that it does not take.
        """
        try:
            return self._called(y, sigma)
        except AssertionError as error:  # a guard of the graph
            shape = tuple(y.shape)
            raise ValueError(f"it does not take images {shape}: {one_line(error)}") from None

    def _called(self, y: Tensor, sigma: float | Tensor | None) -> Tensor:
        if self.arguments == 1:
            return self.network(y)
        if self.blind:
            return self.network(y, None)
        level = per_image(sigma, y)
        if level is None:
            raise ValueError("this denoiser needs the noise level; pass sigma")
        return self.network(y, level)


def read_program(body: str) -> Checkpoint:
    """Open the denoiser of a ``.pt2`` file that ``torch.export.save`` wrote.

    It maps (y, sigma) to the clean estimate, or y alone. ``UNKNOWN_MEAN`` stands for the images'
    mean.

    Raises
    ------
    InputError
        If the file cannot be read, or holds no such network, or one of a fixed batch.
    """
    file, content = _read(body)
    stated = {KNOWN: ""}
    try:
        with zipfile.ZipFile(file) as archive:
            if not any(name.endswith("archive_format") for name in archive.namelist()):
                raise ValueError("it has no archive_format")
        with quiet(), without_log(), file.open("rb") as stream:
            program = torch.export.load(stream, extra_files=stated)
        network = program.module()
    except Exception as error:  # the readers may raise anything on damaged bytes
        raise InputError(f"{body}: is not a file of torch.export.save: {one_line(error)}") from None
    graphs = (m.graph for m in program.graph_module.modules() if hasattr(m, "graph"))
    calls = (n for graph in graphs for n in graph.nodes if n.op == "call_function")
    _require_evaluation(body, map(_set_in_program, calls))
    given = program.graph_signature.user_inputs
    shapes = [_shape_of(program, name) for name in given]
    blind = len(given) == 2 and given[1] is None
    dimensions = [None if shape is None else len(shape) for shape in shapes]
    if dimensions not in ([4], [4, 1], [4, None]) or (dimensions[-1] is None and not blind):
        raise InputError(f"{body}: takes {_shown(given, shapes)}; {_WANTED}")
    require_free_batch(body, [shape[0] for shape in shapes if shape])
    denoiser = Exported(network, len(given), blind=blind)
    return Checkpoint(denoiser, *images_of(body, shapes[0], stated[KNOWN]), content)


def write_program(network: nn.Module, given: tuple, shapes: tuple, file: Path) -> None:
    """Write a network as a ``.pt2`` file, which holds its code and no pickle of it.

    ``given`` are inputs, ``shapes`` which of their sides are free; raises whatever torch does for
    a network that it cannot export.
    """
    with quiet(), without_log(), torch.no_grad():
        program = torch.export.export(network.eval(), given, dynamic_shapes=shapes)
        write_atomic(file, lambda path: _saved(program, path))


def _saved(program: torch.export.ExportedProgram, path: Path) -> None:
    with path.open("wb") as stream:
        torch.export.save(program, stream)


def read_script(body: str) -> Checkpoint:
    """Open the denoiser of a TorchScript file, scripted or traced, that ``torch.jit.save`` wrote.

    It maps (y, sigma) to the clean estimate, or y alone. Nothing is known of its images.

    Raises
    ------
    InputError
        If the file cannot be read, or holds no such network.
    """
    file, content = _read(body)
    try:
        with quiet():
            network = torch.jit.load(file, map_location="cpu").eval()
        arguments = network.forward.schema.arguments[1:]
    except Exception as error:  # the readers may raise anything on damaged bytes
        raise InputError(
            f"{body}: is not a TorchScript file with a forward method: {one_line(error)}"
        ) from None
    _require_evaluation(body, map(_set_in_script, _nodes_of(network.inlined_graph)))
    needed = [one for one in arguments if not one.has_default_value()]
    if not arguments or len(needed) > 2:
        raise InputError(f"{body}: takes {', '.join(one.name for one in arguments)}; {_WANTED}")
    return Checkpoint(Exported(network, min(2, len(arguments))), *_UNKNOWN, content)


_WANTED = "give a network of y (B, C, H, W) and sigma (B,), or of y alone"


_MODES = ("train", "training")
"""How operations call the argument that says whether they train."""


def _require_evaluation(body: str, calls: Iterable[tuple[str, dict[str, Any]]]) -> None:
    """Refuse an operation, of a name and arguments that are set in the graph, that trains."""
    for name, arguments in calls:
        if any(arguments.get(mode) is True for mode in _MODES):
            raise InputError(f"{body}: {IN_TRAINING.format(name)}")


def _set_in_program(node: Any) -> tuple[str, dict[str, Any]]:
    schema = getattr(node.target, "_schema", None)
    names = [argument.name for argument in schema.arguments] if schema else []
    return str(node.target), dict(zip(names, node.args, strict=False)) | node.kwargs


def _set_in_script(node: Any) -> tuple[str, dict[str, Any]]:
    if not node.kind().startswith("aten::"):
        return node.kind(), {}
    names = [argument.name for argument in torch._C.parse_schema(node.schema()).arguments]
    values = (value.toIValue() for value in node.inputs())
    return node.kind(), dict(zip(names, values, strict=False))


def _nodes_of(block: Any) -> Iterator[Any]:
    """The nodes of a TorchScript graph, and of the blocks inside it."""
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from _nodes_of(inner)


def _read(body: str) -> tuple[Path, str]:
    """A file, and the digest of its bytes."""
    file = Path(body)
    try:
        return file, hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"{body}: cannot be read: {error.strerror or error}") from None


def _shape_of(program: torch.export.ExportedProgram, name: Any) -> list[Any] | None:
    """Of an input of a program, sides that are free as something else than an int; None if none."""
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    found = values.get(name) if isinstance(name, str) else None
    return list(found.shape) if isinstance(found, Tensor) else None


def _shown(given: Any, shapes: list[list[Any] | None]) -> str:
    pairs = zip(given, shapes, strict=True)
    return ", ".join(f"{name} {shape or ''}".strip() for name, shape in pairs)


@contextmanager
def without_log() -> Iterator[None]:
    """Nothing is logged meanwhile: torch logs, with a traceback, what it raises as well."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)
