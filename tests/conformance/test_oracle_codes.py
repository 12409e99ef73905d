"""The codes of the oracle, written down independently, are those of the shared enums."""

from fedmrn_codec.conformance import oracle
from fedmrn_codec.primitives.codes import Coding, MaskKind


def test_mask_kinds():
    kinds = {"binary": oracle.BINARY, "signed": oracle.SIGNED}
    assert {kind.label: kind.value for kind in MaskKind} == kinds
    assert oracle.DENSE not in kinds.values()


def test_codings():
    codings = {
        "raw": oracle.RAW,
        "rans": oracle.RANS,
        "float16": oracle.IN_FLOAT16,
        "bfloat16": oracle.IN_BFLOAT16,
        "rans12": oracle.RANS12,
        "rans14": oracle.RANS14,
    }
    assert {coding.label: coding.value for coding in Coding} == codings
    assert {coding.value: coding.minor for coding in Coding} == oracle.MINOR
