"""The values of fields as text, for people."""

from __future__ import annotations

from . import oracle
from .fields import Field, shown
from .reference import CODINGS, DISTRIBUTIONS, KINDS

LABELS: dict[str, dict[int, str]] = {
    "kind": {code: label for label, code in KINDS.items()},
    "role": {0: "dense", 1: "masked"},
    "dtype": {code: dtype.name for code, dtype in oracle.DTYPES.items()},
    "distribution": {code: label for label, code in DISTRIBUTIONS.items()}
    | {oracle.GRID_DISTRIBUTION: "grid"},
    "coding": {code: label for label, code in CODINGS.items()},
}
"""What the numbers of some fields stand for."""

PLAIN = {"uint8": (1, False), "uint16": (2, False), "uint32": (4, False), "uint64": (8, False)}
INTEGERS = {**PLAIN, **{name[1:]: (size, True) for name, (size, _) in PLAIN.items()}, "bool": (1, False)}
FLOATS = {dtype.name: dtype for dtype in oracle.DTYPES.values() if dtype.fraction}

NOT_GIVEN = ("base_model", "round")
"""Fields in which 0 means that the writer gives no value."""


def meaning(field: Field, data: bytes) -> str:
    """The value of a field, and what it means; of a long field, that of its first 16 bytes."""
    raw = data[field.begin : field.end]
    if field.form in LABELS:
        number = int.from_bytes(raw, "little")
        return f"{number}: {LABELS[field.form].get(number, 'unknown')}"
    if field.form == "number":
        number = int.from_bytes(raw, "little")
        text = str(number) if number < 2**32 else f"{number:#x}"
        name = field.name.split()[0]
        if name == "flags":
            return f"{number:#06x}: {'a schema' if number & 1 else 'no schema'} in the frame"
        if name == "length" or field.name == "schema's length":
            return f"{text} bytes"
        return f"{text}: not given" if name in NOT_GIVEN and not number else text
    return values(raw[:16], field.form)


def values(raw: bytes, form: str) -> str:
    """The values of these bytes, as many as are complete."""
    if form == "text":
        return shown(raw)
    if form == "bits":
        return " ".join(f"{byte:08b}"[::-1] for byte in raw)
    if form in INTEGERS:
        size, signed = INTEGERS[form]
        return " ".join(str(int.from_bytes(part, "little", signed=signed)) for part in _parts(raw, size))
    if form in FLOATS:
        return " ".join(_float(part, FLOATS[form]) for part in _parts(raw, FLOATS[form].size))
    return ""


def _parts(raw: bytes, size: int) -> list[bytes]:
    return [raw[at : at + size] for at in range(0, len(raw) - size + 1, size)]


def _float(raw: bytes, dtype: oracle.Dtype) -> str:
    word = int.from_bytes(raw, "little")
    negative = "-" if word >> (8 * dtype.size - 1) else ""
    if not oracle.is_finite(word, dtype):
        return "NaN" if word % (1 << dtype.fraction) else f"{negative}infinity"
    value = float(oracle.exact_value(word, dtype))
    return f"{negative}0.0" if not value else f"{value:.{17 if dtype.size == 8 else 9}g}"
