"""Fit a denoiser to images: the loop, its checkpoints, and how it continues after a break."""

import hashlib
import inspect
import json
import math
import os
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import LightningEnvironment
from safetensors.torch import load_file
from safetensors.torch import save as serialise
from torch import Tensor, nn
from torch.utils.data import Dataset

from twinscore import sealed
from twinscore.errors import Damaged, InputError, RunFailed, one_line
from twinscore.execution import settled_torch
from twinscore.images import Given, ImageSet, from_data
from twinscore.runs import digest, make_folder
from twinscore.training import history
from twinscore.training.laws import annealing, batch_indices, noise_draw
from twinscore.training.muon import Muon, kernels
from twinscore.training.spec import TrainingSpec

RESUME = "resume.safetensors"
HISTORY = "history.csv"
CHECKPOINT_SECONDS = 15.0
SHOWN = 64
"""Images of each set on which progress is measured."""
LOSS_CHECKS = 50
"""Steps between checks of the loss, which wait for the device."""
ALONE, BESIDE_MUON, TIMES = 1e-3, 1e-2, 10
"""Default learning rates of Adam, and how many times as large Muon's is (docs/transition.md)."""


class TrainingError(RunFailed):
    """Training failed: a loss or a weight is not finite."""


class Images(Protocol):
    """Images by many indices at once: a tensor (N, C, H, W) or an ImageSet."""

    def __len__(self) -> int: ...

    def __getitem__(self, indices: Any, /) -> Tensor: ...


@dataclass
class _State:
    """Everything a training needs to continue as if it had not been interrupted."""

    model: nn.Module
    optimizers: list[torch.optim.Optimizer]
    average: dict[str, Tensor] | None
    training: str
    step: int = 0
    loss_sum: float = 0.0
    loss_count: int = 0
    seconds: float = 0.0

    def save(self, path: Path, rows: list[dict[str, float]]) -> None:
        """Write a checkpoint: tensors, and the numbers and rows so far among the metadata."""
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        tensors |= {f"average.{name}": value for name, value in (self.average or {}).items()}
        for which, optimizer in enumerate(self.optimizers):
            for index, moments in optimizer.state_dict()["state"].items():
                own = f"optimizer.{which}.{index}"
                tensors |= {f"{own}.{name}": value for name, value in moments.items()}
        host = {
            name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
            for name, value in tensors.items()
        }
        counters = [self.step, self.loss_sum, self.loss_count, self.seconds]
        header = {"twinscore": json.dumps({"counters": counters, "history": rows})}
        sealed.write(path, serialise(host, header), self.training)

    def restore(self, path: Path, device: torch.device) -> list[dict[str, float]]:
        """Take up a checkpoint of this training, on a device, and give its rows.

        Raises
        ------
        Damaged
            If the file is not what was written, or of another training.
        """
        try:
            header = sealed.check(path, self.training)
            if sealed.KEY not in header:
                raise ValueError("it has no checksum")
            found = json.loads(header["twinscore"])
            parts: dict[str, dict[str, Tensor]] = {"model": {}, "average": {}, "optimizer": {}}
            for name, value in load_file(path, device=str(device)).items():
                part, _, rest = name.partition(".")
                parts[part][rest] = value
            self.model.load_state_dict(parts["model"])
            for which, optimizer in enumerate(self.optimizers):
                _restore(optimizer, parts["optimizer"], f"{which}.")
            self.average = parts["average"] or None
            self.step, self.loss_sum, self.loss_count, self.seconds = found["counters"]
            return found["history"]
        except (RuntimeError, LookupError, ValueError) as error:
            reason = one_line(error).removeprefix(f"{path}: ")
            raise Damaged(
                f"{path}: not a checkpoint of this training ({reason}); "
                "delete it to train from the start"
            ) from None


