"""The figure of docs/explain.md: r² of networks trained on few, more and many images, side by side.

    python docs/explain.py OUT.png N=RUN N=RUN N=RUN

RUN is the folder of a finished `twinscore explain` of the network trained on N images.
"""

import sys
from pathlib import Path

import numpy as np

from twinscore.report import plots, reading, style
from twinscore.report.explain import LOWEST, looks


def main() -> None:
    out, *given = sys.argv[1:]
    runs = {n: reading.read(Path(run)).result for n, _, run in (g.partition("=") for g in given)}
    with style.applied("light") as theme:
        drawn, panels = plots.new_row(2.9, len(runs), sharey=True)
        for axes, (n, result) in zip(panels, runs.items(), strict=True):
            sigmas = [level.sigma for level in result.levels]
            for i, name in enumerate(result.companions):
                look = {"markersize": 4, **looks(theme)[name]}
                colour, values = look.pop("color"), [v.explained[i].r2 for v in result.levels]
                values = np.maximum(plots.curve(values), LOWEST)
                plots.band(axes, sigmas, values, colour, label=name, **look)
            axes.axhline(0, color=theme.muted, linewidth=0.8)
            axes.set(xscale="log", xlabel="noise level σ", title=f"N = {n}")
            axes.set(ylim=(LOWEST - 0.03, 1.03))
            axes.set_xticks(sigmas, [f"{sigma:g}" for sigma in sigmas])
            axes.minorticks_off()
        panels[0].set_ylabel("r² of the network's outputs")
        plots.legend(drawn, panels[0])
        Path(out).write_bytes(style.png(style.settle(drawn)))


if __name__ == "__main__":
    main()
