"""Make the folder of docs/models.md: a pipeline of diffusers, trained on handwritten digits.

    python docs/diffusers_example.py FOLDER [--predicts epsilon|sample|v_prediction]

Trains a small UNet2DModel with a DDPMScheduler as their own documentation does, on 1,600 of the
8x8 digits in [-1, 1], and saves the pipeline to FOLDER. The other 197 digits are held out. Takes
some 35 seconds on one core.
"""

import argparse
from pathlib import Path

import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from torch.nn import functional as F

from twinscore import images

STEPS, BATCH, TRAIN, RATE = 800, 48, 1600, 3e-3


def target(scheduler: DDPMScheduler, x: torch.Tensor, z: torch.Tensor, t: torch.Tensor) -> object:
    """What the network is to return."""
    predicts = scheduler.config.prediction_type
    known = {"epsilon": lambda: z, "sample": lambda: x}
    return known.get(predicts, lambda: scheduler.get_velocity(x, z, t))()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--predicts", default="epsilon")
    words = parser.parse_args()
    torch.manual_seed(0)
    network = UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(16, 32),
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        add_attention=False,
    )
    scheduler = DDPMScheduler(prediction_type=words.predicts)
    digits = 2 * images.load("digits")[:TRAIN] - 1
    optimiser = torch.optim.Adam(network.parameters(), RATE)
    for step in range(STEPS):
        x = digits[torch.randint(len(digits), (BATCH,))]
        z, t = torch.randn_like(x), torch.randint(1000, (BATCH,))
        output = network(scheduler.add_noise(x, z, t), t).sample
        loss = F.mse_loss(output, target(scheduler, x, z, t))
        optimiser.param_groups[0]["lr"] = RATE * (1 - step / STEPS)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    DDPMPipeline(network, scheduler).save_pretrained(words.folder)
    print(f"loss {loss.item():.3f}; pipeline: {words.folder}")


if __name__ == "__main__":
    main()
