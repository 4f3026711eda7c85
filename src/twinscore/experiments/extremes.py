"""The two ends of a transition at one test image: the bases of memorising and of generalising."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twinscore.experiments import harmonics
from twinscore.experiments.trials import Trial
from twinscore.results.transition import Harmonics, Result
from twinscore.runs import digest

VECTORS = 32  # eigenvectors to keep, of images that have as many values


def add_harmonics(spec: Any, trials: Sequence[Trial], result: Result) -> Result:
    """Compare the smallest N that memorises with the largest that generalises, twin A of each.

    The comparison goes to a folder within the run's, and is read if it is there. The result has it
    as ``harmonics`` where both ends were reached. Cost: see
    :func:`twinscore.analysis.eigenbasis.measure`, at four noise levels for two networks.
    """
    memorising = [level.n for level in result.levels if level.verdict == "memorises"]
    generalising = [level.n for level in result.levels if level.verdict == "generalises"]
    if not (memorising and generalising):
        return result
    first, second = (
        next(t for t in trials if (t.n, t.twin, t.replicate) == (n, "a", 0))
        for n in (memorising[0], generalising[-1])
    )
    asked = harmonics.Spec(
        model=str(first.path),
        against=str(second.path),
        names=(f"N = {first.n:,}", f"N = {second.n:,}"),
        data=first.source,
        index=int(first.test[0]),
        vectors=min(VECTORS, math.prod(result.data.shape)),
    )
    key = asked.model_dump(mode="json") | {"model": first.name, "against": second.name}
    inside = Path("harmonics") / digest(key)[:8]
    done = harmonics.run(asked, first.folder / inside, device=first.device, network=first.custom)
    section = Harmonics(sentence=_sentence(done.result), folder=inside.as_posix())
    return result.model_copy(update={"harmonics": section})


def _sentence(found: harmonics.Result) -> str:
    one, other = ((model.name, model.at(found.sigma)) for model in found.models)
    parts = [
        f"at {name} the network keeps {level.kept.bound}{level.kept.directions}, which hold "
        f"{level.kept.bound}{100 * level.kept.image:.0f} % of the image, and returns "
        f"{level.psnr_out:.1f} dB"
        for name, level in (one, other)
    ]
    return (
        f"Of the {math.prod(found.shape):,} directions at test image {found.index}, "
        f"σ = {found.sigma:g} ({one[1].psnr_in:.1f} dB): {'; '.join(parts)}."
    )
