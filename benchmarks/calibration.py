"""How often check-model refuses the right name, of networks trained for a few steps only.

    python benchmarks/calibration.py SEEDS
    python benchmarks/calibration.py names

Each network predicts by one convention; after 20 to 500 steps every rule of
``twinscore.analysis.calibration.fault`` is tried on training images. Prints a row for each number
of steps: networks, and how many were refused, by which rule; for those refused by their offset,
the offset in units of sigma.

``names`` gives trained networks every other name, and says which convention is found instead, on
training images and on samples that were drawn under that name.
"""

import sys
from collections import Counter

import numpy as np
import torch
from torch import Tensor, nn

from twinscore import images
from twinscore.analysis import calibration
from twinscore.denoisers import Checkpoint, ConditionedUNet
from twinscore.denoisers.adapters import converted
from twinscore.execution import settled_torch
from twinscore.experiments.check_model import Spec
from twinscore.experiments.wiring import MOST, SIGMAS, chosen
from twinscore.sampling import SamplingSpec
from twinscore.sampling.samples import draw
from twinscore.training import TrainingSpec, fit, single_device

AFTER = (20, 50, 100, 200, 500)
DATA = ("digits", "discs:size=8,count=400")
CONVENTIONS = ("epsilon", "velocity", "flow", "edm", "sample")
BATCH = 32


class Network(nn.Module):
    """F of a convention: the inside of a conditioned UNet, told the time as it comes."""

    def __init__(self, channels: int, seed: int) -> None:
        super().__init__()
        self.inner = ConditionedUNet(channels, width=8, levels=1, seed=seed)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """(B, C, H, W) and (B,) to the shape of ``x``."""
        return self.inner._padded(x, 1e-3 + t.abs())


def ruling(fault: str | None) -> str:
    """The rule that refuses."""
    if fault is None:
        return "passes"
    for words, name in (("looks like", "rival"), ("off on average", "offset")):
        if words in fault:
            return name
    return "noise"


def main(seeds: int) -> None:
    levels = Spec().levels
    found: dict[int, list[tuple[str, str, float]]] = {steps: [] for steps in AFTER}
    for source in DATA:
        of = images.load(source)
        for convention in CONVENTIONS:
            for seed in range(seeds):
                denoiser = converted(Network(of.shape[0], seed), convention)
                x = chosen(of, Spec().images, seed)

                def look(
                    step: int,
                    row: object,
                    denoiser: nn.Module = denoiser,
                    x: Tensor = x,
                    name: str = convention,
                    seed: int = seed,
                ) -> None:
                    if step in AFTER:
                        denoiser.eval()
                        fits = calibration.fits(denoiser, x, levels, seed)
                        said = ruling(calibration.fault(fits, levels))
                        found[step].append((name, said, abs(fits[0].bias) / levels[0]))
                        denoiser.train()

                spec = TrainingSpec(
                    steps=max(AFTER),
                    batch=BATCH,
                    schedule="constant",
                    learning_rate=2e-3,
                    noise="log",
                    levels="independent",
                    evaluations=1,
                )
                fit(denoiser, of, spec, seed=seed, fabric=single_device("cpu"), on_step=look)
    for rows in found.values():
        for name, said, bias in rows:
            if said not in ("passes",):
                print(f"{name}: {said}, offset {bias:.2f} sigma", file=sys.stderr)
    print("steps  networks  passes  rival  offset  noise   largest offset of those that denoise")
    for steps, rows in found.items():
        count = Counter(said for _, said, _ in rows)
        offsets = [bias for _, said, bias in rows if said in ("passes", "offset")]
        print(
            f"{steps:5}  {len(rows):8}  {count['passes']:6}  {count['rival']:5}  "
            f"{count['offset']:6}  {count['noise']:5}   {max(offsets, default=0):.2f} sigma"
        )
    for name in CONVENTIONS:
        said = Counter(s for rows in found.values() for n, s, _ in rows if n == name)
        print(name, dict(said))


def names() -> None:
    """What wrong names are told."""
    of = images.load("digits")
    own = {"steps": 400, "batch": BATCH, "learning_rate": 2e-3, "noise": "log", "evaluations": 1}
    own["levels"] = "independent"
    for true in CONVENTIONS:
        network, spec = Network(of.shape[0], 0), TrainingSpec(**own, sigma_max=2.0)
        fit(converted(network, true), of, spec, fabric=single_device("cpu"))
        for named in CONVENTIONS:
            model = Checkpoint(converted(network, named).eval(), of.shape, (0.5,))
            draft = SamplingSpec(quality="draft")
            drawn, _ = draw(model, np.arange(MOST), draft, batch=MOST, device="cpu")
            found = []
            for x in (of[:MOST], torch.from_numpy(drawn)):
                rival = calibration.better(calibration.fits(model.denoiser, x, SIGMAS, 0), SIGMAS)
                found.append(rival.wiring if rival else "nothing else")
            print(f"{true}, named {named}: images say {found[0]}; its samples {found[1]}")


if __name__ == "__main__":
    with settled_torch():
        names() if sys.argv[1] == "names" else main(int(sys.argv[1]))
