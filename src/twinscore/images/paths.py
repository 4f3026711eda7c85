"""A path becomes an image set: its ending tells which loader reads it."""

from collections.abc import Callable
from pathlib import Path

from twinscore.errors import InputError
from twinscore.images import packed
from twinscore.images.arrays import load_array
from twinscore.images.files import load_folder
from twinscore.images.idx import is_idx, load_idx_file
from twinscore.images.imageset import ImageSet
from twinscore.images.tables import load_parquet_path
from twinscore.images.transforms import Options


def _load_safetensors(path: Path, options: Options) -> ImageSet:
    load = packed.load if packed.is_packed(path) else load_array
    return load(path, options)


_LOADERS: dict[str, Callable[[Path, Options], ImageSet]] = {
    ".npy": load_array,
    ".npz": load_array,
    ".pt": load_array,
    ".pth": load_array,
    ".safetensors": _load_safetensors,
    "-ubyte": load_idx_file,
    "-ubyte.gz": load_idx_file,
    ".idx": load_idx_file,
    ".idx.gz": load_idx_file,
    ".parquet": load_parquet_path,
}


def load_path(path: str, options: Options) -> ImageSet:
    """Load a folder of pictures, a packed file or a file of arrays.

    Files are ``.npy``, ``.npz``, ``.safetensors``, ``.pt``, ``.pth`` or ``.parquet``; or IDX, by
    their ending (``-ubyte``, ``.idx``, either with ``.gz``) or, under any other name, by their
    first bytes. InputError when there is no such path, it is something else, or what it holds
    cannot be used.
    """
    found = Path(path)
    if found.is_dir():
        return load_folder(found, options)
    if not found.is_file():
        raise InputError(f"{path!r}: is neither a folder nor a regular file; give one of these")
    for ending, load in _LOADERS.items():
        if found.name.lower().endswith(ending):
            return load(found, options)
    if is_idx(found):
        return load_idx_file(found, options)
    raise InputError(
        f"{path!r}: not a source of images; "
        "give a folder, an IDX file, or one of .npy, .npz, .safetensors, .pt, .pth, .parquet"
    )
