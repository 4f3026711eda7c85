"""Images that a caller gives to a study: written as a packed file, which is the study's source.

So workers read them, a run continues, and the command line takes them up, as with any other source.
"""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from twinscore import images, runs
from twinscore.errors import InputError
from twinscore.images import Given, packed

FILE = "images.safetensors"
"""The packed file in the run's folder."""


@contextmanager
def packed_file(given: Given) -> Iterator[Path]:
    """A packed file of the images, outside the run's folder until nothing speaks against the run.

    InputError when they cannot be used (:func:`twinscore.images.from_data`).
    """
    found = images.from_data(given)
    with tempfile.TemporaryDirectory(prefix="twinscore-") as folder:
        file = Path(folder) / FILE
        packed.write(file, found, source=f"{type(given).__name__} in memory")
        yield file


def keep(file: Path, folder: Path) -> None:
    """Copy the packed file into the run's folder, unless its images are there."""
    kept, digest = folder / FILE, images.load(file).digest
    try:
        if kept.exists() and images.load(kept).digest == digest:
            return
    except InputError:  # damaged
        pass
    runs.write_atomic(kept, lambda temporary: shutil.copyfile(file, temporary))
