"""`fedmrn export-onnx`: the codec's operations as files that any ONNX runtime runs without this library."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ...backends.onnx_export import Operation, describe, models
from ...primitives.codes import MaskKind
from .. import files, options
from ..output import document, printable
from ..problems import FileProblem


class Distribution(StrEnum):
    """A distribution of the noise."""

    UNIFORM = "uniform"
    GAUSSIAN = "gaussian"
    BERNOULLI = "bernoulli"


def export_onnx(
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="Made if it is not there.")
    ] = Path("onnx"),
    operation: Annotated[
        list[Operation] | None, typer.Option(help="Only these; may be repeated. Default: all.")
    ] = None,
    distribution: Annotated[
        list[Distribution] | None, typer.Option(help="Only these; may be repeated. Default: all.")
    ] = None,
    mask: Annotated[
        list[MaskKind] | None,
        typer.Option(
            parser=options.parse_mask,
            metavar=options.MASKS,
            help="Only these; may be repeated. Default: all.",
        ),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Write the decoder and the encoder as ONNX models.

    Files are called OPERATION-DISTRIBUTION-MASK.onnx. The decoder is decode, or accumulate for an exact mean
    of many frames, or apply, which adds an update to weights; the encoder is sample, or sample-seeded, which
    makes its own random draws of a private seed. They work on one tensor; what a frame is around it (spec 6,
    7) remains the caller's. Opset 18, ai.onnx alone, any length. Each says in its metadata which requirements
    of the specification it meets and which its caller must check, and for each input and output what it is.
    """
    names = [str(name) for name in distribution or ()]
    made = list(models(operation, names, mask))
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileProblem(str(output), error.strerror or str(error)) from error
    for name, model in made:
        files.write(str(output / name), [model.SerializeToString()])
    if as_json:
        listed = [{"file": str(output / name)} | describe(model) for name, model in made]
        document({"files": listed})
        return
    for name, _ in made:
        print(printable(str(output / name)))
