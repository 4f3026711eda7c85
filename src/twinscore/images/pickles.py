"""What a file of tensors may ask PyTorch to make, looked at before anything is made.

``torch.load(..., weights_only=True)`` runs no code of the file, but builds what it is told to: of
two dozen bytes an array of any size.
"""

import pickletools
from pickle import UnpicklingError

import torch

_MAKERS = {
    "collections OrderedDict",
    "torch Size",
    "torch.storage UntypedStorage",
    "torch._utils _rebuild_parameter",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_tensor_v3",
}
_OTHER_WAYS = {"STACK_GLOBAL", "INST", "OBJ", "EXT1", "EXT2", "EXT4"}


def require_tensors(pickled: bytes) -> None:
    """Refuse a pickle that makes anything but tensors, numbers, texts and what holds them.

    Raises
    ------
    UnpicklingError
        When it does; ValueError when it is not a pickle.
    """
    for opcode, argument, _ in pickletools.genops(pickled):
        if opcode.name in _OTHER_WAYS or (opcode.name == "GLOBAL" and not _is_plain(argument)):
            raise UnpicklingError(f"makes {argument or opcode.name}")


def _is_plain(maker: str) -> bool:
    module, _, name = maker.partition(" ")
    if maker in _MAKERS:
        return True
    is_dtype = isinstance(getattr(torch, name, None), torch.dtype)
    return module == "torch" and (name.endswith("Storage") or is_dtype)
