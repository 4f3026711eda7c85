"""Fit a denoiser to images: the loop, its checkpoints, and how it continues after a break."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from twinscore.runs import write_atomic
from twinscore.training import history
from twinscore.training.laws import batch_indices, learning_rate, noise_draw
from twinscore.training.spec import TrainingSpec

RESUME = "resume.pt"
HISTORY = "history.csv"
CHECKPOINT_SECONDS = 15.0
SHOWN = 64
"""Images of each set on which progress is measured."""
LOSS_CHECKS = 50
"""Steps between looks at the loss, which wait for the device."""


class TrainingError(RuntimeError):
    """Training failed; its last good checkpoint is kept."""


class Images(Protocol):
    """Images by index: a tensor (N, C, H, W) or an ImageSet."""

    def __len__(self) -> int: ...

    def __getitem__(self, indices: Any, /) -> Tensor: ...


@dataclass
class _State:
    """Everything a training needs to continue as if never interrupted."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    average: dict[str, Tensor] | None
    step: int = 0
    loss_sum: float = 0.0
    loss_count: int = 0
    seconds: float = 0.0

    def dump(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average,
            "counters": [self.step, self.loss_sum, self.loss_count, self.seconds],
        }

    def restore(self, content: dict[str, Any]) -> None:
        self.model.load_state_dict(content["model"])
        self.optimizer.load_state_dict(content["optimizer"])
        self.average = content["average"]
        self.step, self.loss_sum, self.loss_count, self.seconds = content["counters"]


def fit(
    denoiser: nn.Module,
    images: Images,
    spec: TrainingSpec,
    *,
    seed: int = 0,
    test: Tensor | None = None,
    folder: Path | None = None,
    fabric: Fabric | None = None,
    compiled: bool = False,
    on_step: Callable[[int, dict[str, float] | None], None] | None = None,
) -> nn.Module:
    """Train a universal denoiser by least squares, ``E ||x - f(x + sigma z)||^2``.

    [GAHB] eq. 4 with sigma drawn per image; the loss is summed over pixels, averaged over images.
    Order and noise of step t depend on (seed, t) only, so that an interrupted training continues
    to the same weights, bit for bit, on the same machine with the same threads.

    Parameters
    ----------
    denoiser : nn.Module
        Trained in place; maps (B, C, H, W) to the same shape.
    images : Tensor or ImageSet
        Training images, (N, C, H, W) float32 in [0, 1] when indexed.
    spec : TrainingSpec
        Budget, noise law, optimiser.
    seed : int
        Seed of order and noise (not of the weights).
    test : Tensor, optional
        Images never trained on, for the history.
    folder : Path, optional
        Where ``history.csv`` and, while unfinished, ``resume.pt`` go; a training found there
        continues.
    fabric : lightning_fabric.Fabric, optional
        Chooses device and precision; never launched nor seeded here. Default: the best device.
    compiled : bool
        Run the network through ``torch.compile`` (falls to eager where there is no C++ compiler).
    on_step : callable, optional
        Called with (steps done, history row or None) after each step; what it raises ends the
        training, which can be resumed.

    Returns
    -------
    nn.Module
        The denoiser, in evaluation mode, on the CPU.

    Raises
    ------
    TrainingError
        If the loss is not finite; names the step.
    InputError
        If ``folder`` cannot be written.
    """
    fabric = fabric or Fabric(accelerator="auto", devices=1)
    denoiser.to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(denoiser.parameters(), lr=spec.learning_rate, fused=True)
    module, optimizer = fabric.setup(torch.compile(denoiser) if compiled else denoiser, optimizer)
    state = _State(denoiser, optimizer, _detached(denoiser) if spec.ema else None)
    rows = _resume(state, folder, fabric) if folder else []
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
            row = _evaluate(state, spec, shown)
            rows.append(row)
            if folder:
                history.write(folder / HISTORY, rows)
        if saving:
            write_atomic(folder / RESUME, lambda path: torch.save(state.dump(), path))
            saved = time.monotonic()
        if on_step:
            on_step(state.step, row)
    if state.average is not None:
        denoiser.load_state_dict(state.average)
    return denoiser.eval().cpu()


def _step(
    module: nn.Module,
    state: _State,
    images: Images,
    spec: TrainingSpec,
    seed: int,
    fabric: Fabric,
) -> Tensor:
    rate = learning_rate(spec, state.step)
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    x = images[batch_indices(seed, state.step, len(images), spec.batch)]
    _, noise = noise_draw(seed, state.step, tuple(x.shape), spec.noise, spec.sigma_max)
    x, y = (t.to(fabric.device, memory_format=torch.channels_last) for t in (x, x + noise))
    state.optimizer.zero_grad()
    loss = (module(y) - x).square().sum() / len(x)
    fabric.backward(loss)
    if spec.clip is not None:
        fabric.clip_gradients(module, state.optimizer, max_norm=spec.clip)
    state.optimizer.step()
    if state.average is not None:
        with torch.no_grad():
            for name, value in state.model.state_dict().items():
                state.average[name].lerp_(value, 1 - spec.ema)
    return loss.detach()


def _count(state: _State, losses: list[Tensor]) -> None:
    """Add the losses of the last steps to the running mean; stop on NaN."""
    values = torch.stack(losses).double().cpu()
    finite = torch.isfinite(values)
    if not finite.all():
        first = state.step - len(losses) + int((~finite).nonzero()[0]) + 1
        raise TrainingError(
            f"the loss became {values[~finite][0].item()} at step {first}; the last good "
            "checkpoint is kept; try a smaller training.learning_rate or training.clip"
        )
    state.loss_sum += values.sum().item()
    state.loss_count += len(losses)
    losses.clear()


def _evaluate(state: _State, spec: TrainingSpec, shown: dict[str, Tensor]) -> dict[str, float]:
    row = {
        "step": state.step,
        "train_loss": state.loss_sum / state.loss_count,
        "learning_rate": learning_rate(spec, state.step - 1),
        "seconds": state.seconds,
    }
    state.loss_sum, state.loss_count = 0.0, 0
    with _averaged(state):
        for part, images in shown.items():
            row |= history.psnr_row(state.model, images, part)
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


def _resume(state: _State, folder: Path, fabric: Fabric) -> list[dict[str, float]]:
    """Restore the checkpoint in ``folder``, if any, and cut the history back to it."""
    if (folder / RESUME).exists():
        content = torch.load(folder / RESUME, map_location=fabric.device, weights_only=True)
        state.restore(content)
    rows = [row for row in history.read(folder / HISTORY) if row["step"] <= state.step]
    history.write(folder / HISTORY, rows)
    return rows
