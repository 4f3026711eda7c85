"""What the critical N depends on: transitions of several networks and image sizes.

After the summary of the talk on [GAHB]. Every cell is a transition on the same images, splits and
seeds of noise.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from twinscore.analysis.censored import censored_slope
from twinscore.denoisers.spec import MOST_LEVELS, MOST_WIDTH, outlined
from twinscore.errors import InputError
from twinscore.execution import Report
from twinscore.experiments import transition, twins
from twinscore.experiments.study import Arrays, Summary, of_trials
from twinscore.experiments.trials import Trial, open_images
from twinscore.limits import Listed
from twinscore.results.base import Interval
from twinscore.results.capacity import Cell, Exponent, Result
from twinscore.results.transition import CriticalN

MOST_CELLS = 100
_UNNAMED = ("kind", "source_digest")


class Spec(transition.Growing):
    """Transitions along any of four axes; an axis without values stays at network and data."""

    widths: Listed[Annotated[int, Field(ge=1, le=MOST_WIDTH)]] = (4, 8, 16)
    """Channels of the first block."""
    levels: Listed[Annotated[int, Field(ge=1, le=MOST_LEVELS)]] = ()
    """Poolings of a UNet; a BF-CNN has none, and is trained once."""
    kinds: Listed[Literal["unet", "bf_cnn"]] = ()
    """Architectures."""
    sides: Listed[Annotated[int, Field(ge=1, le=1024)]] = ()
    """Image sizes, pixels: the same images, resized."""

    @model_validator(mode="after")
    def _axes(self) -> Self:
        axes = (self.widths, self.levels, self.kinds, self.sides)
        if math.prod(len(axis) or 1 for axis in axes) > MOST_CELLS:
            raise ValueError(f"widths, levels, kinds, sides: give at most {MOST_CELLS} networks")
        if len(cells(self)) < 2:
            raise ValueError("widths, levels, kinds, sides: give at least two values in all")
        return self


class CellSpec(transition.Growing):
    """The transition of one cell; ``originals`` are the images before they are resized."""

    originals: str

    @property
    def compared(self) -> str:
        """Near-duplicates are looked for once, and are the same in all cells."""
        return self.originals


@cache
def cells(spec: Spec) -> dict[str, CellSpec]:
    """Every combination of the axes once, by its name, image size by image size."""
    fixed = spec.network.model_dump()
    shared = spec.model_dump(include=set(transition.Growing.model_fields) - {"data", "network"})
    axes = (spec.sides, spec.kinds or (fixed["kind"],), spec.widths, spec.levels)
    found = {}
    for side, kind, width, levels in product(*(axis or (None,) for axis in axes)):
        network = fixed if kind == fixed["kind"] else {"kind": kind}
        network = network | ({} if width is None else {"width": width})
        network |= {} if levels is None or kind != "unet" else {"levels": levels}
        data = spec.data if side is None else f"{spec.data},size={side}"
        named = {name: value for name, value in network.items() if name not in _UNNAMED}
        sizes = ", ".join(f"{name} {value}" for name, value in named.items())
        name = f"{kind}: {sizes}" + ("" if side is None else f"; {side}x{side}")
        found[name] = CellSpec(**shared, data=data, network=network, originals=spec.data)
    return found


def check_images(spec: Spec, *_: object) -> Mapping[str, Any]:
    """Refuse sizes that the images do not grant, and images that are others at another size."""
    identity, number = {}, len(open_images(spec.data))
    for cell in cells(spec).values():
        if len(open_images(cell.data)) != number:
            raise InputError(
                f"sides: {cell.data} has {len(open_images(cell.data)):,} images, not the "
                f"{number:,} of {spec.data}; give images that are resized, such as a folder"
            )
        identity = transition.check_split(cell)
    return identity


def trials(spec: Spec, report: Report) -> list[Trial]:
    """The trials of every cell's transition."""
    return [
        replace(trial, part=name, arm=name)
        for name, cell in cells(spec).items()
        for trial in transition.trials(cell, report)
    ]


