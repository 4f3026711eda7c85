"""What users write, checked by mypy with ``strict``: the types that the public names have."""

from typing import assert_type

from matplotlib.figure import Figure
from torch import Tensor

import twinscore as ts
from twinscore.analysis.jacobian import Eigenpairs
from twinscore.denoisers import Checkpoint
from twinscore.experiments import audit, transition
from twinscore.results.audit import Result

model = ts.load("gaussian:digits")
assert_type(model, Checkpoint)
samples = ts.sample(model, 16, seed=0, quality="draft")
assert_type(samples, Tensor)
assert_type(model(samples, 0.3), Tensor)
assert_type(ts.score(model, samples, 0.3), Tensor)
assert_type(ts.sure(model, samples, 0.3), Tensor)
assert_type(ts.eigenpairs(model, samples[0], 0.3, k=4), Eigenpairs)
assert_type(ts.nearest(samples, samples), tuple[Tensor, Tensor])
done = ts.transition(transition.Spec(sizes=(10, 100)), "runs/mine")
assert_type(done.result.verdict, str)
assert_type(ts.figures(done.folder, theme="dark"), dict[str, Figure])
found = ts.audit(audit.Spec(samples="a/", train="b/", held_out="c/"))
assert_type(found.result, Result)
