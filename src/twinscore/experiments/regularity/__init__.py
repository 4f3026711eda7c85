"""C-alpha images: does a network denoise at the optimal rate? ([GAHB] 3.2, STUDIES section 4)."""

from twinscore.experiments.regularity.results import Result
from twinscore.experiments.regularity.spec import Spec
from twinscore.experiments.regularity.study import Done, run

__all__ = ["Done", "Result", "Spec", "run"]