def _restore(optimizer: torch.optim.Optimizer, found: dict[str, Tensor], own: str) -> None:
    """Give an optimiser its moments back, from names like ``<own>3.exp_avg``."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    moments: dict[int, dict[str, Tensor]] = {}
    for name, value in found.items():
        if name.startswith(own):
            index, _, moment = name.removeprefix(own).partition(".")
            if value.shape == weights[int(index)].shape:  # fused Adam takes them to lie alike
                value = torch.empty_like(weights[int(index)]).copy_(value)
            moments.setdefault(int(index), {})[moment] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": moments, "param_groups": groups})


def single_device(name: str = "auto") -> Fabric:
    """Fabric on one device: auto (the best there is), cpu, cuda or mps.

    What a cluster, ``torchrun`` or ``fabric run`` left in the environment for trainings on many
    devices is not heeded.
    """
    launcher = {key: os.environ.pop(key) for key in tuple(os.environ) if key.startswith("LT_")}
    try:
        return Fabric(accelerator=name, devices=1, plugins=[LightningEnvironment()])
    finally:
        os.environ.update(launcher)


@settled_torch()
def fit(
    denoiser: nn.Module,
    images: Images | Given,
    spec: TrainingSpec,
    *,
    seed: int = 0,
    test: Tensor | None = None,
    folder: Path | None = None,
    identity: str = "",
    fabric: Fabric | None = None,
    on_step: Callable[[int, dict[str, float] | None], None] | None = None,
    keep_at: Collection[int] = (),
    keep: Callable[[int, nn.Module], None] = lambda step, denoiser: None,
) -> nn.Module:
    """Train a universal denoiser by least squares, ``E ||x - f(x + sigma z, sigma)||^2``.

    [GAHB] eq. 4 with sigma drawn per image; the loss is summed over pixels, averaged over images.
    Order and noise of step t depend on (seed, t) only, so that an interrupted training continues
    to the same weights, bit for bit, on the same machine with the same threads.

    Parameters
    ----------
    denoiser : nn.Module
        Trained in place; maps images (B, C, H, W) and noise levels (B,), which a blind one ignores,
        to the shape of the images.
    images : Tensor, ImageSet, array or map-style data set
        Training images. A tensor is taken as it is, (N, C, H, W) of floats; an array and a data
        set as by :func:`twinscore.images.from_data`.
    spec : TrainingSpec
        Budget, noise law, optimiser.
    seed : int
        Seed of order and noise (not of the weights).
    test : Tensor, optional
        Images never trained on, for the history.
    folder : Path, optional
        Where ``history.csv`` and the checkpoint ``resume.safetensors`` go; a training found there
        continues, so give each training a folder of its own.
    identity : str, optional
        What else tells this training from others, besides the content of its images: a checkpoint
        of another one is refused.
    fabric : lightning_fabric.Fabric, optional
        Chooses device and precision; never launched or seeded here. Default: the best device.
    on_step : callable, optional
        Called with (steps done, history row or None) after each step; what it raises ends the
        training after a last checkpoint, from which it can be resumed.
    keep_at, keep : collection of int, callable
        After these steps ``keep(step, denoiser)`` is called, with the denoiser as it would be
        returned then. A training that continues may call it again for a step.

    Returns
    -------
    nn.Module
        The denoiser, in evaluation mode, on the CPU.

    Raises
    ------
    TrainingError
        If the loss or a weight is not finite; names the step.
    InputError
        If the network does not take a noise level, the images cannot be used, ``folder`` cannot
        be written, or (``Damaged``) its checkpoint is damaged or from another training.

    Examples
    --------
    >>> from twinscore import images
    >>> from twinscore.denoisers import NetworkSpec, build
    >>> from twinscore.training import TrainingSpec, fit
    >>> digits = images.load("digits")
    >>> small = build(NetworkSpec(kind="bf_cnn", width=8, layers=3), channels=1, seed=0)
    >>> fitted = fit(small, digits[:64], TrainingSpec(steps=2, batch=8))
    >>> fitted(digits[:2]).shape
    torch.Size([2, 1, 8, 8])
    """
    _require_level(denoiser)
    if isinstance(images, np.ndarray | Dataset | list | tuple):
        images = from_data(images)
    fabric = fabric or single_device()
    denoiser.to(memory_format=torch.channels_last)
    module, *optimizers = fabric.setup(denoiser, *_optimizers(denoiser, spec))
    average = _detached(denoiser) if spec.ema else None
    own = {"spec": spec.model_dump(), "seed": seed, "images": _content(images)}
    own |= {"identity": identity}
    state = _State(denoiser, optimizers, average, digest(own))
    rows: list[dict[str, float]] = []
    if folder:
        make_folder(folder)
        if (folder / RESUME).exists():
            rows = state.restore(folder / RESUME, fabric.device)
        history.write(folder / HISTORY, rows)
    shown = {"train": images[torch.arange(min(SHOWN, len(images)))].to(fabric.device)}
    if test is not None:
        shown["test"] = test[:SHOWN].to(fabric.device)
    evaluate_at = {spec.steps * (i + 1) // spec.evaluations for i in range(spec.evaluations)}
    started, saved = time.monotonic() - state.seconds, time.monotonic()
    losses: list[Tensor] = []
    denoiser.train()
    while state.step < spec.steps:
        losses.append(_step(module, state, images, spec, seed, fabric))
        state.step += 1
        evaluating = state.step in evaluate_at
        saving = folder is not None and time.monotonic() - saved > CHECKPOINT_SECONDS
        if evaluating or saving or len(losses) >= LOSS_CHECKS:
            _count(state, losses)
        state.seconds = time.monotonic() - started
        row = None
        if evaluating:
            row = _evaluate(module, state, spec, shown)
            rows.append(row)
            if folder:
                history.write(folder / HISTORY, rows)
        if state.step in keep_at:
            _count(state, losses)
            with _averaged(state):
                keep(state.step, denoiser)
        if saving:
            state.save(folder / RESUME, rows)
            saved = time.monotonic()
        if on_step:
            try:
                on_step(state.step, row)
            except BaseException:
                _count(state, losses)
                if folder:
                    state.save(folder / RESUME, rows)
                raise
    if state.average is not None:
        denoiser.load_state_dict(state.average)
    return denoiser.eval().cpu()


def _content(images: Images) -> str | int:
    """Digest of the images; where they are neither a tensor nor an ImageSet, how many they are."""
    if isinstance(images, ImageSet):
        return images.digest
    if not isinstance(images, Tensor):
        return len(images)
    found = hashlib.sha256(f"{images.dtype} {tuple(images.shape)} ".encode())
    found.update(images.detach().cpu().flatten().view(torch.uint8).numpy())
    return found.hexdigest()


def _require_level(denoiser: nn.Module) -> None:
    try:
        inspect.signature(denoiser.forward).bind(None, None)
    except TypeError:
        raise InputError(
            f"{type(denoiser).__name__}.forward takes no noise level; give forward(y, sigma) with "
            "images (B, C, H, W) and sigma (B,), which a blind network ignores"
        ) from None


def _optimizers(denoiser: nn.Module, spec: TrainingSpec) -> list[torch.optim.Optimizer]:
    """Adam for all that Muon does not move, and Muon, if there is anything for it to move."""
    turned = kernels(denoiser) if spec.optimizer == "muon" else []
    known = {id(parameter) for parameter in turned}
    others = [parameter for parameter in denoiser.parameters() if id(parameter) not in known]
    rate = spec.learning_rate or (BESIDE_MUON if turned else ALONE)
    adam = torch.optim.Adam(others, lr=rate, fused=True)
    own: list[torch.optim.Optimizer] = [adam]
    own += [Muon(turned, lr=TIMES * rate)] if turned else []
    for optimizer in own:
        for group in optimizer.param_groups:
            group["peak"] = group["lr"]
    return own


def _step(
    module: nn.Module,
    state: _State,
    images: Images,
    spec: TrainingSpec,
    seed: int,
    fabric: Fabric,
) -> Tensor:
    for optimizer in state.optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * annealing(spec, state.step)
        optimizer.zero_grad()
    x = images[batch_indices(seed, state.step, len(images), spec.batch)]
    law = {"law": spec.noise, "sigma_max": spec.sigma_max, "spread": spec.levels == "spread"}
    sigma, noise = noise_draw(seed, state.step, tuple(x.shape), **law)
    x = x.to(fabric.device, memory_format=torch.channels_last)
    y = x + noise.to(fabric.device, memory_format=torch.channels_last)
    loss = (module(y, sigma.flatten().to(fabric.device)) - x).square().sum() / len(x)
    fabric.backward(loss)
    if spec.clip is not None:
        nn.utils.clip_grad_norm_(module.parameters(), spec.clip)
    for optimizer in state.optimizers:
        optimizer.step()
    if state.average is not None:
        decay = min(spec.ema, (1 + state.step) / (10 + state.step))  # forget the initial weights
        with torch.no_grad():
            for name, value in state.model.state_dict().items():
                if value.is_floating_point():
                    state.average[name].lerp_(value, 1 - decay)
                else:
                    state.average[name].copy_(value)
    return loss.detach()


def _count(state: _State, losses: list[Tensor]) -> None:
    """Add the losses of the last steps to the running mean; stop on NaN in losses or weights."""
    first = state.step - len(losses) + 1
    values = torch.stack(losses).tolist() if losses else []
    for step, value in enumerate(values, first):
        if not math.isfinite(value):
            raise _not_finite(f"the loss became {value} at step {step}")
        state.loss_sum += value
    state.loss_count += len(losses)
    losses.clear()
    if not all(torch.isfinite(value).all() for value in state.model.state_dict().values()):
        raise _not_finite(f"a weight became infinite or NaN by step {state.step}")


def _not_finite(what: str) -> TrainingError:
    return TrainingError(f"{what}; try a smaller training.learning_rate or training.clip")


def _evaluate(
    module: nn.Module, state: _State, spec: TrainingSpec, shown: dict[str, Tensor]
) -> dict[str, float]:
    row = {
        "step": state.step,
        "train_loss": state.loss_sum / state.loss_count,
        "learning_rate": state.optimizers[0].param_groups[0]["lr"],
        "seconds": state.seconds,
    }
    state.loss_sum, state.loss_count = 0.0, 0
    with _averaged(state):
        for part, images in shown.items():
            row |= history.psnr_row(module, images, part)
    return row


@contextmanager
def _averaged(state: _State) -> Iterator[None]:
    """Evaluation mode, with the averaged weights if there are any."""
    own = _detached(state.model) if state.average is not None else None
    if own is not None:
        state.model.load_state_dict(state.average)
    state.model.eval()
    yield
    state.model.train()
    if own is not None:
        state.model.load_state_dict(own)


def _detached(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}
