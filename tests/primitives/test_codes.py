"""Mask kinds and codings: the codes of the specification, and members accepted wherever labels are."""

import json
import re

import numpy as np
import pytest

import fedmrn_codec as fm
from fedmrn_codec.conformance import oracle

SCHEMA = fm.Schema([fm.Tensor("w", (40, 50), masked=True), fm.Tensor("b", (8,))])
BITS = {"w": np.random.default_rng(0).random((40, 50)) < 0.05}
DENSE = {"b": np.linspace(-1, 1, 8, dtype=np.float32)}
SETTINGS = {"seed": 7, "noise": fm.Uniform(0.01)}


def encode(**options):
    update = {"w": np.where(BITS["w"], np.float32(0.004), np.float32(0)), **DENSE}
    return fm.encode(update, SCHEMA, **SETTINGS, private_seed=9, **options)


def encode_bits(**options):
    return fm.encode_bits(BITS, SCHEMA, **SETTINGS, dense=DENSE, **options)


def test_codes_are_those_of_the_oracle():
    assert (fm.MaskKind.BINARY, fm.MaskKind.SIGNED) == (oracle.BINARY, oracle.SIGNED)
    assert fm.Coding.RANS == oracle.RANS
    assert (fm.Coding.FLOAT16, fm.Coding.BFLOAT16) == (oracle.IN_FLOAT16, oracle.IN_BFLOAT16)
    assert fm.Coding.RAW == oracle.RAW
    assert fm.MaskKind.labels() == ("binary", "signed")
    assert fm.Coding.labels() == ("raw", "rans", "float16", "bfloat16", "rans12", "rans14")
    assert (fm.Coding.RANS12, fm.Coding.RANS14) == (oracle.RANS12, oracle.RANS14)


@pytest.mark.parametrize("make", [encode, encode_bits])
@pytest.mark.parametrize("kind", fm.MaskKind)
def test_encoders_accept_mask_kinds(make, kind):
    frame = make(mask=kind.label)
    assert frame == make(mask=kind) == make(mask={"w": kind})
    assert fm.inspect(frame, SCHEMA).tensors[0].mask_kind is kind


@pytest.mark.parametrize("make", [encode, encode_bits])
@pytest.mark.parametrize(
    ("name", "coding", "position"),
    [
        ("coding", fm.Coding.RAW, 0),
        ("coding", fm.Coding.RANS, 0),
        ("coding", fm.Coding.RANS12, 0),
        ("dense_coding", fm.Coding.RAW, 1),
        ("dense_coding", fm.Coding.FLOAT16, 1),
        ("dense_coding", fm.Coding.BFLOAT16, 1),
    ],
)
def test_encoders_accept_codings(make, name, coding, position):
    frame, tensor = make(**{name: coding.label}), SCHEMA.tensors[position].name
    assert frame == make(**{name: coding}) == make(**{name: {tensor: coding}})
    assert fm.inspect(frame, SCHEMA).tensors[position].payload_coding is coding


@pytest.mark.parametrize("kind", fm.MaskKind)
def test_add_arrays_accepts_mask_kinds(kind):
    sums = set()
    for mask in (kind, kind.label, {"w": kind}):
        server = fm.Aggregator(SCHEMA)
        server.add_arrays(DENSE, 3, bits=BITS, mask=mask, **SETTINGS)
        sums.add(server.to_bytes())
    assert len(sums) == 1


def test_requests_keep_labels():
    kind, coding, dense_coding = fm.MaskKind.SIGNED, fm.Coding.RANS, fm.Coding.BFLOAT16
    request = fm.Request(7, fm.Uniform(0.01), kind, 1, 2, SCHEMA, coding, dense_coding)
    labels = fm.Request(7, fm.Uniform(0.01), "signed", 1, 2, SCHEMA, "rans", "bfloat16")
    assert request == labels
    assert fm.Request.from_dict(json.loads(json.dumps(request.to_json()))) == request
    frame = request.encode({"w": np.zeros((40, 50), np.float32), **DENSE})
    assert request.check(frame).tensors[0].mask_kind is kind


@pytest.mark.parametrize("wrong", [fm.Coding.RANS, 1, "BINARY", None, True])
def test_other_mask_kinds_are_refused(wrong):
    message = re.escape(f"mask: expected one of binary, signed, got {wrong!r}")
    with pytest.raises(fm.ArgumentError, match=f"^{message}$"):
        encode_bits(mask=wrong)


@pytest.mark.parametrize("wrong", [fm.MaskKind.BINARY, fm.Coding.FLOAT16, 1, "RANS", None])
def test_other_codings_are_refused(wrong):
    message = re.escape(f"coding: expected one of raw, rans, rans12, got {wrong!r}")
    with pytest.raises(fm.ArgumentError, match=f"^{message}$"):
        encode_bits(coding=wrong)
