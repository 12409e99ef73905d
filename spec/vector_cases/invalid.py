"""Frames to be refused, and the code (FORMAT.md 7)."""

from __future__ import annotations

from collections.abc import Iterator

from fedmrn_codec.conformance import oracle as o
from vector_cases.bad_frame import number_of
from vector_cases.basics import (
    Case,
    invalid,
    options_json,
    refusal,
    schema_json,
)
from vector_cases.invalid_body import bad_payloads, bad_tables
from vector_cases.invalid_coded import bad_codings
from vector_cases.invalid_coded12 import bad_coded12
from vector_cases.invalid_grid import bad_grids
from vector_cases.invalid_head import bad_agreements, bad_headers, bad_schemas


def invalid_cases() -> Iterator[Case]:
    for group in (
        bad_headers,
        bad_schemas,
        bad_agreements,
        bad_tables,
        bad_payloads,
        bad_codings,
        bad_coded12,
        bad_grids,
    ):
        for name, comment, data, schema, options in group():
            number = number_of(name)
            found = refusal(lambda d=data, s=schema, p=options: o.parse(d, s, p))  # type: ignore[misc]
            assert found == number, (name, number, found)
            yield invalid(
                name,
                number,
                comment,
                schema=schema_json(schema),
                options=options_json(options),
                frame=data.hex(),
            )
