"""encode, encode_bits, decode, inspect and verify: what comes back, and what is refused before any byte."""

import math
import mmap
import struct
import threading
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fedmrn_codec as fm
from fedmrn_codec import errors
from fedmrn_codec.primitives.dtypes import DTYPES

BACKENDS = ["numpy", "numba", "torch", "onnx"]
NOISES = [fm.Uniform, fm.Gaussian, fm.Bernoulli]
SIZES = [0, 1, 7, 8, 9, 127, 128, 129]
U64 = st.integers(0, 2**64 - 1)


@pytest.fixture(params=BACKENDS)
def backend(request):
    return request.param


def example_update(rng, schema):
    """Finite arrays that fit a schema, every bit of a dense element at random."""
    out = {}
    for t in schema:
        if t.masked:
            out[t.name] = rng.normal(0, 0.01, t.shape).astype(np.float32)
            continue
        raw = rng.integers(0, 256, (*t.shape, t.type.numpy.itemsize), np.uint8)
        if t.dtype == "bool":
            raw &= 1
        elif t.type.is_float:
            raw[..., -1] &= 0xBF  # clear the exponent's top bit: finite
        out[t.name] = raw.view(t.type.numpy).reshape(t.shape)
    return out


def all_kinds_schema():
    dense = [fm.Tensor(f"dense.{name}", (3, 2), dtype=name) for name in DTYPES]
    return fm.Schema(
        [
            fm.Tensor("conv.weight", (4, 3, 3, 3), masked=True),
            *dense,
            fm.Tensor("μ", (), masked=True),
            fm.Tensor("steps", (), dtype="int64"),
            fm.Tensor("empty", (0, 5), masked=True),
            fm.Tensor("empty.dense", (5, 0), dtype="float64"),
        ]
    )


def expected_values(noise, mask, seed, stream, bits):
    """noise * mask by the table of spec 4.2, in NumPy."""
    n = fm.noise(noise, seed=seed, stream=stream, count=bits.size, backend="numpy")
    return np.where(bits, n, np.float32(0) if mask == "binary" else -n)


@st.composite
def schemas(draw):
    """Up to five tensors of random roles, dtypes and shapes."""
    names = draw(st.lists(st.text(min_size=1, max_size=6).filter(_encodable), max_size=5, unique=True))
    tensors = []
    for name in names:
        shape = tuple(draw(st.lists(st.integers(0, 6), max_size=3)))
        masked = draw(st.booleans())
        dtype = "float32" if masked else draw(st.sampled_from(sorted(DTYPES)))
        tensors.append(fm.Tensor(name, shape, masked, dtype))
    return fm.Schema(tensors)


def _encodable(text):
    try:
        return bool(text.encode())
    except UnicodeEncodeError:
        return False


noises = st.builds(
    lambda cls, scale: cls(scale), st.sampled_from(NOISES), st.floats(1e-20, 1e20, allow_subnormal=False)
)


@given(
    schemas(), noises, st.sampled_from(["binary", "signed"]), U64, st.integers(0, 2**32 - 1), st.booleans()
)
def test_decode_gives_noise_times_mask(schema, noise, mask, seed, draw, embed):
    rng = np.random.default_rng(draw)
    update = example_update(rng, schema)
    bits = {t.name: rng.random(t.shape) < 0.5 for t in schema if t.masked}
    dense = {t.name: update[t.name] for t in schema if not t.masked}
    frame = fm.encode_bits(bits, schema, seed=seed, noise=noise, mask=mask, dense=dense, embed_schema=embed)
    for name in BACKENDS:
        arrays = fm.decode(frame, None if embed else schema, backend=name)
        assert list(arrays) == [t.name for t in schema]
        for stream, t in enumerate(schema):
            got = arrays[t.name]
            want = (
                expected_values(noise, mask, seed, stream, bits[t.name].reshape(-1))
                if t.masked
                else update[t.name]
            )
            assert got.tobytes() == want.tobytes()
            assert got.shape == t.shape
            assert got.dtype == t.type.numpy
            assert got.flags.writeable


@pytest.mark.parametrize("size", [*SIZES, 10**6])
@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("mask", ["binary", "signed"])
def test_sizes(size, noise, mask, backend):
    rng = np.random.default_rng(size)
    schema = fm.Schema([fm.Tensor("pad", (1,), dtype="int8"), fm.Tensor("w", (size,), masked=True)])
    bits = rng.random(size) < 0.3
    frame = fm.encode_bits(
        {"w": bits}, schema, seed=2**63 + 5, noise=noise(0.01), mask=mask, dense={"pad": np.zeros(1, np.int8)}
    )
    got = fm.decode(frame, schema, backend=backend)["w"]
    assert got.tobytes() == expected_values(noise(0.01), mask, 2**63 + 5, 1, bits).tobytes()


