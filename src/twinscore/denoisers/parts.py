"""What a callable computes from: the networks, numbers and code that can be reached from it.

A function of the user's own may hold its network in a closure, a global, a partial, a list or an
attribute. The walk follows all of these, through objects and code of the user's; of an installed
package it takes the name for the content, and follows what its objects and closures hold.
"""

import dis
import functools
import hashlib
import inspect
import re
import sys
import sysconfig
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from logging import Logger
from pathlib import Path, PurePath
from types import (
    BuiltinFunctionType,
    CellType,
    ClassMethodDescriptorType,
    CodeType,
    FunctionType,
    MethodDescriptorType,
    MethodType,
    MethodWrapperType,
    ModuleType,
    WrapperDescriptorType,
)
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_PLAIN = (
    *(type(None), bool, int, float, complex, str, bytes, range, slice, type(...), np.generic),
    *(np.dtype, torch.dtype, torch.device, torch.layout, torch.memory_format, re.Pattern, Enum),
)
_OF_EVERY_MODULE = frozenset(vars(nn.Module())) - {"_forward_hooks", "_forward_pre_hooks"}

_TRACED = (torch.jit.ScriptModule, torch.fx.GraphModule)
"""Networks that are known by code of their own."""
_SETTING_UP = ("__init__", "__new__", "__post_init__", "__init_subclass__")
_READING = frozenset(
    (
        *("open", "load", "load_file", "safe_open", "load_model", "load_state_dict", "memmap"),
        *("from_pretrained", "fromfile", "read_bytes", "read_text", "read_json"),
        *("import_module", "__import__", "exec", "globals"),
    )
)
"""Names of functions that bring in what cannot be seen before they are called."""

_PACKAGE = Path(__file__).resolve().parents[1]
_STANDARD = tuple(Path(sysconfig.get_path(kind)).resolve() for kind in ("stdlib", "platstdlib"))
OF_A_FILE = "twinscore_model_"
"""How the names of modules begin that a model's file is run as."""


class Unseen(ValueError):  # noqa: N818
    """Something that a callable computes from, and that cannot be looked into."""


def networks(function: Any) -> list[nn.Module]:
    """Every network that a callable reaches, outermost ones alone, in the order of the walk."""
    found = [leaf for leaf in _walk(function) if isinstance(leaf, nn.Module)]
    inner = {id(part) for module in found for part in list(module.modules())[1:]}
    return [module for module in found if id(module) not in inner]


def trains(function: Any) -> bool:
    """Whether it, or a network that it reaches, is in training mode."""
    own = getattr(function, "training", False) is True
    return own or any(part.training for net in networks(function) for part in net.modules())


def fingerprint(function: Any, *, partly: bool = False) -> str:
    """Sha256 (hex) of what a callable computes from, except the state of :func:`networks`.

    With ``partly``, what cannot be seen is left out.

    Raises
    ------
    Unseen
        If a part of it cannot be seen: what a C extension holds, or a function reads or caches.
    """
    found = hashlib.sha256()
    for leaf in _walk(function):
        if isinstance(leaf, Unseen):
            if partly:
                continue
            raise leaf
        if isinstance(leaf, nn.Module):
            leaf = f"network {_named(type(leaf))} {_traced(leaf)}"
        if isinstance(leaf, FunctionType):
            leaf = _source(leaf)
        if isinstance(leaf, Tensor | np.ndarray):
            hash_values(found, leaf)
        else:
            found.update(f"{len(leaf)} {leaf} ".encode())
    return found.hexdigest()


def hash_values(found: Any, value: Tensor | np.ndarray) -> None:
    """Add shape, type and content of a tensor or an array to a hash."""
    found.update(f"{tuple(value.shape)} {value.dtype} ".encode())
    if isinstance(value, Tensor):
        dense = value.detach().cpu().resolve_conj().resolve_neg().contiguous()
        found.update(dense.flatten().view(torch.uint8).numpy())
    else:
        found.update(np.ascontiguousarray(value).tobytes())


def of_a_library(module: str | None) -> bool:
    """Whether a module of this name is Python's, installed, or of this package."""
    package = sys.modules.get((module or "builtins").partition(".")[0])
    if package is None or package.__name__ == "__main__":
        return False
    file = getattr(package, "__file__", None)
    if file is None:
        return package.__name__ in sys.stdlib_module_names
    if package.__name__.startswith(OF_A_FILE):
        return False
    path = Path(file).resolve()
    installed = {"site-packages", "dist-packages"} & set(path.parts)
    return bool(installed) or any(map(path.is_relative_to, (_PACKAGE, *_STANDARD)))


