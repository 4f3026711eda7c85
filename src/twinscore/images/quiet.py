"""Silence from libraries that warn about what nobody reads."""

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

_ONE_AT_A_TIME = threading.RLock()


@contextmanager
def quiet() -> Iterator[None]:
    """Ignore warnings, for one thread at a time: the filters belong to the whole process.

    Two threads that did so at once could each restore what the other had set.
    """
    with _ONE_AT_A_TIME, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
