"""The figures, drawn at a size that fills the width of a phone."""

from __future__ import annotations

import io
import math
import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullFormatter, PercentFormatter

from fedmrn_codec.primitives import atomic

from .. import mask_counts
from .runs import both, uplink
from .sections import Row, Section, all_labels

WIDTH, HEIGHT, START, LEGEND_LINE = 4.6, 3.1, 1.3, 0.19  # inches; `START` is the panel of all rounds
PANELS = "all rounds", "enlarged"
SHORT, LONG = 24, 58  # characters that fit into half of a figure's width, and into the whole width
# Okabe and Ito's palette for all kinds of colour vision, without yellow, which is too light on white.
COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS, DASHES = "osD^vPX<>", ("-", "--", ":")
KINDS = (("mask", "#0072B2"), ("dense", "#E69F00"), ("header", "#999999"))
WAYS: dict[str, tuple[Callable[[dict[str, Any]], float], str]] = {
    "uplink": (uplink, "sent"),
    "total": (both, "sent and received"),
}
LOOK: Any = {
    "font.family": "DejaVu Sans",  # part of Matplotlib, so that drawings are the same on every machine
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.3,
    "lines.linewidth": 1.4,
    "lines.markersize": 4,
    "legend.frameon": False,
    "svg.fonttype": "path",
    "svg.hashsalt": "fedmrn",
    "text.parse_math": False,  # a "$" in a name does not start a formula
}

Styles = dict[str, dict[str, Any]]
Axis = Callable[[Row], np.ndarray]


@dataclass(frozen=True)
class Drawing:
    """A figure, a description for screen readers, and a title for use without a heading."""

    name: str
    words: str
    figure: Figure
    title: str = ""

    def save(self, path: Path) -> None:
        """Write the figure as PNG or SVG, in one atomic step."""
        atomic.write(path, self.data(path.suffix.lstrip(".") or "png"))

    def data(self, kind: str) -> bytes:
        """The bytes of the file; the same for the same input and version of Matplotlib."""
        buffer = io.BytesIO()
        no_date = dict.fromkeys(("Date", "Creator", "Format", "Type")) if kind == "svg" else {}
        with mpl.rc_context(LOOK):
            self.figure.suptitle("" if kind == "svg" else self.title, fontsize=10)
            self.figure.savefig(buffer, format=kind, dpi=160, metadata=no_date)
        return buffer.getvalue()

    def inline(self, prefix: str) -> str:
        """The SVG element, scaled to the box around it; `prefix` makes its ids unique in a page."""
        text = self.data("svg").decode()
        text = text[text.index("<svg") :]
        text = re.sub(r'(<svg [^>]*?)width="[^"]*"', r"\1", text, count=1)
        text = re.sub(r'(<svg [^>]*?)height="[^"]*"', r'\1aria-hidden="true"', text, count=1)
        return re.sub(r'( id="|url\(#|href="#)', rf"\g<1>{prefix}-", text)


@contextmanager
def drawn_alike() -> Iterator[None]:
    """Figures that are made within look the same on every machine."""
    with mpl.rc_context(LOOK):
        yield


def styles(sections: Sequence[Section]) -> Styles:
    """A colour, marker and line style for each label, the same in all figures of a report."""
    return styles_of(all_labels(sections))


