"""From the nearest images of every sample to the verdict of an audit."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from twinscore.analysis.audit import legacy, rates
from twinscore.analysis.statistics import clopper_pearson
from twinscore.experiments.audit import (
    checkpoints,
    controls,
    evidence,
    guidance,
    membership,
    recipe,
    returns,
    signs,
)
from twinscore.experiments.audit.assumptions import check
from twinscore.experiments.audit.judgement import failed, judge
from twinscore.experiments.audit.pool import Sets, Units, opened, some, units
from twinscore.experiments.audit.searching import DUPLICATES, MEMBERSHIP, Piece, kinds_of, side_of
from twinscore.experiments.audit.sensitivity import Planted, sources
from twinscore.experiments.audit.spec import Spec
from twinscore.experiments.audit.votes import Votes, together
from twinscore.experiments.study import Arrays, Summary, csv_text, parquet
from twinscore.results.audit import Data, Legacy, Match, Result
from twinscore.results.base import Interval

MATCHES = (
    *("rank", "set", "image", "name", "sample", "sample_name", "score", "distance", "votes"),
    *("kind", "place", "listed"),
)
"""Columns of ``matches.csv`` and ``matches.parquet``."""

COMES_OUT = "; more of training than of held-out images comes out of the model"
"""Added to why, where the test of extraction shows it."""

LEGACY_IMAGES = 5000
"""Images of any set that go into the published numbers, at most."""

_NONE = np.empty((0, 2), dtype=np.int64)


def summarise(spec: Spec, done: Sequence[tuple[Piece, Arrays]]) -> Summary[Result]:
    """The verdict, its numbers, pictures of the evidence, and a table of all units."""
    sets, given = opened(spec), {piece.name: arrays for piece, arrays in done}
    pairs, errors = given.pop(DUPLICATES, None), given.pop(MEMBERSHIP, None)
    beside = given.pop(controls.PIECE, {})
    kept, twins = checkpoints.taken(given), recipe.judged(spec, sets, given)
    kinds = [kind.name for kind in kinds_of(spec)]
    near, planted = (together(list(given.values()), kinds, of) for of in ("", "planted/"))
    dropped = pairs["spanning"] if pairs and spec.overlap == "drop" else _NONE
    of = units(sets, pairs["within"] if pairs else _NONE, dropped)
    assumptions = check(spec, sets, of, pairs)
    broken = [a.found for a in assumptions if a.holds is False]
    copies = None
    if sets.held_out is not None:
        copies = Planted(planted, sources(sets.images, spec.seed))
    found = judge(spec, near, of, len(sets.samples), broken, copies)
    matches = {
        name: evidence.matches(spec, sets, found.votes, ranks.tolist())
        for name, ranks in {
            "listed": found.listed,
            "shown": found.shown,
            "decoys": found.decoys[: evidence.PICTURED // 4],
        }.items()
    }
    more = _extractable(matches["listed"], found.length - len(found.listed), len(sets.samples))
    count, p = len(matches["listed"]), found.dependence.p
    member, risk = None, []
    if errors:
        member, risk = membership.judged(spec, sets, of, errors["errors"], sound=not broken)
    of_errors = errors["errors"] if errors else None
    base, coder = controls.judged(spec, of, beside, of_errors, member, sound=not broken)
    extraction, pictures = None, {}
    if sets.held_out is not None:
        came = {name: errors[name] for name in returns.TRIED} if errors and spec.extract else {}
        sound = not broken
        extraction, pictures = returns.judged(spec, sets, of, found.votes, came, sound=sound)
    result = Result(
        verdict=found.verdict,
        why=found.why + (COMES_OUT if extraction and extraction.shown else ""),
        q=spec.q,
        dependence=found.dependence,
        copies=found.copies,
        **matches,
        extractable=more,
        recall=_recall(np.concatenate([part["recall"] for part in given.values()])),
        power=found.power,
        assumptions=assumptions,
        legacy=_legacy(spec, sets),
        data=_data(spec, sets, of),
        membership=member,
        base=base,
        autoencoder=coder,
        extraction=extraction,
        signs=signs.judged(spec, sets, errors or {}),
        twins=twins,
        window=checkpoints.window(spec, sets, of, kept, sound=not broken),
        failed=failed(spec.fail_if, found.copies, p, count, more, member),
    )
    result = result.model_copy(
        update={
            "guidance": guidance.guidance(
                spec,
                result,
                at_risk=[name for _, _, name, _, listed, *_ in risk if listed],
                duplicates=_duplicates(pairs, len(sets.train)),
                run=guidance.studied(spec),
            )
        }
    )
    arrays = evidence.pictures(sets, matches["listed"] or matches["shown"], matches["decoys"])
    arrays |= pictures | {
        "ranking/trained": found.votes.ranking.trained,
        "ranking/score": found.votes.all.strength[found.votes.order],
    }
    rows = _rows(spec, sets, found.votes, found.length)
    tables = _files("matches", MATCHES, rows)
    if risk:
        levels = [f"error at {sigma:g}" for sigma in spec.sigmas]
        tables |= _files("risk", (*membership.RISK, *levels), risk)
    return Summary(result, arrays, tables)


def _duplicates(pairs: Arrays | None, trained: int) -> int:
    """Training images with a near-duplicate earlier in their set."""
    return int((pairs["within"].max(1, initial=-1) < trained).sum()) if pairs else 0


def _files(name: str, columns: Sequence[str], rows: Sequence[tuple]) -> dict[str, str | bytes]:
    """A table as CSV, and as Parquet where that can be written."""
    binary = parquet(columns, rows)
    return {f"{name}.csv": csv_text(columns, rows)} | (
        {} if binary is None else {f"{name}.parquet": binary}
    )


def _extractable(listed: Sequence[Match], decoys: int, samples: int) -> float | None:
    if not listed:
        return None
    counts = np.array([max(1, match.votes) for match in listed])
    return rates.extractable(counts, decoys, samples)


def _recall(found: NDArray[np.bool_]) -> Interval | None:
    if not len(found):
        return None
    low, high = clopper_pearson(int(found.sum()), len(found), 0.025)
    how = {"method": "Clopper-Pearson", "covers": "images"}
    return Interval(value=float(found.mean()), low=low, high=high, **how)


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


def _rows(spec: Spec, sets: Sets, votes: Votes, length: int) -> list[tuple]:
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
                float(f"{of.strength[row]:.6g}"),
                float(f"{of.distance[row]:.6g}"),
                int(counts[image]),
                kind.name,
                kind.places[of.place[row]],
                int(trained and rank < length),
            )
        )
    return rows
