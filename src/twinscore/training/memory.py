"""Memory of trainings and of what is measured on networks, before anything is trained."""

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from twinscore.denoisers.spec import NetworkSpec, build, outlined
from twinscore.environment import on_cpu
from twinscore.errors import InputError, one_line

_MOMENTS = 2  # of Adam
_FEW = 2  # images on which a network is computed that cannot be traced
PROCESS = 400 * 10**6
"""Bytes of a Python process in which torch is loaded, about."""
_STEP = 8  # of the image sizes that are proposed, beginning at twice that
_JACOBIAN_FORMED = 4
"""Bytes of each entry of a Jacobian on the device that forms it, float32."""
_JACOBIAN_DECOMPOSED = 44
"""Bytes of each entry on the host: a copy, its symmetric part in float64, what eigh needs."""


@dataclass(frozen=True)
class Cost:
    """Memory of one training and of what is measured on it afterwards, bytes.

    Attributes
    ----------
    weights : int
        Weights, gradients and the optimiser's moments, of any image size.
    activations : int
        What one step keeps for its gradient.
    images : int
        Training images that are held in memory while they are read.
    entries : int
        Entries (not bytes) of the Jacobians that are formed whole at a time.
    """

    weights: int
    activations: int
    images: int
    entries: int = 0

    @property
    def parameters(self) -> int:
        """The weights alone."""
        return self.weights // (2 + _MOMENTS)

    @property
    def total(self) -> int:
        """Of training or of measuring, whichever takes more."""
        jacobian = (_JACOBIAN_FORMED + _JACOBIAN_DECOMPOSED) * self.entries
        return max(self.weights + self.activations + self.images, jacobian)


def cost(
    network: NetworkSpec,
    batch: int,
    shape: tuple[int, int, int],
    *,
    held: int = 0,
    jacobians: int = 0,
) -> Cost:
    """Count the memory of one training, without allocating it.

    Parameters
    ----------
    network : NetworkSpec
        The network; one forward pass is traced on torch's *meta* device. A class of the user's own
        that cannot be traced is computed on a few images.
    batch : int
        Images of a step.
    shape : tuple of int
        (C, H, W).
    held : int
        Training images kept in memory, float32; twice that while they are gathered.
    jacobians : int
        Jacobians that are formed whole at a time once a network is trained.

    Returns
    -------
    Cost
        Activations are the tensors that the gradient needs, each once, and as much again as the
        largest for what comes and goes.

    Raises
    ------
    InputError
        If a class of the user's own does not map such images to images of their shape, or has
        nothing to train.
    """
    step = _of_own if network.root.kind == "own" else _traced
    module, sizes = step(network, batch, shape)
    parameters = sum(p.numel() * p.element_size() for p in module.parameters())
    d = math.prod(shape)
    return Cost(
        weights=(2 + _MOMENTS) * parameters,
        activations=sum(sizes) + max(sizes, default=0),
        images=2 * held * 4 * d,
        entries=jacobians * d**2,
    )


def _traced(
    network: NetworkSpec, batch: int, shape: tuple[int, int, int]
) -> tuple[nn.Module, list[int]]:
    module = outlined(network, shape[0]).train()
    return module, _kept(module, torch.empty(batch, *shape, device="meta"))


