"""`fedmrn inspect`: summaries of frames, partial sums and tallies."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from ... import errors
from ...face import decoding
from ...format.schema import Schema
from ...sums import partial, tally_bytes
from .. import files, options, schemas, summaries
from ..output import document, say
from ..problems import OK, REFUSED, FileProblem, InFile, UsageError, about, describe, human


class Content(StrEnum):
    """What the bytes of a file are."""

    FRAME = "frame"
    PARTIAL_SUM = "partial-sum"
    TALLY = "tally"
    SCHEMA = "schema"


def inspect(
    frames: Annotated[
        list[str], typer.Argument(metavar="FRAME...", help="Frames, partial sums or tallies; - for stdin.")
    ],
    schema: options.SchemaFile = None,
    annotate: Annotated[
        bool,
        typer.Option("--annotate", help="Show the bytes of one file, each field with its value and meaning."),
    ] = False,
    what: Annotated[
        Content | None,
        typer.Option("--as", help="What --annotate reads the bytes as. Default: what they look like."),
    ] = None,
    from_annotated: Annotated[
        bool, typer.Option("--from-annotated", help="Write the bytes of a view that --annotate has printed.")
    ] = False,
    out: Annotated[str, options.output("Where --from-annotated writes. Default: stdout.")] = files.PIPE,
    as_json: options.Json = False,
) -> None:
    """Show summaries of frames: their headers and tables.

    The names of tensors are shown if the schema is known, from --schema or from the frame. Payloads and
    checksums are not checked: 'fedmrn verify' checks them. With --annotate, all bytes of a frame, a partial
    sum, a tally or a schema are shown and checked, damaged ones too: the first check that fails stands below
    the bytes that do not pass it, with its number in spec/FORMAT.md.
    """
    files.check_inputs(*frames, schema)
    if annotate or from_annotated:
        if annotate and from_annotated:
            raise UsageError("--annotate and --from-annotated: expected one of them, got both")
        if as_json or len(frames) > 1:
            got = "--json" if as_json else f"{len(frames)} files"
            raise UsageError(f"--annotate and --from-annotated: expected one file and no --json, got {got}")
        raise typer.Exit(_annotate(frames[0], schema, what) if annotate else _restore(frames[0], out))
    if what is not None or out != files.PIPE:
        option, needed = ("--as", "--annotate") if what is not None else ("--output", "--from-annotated")
        raise UsageError(f"{option}: expected together with {needed}, got it alone")
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


def _annotate(file: str, schema: str | None, what: Content | None) -> int:
    """Print the annotated view of a file; the exit code says whether a check fails."""
    from ...conformance.annotated import annotated  # here, since the oracle takes time to import
    from ...conformance.inputs import Input, what_is

    known, data = schemas.load(schema), files.read(file)
    view = annotated(Input(data, what_is(data) if what is None else what.value, known))
    print(view.text, end="")
    return OK if view.fault is None else REFUSED


def _restore(file: str, out: str) -> int:
    """Write the bytes of an annotated view."""
    from ...conformance.annotated import bytes_of

    files.check_output(out)
    with about(file):
        files.write(out, [bytes_of(files.read(file).decode("utf-8", "replace"))])
    return OK


def _summary(file: str, schema: Schema | None) -> dict[str, Any]:
    data = files.read(file)
    with about(file):
        if not summaries.is_sum(data):
            return summaries.of_frame(decoding.inspect(data, schema))
        if summaries.is_tally(data):
            if schema is not None:
                tally_bytes.parse(data, schema, None, "numpy")
            elif len(data) < tally_bytes.HEADER.size:
                least = f"at least {tally_bytes.HEADER.size} bytes"
                raise errors.TruncatedError("tally", least, f"{len(data)} bytes", 0)
            return summaries.of_tally(data)
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
