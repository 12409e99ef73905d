"""Tables, figures and a page of finished runs, from their metrics files alone.

`load` reads runs; `table`, `markdown` and `figure` make what the README shows, `page` the report.

Matplotlib is loaded by what draws, when it draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .runs import Run, load, uplink
from .table import HEADS, insert, markdown, table

__all__ = ["HEADS", "Run", "figure", "insert", "load", "markdown", "table", "uplink"]


def figure(runs: Sequence[Run], path: Path) -> None:
    """Draw accuracy against the bytes a client has sent and against rounds, a row a task; PNG or SVG."""
    from .figures import overview
    from .sections import sections

    path.parent.mkdir(parents=True, exist_ok=True)
    overview(sections(runs)).save(path)
