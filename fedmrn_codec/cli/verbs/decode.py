"""`fedmrn decode`: write the update in a frame to a file of tensors."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import typer

from ... import errors
from ...face import decoding, models
from ...format.checked import CheckedFrame
from ...format.parsing import Expected
from ...format.schema import Schema
from ...primitives.dtypes import is_finite
from .. import files, options, schemas, tensors
from ..dense import Dense
from ..output import report
from ..problems import about
from ..tensors import Format, TensorFile

Names = Annotated[
    list[str] | None,
    typer.Option("--names", metavar="A,B", help="Decode only the tensors of these names. May be repeated."),
]


def decode(
    frame: Annotated[str, typer.Argument(metavar="FRAME", help="A frame, or - for stdin.")],
    output: Annotated[str, options.output("The tensors. Default: stdout, as safetensors.")] = "-",
    base: options.BaseFile = None,
    schema: options.SchemaFile = None,
    names: Names = None,
    round: options.ExpectedRound = None,
    base_model: options.ExpectedBaseModel = None,
    seed: options.ExpectedSeed = None,
    format: options.FileFormat = None,
    backend: options.Backend = None,
    as_json: options.Json = False,
) -> None:
    """Decode a frame, and write its update to a file of tensors.

    With --base, the update is added to the base model, and the new model is written. Tensors of the base
    model that are not in the frame are copied.
    """
    files.check_inputs(frame, base, schema)
    files.check_output(output, frame, schema)  # the base model may be replaced by the new one
    chosen = format or tensors.output_format(output)
    data, given = files.read(frame), schemas.load(schema)
    chosen_names = options.split(names) or None
    with about(frame):
        expected = Expected(given, round, base_model, seed)
        checked = CheckedFrame.open(data, expected, schemas.limits(data, given))
        schema_of_frame = checked.checked_schema
        arrays = decoding.decode(checked, names=chosen_names, backend=backend)
    if base is None:
        content = _update(arrays, schema_of_frame)
    else:
        content = plus_base(base, arrays, schema_of_frame, only=chosen_names is not None)
    tensors.save(output, content, chosen)
    report(
        {"file": output, "format": chosen.value, "tensors": list(content.tensors)},
        f"wrote {files.shown(output)}: {len(content.tensors)} tensors",
        as_json=as_json,
        beside_data=output == files.PIPE,
    )


def plus_base(path: str, update: dict[str, np.ndarray], schema: Schema, *, only: bool = False) -> TensorFile:
    """The model in a file plus an update; if `only`, without the tensors that the update does not have."""
    model = tensors.load(path)
    held = schemas.fit(path, model, schema, extra=True)
    with about(path):
        sums = models.apply({name: held[name] for name in update}, update, schema)
        _check_finite(held, update, sums, schema)
    new = model.with_arrays(sums)
    if only:
        return TensorFile({name: new.tensors[name] for name in update}, new.format, new.metadata)
    return new


def _check_finite(
    base: dict[str, np.ndarray], update: dict[str, np.ndarray], sums: dict[str, np.ndarray], schema: Schema
) -> None:
    """Raise UpdateError if a tensor of the base is finite, but not its sum with the update."""
    for tensor in schema:
        name = tensor.name
        if name in sums and not is_finite(sums[name], tensor.type) and is_finite(base[name], tensor.type):
            raise errors.UpdateError(
                f"base plus {name!r}", f"values within the range of {tensor.dtype}", "a value out of range"
            )


def _update(arrays: dict[str, np.ndarray], schema: Schema) -> TensorFile:
    dtypes = {t.name: t.dtype for t in schema}
    held = {name: Dense(dtypes[name], array) for name, array in arrays.items()}
    return TensorFile(held, Format.SAFETENSORS)
