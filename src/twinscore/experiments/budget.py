"""What trials will cost: memory and time, before anything is trained."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from twinscore.denoisers import NetworkSpec, build
from twinscore.environment import on_cpu
from twinscore.errors import InputError
from twinscore.execution import torch_threads
from twinscore.training import TrainingSpec, single_device

_MOMENTS = 2  # of Adam
_CROP = 2**16  # pixels of the batch on which a step is timed


@dataclass(frozen=True)
class Cost:
    """Memory of one training, bytes.

    Attributes
    ----------
    weights : int
        Weights, gradients and the optimiser's moments, of any image size.
    activations : int
        What one step keeps for its gradient.
    images : int
        Training images that are held in memory while they are read.
    """

    weights: int
    activations: int
    images: int


def cost(network: NetworkSpec, batch: int, shape: tuple[int, int, int], held: int) -> Cost:
    """Count the memory of one training, without allocating it.

    Parameters
    ----------
    network : NetworkSpec
        The network; one forward pass is traced on torch's *meta* device.
    batch : int
        Images of a step.
    shape : tuple of int
        (C, H, W).
    held : int
        Training images kept in memory, float32; twice that while they are gathered.

    Returns
    -------
    Cost
        Activations are the tensors that the gradient needs, each once, and as much again as the
        largest for what comes and goes.
    """
    module = build(network, shape[0], seed=0).train().to("meta")
    saved: dict[int, tuple[torch.Tensor, int]] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        saved[id(tensor)] = tensor, tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        module(torch.empty(batch, *shape, device="meta")).sum()
    sizes = [size for _, size in saved.values()]
    parameters = sum(p.numel() * p.element_size() for p in module.parameters())
    image = 4 * shape[0] * shape[1] * shape[2]
    return Cost((2 + _MOMENTS) * parameters, sum(sizes) + max(sizes), 2 * held * image)


def require_memory(needed: Cost, side: int, device: str, workers: int) -> None:
    """Refuse trainings on square images that do not fit the free memory.

    Activations and images grow with the number of pixels, weights do not; held images lie in the
    host's memory, the rest on the device.

    Raises
    ------
    InputError
        With the memory that is needed, what there is, and the size of image that fits.
    """
    if on_cpu(device):
        growing = needed.activations + needed.images
        demands = [(available_memory("cpu"), needed.weights, growing)]
    else:
        demands = [
            (available_memory(device), needed.weights, needed.activations),
            (available_memory("cpu"), 0, needed.images),
        ]
    for available, fixed, growing in demands:
        total = workers * (fixed + growing)
        if total > available:
            pixels = (available / workers - fixed) / growing * side**2
            fits = int(max(pixels, 0) ** 0.5) // 8 * 8
            raise InputError(
                f"size: {side} needs about {total / 1e9:.1f} GB for {workers} training"
                f"{'s side by side' * (workers > 1)} and {available / 1e9:.1f} GB are free; "
                + (f"size {fits} fits, " if fits else "no size fits, ")
                + "or give a smaller training.batch or n"
            )


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


def training_seconds(
    network: NetworkSpec, training: TrainingSpec, shape: tuple[int, int, int], device: str
) -> float:
    """Time of one training on one core or one device, from a step on a few images.

    Reading images is not counted. Where small batches leave a device idle it is too long.
    """
    batch = max(1, min(training.batch, _CROP // (shape[1] * shape[2])))
    on = single_device(device).device
    module = build(network, shape[0], seed=0).train().to(on, memory_format=torch.channels_last)
    y = torch.zeros(batch, *shape, device=on).contiguous(memory_format=torch.channels_last)
    with torch_threads(1):
        _step(module, y)
        started = time.perf_counter()
        _step(module, y)
        seconds = time.perf_counter() - started
    return seconds * training.steps * training.batch / batch


def _step(module: nn.Module, y: torch.Tensor) -> None:
    module(y).square().sum().backward()
    if y.is_cuda:
        torch.cuda.synchronize()
