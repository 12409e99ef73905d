"""Help as plain text, since Rich's tables are hard to read at 80 columns."""

from __future__ import annotations

import click
from typer.core import TyperCommand


class Verb(TyperCommand):
    """A command whose help is plain text."""

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """As in Click. Typer escapes brackets for Rich even where Rich does not print them; undo that."""
        super().format_help(ctx, formatter)
        formatter.buffer = [text.replace("\\[", "[") for text in formatter.buffer]
