"""Discs: how far is a network from the optimum of a smooth five-dimensional class? ([GAHB] 3.2)."""

from twinscore.experiments.manifold.results import Result
from twinscore.experiments.manifold.spec import Spec
from twinscore.experiments.manifold.study import Done, run

__all__ = ["Done", "Result", "Spec", "run"]