@given(schemas(), noises, st.sampled_from(["binary", "signed"]), U64, st.integers(0, 2**32 - 1))
def test_encoding_is_canonical(schema, noise, mask, seed, draw):
    """What a frame decodes to, encoded again, is that frame: signs and zeros tell the bits."""
    rng = np.random.default_rng(draw)
    frame = fm.encode(example_update(rng, schema), schema, seed=seed, noise=noise, mask=mask, round=draw)
    arrays = fm.decode(frame, schema)
    n = {t.name: fm.noise(noise, seed=seed, stream=i, count=t.size) for i, t in enumerate(schema)}
    bits = {t.name: arrays[t.name] == n[t.name].reshape(t.shape) for t in schema if t.masked}
    dense = {t.name: arrays[t.name] for t in schema if not t.masked}
    again = fm.encode_bits(bits, schema, seed=seed, noise=noise, mask=mask, dense=dense, round=draw)
    assert again == frame


@given(U64, st.integers(0, 2**40), st.integers(0, 2**64 - 300), st.integers(0, 300), noises)
def test_backends_agree_on_noise(seed, stream, start, count, noise):
    place = {"seed": seed, "stream": stream, "start": start, "count": count}
    assert len({fm.noise(noise, **place, backend=name).tobytes() for name in BACKENDS}) == 1
    assert len({fm.philox_words(**place, backend=name).tobytes() for name in BACKENDS}) == 1


@given(st.integers(0, 5000), noises, st.sampled_from(["binary", "signed"]), U64, U64, st.integers(0, 9))
def test_backends_agree_on_sampling(size, noise, mask, seed, private, draw):
    rng = np.random.default_rng(draw)
    schema = fm.Schema([fm.Tensor("w", (size,), masked=True)])
    spread = np.float32(noise.scale) * np.float32(2)
    update = {"w": (rng.normal(0, 1, size).astype(np.float32) * spread)}
    for private_part in ({"private_seed": private}, {"draws": {"w": rng.integers(0, 2**24, size)}}):
        if private_part.get("private_seed") == seed:
            continue
        given = {"seed": seed, "noise": noise, "mask": mask, **private_part}
        assert len({fm.encode(update, schema, backend=name, **given) for name in BACKENDS}) == 1


def test_sampling_is_unbiased_within_reach():
    n = 400_000
    schema = fm.Schema([fm.Tensor("w", (n,), masked=True)])
    for mask, noise in (("binary", fm.Bernoulli(0.01)), ("signed", fm.Uniform(0.01))):
        base = fm.noise(noise, seed=1, count=n)
        update = base * np.float32(0.3)
        got = fm.decode(fm.encode({"w": update}, schema, seed=1, noise=noise, mask=mask), schema)["w"]
        ratio = (got / base).mean()
        spread = math.sqrt(0.21 / n) if mask == "binary" else math.sqrt(0.91 / n)
        assert abs(ratio - 0.3) < 6 * spread


def test_private_draws_differ_from_call_to_call():
    schema = fm.Schema([fm.Tensor("w", (1000,), masked=True)])
    update = {"w": fm.noise(fm.Uniform(0.01), seed=1, count=1000) * np.float32(0.5)}
    one, two = (fm.encode(update, schema, seed=1, noise=fm.Uniform(0.01)) for _ in range(2))
    assert one != two


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview, lambda b: np.frombuffer(b, np.uint8)])
def test_buffers(wrap, backend):
    schema = all_kinds_schema()
    frame = fm.encode(
        example_update(np.random.default_rng(1), schema), schema, seed=1, noise=fm.Gaussian(1.0)
    )
    want = fm.decode(frame, schema)
    got = fm.decode(wrap(frame), schema, backend=backend)
    assert {k: v.tobytes() for k, v in got.items()} == {k: v.tobytes() for k, v in want.items()}


def test_mmap(tmp_path):
    schema = all_kinds_schema()
    frame = fm.encode(
        example_update(np.random.default_rng(1), schema), schema, seed=1, noise=fm.Gaussian(1.0)
    )
    path = tmp_path / "frame.fmrn"
    path.write_bytes(frame)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        got = fm.decode(mapped, schema)
        assert fm.verify(mapped, schema).frame_bytes == len(frame)
    assert got["conv.weight"].tobytes() == fm.decode(frame, schema)["conv.weight"].tobytes()


