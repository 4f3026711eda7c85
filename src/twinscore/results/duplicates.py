"""Find images that repeat others of their set, or of another."""

from typing import Literal

from twinscore.results import base
from twinscore.results.base import Frozen


class Data(Frozen):
    """A set of images."""

    source: str
    images: int
    shape: tuple[int, int, int]


class Count(Frozen):
    """Near-duplicates at a threshold; those equal pixel by pixel are among them."""

    threshold: float
    images: int


class Pair(Frozen):
    """An image and the one it repeats."""

    index: int
    name: str
    partner_index: int
    partner_name: str
    correlation: float


class Result(base.Result):
    """``result.json`` of a search for near-duplicates.

    ``pairs`` are those whose pictures are in ``arrays.safetensors``: up to 6 of those that are
    ``identical`` pixel by pixel, the 18 ``closest`` of the others, most correlated first, and the
    18 nearest to the threshold, least correlated first.
    """

    study: Literal["duplicates"] = "duplicates"
    data: Data
    against: Data | None
    compared_at: int
    identical: int
    counts: list[Count]
    pairs: dict[str, list[Pair]]

    def table(self) -> str:
        """Near-duplicates at the threshold and at higher ones."""
        lines = (
            f"{c.threshold:9g}  {c.images:15,}  {c.images / self.data.images:9.2%}"
            for c in self.counts
        )
        return "\n".join(["threshold  near-duplicates  of images", *lines])
