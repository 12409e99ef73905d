"""What an embedded schema may cost a reader before it is refused (spec 7.3 [S-09], 9.2)."""

import hashlib
import struct
import tracemalloc

import numpy as np
import pytest

import fedmrn_codec as fm
from fedmrn_codec import errors
from fedmrn_codec.format.frame import CHECKSUM, HEADER

KNOWN = fm.Schema([fm.Tensor("w", (3,), masked=True), fm.Tensor("b", (2,))])
UPDATE = {"w": np.zeros(3, np.float32), "b": np.zeros(2, np.float32)}
MANY = fm.Schema([fm.Tensor(f"tensor {i}", (1,)) for i in range(3000)])


def hostile(count, digest=None):
    """A frame whose header counts one tensor and whose embedded schema holds `count`."""
    tensors = b"".join(struct.pack("<H4sBBB", 4, b"%04x" % i, 0, 1, 0) for i in range(count))
    schema = struct.pack("<I", count) + tensors
    digest = hashlib.sha256(schema).digest()[:16] if digest is None else digest
    header = HEADER.pack(b"FMRN", 1, 0, 1, 7, 0, 0, 1, digest)
    return header + struct.pack("<I", len(schema)) + schema + bytes(CHECKSUM.size)


def peak(call):
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def readers(schema, limits):
    request = fm.Request(7, fm.Uniform(0.01), "binary", 0, 0, schema, limits=limits)
    yield lambda frame: request.check(frame)
    yield lambda frame: request.aggregator().add(frame, 1)
    yield lambda frame: fm.decode(frame, schema, limits=limits)
    yield lambda frame: fm.decode(frame, limits=limits)
    yield lambda frame: fm.Aggregator(schema, limits=limits).add(frame, 1)


@pytest.mark.parametrize("reader", range(5))
@pytest.mark.parametrize("digest", [None, KNOWN.digest], ids=["own digest", "the caller's digest"])
def test_a_schema_of_many_tensors_is_refused_before_they_are_all_read(reader, digest):
    frame = hostile(20_000, digest)
    read = list(readers(KNOWN, fm.Limits(max_tensors=100)))[reader]

    def refused():
        with pytest.raises(errors.LimitError, match="schema tensor count, byte 52: expected at most 100"):
            read(frame)

    refused()
    assert peak(refused) < len(frame) / 2


def test_the_limit_of_tensors_is_that_of_the_schema_itself():
    with pytest.raises(errors.LimitError):
        fm.Schema.from_bytes(MANY.data, fm.Limits(max_tensors=2999))
    assert fm.Schema.from_bytes(MANY.data, fm.Limits(max_tensors=3000)) == MANY
    with pytest.raises(errors.TensorCountError):
        fm.decode(hostile(100), limits=fm.Limits(max_tensors=100))


def test_a_schema_that_the_caller_knows_is_compared_and_not_parsed():
    update = {tensor.name: np.zeros(1, np.float32) for tensor in MANY}
    plain, embedding = (
        fm.encode(update, MANY, seed=7, noise=fm.Uniform(0.01), mask="binary", embed_schema=embed)
        for embed in (False, True)
    )
    fm.inspect(plain, MANY), fm.inspect(embedding, MANY)  # caches
    costs = [peak(lambda frame=frame: fm.inspect(frame, MANY)) for frame in (plain, embedding)]
    assert costs[1] < costs[0] + len(MANY.data)
    info = fm.inspect(embedding, MANY)
    assert info.embedded
    assert info.schema is MANY


def test_a_known_schema_is_still_held_against_the_limits():
    frame = fm.encode(UPDATE, KNOWN, seed=7, noise=fm.Uniform(0.01), mask="binary", embed_schema=True)
    for limits in (fm.Limits(max_elements=4), fm.Limits(max_tensors=1), fm.Limits(max_schema_bytes=20)):
        with pytest.raises(errors.LimitError):
            fm.decode(frame, KNOWN, limits=limits)
    assert fm.decode(frame, KNOWN, limits=fm.Limits(2, len(KNOWN.data), 5)).keys() == UPDATE.keys()


def test_limits_of_a_request_are_the_readers_and_not_sent():
    request = fm.Request(7, fm.Uniform(0.01), "binary", 0, 0, KNOWN, limits=fm.Limits(max_tensors=1))
    assert "limits" not in request.to_dict()
    frame = request.encode(UPDATE)
    for read in (request.check, lambda data: request.aggregator().add(data, 1)):
        with pytest.raises(errors.LimitError, match="tensor count, byte 28"):
            read(frame)
    with pytest.raises(errors.ArgumentError, match="limits: expected a Limits, got int"):
        fm.Request(7, fm.Uniform(0.01), "binary", 0, 0, KNOWN, limits=3)
