"""Python files of the user's: a function that gives a model, or the class of a network to train."""

import hashlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from twinscore.denoisers import parts
from twinscore.errors import InputError


def called(file: Path, name: str) -> tuple[Any, str]:
    """Run the user's file and call its function: what it returns, and the digest of the file.

    Raises
    ------
    InputError
        If the file cannot be read, or what it does raises an exception.
    """
    with _run(file, f"{file}:{name}: cannot be called") as (module, content):
        return getattr(module, name)(), content


def identified(function: Any, where: str) -> str:
    """Name all that a callable of the user's computes from, but for the state of its networks.

    Raises
    ------
    InputError
        If a part of it cannot be seen.
    """
    try:
        return parts.fingerprint(function)
    except parts.Unseen as unseen:
        raise InputError(
            f"{where}: cannot tell one version of it from another: {unseen} cannot be seen from "
            "outside; load everything before, in the function that is named, or return "
            "Checkpoint(denoiser, shape, mean, content=...) with a text that changes when it does"
        ) from None


class NetworkClass:
    """The class ``Net`` of ``FILE.py:Net``, a network to train, once its signature is checked.

    Attributes
    ----------
    source : str
        ``FILE.py:Net``, of the whole path.
    digest : str
        Of the class and of all that it refers to, wherever the file lies.
    told : bool
        Whether it takes the noise level.

    Raises
    ------
    InputError
        If there is no such class, or it is not called as ``Net(channels)`` and ``(y, sigma)``, or
        ``(y)``.
    """

    def __init__(self, source: str) -> None:
        found = re.fullmatch(r"(.+\.py):(\w+)", source)
        if not found:
            raise InputError(
                f"{source!r} is not FILE.py:CLASS, a torch.nn.Module that is made as "
                "CLASS(channels) and called with (y, sigma)"
            )
        self._file, self._name = Path(found[1]).resolve(), found[2]
        self.source = f"{self._file}:{self._name}"
        with _run(self._file, f"{source}: cannot be run") as (module, _):
            kind = getattr(module, self._name, None)
            self.digest = parts.fingerprint(kind, partly=True)
        if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
            raise InputError(f"{source}: is not a class of torch.nn.Module; name one")
        self.told = _takes(kind.forward, None, None, None)
        blind = _takes(kind.forward, None, None)
        if not (self.told or blind) or kind.forward is nn.Module.forward:
            raise InputError(
                f"{source}: its forward{inspect.signature(kind.forward)} does not take (y, sigma), "
                "nor y alone; give forward(self, y, sigma), images (B, C, H, W) and sigma (B,)"
            )
        args, options = _given(kind, 1, 0)
        if not _takes(kind, *args, **options):
            raise InputError(
                f"{source}: {self._name}{inspect.signature(kind)} cannot be made of the number of "
                "channels alone; give its other arguments a default"
            )

    def made(self, channels: int, seed: int) -> nn.Module:
        """A network of images of so many channels, its weights drawn from ``seed``.

        The class is given ``seed`` if it has an argument of that name; torch's global random state
        is of that seed meanwhile, and afterwards what it was.

        Raises
        ------
        InputError
            If the class raises an exception.
        """
        where = f"{self._file.name}:{self._name}: cannot be made of {channels} channels"
        with _run(self._file, where) as (module, _), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            kind = getattr(module, self._name)
            args, options = _given(kind, channels, seed)
            network = kind(*args, **options)
        return network if self.told else Untold(network)


class Untold(nn.Module):
    """A network of y alone, called with a noise level that it does not need."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, y: Tensor, sigma: float | Tensor | None = None) -> Tensor:
        """Clean estimate of ``y``, (B, C, H, W)."""
        return self.network(y)


def _takes(function: Callable[..., Any], *args: Any, **options: Any) -> bool:
    try:
        inspect.signature(function).bind(*args, **options)
    except TypeError:
        return False
    return True


def _given(kind: type, channels: int, seed: int) -> tuple[tuple[int, ...], dict[str, int]]:
    """What a class is made of: channels, by name if it has the name, and a seed if it takes one."""
    known = inspect.signature(kind).parameters
    options = {n: v for n, v in (("channels", channels), ("seed", seed)) if n in known}
    return () if "channels" in known else (channels,), options


@contextmanager
def _run(file: Path, otherwise: str) -> Iterator[tuple[Any, str]]:
    """Run a file that is :func:`importable` meanwhile: its module, and the digest of its bytes.

    What is raised becomes an InputError that begins with ``otherwise``.
    """
    with importable(file) as content:
        try:
            yield module_of(file, content), content
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise InputError(f"{otherwise}: {reason}") from error


@contextmanager
def importable(file: Path) -> Iterator[str]:
    """Make what lies beside a file importable, anew each time, and give the file's digest.

    Raises
    ------
    InputError
        If the file cannot be read.
    """
    try:
        content = hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror or error}") from None
    folder, path, known = file.parent.resolve(), list(sys.path), set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        yield content
    finally:
        sys.path[:] = path
        for module in set(sys.modules) - known:
            source = getattr(sys.modules[module], "__file__", None) or "/"
            if Path(source).is_relative_to(folder) and not parts.of_a_library(module):
                del sys.modules[module]


def module_of(file: Path, content: str) -> Any:
    """Run a file that is :func:`importable`, with this digest: its module."""
    spec = importlib.util.spec_from_file_location(f"{parts.OF_A_FILE}{content[:16]}", file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
