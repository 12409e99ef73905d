"""The aggregator: the same bits in any order and grouping; partial sums, merges, refusals (spec 8)."""

import itertools
import mmap
import pickle
import re
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fedmrn_codec as fm
from fedmrn_codec import errors

BACKENDS = ["numpy", "numba"]
SCHEMA = fm.Schema(
    [
        fm.Tensor("conv", (40, 7), masked=True),
        fm.Tensor("bn", (6,)),
        fm.Tensor("scalar", (), masked=True),
        fm.Tensor("half", (3,), dtype="bfloat16"),
        fm.Tensor("count", (), dtype="int64"),
        fm.Tensor("nothing", (0,), masked=True),
    ]
)
NOISE = fm.Gaussian(0.01)
OTHER = r"^merge: expected an aggregator of the same schema, round and base model, got one that differs$"


def make_frame(i, *, noise=NOISE, mask=None, round=0, base_model=0, schema=SCHEMA):
    rng = np.random.default_rng(i)
    bits = {t.name: rng.random(t.shape) < 0.4 for t in schema if t.masked}
    dense = {
        "bn": rng.normal(size=6).astype(np.float32) * np.float32(10.0 ** (i % 7 - 3)),
        "half": rng.integers(0, 2**14, 3).astype(np.uint16),
        "count": np.int64(i - 5),
    }
    kind = mask or ("binary", "signed")[i % 2]
    return fm.encode_bits(
        bits, schema, seed=1000 + i, noise=noise, mask=kind, dense=dense, round=round, base_model=base_model
    )


def as_bytes(arrays):
    return b"".join(a.tobytes() for a in arrays.values())


FRAMES, WEIGHTS = [make_frame(i) for i in range(5)], [600, 1, 2**33, 12_345, 77]


def total(order, backend=None):
    agg = fm.Aggregator(SCHEMA, backend=backend)
    for i in order:
        agg.add(FRAMES[i], WEIGHTS[i])
    return agg


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("threads", ["1", "2", "3"])
def test_order_grouping_and_threads_change_no_bit(backend, threads, monkeypatch):
    monkeypatch.setenv("FEDMRN_THREADS", threads)
    want = as_bytes(total(range(5), "numpy").mean())
    saved = total(range(5), "numpy").to_bytes()
    for order in itertools.permutations(range(5)):
        agg = total(order, backend)
        assert as_bytes(agg.mean()) == want
        assert agg.to_bytes() == saved
    for order in itertools.islice(itertools.permutations(range(5)), 0, 120, 7):
        for cut in range(6):
            left, right = total(order[:cut], backend), total(order[cut:], backend)
            left.merge(right)
            assert as_bytes(left.mean()) == want
            assert left.to_bytes() == saved


@pytest.mark.parametrize("backend", BACKENDS)
def test_threads_on_large_tensors(backend, monkeypatch):
    n = 700_001
    schema = fm.Schema([fm.Tensor("w", (n,), masked=True)])
    rng = np.random.default_rng(0)
    frame = fm.encode_bits({"w": rng.random(n) < 0.5}, schema, seed=5, noise=fm.Uniform(0.01), mask="signed")
    results = set()
    for threads in ("1", "2", "5"):
        monkeypatch.setenv("FEDMRN_THREADS", threads)
        agg = fm.Aggregator(schema, backend=backend)
        agg.add(frame, 3)
        agg.add(frame, 2**20)
        results.add(agg.mean()["w"].tobytes())
    assert results == {fm.decode(frame, schema)["w"].tobytes()}


def test_masked_mean_is_the_specified_sequence():
    agg = total(range(5))
    mean = agg.mean()["conv"].reshape(-1)
    sums = [0] * 280
    for frame, weight in zip(FRAMES, WEIGHTS, strict=True):
        values = fm.decode(frame, SCHEMA)["conv"].reshape(-1)
        for j, value in enumerate(values.astype(np.float64) / np.float64(NOISE.step)):
            sums[j] += weight * round(value)
    step = float(NOISE.step)
    want = np.array([float(s) / float(sum(WEIGHTS)) * step for s in sums]).astype(np.float32)
    assert mean.tobytes() == want.tobytes()


