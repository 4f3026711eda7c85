"""Which reader takes an existing path: a folder of pictures, a packed file or an array file."""

from pathlib import Path

from twinscore.errors import InputError
from twinscore.images import packed
from twinscore.images.arrays import load_array
from twinscore.images.files import load_folder
from twinscore.images.imageset import ImageSet
from twinscore.images.transforms import Options


def load_path(path: str, options: Options) -> ImageSet:
    """Load a folder of pictures, a packed file or an array file.

    Parameters
    ----------
    path : str
        A folder, a ``.npy``, a ``.npz`` or a packed ``.safetensors`` file.
    options : Options
        Applied to every image.

    Returns
    -------
    ImageSet

    Raises
    ------
    InputError
        When there is no such path, it is something else, or what it holds cannot be used.
    """
    found = Path(path)
    if found.is_dir():
        return load_folder(found, options)
    if found.suffix.lower() == ".safetensors" and packed.is_packed(found):
        return packed.load(found, options)
    if found.suffix.lower() in (".npy", ".npz"):
        return load_array(found, options)
    raise InputError(
        f"{path!r}: not a source of images; give a folder, a .npy or a .npz file, "
        "or what twinscore prepare wrote"
    )
