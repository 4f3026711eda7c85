"""
The papers' figures from finished runs
======================================

Every figure of every study is a function of its run folder. Any finished run gives its figures
again, to be changed and saved for a paper.
"""

import tempfile
from pathlib import Path

import twinscore as ts
from twinscore.experiments import mixture

SIZES = (16, 64, 256, 1024)
REPLICATES = 4

# %%
# A finished run
# --------------
# A small version of the theory study of Li, Li, Zhang & Bian (NeurIPS 2023), whose score models are
# solved exactly; ``twinscore mixture --spec paper-mixture`` is the whole.

spec = mixture.Spec(
    sizes=SIZES,
    widths=(16, 64),
    tau_count=16,
    replicates=REPLICATES,
    shift={"distances": (1, 3, 6), "watched": (3,), "weights": (0.3,), "samples": 256, "width": 64},
    twins={"width": 64, "count": 8, "replicates": REPLICATES},
)
done = mixture.run(spec, Path(tempfile.mkdtemp()) / "mixture")
print(done.result.verdict)

# %%
# Its figures
# -----------

figures = ts.figures(done.folder)
print(*figures, sep=", ")

# %%
# Divergence against training time: it falls, reaches its least, and rises again, the later the more
# samples there are.

figures["training"]

# %%
# How far the modes may lie apart:

figures["shift"]

# %%
# For a paper
# -----------
# They are figures of matplotlib.

figure = figures["training"]
figure.set_size_inches(6.5, 3.0)
figure.savefig(done.folder / "training.pdf")
print((done.folder / "training.pdf").stat().st_size > 0)
