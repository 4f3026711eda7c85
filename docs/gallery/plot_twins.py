"""
Twins in five minutes
=====================

Two networks are trained on disjoint halves of a few images, and two on disjoint halves of many.
Then each pair draws samples from the same noise. Do the twins agree, and with what?
"""

import tempfile
from pathlib import Path

import twinscore as ts
from twinscore.denoisers import NetworkSpec
from twinscore.experiments import transition
from twinscore.training import TrainingSpec

FEW, MANY = 10, 800
STEPS = 1500
SAMPLES = 256

# %%
# The study
# ---------
# Scikit-learn's handwritten digits, 8x8 pixels, and a small version of the published network. The
# same number of steps for both sizes, so that they differ by their images alone.

spec = transition.Spec(
    data="digits",
    sizes=(FEW, MANY),
    samples=SAMPLES,
    duplicate_threshold=0.98,
    network=NetworkSpec(kind="unet", width=24, levels=2),
    training=TrainingSpec(steps=STEPS, batch=64, learning_rate=0.003),
)
done = transition.run(spec, Path(tempfile.mkdtemp()) / "twins", device="cpu")
print(done.result.verdict)
print(done.result.table())

# %%
# Samples
# -------
# In each group of four, the two in the middle are the samples of A and B from one noise, and the
# outer ones the training images that are nearest to them. The number below a pair is their cosine
# similarity. At the small size every sample is a training image; at the large one the twins draw
# the same digit, and it is in neither training set.

figures = ts.figures(done.folder)
figures["samples"]

# %%
# Denoising
# ---------
# The small training set is learned by heart: its error falls far below that of new images.

figures["denoising"]
