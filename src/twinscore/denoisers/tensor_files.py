"""Tensors of a file that torch.save wrote, and nothing else of it.

Such a file is a zip archive: numbers, and a pickle that says which tensors they are. That pickle
is never executed. Its opcodes are read one by one, those alone that describe tensors are
understood, and no tensor is made that does not lie within the numbers of the file. So nothing is
run, and the memory that is taken is bounded by the size of the file.
"""

import math
import pickletools
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from twinscore.errors import InputError

DTYPES = {
    "torch FloatStorage": torch.float32,
    "torch DoubleStorage": torch.float64,
    "torch HalfStorage": torch.float16,
    "torch BFloat16Storage": torch.bfloat16,
    "torch LongStorage": torch.int64,
    "torch IntStorage": torch.int32,
}
_DICT, _TENSOR, _PARAMETER = (
    "collections OrderedDict",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
)
_MARK = object()
_LITERALS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_NUMBERS = ("BININT", "BININT1", "BININT2", "LONG1", "BINUNICODE")


def read(file: Path) -> Any:
    """What a file holds: tensors, in dicts by name where there are several.

    Raises
    ------
    InputError
        If it cannot be read, or is not such a file.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            entries = {entry.filename.partition("/")[2]: entry for entry in archive.infolist()}
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries.values()):
                raise ValueError("torch.save compresses nothing")
            if sum(entry.file_size for entry in entries.values()) > file.stat().st_size:
                raise ValueError("entries larger than the file")

            def numbers(name: str) -> bytes:
                return archive.read(entries[f"data/{name}"])

            return _described(archive.read(entries["data.pkl"]), numbers)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}") from None
    except Exception:  # the readers may raise anything on damaged bytes
        raise InputError(
            "not a file of tensors that torch.save wrote (since PyTorch 1.6), or a damaged one"
        ) from None


def _described(description: bytes, numbers: Callable[[str], bytes]) -> Any:
    """What a pickle describes, of the few opcodes with which torch.save describes tensors."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    storages: dict[str, Tensor] = {}

    def since_mark() -> list[Any]:
        start = max(i for i, each in enumerate(stack) if each is _MARK)
        found = stack[start + 1 :]
        del stack[start:]
        return found

    for opcode, argument, _ in pickletools.genops(description):
        match opcode.name:
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                [whole] = stack
                return whole
            case "MARK":
                stack.append(_MARK)
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE":
                stack.append(tuple(since_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = int(opcode.name[-1])
                stack[-count:] = [tuple(stack[-count:])]
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "GLOBAL":
                stack.append(_Name(argument))
            case "BINPERSID":
                stack.append(_storage(stack.pop(), storages, numbers))
            case "REDUCE":
                given = stack.pop()
                stack.append(_made(stack.pop(), given))
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                _put(stack[-1], [key, value])
            case "SETITEMS":
                _put(stack[-2 - stack[::-1].index(_MARK)], since_mark())
            case "BUILD":
                stack.pop()  # versions of layers
            case name if name in _LITERALS:
                stack.append(_LITERALS[name])
            case name if name in _NUMBERS:
                stack.append(argument)
            case name:
                raise ValueError(f"{name} describes no tensor")
    raise ValueError("no end")


class _Name(str):
    """The name of a global, which is only ever compared."""


def _put(whole: Any, items: list[Any]) -> None:
    if type(whole) is not dict or not all(isinstance(key, str | int) for key in items[::2]):
        raise ValueError("items of something else than a dict")
    whole.update(zip(items[::2], items[1::2], strict=True))


def _storage(given: Any, storages: dict[str, Tensor], numbers: Callable[[str], bytes]) -> Tensor:
    """All numbers of an entry of the archive, read once."""
    kind, dtype, name, _, count = given
    if kind != "storage" or type(dtype) is not _Name:
        raise ValueError("not a storage")
    if name not in storages:
        content = numbers(name)
        if len(content) != count * DTYPES[dtype].itemsize:
            raise ValueError("another number of bytes")
        storages[name] = torch.frombuffer(bytearray(content), dtype=DTYPES[dtype])
    return storages[name]


def _made(function: Any, given: tuple[Any, ...]) -> Any:
    """What a function that describes a tensor would give."""
    if type(function) is not _Name:
        raise ValueError("not a function")
    if function == _DICT and not given:
        return {}
    if function == _PARAMETER:
        return given[0]
    if function != _TENSOR:
        raise ValueError(f"{function} is not of a tensor")
    storage, offset, size, stride, *_ = given
    if len(size) != len(stride) or min(offset, *size, *stride, 0) < 0:
        raise ValueError("a shape that is impossible")
    steps = sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if math.prod(size) > len(storage) or (math.prod(size) and offset + steps >= len(storage)):
        raise ValueError("a tensor outside its storage")
    return storage.as_strided(size, stride, offset)
