"""`fedmrn decode`: a frame to a file of tensors."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import typer

from ... import decoding
from ...schema import Schema
from .. import arithmetic, files, options, schemas, tensors
from ..dense import Dense
from ..output import report
from ..problems import about
from ..tensors import Format, TensorFile

Names = Annotated[
    list[str] | None,
    typer.Option("--names", metavar="A,B", help="Decode only these tensors; may be repeated."),
]


def decode(
    frame: Annotated[str, typer.Argument(metavar="FRAME", help="A frame, or - for stdin.")],
    output: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            metavar="OUT",
            show_default=False,
            help="Tensors. Default: stdout, as safetensors.",
        ),
    ] = "-",
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
    """Decode a frame to the update it carries.

    With --base, the update is added to that model and the new model is written; tensors of the base that the
    frame does not have are copied.
    """
    files.check_inputs(frame, base, schema)
    files.check_output(output)
    chosen = format or tensors.output_format(output)
    data, given = files.read(frame), schemas.load(schema)
    wanted = options.split(names) or None
    with about(frame):
        info = decoding.inspect(data, given)
        arrays = decoding.decode(
            data,
            given,
            names=wanted,
            round=round,
            base_model=base_model,
            seed=seed,
            backend=options.fastest(backend, sum(t.size for t in info.schema or ())),
        )
    assert info.schema is not None
    if base is None:
        content = _update(arrays, info.schema)
    else:
        content = plus_base(base, arrays, info.schema, only=wanted is not None)
    tensors.save(output, content, chosen)
    report(
        {"file": output, "format": chosen.value, "tensors": list(content.tensors)},
        f"wrote {'stdout' if output == files.PIPE else output}: {len(content.tensors)} tensors",
        as_json=as_json,
        beside_data=output == files.PIPE,
    )


def plus_base(path: str, update: dict[str, np.ndarray], schema: Schema, *, only: bool = False) -> TensorFile:
    """The model in a file, with an update added to it; with `only`, just the tensors of the update."""
    model = tensors.load(path)
    held = schemas.fit(path, model, schema, extra=True)
    with about(path):
        new = model.with_arrays(arithmetic.add(held, update, schema))
    if only:
        return TensorFile({name: new.tensors[name] for name in update}, new.format, new.metadata)
    return new


def _update(arrays: dict[str, np.ndarray], schema: Schema) -> TensorFile:
    dtypes = {t.name: t.dtype for t in schema}
    held = {name: Dense(dtypes[name], array) for name, array in arrays.items()}
    return TensorFile(held, Format.SAFETENSORS)