@given(st.integers(0, 40), st.integers(1, 2**29 - 1))
def test_mean_of_one_frame_is_its_decode(i, weight):
    frame = make_frame(i)
    agg = fm.Aggregator(SCHEMA)
    agg.add(frame, weight)
    assert as_bytes(agg.mean()) == as_bytes(fm.decode(frame, SCHEMA))


def test_partial_sums_round_trip_and_accept_more_frames():
    half = fm.Aggregator.from_bytes(total([0, 1]).to_bytes(), SCHEMA)
    assert (half.frames, half.weight) == (2, 601)
    for i in (2, 3):
        half.add(FRAMES[i], WEIGHTS[i])
    half.merge(fm.Aggregator.from_bytes(bytearray(total([4]).to_bytes()), SCHEMA))
    assert half.to_bytes() == total(range(5)).to_bytes()


def test_partial_sums_carry_round_and_base_model():
    agg = fm.Aggregator(SCHEMA, round=3, base_model=9)
    agg.add(make_frame(0, round=3, base_model=9), 1)
    again = fm.Aggregator.from_bytes(agg.to_bytes(), SCHEMA)
    with pytest.raises(errors.RoundError, match=r"^round, byte 24: expected 3, got 4$"):
        again.add(make_frame(1, round=4, base_model=9), 1)
    with pytest.raises(errors.BaseModelError, match=r"^base_model, byte 16: expected 9, got 8$"):
        again.add(make_frame(1, round=3, base_model=8), 1)
    with pytest.raises(fm.AggregateError, match=OTHER):
        again.merge(total([1]))
    assert again.to_bytes() == agg.to_bytes()


def test_merge_does_not_change_the_other_and_accepts_an_empty_one():
    left, right = total([0]), total([1])
    before = right.to_bytes()
    left.merge(right)
    left.merge(fm.Aggregator(SCHEMA))
    assert right.to_bytes() == before
    assert left.to_bytes() == total([0, 1]).to_bytes()
    empty = fm.Aggregator(SCHEMA)
    empty.merge(right)
    empty.add(FRAMES[0], WEIGHTS[0])
    assert right.to_bytes() == before
    assert empty.to_bytes() == left.to_bytes()
    left.merge(left)
    assert left.frames == 4


def refused(agg, error, words, call):
    before = agg.to_bytes() if agg.frames else None
    with pytest.raises(error, match=words):
        call()
    assert (agg.to_bytes() if agg.frames else None) == before


def test_a_refused_frame_changes_nothing():
    agg = total([0, 1])
    bad = bytearray(FRAMES[2])
    bad[60] ^= 1
    words = r"expected 0x\w{8}, the CRC-32 of the bytes before it, got 0x\w{8}"
    message = rf"^checksum, byte {len(bad) - 4}: {words}$"
    refused(agg, errors.ChecksumError, message, lambda: agg.add(bad, 1))
    for noise in (fm.Gaussian(0.02), fm.Uniform(0.01)):
        message = re.escape(f"noise of 'conv': expected {NOISE}, got {noise}")
        other = make_frame(3, noise=noise)
        refused(agg, errors.NoiseError, f"^{message}$", lambda other=other: agg.add(other, 1))
    refused(
        agg, errors.SeedError, "^seed, byte 8: expected 4, got 1003$", lambda: agg.add(FRAMES[3], 1, seed=4)
    )
    for weight in (0, -1, 1.0, True, "3", None):
        message = rf"^weight: expected a positive integer, got {re.escape(repr(weight))}$"
        refused(agg, fm.AggregateError, message, lambda weight=weight: agg.add(FRAMES[3], weight))
    largest = f"^sum of weights: expected at most 2\\^39 - 1, got {2**39}$"
    refused(agg, fm.AggregateError, largest, lambda: agg.add(FRAMES[3], 2**39 - 601))
    agg.add(FRAMES[3], 2**39 - 602 - 76)
    refused(agg, fm.AggregateError, largest, lambda: agg.merge(total([4])))
    shape = fm.Schema([fm.Tensor("conv", (1,))])
    refused(agg, fm.AggregateError, OTHER, lambda: agg.merge(fm.Aggregator(shape)))
    refused(agg, fm.AggregateError, "^merge: expected an Aggregator, got int$", lambda: agg.merge(3))