def test_memory_layouts_and_byte_orders():
    schema = fm.Schema([fm.Tensor("w", (6, 4), masked=True), fm.Tensor("d", (4, 6), dtype="int16")])
    rng = np.random.default_rng(0)
    plain = {
        "w": rng.normal(size=(6, 4)).astype(np.float32),
        "d": rng.integers(-9, 9, (4, 6)).astype(np.int16),
    }
    odd = {
        "d": np.asfortranarray(plain["d"]).astype(">i2"),
        "w": np.repeat(plain["w"], 2, axis=1)[:, ::2].astype(">f4"),
    }
    kwargs = {"seed": 3, "noise": fm.Uniform(1.0), "private_seed": 9}
    assert fm.encode(odd, schema, **kwargs) == fm.encode(plain, schema, **kwargs)


def test_inputs_are_not_changed(backend):
    schema = all_kinds_schema()
    update = example_update(np.random.default_rng(5), schema)
    for array in update.values():
        array.flags.writeable = False
    before = {name: array.tobytes() for name, array in update.items()}
    frame = bytearray(fm.encode(update, schema, seed=1, noise=fm.Uniform(0.1), backend=backend))
    copy = bytes(frame)
    arrays = fm.decode(frame, schema, backend=backend)
    for array in arrays.values():
        array[...] = 0
    assert bytes(frame) == copy
    assert before == {name: array.tobytes() for name, array in update.items()}


def test_names_decode_only_those(backend):
    schema = all_kinds_schema()
    frame = fm.encode(example_update(np.random.default_rng(5), schema), schema, seed=1, noise=fm.Uniform(0.1))
    whole = fm.decode(frame, schema, backend=backend)
    some = fm.decode(frame, schema, names=["μ", "conv.weight", "dense.int8"], backend=backend)
    assert list(some) == ["conv.weight", "dense.int8", "μ"]
    assert all(some[name].tobytes() == whole[name].tobytes() for name in some)
    with pytest.raises(fm.ArgumentError, match="nowhere"):
        fm.decode(frame, schema, names=["nowhere"])
    with pytest.raises(fm.ArgumentError, match="collection"):
        fm.decode(frame, schema, names="conv.weight")


def test_noise_and_mask_by_name():
    schema = fm.Schema([fm.Tensor("a", (9,), masked=True), fm.Tensor("b", (9,), masked=True)])
    bits = {"a": np.ones(9, bool), "b": np.zeros(9, bool)}
    noise = {"a": fm.Gaussian(2.0), "b": fm.Bernoulli(0.5)}
    frame = fm.encode_bits(bits, schema, seed=1, noise=noise, mask={"a": "binary", "b": "signed"})
    arrays = fm.decode(frame, schema)
    assert arrays["a"].tobytes() == fm.noise(noise["a"], seed=1, stream=0, count=9).tobytes()
    assert arrays["b"].tobytes() == (-fm.noise(noise["b"], seed=1, stream=1, count=9)).tobytes()
    for wrong in ({"a": fm.Gaussian(2.0)}, {**noise, "c": fm.Gaussian(1.0)}):
        with pytest.raises(fm.ArgumentError, match="noise"):
            fm.encode_bits(bits, schema, seed=1, noise=wrong)


def test_inspect_touches_no_payload_and_no_checksum():
    schema = all_kinds_schema()
    frame = bytearray(
        fm.encode(
            example_update(np.random.default_rng(5), schema),
            schema,
            seed=2**64 - 1,
            noise=fm.Uniform(0.1),
            round=7,
            base_model=2**64 - 2,
        )
    )
    info = fm.inspect(frame)
    assert (info.seed, info.round, info.base_model, info.version) == (2**64 - 1, 7, 2**64 - 2, (1, 0))
    assert info.digest == schema.digest
    assert info.mask_bytes + info.dense_bytes + info.header_bytes == info.frame_bytes == len(frame)
    assert info.mask_bytes == sum(t.payload_bytes for t in schema if t.masked)
    assert info.tensors[0].noise == fm.Uniform(0.1)
    frame[-1] ^= 1
    assert fm.inspect(frame) == info
    with pytest.raises(errors.ChecksumError):
        fm.verify(frame, schema)


