"""The table of slopes and the figure of docs/convergence.md."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from .. import rates
from ..report import markdown
from ..report.figures import COLOURS, LOOK, Drawing
from .curves import Curve

FEDAVG = "fedavg"
DECADE, THIRD = 0.1, 1 / 3
HEADS = (
    *("problem", "partition", "method", "rounds", "seeds", "round 1", "end"),
    *("decades", "slope", "late slope", "scale", "bits"),
)
NAMES = {"logistic": "logistic (distance)", "mlp-tanh": "tanh network (gradient)"}
PANEL = 3.3, 2.6  # inches

Styles = dict[str, dict[str, Any]]
Problem = tuple[str, str, int]
Groups = dict[tuple[Problem, str], list[Curve]]


def groups(curves: Sequence[Curve]) -> Groups:
    """The runs that differ by their seed only, by problem and label; FedAvg is the first of a problem."""
    found: Groups = {}
    for curve in sorted(curves, key=lambda each: (each.problem, each.label != FEDAVG, each.label)):
        found.setdefault((curve.problem, curve.label), []).append(curve)
    return found


def table(curves: Sequence[Curve]) -> str:
    """A row for each problem and method; means over the seeds, of slopes also the standard deviation."""
    return markdown(HEADS, [_row(*key, same) for key, same in groups(curves).items()], left=3)


def _row(problem: Problem, label: str, same: list[Curve]) -> list[str]:
    start, end = (float(np.mean([curve.quantity[at] for curve in same])) for at in (0, -1))
    bits = [curve.bits for curve in same if curve.bits is not None]
    scales = np.mean([curve.scales for curve in same], axis=0) if same[0].scales else []
    return [
        NAMES.get(problem[0], problem[0]),
        problem[1],
        label,
        str(problem[2]),
        str(len(same)),
        f"{start:.2g}",
        f"{end:.2g}",
        f"{math.log10(start / end):+.1f}",
        _spread([curve.slope(DECADE) for curve in same]),
        _spread([curve.slope(THIRD) for curve in same]),
        " to ".join(f"{scale:.2g}" for scale in scales),
        f"{np.mean(bits):.2f}" if bits else "",
    ]


def _spread(values: list[float]) -> str:
    mean = f"{np.round(np.mean(values), 2) + 0.0:+.2f}"  # no -0.00
    return f"{mean} ± {np.std(values, ddof=1):.2f}" if len(values) > 1 else mean


def figure(curves: Sequence[Curve]) -> Drawing:
    """A panel for each problem: means over the seeds against the rounds, and a line for the learning rate."""
    found = groups(curves)
    problems = list(dict.fromkeys(problem for problem, _ in found))
    styles = _styles(found)
    rows = math.ceil(len(problems) / 2)
    with mpl.rc_context(LOOK):
        drawing = Figure(figsize=(2 * PANEL[0], rows * PANEL[1] + 0.9), layout="constrained")
        axes = drawing.subplots(rows, 2, squeeze=False).flatten()
        for ax, problem in zip(axes, problems, strict=False):
            its = {label: same for (other, label), same in found.items() if other == problem}
            _panel(ax, problem, its, styles)
        for ax in axes[len(problems) :]:
            ax.set_visible(False)
        handles = {line.get_label(): line for ax in axes for line in ax.get_lines()}
        drawing.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=2)
    words = "Squared distance to the optimum or squared gradient against the rounds, for each method"
    return Drawing("convergence", words, drawing)


def _styles(found: Groups) -> Styles:
    """A colour for each way of the scale, solid for FedAvg and binary masks, dashed for signed ones."""
    out: Styles = {}
    kinds: list[tuple[str, int]] = []
    seen: list[tuple[str, str]] = []
    for label in dict.fromkeys(label for _, label in found):
        mask, _, way = label.partition(", ")
        kind = way if way in ("", "rule") else way.replace(":", " ").split()[0] + way.split()[-1]
        nth = kind, seen.count((mask, kind))  # another scale of the same kind has another colour
        seen.append((mask, kind))
        if nth not in kinds:
            kinds.append(nth)
        colour = COLOURS[kinds.index(nth) % len(COLOURS)]
        out[label] = {"color": colour, "linestyle": "--" if mask == "signed" else "-"}
    return out


def _panel(ax: Axes, problem: Problem, its: dict[str, list[Curve]], styles: Styles) -> None:
    model, partition, rounds = problem
    for label, same in its.items():
        mean = np.mean([curve.quantity for curve in same], axis=0)
        ax.plot(same[0].rounds, mean, label=label, **styles[label])
    first = next(iter(its.values()))
    _theory(ax, first)
    convex = bool(first[0].distance)
    ax.set(xscale="log", yscale="log", xlabel="round", title=f"{model}, {partition}, {rounds} rounds")
    ax.set_ylabel("squared distance" if convex else "squared gradient norm")
    for axis in (ax.xaxis, ax.yaxis):  # the look of this project's figures has no formulas
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())


def _theory(ax: Axes, same: list[Curve]) -> None:
    """A dotted line that is proportional to the learning rate, through the end of these runs."""
    curve = same[0]
    fall = [rates.factor(curve.settings["learning_rate_schedule"], round(r)) for r in curve.rounds]
    end = float(np.mean([each.quantity[-1] for each in same]))
    ax.plot(curve.rounds, np.array(fall) / fall[-1] * end, ":", color="#777777", label="as the learning rate")
