"""Bounds of numbers in specs, far beyond what anybody runs: what exceeds them is a slip."""

from typing import Annotated, TypeVar

from pydantic import Field

MOST_IMAGES = 10**9
MOST_SAMPLES = 10**6
MOST_REPLICATES = 1000
MOST_CHECKPOINTS = 1000
LARGEST_SIDE = 4096

T = TypeVar("T")
Listed = Annotated[tuple[T, ...], Field(max_length=100)]
"""Values of a flag that takes several."""

Seed = Annotated[int, Field(ge=0, le=2**63 - 1)]
"""What every generator of random numbers takes."""
Sigma = Annotated[float, Field(ge=1e-6, le=1e4)]
"""A noise level in image units: below, it is lost in the rounding of float32."""
