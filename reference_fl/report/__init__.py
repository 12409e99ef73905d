"""Tables, figures and a page about finished runs, made from their metrics files alone.

`load` reads runs; `table`, `markdown` and `figure` make the tables and figures of documents; `page` makes
the report. Matplotlib is imported only when a figure is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .documents import insert, markdown
from .runs import Run, load, uplink
from .table import HEADS, cells, table, time_table

__all__ = ["HEADS", "Run", "cells", "figure", "insert", "load", "markdown", "table", "time_table", "uplink"]


def figure(runs: Sequence[Run], path: Path, way: str = "uplink") -> None:
    """Draw accuracy against bytes and against rounds, one row for each task, into a PNG or SVG file.

    The bytes are those that clients sent; with `way` "total", those that they sent and received. With "rates"
    the figure has a point for each row of the one task, against the bytes of a message.

    Raises
    ------
    ValueError
        "rates" with runs of several tasks.
    """
    from .figures import overview
    from .rate_curve import rate_curve
    from .sections import sections

    tasks = sections(runs)
    if way == "rates" and len(tasks) != 1:
        raise ValueError(f"runs: expected those of one task, got {len(tasks)} tasks")
    path.parent.mkdir(parents=True, exist_ok=True)
    (rate_curve(tasks[0]) if way == "rates" else overview(tasks, way)).save(path)
