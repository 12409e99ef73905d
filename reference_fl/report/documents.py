"""Tables in Markdown documents: writing one, and putting it in its place."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from fedmrn_codec.primitives import atomic


def markdown(heads: Sequence[str], rows: Iterable[Sequence[str]], left: int | None = None) -> str:
    """A table as Markdown.

    Parameters
    ----------
    heads : sequence of str
    rows : iterable of sequence of str
        Each with as many cells as there are heads.
    left : int, optional
        The number of columns, from the first, that are aligned left; the others are aligned right. By
        default all are aligned left.
    """
    count = len(heads) if left is None else left
    rule = "|---" * count + "|---:" * (len(heads) - count) + "|"
    return "\n".join([_line(heads), rule, *map(_line, rows)])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def insert(document: Path, text: str, place: str) -> None:
    """Replace the text between the comments `<!-- PLACE... -->` and `<!-- end of PLACE -->` of a document.

    Raises
    ------
    ValueError
        The document does not have these comments exactly once.
    """
    name = re.escape(place)
    pattern = re.compile(rf"(<!-- {name}\b[^\n]*-->\n).*?(<!-- end of {name} -->)", re.S)
    new, count = pattern.subn(lambda m: f"{m[1]}{text}\n{m[2]}", document.read_text())
    if count != 1:
        raise ValueError(f"places {place!r} in {document}: expected 1, got {count}")
    atomic.write(document, new.encode())
