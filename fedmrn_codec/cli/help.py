"""Plain help: at 80 columns Rich's tables leave the words no room."""

from __future__ import annotations

import click
from typer.core import TyperCommand


class Verb(TyperCommand):
    """A command whose help is plain text."""

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """As Click's. Typer escapes brackets for Rich, whether Rich prints them or not: undo that."""
        super().format_help(ctx, formatter)
        formatter.buffer = [text.replace("\\[", "[") for text in formatter.buffer]
