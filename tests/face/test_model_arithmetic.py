"""schema_of, model_id, difference and apply: their results, and models that do not fit."""

import hashlib
import re
from pathlib import Path

import numpy as np
import pytest

import fedmrn_codec as fm
from fedmrn_codec.conformance import oracle
from fedmrn_codec.face.models import add, as_update, check_schema, restored, subtract
from fedmrn_codec.primitives.dtypes import DTYPES

MODEL = {
    "weight": np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4),
    "half": np.full((2, 3), 2, np.float16),
    "double": np.full((2, 3), 2, np.float64),
    "big-endian": np.full((2, 3), 2, ">f4"),
    "bias": np.ones(3, np.float32),
    "double-bias": np.full(3, 2, np.float64),
    "half-bias": np.full(3, 2, np.float16),
    "scalar": np.array(2, np.float32),
    "empty": np.zeros((0, 4), np.float32),
    "bytes": np.full((2, 2), 255, np.uint8),
    "int64": np.array(2**40),
    "bool": np.array([True, False]),
}
TRAINED = MODEL | {
    "weight": MODEL["weight"] + np.float32(0.25),
    "bias": np.full(3, 1.5, np.float32),
    "half": np.full((2, 3), 2.5, np.float16),
    "half-bias": np.full(3, 2.5, np.float16),
    "double-bias": np.full(3, 2 + 2**-40),
    "bytes": np.full((2, 2), 3, np.uint8),
    "int64": np.array(2**40 - 1),
    "bool": np.array([False, False]),
}
NO_NAME = "^masked and leave_out: expected names of the model's arrays, got 'nowhere'$"
MASKED = ["weight", "half", "double", "big-endian", "empty"]


def bytes_of(arrays):
    return [(name, a.dtype.str, a.shape, a.tobytes()) for name, a in arrays.items()]


def test_floats_of_two_dimensions_are_masked():
    schema = fm.schema_of(MODEL)
    assert [tensor.name for tensor in schema] == list(MODEL)
    assert [tensor.name for tensor in schema if tensor.masked] == MASKED
    assert {t.name: t.dtype for t in schema if not t.masked} == {
        name: a.dtype.name for name, a in MODEL.items() if name not in MASKED
    }
    check_schema(schema, MODEL)


def test_a_schema_of_the_callers_choice():
    schema = fm.schema_of(MODEL, masked=["bias"], leave_out=["weight", "bool"])
    assert [tensor.name for tensor in schema if tensor.masked] == ["bias"]
    assert not {"weight", "bool"} & {tensor.name for tensor in schema}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"masked": ["nowhere"]},
            NO_NAME,
        ),
        (
            {"leave_out": ["nowhere"]},
            NO_NAME,
        ),
        ({"masked": ["int64"]}, "dtype of masked 'int64': expected a float, got int64"),
    ],
)
def test_schemas_that_the_model_does_not_have(options, message):
    with pytest.raises(fm.SchemaError, match=message):
        fm.schema_of(MODEL, **options)


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (fm.Tensor("nowhere", (3,)), "names of the model's arrays, got 'nowhere'"),
        (fm.Tensor("bias", (1,)), "float32[3], as in the model, got 'bias' float32[1]"),
        (fm.Tensor("bias", (3,), dtype="float64"), "float32[3], as in the model, got 'bias' float64[3]"),
        (
            fm.Tensor("bytes", (2, 2), masked=True),
            "uint8[2, 2], as in the model, got 'bytes' float32[2, 2] masked",
        ),
    ],
)
def test_check_schema(tensor, message):
    with pytest.raises(fm.SchemaError, match=f"^schema: expected {re.escape(message)}$"):
        check_schema(fm.Schema([tensor]), MODEL)


def test_models_have_ids():
    same = {name: array.copy() for name, array in MODEL.items()}
    assert fm.model_id(MODEL) == fm.model_id(same) > 0
    others = (
        MODEL | {"bias": np.ones(3, np.float64)},
        MODEL | {"bias": np.ones((3, 1), np.float32)},
        MODEL | {"bias": -MODEL["bias"]},
        {name if name != "bias" else "tias": array for name, array in MODEL.items()},
        dict(reversed(MODEL.items())),
    )
    assert len({fm.model_id(MODEL), *map(fm.model_id, others)}) == 6
    strided = {"a": np.arange(12.0).reshape(3, 4).T}
    assert fm.model_id(strided) == fm.model_id({"a": strided["a"].copy()})


def test_the_id_of_the_model_in_the_specification():
    """Spec 1.7: the fields of one tensor, and the id."""
    text = " ".join((Path(__file__).parents[2] / "spec" / "FORMAT.md").read_text(encoding="utf-8").split())
    fields, id = re.search(
        r"the values 1 and -2 is written `([0-9a-f ]+)`, and its id is (0x\w+)", text
    ).groups()
    assert fm.model_id({"w": np.float32([1, -2])}) == int(id, 16)
    assert hashlib.sha256(bytes.fromhex(fields)).digest()[:8] == int(id, 16).to_bytes(8, "little")


def test_apply_undoes_difference():
    schema = fm.schema_of(MODEL)
    update = fm.difference(TRAINED, MODEL, schema)
    assert [update[name].dtype.name for name in MASKED] == ["float32"] * len(MASKED)
    before = bytes_of(MODEL)
    dense = {tensor.name: update[tensor.name] for tensor in schema if not tensor.masked}
    assert bytes_of(fm.apply(MODEL, dense)) == bytes_of(
        {name: TRAINED[name] if name in dense else array for name, array in MODEL.items()}
    )
    for name, array in fm.apply(MODEL, update).items():
        assert (array.dtype, array.shape) == (MODEL[name].dtype, MODEL[name].shape)
        assert (array == TRAINED[name]).all(), name  # all are exact here
    assert bytes_of(MODEL) == before