Leaf = str | Tensor | np.ndarray | nn.Module | FunctionType | Unseen
Found = tuple[list[Leaf], list[Any]]
"""What a value is, and the parts that it holds."""


def _walk(root: Any) -> Iterator[Leaf]:
    """Every part once, in an order that is the same in every process.

    A network of an installed package is known by its name, its state and its plain attributes; what
    else it holds need not be seen.
    """
    stack, places, kept = [(root, True)], {}, []
    while stack:
        value, strict = stack.pop()
        if isinstance(value, _PLAIN):
            yield f"{type(value).__name__} {value!r}"
            continue
        if id(value) in places:
            yield f"again {places[id(value)]}"
            continue
        places[id(value)] = len(places)
        kept.append(value)  # so that no id is used twice
        open_it = next((take for kinds, take in _KINDS if isinstance(value, kinds)), None)
        if open_it is None and not strict:
            continue
        leaves, inner = (open_it or _object)(value)
        yield from (leaf for leaf in leaves if strict or not isinstance(leaf, Unseen))
        strict = strict and not _of_another(value)
        stack.extend((part, strict) for part in reversed(inner))


def _of_another(value: Any) -> bool:
    """Whether it is a network of an installed package."""
    owner = type(value).__module__
    ours = owner.startswith("twinscore.")
    return isinstance(value, nn.Module) and not ours and of_a_library(owner)


def _list(value: Any) -> Found:
    return [f"{type(value).__name__} of {len(value)}"], list(value)


def _set(value: Any) -> Found:
    return [f"set of {len(value)}"], sorted(value, key=repr)


def _mapping(value: Mapping[Any, Any]) -> Found:
    return [f"mapping of {len(value)}"], [part for item in value.items() for part in item]


def _array(value: np.ndarray) -> Found:
    return _list(value.ravel()) if value.dtype.hasobject else ([value], [])


def _tensor(value: Tensor) -> Found:
    if value.is_meta or value.layout != torch.strided:
        return [f"tensor {tuple(value.shape)}"], []
    return [value], []


def _partial(value: Any) -> Found:
    return ["partial"], [value.func, value.args, value.keywords]


def _method(value: Any) -> Found:
    return ["method"], [value.__self__, value.__func__]


def _cell(value: CellType) -> Found:
    try:
        return ["cell"], [value.cell_contents]
    except ValueError:  # not filled
        return ["empty cell"], []


def _named_only(value: Any) -> Found:
    return [_named(value)], []


def _builtin(value: Any) -> Found:
    """A function of C, perhaps of an object."""
    owner = getattr(value, "__self__", None)
    return [_named(value)], [] if owner is None or isinstance(owner, ModuleType) else [owner]


def _cached(value: Any) -> Found:
    if of_a_library(value.__module__):
        return [_named(value)], []
    return [Unseen(f"what {_named(value)} has cached")], []


def _function(value: FunctionType, *, runs: bool = True) -> Found:
    """Code, and what it takes from outside; ``runs``: called to denoise, rather than to set up."""
    held = [value.__defaults__, value.__kwdefaults__, value.__closure__]
    held.append(vars(value).get("__wrapped__"))
    if of_a_library(value.__module__):
        return [_named(value)], held
    use = _use(value.__code__)
    leaves: list[Leaf] = [value]
    if runs and (reading := sorted((use.names | use.attributes) & _READING)):
        leaves.append(Unseen(f"what {_named(value)} brings in by {reading[0]}"))
    if runs and use.rebinds:
        leaves.append(Unseen(f"the global names that {_named(value)} sets"))
    return leaves, [*held, *_outside(use, value.__globals__)]


def _class(value: type) -> Found:
    """A class of the user's: its functions, plain values, and bases."""
    if of_a_library(value.__module__):
        return [_named(value)], []
    leaves: list[Leaf] = [_named(value)]
    inner: list[Any] = [base for base in value.__bases__ if base is not object]
    for name, part in sorted(vars(value).items()):
        function = part.fget if isinstance(part, property) else getattr(part, "__func__", part)
        if isinstance(part, classmethod) or name in _SETTING_UP:
            leaves += [function] if isinstance(function, FunctionType) else []
        elif isinstance(function, FunctionType):
            own, held = _function(function, runs=name in ("__call__", "forward"))
            leaves, inner = [*leaves, *own], [*inner, *held]
        elif not hasattr(part, "__get__") and not name.startswith(("__", "_abc_")):
            inner += [name, part]
    return leaves, inner


