"""The ONNX models that `fedmrn export-onnx` writes, with their file names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING

from .. import errors
from ..primitives.codes import MaskKind
from ..primitives.noise import BY_NAME

if TYPE_CHECKING:
    import onnx


class Operation(StrEnum):
    """The operations for which an ONNX model exists."""

    WORDS = "words"
    NOISE = "noise"
    DECODE = "decode"
    ACCUMULATE = "accumulate"
    ACCUMULATE_COUNTS = "accumulate-counts"
    SAMPLE = "sample"
    SAMPLE_SEEDED = "sample-seeded"
    APPLY = "apply"
    GRID_DECODE = "grid-decode"
    GRID_ACCUMULATE = "grid-accumulate"
    GRID_APPLY = "grid-apply"


def models(
    operations: Sequence[Operation] | None = None,
    distributions: Sequence[str] | None = None,
    masks: Sequence[MaskKind] | None = None,
) -> Iterator[tuple[str, onnx.ModelProto]]:
    """Yield file name and model for each of the given operations, distributions, mask kinds; default: all.

    Raises
    ------
    BackendError
        The package onnx is not installed.
    """
    try:
        from .onnx_graphs import build
    except ModuleNotFoundError as error:
        raise errors.BackendError(
            "export-onnx", "the package onnx (pip install 'fedmrn-codec[onnx]')", error
        ) from None
    for operation in operations or Operation:
        if operation is Operation.WORDS or operation.startswith("grid-"):
            yield f"{operation}.onnx", build(operation)
            continue
        for distribution in distributions or BY_NAME:
            if operation in (Operation.NOISE, Operation.ACCUMULATE_COUNTS):
                yield f"{operation}-{distribution}.onnx", build(operation, BY_NAME[distribution])
                continue
            for mask in masks or MaskKind:
                model = build(operation, BY_NAME[distribution], mask)
                yield f"{operation}-{distribution}-{mask.label}.onnx", model


def describe(model: onnx.ModelProto) -> dict[str, object]:
    """The metadata, inputs and outputs of a model, for JSON."""
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
