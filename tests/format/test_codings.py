"""The codings: entropy-coded masks, and dense floats in 16 bits (spec 6.8 to 6.11)."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fedmrn_codec as fm
from fedmrn_codec import backends, errors
from fedmrn_codec.format.codings import ENTROPY

NOISES = [fm.Uniform(0.01), fm.Gaussian(0.01), fm.Bernoulli(0.01)]
CODERS = ["numpy", "numba"]
CODINGS = [coding.label for coding in ENTROPY]
DENSE_NAMES = "dense_coding: expected names of dense float32 tensors of the schema"


def masked(size):
    return fm.Schema([fm.Tensor("w", (size,), masked=True)])


def skewed(size, share, seed=0):
    return np.random.default_rng(seed).random(size) < share


def trained(noise, size, seed, stream):
    """Mask bits like those of a trained update: rarely set where the noise is large."""
    values = fm.noise(noise, seed=seed, stream=stream, count=size)
    return skewed(size, 0.5 * np.exp(-np.abs(values) / 0.005))


@pytest.mark.parametrize("coding", CODINGS)
@given(
    st.sampled_from(NOISES),
    st.integers(0, 3000) | st.sampled_from([2**16 - 1, 2**16, 2**16 + 1, 2**16 + 700, 150_001]),
    st.sampled_from([0.0, 0.001, 0.05, 0.3, 0.5, 0.9, 1.0]),
    st.sampled_from(["binary", "signed"]),
    st.integers(0, 2**64 - 1),
)
@settings(max_examples=40, deadline=None)
def test_coded_frames_are_shorter_or_raw_and_decode_to_the_same(coding, noise, size, share, mask, seed):
    schema, bits = masked(size), {"w": skewed(size, share)}
    given = {"seed": seed, "noise": noise, "mask": mask}
    raw = fm.encode_bits(bits, schema, **given)
    coded = {fm.encode_bits(bits, schema, **given, coding=coding, backend=name) for name in CODERS}
    assert len(coded) == 1
    (frame,) = coded
    assert len(frame) < len(raw) or frame == raw
    for name in CODERS:
        assert fm.decode_bits(frame, schema, backend=name)["w"].tobytes() == bits["w"].tobytes()
        assert fm.decode(frame, schema, backend=name)["w"].tobytes() == fm.decode(raw, schema)["w"].tobytes()
    assert fm.verify(frame, schema).tensors[0].coding == ("raw" if frame == raw else coding)


@pytest.mark.parametrize("coding", CODINGS)
def test_masks_of_more_blocks_than_are_coded_at_once(coding):
    size = 2**20 + 2**16 + 3
    bits, given = {"w": skewed(size, 0.05)}, {"seed": 5, "noise": NOISES[0], "coding": coding}
    frames = {fm.encode_bits(bits, masked(size), **given, backend=name) for name in CODERS}
    (frame,) = frames
    assert fm.verify(frame, masked(size)).tensors[0].coding == coding
    for name in CODERS:
        assert fm.decode_bits(frame, masked(size), backend=name)["w"].tobytes() == bits["w"].tobytes()


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("noise", NOISES[:2])
def test_the_length_is_close_to_the_conditional_entropy(noise, coding):
    size, seed = 300_000, 5
    bits = trained(noise, size, seed, 0)
    frame = fm.encode_bits({"w": bits}, masked(size), seed=seed, noise=noise, coding=coding)
    coded = fm.inspect(frame, masked(size)).mask_bytes
    packed = np.packbits(bits, bitorder="little")
    ones, totals = backends.coder().count(noise, seed, 0, packed, size)
    p = np.clip(ones / totals, 1e-9, 1 - 1e-9)
    ideal = -(ones * np.log2(p) + (totals - ones) * np.log2(1 - p)).sum() / 8
    assert ideal < coded < 1.01 * ideal
    p = bits.mean()
    assert (
        coded < 0.97 * size * -(p * np.log2(p) + (1 - p) * np.log2(1 - p)) / 8
    )  # the length with one probability for all


def test_coded_and_raw_frames_give_the_same_sums():
    schema, noise = masked(5000), fm.Uniform(0.01)
    sums = []
    for coding in ("raw", *CODINGS):
        server = fm.Aggregator(schema, noise=noise)
        for seed in (1, 2, 3):
            bits = {"w": skewed(5000, 0.1, seed)}
            server.add(fm.encode_bits(bits, schema, seed=seed, noise=noise, coding=coding), seed)
        sums.append(server.to_bytes())
    assert sums[0] == sums[1] == sums[2]


def test_frames_without_codings_are_of_version_1_0():
    schema = fm.Schema([fm.Tensor("w", (80,), masked=True), fm.Tensor("b", (3,))])
    update = {"w": np.zeros(80, np.float32), "b": np.float32([1, 2, 3])}
    given = {"seed": 1, "noise": fm.Uniform(0.01), "private_seed": 2}
    plain = fm.encode(update, schema, **given)
    assert fm.inspect(plain).version == (1, 0)
    assert fm.encode(update, schema, **given, coding="rans") == plain  # coding would not make it shorter
    short = fm.encode(update, schema, **given, coding="rans12")
    assert len(short) < len(plain)
    assert fm.inspect(short).version == (1, 2)
    half = fm.encode(update, schema, **given, dense_coding="float16")
    assert fm.inspect(half).version == (1, 1)
    assert len(half) == len(plain) - 6


@pytest.mark.parametrize("coding", ["float16", "bfloat16"])
@given(values=st.lists(st.floats(-60000, 60000, width=32), max_size=20))
def test_dense_floats_are_rounded_once_to_nearest_even(coding, values):
    torch = pytest.importorskip("torch")
    schema = fm.Schema([fm.Tensor("b", (len(values),))])
    given = np.array(values, np.float32)
    frame = fm.encode({"b": given}, schema, seed=1, noise={}, mask={}, dense_coding=coding)
    want = torch.from_numpy(given.copy()).to(getattr(torch, coding)).float().numpy()
    assert fm.decode(frame, schema)["b"].tobytes() == want.tobytes()
    assert given.tobytes() == np.array(values, np.float32).tobytes()


@pytest.mark.parametrize(("coding", "value"), [("float16", 65520.0), ("bfloat16", 3.4e38)])
def test_values_outside_the_range_of_16_bits_are_refused(coding, value):
    schema = fm.Schema([fm.Tensor("b", (2,))])
    update = {"b": np.float32([1, -value])}
    message = rf"^'b': expected values within the range of {coding}, got {float(np.float32(value))}$"
    with pytest.raises(fm.UpdateError, match=message.replace("+", r"\+")):
        fm.encode(update, schema, seed=1, noise={}, mask={}, dense_coding=coding)


@pytest.mark.parametrize(
    ("codings", "message"),
    [
        ({"coding": "zip"}, "coding: expected one of raw, rans, rans12, got 'zip'"),
        ({"coding": "float16"}, "coding: expected one of raw, rans, rans12, got 'float16'"),
        ({"coding": {"b": "rans"}}, "coding: expected names of masked tensors of the schema, got 'b'"),
        ({"dense_coding": "rans"}, "dense_coding: expected one of raw, float16, bfloat16, got 'rans'"),
        ({"dense_coding": {"n": "float16"}}, f"{DENSE_NAMES}, got 'n'"),
        ({"dense_coding": {"w": "float16"}}, f"{DENSE_NAMES}, got 'w'"),
        ({"dense_coding": {"x": "raw"}}, f"{DENSE_NAMES}, got 'x'"),
    ],
)
def test_codings_that_do_not_fit(codings, message):
    tensors = [fm.Tensor("w", (8,), masked=True), fm.Tensor("b", (2,)), fm.Tensor("n", (), dtype="int64")]
    update = {"w": np.zeros(8, np.float32), "b": np.zeros(2, np.float32), "n": np.int64(1)}
    with pytest.raises(fm.ArgumentError) as caught:
        fm.encode(update, fm.Schema(tensors), seed=1, noise=fm.Uniform(0.01), **codings)
    assert str(caught.value) == message


@pytest.mark.parametrize("coding", ENTROPY)
@pytest.mark.parametrize("name", CODERS)
@given(st.binary(min_size=51, max_size=124), st.integers(0, 2**64 - 1))
def test_arbitrary_payloads_are_refused(name, coding, data, seed):
    raw = np.frombuffer(data, np.uint8)
    with pytest.raises(errors.CodingError):
        ENTROPY[coding].decode(backends.coder(name, coding), fm.Uniform(0.01), seed, 0, raw, 1000, "w", 0)


@pytest.mark.parametrize("coding", ENTROPY)
@pytest.mark.parametrize("name", CODERS)
def test_every_flipped_bit_of_a_coded_payload_is_found(name, coding):
    """Without the checksum: every payload is refused, or is the only encoding of another mask."""
    size, noise = 1001, fm.Uniform(0.01)
    packed = np.packbits(skewed(size, 0.05), bitorder="little")
    coder, rans = backends.coder(name, coding), ENTROPY[coding]
    data = rans.encode(coder, noise, 7, 0, packed, size)
    for at in range(len(data)):
        for bit in range(8):
            spoiled = data.copy()
            spoiled[at] ^= 1 << bit
            try:
                got = rans.decode(coder, noise, 7, 0, spoiled, size, "w", 0)
            except errors.CodingError:
                continue
            again = rans.encode(coder, noise, 7, 0, got, size)
            assert again.tobytes() == spoiled.tobytes()
