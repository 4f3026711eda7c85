"""From the nearest images of every sample to the answer of an audit."""

from collections.abc import Sequence

import numpy as np

from twinscore.analysis.audit import legacy, ranking, rates
from twinscore.analysis.audit.ballots import scaled
from twinscore.experiments.audit import answers, evidence
from twinscore.experiments.audit.assumptions import check
from twinscore.experiments.audit.pool import Sets, Units, opened, some, units
from twinscore.experiments.audit.searching import DUPLICATES, Piece, kinds_of, side_of
from twinscore.experiments.audit.spec import Spec
from twinscore.experiments.audit.votes import Votes, cast, together
from twinscore.experiments.study import Arrays, Summary, csv_text
from twinscore.results.audit import (
    Data,
    Dependence,
    Depth,
    Legacy,
    Match,
    Power,
    Result,
)
from twinscore.results.base import Interval
from twinscore.runs import derive_seed

MATCHES = (
    *("rank", "set", "image", "name", "sample", "sample_name", "score", "distance", "votes"),
    *("kind", "place", "listed"),
)
"""Columns of ``matches.csv``."""

LEGACY_IMAGES = 5000
"""Images of any set that go into the published numbers, at most."""

_NONE = np.empty((0, 2), dtype=np.int64)


def summarise(spec: Spec, done: Sequence[tuple[Piece, Arrays]]) -> Summary[Result]:
    """The answer, its numbers, pictures of the evidence, and ``matches.csv`` of all units."""
    sets, given = opened(spec), {piece.name: arrays for piece, arrays in done}
    pairs = given.pop(DUPLICATES, None)
    near = together(list(given.values()), [kind.name for kind in kinds_of(spec)])
    dropped = pairs["spanning"] if pairs and spec.overlap == "drop" else _NONE
    of = units(sets, pairs["within"] if pairs else _NONE, dropped)
    votes = cast(near, of, len(sets.samples), derive_seed(spec.seed, "lots"))
    assumptions = check(spec, sets, of, pairs)
    broken = [a for a in assumptions if a.holds is False]
    n, m = of.counts
    dependence = _dependence(votes, sound=not broken, control=m > 0, seed=spec.seed)
    length = 0 if broken else ranking.listed(votes.ranking, spec.q)
    listed = np.flatnonzero(votes.ranking.trained[:length])
    shown = answers.shown(votes) if m else np.arange(len(votes.order))[: evidence.PICTURED]
    copies = _copies(spec, votes, of, len(sets.samples), proven=bool(len(listed)))
    power = None if broken else _power(spec, n, m, len(sets.samples))
    answer, why = answers.answer(
        broken=broken,
        listed=len(listed),
        shown=len(shown),
        copies=copies,
        p=dependence.p,
        power=power,
        spec=spec,
        samples=len(sets.samples),
    )
    decoys = np.flatnonzero(~votes.ranking.trained)[: evidence.PICTURED // 4]
    found = {
        name: evidence.matches(spec, sets, votes, ranks.tolist())
        for name, ranks in {
            "listed": listed,
            "shown": shown if answer != "copies" else shown[:0],
            "decoys": decoys,
        }.items()
    }
    more = _extractable(found["listed"], length - len(listed), len(sets.samples))
    result = Result(
        verdict=answers.sentence(spec, answer, why),
        answer=answer,
        why=why,
        q=spec.q,
        dependence=dependence,
        copies=copies,
        **found,
        extractable=more,
        power=power,
        assumptions=assumptions,
        legacy=_legacy(spec, sets),
        data=_data(spec, sets, of),
        failed=answers.failed(spec, copies, dependence.p, found["listed"], more),
    )
    arrays = evidence.pictures(sets, found["listed"] or found["shown"], found["decoys"])
    arrays |= {
        "ranking/trained": votes.ranking.trained,
        "ranking/score": votes.all.strength[votes.order],
    }
    return Summary(result, arrays, {"matches.csv": _table(spec, sets, votes, length)})


def _dependence(votes: Votes, *, sound: bool, control: bool, seed: int) -> Dependence:
    if not control:
        return Dependence(p=None, by_depth=[])
    found = ranking.dependence(votes.by_kind, seed=derive_seed(seed, "deals"))
    names = ("kind", "depth", "trained", "p")
    rows = [Depth(**dict(zip(names, row, strict=True))) for row in found.by_depth]
    return Dependence(p=found.p if sound else None, by_depth=rows)


def _copies(spec: Spec, votes: Votes, of: Units, samples: int, *, proven: bool) -> Interval:
    """The share of samples; nothing is known of it without held-out images."""
    n, m = of.counts
    if not m:
        return Interval(value=0, low=0, high=1)
    best = scaled(votes.all.of(votes.best))
    unit = of.of[best.image]
    seed = derive_seed(spec.seed, "copies")
    value, low, high = rates.copy_rate(best, of.trained[unit], unit, n, m, samples, seed)
    how = {"method": "bootstrap", "covers": "samples and images"}
    return Interval(value=value, low=low if proven else 0.0, high=high, **how)


def _power(spec: Spec, n: int, m: int, samples: int) -> Power:
    found = ranking.power(n, m, spec.q)
    return Power(**vars(found), rate=found.for_list / samples)


def _extractable(listed: Sequence[Match], decoys: int, samples: int) -> float | None:
    if not listed:
        return None
    counts = np.array([max(1, match.votes) for match in listed])
    return rates.extractable(counts, decoys, samples)


def _legacy(spec: Spec, sets: Sets) -> list[Legacy]:
    """Published numbers, at the side at which images are compared."""
    side, most = side_of(spec), LEGACY_IMAGES
    train, drawn = (some(x, most, side, spec.seed) for x in (sets.train, sets.samples))
    if len(train) < 2:
        return []
    parts = [legacy.legacy(drawn, train)]
    held_out = None if sets.held_out is None else some(sets.held_out, most, side, spec.seed)
    parts += [] if held_out is None else [legacy.legacy(held_out, train)]
    names = {"ratio": "ratio rule", "carlini": "Carlini", "authentic": "AuthPct"}
    found = [
        Legacy(
            name=name,
            samples=getattr(parts[0], key),
            held_out=getattr(parts[1], key) if held_out is not None else None,
        )
        for key, name in names.items()
    ]
    if held_out is None or len(held_out) < 4:
        return found
    first, second = held_out[::2], held_out[1::2]
    values = [
        legacy.data_copying(x, control, train, seed=spec.seed)
        for x, control in ((drawn, held_out), (first, second))
    ]
    if all(map(np.isfinite, values)):
        found.append(Legacy(name="C_T", samples=values[0], held_out=values[1]))
    return found


def _data(spec: Spec, sets: Sets, of: Units) -> Data:
    n = len(sets.train)
    return Data(
        train=spec.train,
        held_out=spec.held_out,
        samples=spec.samples,
        shape=sets.train.shape,
        side=side_of(spec),
        images=(int(of.kept[:n].sum()), int(of.kept[n:].sum())),
        units=of.counts,
        unit=of.by,
        drawn=len(sets.samples),
    )


def _table(spec: Spec, sets: Sets, votes: Votes, length: int) -> str:
    """A row for each unit with a vote, strongest first."""
    of, n = votes.all, len(sets.train)
    counts = np.bincount(of.image[votes.best], minlength=sets.images)
    kinds = kinds_of(spec)
    rows = []
    for rank, row in enumerate(votes.order):
        image, sample = int(of.image[row]), int(of.sample[row])
        trained, kind = image < n, kinds[of.kind[row]]
        rows.append(
            (
                rank + 1,
                "train" if trained else "held_out",
                image if trained else image - n,
                sets.name(image),
                sample,
                sets.samples.names[sample],
                f"{of.strength[row]:.6g}",
                f"{of.distance[row]:.6g}",
                int(counts[image]),
                kind.name,
                kind.places[of.place[row]],
                int(trained and rank < length),
            )
        )
    return csv_text(MATCHES, rows)
