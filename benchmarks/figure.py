"""The figure of docs/benchmarks.md: speed by size, relative to a memory copy."""

from __future__ import annotations

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, NullFormatter, StrMethodFormatter

from reference_fl.report.figures import COLOURS, DASHES, LOOK, MARKERS, Drawing

from .contenders import MINE

Curves = dict[str, dict[str, list[tuple[float, float]]]]


def drawing(curves: Curves) -> Drawing:
    """One panel for each operation, one line for each contender; the codec's are thicker.

    Of the other contenders only the lines for one thread are drawn.
    """
    every = dict.fromkeys(name for panel in curves.values() for name in panel)
    names = [name for name in every if name.startswith(MINE) or "threads" not in name]
    with mpl.rc_context(LOOK):
        figure = Figure(figsize=(4.2 * len(curves), 4.6), layout="constrained")
        for axes, (what, panel) in zip(
            figure.subplots(1, len(curves), squeeze=False)[0], curves.items(), strict=True
        ):
            for place, name in enumerate(names):
                axes.plot(*zip(*panel[name], strict=True), label=name, **_style(place, name))
            axes.set(xscale="log", yscale="log", title=what, xlabel="elements")
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
            axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axes.xaxis.set_minor_formatter(NullFormatter())
            axes.yaxis.set_minor_formatter(NullFormatter())
        figure.axes[0].set_ylabel("speed; a memory copy of the float32 update = 1")
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3)
    words = f"Speed by number of elements, relative to a memory copy, of {', '.join(names)}"
    return Drawing("speed", words, figure, "Speed by size")


def _style(place: int, name: str) -> dict[str, object]:
    return {
        "color": COLOURS[place % len(COLOURS)],
        "marker": MARKERS[place % len(MARKERS)],
        "linestyle": DASHES[place // len(COLOURS) % len(DASHES)],
        "linewidth": 2.4 if name.startswith(MINE) else 1.2,
    }
