"""Write a denoiser with its code, for programs that know nothing of this package.

``torch.export`` and ONNX files, and folders that the library diffusers samples from; each is read
back, and its estimates compared, before it is given.
"""

import io
import json
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from twinscore.denoisers import exported, onnx, parts
from twinscore.denoisers.base import per_image
from twinscore.denoisers.checkpoint import Checkpoint
from twinscore.denoisers.exported import without_log
from twinscore.denoisers.layers import generator_of
from twinscore.errors import InputError, one_line
from twinscore.images.quiet import quiet

TOLERANCE = 1e-5
"""Largest difference of the estimates read back, times ``max(1, sigma)``: float32 sums in another
order."""
PROGRAM = Path("denoiser", "denoiser.pt2")
"""The denoiser in a folder for diffusers."""

_SIGMAS = (0.05, 1.0, 10.0)
_ODD = (13, 11)
"""Sides that no network divides, so that what is traced holds where it must pad."""
_USUAL = 32


class _Whole(nn.Module):
    """A denoiser with every network that it reaches, called with a noise level for each image."""

    def __init__(self, denoiser: Callable[..., Tensor]) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.inside = nn.ModuleList(n for n in parts.networks(denoiser) if n is not denoiser)
        self.eval()

    def forward(self, y: Tensor, sigma: Tensor) -> Tensor:
        """Clean estimate of ``y``, (B, C, H, W)."""
        return self.denoiser(y, sigma)


@dataclass(frozen=True)
class Traced:
    """A graph of a denoiser, for batches of any size.

    Attributes
    ----------
    program : torch.export.ExportedProgram
        Of (y, sigma), float32.
    sizes : sequence of (int, int)
        Sizes of images on which it is compared.
    free : bool
        Whether it takes images of any size that the network takes; else of the one.
    """

    program: torch.export.ExportedProgram
    sizes: Sequence[tuple[int, int]]
    free: bool


def traced(model: Checkpoint) -> Traced:
    """Trace a denoiser: for images of every size if it can be, else of its own.

    Raises
    ------
    InputError
        If its channels are not known, or it computes what no graph can hold.
    """
    channels, height, width = model.shape
    if channels is None:
        raise InputError(
            "--model: does not say how many channels its images have; give a function that returns "
            "Checkpoint(denoiser, shape, mean) (docs/models.md)"
        )
    own = (height or _USUAL, width or _USUAL)
    attempts = (
        (_ODD, True, (_ODD, (16, 17), own)),
        (own, True, (own,)),
        (own, False, (own,)),
    )
    reason = ""
    for size, free, sizes in attempts:
        try:
            program = _graph(model, size, free)
            _compare(model, program.module(), sizes)
            return Traced(program, sizes, free)
        except Exception as error:  # of whatever kind: the next is tried
            reason = _cause(error)
    raise InputError(f"--model: cannot be exported as a graph: {reason}")


def _graph(model: Checkpoint, size: tuple[int, int], free: bool) -> torch.export.ExportedProgram:
    any_size, generator = torch.export.Dim.DYNAMIC, generator_of(0)
    sides = {2: any_size, 3: any_size} if free else {}
    y = torch.rand(2, model.shape[0], *size, generator=generator)
    said = io.StringIO()  # a graph that failed, printed
    with quiet(), without_log(), redirect_stdout(said), redirect_stderr(said), torch.no_grad():
        return torch.export.export(
            _Whole(model.denoiser),
            (y, torch.tensor([0.1, 0.5])),
            dynamic_shapes=({0: any_size} | sides, {0: any_size}),
            strict=False,
        )


@torch.no_grad()
def _compare(
    model: Checkpoint, again: Callable[..., Tensor], sizes: Sequence[tuple[int, int]]
) -> None:
    """InputError unless both give the same estimates; whatever they raise is passed on."""
    for batch, size, sigma in ((b, s, n) for b in (1, 3) for s in sizes for n in _SIGMAS):
        y = torch.rand(batch, model.shape[0], *size, generator=generator_of(batch))
        level = per_image(sigma, y)
        off = (again(y, level) - model.denoiser(y, level)).abs().max().item()
        if not off <= TOLERANCE * max(1, sigma):
            raise InputError(
                f"--model: gives other estimates as a graph, by {off:.2g} at sigma {sigma:g}"
            )


def _cause(error: BaseException) -> str:
    """What the innermost of the exceptions that led to one says."""
    while error.__cause__ is not None:
        error = error.__cause__
    return one_line(error).removeprefix("--model: ").partition(". ")[0][:200]


