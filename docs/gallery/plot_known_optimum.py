"""
A denoiser against the known optimum
====================================

For a Gaussian field the best denoiser is known: the Wiener filter. How close do a trained network
and thresholding come to it, at each noise level?
"""

import matplotlib.pyplot as plt
import numpy as np

from twinscore import images
from twinscore.analysis.denoising import psnr_table
from twinscore.analysis.optimality import gaps
from twinscore.denoisers import NetworkSpec, build
from twinscore.denoisers.closed_form import StationaryGaussian
from twinscore.denoisers.shrinkage import Thresholding, Wavelets
from twinscore.images import synthetic
from twinscore.training import TrainingSpec, fit

STEPS = 1500
SIGMAS = np.geomspace(0.02, 1.0, 8)

# %%
# Images of known density
# -----------------------
# Periodic fields of 16x16 pixels whose power falls as the third power of the frequency. Training
# images are fresh ones; 64 others are kept for measuring.

law = synthetic.field_law(16, 3.0)
optimum = StationaryGaussian(law.means.float(), law.spectra.float())
fields = images.load("field:spectrum=3,size=16,count=4160")
test, train = fields[:64], fields[64:]

# %%
# Three denoisers
# ---------------

network = fit(
    build(NetworkSpec(kind="unet", width=24, levels=2), channels=1, seed=0),
    train,
    TrainingSpec(steps=STEPS, batch=64),
)
denoisers = {
    "Wiener filter, the optimum": optimum,
    "trained network": network,
    "wavelet thresholding": Thresholding(Wavelets(), multiple=3.0),
}
curves = {name: psnr_table(f, test, SIGMAS).mean(1) for name, f in denoisers.items()}

# %%
# Error
# -----

figure, axes = plt.subplots(figsize=(5, 3.6), layout="constrained")
styles = (("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "^"))
for (name, curve), (colour, marker) in zip(curves.items(), styles, strict=True):
    axes.plot(-20 * np.log10(SIGMAS), curve, color=colour, marker=marker, label=name)
axes.set(xlabel="PSNR of the noisy image, dB", ylabel="PSNR of the denoised one, dB")
axes.legend(frameon=False)
axes.grid(alpha=0.3)

# %%
# The gap, with its 95 % interval
# -------------------------------
# ``gaps`` sees both denoisers on the same noisy images, so that even a small gap is not lost in the
# scatter of images.

found = gaps(network, optimum, test, SIGMAS)
loss = found.decibels
for sigma, value, low, high in zip(SIGMAS, loss.value, loss.low, loss.high, strict=True):
    print(f"sigma {sigma:5.3f}: {value:6.2f} dB [{low:.2f}, {high:.2f}] behind the optimum")

# %%
# The same distance bounds how far what the network generates may be from the fields:
# :func:`~twinscore.analysis.optimality.kl_bound`, :doc:`/optimality`.
