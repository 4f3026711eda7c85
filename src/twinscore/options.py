"""Options of a command: words become an instance; every error is one line.

Pydantic reads the values and says what is wrong with them. tyro draws the help, nothing else.
"""

import os
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, field, fields, make_dataclass
from difflib import get_close_matches
from pathlib import Path
from textwrap import shorten
from types import NoneType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from twinscore.errors import InputError, one_line
from twinscore.runs import require_utf8

SHORT = {"--quality": "--sampling.quality"}
"""Flags that may be written without the part of the spec that they belong to."""

SHELLS = ("bash", "zsh")
"""What :func:`print_completion` knows."""

_SPEC = {"--spec", "--spec="}
_Flags = Mapping[str, tuple[tuple[str, ...], Any]]
"""For each flag the path of its field, and its type."""


def parse(words: Sequence[str], options: type, spec_type: type | None, command: str) -> Any:
    """Read a command's options; defaults come from ``--spec``, flags override them.

    A flag is the path of a field, joined by dots, and is given once.

    Parameters
    ----------
    words : sequence of str
        Words after the command.
    options : type
        Dataclass of the options besides the spec; those without a default are given by position.
    spec_type : type or None
        Pydantic model of the study's spec.
    command : str
        Name of the command.

    Returns
    -------
    options
        An instance; its field ``spec``, if ``spec_type`` is given, holds the spec.

    Raises
    ------
    InputError
        One line for the first thing wrong.
    SystemExit
        With code 0, after ``--help``.
    """
    from pydantic import TypeAdapter, ValidationError

    whole = options if spec_type is None else _with_spec(options, spec_type)
    placed = [each.name for each in fields(whole) if each.default is MISSING]
    kinds = get_type_hints(whole)
    flags = _flags({name: kind for name, kind in kinds.items() if name not in placed})
    runs = _runs(words)
    helped = any(flag in {"-h", "--help"} for flag, *_ in runs)
    given, loose = _read([run for run in runs if not helped or run[0] in _SPEC], flags)
    values: dict[str, Any] = {}
    if spec_type is not None:
        values["spec"] = _defaults(given.pop("--spec", None), spec_type)
    if helped:
        _help(options, spec_type, values, command)
    for flag in sorted(given, key=lambda flag: len(flags[flag][0])):  # the whole before its parts
        _put(values, flags[flag][0], given[flag])
    values |= _by_position(loose, placed, command)
    try:
        return TypeAdapter(whole).validate_python(values)
    except ValidationError as error:
        raise InputError(_first_error(error, _spelt)) from None


def _with_spec(options: type, kind: Any) -> type:
    """``options`` with a field ``spec`` of this type."""
    spec = ("spec", kind, field(default=None, kw_only=True))
    return make_dataclass(options.__name__, [spec], bases=(options,), frozen=True)


def _flags(kinds: Mapping[str, Any], parents: tuple[str, ...] = ()) -> _Flags:
    """Flags of fields, and of the fields of those that are pydantic models."""
    found = {"--spec": ((), str)} if "spec" in kinds else {}
    for name, kind in kinds.items():
        path = (*parents, name)
        if hasattr(kind, "model_fields"):
            found |= _flags(_fields(kind), path)
            found |= {_spelt(path): (path, str)} if "root" in kind.model_fields else {}
        else:
            found[_spelt(path)] = (path, kind)
    return found


def _fields(model: Any) -> dict[str, Any]:
    """Types of a model's fields; of a union told apart by ``kind``, those of all kinds, or None."""
    if "root" not in model.model_fields:
        return {name: each.annotation for name, each in model.model_fields.items()}
    union = get_args(model.model_fields["root"].annotation)
    types = {name: kind | None for each in union for name, kind in _fields(each).items()}
    return types | {"kind": Literal[*(_kind(each) for each in union)]}


def _kind(model: Any) -> str:
    return model.model_fields["kind"].default


def _spelt(path: Iterable[str | int]) -> str:
    """The flag of a field, whatever its place in a list; empty for the spec as a whole."""
    parts = [part.replace("_", "-") for part in path if isinstance(part, str)]
    parts = parts[1:] if parts[:1] == ["spec"] else parts
    return f"--{'.'.join(parts)}" if parts else ""


def _runs(words: Sequence[str]) -> list[list[str]]:
    """Each flag and the words up to the next; those before the first flag, after an empty one.

    One that was given with its value ends with ``=``.
    """
    runs = [[""]]
    for word in words:
        if word.startswith("--") or word == "-h":
            flag, equals, value = word.partition("=")
            runs.append([f"{flag}=", value] if equals else [flag])
        else:
            runs[-1].append(word)
    return runs


def _read(runs: Sequence[Sequence[str]], flags: _Flags) -> tuple[dict[str, Any], list[str]]:
    """Values of flags, as text, and the words that belong to none."""
    given: dict[str, Any] = {}
    loose: list[str] = []
    for typed, *words in runs:
        if typed:
            flag = _known(typed.removesuffix("="), flags)
            if flag in given:
                raise InputError(f"{flag}: given twice; give it once")
            if flags[flag][1] is bool and typed.endswith("="):
                raise InputError(f"{flag}: takes no value, got {_shown(words[0])}; leave it out")
            given[flag], words = _take(flag, flags[flag][1], words)
            if flag != "--spec":
                _check_text(flag, given[flag])
        loose += words
    return given, loose