def record(spec: Spec, trials: Sequence[Trial], folder: Path) -> None:
    """Write order, content and roles of the images: those of the first cell, as of all."""
    name, cell = next(iter(cells(spec).items()))
    transition.record(cell, [trial for trial in trials if trial.arm == name], folder)


def summarise(spec: Spec, done: Sequence[tuple[Trial, Arrays]]) -> Summary[Result]:
    """The critical N of every cell that is done, and how it grows with parameters and pixels."""
    found = []
    for name in dict.fromkeys(trial.arm for trial, _ in done):
        cell, own = cells(spec)[name], [pair for pair in done if pair[0].arm == name]
        found.append(_cell(name, cell, transition.summarise(cell, own).result))
    exponents = list(filter(None, (_exponent(found, of) for of in ("parameters", "pixels"))))
    grown = [f"{e.against}^a, a = {e.text()}" for e in exponents if e.value is not None]
    inside = [cell.critical_n.value for cell in found if cell.critical_n]
    span = f", from {min(inside):,.0f} to {max(inside):,.0f}" if inside else ""
    growth = f"it grows as {' and '.join(grown)}" if grown else "too few to tell how it grows"
    result = Result(
        verdict=f"On {spec.data} the critical N lies inside the sizes tried for {len(inside)} of "
        f"{len(found)} networks{span}; {growth}.",
        data=spec.data,
        sizes=list(spec.sizes),
        cells=found,
        exponents=exponents,
    )
    return Summary(result, {})


def _cell(name: str, cell: CellSpec, result: transition.Result) -> Cell:
    channels, height, width = open_images(cell.data).shape
    network = outlined(cell.network, channels)
    return Cell(
        name=name,
        kind=cell.network.model_dump()["kind"],
        parameters=sum(p.numel() for p in network.parameters()),
        pixels=height * width,
        critical_n=_closed(result.critical_n, cell.sizes),
        beyond=result.beyond,
        bound=cell.sizes[0 if result.beyond == "below" else -1],
    )


def _closed(found: CriticalN | None, sizes: Sequence[int]) -> Interval | None:
    """A critical N inside the sizes, its open ends at those tried."""
    if found is None or found.value is None:
        return None
    low, high = found.low or sizes[0], found.high or sizes[-1]
    return Interval(value=found.value, low=low, high=high)


def _exponent(found: Sequence[Cell], against: str) -> Exponent | None:
    """None where all cells have as much of it. A cell whose critical N is not known is left out."""
    found = [cell for cell in found if cell.critical_n or cell.beyond]
    if not found:
        return None
    varied = {
        "parameters": np.log([cell.parameters for cell in found]),
        "pixels": np.log([cell.pixels for cell in found]),
        "kind": np.array([float(cell.kind == "unet") for cell in found]),
    }
    varied = {name: x for name, x in varied.items() if np.ptp(x) > 0}
    if against not in varied:
        return None
    x = varied.pop(against)
    y = np.log([cell.critical_n.value if cell.critical_n else cell.bound for cell in found])
    side = [{"below": -1, None: 0, "above": 1}[cell.beyond] for cell in found]
    ends = censored_slope(x, y, side, list(varied.values())) or (np.inf,) * 3
    value, low, high = (end if np.isfinite(end) else None for end in ends)
    return Exponent(against=against, value=value, low=low, high=high)


STUDY = of_trials(
    name="capacity",
    spec=Spec,
    count=lambda spec: sum(map(transition.STUDY.count, cells(spec).values())),
    cells=lambda spec: list(cells(spec).values()),
    trials=trials,
    measure=twins.measure,
    key=twins.key,
    summarise=summarise,
    needs=transition.needs,
    reads=("data",),
    check=check_images,
    record=record,
    extendable=(
        "sizes",
        "samples",
        "widths",
        "levels",
        "kinds",
        "sides",
        "thresholds",
        "dealt_at_random",
    ),
)
run = STUDY.run