def _known(model: Checkpoint) -> str:
    return json.dumps({"shape": model.shape, "mean": model.mean})


def write_program(path: Path, model: Checkpoint, graph: Traced) -> None:
    """Write a file of ``torch.export.save``; InputError if what it holds is another denoiser."""
    with quiet():
        torch.export.save(graph.program, path, extra_files={onnx.KNOWN: _known(model)})
    _compare(model, exported.read_program(str(path)).denoiser, graph.sizes)


def write_onnx(path: Path, model: Checkpoint, graph: Traced) -> None:
    """Write an ONNX file with its weights inside.

    Raises
    ------
    InputError
        If packages are missing, ONNX lacks one of its operations, or what is read back is another
        denoiser.
    """
    try:
        import onnxscript  # noqa: F401
    except ImportError:
        raise InputError(
            "--format: onnx needs onnxscript, which is not installed; pip install 'twinscore[onnx]'"
        ) from None
    names = {"input_names": ["y", "sigma"], "output_names": ["x_hat"]}
    try:
        with quiet(), without_log():
            made = torch.onnx.export(
                graph.program, (), dynamo=True, verbose=False, external_data=False, **names
            )
            made.model.metadata_props[onnx.KNOWN] = _known(model)
            made.save(path, external_data=False)
    except Exception as error:
        raise InputError(f"--model: cannot be written as ONNX: {_cause(error)}") from None
    _compare(model, onnx.read(str(path)).denoiser, graph.sizes)


def write_pipeline(folder: Path, model: Checkpoint, graph: Traced, sigma_max: float) -> None:
    """Write a folder from which diffusers draws samples with code of its own, and draw one.

    It holds the denoiser as :func:`write_program` writes it, and a pipeline for
    ``EDMEulerScheduler``, which begins at ``sigma_max``, image units. diffusers runs code of a
    folder only where it is told to (``trust_remote_code``).

    Raises
    ------
    InputError
        If diffusers is not installed, or what it loads is another denoiser or draws no image.
    """
    try:
        import diffusers
    except ImportError:
        raise InputError(
            "--format: diffusers needs the package; pip install 'twinscore[diffusers]'"
        ) from None
    (folder / "denoiser").mkdir(parents=True)
    (folder / "scheduler").mkdir()
    write_program(folder / PROGRAM, model, graph)
    _copy("pipeline.py", folder)
    _copy("exported_denoiser.py", folder / "denoiser")
    version = {"_diffusers_version": diffusers.__version__}
    config = {"_class_name": "ExportedDenoiser", "shape": model.shape, "mean": model.mean}
    _write(folder / "denoiser" / "config.json", config | version)
    parts_of_it = {
        "_class_name": ["pipeline", "ExportedDenoiserPipeline"],
        "denoiser": ["exported_denoiser", "ExportedDenoiser"],
        "scheduler": ["diffusers", "EDMEulerScheduler"],
    }
    _write(folder / "model_index.json", parts_of_it | version)
    scheduler = diffusers.EDMEulerScheduler(sigma_min=0.004, sigma_max=2 * sigma_max)
    scheduler.save_pretrained(folder / "scheduler")
    _try(folder, model, graph)


def _copy(name: str, folder: Path) -> None:
    source = resources.files("twinscore") / "denoisers" / "for_diffusers" / name
    (folder / name).write_bytes(source.read_bytes())


def _write(file: Path, content: dict[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _try(folder: Path, model: Checkpoint, graph: Traced) -> None:
    """Load the folder as its user will, and draw one sample."""
    import diffusers

    height, width = graph.sizes[0]
    diffusers.utils.logging.disable_progress_bar()
    try:
        with quiet(), without_log():
            pipeline = diffusers.DiffusionPipeline.from_pretrained(
                folder, custom_pipeline=str(folder), trust_remote_code=True, local_files_only=True
            )
            pipeline.set_progress_bar_config(disable=True)
            _compare(model, pipeline.denoiser, graph.sizes)
            own = {"generator": generator_of(0), "height": height, "width": width}
            drawn = pipeline(num_inference_steps=2, output_type="np", **own).images
    except Exception as error:
        raise InputError(f"--format: diffusers does not load it: {_cause(error)}") from None
    finally:
        diffusers.utils.logging.enable_progress_bar()
    if not (drawn.shape[1:3] == (height, width) and np.isfinite(drawn).all()):
        raise InputError("--format: diffusers draws no image from it")
