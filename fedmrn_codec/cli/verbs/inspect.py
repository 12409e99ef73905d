"""`fedmrn inspect`: summaries of frames, partial sums and tallies."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import typer

from ... import errors
from ...face import decoding
from ...format.schema import Schema
from ...sums import partial, tally_bytes
from .. import files, inspector, options, schemas, summaries
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
        typer.Option(
            "--as", help="What --annotate and --html read the bytes as. Default: what they look like."
        ),
    ] = None,
    html: Annotated[
        str | None,
        typer.Option(
            "--html",
            metavar="FILE",
            help="Write a page that shows one file: bytes, pictures of masks, histograms, checks.",
        ),
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
    the bytes that do not pass it, with its number in spec/FORMAT.md. With --html, a page is written that
    shows the same in a browser, with pictures of masks and histograms of the decoded values; it holds the
    bytes and needs no other file.
    """
    files.check_inputs(*frames, schema)
    chosen = {"--annotate": annotate, "--from-annotated": from_annotated, "--html": html is not None}
    mode = _mode(chosen, len(frames), as_json)
    if what is not None and mode not in ("--annotate", "--html"):
        raise UsageError("--as: expected together with --annotate or --html, got it alone")
    if out != files.PIPE and mode != "--from-annotated":
        raise UsageError("--output: expected together with --from-annotated, got it alone")
    if mode == "--annotate":
        raise typer.Exit(_annotate(frames[0], schema, what))
    if mode == "--from-annotated":
        raise typer.Exit(_restore(frames[0], out))
    if html is not None:
        raise typer.Exit(_page(frames[0], schema, what, html))
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


def _mode(chosen: dict[str, bool], count: int, as_json: bool) -> str | None:
    """The option that asks for another output than summaries, or None."""
    given = [option for option, on in chosen.items() if on]
    if len(given) > 1:
        raise UsageError(f"{', '.join(chosen)}: expected one of them, got {' and '.join(given)}")
    if given and (as_json or count > 1):
        got = "--json" if as_json else f"{count} files"
        raise UsageError(f"{given[0]}: expected one file and no --json, got {got}")
    return given[0] if given else None


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

    files.check_output(out, file)
    with about(file):
        files.write(out, [bytes_of(files.read(file).decode("utf-8", "replace"))])
    return OK


def _page(file: str, schema: str | None, what: Content | None, out: str) -> int:
    """Write the page that shows a file."""
    files.check_distinct(out, file, schema)
    known, data = schemas.load(schema), files.read(file)
    page = inspector.page(file, data, None if what is None else what.value, schema, known)
    files.write(out, [page.encode()])
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
