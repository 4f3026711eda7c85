"""What each command does: its options are read, the work is called, the outcome printed."""

from collections.abc import Sequence
from dataclasses import dataclass, field, make_dataclass
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal

from twinscore.errors import say
from twinscore.options import parse
from twinscore.results import studies


@dataclass(frozen=True)
class WriteOptions:
    """Options of a command that writes something; none of them is part of a hash."""

    out: Path | None = None
    """Where the result goes."""
    threads: int | None = None
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


def _print_spec(spec: Any) -> None:
    import yaml

    print(yaml.safe_dump(spec.model_dump(mode="json"), sort_keys=False), end="")


def _study(command: str, *words: str) -> int:
    """Run a study and print its verdict, its table and where its report is."""
    from twinscore.report import page

    study = import_module(f"twinscore.experiments.{command}").STUDY
    optional = (*study.machine, *(["no_images"] if page.shows_images(command) else []))
    shown = command.replace("_", "-")
    options = parse(words, _with(StudyOptions, optional), study.spec, shown)
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


def _with(base: type, names: Sequence[str]) -> type:
    """``base`` and some of the ``OPTIONAL`` options."""
    import tyro

    added = []
    for name in names:
        kind, default, text = OPTIONAL[name]
        added.append((name, Annotated[kind, tyro.conf.arg(help=text)], field(default=default)))
    return make_dataclass(base.__name__, added, bases=(base,), frozen=True)


def _prepare(words: Sequence[str]) -> None:
    from twinscore.experiments import prepare

    options = parse(words, WriteOptions, prepare.Spec, "prepare")
    if options.print_spec:
        return _print_spec(options.spec)
    result = prepare.run(options.spec, options.out, threads=options.threads)
    print(result.table(), f"images: {result.path}", sep="\n")
    return None


def _train(words: Sequence[str]) -> None:
    from twinscore.experiments import train

    options = parse(words, _with(StudyOptions, ["device"]), train.Spec, "train")
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

    options = parse(words, NetworkOptions, sample.Spec, "sample")
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

    options = parse(words, WriteOptions, export.Spec, "export")
    if options.print_spec:
        return _print_spec(options.spec)
    result = export.run(options.spec, options.out, threads=options.threads)
    print(result.table(), f"model: {result.path}", sep="\n")
    return None


def _report(words: Sequence[str]) -> None:
    from twinscore.experiments.again import judge_again
    from twinscore.report import page

    options = parse(words, ReportOptions, None, "report")
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