def _check_text(flag: str, value: Any) -> None:
    """Refuse bytes that are not UTF-8: what a spec says is written into the files of a run."""
    for word in [value] if isinstance(value, str) else value if isinstance(value, list) else []:
        require_utf8(flag, word)


def _known(typed: str, flags: _Flags) -> str:
    """A flag as the help spells it."""
    flag = typed.replace("_", "-")
    for spelt in (flag, SHORT.get(flag)):
        if spelt in flags:
            return spelt
    near = _near(flag.removeprefix("--"), [known.removeprefix("--") for known in flags])
    hint = f"did you mean --{' or --'.join(near)}?" if near else "--help lists the options"
    raise InputError(f"{_shown(typed)}: no such option; {hint}")


def _near(name: str, names: Sequence[str]) -> list[str]:
    """What may have been meant: a flag with its part left out, misspelt, or both."""
    last = {known: known.rpartition(".")[2] for known in names}
    within = [known for known in names if "." in known and last[known] == name]
    meant = get_close_matches(name, dict.fromkeys([*names, *last.values()]), n=1)
    whole = [known for known in names if known in meant]
    return within or whole or [known for known in names if last[known] in meant]


def _take(flag: str, kind: Any, words: list[str]) -> tuple[Any, list[str]]:
    """Value of a flag of this type, and the words that are left."""
    if NoneType in get_args(kind):
        if words[:1] == ["None"]:
            return None, words[1:]
        kind = next(kind for kind in get_args(kind) if kind is not NoneType)
    if kind is bool:
        return True, words
    several = get_args(kind) if get_origin(kind) is tuple else None
    count = 1 if several is None else len(words) if Ellipsis in several else len(several)
    if len(words) < count or "" in words[:count]:
        raise InputError(f"{flag}: give {'a value' if count == 1 else f'{count} values'} after it")
    if get_origin(kind) is Literal and words[0] not in get_args(kind):
        choices = ", ".join(get_args(kind))
        raise InputError(f"{flag}: give one of {choices}; got {_shown(words[0])}")
    return words[0] if several is None else words[:count], words[count:]


def _by_position(loose: Sequence[str], names: Sequence[str], command: str) -> dict[str, str]:
    """Values of the options without a flag."""
    stray = [word for word in loose if word.startswith("-")] or loose[len(names) :]
    if stray:
        raise InputError(f"{_shown(stray[0])}: no such option; --help lists the options")
    given = dict(zip(names, filter(None, loose), strict=False))
    for name in names[len(given) :]:
        missing = name.replace("_", " ")
        raise InputError(f"{command}: {missing} not given; name one after the command")
    return given


def _put(values: dict[str, Any], path: Sequence[str], value: Any) -> None:
    """Set a value in nested mappings, of which those on its path are copied."""
    *parents, name = path
    for parent in parents:
        if isinstance(values.get(parent), str):
            raise InputError(
                f"{_spelt(path)}: {parent} {values[parent]} has no {name}; leave it out"
            )
        values[parent] = dict(values.get(parent, {}))
        values = values[parent]
    values[name] = value


def _defaults(name: str | None, spec_type: type) -> dict[str, Any]:
    """Fields of a shipped spec or a YAML file, valid as they are."""
    from pydantic import ValidationError

    content = {} if name is None else _read_spec(name)
    try:
        spec_type.model_validate(content)
    except ValidationError as error:
        message = _first_error(error, lambda path: ".".join(map(str, path)))
        raise InputError(f"{name}: {message}") from None
    return content


def _read_spec(name: str) -> dict[str, Any]:
    """Content of a shipped spec or a YAML file."""
    from twinscore import spec_files

    names = spec_files.shipped()
    if name in names:
        return spec_files.read(spec_files.SHIPPED / f"{name}.yaml")
    if not os.path.lexists(name):
        near = get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]}?" if near else f"shipped: {', '.join(names)}"
        raise InputError(f"--spec: {_shown(name)} is neither a file nor a shipped spec; {hint}")
    return spec_files.read(Path(name))


def _first_error(error: Any, spelt: Callable[[Sequence[str | int]], str]) -> str:
    """``field: what is wrong`` of the first thing that a pydantic error lists."""
    first = error.errors()[0]
    field = spelt(first["loc"])
    if first["type"] == "value_error":
        text = shorten(one_line(first["ctx"]["error"]), 400, placeholder=" ...")
    elif first["type"] == "extra_forbidden":
        text = "no such field; --print-spec shows all of them"
    elif first["type"] in _NOT:
        text = f"{_shown(first['input'])} is not {_NOT[first['type']]}"
        text += _apart(first["input"]) if isinstance(first["loc"][-1], int) else ""
    elif first["type"] in _LENGTHS:
        word, key = _LENGTHS[first["type"]]
        text = f"give {word} {first['ctx'][key]} of them, got {first['ctx']['actual_length']}"
    else:
        text = f"{first['msg'].replace('Input should be', 'should be')}, got "
        text += _shown(first["input"])
    return f"{field}: {text}" if field else text


