"""The command line: one subcommand per job, no logic; every complaint is one line."""

import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from twinscore import __version__
from twinscore.errors import InputError, one_line
from twinscore.options import parse

COMMANDS = {
    "prepare": "pack images into one file that every command maps",
    "duplicates": "find images that repeat others of their set, or of another",
    "transition": "train twins at several sizes: where does memorising end?",
    "train": "train one denoiser",
    "sample": "draw samples from a model",
    "harmonics": "show the basis in which a denoiser shrinks an image",
    "restore": "restore a picture from part of its pixels, or other measurements",
    "regularity": "train on C-alpha images: does the error fall at the optimal rate?",
    "manifold": "train on discs: how far is a network from the exact optimum?",
    "shuffled": "train with and without shuffled pixels: does the network's inductive bias fit?",
    "mixture": "solve score models of two modes exactly: early stopping, capacity, modes shift",
    "clusters": "train twins on near and on far clusters: which generalise worse?",
    "report": "draw the report of a run folder",
}


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
class Sweep(Single):
    """Options of a command that runs many trials and draws a report."""

    workers: int | None = None
    """Trials trained side by side (default: one per core on a CPU, else one)."""
    no_images: bool = False
    """Leave training images and samples out of the report."""


@dataclass(frozen=True)
class Drawn(Single):
    """Options of a command that runs one network and draws a report."""

    no_images: bool = False
    """Leave the images out of the report."""


@dataclass(frozen=True)
class Comparison(Writing):
    """Options of a command that compares images and draws a report."""

    no_images: bool = False
    """Leave the images out of the report."""


@dataclass(frozen=True)
class Calculation(Writing):
    """Options of a command that computes on the CPU and draws a report."""

    workers: int | None = None
    """Replicates computed side by side (default: one per core)."""


@dataclass(frozen=True)
class Drawing:
    """Draw the report of a run folder; an unfinished run is drawn as far as it goes."""

    run_folder: Path
    """Run folder."""
    no_images: bool = False
    """Leave training images and samples out of page and figures."""


STUDIES = {
    "clusters": Sweep,
    "duplicates": Comparison,
    "harmonics": Drawn,
    "manifold": Sweep,
    "mixture": Calculation,
    "regularity": Sweep,
    "restore": Drawn,
    "shuffled": Sweep,
    "transition": Sweep,
}
"""Commands that run the study of their name and draw its report, with their options."""


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
        if words[0] not in COMMANDS:
            known = ", ".join(COMMANDS)
            raise InputError(f"{words[0]}: no such command; give one of {known}")
        if words[0] in STUDIES:
            _study(*words)
        else:
            globals()[f"_{words[0]}"](words[1:])
    except InputError as error:
        print(f"twinscore: {one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"twinscore: stopped; continue with: twinscore {_quoted(words)}", file=sys.stderr)
        return 130
    except (RuntimeError, ValueError, OSError) as error:
        if os.environ.get("TWINSCORE_DEBUG"):
            raise
        print(f"twinscore: failed: {one_line(error)}", file=sys.stderr)
        return 1
    return 0


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _quoted(words: Sequence[str]) -> str:
    import shlex

    return shlex.join(words)


def _help() -> str:
    width = max(map(len, COMMANDS)) + 2
    lines = [f"  {name:{width}}{text}" for name, text in COMMANDS.items()]
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


def _print_spec(spec: Any) -> None:
    import yaml

    print(yaml.safe_dump(spec.model_dump(mode="json"), sort_keys=False), end="")


def _study(command: str, *words: str) -> None:
    """Run a study and print its verdict, its table and where its report is."""
    from twinscore.report import page

    study = import_module(f"twinscore.experiments.{command}")
    options = parse(words, STUDIES[command], study.Spec, command)
    if options.print_spec:
        return _print_spec(options.spec)
    where = {
        name: getattr(options, name) for name in ("device", "workers") if name in vars(options)
    }
    done = study.run(options.spec, options.out, **where)
    html = page.write(done.folder, images=not getattr(options, "no_images", False))
    print(done.result.verdict, done.result.table(), f"report: {html}", sep="\n")
    return None


def _prepare(words: list[str]) -> None:
    from twinscore.experiments import prepare

    options = parse(words, Writing, prepare.Spec, "prepare")
    if options.print_spec:
        return _print_spec(options.spec)
    result = prepare.run(options.spec, options.out)
    print(result.table(), f"images: {result.path}", sep="\n")
    return None


def _train(words: list[str]) -> None:
    from twinscore.experiments import train

    options = parse(words, Single, train.Spec, "train")
    if options.print_spec:
        return _print_spec(options.spec)
    result = train.run(options.spec, options.out, device=options.device)
    print(result.table(), f"model: {result.folder}", sep="\n")
    return None


def _sample(words: list[str]) -> None:
    from twinscore.experiments import sample

    options = parse(words, Single, sample.Spec, "sample")
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
    print(f"report: {page.write(options.run_folder, images=not options.no_images)}")
