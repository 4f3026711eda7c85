"""A path becomes an image set: a folder, a picture, or arrays, each with the reader of its kind."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from twinscore.errors import InputError
from twinscore.images import packed
from twinscore.images.arrays import load_array
from twinscore.images.content import kind_of
from twinscore.images.files import load_file, load_folder
from twinscore.images.formats import SUFFIXES
from twinscore.images.idx import is_idx, load_idx_file
from twinscore.images.imageset import ImageSet
from twinscore.images.tables import load_parquet_path
from twinscore.images.transforms import Options

LEVELS = ("depth", "window")
"""Options of sources whose numbers may mean several intensities."""


@dataclass(frozen=True)
class Reader:
    """What loads a path.

    Attributes
    ----------
    load : callable
        ``load(path, options) -> ImageSet``.
    keys : tuple of str
        Options it takes besides those of every source.
    """

    load: Callable[[Path, Options], ImageSet]
    keys: tuple[str, ...] = ()


_ARRAYS = Reader(load_array, keys=("key", "layout", *LEVELS))
_IDX = Reader(load_idx_file, keys=LEVELS)
_IMAGES = Reader(load_file, keys=("axis", *LEVELS))
_FOLDER = Reader(load_folder, keys=("axis", *LEVELS))
_PACKED = Reader(packed.load)
READERS: dict[str, Reader] = {
    ".npy": _ARRAYS,
    ".npz": _ARRAYS,
    ".pt": _ARRAYS,
    ".pth": _ARRAYS,
    ".safetensors": _ARRAYS,
    "-ubyte": _IDX,
    "-ubyte.gz": _IDX,
    ".idx": _IDX,
    ".idx.gz": _IDX,
    ".parquet": Reader(load_parquet_path, keys=LEVELS),
}
"""What reads a file that is no image, by the end of its name."""


def load_path(path: str, options: Options) -> ImageSet:
    """Load a folder of images, an image or volume, a packed file or a file of arrays.

    Files of arrays are known by their ending, ``READERS``; any other is what its first bytes say.
    InputError when there is no such path, it is something else, what it holds cannot be used, or an
    option is for others.
    """
    found = Path(path)
    reader = _reader(found, path)
    given = [key for key in ("axis", "layout", *LEVELS) if getattr(options, key) is not None]
    for key in (*given, *options.extra):
        if key not in reader.keys:
            takes = f"; it takes {', '.join(reader.keys)}" if reader.keys else ""
            raise InputError(f"{path!r}: {key} is not for what this is{takes}")
    return reader.load(found, options)


def _reader(found: Path, path: str) -> Reader:
    if found.is_dir():
        return _FOLDER
    if not found.is_file():
        raise InputError(f"{path!r}: is neither a folder nor a regular file; give one of these")
    name = found.name.lower()
    if name.endswith(".safetensors") and packed.is_packed(found):
        return _PACKED
    for ending, reader in READERS.items():
        if name.endswith(ending):
            return reader
    if kind_of(found) is not None or name.endswith(SUFFIXES):
        return _IMAGES
    if is_idx(found):
        return _IDX
    raise InputError(
        f"{path!r}: not a source of images; "
        "give a folder, an image, an IDX file, or one of .npy, .npz, .safetensors, .pt, .pth, "
        ".parquet"
    )
