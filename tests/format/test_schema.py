"""Schemas: what the format can represent, bytes and JSON, and the message about a difference (spec 5)."""

import re

import numpy as np
import pytest

import fedmrn_codec as fm
from fedmrn_codec import errors
from fedmrn_codec.primitives.dtypes import DTYPES

SHAPE = "shape of 'a': expected at most 32 dimensions and 2^48 elements"


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ([("", (1,))], "tensor name: expected 1 to 65535 bytes of UTF-8, got 0"),
        ([("a" * 65536, (1,))], "tensor name: expected 1 to 65535 bytes of UTF-8, got 65536"),
        ([("\ud800", (1,))], "tensor name: expected valid Unicode, got '\\ud800'"),
        ([(3, (1,))], "tensor name: expected a string, got 3"),
        ([("a", (-1,))], f"{SHAPE}, got (-1,)"),
        ([("a", (1,) * 33)], f"{SHAPE}, got 33 dimensions"),
        ([("a", (2**25, 2**24))], f"{SHAPE}, got (33554432, 16777216)"),
        ([("a", (2**49, 0))], f"{SHAPE}, got (562949953421312, 0)"),
        ([("a", (1.5,))], "shape of 'a': expected a tuple of integers, got (1.5,)"),
        ([("a", (1,), "false")], "masked of 'a': expected a bool, got 'false'"),
        ([("a", (1,), False, "float8")], "dtype of 'a': expected one of float32, float64, "),
        ([("a", (1,), True, "float64")], "dtype of masked 'a': expected float32, got float64"),
        ([("a", (1,)), ("a", (2,))], "tensor name: expected a name not used by an earlier tensor, got 'a'"),
    ],
)
def test_schemas_that_the_format_cannot_represent(tensors, message):
    with pytest.raises(fm.SchemaError, match=f"^{re.escape(message)}"):
        fm.Schema([fm.Tensor(*t) for t in tensors])


def test_a_schema_mismatch_names_the_first_difference():
    a = fm.Schema([fm.Tensor("x", (2,)), fm.Tensor("y", (2,))])
    frame = fm.encode(
        {"x": np.zeros(2, "f4"), "y": np.zeros(2, "f4")}, a, seed=1, noise={}, embed_schema=True
    )
    mine = "tensor 0 is 'x' float32[2], the caller's is "
    for other, difference in (
        ([fm.Tensor("y", (2,)), fm.Tensor("x", (2,))], mine + "'y' float32[2]"),
        ([fm.Tensor("x", (3,)), fm.Tensor("y", (2,))], mine + "'x' float32[3]"),
        ([fm.Tensor("x", (2,), dtype="float64"), fm.Tensor("y", (2,))], mine + "'x' float64[2]"),
        ([fm.Tensor("x", (2,))], "2 tensors, the caller's schema has 1"),
    ):
        with pytest.raises(errors.SchemaMismatchError) as caught:
            fm.decode(frame, fm.Schema(other))
        expected = (
            f"expected {fm.Schema(other).digest.hex()}, the caller's, got {a.digest.hex()} ({difference})"
        )
        assert str(caught.value) == f"schema digest, byte 32: {expected}"


def test_schema_round_trips():
    masked = [fm.Tensor("conv.weight", (4, 3, 3, 3), masked=True), fm.Tensor("μ", (), masked=True)]
    schema = fm.Schema([*masked, *(fm.Tensor(f"dense.{name}", (0, 2), dtype=name) for name in DTYPES)])
    assert fm.Schema.from_bytes(schema.data) == schema
    assert fm.Schema.from_json(schema.to_json()) == schema
    assert len({schema, fm.Schema(list(schema))}) == 1
    for wrong, got in (
        ([{"name": "x"}], "KeyError: 'shape'"),
        ({}, "TypeError: not a list but a dict"),
        ("", "TypeError: not a list but a str"),
        ([3], "TypeError: "),
        (None, "TypeError: "),
        ([{"name": "x", "shape": [1], "colour": 2}], "TypeError: .*'colour'"),
    ):
        message = rf"^schema: expected a list of {{name, shape, masked, dtype}}, got {got}"
        with pytest.raises(fm.SchemaError, match=message):
            fm.Schema.from_json(wrong)
