"""twinscore: did your diffusion model learn the distribution, or the training set?

>>> import twinscore as ts
>>> model = ts.load("gaussian:digits")
>>> samples = ts.sample(model, 4, seed=0)
>>> samples.shape
torch.Size([4, 1, 8, 8])
>>> model(samples, 0.5).shape
torch.Size([4, 1, 8, 8])
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from twinscore.facade import (
        audit,
        eigenpairs,
        load,
        nearest,
        sample,
        score,
        sure,
        transition,
    )
    from twinscore.report.page import figures

__all__ = [
    "audit",
    "eigenpairs",
    "figures",
    "load",
    "nearest",
    "sample",
    "score",
    "sure",
    "transition",
]


def __getattr__(name: str) -> Any:
    """Imported when it is asked for: starting takes a second less without torch."""
    if name == "__version__":
        from importlib.metadata import version

        return version("twinscore")
    if name == "figures":  # which need matplotlib, and no torch
        from twinscore.report.page import figures

        return figures
    if name in __all__:
        from twinscore import facade

        return getattr(facade, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__, "__version__"])
