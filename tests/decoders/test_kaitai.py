"""The description for Kaitai Struct, spec/fedmrn.ksy: compiled to Python, and run over the vectors."""

import importlib.util
import json
import re
import shutil
import struct
import subprocess
import sys
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

import fedmrn_codec as fm
from fedmrn_codec.conformance.oracle import codings, grids
from fedmrn_codec.primitives.dtypes import DTYPES, round_to_bfloat16
from fedmrn_codec.sums import partial, tally_bytes

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
kaitaistruct = pytest.importorskip("kaitaistruct", reason="kaitaistruct is not installed")

SPEC = Path(__file__).resolve().parents[2] / "spec"
FOLDER = SPEC / "kaitai"
KSY = yaml.safe_load((SPEC / "fedmrn.ksy").read_text(encoding="utf-8"))
WITH_SCHEMA = {"F-11", "F-17", "F-19", "F-23", "F-28"}
"""Stated for frames that carry their schema; a parser of others does not know it."""


def cases(name, result):
    found = json.loads((SPEC / "vectors" / f"{name}.json").read_text())["cases"]
    return [c for c in found if c["result"] == result]


def params(name, result):
    return [pytest.param(case, id=case["id"]) for case in cases(name, result)]


@pytest.fixture(scope="module")
def parser(tmp_path_factory):
    """The class that the compiler makes of the description."""
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    if not (FOLDER / "node_modules" / "kaitai-struct-compiler").is_dir():
        pytest.skip("the compiler of Kaitai Struct is not installed; `make kaitai` does that")
    out = tmp_path_factory.mktemp("kaitai")
    done = subprocess.run(
        ["node", str(FOLDER / "compile.mjs"), "python", str(out)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    spec = importlib.util.spec_from_file_location("compiled_fedmrn", out / "fedmrn.py")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Fedmrn


def stream(data):
    return kaitaistruct.KaitaiStream(BytesIO(data))


def schema_of(case):
    fields = [(t["name"], tuple(t["shape"]), t["role"] == "masked", t["dtype"]) for t in case["schema"]]
    return fm.Schema([fm.Tensor(name, shape, masked=m, dtype=d) for name, shape, m, d in fields])


def coded_parts(parser, entry, payload, size):
    """The parts of an entropy-coded payload; None of another."""
    data = getattr(payload, "coded", None)
    if not data:
        return None
    if entry.coding == parser.Coding.rans:
        return parser.Coding1(size, stream(data))
    if entry.coding == parser.Coding.rans12:
        return parser.Coding4(size, entry.distribution, stream(data))
    return parser.Coding5(size, stream(data))


def sums_of(parser, data, schema):
    message = parser(stream(data)).message
    return message, parser.Sums(message, parser.Schema(stream(schema.data)), stream(message.tensors))


def counts_of(parser, data, schema):
    message = parser(stream(data)).message
    return message, parser.Counts(message, parser.Schema(stream(schema.data)), stream(message.tensors))


def check_schema(found, schema):
    assert found.count == len(schema)
    for got, tensor in zip(found.tensors, schema, strict=True):
        assert got.name == tensor.name
        assert got.role.name == ("masked" if tensor.masked else "dense")
        assert got.dtype.name == tensor.dtype
        assert tuple(each.size for each in got.shape) == tensor.shape
        assert got.num_elements == tensor.size
        assert got.element_size == tensor.type.numpy.itemsize
        assert got.is_float == (tensor.type.name in ("float32", "float64", "float16", "bfloat16"))


def check_payload(entry, payload, content):
    """Compare a payload that is not entropy-coded with the vector's, which is before any rounding."""
    wire = bytes.fromhex(content["payload"])
    if entry.is_mask:
        assert bytes(payload.mask) == wire
    elif entry.kind.name == "grid":
        assert payload.integers == np.frombuffer(wire, "<i4").tolist()
    elif entry.coding.name == "float16":
        values = [each.bits16 for each in payload.elements]
        assert np.array(values, "<u2").tobytes() == np.frombuffer(wire, "<f4").astype("<f2").tobytes()
    elif entry.coding.name == "bfloat16":
        rounded = round_to_bfloat16(np.frombuffer(wire, "<f4"))
        assert [each.bits16 for each in payload.elements] == rounded.tolist()
    else:
        name = entry.dtype.name
        field = {"float16": "bits16", "bfloat16": "bits16", "bool": "boolean"}.get(name, name)
        field = field if field in ("bits16", "boolean", "float32", "float64") else "integer"
        values = [getattr(each, field) for each in payload.elements]
        kind = "<u2" if field == "bits16" else DTYPES[name].numpy
        assert np.array(values, kind).tobytes() == wire


def check_parts(entry, parts, wire):
    """Compare the parts of a coded payload with what the oracle reads, and see that they are all of it."""
    blocks = [*parts.blocks]
    if entry.coding.name == "rans":
        assert bytes(parts.probabilities) == wire[:16]
        head = 16 + 2 * len(parts.counts)
    elif entry.coding.name == "rans12":
        table, at = codings.take_indices(wire, int(entry.distribution))
        assert [parts.first, *(each.k for each in parts.differences)] == table
        head, blocks = at + 2 * len(parts.counts), [*blocks, parts.last_block]
    else:
        table, at = grids.take_frequencies(wire)
        assert [parts.first_frequency, *(each.value for each in parts.frequencies)] == table
        head, blocks = at + 4 * len(parts.counts), [*blocks, parts.last_block]
    pieces = [np.array(b.states, "<u4").tobytes() + np.array(b.words, "<u2").tobytes() for b in blocks]
    assert b"".join(pieces) == wire[head:]


@pytest.mark.parametrize("case", params("frames", "valid"))
def test_frames(parser, case):
    """Every field is the library's, and every payload the vector's."""
    data, schema = bytes.fromhex(case["frame"]), schema_of(case)
    frame, info = parser(stream(data)).message, fm.inspect(bytes.fromhex(case["frame"]), schema)
    assert (frame.major, frame.minor) == info.version
    assert (frame.seed, frame.base_model, frame.round) == (info.seed, info.base_model, info.round)
    assert (frame.schema_digest, frame.tensor_count) == (info.digest, len(schema))
    assert frame.has_schema == case["embed_schema"]
    if frame.has_schema:
        check_schema(frame.schema, schema)
    assert frame.checksum == zlib.crc32(data[:-4])
    for i, (tensor, want, content) in enumerate(zip(schema, info.tensors, case["tensors"], strict=True)):
        entry, payload = frame.table[i], frame.payloads[i]
        assert entry.kind.name.replace("elements", "dense") == want.kind
        assert (entry.coding.name, entry.length) == (want.coding, want.length)
        if entry.is_mask:
            assert (entry.distribution.name, entry.scale) == (want.noise.name, want.noise.scale)
        else:
            assert entry.dtype.name == want.dtype
        if entry.kind.name == "grid":
            assert 2.0**entry.step.log2 == want.step
        wire = data[want.offset : want.offset + want.length]
        parts = coded_parts(parser, entry, payload, tensor.size)
        if parts is None:
            check_payload(entry, payload, content)
        else:
            check_parts(entry, parts, wire)


@pytest.mark.parametrize("case", params("schema", "valid"))
def test_schemas(parser, case):
    check_schema(parser.Schema(stream(bytes.fromhex(case["bytes"]))), schema_of(case))


@pytest.mark.parametrize("case", params("aggregate", "valid"))
def test_partial_sums(parser, case):
    schema = schema_of(case)
    names = [case[name] for name in ("partial", "merged") if name in case]
    assert names
    for text in (*names, *case.get("parts", ())):
        data = bytes.fromhex(text)
        message, found = sums_of(parser, data, schema)
        header, sums = partial.parse(data, schema)
        assert (message.major, message.minor, message.flags) == (header.major, header.minor, header.flags)
        assert (message.weight, message.num_frames) == (header.weight, header.frames)
        assert (message.base_model, message.round) == (header.base_model, header.round)
        assert (message.schema_digest, message.tensor_count) == (header.digest, header.tensor_count)
        assert message.checksum == zlib.crc32(data[:-4])
        for stream_number, (got, tensor) in enumerate(zip(found.tensors, schema, strict=True)):
            if tensor.masked:
                state = sums.masked[stream_number]
                assert int(got.masked.distribution) == state.noise.code
                grid = got.masked.distribution.name == "grid"
                scale = 2.0**got.masked.step.log2 if grid else got.masked.scale
                assert scale == state.noise.scale
                assert got.masked.sums == state.sums.tolist()
            else:
                rows = [(limb, row.tolist()) for limb, row in sums.dense.rows(stream_number)]
                assert [(row.limb, row.limbs) for row in got.dense.rows] == rows


@pytest.mark.parametrize("case", params("tallies", "valid"))
def test_tallies(parser, case):
    """Every field is the library's, and so is every count; of coded ones, the parts are the oracle's."""
    schema = schema_of(case)
    for text in [*case.get("tallies", ()), *([case["tally"]] if "tally" in case else [])]:
        data = bytes.fromhex(text)
        message, found = counts_of(parser, data, schema)
        header, sums = tally_bytes.parse(data, schema, None, "numpy")
        assert (message.major, message.minor, message.flags) == (header.major, header.minor, header.flags)
        assert (message.seed, message.base_model, message.round) == (
            header.seed,
            header.base_model,
            header.round,
        )
        assert (message.weight, message.num_frames) == (header.weight, header.frames)
        assert (message.schema_digest, message.tensor_count) == (header.digest, header.tensor_count)
        assert message.num_bits == header.frames.bit_length()
        assert message.checksum == zlib.crc32(data[:-4])
        for stream_number, (got, tensor) in enumerate(zip(found.tensors, schema, strict=True)):
            if tensor.masked:
                check_counts(got.masked, sums.masked[stream_number])
            else:
                rows = [(limb, row.tolist()) for limb, row in sums.dense.rows(stream_number)]
                assert [(row.limb, row.limbs) for row in got.dense.rows] == rows


def check_counts(got, state):
    assert int(got.kind) == state.kind
    assert (int(got.distribution), got.scale) == (state.noise.code, state.noise.scale)
    if got.coding.name == "raw":
        assert [each.value for each in got.raw.counts] == state.counts.tolist()
    else:
        check_parts(got, got.coded, got._raw_coded)


@pytest.mark.parametrize("frames", [1, 2, 3, 5, 2**24 - 1])
def test_the_weight_of_a_tally_is_bounded_by_its_frames(parser, frames):
    """[T-06], where the product is the largest one or just above it."""
    data = bytes.fromhex(next(c["tally"] for c in cases("tallies", "valid") if c["schema"] == []))
    most = (2**39 - 1) // frames
    for weight in (1, most):
        message = parser(stream(data[:48] + struct.pack("<QI", weight, frames) + data[60:])).message
        assert (message.weight, message.num_frames) == (weight, frames)
        assert message.num_bits == frames.bit_length()
    for weight in (0, most + 1, 2**63 + 1):
        with pytest.raises(kaitaistruct.ValidationExprError) as caught:
            parser(stream(data[:48] + struct.pack("<QI", weight, frames) + data[60:]))
        assert "T-06" in place(caught.value)


def test_the_tallies_have_both_codings():
    codings_asked = [case["coding"] for case in cases("tallies", "valid") if "coding" in case]
    assert set(codings_asked) == {None, "rans14"}


@pytest.mark.parametrize("case", params("envelopes", "valid"))
def test_envelopes(parser, case):
    envelope = parser(stream(bytes.fromhex(case["envelope"]))).message
    assert (envelope.frame.hex(), envelope.key_id.hex()) == (case["frame"], case["key_id"])
    keys = {key["sender"]: key["algorithm"] for key in case["keys"]}
    assert envelope.algorithm.name.replace("_", "-") == keys[case["sender"]]
    assert len(envelope.signature) == (32 if envelope.algorithm.name == "hmac_sha256" else 64)


def stated(node=KSY):
    """The numbers of the requirements that the description names."""
    if isinstance(node, dict):
        yield from re.findall(r"\b[CFPST]-\d\d", node.get("doc", ""))
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from stated(child)


def number_of(case):
    name = case["id"].partition("/")[2]
    return f"{name[0].upper()}-{name[1:3]}"


def place(error):
    """The documentation of the field at which a parser stopped."""
    node = KSY
    for part in error.src_path.strip("/").split("/"):
        node = node[int(part) if part.isdigit() else part]
    return node["doc"]


def parse_all(parser, case):
    """Parse a frame, a partial sum or a tally, with its coded payloads, sums or counts."""
    if "partial" in case:
        sums_of(parser, bytes.fromhex(case["partial"]), schema_of(case))
        return
    if "tally" in case:
        counts_of(parser, bytes.fromhex(case["tally"]), schema_of(case))
        return
    frame = parser(stream(bytes.fromhex(case["frame"]))).message
    if case["schema"] is not None:
        for entry, payload, tensor in zip(frame.table, frame.payloads, schema_of(case), strict=True):
            coded_parts(parser, entry, payload, tensor.size)


FILES = "invalid", "partials_invalid", "tallies_invalid"
INVALID = [case for name in FILES for case in cases(name, "invalid")]
ERRORS = (EOFError, UnicodeDecodeError, kaitaistruct.ValidationFailedError)


def embedded(case):
    return "frame" in case and len(case["frame"]) >= 16 and int(case["frame"][12:14], 16) & 1


def test_what_it_states_is_refused(parser):
    """All invalid vectors of the numbers that the description names, and where it names the number."""
    numbers = set(stated()) - {"F-32", "S-02", "T-20"}  # of these, a part: raw integers; names of no byte
    assert len(numbers) > 55
    chosen = [c for c in INVALID if number_of(c) in numbers - WITH_SCHEMA]
    chosen += [c for c in INVALID if number_of(c) in WITH_SCHEMA and embedded(c)]
    raw = [c for c in INVALID if number_of(c) == "T-20" and "coded" not in c["id"]]
    assert len(raw) > 10
    chosen += raw
    assert len(chosen) > 350
    exact = 0
    for case in chosen:
        with pytest.raises(ERRORS) as caught:
            parse_all(parser, case)
        if isinstance(caught.value, kaitaistruct.ValidationFailedError):
            exact += number_of(case) in place(caught.value)
    assert exact > 0.8 * len(chosen)


def test_what_it_does_not_state_is_not_refused(parser):
    """The header says that checksum, digest and the content of coded payloads are not checked."""
    for number in ("F-27", "S-08", "T-18", "C-03", "C-08", "C-13", "C-14"):
        chosen = [c for c in INVALID if number_of(c) == number and "-and-" not in c["id"]]
        accepted = 0
        for case in chosen:
            try:
                parse_all(parser, case)
            except ERRORS:
                continue
            accepted += 1
        assert accepted >= len(chosen) - 1 > 0, number
