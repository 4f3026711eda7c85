"""Libraries that come with an extra of this package."""

import importlib
from types import ModuleType

from twinscore.errors import InputError


def require(module: str, source: str, extra: str) -> ModuleType:
    """Import a module that comes with an extra.

    Raises
    ------
    InputError
        When it is not installed, with what installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        raise InputError(
            f"{source!r}: needs {module.partition('.')[0]}, which is not installed; "
            f"pip install 'twinscore[{extra}]'"
        ) from None
