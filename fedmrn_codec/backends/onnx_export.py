"""`fedmrn export-onnx`: the codec's operations as files that any ONNX runtime runs without this library."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .. import errors
from ..cli import files
from ..cli.options import Json, Mask
from ..cli.output import document, printable
from ..cli.problems import FileProblem
from ..mask import KINDS
from ..noise import BY_NAME

if TYPE_CHECKING:
    import onnx


class Operation(StrEnum):
    """What a graph does."""

    WORDS = "words"
    NOISE = "noise"
    DECODE = "decode"
    ACCUMULATE = "accumulate"
    SAMPLE = "sample"
    SAMPLE_SEEDED = "sample-seeded"
    APPLY = "apply"


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
        list[Mask] | None, typer.Option(help="Only these; may be repeated. Default: all.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write the decoder and the encoder as ONNX models.

    Files are called OPERATION-DISTRIBUTION-MASK.onnx. The decoder is decode, or accumulate for an exact mean
    of many frames, or apply, which adds an update to weights; the encoder is sample, or sample-seeded, which
    makes its own random draws of a private seed. They work on one tensor; what a frame is around it (spec 6,
    7) remains the caller's. Opset 18, ai.onnx alone, any length. Each says in its metadata which requirements
    of the specification it meets and which its caller must check, and for each input and output what it is.
    """
    made = list(models(operation, distribution, mask))
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


def models(
    operations: list[Operation] | None = None,
    distributions: list[Distribution] | None = None,
    masks: list[Mask] | None = None,
) -> Iterator[tuple[str, onnx.ModelProto]]:
    """File names and models: all, or those of these operations, distributions and masks.

    Raises
    ------
    BackendError
        The package onnx is missing.
    """
    try:
        from .onnx_graphs import build
    except ModuleNotFoundError as error:
        raise errors.BackendError("export-onnx", f"{error}", "install fedmrn-codec[onnx]") from None
    for operation in operations or Operation:
        if operation is Operation.WORDS:
            yield f"{operation}.onnx", build(operation)
            continue
        for distribution in distributions or Distribution:
            if operation is Operation.NOISE:
                yield f"{operation}-{distribution}.onnx", build(operation, BY_NAME[distribution])
                continue
            for mask in masks or Mask:
                model = build(operation, BY_NAME[distribution], KINDS[mask])
                yield f"{operation}-{distribution}-{mask}.onnx", model


def describe(model: onnx.ModelProto) -> dict[str, object]:
    """Metadata, inputs and outputs of a model, for JSON."""
    from onnx import TensorProto

    def described(value: onnx.ValueInfoProto) -> dict[str, object]:
        tensor = value.type.tensor_type
        dtype = TensorProto.DataType.Name(tensor.elem_type)
        shape = [dim.dim_param for dim in tensor.shape.dim]
        dtype = {"FLOAT": "float32"}.get(dtype, dtype.lower())
        return {"name": value.name, "type": dtype, "shape": shape, "meaning": value.doc_string}

    return {
        "metadata": {prop.key: prop.value for prop in model.metadata_props},
        "inputs": [described(value) for value in model.graph.input],
        "outputs": [described(value) for value in model.graph.output],
    }
