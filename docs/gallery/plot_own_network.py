"""
Twins of your own network
=========================

Any network will do that maps noisy images to clean ones, and any data set of torch. Here is one
that is told the noise level, and a data set that makes its images when it is asked for them.
"""

import tempfile
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import Dataset

import twinscore as ts
from twinscore.experiments import transition
from twinscore.training import TrainingSpec

FEW, MANY = 8, 512
STEPS = 1200
SAMPLES = 128

# %%
# A data set
# ----------
# Items are images (C, H, W) in [0, 1]; numbers after them are labels. Item i is always the same
# image.


class Bars(Dataset):
    """A bright bar on a dark ground, at a random place and angle."""

    def __len__(self):
        return 1200

    def __getitem__(self, i):
        across, angle, width = torch.rand(3, generator=torch.Generator().manual_seed(i))
        line = torch.linspace(-1, 1, 12)
        turn = torch.pi * angle
        far = line[:, None] * turn.cos() + line[None] * turn.sin() - (across - 0.5)
        return torch.sigmoid(12 * (0.15 + 0.2 * width - far.abs()))[None]


# %%
# A network
# ---------
# ``network(channels)`` makes it, and it is called with ``y``, (B, C, H, W), and ``sigma``, (B,).
# It scales its input to unit variance, and is told the logarithm of the level as one more channel.


class Told(nn.Module):
    """Residual convolutions that are told the noise level."""

    def __init__(self, channels, width=48):
        super().__init__()
        self.first = nn.Conv2d(channels + 1, width, 3, padding=1)
        self.inner = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(5))
        self.last = nn.Conv2d(width, channels, 3, padding=1)

    def forward(self, y, sigma):
        level = sigma.view(-1, 1, 1, 1)
        scaled = y / (0.25 + level**2).sqrt()
        hidden = self.first(torch.cat([scaled, level.log().expand_as(y[:, :1])], 1))
        for layer in self.inner:
            hidden = hidden + layer(torch.relu(hidden))
        return self.last(torch.relu(hidden))


# %%
# The study
# ---------
# Its weights start from other seeds for A and B. The code of the network is a part of what
# identifies the run, and so are the images, which are kept in its folder.

spec = transition.Spec(
    sizes=(FEW, MANY),
    samples=SAMPLES,
    duplicate_threshold=0.999,
    training=TrainingSpec(steps=STEPS, batch=48, sigma_max=2.0, ema=0.99),
)
folder = Path(tempfile.mkdtemp()) / "own"
done = transition.run(spec, folder, network=Told, images=Bars(), device="cpu")
print(done.result.verdict)
print(done.result.table())

# %%
ts.figures(done.folder)["samples"]

# %%
# In a file, ``twinscore transition --network mine.py:Told`` does the same (:doc:`/models`).
