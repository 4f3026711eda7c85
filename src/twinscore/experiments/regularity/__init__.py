"""C-alpha images: does a network denoise at the optimal rate? ([GAHB] 3.2, STUDIES section 4)."""

from twinscore.experiments.regularity.results import Result
from twinscore.experiments.regularity.spec import Spec
from twinscore.experiments.regularity.study import Done, run
from twinscore.experiments.study import of_old

__all__ = ["Done", "Result", "Spec", "run"]


STUDY = of_old("regularity", Spec, lambda *a, **k: run(*a, **k), ("device", "workers"))
