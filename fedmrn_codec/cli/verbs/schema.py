"""`fedmrn schema`: the schema of a model's tensors, or the schema embedded in a frame."""

from __future__ import annotations

from typing import Annotated

import typer

from .. import files, options, schemas
from ..output import document, say


def schema(
    source: Annotated[
        str,
        typer.Argument(
            metavar="FILE",
            help="A file of tensors, a frame that embeds its schema, or a schema; or - for stdin.",
        ),
    ],
    output: Annotated[str, options.output("The schema. Default: stdout.")] = "-",
    masked: options.MaskedGlobs = None,
    format: options.FileFormat = None,
    as_json: options.Json = False,
) -> None:
    """Print the schema of a file as JSON.

    The schema of a file of tensors lists them sorted by name. Without --masked, tensors of float32 with two
    or more dimensions are masked, and all others are dense.
    """
    files.check_distinct(output, source)
    found = schemas.load(source, masked or [], format)
    assert found is not None
    files.write(output, [f"{schemas.to_text(found)}\n".encode()])
    if as_json:
        if output != files.PIPE:
            document({"file": output, "tensors": len(found), "schema_digest": found.digest.hex()})
        return
    count, elements = sum(t.masked for t in found), sum(t.size for t in found if t.masked)
    say(f"{len(found)} tensors, {count} of them masked ({elements:,} elements), digest {found.digest.hex()}")
