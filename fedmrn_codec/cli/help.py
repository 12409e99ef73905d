"""Help as plain text, since Rich's tables are hard to read at 80 columns."""

from __future__ import annotations

import click
from typer.core import TyperCommand


class Verb(TyperCommand):
    """A command whose help is plain text."""

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the help as Click does, and undo the escapes of brackets, which Typer adds for Rich."""
        super().format_help(ctx, formatter)
        formatter.buffer = [text.replace("\\[", "[") for text in formatter.buffer]
