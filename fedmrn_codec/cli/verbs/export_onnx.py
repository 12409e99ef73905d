"""`fedmrn export-onnx`: the codec's operations as ONNX models, which run without this library."""

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
        Path, options.output("The folder, created if it does not exist.", "FOLDER", show_default=True)
    ] = Path("onnx"),
    operation: Annotated[
        list[Operation] | None, typer.Option(help="Write only this operation. May be repeated. Default: all.")
    ] = None,
    distribution: Annotated[
        list[Distribution] | None,
        typer.Option(help="Write only this distribution. May be repeated. Default: all."),
    ] = None,
    mask: Annotated[
        list[MaskKind] | None,
        typer.Option(
            parser=options.parse_mask,
            metavar=options.MASKS,
            help="Write only this kind of mask. May be repeated. Default: all.",
        ),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Write the decoder and the encoder as ONNX models.

    Files are named OPERATION-DISTRIBUTION-MASK.onnx. The operations of a decoder are decode; accumulate, for
    the exact mean of many frames; and apply, which adds an update to weights. Those of an encoder are sample,
    and sample-seeded, which draws its random integers from a private seed. A model handles one tensor of any
    length; the caller reads and writes the frame around it (spec 6, 7). Models use opset 18 of ai.onnx only.
    Their metadata describes each input and output, and lists the requirements of the specification that the
    model meets and those that its caller must check.
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