def test_a_bad_payload_is_found_before_anything_is_added():
    """If the last tensor's payload is bad, the earlier ones have not been added."""
    schema = fm.Schema([fm.Tensor("w", (8,), masked=True), fm.Tensor("b", (1,))])
    good = fm.encode_bits(
        {"w": np.ones(8, bool)}, schema, seed=1, noise=NOISE, dense={"b": np.ones(1, np.float32)}
    )
    body = bytearray(good[:-4])
    body[-4:] = np.float32(np.inf).tobytes()
    bad = bytes(body) + zlib.crc32(body).to_bytes(4, "little")
    agg = fm.Aggregator(schema)
    agg.add(good, 2)
    message = "^payload of 'b', byte 77: expected finite values, got a NaN or an infinity$"
    refused(agg, errors.NonFiniteError, message, lambda: agg.add(bad, 1))


def test_noise_that_the_server_states():
    agg = fm.Aggregator(SCHEMA, noise=fm.Gaussian(0.5))
    message = re.escape(f"noise of 'conv': expected {fm.Gaussian(0.5)}, got {NOISE}")
    with pytest.raises(errors.NoiseError, match=f"^{message}$"):
        agg.add(FRAMES[0], 1)
    assert agg.frames == 0


def test_noise_that_the_server_states_for_each_tensor():
    schema = fm.Schema([fm.Tensor(name, (9,), masked=True) for name in "ab"])
    noise = {"b": fm.Uniform(0.5), "a": fm.Gaussian(0.25)}
    bits = dict.fromkeys("ab", np.ones(9, bool))
    agg = fm.Aggregator(schema, noise=noise)
    frame = fm.encode_bits(bits, schema, seed=3, noise=noise)
    agg.add(frame, 1)
    assert agg.mean()["b"].tobytes() == fm.decode(frame, schema)["b"].tobytes()
    other = fm.encode_bits(bits, schema, seed=3, noise={**noise, "b": fm.Uniform(0.25)})
    message = r"^noise of 'b': expected Uniform\(scale=0.5\), got Uniform\(scale=0.25\)$"
    refused(agg, errors.NoiseError, message, lambda: agg.add(other, 1))
    for wrong, words in (
        ({"a": NOISE}, "one for each masked tensor, got ['b'] missing or unknown"),
        ({**noise, "c": NOISE}, "one for each masked tensor, got ['c'] missing or unknown"),
        ({"a": NOISE, "b": 0.5}, "Uniform, Gaussian or Bernoulli, got 0.5"),
        ("uniform", "Uniform, Gaussian or Bernoulli, got 'uniform'"),
    ):
        with pytest.raises(fm.ArgumentError, match=f"^noise: expected {re.escape(words)}$"):
            fm.Aggregator(schema, noise=wrong)


def test_nothing_to_average():
    for call in (fm.Aggregator(SCHEMA).mean, fm.Aggregator(SCHEMA).to_bytes):
        with pytest.raises(fm.AggregateError, match=r"^frames: expected at least 1, got 0$"):
            call()


def test_largest_sums_do_not_overflow():
    schema = fm.Schema([fm.Tensor("w", (4096,), masked=True), fm.Tensor("d", (1,), dtype="float32")])
    dense = {"d": np.array([np.finfo(np.float32).max])}
    frame = fm.encode_bits(
        {"w": np.ones(4096, bool)}, schema, seed=1, noise=fm.Uniform(1.0), mask="signed", dense=dense
    )
    agg = fm.Aggregator(schema)
    for weight in (2**38, 2**38 - 2, 1):
        agg.add(frame, weight)
    again = fm.Aggregator.from_bytes(agg.to_bytes(), schema)
    assert again.mean()["d"].tobytes() == dense["d"].tobytes()
    decoded = fm.decode(frame, schema)["w"]
    assert np.abs(again.mean()["w"] - decoded).max() <= np.spacing(np.float32(1))


