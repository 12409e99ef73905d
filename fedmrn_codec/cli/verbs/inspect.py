"""`fedmrn inspect`: summaries of frames and partial sums."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ... import errors
from ...face import decoding
from ...format.schema import Schema
from ...sums import partial
from .. import files, options, schemas, summaries
from ..output import document, say
from ..problems import OK, FileProblem, InFile, about, describe, human


def inspect(
    frames: Annotated[
        list[str], typer.Argument(metavar="FRAME...", help="Frames or partial sums; - for stdin.")
    ],
    schema: options.SchemaFile = None,
    as_json: options.Json = False,
) -> None:
    """Show summaries of frames: their headers and tables.

    The names of tensors are shown if the schema is known, from --schema or from the frame. Payloads and
    checksums are not checked: 'fedmrn verify' checks them.
    """
    files.check_inputs(*frames, schema)
    expected = schemas.load(schema)
    shown: dict[str, dict[str, Any]] = {}
    problems: list[tuple[int, dict[str, Any]]] = []
    for file in dict.fromkeys(frames):
        try:
            shown[file] = _summary(file, expected)
        except (InFile, FileProblem) as error:
            problems.append(describe(error))
    if as_json:
        good = [{"file": file} | each for file, each in shown.items()]
        document({"files": good, "errors": [problem for _, problem in problems]})
    else:
        _show(shown)
        for _, problem in problems:
            say(f"error: {human(problem)}")
    raise typer.Exit(min((code for code, _ in problems), default=OK))


def _summary(file: str, schema: Schema | None) -> dict[str, Any]:
    data = files.read(file)
    with about(file):
        if not summaries.is_partial(data):
            return summaries.of_frame(decoding.inspect(data, schema))
        if schema is not None:
            partial.parse(data, schema)
        elif len(data) < partial.HEADER.size:
            raise errors.TruncatedError(
                "partial sum", f"at least {partial.HEADER.size} bytes", f"{len(data)} bytes", 0
            )
        return summaries.of_partial(data)


def _show(shown: dict[str, dict[str, Any]]) -> None:
    if len(shown) == 1:
        summaries.show(*next(iter(shown.items())))
    elif shown:
        summaries.show_many(shown)
