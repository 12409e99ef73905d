"""encode, encode_bits, decode, inspect and verify: what a frame decodes to, with every backend."""

import math
import mmap
import threading

import numpy as np
import pytest
from face_cases import BACKENDS, NOISES, U64, all_kinds_schema, example_update, noises, schemas
from hypothesis import given
from hypothesis import strategies as st

import fedmrn_codec as fm
from fedmrn_codec import errors

SIZES = [0, 1, 7, 8, 9, 127, 128, 129]


@pytest.fixture(params=BACKENDS)
def backend(request):
    return request.param


def expected_values(noise, mask, seed, stream, bits):
    """noise * mask by the table of spec 4.2, in NumPy."""
    n = fm.noise(noise, seed=seed, stream=stream, count=bits.size, backend="numpy")
    return np.where(bits, n, np.float32(0) if mask == "binary" else -n)


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
    """A decoded frame, encoded again, gives the same bytes; its bits follow from signs and zeros."""
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
    with pytest.raises(fm.ArgumentError, match=r"^names: expected names of the schema, got \['nowhere'\]$"):
        fm.decode(frame, schema, names=["nowhere"])
    with pytest.raises(fm.ArgumentError, match=r"^names: expected a collection of names, got 'conv.weight'$"):
        fm.decode(frame, schema, names="conv.weight")


def test_noise_and_mask_by_name():
    schema = fm.Schema([fm.Tensor("a", (9,), masked=True), fm.Tensor("b", (9,), masked=True)])
    bits = {"a": np.ones(9, bool), "b": np.zeros(9, bool)}
    noise = {"a": fm.Gaussian(2.0), "b": fm.Bernoulli(0.5)}
    frame = fm.encode_bits(bits, schema, seed=1, noise=noise, mask={"a": "binary", "b": "signed"})
    arrays = fm.decode(frame, schema)
    assert arrays["a"].tobytes() == fm.noise(noise["a"], seed=1, stream=0, count=9).tobytes()
    assert arrays["b"].tobytes() == (-fm.noise(noise["b"], seed=1, stream=1, count=9)).tobytes()
    for wrong, name in (({"a": fm.Gaussian(2.0)}, "b"), ({**noise, "c": fm.Gaussian(1.0)}, "c")):
        message = rf"^noise: expected one for each masked tensor, got \['{name}'\] missing or unknown$"
        with pytest.raises(fm.ArgumentError, match=message):
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


def test_bools_with_odd_bytes_are_written_as_1():
    schema = fm.Schema([fm.Tensor("b", (3,), dtype="bool")])
    frame = fm.encode({"b": np.frombuffer(b"\1\2\0", np.bool_)}, schema, seed=1, noise={}, mask={})
    assert fm.decode(frame, schema)["b"].tobytes() == b"\1\1\0"


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