def test_every_flipped_bit_is_found():
    schema = fm.Schema([fm.Tensor("w", (13,), masked=True), fm.Tensor("b", (2,))])
    update = {"w": np.linspace(-1, 1, 13, dtype=np.float32), "b": np.ones(2, np.float32)}
    for embed in (False, True):
        frame = fm.encode(update, schema, seed=7, noise=fm.Uniform(1.0), embed_schema=embed)
        for bit in range(8 * len(frame)):
            bad = bytearray(frame)
            bad[bit // 8] ^= 1 << bit % 8
            for known in (schema, None) if embed else (schema,):
                with pytest.raises(fm.FrameError):
                    fm.decode(bad, known)


@given(schemas(), st.data())
@settings(max_examples=50)
def test_cut_and_appended_bytes_are_found(schema, data):
    update = example_update(np.random.default_rng(0), schema)
    frame = fm.encode(update, schema, seed=7, noise=fm.Uniform(1.0), embed_schema=data.draw(st.booleans()))
    cut = data.draw(st.integers(0, len(frame) - 1))
    with pytest.raises(errors.TruncatedError):
        fm.decode(frame[:cut], schema)
    with pytest.raises(errors.TrailingError):
        fm.decode(frame + data.draw(st.binary(min_size=1, max_size=9)), schema)


@given(st.binary(max_size=300))
def test_any_bytes_raise_only_frame_errors(data):
    for frame in (data, b"FMRN\x01\x00" + data, b"FMRN\x01\x00\x01\x00" + data):
        with pytest.raises(fm.FrameError):
            fm.decode(frame)


def good_update():
    return {"w": np.zeros((2, 3), np.float32), "n": np.int64(3)}


GOOD_SCHEMA = fm.Schema([fm.Tensor("w", (2, 3), masked=True), fm.Tensor("n", (), dtype="int64")])


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"w": None}, fm.UpdateError, "shape of 'w'"),
        ({"w": np.zeros((3, 2), np.float32)}, fm.UpdateError, r"found \(3, 2\), the schema says \(2, 3\)"),
        ({"w": np.zeros((2, 3))}, fm.UpdateError, "found float64, the schema says float32"),
        ({"w": np.full((2, 3), np.nan, np.float32)}, errors.UpdateNonFiniteError, "'w'"),
        ({"w": np.full((2, 3), -np.inf, np.float32)}, errors.UpdateNonFiniteError, "'w'"),
        ({"n": np.float32(3)}, fm.UpdateError, "dtype of 'n'"),
        ({"extra": np.zeros(3)}, fm.UpdateError, "extra"),
    ],
)
def test_updates_that_do_not_fit(change, error, words):
    with pytest.raises(error, match=words):
        fm.encode({**good_update(), **change}, GOOD_SCHEMA, seed=1, noise=fm.Uniform(0.1))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seed": -1}, "seed"),
        ({"seed": 2**64}, "seed"),
        ({"seed": 1.5}, "seed"),
        ({"round": 2**32}, "round"),
        ({"base_model": 2**64}, "base_model"),
        ({"mask": "ternary"}, "mask"),
        ({"noise": 0.1}, "noise"),
        ({"private_seed": 1}, "private_seed"),
        ({"draws": {"w": np.full((2, 3), 2**24)}}, "draws"),
        ({"draws": {}}, "draws"),
        ({"backend": "abacus"}, "backend"),
    ],
)
def test_arguments_out_of_range(change, words):
    with pytest.raises(fm.ArgumentError, match=words):
        fm.encode(good_update(), GOOD_SCHEMA, **{"seed": 1, "noise": fm.Uniform(0.1), **change})


def test_missing_tensor_and_no_mapping():
    with pytest.raises(fm.UpdateError, match="nothing for"):
        fm.encode({"w": good_update()["w"]}, GOOD_SCHEMA, seed=1, noise=fm.Uniform(0.1))
    with pytest.raises(fm.UpdateError, match="mapping"):
        fm.encode([1, 2], GOOD_SCHEMA, seed=1, noise=fm.Uniform(0.1))
    with pytest.raises(fm.UpdateError, match="bool"):
        fm.encode_bits(
            {"w": np.zeros((2, 3))}, GOOD_SCHEMA, seed=1, noise=fm.Uniform(0.1), dense={"n": np.int64(1)}
        )


