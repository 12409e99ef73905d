"""`fedmrn inspect`: what frames and partial sums say of themselves."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ... import errors
from ...face import decoding
from ...format.schema import Schema
from ...sums import partial
from .. import facts, files, options, schemas
from ..output import document, say
from ..problems import OK, FileProblem, InFile, about, describe, human


def inspect(
    frames: Annotated[
        list[str], typer.Argument(metavar="FRAME...", help="Frames or partial sums; - for stdin.")
    ],
    schema: options.SchemaFile = None,
    as_json: options.Json = False,
) -> None:
    """Show what frames say of themselves.

    Tensors have names when the schema is known: given, or embedded in the frame. Payloads and
    checksums are not read: 'fedmrn verify' does that.
    """
    files.check_inputs(*frames, schema)
    given = schemas.load(schema)
    found: dict[str, dict[str, Any]] = {}
    problems: list[tuple[int, dict[str, Any]]] = []
    for file in dict.fromkeys(frames):
        try:
            found[file] = _facts(file, given)
        except (InFile, FileProblem) as error:
            problems.append(describe(error))
    if as_json:
        good = [{"file": file} | each for file, each in found.items()]
        document({"files": good, "errors": [problem for _, problem in problems]})
    else:
        _show(found)
        for _, problem in problems:
            say(f"error: {human(problem)}")
    raise typer.Exit(min((code for code, _ in problems), default=OK))


def _facts(file: str, schema: Schema | None) -> dict[str, Any]:
    data = files.read(file)
    with about(file):
        if not facts.is_partial(data):
            return facts.of_frame(decoding.inspect(data, schema))
        if schema is not None:
            partial.parse(data, schema)
        elif len(data) < partial.HEADER.size:
            raise errors.TruncatedError("partial sum", "a whole header", f"{len(data)} bytes", 0)
        return facts.of_partial(data)


def _show(found: dict[str, dict[str, Any]]) -> None:
    if len(found) == 1:
        ((file, only),) = found.items()
        facts.show(file, only)
    elif found:
        facts.show_many(found)
