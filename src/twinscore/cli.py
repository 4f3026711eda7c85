"""The command line: one subcommand per job, no logic; every complaint is one line."""

import contextlib
import io
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, make_dataclass
from importlib import import_module, resources
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from twinscore import __version__, complaints
from twinscore.errors import InputError
from twinscore.results import studies

TOOLS = {
    "prepare": "pack images into one file that every command maps",
    "train": "train one denoiser",
    "sample": "draw samples from a model",
    "report": "draw the report of a run folder",
}

SHORT = {"--quality": "--sampling.quality"}
"""Flags that may be written without the part of the spec that they belong to."""


def commands() -> dict[str, str]:
    """Name and purpose of every command."""
    return TOOLS | studies()


@dataclass(frozen=True)
class Writing:
    """Options of a command that writes something; none of them is part of a hash."""

    out: Path | None = None
    """Where the result goes."""
    print_spec: bool = False
    """Print the spec as YAML and stop."""


@dataclass(frozen=True)
class Single(Writing):
    """Options of a command that runs one network."""

    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where the network runs."""


@dataclass(frozen=True)
class Drawing:
    """Draw the report of a run folder; an unfinished run is drawn as far as it goes."""

    run: Path
    """Run folder."""
    no_images: bool = False
    """Leave training images and samples out of page and figures."""


OPTIONAL = {
    "device": (Literal["auto", "cpu", "cuda", "mps"], "auto", "Where networks run."),
    "workers": (
        int | None,
        None,
        "Tasks side by side (default: one per core on a CPU, else one).",
    ),
    "no_images": (bool, False, "Leave images and samples out of the report."),
}
"""Options that some studies have: type, default, help."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``twinscore`` with ``argv`` and return its exit code.

    0; 2 for bad input; 1 when the run failed; 130 after Ctrl-C, with the command that resumes.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in {"-h", "--help"}:
        print(_help())
        return 0 if words else 2
    if words[0] == "--version":
        print(f"twinscore {__version__}")
        return 0
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        if words[0] not in commands():
            known = ", ".join(commands())
            raise InputError(f"{words[0]}: no such command; give one of {known}")
        if words[0] in studies():
            _study(*words)
        else:
            globals()[f"_{words[0]}"](words[1:])
    except InputError as error:
        print(f"twinscore: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"twinscore: stopped; continue with: twinscore {_quoted(words)}", file=sys.stderr)
        return 130
    except (RuntimeError, ValueError, OSError) as error:
        if os.environ.get("TWINSCORE_DEBUG"):
            raise
        print(f"twinscore: failed: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _quoted(words: Sequence[str]) -> str:
    import shlex

    return shlex.join(words)


def _help() -> str:
    width = max(map(len, commands())) + 2
    lines = [f"  {name:{width}}{text}" for name, text in (commands()).items()]
    return "\n".join(
        [
            "usage: twinscore COMMAND [--spec NAME|file.yaml] [options]",
            "",
            "Did your diffusion model learn the distribution, or the training set?",
            "",
            *lines,
            "",
            "twinscore COMMAND --help shows the options of a command; --version the version.",
        ]
    )


def parse(argv: Sequence[str], options: type, spec_type: type | None, command: str) -> Any:
    """Read a command's options; defaults come from ``--spec``, flags override them.

    Parameters
    ----------
    argv : sequence of str
        Words after the command.
    options : type
        Dataclass of the options; its field ``spec``, if ``spec_type`` is given, holds the spec.
    spec_type : type or None
        Pydantic model of the study's spec.
    command : str
        Name of the command, for help.

    Returns
    -------
    options
        An instance.

    Raises
    ------
    InputError
        One line per complaint of tyro or pydantic.
    """
    import tyro
    from pydantic import ValidationError

    flags = [word.partition("=") for word in argv]
    words = ["".join((SHORT.get(flag, flag), *value)) for flag, *value in flags]
    name, words = _take_spec(words)
    default = None
    if spec_type is not None:
        try:
            default = options(spec=spec_type(**_read_spec(name)) if name else spec_type())
        except ValidationError as error:
            raise InputError(f"{name}: {complaints.of_pydantic(error, '.'.join)}") from None
    elif name:
        raise InputError(f"--spec: {command} takes none")
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), _wide(words), _unions():
            return tyro.cli(
                options,
                args=words,
                default=default,
                prog=f"twinscore {command}",
                config=(tyro.conf.FlagCreatePairsOff, tyro.conf.PositionalRequiredArgs),
            )
    except ValidationError as error:
        raise InputError(complaints.of_pydantic(error, complaints.flag)) from None
    except SystemExit as end:
        if end.code in (0, None):
            raise
        raise InputError(complaints.of_tyro(said.getvalue())) from None


def _options(spec_type: type, base: type) -> type:
    """``base`` with the fields of a spec, unprefixed, before its own."""
    import tyro

    spec = ("spec", Annotated[spec_type, tyro.conf.arg(name="")], field(default=None, kw_only=True))
    made = make_dataclass(base.__name__, [spec], bases=(base,), frozen=True)
    made.__doc__ = spec_type.__doc__
    return made


def _unions() -> Any:
    """Context in which a union of specs takes flags for the fields of every kind.

    By itself tyro makes subcommands of a union. The rule is for pydantic root models of one that is
    told apart by ``kind``; what is not given reaches them as None.
    """
    from pydantic import RootModel
    from tyro.constructors import ConstructorRegistry, StructConstructorSpec, StructFieldSpec

    registry = ConstructorRegistry()

    @registry.struct_rule
    def flat(info: Any) -> StructConstructorSpec | None:
        if not (isinstance(info.type, type) and issubclass(info.type, RootModel)):
            return None
        given = info.default.root.model_dump(exclude_unset=True)
        kinds, types, texts = [], {}, {}
        for spec in get_args(info.type.model_fields["root"].annotation):
            fields = spec.model_fields.copy()
            kinds.append(fields.pop("kind").default)
            for name, of_kind in fields.items():
                types[name] = of_kind.annotation | None
                text = f"{kinds[-1]}: {of_kind.description} (default {of_kind.default})"
                texts[name] = f"{texts[name]}; {text}" if name in texts else text
        kind = StructFieldSpec(
            "kind",
            Literal[*kinds],
            default=info.default.root.kind,
            helptext="Fields of another kind are refused.",
        )
        rest = (StructFieldSpec(n, types[n], given.get(n), helptext=f"{texts[n]}.") for n in types)
        return StructConstructorSpec(info.type, (kind, *rest))

    return registry


def _take_spec(words: list[str]) -> tuple[str | None, list[str]]:
    """Split ``--spec NAME`` off."""
    for i, word in enumerate(words):
        if word.startswith("--spec="):
            return word.removeprefix("--spec="), words[:i] + words[i + 1 :]
        if word == "--spec":
            if i + 1 == len(words):
                raise InputError("--spec: give a name or a .yaml file after it")
            return words[i + 1], words[:i] + words[i + 2 :]
    return None, words


def _read_spec(name: str) -> dict[str, Any]:
    """Content of a shipped spec or a YAML file."""
    import yaml

    shipped = resources.files("twinscore") / "recipes"
    names = sorted(p.name.removesuffix(".yaml") for p in shipped.iterdir() if ".yaml" in p.name)
    path = shipped / f"{name}.yaml" if name in names else Path(name)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError:
        raise InputError(
            f"--spec: {name} is neither a file nor a shipped spec; shipped: {', '.join(names)}"
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{name}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise InputError(f"{name}: must hold fields and values, like --print-spec prints")
    return content


@contextlib.contextmanager
def _wide(words: Sequence[str]) -> Any:
    """Keep tyro from wrapping a complaint (but not its help) over several lines."""
    if "--help" in words or "-h" in words:
        yield
        return
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "2000"
    try:
        yield
    finally:
        os.environ.pop("COLUMNS") if before is None else os.environ.update(COLUMNS=before)


def _print_spec(spec: Any) -> None:
    import yaml

    print(yaml.safe_dump(spec.model_dump(mode="json"), sort_keys=False), end="")


@dataclass(frozen=True)
class Study(Writing):
    """Options of every study."""

    estimate: bool = False
    """Print the time, memory and disk that the run would take, and stop."""


def _study(command: str, *words: str) -> None:
    """Run a study and print its verdict, its table and where its report is."""
    from twinscore.report import page

    study = import_module(f"twinscore.experiments.{command}").STUDY
    optional = (*study.machine, *(["no_images"] if page.shows_images(command) else []))
    options = parse(words, _options(study.spec, _with(Study, optional)), study.spec, command)
    if options.print_spec:
        return _print_spec(options.spec)
    where = {name: getattr(options, name) for name in study.machine}
    if options.estimate:
        return print(study.cost(options.spec, options.out, **where).text())
    done = study.run(options.spec, options.out, **where)
    html = page.write(done.folder, images=not getattr(options, "no_images", False))
    print(done.result.verdict, done.result.table(), f"report: {html}", sep="\n")
    return None


def _with(base: type, names: Sequence[str]) -> type:
    """``base`` and some of the ``OPTIONAL`` options."""
    import tyro

    added = []
    for name in names:
        kind, default, text = OPTIONAL[name]
        added.append((name, Annotated[kind, tyro.conf.arg(help=text)], field(default=default)))
    return make_dataclass(base.__name__, added, bases=(base,), frozen=True)


def _prepare(words: list[str]) -> None:
    from twinscore.experiments import prepare

    options = parse(words, _options(prepare.Spec, Writing), prepare.Spec, "prepare")
    if options.print_spec:
        return _print_spec(options.spec)
    result = prepare.run(options.spec, options.out)
    print(result.table(), f"images: {result.path}", sep="\n")
    return None


def _train(words: list[str]) -> None:
    from twinscore.experiments import train

    options = parse(words, _options(train.Spec, _with(Study, ["device"])), train.Spec, "train")
    if options.print_spec:
        return _print_spec(options.spec)
    if options.estimate:
        return print(train.cost(options.spec, options.out, device=options.device).text())
    result = train.run(options.spec, options.out, device=options.device)
    print(result.table(), f"model: {result.folder}", sep="\n")
    return None


def _sample(words: list[str]) -> None:
    from twinscore.experiments import sample

    options = parse(words, _options(sample.Spec, Single), sample.Spec, "sample")
    if options.print_spec:
        return _print_spec(options.spec)
    result = sample.run(options.spec, options.out, device=options.device)
    if result.unfinished:
        print(f"{result.unfinished} samples did not converge", file=sys.stderr)
    print(f"samples: {result.path}")
    return None


def _report(words: list[str]) -> None:
    from twinscore.report import page

    options = parse(words, Drawing, None, "report")
    print(f"report: {page.write(options.run, images=not options.no_images)}")