@pytest.mark.parametrize(("noise", "least", "largest"), [
    (fm.Uniform, 2.0**-102, float(np.finfo(np.float32).max)),
    (fm.Gaussian, 2.0**-105, 2.0**125),
    (fm.Bernoulli, 2.0**-126, float(np.finfo(np.float32).max)),
])  # fmt: skip
def test_scale_bounds_keep_noise_normal(noise, least, largest):
    for scale in (least, largest):
        values = np.abs(fm.noise(noise(scale), seed=1, count=1000))
        assert np.isfinite(values).all()
        assert (values >= np.finfo(np.float32).tiny).all()
        extreme = np.float32(1) * noise(scale).step
        assert extreme >= np.finfo(np.float32).tiny
    below = float(np.nextafter(np.float32(least), np.float32(0)))
    for scale in (0.0, -1.0, below, 2 * largest, float("nan"), float("inf"), "wide", None):
        with pytest.raises(fm.ScaleError):
            noise(scale)


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ([("", (1,))], "tensor name"),
        ([("a" * 65536, (1,))], "65536 bytes"),
        ([("\ud800", (1,))], "Unicode"),
        ([(3, (1,))], "string"),
        ([("a", (-1,))], "shape of 'a'"),
        ([("a", (1,) * 33)], "32 dimensions"),
        ([("a", (2**25, 2**24))], "2\\^48"),
        ([("a", (2**49, 0))], "2\\^48"),
        ([("a", (1.5,))], "integers"),
        ([("a", (1,), "false")], "required: a bool"),
        ([("a", (1,), False, "float8")], "one of float32"),
        ([("a", (1,), True, "float64")], "required: float32"),
        ([("a", (1,)), ("a", (2,))], "an earlier tensor"),
    ],
)
def test_schemas_that_the_format_cannot_express(tensors, words):
    with pytest.raises(fm.SchemaError, match=words):
        fm.Schema([fm.Tensor(*t) for t in tensors])


def test_schema_mismatch_says_where():
    a = fm.Schema([fm.Tensor("x", (2,)), fm.Tensor("y", (2,))])
    frame = fm.encode(
        {"x": np.zeros(2, "f4"), "y": np.zeros(2, "f4")}, a, seed=1, noise={}, embed_schema=True
    )
    for other in (
        [fm.Tensor("y", (2,)), fm.Tensor("x", (2,))],
        [fm.Tensor("x", (3,)), fm.Tensor("y", (2,))],
        [fm.Tensor("x", (2,), dtype="float64"), fm.Tensor("y", (2,))],
        [fm.Tensor("x", (2,))],
    ):
        with pytest.raises(errors.SchemaMismatchError) as caught:
            fm.decode(frame, fm.Schema(other))
        assert ("2 tensors" if len(other) == 1 else "tensor 0 is 'x'") in str(caught.value)


def test_schema_round_trips():
    schema = all_kinds_schema()
    assert fm.Schema.from_bytes(schema.data) == schema
    assert fm.Schema.from_json(schema.to_json()) == schema
    assert len({schema, fm.Schema(list(schema))}) == 1
    for wrong in ([{"name": "x"}], {}, "", [3], None, [{"name": "x", "shape": [1], "colour": 2}]):
        with pytest.raises(fm.SchemaError):
            fm.Schema.from_json(wrong)


def test_bools_with_odd_bytes_are_written_as_1():
    schema = fm.Schema([fm.Tensor("b", (3,), dtype="bool")])
    frame = fm.encode({"b": np.frombuffer(b"\1\2\0", np.bool_)}, schema, seed=1, noise={}, mask={})
    assert fm.decode(frame, schema)["b"].tobytes() == b"\1\1\0"


def test_claims_cost_no_memory():
    """A frame of 200 bytes that claims 2^40 elements is refused before anything is allocated."""
    schema = fm.Schema([fm.Tensor("w", (2**20, 2**20), masked=True)])
    entry = struct.pack("<BBBBQf", 1, 1, 0, 0, 2**37, 0.01)
    header = struct.pack("<4sBBHQQII16s", b"FMRN", 1, 0, 1, 7, 0, 0, 1, schema.digest)
    body = header + struct.pack("<I", len(schema.data)) + schema.data + entry
    body += bytes(196 - len(body))
    frame = body + struct.pack("<I", zlib.crc32(body))
    assert len(frame) == 200
    tracemalloc.start()
    for known, limits in ((None, fm.Limits()), (schema, fm.Limits()), (None, fm.Limits(max_elements=2**50))):
        with pytest.raises((errors.LimitError, errors.TruncatedError)):
            fm.decode(frame, known, limits=limits)
    assert tracemalloc.get_traced_memory()[1] < 10**6
    tracemalloc.stop()


def test_threads_can_share_everything(backend):
    schema = fm.Schema([fm.Tensor("w", (600_000,), masked=True)])
    update = {"w": np.random.default_rng(0).normal(0, 0.01, 600_000).astype(np.float32)}
    frame = fm.encode(update, schema, seed=1, noise=fm.Uniform(0.01))
    want, got = fm.decode(frame, schema)["w"].tobytes(), [None] * 4

    def work(i):
        got[i] = fm.decode(frame, schema, backend=backend)["w"].tobytes()

    workers = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert got == [want] * 4
