"""Printing: results on stdout, remarks for people on stderr, or one JSON document."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

if TYPE_CHECKING:
    from rich.progress import Progress

Item = TypeVar("Item")


def say(text: str) -> None:
    """Print a remark for people on stderr."""
    print(f"fedmrn: {text}", file=sys.stderr)


def document(content: object, file: TextIO | None = None) -> None:
    """Print one JSON document, by default on stdout.

    Integers are written in full: seed and base_model need up to 64 bits, so a reader must not parse them as
    doubles.
    """
    print(json.dumps(content, allow_nan=False), file=file or sys.stdout)


def report(content: dict[str, Any], text: str, *, as_json: bool, beside_data: bool) -> None:
    """Print what a verb did: with --json a document, else a sentence on stderr.

    The document goes to stdout, or to stderr if the verb's data went to stdout.
    """
    if as_json:
        document(content, sys.stderr if beside_data else sys.stdout)
    else:
        say(printable(text))


def printable(text: str) -> str:
    """The text, with characters that could control a terminal replaced by escapes."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in text
    )


def progress() -> Progress:
    """Rich's progress bars on stderr, with an estimate of the time left; shown only on a terminal."""
    from rich import progress as bars
    from rich.console import Console

    return bars.Progress(
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TimeElapsedColumn(),
        bars.TextColumn("left"),
        bars.TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=sys.stdout is not None and sys.stdout.isatty(),  # else stdout would go to stderr
    )


def tracked(items: Iterable[Item], what: str, total: int | None = None) -> Iterator[Item]:
    """The items, with a progress bar for them if stderr is a terminal.

    Parameters
    ----------
    items : iterable
    what : str
        What is done with them, shown beside the bar.
    total : int, optional
        Their number, if `len(items)` does not give it.
    """
    if sys.stderr is None or not sys.stderr.isatty():
        yield from items  # without the import of Rich, which takes 0.1 s
        return
    with progress() as bars:
        yield from bars.track(items, total=total, description=what)


def print_table(
    title: str, header: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str] = ()
) -> None:
    """Print a title, notes and a Rich table on stdout; without a terminal their width is not limited."""
    if sys.stdout is None:  # closed
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console() if sys.stdout.isatty() else Console(width=10_000)
    table = Table(box=box.SIMPLE_HEAD, show_header=any(header))
    for position, name in enumerate(header):
        table.add_column(name, justify="left" if position == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    for line in (title, *notes):
        if line:
            console.print(Text(printable(line)), soft_wrap=True)
    console.print(table)
