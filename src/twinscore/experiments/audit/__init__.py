"""Audit samples for copies of training images, by a coin toss against held-out ones.

``spec`` is what is asked, ``pool`` the images and how they were dealt, ``searching`` the long work,
``votes`` and ``summary`` what follows from it: the ``judgement``, its ``assumptions`` and
``evidence``.
"""

from collections.abc import Mapping
from typing import Any

from twinscore.analysis.audit.ranking import power
from twinscore.denoisers.checkpoint import model_digest
from twinscore.errors import InputError
from twinscore.experiments.audit import checkpoints, controls, embedding, guidance, recipe
from twinscore.experiments.audit.drawing import drawn, imagined
from twinscore.experiments.audit.membership import try_model
from twinscore.experiments.audit.pool import opened
from twinscore.experiments.audit.searching import estimate, pieces, refuse, work
from twinscore.experiments.audit.spec import Spec
from twinscore.experiments.audit.summary import summarise
from twinscore.experiments.study import Study
from twinscore.experiments.trials import open_model

__all__ = ["STUDY", "Spec", "run"]


def check_sets(spec: Spec, *_: Any) -> Mapping[str, Any]:
    """Refuse sets that do not go together, and fewer images than any claim needs."""
    sets = opened(spec)
    guidance.studied(spec)
    embedding.opened.cache_clear()  # the file may have changed since an earlier run of this process
    own = {"embedding_digest": embedding.opened(spec.embedding)[1]} if spec.embedding else {}
    if spec.model:
        try_model(spec, sets.train)
        own["model_digest"] = model_digest(open_model(spec.model))
    own |= controls.check_controls(spec, sets.train)
    if spec.checkpoints:
        own["checkpoints_digest"] = checkpoints.check_models(spec, sets.train)
    if spec.recipe:
        own["recipe_digest"] = recipe.check_recipe(spec)
    if sets.held_out is None:
        return own
    n, m, samples = len(sets.train), len(sets.held_out), len(sets.samples)
    least = power(n, m, spec.q).for_p
    if least > n:
        raise InputError(
            f"held_out: {m:,} held-out and {n:,} training images are too few for any claim; "
            "give more"
        )
    if least > samples:
        raise InputError(
            f"samples: {samples:,} are too few for any claim: with {n:,} training and {m:,} "
            f"held-out images it takes {least:,} copied ones; give {least:,} or more"
        )
    return own


STUDY = Study(
    name="audit",
    spec=Spec,
    count=lambda spec: len(pieces(spec, lambda *_: None)),
    tasks=pieces,
    work=work,
    summarise=summarise,
    estimate=estimate,
    refuse=refuse,
    reads=("samples", "train", "held_out"),
    usable=lambda source: None,
    check=check_sets,
    before=lambda spec, out, device: drawn(checkpoints.last(spec), out, device),
    imagined=lambda spec, out, device: imagined(checkpoints.last(spec), out, device),
    extendable=("q", "most", "duplicates", "overlap", "steered", "chosen", "critical", "fail_if"),
)
run = STUDY.run
