"""twinscore: did your diffusion model learn the distribution, or the training set?"""

from importlib.metadata import version

__version__ = version("twinscore")