def test_memory_does_not_grow_with_frames():
    """The peaks of one frame and of twelve differ by less than an eighth of the sums."""
    n = 400_000
    schema = fm.Schema([fm.Tensor("w", (n,), masked=True)])
    frame = fm.encode_bits({"w": np.ones(n, bool)}, schema, seed=1, noise=fm.Uniform(0.01))
    peaks = []
    for count in (1, 12):
        tracemalloc.start()
        agg = fm.Aggregator(schema, backend="numpy")
        for _ in range(count):
            agg.add(frame, 1)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < n


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_results_include_the_pending_batch(backend):
    """Masks are summed in batches of 16; means and partial sums are right with full and pending ones."""
    size, noise = 3001, fm.Gaussian(2.0**-7)  # a scale that keeps q exact in the noise
    schema, rng = fm.Schema([fm.Tensor("w", (size,), masked=True)]), np.random.default_rng(0)
    server = fm.Aggregator(schema, noise=noise, backend=backend)
    total, weights = np.zeros(size, np.int64), 0
    draws = [np.rint(fm.noise(noise, seed=s, count=size) / noise.step).astype(np.int64) for s in range(40)]
    for seed, q in enumerate(draws):
        kind, weight = ("binary", "signed")[seed % 2], int(rng.choice([1, 600, 2**31 - 1, 2**31, 2**33]))
        bits = rng.random(size) < 0.4
        data = bytearray(
            fm.encode_bits({"w": bits}, schema, seed=seed, noise=noise, mask=kind, backend=backend)
        )
        server.add(data, weight)
        data[:] = bytes(len(data))  # the aggregator keeps no reference to it
        total += weight * np.where(bits, q, 0 if kind == "binary" else -q)
        weights += weight
        if seed in (0, 15, 16, 20, 39):
            sums = np.frombuffer(server.to_bytes(), "<i8", size, 64)
            assert sums.tobytes() == total.astype("<i8").tobytes()
            want = (total / np.float64(weights) * np.float64(noise.step)).astype(np.float32)
            assert server.mean()["w"].tobytes() == want.tobytes()


def one_by_one(order=range(5)):
    return total(order).to_bytes()


@pytest.mark.parametrize("given", [list, iter, tuple])
def test_add_many_gives_the_sums_of_add(given):
    agg = fm.Aggregator(SCHEMA)
    agg.add_many(given(FRAMES[:2]), given(WEIGHTS[:2]))
    assert agg.to_bytes() == one_by_one([0, 1])
    agg.add_many(map(memoryview, FRAMES[2:]), WEIGHTS[2:], seeds=given([1002, 1003, 1004]))
    agg.add_many([], [])
    assert agg.to_bytes() == one_by_one()
    assert agg.frames == 5


def test_frames_may_be_mapped_files(tmp_path):
    maps = []
    for i, data in enumerate(FRAMES):
        (tmp_path / str(i)).write_bytes(data)
        with open(tmp_path / str(i), "rb") as file:
            maps.append(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    agg = fm.Aggregator(SCHEMA)
    agg.add_many(maps, WEIGHTS)
    for one in maps:
        one.close()  # fails if a view of it exists
    assert agg.to_bytes() == one_by_one()


@pytest.mark.parametrize("before", [0, 2])
def test_a_refused_frame_among_many_changes_nothing(before):
    agg = total(range(before))
    bad = bytearray(FRAMES[3])
    bad[-1] ^= 1
    frames = [*FRAMES[:3], bad, FRAMES[4]]
    with pytest.raises(errors.ChecksumError) as caught:
        agg.add_many(frames, WEIGHTS)
    assert (caught.value.index, caught.value.code) == (3, "checksum")
    computed, at = zlib.crc32(bad[:-4]), len(bad) - 4
    words = f"expected {computed:#010x}, the CRC-32 of the bytes before it, got {computed ^ 1 << 24:#010x}"
    message = f"^frame 3, checksum, byte {at}: {words}$"
    refused(agg, errors.ChecksumError, message, lambda: agg.add_many(frames, WEIGHTS))
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.index, str(again)) == (3, str(caught.value))
    other = make_frame(3, noise=fm.Gaussian(0.02))
    message = re.escape(f"frame 1, noise of 'conv': expected {NOISE}, got {fm.Gaussian(0.02)}")
    refused(agg, errors.NoiseError, f"^{message}$", lambda: agg.add_many([FRAMES[0], other], [1, 1]))
    message = "^frame 0, seed, byte 8: expected 5, got 1000$"
    refused(agg, errors.SeedError, message, lambda: agg.add_many(FRAMES[:1], [1], seeds=[5]))
    message = "^frame 1, weight: expected a positive integer, got 0$"
    refused(agg, fm.AggregateError, message, lambda: agg.add_many(FRAMES[:2], [1, 0]))
    agg.add_many([other] if not before else [FRAMES[2]], [3])  # the refused frame has not set the noise


