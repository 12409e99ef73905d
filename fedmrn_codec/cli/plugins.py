"""Verbs from other packages: entry points of the group `fedmrn.commands`.

An entry point names a function with Typer's annotations, or a Typer app. It is imported when its
verb runs or `fedmrn --help` lists it, and not when another verb runs.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

import typer
from typer.core import TyperCommand

from .help import Verb
from .problems import UsageError, missing

GROUP = "fedmrn.commands"


def names() -> list[str]:
    """The names of the verbs that other packages offer, sorted; none of them is imported."""
    return sorted({point.name for point in entry_points(group=GROUP)})


def command(name: str) -> Any:
    """The verb of this name; None if no package offers it.

    A verb that cannot be imported becomes a command that reports the reason.
    """
    points = {point.value: point for point in entry_points(group=GROUP) if point.name == name}
    if not points:
        return None
    if len(points) > 1:
        return Broken(name, f"expected one package that offers it, got several: {', '.join(sorted(points))}")
    (point,) = points.values()
    try:
        return _as_command(name, point.load())
    except Exception as error:  # another package's module may raise anything while it is imported
        return Broken(name, _reason(error))


class Broken(TyperCommand):
    """A verb that cannot run: `--help` lists it with the reason, and running it reports the reason."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(
            name,
            short_help=f"not available: {reason}",
            add_help_option=False,
            context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
        )
        self.reason = reason

    def invoke(self, ctx: Any) -> None:
        """Report the reason, with exit code 2."""
        raise UsageError(f"{self.name!r} is not available: {self.reason}")


def _as_command(name: str, loaded: Any) -> Any:
    if isinstance(loaded, typer.Typer):
        return typer.main.get_command(loaded)
    holder = typer.Typer(rich_markup_mode=None, add_completion=False)
    holder.command(name, cls=Verb)(loaded)
    return typer.main.get_command(holder)


def _reason(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name:
        return missing(error)
    return f"{type(error).__name__}: {error}"
