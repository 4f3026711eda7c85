"""What each command does: its options are read, the work is called, the outcome printed."""

from collections.abc import Sequence
from dataclasses import dataclass, field, make_dataclass
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import arg

from twinscore.errors import say
from twinscore.options import parse, print_completion
from twinscore.results import studies

_SAYS = arg(help_behavior_hint="")
"""For a default of None, of which the help text says what it means."""


@dataclass(frozen=True)
class WriteOptions:
    """Options of a command that writes something; none of them is part of a hash."""

    out: Annotated[Path | None, _SAYS] = None
    """Where the result goes; a study's and a training's by default to runs/COMMAND-HASH."""
    threads: Annotated[int | None, _SAYS] = None
    """Processors that the command may take, all workers together (default: OMP_NUM_THREADS of each
    worker, and never more than affinity and container grant)."""
    print_spec: bool = False
    """Print the spec as YAML and stop."""


@dataclass(frozen=True)
class StudyOptions(WriteOptions):
    """Options of every study."""

    estimate: bool = False
    """Print the time, memory and disk that the run would take, and stop."""


@dataclass(frozen=True)
class NetworkOptions(WriteOptions):
    """Options of a command that runs one network."""

    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where the network runs."""


@dataclass(frozen=True)
class ReportOptions:
    """Draw the report of a run folder; an unfinished run is drawn as far as it goes."""

    run_folder: Path
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


def call(command: str, words: Sequence[str]) -> int:
    """Do what a command and the words after it ask for, print the outcome; the exit code.

    Raises
    ------
    InputError
        For what cannot be used.
    """
    if command in studies():
        return _study(command, *words)
    _TOOLS[command](words)
    return 0


def complete(shell: str, names: Sequence[str]) -> None:
    """Print the script by which a shell completes the commands of these names, and their flags."""
    print_completion(shell, {name: types_of(name.replace("-", "_")) for name in names})


def _print_spec(spec: Any) -> None:
    import yaml

    print(yaml.safe_dump(spec.model_dump(mode="json"), sort_keys=False), end="")


def _study(command: str, *words: str) -> int:
    """Run a study and print its verdict, its table and where its report is."""
    from twinscore.report import page

    study = _declared(command)
    options = parse(words, *types_of(command), command.replace("_", "-"))
    if options.print_spec:
        _print_spec(options.spec)
        return 0
    where = {name: getattr(options, name) for name in ("threads", *study.machine)}
    if options.estimate:
        print(study.cost(options.spec, options.out, **where).text())
        return 0
    done = study.run(options.spec, options.out, **where)
    html = page.write(done.folder, images=not getattr(options, "no_images", False))
    print(done.result.verdict, done.result.table(), f"report: {html}", sep="\n")
    return done.result.exit_code


def _declared(study: str) -> Any:
    return import_module(f"twinscore.experiments.{study}").STUDY


def types_of(command: str) -> tuple[type, type | None]:
    """Options and spec of a command, which :func:`parse` takes."""
    if command in studies():
        from twinscore.report import page

        study = _declared(command)
        optional = (*study.machine, *(["no_images"] if page.shows_images(command) else []))
        return _with(StudyOptions, optional), study.spec
    if command == "report":
        return ReportOptions, None
    options = {"train": _with(StudyOptions, ["device"]), "sample": NetworkOptions}
    spec = import_module(f"twinscore.experiments.{command}").Spec
    return options.get(command, WriteOptions), spec


def _with(base: type, names: Sequence[str]) -> type:
    """``base`` and some of the ``OPTIONAL`` options."""
    added = []
    for name in names:
        kind, default, text = OPTIONAL[name]
        hint = "" if default is None else None
        told = Annotated[kind, arg(help=text, help_behavior_hint=hint)]
        added.append((name, told, field(default=default)))
    return make_dataclass(base.__name__, added, bases=(base,), frozen=True)


def _prepare(words: Sequence[str]) -> None:
    from twinscore.experiments import prepare

    options = parse(words, *types_of("prepare"), "prepare")
    if options.print_spec:
        return _print_spec(options.spec)
    result = prepare.run(options.spec, options.out, threads=options.threads)
    print(result.table(), f"images: {result.path}", sep="\n")
    return None


def _train(words: Sequence[str]) -> None:
    from twinscore.experiments import train

    options = parse(words, *types_of("train"), "train")
    if options.print_spec:
        return _print_spec(options.spec)
    where = {"device": options.device, "threads": options.threads}
    if options.estimate:
        return print(train.cost(options.spec, options.out, **where).text())
    result = train.run(options.spec, options.out, **where)
    print(result.table(), f"model: {result.folder}", sep="\n")
    return None


def _sample(words: Sequence[str]) -> None:
    from twinscore.experiments import sample

    options = parse(words, *types_of("sample"), "sample")
    if options.print_spec:
        return _print_spec(options.spec)
    where = {"device": options.device, "threads": options.threads}
    result = sample.run(options.spec, options.out, **where)
    if result.unfinished:
        say(f"{result.unfinished} samples did not converge")
    print(f"samples: {result.path}")
    return None


def _export(words: Sequence[str]) -> None:
    from twinscore.experiments import export

    options = parse(words, *types_of("export"), "export")
    if options.print_spec:
        return _print_spec(options.spec)
    result = export.run(options.spec, options.out, threads=options.threads)
    print(result.table(), f"model: {result.path}", sep="\n")
    return None


def _report(words: Sequence[str]) -> None:
    from twinscore.experiments.again import judge_again
    from twinscore.report import page

    options = parse(words, *types_of("report"), "report")
    if said := judge_again(options.run_folder):
        say(said)
    print(f"report: {page.write(options.run_folder, images=not options.no_images)}")


_TOOLS = {
    "prepare": _prepare,
    "train": _train,
    "sample": _sample,
    "export": _export,
    "report": _report,
}