def test_many_frames_are_compared_with_the_expected_values():
    agg = fm.Aggregator(SCHEMA, noise=NOISE, round=3, base_model=9)
    good = make_frame(0, round=3, base_model=9)
    agg.add_many([good], [1])
    noise = fm.Gaussian(0.02)
    for kwargs, error, message in (
        ({"round": 4, "base_model": 9}, errors.RoundError, "round, byte 24: expected 3, got 4"),
        ({"round": 3, "base_model": 8}, errors.BaseModelError, "base_model, byte 16: expected 9, got 8"),
        (
            {"round": 3, "base_model": 9, "noise": noise},
            errors.NoiseError,
            re.escape(f"noise of 'conv': expected {NOISE}, got {noise}"),
        ),
    ):
        bad = make_frame(1, **kwargs)
        refused(agg, error, f"^frame 1, {message}$", lambda bad=bad: agg.add_many([good, bad], [1, 1]))
    message = f"^sum of weights: expected at most 2\\^39 - 1, got {2**39}$"
    refused(agg, fm.AggregateError, message, lambda: agg.add_many([good, good], [2**39 - 2, 1]))
    limited = fm.Aggregator(SCHEMA, limits=fm.Limits(max_tensors=2))
    with pytest.raises(
        errors.LimitError, match=r"^frame 0, tensor count, byte 28: expected at most 2, got 6"
    ):
        limited.add_many(FRAMES, WEIGHTS)


def test_many_frames_need_as_many_weights_and_seeds():
    agg = total([0])
    for weights, seeds, words in (
        ([1], None, "^weights: expected as many as frames, got 1$"),
        ([1, 2, 3], None, "^frames: expected as many as weights, got 2$"),
        ([1, 2], [1000], "^seeds: expected as many as frames and weights, got 1$"),
        ([1, 2], [1000, 1001, 1002], "^frames: expected as many as weights and seeds, got 2$"),
        ([], [], "^weights: expected as many as frames and seeds, got 0$"),
    ):
        call = lambda weights=weights, seeds=seeds: agg.add_many(FRAMES[:2], weights, seeds=seeds)  # noqa: E731
        refused(agg, fm.AggregateError, words, call)


def test_dense_tensors_of_one_dtype_keep_their_places():
    names = [
        ("a", "float32"),
        ("w", None),
        ("b", "float64"),
        ("c", "float32"),
        ("d", "float32"),
        ("e", "float64"),
    ]
    schema = fm.Schema(
        [fm.Tensor(n, (3,), masked=True) if t is None else fm.Tensor(n, (3,), dtype=t) for n, t in names]
    )
    rng = np.random.default_rng(0)
    arrays = [
        {n: (rng.normal(size=3) * 10.0 ** (5 * i)).astype(t) for i, (n, t) in enumerate(names) if t}
        for _ in "12"
    ]
    arrays[0]["c"][:] = arrays[1]["c"][:] = 0  # no rows
    bits = {"w": np.ones(3, bool)}
    frames = [fm.encode_bits(bits, schema, seed=i, noise=NOISE, dense=a) for i, a in enumerate(arrays)]
    agg = fm.Aggregator(schema)
    agg.add_many(frames, [1, 3])
    for again in (agg, fm.Aggregator.from_bytes(agg.to_bytes(), schema)):
        for name, values in again.mean().items():
            if name != "w":
                exact = (arrays[0][name].astype("f8") + 3 * arrays[1][name].astype("f8")) / 4
                np.testing.assert_allclose(values, exact, rtol=1e-6, atol=0)
        assert again.to_bytes() == agg.to_bytes()