def test_a_difference_goes_through_a_frame():
    schema = fm.schema_of(MODEL)
    update = fm.difference(TRAINED, MODEL, schema)
    decoded = fm.decode(fm.encode(update, schema, seed=1, noise=fm.Uniform(0.3), mask="signed"), schema)
    for tensor in schema:
        if not tensor.masked:
            assert decoded[tensor.name].tobytes() == update[tensor.name].tobytes()


@pytest.mark.parametrize(
    ("trained", "message"),
    [
        (
            {"bias": np.ones(1, np.float32)},
            r"^trained 'bias': expected float32\[3\], as received, got float32\[1\]$",
        ),
        ({"bias": np.ones(3)}, r"^trained 'bias': expected float32\[3\], as received, got float64\[3\]$"),
        (None, "^trained arrays: expected every name of the schema, got nothing for 'weight'$"),
    ],
)
def test_differences_of_other_models(trained, message):
    with pytest.raises(fm.UpdateError, match=message):
        fm.difference({} if trained is None else MODEL | trained, MODEL, fm.schema_of(MODEL))


def test_bfloat16_is_subtracted_and_added_as_numbers():
    schema = fm.Schema([fm.Tensor("a", (3,), dtype="bfloat16")])
    base = {"a": np.array([0x3F80, 0x4000, 0x7F7F], np.uint16)}  # 1, 2 and the largest
    trained = {"a": np.array([0x4040, 0x3F80, 0x7F7F], np.uint16)}  # 3, 1
    update = fm.difference(trained, base, schema)
    assert update["a"].tolist() == [0x4000, 0xBF80, 0]
    assert fm.apply(base, update, schema)["a"].tobytes() == trained["a"].tobytes()
    assert fm.apply(base, base, schema)["a"].tolist() == [0x4000, 0x4080, 0x7F80]


def test_sums_and_differences_of_bfloat16_are_rounded_once():
    """Against fractions: random values with near and far exponents, and subnormals."""
    kind, rng = oracle.DTYPES[DTYPES["bfloat16"].code], np.random.default_rng(0)
    ranges = (100 << 7, 130 << 7), (0, 255 << 7), (0, 256)
    a, b = (np.concatenate([rng.integers(*ends, 2000) for ends in ranges]).astype(np.uint16) for _ in "ab")
    a |= rng.integers(0, 2, len(a)).astype(np.uint16) << 15
    numbers = [[oracle.exact_value(int(bits), kind) for bits in pair] for pair in zip(a, b, strict=True)]
    for function, results in ((add, [x + y for x, y in numbers]), (subtract, [x - y for x, y in numbers])):
        expected = np.array([oracle.round_float(result, kind) for result in results], np.uint16)
        got = function(a, b, "bfloat16")
        assert (got.dtype, got.shape) == (np.uint16, a.shape)
        assert ((got == expected) | (expected << 1 == 0) & (got << 1 == 0)).all()


def test_bfloat16_needs_the_schema():
    bits = {"a": np.array([0x3F80, 0x4000], np.uint16)}
    schema = fm.Schema([fm.Tensor("a", (2,), dtype="bfloat16")])
    assert fm.apply(bits, bits)["a"].tolist() == [0x7F00, 0x8000]  # as integers
    assert fm.apply(bits, bits, schema)["a"].tolist() == [0x4000, 0x4080]
    assert bits["a"].tolist() == [0x3F80, 0x4000]


def test_a_nan_remains_and_encode_refuses_it():
    schema = fm.schema_of(MODEL)
    update = fm.difference(MODEL | {"bias": np.full(3, np.nan, np.float32)}, MODEL, schema)
    with pytest.raises(fm.UpdateError, match=r"^'bias': expected finite values, got a NaN or an infinity$"):
        fm.encode(update, schema, seed=1, noise=fm.Uniform(0.01))


def test_updates_that_were_computed_elsewhere():
    schema = fm.Schema([fm.Tensor("a", (2, 2), masked=True), fm.Tensor("b", (2,), dtype="float64")])
    given = {"a": np.ones((2, 2)), "b": np.ones(2), "more": np.ones(1)}
    assert {n: a.dtype.name for n, a in as_update(given, schema).items()} == {"a": "float32", "b": "float64"}
    with pytest.raises(
        fm.UpdateError, match=r"^update: expected every name of the schema, got nothing for 'b'$"
    ):
        as_update({"a": given["a"]}, schema)


@pytest.mark.parametrize(
    ("update", "message"),
    [
        (
            {"nowhere": np.ones(3, np.float32)},
            r"^'nowhere' of the model: expected float32\[3\], as in the update, got nothing$",
        ),
        (
            {"bias": np.ones(1, np.float32)},
            r"^'bias' of the model: expected float32\[1\], as in the update, got float32\[3\]$",
        ),
        (
            {"bias": np.ones(3, np.uint16)},  # the bits of bfloat16, say
            r"^'bias' of the model: expected uint16\[3\], as in the update, got float32\[3\]$",
        ),
    ],
)
def test_no_update_is_broadcast(update, message):
    with pytest.raises(fm.UpdateError, match=message):
        fm.apply(MODEL, update)


def test_the_sum_may_be_infinite():
    large = {"bias": np.full(3, np.finfo(np.float32).max, np.float32)}
    assert np.isinf(fm.apply(large, large)["bias"]).all()


def test_dtypes_that_averaging_changed_are_restored():
    assert restored(np.array(2.5000001), np.dtype(np.int64)) == 3
    assert restored(np.array([1.5]), np.dtype(np.float32)).dtype == np.float32
    large = np.array(2**62 + 1)  # no float64
    assert restored(large, large.dtype) is large