def _module(value: nn.Module) -> Found:
    """A network: itself, its parts, and whatever it holds besides its state."""
    held = {
        name: list(part.values()) if name.startswith("_forward") else part
        for name, part in vars(value).items()
        if name not in _OF_EVERY_MODULE and not isinstance(value, _TRACED)
    }
    lost = value._non_persistent_buffers_set
    buffers = {name: part for name, part in value._buffers.items() if name in lost}
    return [value], [type(value), dict(value._modules), buffers, held]


def _object(value: Any) -> Found:
    """Any other object: its class and its attributes."""
    kind = type(value)
    slots = [name for each in kind.__mro__ for name in vars(each).get("__slots__", ())]
    if not slots and not hasattr(value, "__dict__") and kind is not object:
        return [Unseen(f"what an object of {_named(kind)} holds")], []
    held = {name: getattr(value, name) for name in slots if hasattr(value, name)}
    held |= getattr(value, "__dict__", {})
    held.pop("__weakref__", None)
    return [f"object {_named(kind)}"], [kind, held]


_KINDS: tuple[tuple[Any, Callable[[Any], Found]], ...] = (
    (nn.Module, _module),
    (Tensor, _tensor),
    (np.ndarray, _array),
    (PurePath, lambda value: ([f"path {value.name}"], [])),
    (ModuleType, _named_only),
    (Mapping, _mapping),
    (list | tuple, _list),
    (set | frozenset, _set),
    (functools.partial, _partial),
    (MethodType, _method),
    (CellType, _cell),
    (functools._lru_cache_wrapper, _cached),
    (FunctionType, _function),
    (type, _class),
    ((BuiltinFunctionType, MethodWrapperType), _builtin),
    ((WrapperDescriptorType, MethodDescriptorType, ClassMethodDescriptorType), _named_only),
    ((Logger, type(threading.Lock()), type(threading.RLock())), lambda value: ([], [])),
    (weakref.ReferenceType, lambda value: (["reference"], [value()])),
)


def _named(value: Any) -> str:
    owner = getattr(value, "__module__", None) or ""
    name = getattr(value, "__qualname__", None) or getattr(value, "__name__", type(value).__name__)
    return name if owner.startswith(OF_A_FILE) else f"{owner}.{name}"


def _traced(network: nn.Module) -> str:
    """The code of a network that has its own, without the places where it was written."""
    if isinstance(network, torch.jit.ScriptModule):
        return re.sub(r"# .*|___torch_mangle_\d+\.", "", str(network.inlined_graph))
    return network.code if isinstance(network, torch.fx.GraphModule) else ""


def _source(function: FunctionType) -> str:
    """The text of a function; its code where there is no file, which differs between Pythons."""
    try:
        return inspect.getsource(function)
    except (OSError, TypeError, SyntaxError):
        codes = _codes(function.__code__)
        return " ".join(f"{code.co_code.hex()} {code.co_names}" for code in codes)


def _codes(code: CodeType) -> Iterator[CodeType]:
    """A function's code, and that of the functions inside it."""
    yield code
    for part in code.co_consts:
        if isinstance(part, CodeType):
            yield from _codes(part)


@dataclass(frozen=True)
class _Use:
    """Global names and attributes that code reads, what it imports, whether it sets globals."""

    names: frozenset[str]
    attributes: frozenset[str]
    imported: frozenset[str]
    rebinds: bool


@functools.lru_cache(maxsize=1024)
def _use(code: CodeType) -> _Use:
    steps = [(s.opname, s.argval) for part in _codes(code) for s in dis.get_instructions(part)]

    def of(*operations: str) -> frozenset[str]:
        return frozenset(name for operation, name in steps if operation in operations)

    names, attributes = of("LOAD_GLOBAL", "LOAD_NAME"), of("LOAD_ATTR", "LOAD_METHOD")
    return _Use(names, attributes | of("IMPORT_FROM"), of("IMPORT_NAME"), bool(of("STORE_GLOBAL")))


def _outside(use: _Use, space: Mapping[str, Any]) -> list[Any]:
    """The values of names in a module, and of attributes of modules of the user's among them."""
    values = [space[name] for name in sorted(use.names & space.keys())]
    values += [sys.modules[name] for name in sorted(use.imported & sys.modules.keys())]
    found, seen = [], set()
    while values:
        value = values.pop()
        if not isinstance(value, ModuleType):
            found.append(value)
        elif value.__name__ not in seen and not of_a_library(value.__name__):
            seen.add(value.__name__)
            values += [vars(value)[name] for name in sorted(use.attributes & vars(value).keys())]
    return found
