"""Foreign denoisers: networks that follow other conventions become ``x_hat = f(y, sigma)``.

Whatever maps ``(y, sigma)``, sigma a (B,) tensor, to a clean estimate of the same shape is a
denoiser already, and needs none of these. They are for networks that predict something else, whose
images have another range, or that are to take a float too when they are called directly. Most
follow a convention with a name (:func:`converted`); ``docs/models.md`` has the table.
"""

from twinscore.denoisers.adapters.adapted import (
    Adapted,
    level_per_image,
    residual_predicting,
    with_range,
)
from twinscore.denoisers.adapters.conventions import CONVENTIONS, Convention, edm, trigflow
from twinscore.denoisers.adapters.times import flow_time, linear_table, tabulated
from twinscore.denoisers.adapters.wiring import RANGES, Wiring, converted, wiring_of, wirings

__all__ = [
    "CONVENTIONS",
    "RANGES",
    "Adapted",
    "Convention",
    "Wiring",
    "converted",
    "edm",
    "flow_time",
    "level_per_image",
    "linear_table",
    "residual_predicting",
    "tabulated",
    "trigflow",
    "wiring_of",
    "wirings",
    "with_range",
]