def styles_of(labels: Sequence[str]) -> Styles:
    """A colour, marker and line style for each of these labels."""
    return {
        label: {
            "color": COLOURS[i % len(COLOURS)],
            "marker": MARKERS[i % len(MARKERS)],
            "linestyle": DASHES[i // len(COLOURS) % len(DASHES)],
        }
        for i, label in enumerate(labels)
    }


def _round_numbers(row: Row) -> np.ndarray:
    return np.asarray(row.series(itemgetter("round")).mean(axis=0))


def _sent(value: Callable[[dict[str, Any]], float]) -> Axis:
    """Bytes sent, or sent and received, by a client that took part in every round so far."""

    def axis(row: Row) -> np.ndarray:
        each = row.series(lambda line: value(line) / line["clients"])
        return np.asarray(np.cumsum(each.mean(axis=0)))

    return axis


def _curves(axes: Axes, section: Section, look: Styles, axis: Axis, limits: tuple[float, float]) -> None:
    """Draw a line for each row: the mean over seeds, with a band from the lowest to the highest seed."""
    for row in section.rows:
        x, y, style = axis(row), row.accuracy, look[row.label]
        axes.plot(x, y.mean(axis=0), label=row.label, markevery=max(1, len(x) // 10), **style)
        if len(y) > 1:
            band = {"color": style["color"], "alpha": 0.15, "linewidth": 0}
            axes.fill_between(x, y.min(axis=0), y.max(axis=0), **band)
    axes.set_ylabel("test accuracy")
    axes.set_ylim(*limits)


def ranges(section: Section) -> list[tuple[float, float]]:
    """The ranges of accuracy, one for each panel of a figure: that of all rounds, then an enlarged part.

    The enlarged part is that of the values after the first tenth of the rounds: the steep start would flatten
    the rest of the curves. If the start has no lower values, there is one range.
    """
    every = [row.accuracy for row in section.rows]
    late = [row.accuracy[:, math.ceil(row.rounds / 10) :] for row in section.rows]
    whole = _around(every)
    part = _around(late) if all(each.size for each in late) else whole
    return [whole] if min(each.min() for each in every) >= part[0] else [whole, part]


def _around(values: Sequence[np.ndarray]) -> tuple[float, float]:
    low, high = min(each.min() for each in values), max(each.max() for each in values)
    margin = 0.05 * max(high - low, 0.01)
    return float(low - margin), float(high + margin)


def _byte_axis(axes: Axes, *copies: Any) -> None:
    """Make a logarithmic axis of bytes; `copies` are other axes that get the same format."""
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    steps = (1.0, 2.0, 5.0) if high / low < 30 else (1.0,)
    for each in (axes, *copies):
        each.xaxis.set_major_locator(LogLocator(subs=steps))
        each.xaxis.set_major_formatter(EngFormatter("B", sep=" "))
        each.xaxis.set_minor_formatter("")


def _new(labels: Sequence[str], heights: Sequence[float]) -> tuple[Figure, list[Axes]]:
    """A figure of panels of these heights, with additional space below for a legend of these labels."""
    height = sum(heights) + LEGEND_LINE * _legend_lines(labels)
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    panels = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)
    return figure, list(panels[:, 0])


def _new_curves(section: Section, look: Styles, axis: Axis) -> tuple[Figure, list[Axes]]:
    """A figure of the curves of a section: a panel for each of `ranges`, the enlarged part below."""
    limits = ranges(section)
    figure, panels = _new([row.label for row in section.rows], [START, HEIGHT][-len(limits) :])
    for axes, each in zip(panels, limits, strict=True):
        _curves(axes, section, look, axis, each)
    _name_panels(panels)
    return figure, panels


def _name_panels(panels: Sequence[Axes]) -> None:
    if len(panels) > 1:
        for axes, what in zip(panels, PANELS, strict=True):
            axes.text(0.99, 0.04, what, transform=axes.transAxes, ha="right", fontsize=8, color="#555555")


def _legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    texts = [wrapped(label, LONG) for label in labels]
    figure.legend(handles, texts, loc="outside lower left", ncols=_legend_columns(labels), fontsize=8.5)


def _legend_columns(labels: Sequence[str]) -> int:
    longest = max(map(len, labels))
    return 3 if longest <= SHORT // 2 else 2 if longest <= SHORT else 1


def _legend_lines(labels: Sequence[str]) -> int:
    lines = [1 + wrapped(label, LONG).count("\n") for label in labels]
    return -(-sum(lines) // _legend_columns(labels))


def wrapped(text: str, width: int) -> str:
    """Wrap the text into lines of at most `width` characters."""
    return "\n".join(textwrap.wrap(text, width)) or text


def against_rounds(section: Section, look: Styles) -> Drawing:
    """Draw accuracy against rounds."""
    with drawn_alike():
        figure, (*_, axes) = _new_curves(section, look, _round_numbers)
        axes.set_xlabel("round")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
        _legend(figure, axes)
    return Drawing("rounds", f"Test accuracy against rounds: {section.name}.", figure, section.name)


def against_bytes(section: Section, look: Styles, name: str) -> Drawing:
    """Draw accuracy against "uplink" or "total" bytes: one client's below the axes, all clients' above."""
    value, what = WAYS[name]
    with drawn_alike():
        figure, panels = _new_curves(section, look, _sent(value))
        axes = panels[-1]
        figure.set_figheight(figure.get_figheight() + 0.4)
        axes.set_xscale("log")  # set it first: a secondary axis copies the scale when it is made
        axes.set_xlabel(f"{what} by a client that takes part in every round")
        count = section.task["clients_per_round"]
        every = panels[0].secondary_xaxis("top", functions=(lambda x: x * count, lambda x: x / count))
        every.set_xlabel(f"{what} by the {count} clients of each round together")
        _byte_axis(axes, every)
        _legend(figure, axes)
    words = f"Test accuracy against bytes {what}, logarithmic: {section.name}."
    return Drawing(f"{name}-bytes", words, figure, section.name)


def kinds_of_bytes(section: Section) -> Drawing:
    """Draw the shares of mask, dense and header bytes in the messages of each method."""
    rows = section.rows[::-1]
    names = [wrapped(row.label, SHORT) for row in rows]
    with drawn_alike():
        lines = sum(2 + name.count("\n") for name in names)
        figure, (axes,) = _new([kind for kind, _ in KINDS], [0.7 + 0.18 * lines])
        whole = np.array([row.per_message(uplink) for row in rows])
        left = np.zeros(len(rows))
        for kind, colour in KINDS:
            part = np.array([row.per_message(itemgetter(f"uplink_{kind}_bytes")) for row in rows]) / whole
            axes.barh(range(len(rows)), part, left=left, color=colour, label=kind, height=0.6)
            left += part
        for at, size in enumerate(whole):
            axes.text(1.02, at, f"{size:,.0f} B", va="center")
        axes.set_yticks(range(len(rows)), names)
        axes.set_xlim(0, 1)
        axes.xaxis.set_major_formatter(PercentFormatter(1))
        axes.set_xlabel("share of a message's bytes")
        axes.grid(axis="y", visible=False)
        _legend(figure, axes)
    return Drawing(
        "kinds", f"Share of mask, dense and header bytes in a message: {section.name}.", figure, section.name
    )


def mask_layers(section: Section, row: Row) -> Drawing | None:
    """Draw density, entropy and noise scale of each layer's masks, means over seeds; None without counts.

    Runs that are older than the scales in the mask counts have two panels.
    """
    shares, scales = mask_shares(row), mask_scales(row)
    if not shares:
        return None
    shades = mpl.colormaps["viridis"](np.linspace(0, 0.85, len(shares)))
    with drawn_alike():
        panels = 3 if scales else 2
        figure, (upper, lower, *lowest) = _new(list(shares), [2.1] * panels)
        for i, (tensor, by_round) in enumerate(shares.items()):
            style = {"color": shades[i], "marker": MARKERS[i % len(MARKERS)], "label": tensor}
            rounds = sorted(by_round)
            style["markevery"] = max(1, len(rounds) // 10)
            upper.plot(rounds, [np.mean(by_round[r]) for r in rounds], **style)
            lower.plot(
                rounds, [np.mean([mask_counts.entropy(p) for p in by_round[r]]) for r in rounds], **style
            )
            for axes in lowest:
                axes.plot(rounds, [np.mean(scales[tensor][r]) for r in rounds], **style)
        _at_least(upper, 0.1)
        _at_least(lower, 0.1, top=1.005)
        upper.set_title(wrapped(row.label, LONG))
        upper.set_ylabel("mask density")
        lower.set_ylabel("entropy, bits a mask bit")
        for axes in lowest:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter(NullFormatter())
            axes.set_ylabel("noise scale")
        last = [lower, *lowest][-1]
        last.set_xlabel("round")
        last.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
        _legend(figure, upper)
    what = "Density, entropy and noise scale" if scales else "Density and entropy"
    words = f"{what} of the masks of each layer against rounds: {row.label}, {section.name}."
    return Drawing(f"masks-{row.label}", words, figure, section.name)


def _at_least(axes: Axes, span: float, top: float | None = None) -> None:
    """Widen the vertical axis to at least this span, so that noise is not magnified."""
    low, high = axes.get_ylim()
    high = high if top is None else top
    more = max(0.0, span - (high - low))
    axes.set_ylim(low - (more / 2 if top is None else more), high + (more / 2 if top is None else 0))


Layers = dict[str, dict[int, list[float]]]
"""A value by tensor and round, for each seed."""


def mask_shares(row: Row) -> Layers:
    """Mask density of each layer; empty without mask counts."""
    return _of_layers(row, mask_counts.density)


def mask_scales(row: Row) -> Layers:
    """Noise scale of each layer; empty if the mask counts of a run have none."""
    counts = [counts for run in row.runs for line in run.masks for counts in line["tensors"].values()]
    return _of_layers(row, itemgetter("scale")) if all("scale" in each for each in counts) else {}


def _of_layers(row: Row, value: Callable[[dict[str, Any]], float]) -> Layers:
    found: Layers = {}
    for run in row.runs:
        for line in run.masks:
            for tensor, counts in line["tensors"].items():
                if line["round"] <= row.rounds and counts["elements"] * counts["frames"]:
                    found.setdefault(tensor, {}).setdefault(line["round"], []).append(value(counts))
    return found


def overview(sections: Sequence[Section], name: str = "uplink") -> Drawing:
    """Draw accuracy against "uplink" or "total" bytes and against rounds, in one row for each task."""
    value, what = WAYS[name]
    look = styles(sections)
    with drawn_alike():
        columns = 4 if max(map(len, look)) <= SHORT else 2
        limits = [ranges(section) for section in sections]
        heights = [height for each in limits for height in [1.4, 3.4][-len(each) :]]
        height = sum(heights) + 0.2 + LEGEND_LINE * -(-len(look) // columns)
        figure = Figure(figsize=(10, height), layout="constrained")
        grid = iter(figure.subplots(len(heights), 2, sharey="row", squeeze=False, height_ratios=heights))
        handles: dict[str, Any] = {}
        for section, both_ranges in zip(sections, limits, strict=True):
            rows = [next(grid) for _ in both_ranges]
            for column, axis in enumerate((_sent(value), _round_numbers)):
                panels = [row[column] for row in rows]
                for axes, each in zip(panels, both_ranges, strict=True):
                    _curves(axes, section, look, axis, each)
                panels[0].set_title(section.name)
                for axes in panels[:-1]:
                    axes.sharex(panels[-1])
                    axes.tick_params(labelbottom=False)
                _name_panels(panels)
            for left, right in rows:
                _byte_axis(left)
                right.set_ylabel("")
                right.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
            left, right = rows[-1]
            left.set_xlabel(f"{what} by a client that takes part in every round")
            right.set_xlabel("round")
            handles |= dict(zip(*left.get_legend_handles_labels()[::-1], strict=True))
        texts = [wrapped(label, LONG) for label in handles]
        figure.legend(list(handles.values()), texts, loc="outside lower center", ncols=columns)
    return Drawing("accuracy", f"Test accuracy against bytes {what} and rounds.", figure)
