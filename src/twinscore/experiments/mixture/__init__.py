"""Early stopping, capacity and modes shift, exactly: docs/formulas.md#generalisation-bound."""

from twinscore.experiments.mixture import cost, replicates
from twinscore.experiments.mixture.spec import Spec
from twinscore.experiments.mixture.summary import summarise
from twinscore.experiments.study import Study

__all__ = ["STUDY", "Spec", "run"]

STUDY = Study(
    name="mixture",
    spec=Spec,
    count=replicates.count,
    tasks=replicates.tasks,
    work=replicates.work,
    summarise=summarise,
    estimate=cost.estimate,
    refuse=cost.refuse,
    machine=("workers",),
)
run = STUDY.run
