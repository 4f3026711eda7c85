"""What to do about it: sentences that stand on numbers which were measured, and on no others."""

import math
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from pydantic import ValidationError

from twinscore.errors import InputError
from twinscore.experiments.audit.judgement import SIGNIFICANCE
from twinscore.experiments.audit.spec import Spec
from twinscore.results import capacity, transition
from twinscore.results.audit import Result
from twinscore.results.base import Window
from twinscore.runs import read_json

NAMED = 5
"""Images that are named; the tables have all."""

Run = transition.Result | capacity.Result


def studied(spec: Spec) -> Run | None:
    """The result of the run that ``spec.critical`` names.

    Raises
    ------
    InputError
        If there is none, or it is not of a transition or capacity run.
    """
    if spec.critical is None:
        return None
    path = Path(spec.critical) / "result.json"
    if not path.is_file():
        raise InputError(f"--critical: {path} not found; give the folder of a finished run")
    content = read_json(path)
    study = content.get("study")
    if study not in ("transition", "capacity"):
        raise InputError(f"--critical: {path} is of {study}; give a run of transition or capacity")
    try:
        return import_module(f"twinscore.results.{study}").Result.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(f"--critical: {path}: {where}: {first['msg']}") from None


def guidance(
    spec: Spec, result: Result, *, at_risk: Sequence[str], duplicates: int, run: Run | None
) -> list[str]:
    """What the numbers of an audit suggest.

    Parameters
    ----------
    spec, result : Spec, Result
        The audit.
    at_risk : sequence of str
        Names of the training images that are listed by their errors.
    duplicates : int
        Training images of which the set holds a near-duplicate.
    run : Result, optional
        Of a transition or capacity study of such images.
    """
    n = result.data.images[0]
    found = [
        _stop(result.window),
        _drop([match.name for match in result.listed], "matches.csv", "are shown by samples"),
        _drop(at_risk, "risk.csv", "have an error too small for held-out ones"),
        _deduplicate(duplicates),
        _more(run, n),
        _smaller(run, n),
        _inconclusive(spec, result),
    ]
    return [sentence for sentence in found if sentence]


def _stop(window: Window | None) -> str | None:
    """The last checkpoint without memory, where a later one has it."""
    if window is None or window.tau_mem is None:
        return None
    if window.stop is None:
        return (
            f"save earlier checkpoints: from the first on, step {window.tau_mem.value:,}, the "
            "model depends on its training images"
        )
    said = f"stop at step {window.stop.step:,}: at step {window.tau_mem.value:,} memory is there"
    if window.stop.step >= window.tau_gen.value:
        return f"{said}, and quality is reached at step {window.tau_gen.value:,}"
    return (
        f"{said}; this costs quality, which is reached at step {window.tau_gen.value:,}: the error "
        f"on held-out images is {window.stop.error.value:.2f} times the smallest"
    )


def _drop(names: Sequence[str], table: str, why: str) -> str | None:
    if not names:
        return None
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    named = ", ".join(names[:NAMED])
    return f"drop or deduplicate these images first, which {why} ({table}): {named}{more}"


def _deduplicate(count: int) -> str | None:
    if not count:
        return None
    return f"deduplicate the training set: {count:,} of its images are near-duplicates of others"


def _more(run: Run | None, n: int) -> str | None:
    """Images that are missing to the upper end of the critical N, or to its value."""
    critical = run.critical_n if isinstance(run, transition.Result) else None
    if critical is None:
        return None
    enough = critical.high or critical.value
    if enough is None or enough <= n:
        return None
    return (
        f"train on {math.ceil(enough) - n:,} more images: the critical N of {run.data.source} is "
        f"{critical.text()}, and the training set has {n:,}"
    )


def _smaller(run: Run | None, n: int) -> str | None:
    """The largest network whose critical N is at most n, where a larger one needs more."""
    cells = run.cells if isinstance(run, capacity.Result) else []
    cells = [cell for cell in cells if cell.critical_n or cell.beyond]
    enough = [cell for cell in cells if _needs(cell) <= n]
    largest = max(enough, key=lambda cell: cell.parameters, default=None)
    larger = [c for c in cells if largest and c.parameters > largest.parameters and _needs(c) > n]
    if not larger:
        return None
    return (
        f"take a smaller network: the critical N of {largest.name}, with {largest.parameters:,} "
        f"parameters, is {largest.text()}, that of {larger[0].name}, with "
        f"{larger[0].parameters:,}, is {larger[0].text()}, and the training set has {n:,}"
    )


def _needs(cell: capacity.Cell) -> float:
    """Images from which on a network generalises; endless where none of the sizes was enough."""
    if cell.critical_n:
        return cell.critical_n.high
    return cell.bound if cell.beyond == "below" else math.inf


def _inconclusive(spec: Spec, result: Result) -> str | None:
    """Samples that are missing, where their number is known."""
    if result.verdict != "inconclusive" or result.power is None:
        return None
    drawn, copies, said = result.data.drawn, result.copies, "declare it inconclusive"
    if result.power.rate > 1:
        needed = math.ceil(result.power.for_list / spec.most)
        return (
            f"{said}, or draw {needed - drawn:,} more samples: {needed:,} have the "
            f"{result.power.for_list:,} copies that a list needs if {100 * spec.most:g} % copy"
        )
    seen = result.power.seen.values()
    if seen and not any(kind.covered for kind in seen):
        return f"{said}: {result.why.partition('; ')[0]}"
    most = f"up to {100 * copies.high:.1f} % of {drawn:,} samples may be copies"
    p = result.dependence.p
    if copies.value >= spec.most or (p is not None and p <= SIGNIFICANCE):
        return f"{said}: {most}, and no number of samples is known that decides"
    needed = math.ceil(drawn * ((copies.high - copies.value) / (spec.most - copies.value)) ** 2)
    return (
        f"{said}, or draw about {needed - drawn:,} more samples: {most}, and the interval "
        "narrows like the root of their number"
    )
