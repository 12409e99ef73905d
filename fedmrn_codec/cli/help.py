"""Help as plain text, since Rich's tables are hard to read at 80 columns."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperCommand

from .examples import EXAMPLES


class Verb(TyperCommand):
    """A command whose help is plain text and ends with examples, and whose usage errors show its usage."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help as Click does, and undo the escapes of brackets, which Typer adds for Rich."""
        super(TyperCommand, self).format_help(ctx, formatter)  # older Typer's own always uses Rich
        formatter.buffer = [text.replace("\\[", "[") for text in formatter.buffer]

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples, one on each line."""
        write_examples(formatter, EXAMPLES.get(self.name or "", ()))

    def invoke(self, ctx: Any) -> Any:
        """Run the verb; an error that its function finds in the arguments is shown with the verb's usage."""
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            error.ctx = error.ctx or ctx
            raise


def write_examples(formatter: Any, lines: tuple[str, ...]) -> None:
    """Write a section of command lines, which are not wrapped; nothing if there are none."""
    if lines:
        with formatter.section("Examples"):
            for line in lines:
                formatter.write(f"  {line}\n")
