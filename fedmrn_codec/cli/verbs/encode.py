"""`fedmrn encode`: encode a file of tensors as a frame."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import typer

from ...face import decoding, encoding, models
from ...format.schema import Schema
from ...primitives.codes import Coding, MaskKind
from .. import files, options, schemas, summaries, tensors
from ..output import report, say
from ..problems import about

Seed = Annotated[
    int,
    options.integer(
        "--seed",
        64,
        "The seed of the noise, which the frame carries. There is no default and no 'random': the server "
        "should assign a different seed for each client and round. A client that chooses its own seed can "
        "try many.",
    ),
]
PrivateSeed = Annotated[
    int | None,
    options.integer(
        "--private-seed",
        64,
        "Draw the mask bits from this seed, so that a test can be repeated. Keep it secret. It must differ "
        "from --seed. Default: the operating system's randomness.",
        envvar="FEDMRN_PRIVATE_SEED",
    ),
]
Embed = Annotated[
    bool | None,
    typer.Option(
        "--embed-schema/--no-embed-schema",
        help="Embed the schema in the frame, so that the frame can be decoded without --schema. "
        "Default: yes, unless --schema is given.",
    ),
]


def encode(
    update: Annotated[
        str,
        typer.Argument(metavar="UPDATE", help="A file of tensors (.safetensors or .npz), or - for stdin."),
    ],
    noise: options.Noisy,
    seed: Seed,
    output: Annotated[str, options.output("The frame. Default: stdout.", "FRAME")] = "-",
    mask: options.Mask = MaskKind.BINARY,
    coding: options.MaskCoding = Coding.RAW,
    dense_coding: options.DenseCoding = Coding.RAW,
    base: options.BaseFile = None,
    schema: options.SchemaFile = None,
    masked: options.MaskedGlobs = None,
    embed: Embed = None,
    round: Annotated[
        int, options.integer("--round", 32, "The round. Default: 0, not given.", show_default=False)
    ] = 0,
    base_model: Annotated[
        int,
        options.integer(
            "--base-model", 64, "The base model. Default: 0, not given.", metavar="ID", show_default=False
        ),
    ] = 0,
    private_seed: PrivateSeed = None,
    format: options.FileFormat = None,
    backend: options.Backend = None,
    as_json: options.Json = False,
) -> None:
    """Encode an update (trained minus base values) as a frame.

    With --base, UPDATE is the trained model, and the base model is subtracted from it first.

    Without --schema, the schema is derived from UPDATE: the tensors are sorted by name, and those of float32
    with two or more dimensions are masked; all others are dense.
    """
    files.check_inputs(update, base, schema)
    files.check_output(output, update, base, schema)
    chosen, arrays = _update(update, base, schema, masked or [], format)
    with about(update):
        frame = encoding.encode(
            arrays,
            chosen,
            seed=seed,
            noise=noise,
            mask=mask.label,
            coding=coding.label,
            dense_coding=dense_coding.label,
            round=round,
            base_model=base_model,
            embed_schema=schema is None if embed is None else embed,
            private_seed=private_seed,
            backend=backend,
        )
    files.write(output, [frame])
    summary = summaries.of_frame(decoding.inspect(frame, chosen))
    summary.pop("tensors")
    text = f"wrote {files.shown(output)}: {summaries.sentence(summary)}"
    if not as_json and summary["masked_elements"] == 0:
        say("note: no tensor is masked; the default is float32 tensors of two or more dimensions (--masked)")
    report({"file": output} | summary, text, as_json=as_json, beside_data=output == files.PIPE)


def _update(
    path: str, base: str | None, schema: str | None, masked: list[str], format: tensors.Format | None
) -> tuple[Schema, dict[str, np.ndarray]]:
    """The schema, and the update as arrays that fit it."""
    given = schemas.load(schema, masked)
    content = tensors.load(path, format)
    if given is None:
        with about(path):
            given = schemas.derive(content, masked)
    arrays = schemas.fit(path, content, given)
    if base is None:
        return given, arrays
    model = schemas.fit(base, tensors.load(base), given, extra=True)
    with about(path):
        return given, models.difference(arrays, model, given)
