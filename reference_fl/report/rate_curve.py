"""What bytes buy: a point for each method and rate, in place of a curve over the rounds."""

from __future__ import annotations

from matplotlib.figure import Figure

from .figures import LEGEND_LINE, LONG, Drawing, drawn_alike, styles_of, wrapped
from .runs import uplink
from .sections import FLOAT32, Row, Section

WIDTH, HEIGHT = 6.0, 3.6  # inches


def rate_curve(section: Section) -> Drawing:
    """Draw the mean accuracy of the last rounds against the bytes that a client sends in a round.

    Rows of the same method and mask kind are points of one curve. FedAvg is a horizontal line, since it sends
    many times as much.
    """
    curves: dict[str, list[Row]] = {}
    for row in section.rows:
        curves.setdefault(row.runs[0].label, []).append(row)
    look = styles_of(list(curves))
    with drawn_alike():
        height = HEIGHT + LEGEND_LINE * -(-len(curves) // 4)
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        axes = figure.subplots()
        for label, rows in curves.items():
            points = sorted((row.per_message(uplink), row.recent.mean) for row in rows)
            style = look[label]
            if rows[0].method == FLOAT32:
                axes.axhline(points[0][1], label=label, color=style["color"], linestyle="--")
            else:
                axes.plot(*zip(*points, strict=True), label=label, **style)
        axes.set_xlim(left=0)
        axes.set_xlabel("bytes that a client sends in a round")
        axes.set_ylabel("test accuracy, mean of the last 5 rounds")
        handles, labels = axes.get_legend_handles_labels()
        texts = [wrapped(label, LONG) for label in labels]
        figure.legend(handles, texts, loc="outside lower center", ncols=4)
    return Drawing("rates", f"Test accuracy against bytes of a message: {section.name}.", figure)
