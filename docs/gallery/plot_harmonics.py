"""
Harmonics of a photograph
=========================

A denoiser without additive terms is its own Jacobian: it shrinks a noisy image in a basis that
depends on the image. For a network that generalises the basis vectors oscillate along contours.
"""

import matplotlib.pyplot as plt
import torch

import twinscore as ts
from twinscore import images
from twinscore.denoisers import NetworkSpec, build, psnr
from twinscore.training import TrainingSpec, fit

STEPS = 1200
IMAGE = 381  # of the patches of photographs that come with scikit-image and scikit-learn
SIGMA = 0.15

# %%
# A network
# ---------
# A small bias-free UNet, trained on 32x32 patches at all noise levels at once. The patches of the
# photograph that is denoised below are held out.

photos = images.load("photos,size=32,gray")
held_out = photos.groups[IMAGE]
others = [i for i, group in enumerate(photos.groups) if group != held_out]
network = fit(
    build(NetworkSpec(kind="unet", width=16, levels=2), channels=1, seed=0),
    photos[others],
    TrainingSpec(steps=STEPS, batch=32),
)

# %%
# One image
# ---------

x = photos[[IMAGE]]
y = x + SIGMA * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
with torch.no_grad():
    denoised = network(y)
decibels = [psnr(image, x).item() for image in (y, denoised)]
titles = ("clean", f"noisy, {decibels[0]:.1f} dB", f"denoised, {decibels[1]:.1f} dB")
figure, panels = plt.subplots(1, 3, figsize=(6.5, 2.5), layout="constrained")
for axes, image, title in zip(panels, (x, y, denoised), titles, strict=True):
    axes.imshow(image[0, 0], cmap="gray", vmin=0, vmax=1)
    axes.set_title(title)
    axes.set_axis_off()

# %%
# Its basis
# ---------
# Eigenvectors of the symmetric part of the Jacobian at the noisy image, with their eigenvalues: the
# factors by which the network shrinks what lies along them.

pairs = ts.eigenpairs(network, y, SIGMA, k=12)
figure, panels = plt.subplots(2, 6, figsize=(6.5, 2.6), layout="constrained")
for axes, value, vector in zip(panels.flat, pairs.values, pairs.vectors, strict=True):
    shown = vector.reshape(x.shape[-2:])
    limit = float(shown.abs().max())
    axes.imshow(shown, cmap="gray", vmin=-limit, vmax=limit)
    axes.set_title(f"{value:.2f}")
    axes.set_axis_off()

# %%
# ``twinscore harmonics --model M --data SOURCE --index I`` measures the same of any model, with
# ranks, errors without the clean image, and the bases of two models side by side
# (:doc:`/harmonics`).