def _of_own(
    network: NetworkSpec, batch: int, shape: tuple[int, int, int]
) -> tuple[nn.Module, list[int]]:
    try:
        return _traced(network, batch, shape)
    except Exception:  # it may need values, or raise anything
        module = build(network, shape[0], seed=0).train()
        try:
            with torch.random.fork_rng(devices=[]):
                sizes = _kept(module, torch.zeros(_FEW, *shape))
        except Exception as error:
            of = f"network: {network.root.source} cannot be trained on images {shape}"
            raise InputError(f"{of}: {one_line(error)}") from None
        return module, [batch * size // _FEW for size in sizes]


def _kept(module: nn.Module, y: torch.Tensor) -> list[int]:
    """Bytes that a step keeps; ValueError for a network that no step can be made of."""
    if not any(p.requires_grad for p in module.parameters()):
        raise ValueError("it has no parameters")

    def step() -> None:
        x_hat = module(y, torch.ones_like(y[:, 0, 0, 0]))
        if not isinstance(x_hat, torch.Tensor) or x_hat.shape != y.shape:
            found = tuple(getattr(x_hat, "shape", ())) or type(x_hat).__name__
            raise ValueError(f"of {tuple(y.shape)} it makes {found}")
        x_hat.sum()

    return saved(step)


def saved(call: Callable[[], object]) -> list[int]:
    """Bytes of the tensors that the gradient of a call needs, each once."""
    found: dict[int, tuple[torch.Tensor, int]] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        found[id(tensor)] = tensor, tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        call()
    return [size for _, size in found.values()]


class Demand(NamedTuple):
    """Memory that is needed in one place at a time: ``growing`` grows with the side to a power."""

    what: str
    available: int
    fixed: int
    growing: int
    power: int


def require_memory(
    needed: Cost,
    side: int,
    device: str,
    workers: int,
    field: str = "size:",
    *,
    before: Sequence[Demand] = (),
    matrix: str = "Jacobian",
) -> None:
    """Refuse trainings on square images that do not fit the free memory.

    Activations and images grow with the number of pixels, Jacobians with its square, weights do
    not. Held images and decompositions lie in the host's memory, the rest on the device.

    Parameters
    ----------
    needed : Cost
        Of one training at this side.
    side : int
        Of the images, pixels.
    device : str
        Where networks are trained.
    workers : int
        Trainings side by side.
    field : str
        What the message begins with.
    before : sequence of Demand
        What else must fit, before the trainings.
    matrix : str
        What is formed whole, in a word.

    Raises
    ------
    InputError
        With the memory that is needed, what there is, and the size of image for which everything
        fits.
    """
    demands = [*before, *_demands(needed, device, workers, matrix)]
    for what, available, fixed, growing, _ in demands:
        if fixed + growing > available:
            fits = min(
                side_that_fits(d.available - d.fixed, d.growing, side, d.power) for d in demands
            )
            smaller = "training.batch or n" if needed.images else "training.batch"
            advice = f", or give a smaller {smaller}" if "training" in what else ""
            raise InputError(
                f"{field} {side} needs about {(fixed + growing) / 1e9:.1f} GB for {what} and "
                f"{available / 1e9:.1f} GB are free; {fitting(fits)}{advice}"
            )


def require(what: str, device: str, fixed: int, growing: int, side: int, *, power: int = 2) -> None:
    """Refuse what does not fit the free memory of a device, as :func:`require_memory` does."""
    demand = Demand(what, available_memory(device), fixed, growing, power)
    require_memory(Cost(0, 0, 0), side, device, 1, before=(demand,))


def _demands(needed: Cost, device: str, workers: int, matrix: str) -> list[Demand]:
    host, entries = available_memory("cpu"), needed.entries

    def of(what: str, available: int, fixed: int, growing: int, power: int) -> Demand:
        several = f"{workers} {what}s side by side" if workers > 1 else f"1 {what}"
        return Demand(several, available, workers * fixed, workers * growing, power)

    if on_cpu(device):
        jacobian = (_JACOBIAN_FORMED + _JACOBIAN_DECOMPOSED) * entries
        growing = needed.activations + needed.images
        return [
            of("training", host, needed.weights, growing, 2),
            of(matrix, host, 0, jacobian, 4),
        ]
    card = available_memory(device)
    return [
        of("training", card, needed.weights, needed.activations, 2),
        of("training", host, 0, needed.images, 2),
        of(matrix, card, 0, _JACOBIAN_FORMED * entries, 4),
        of(matrix, host, 0, _JACOBIAN_DECOMPOSED * entries, 4),
    ]


def side_that_fits(available: float, needed: float, side: int, power: int) -> int:
    """Largest multiple of 8 whose memory fits, where ``needed`` at ``side`` grows to a power.

    At most ``side`` itself; 0 where nothing fits.
    """
    share = max(available, 0) / needed if needed else 1.0
    return int(min(share, 1.0) ** (1 / power) * side) // _STEP * _STEP


def fitting(side: int) -> str:
    """Say which size fits, of at least 16 pixels, or that none does."""
    return f"size {side} fits" if side > _STEP else "no size fits"


def available_memory(device: str) -> int:
    """Free memory of a device, bytes: of the host, or of the one graphics card that is used."""
    if on_cpu(device) or not torch.cuda.is_available():
        return _host_memory()
    return torch.cuda.mem_get_info()[0]


def _host_memory() -> int:
    """What Linux says is available, less where a container limits it; else all there is."""
    info = Path("/proc/meminfo")
    if not info.exists():
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    lines = dict(line.split(":", 1) for line in info.read_text(encoding="utf-8").splitlines())
    free = 1024 * int(lines["MemAvailable"].split()[0])
    limit, used = (Path("/sys/fs/cgroup") / f"memory.{name}" for name in ("max", "current"))
    if limit.exists() and (text := limit.read_text(encoding="utf-8").strip()).isdigit():
        free = min(free, int(text) - int(used.read_text(encoding="utf-8")))
    return free
