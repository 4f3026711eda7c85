"""Fit a network to images."""

from twinscore.training.fit import TrainingError, fit, single_device
from twinscore.training.spec import TrainingSpec

__all__ = ["TrainingError", "TrainingSpec", "fit", "single_device"]