_NOT = {
    **dict.fromkeys(("int_parsing", "int_type", "int_from_float"), "a whole number"),
    "int_parsing_size": "a whole number of a usual size",
    **dict.fromkeys(("float_parsing", "float_type"), "a number"),
    **dict.fromkeys(("bool_parsing", "bool_type"), "True or False"),
}

_LENGTHS = {"too_short": ("at least", "min_length"), "too_long": ("at most", "max_length")}


def _apart(value: Any) -> str:
    """What to do where several values of a flag were given with commas between."""
    words = value.split(",") if isinstance(value, str) else []
    return f"; give several as {' '.join(words)}" if len(words) > 1 and all(words) else ""


def _shown(value: Any) -> str:
    """A value as it is typed, on one line, cut where it is long."""
    text = " ".join((shlex.quote(value) if isinstance(value, str) else repr(value)).split())
    return text if len(text) <= 80 else f"{text[:77]}..."


def _help(options: type, spec_type: type | None, values: dict[str, Any], command: str) -> None:
    """Print the help of a command, with defaults from a spec, and exit."""
    import tyro
    from pydantic import TypeAdapter

    prog, default = f"twinscore {command}", None
    if spec_type is not None:
        prog = f"{prog} [--spec NAME|FILE.yaml]"
        options = _with_spec(options, Annotated[spec_type, tyro.conf.arg(name="")])
        options.__doc__ = f"{spec_type.__doc__}\n\n{_specs_of(command)}"
        default = TypeAdapter(options).validate_python(values)
    with _models():
        tyro.cli(options, args=["--help"], default=default, prog=prog, config=_config())


def _specs_of(command: str) -> str:
    """What a command's help says of ``--spec``."""
    from twinscore.spec_files import shipped

    own = [name for name, study in shipped().items() if study == command]
    names = f" or a shipped spec ({', '.join(own)})" if own else ""
    return f"After --spec a YAML file{names} sets all options of the spec; flags override it."


def print_completion(shell: str, commands: Mapping[str, tuple[type, type | None]]) -> None:
    """Print the script by which a shell completes every command and its flags.

    Parameters
    ----------
    shell : str
        One of ``SHELLS``.
    commands : mapping
        For each command its options and its spec, as :func:`parse` takes them.
    """
    import tyro

    named = []
    for name, (options, spec_type) in commands.items():
        if spec_type is not None:
            spec = ("spec", Annotated[spec_type, tyro.conf.arg(name="")], field(kw_only=True))
            options = make_dataclass(options.__name__, [spec], bases=(options,), frozen=True)
        default = {} if spec_type is None else {"default": options(spec=spec_type())}
        named.append(Annotated[options, tyro.conf.subcommand(name=name, **default)])
    words = ["--tyro-print-completion", shell]
    with _models():
        tyro.cli(Union[tuple(named)], args=words, prog="twinscore", config=_config())  # noqa: UP007


def _config() -> tuple[Any, ...]:
    import tyro

    return (tyro.conf.FlagCreatePairsOff, tyro.conf.PositionalRequiredArgs)


def _models() -> Any:
    """Context in which tyro shows models as they are read.

    Of a union it shows the fields of every kind; by itself it makes subcommands. Of a field whose
    default is None it shows no default: its text says what happens then.
    """
    import tyro
    from pydantic import BaseModel, RootModel
    from tyro.constructors import ConstructorRegistry, StructConstructorSpec, StructFieldSpec

    registry = ConstructorRegistry()
    quiet = tyro.conf.arg(help_behavior_hint="")

    @registry.struct_rule
    def model(info: Any) -> StructConstructorSpec | None:
        if not (isinstance(info.type, type) and issubclass(info.type, BaseModel)):
            return None
        rows = _of_union if issubclass(info.type, RootModel) else _of_model
        fields = [
            StructFieldSpec(
                name, Annotated[kind, quiet] if value is None else kind, value, helptext=text
            )
            for name, kind, value, text in rows(info.type, info.default)
        ]
        return StructConstructorSpec(info.type, tuple(fields))

    return registry


_Rows = Iterable[tuple[str, Any, Any, str | None]]
"""Of each field of a model its name, type, default and text."""


def _of_model(kind: Any, default: Any) -> _Rows:
    for name, each in kind.model_fields.items():
        yield name, each.annotation, getattr(default, name), each.description


def _of_union(kind: Any, default: Any) -> _Rows:
    given = default.root.model_dump(exclude_unset=True) | {"kind": default.root.kind}
    texts = {"kind": ["Fields of another kind are refused"]}
    for model in get_args(kind.model_fields["root"].annotation):
        for name, each in list(model.model_fields.items())[1:]:
            own = f" (default {each.default})" if each.default else ""
            texts.setdefault(name, []).append(f"{_kind(model)}: {each.description}{own}")
    for name, each in _fields(kind).items():
        yield name, each, given.get(name), f"{'; '.join(texts[name])}."
