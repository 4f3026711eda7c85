"""
Audit your diffusers model
==========================

A folder that the library diffusers wrote, the images it was trained on and some that it was not:
are the samples copies? The pipeline here is made on the spot, and trained on few images, so that
there is something to find.
"""

import tempfile
from pathlib import Path

import numpy as np
import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from torch.nn import functional as F

import twinscore as ts
from twinscore import images
from twinscore.experiments import audit, check_model

TRAIN = 60
STEPS = 1500
COUNT = 128

# %%
# Images
# ------
# Handwritten digits, 8x8. A coin deals them into a training set and as many held-out ones, after
# near-duplicates are left out.

folder = Path(tempfile.mkdtemp())
digits = images.load("digits")
distinct = np.flatnonzero(~images.near_duplicates(digits, 0.95).drop)
dealt = np.random.default_rng(0).permutation(distinct)
train, held_out = digits[dealt[:TRAIN]], digits[dealt[TRAIN : 2 * TRAIN]]
np.save(folder / "train.npy", train.numpy()[:, 0])
np.save(folder / "held-out.npy", held_out.numpy()[:, 0])

# %%
# A pipeline
# ----------
# Trained as the documentation of diffusers does, on images in [-1, 1].

torch.manual_seed(0)
network = UNet2DModel(
    sample_size=8,
    in_channels=1,
    out_channels=1,
    layers_per_block=1,
    block_out_channels=(32, 64),
    norm_num_groups=4,
    down_block_types=("DownBlock2D", "DownBlock2D"),
    up_block_types=("UpBlock2D", "UpBlock2D"),
    add_attention=False,
)
scheduler = DDPMScheduler()
optimiser = torch.optim.Adam(network.parameters(), 2e-3)
for _ in range(STEPS):
    x = 2 * train[torch.randint(len(train), (48,))] - 1
    z, t = torch.randn_like(x), torch.randint(1000, (len(x),))
    loss = F.mse_loss(network(scheduler.add_noise(x, z, t), t).sample, z)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
DDPMPipeline(network, scheduler).save_pretrained(folder / "pipeline")
model = f"diffusers:{folder / 'pipeline'}"

# %%
# Is it wired right?
# ------------------
# Before anything is measured: of all known conventions, does the one that its scheduler names give
# the smallest error?

checked = check_model.run(
    check_model.Spec(model=model, data=str(folder / "train.npy")), folder / "check", device="cpu"
)
print(checked.result.verdict)

# %%
# The audit
# ---------
# Samples are drawn by the pipeline's own scheduler. Each votes for the image that it is nearest to;
# if nothing was copied, the votes for training and held-out images are tosses of a fair coin. The
# model's errors on both sets are compared too.

spec = audit.Spec(
    model=model,
    train=str(folder / "train.npy"),
    held_out=str(folder / "held-out.npy"),
    count=COUNT,
    duplicates=0.999,
)
done = audit.run(spec, folder / "audit", device="cpu")
print(done.result.verdict)
print(done.result.table())

# %%
# Samples beside the images that they repeat:

figures = ts.figures(done.folder)
figures["evidence"]

# %%
# From the command line this is ``twinscore audit --model diffusers:FOLDER --train ... --held-out
# ...``; the page it writes says what the test assumes (:doc:`/audit`).
