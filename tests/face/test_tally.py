"""Tallies: the sums, means and statistics of their frames to the bit; refusals, merges, bytes (spec 8.6)."""

import itertools
import re

import numpy as np
import pytest
from face_cases import BACKENDS, NOISES, all_kinds_schema, example_update, schemas
from hypothesis import given, settings
from hypothesis import strategies as st

import fedmrn_codec as fm
from fedmrn_codec import errors
from fedmrn_codec.backends import installed
from fedmrn_codec.primitives.dtypes import DTYPES
from fedmrn_codec.primitives.grid import BOUNDS, values

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
AVAILABLE = [name for name in BACKENDS if name in installed()]


def made(i, schema=SCHEMA, *, seed=7, noise=NOISE, mask="signed", **more):
    """Frame i, of the same seed as the others."""
    rng = np.random.default_rng(i)
    update = example_update(rng, schema)
    bits = {t.name: rng.random(t.shape) < 0.4 for t in schema if t.masked}
    dense = {t.name: update[t.name] for t in schema if not t.masked}
    return fm.encode_bits(bits, schema, seed=seed, noise=noise, mask=mask, dense=dense, **more)


def tally_of(frames, schema=SCHEMA, **stated):
    out = fm.Tally(schema, **stated)
    for frame in frames:
        out.add(frame)
    return out


def one_by_one(frames, schema=SCHEMA, weight=1, **stated):
    out = fm.Aggregator(schema, **stated)
    for frame in frames:
        out.add(frame, weight)
    return out


def as_bytes(arrays):
    return b"".join(a.tobytes() for a in arrays.values())


def same(got, want):
    """Sums, mean and statistics of two aggregators are the same, to the bit."""
    assert got.to_bytes() == want.to_bytes()
    assert as_bytes(got.mean()) == as_bytes(want.mean())
    assert got.statistics() == want.statistics()


# --- the sums of the frames ------------------------------------------------------------------------------


@given(
    schema=schemas(),
    noise=st.sampled_from(NOISES),
    mask=st.sampled_from(["binary", "signed"]),
    count=st.integers(1, 9),
    weight=st.integers(1, 9) | st.sampled_from([600, 2**31 - 1, 2**33]),
    cuts=st.sets(st.integers(0, 9)),
    order=st.randoms(),
    coding=st.sampled_from(["raw", "rans14"]),
    seed=st.integers(0, 2**64 - 1),
)
@settings(max_examples=60, deadline=None)
def test_a_tally_has_the_sums_of_its_frames(schema, noise, mask, count, weight, cuts, order, coding, seed):
    """In any order and grouping: as one tally, as merged tallies, as tallies added by turns with frames."""
    its = noise(0.5)
    frames = [made(i, schema, seed=seed, noise=its, mask=mask) for i in range(count)]
    want = one_by_one(frames, schema, weight, backend="numpy")
    order.shuffle(frames)
    edges = [0, *sorted(cut for cut in cuts if cut < count), count]
    groups = [frames[a:b] for a, b in itertools.pairwise(edges)]
    parts = [tally_of(group, schema, weight=weight) for group in groups]
    whole, server = fm.Tally(schema, weight=weight), fm.Aggregator(schema)
    for number, (part, group) in enumerate(zip(parts, groups, strict=True)):
        whole.merge(part)
        if number % 3 == 2:
            for frame in group:
                server.add(frame, weight)
        elif part.frames:
            server.add_tally(part if number % 3 else part.to_bytes(coding))
    same(server, want)
    again = fm.Tally.from_bytes(whole.to_bytes(coding), schema)
    assert again.to_bytes() == whole.to_bytes() == tally_of(frames, schema, weight=weight).to_bytes()
    other = fm.Aggregator(schema)
    other.add_tally(again)
    same(other, want)


@pytest.mark.parametrize("backend", AVAILABLE)
@pytest.mark.parametrize("mask", ["binary", "signed"])
@pytest.mark.parametrize("noise", NOISES)
def test_every_dtype_and_backend(noise, mask, backend):
    schema = all_kinds_schema()
    frames = [made(i, schema, noise=noise(0.25), mask=mask, coding="rans") for i in range(5)]
    want = one_by_one(frames, schema, 2**31 + 1, backend="numpy")
    server = fm.Aggregator(schema, backend=backend)
    server.add_tally(tally_of(frames, schema, weight=2**31 + 1, backend=backend).to_bytes("rans14"))
    same(server, want)


@pytest.mark.parametrize("frames", [1, 2, 127, 128, 255, 256, 300])
def test_counts_grow_wider(frames):
    schema = fm.Schema([fm.Tensor("w", (3, 5), masked=True)])
    bits = np.arange(15).reshape(3, 5) % 3 == 0
    frame = fm.encode_bits({"w": bits}, schema, seed=1, noise=fm.Bernoulli(1.0), mask="signed")
    tally = tally_of([frame] * frames, schema)
    (counts,) = tally.counts().values()
    assert counts.dtype == (np.uint8 if frames < 256 else np.uint16)
    assert counts.tolist() == (frames * bits).tolist()
    for coding in ("raw", "rans14"):
        data = tally.to_bytes(coding)
        assert fm.Tally.from_bytes(data, schema).counts()["w"].tobytes() == counts.tobytes()
    assert len(tally.to_bytes()) == 60 + 16 + -(-15 * frames.bit_length() // 8) + 4
    server = fm.Aggregator(schema)
    server.add_tally(tally)
    same(server, one_by_one([frame] * frames, schema))


@pytest.mark.parametrize("frames", [65535, 65536, 2**24 - 1])
def test_many_frames(frames):
    """Tallies of many frames, made of counts; the sums are those of the formula."""
    schema = fm.Schema([fm.Tensor("w", (9,), masked=True)])
    counts = np.array([0, 1, frames, frames // 2, frames - 1, 2, 3, 5, 7])
    noise, weight = fm.Uniform(1.0), (2**39 - 1) // frames
    tally = fm.Tally.from_counts(schema, {"w": counts}, frames, seed=3, noise=noise, weight=weight)
    assert tally.counts()["w"].dtype == (np.uint16 if frames < 2**16 else np.uint32)
    q = np.rint(fm.noise(noise, seed=3, count=9) / noise.step).astype(np.int64)
    want = [weight * int(a) * (2 * int(c) - frames) for a, c in zip(q, counts, strict=True)]
    for coding, backend in itertools.product(("raw", "rans14"), AVAILABLE):
        server = fm.Aggregator(schema, backend=backend)
        server.add_tally(tally.to_bytes(coding))
        assert np.frombuffer(server.to_bytes(), "<i8", 9, 64).tolist() == want
        assert (server.frames, server.weight) == (frames, frames * weight)


def test_grids_of_dense_tensors_are_summed_by_their_values():
    schema = fm.Schema([fm.Tensor("b", (50,)), fm.Tensor("h", (3,), dtype="float16")])
    rng = np.random.default_rng(0)
    frames = []
    for step in (2.0**-10, 2.0**-20, 4.0):
        update = {"b": (rng.integers(-900, 900, 50) * step).astype("f4"), "h": np.zeros(3, np.float16)}
        frames.append(fm.encode_grid(update, schema, step={"b": step}, seed=5))
    want = one_by_one(frames, schema, 3)
    server = fm.Aggregator(schema)
    server.add_tally(tally_of(frames, schema, weight=3).to_bytes())
    same(server, want)


def test_adaptive_noise_reads_a_tally_like_frames():
    schema = fm.Schema([fm.Tensor("w", (600,), masked=True)])
    model = {"w": np.random.default_rng(0).normal(size=600).astype("f4")}
    next_noise = []
    for tallied in (False, True):
        rule = fm.AdaptiveNoise(schema, model)
        frames = [made(i, schema, noise=rule.noise, mask=rule.mask) for i in range(6)]
        server = fm.Aggregator(schema, noise=rule.noise)
        if tallied:
            server.add_tally(tally_of(frames, schema))
        else:
            server.add_many(frames, [1] * 6)
        rule.observe(server)
        next_noise.append(rule.noise)
    assert next_noise[0] == next_noise[1]


# --- what a tally refuses --------------------------------------------------------------------------------


def refused(tally, error, message, call):
    before = tally.to_bytes() if tally.frames else None
    with pytest.raises(error, match=f"^{re.escape(message)}$") as caught:
        call()
    assert (tally.to_bytes() if tally.frames else None) == before
    return caught.value


def test_frames_must_be_alike():
    tally = tally_of([made(0, round=3, base_model=9)])
    grid = fm.encode_grid(example_update(np.random.default_rng(0), SCHEMA), SCHEMA, step=2.0**-12, seed=7)
    for frame, error, message in (
        (
            made(1, seed=8, round=3, base_model=9),
            errors.UnlikeError,
            "seed: expected 7, as in the frames before, got 8",
        ),
        (
            made(1, round=4, base_model=9),
            errors.UnlikeError,
            "round: expected 3, as in the frames before, got 4",
        ),
        (
            made(1, round=3, base_model=8),
            errors.UnlikeError,
            "base_model: expected 9, as in the frames before, got 8",
        ),
        (
            made(1, round=3, base_model=9, mask="binary"),
            errors.UnlikeError,
            "mask kind of 'conv': expected signed, got binary",
        ),
        (
            made(1, round=3, base_model=9, noise=fm.Uniform(0.01)),
            errors.NoiseError,
            "noise of 'conv': expected Gaussian(scale=0.009999999776482582), "
            "got Uniform(scale=0.009999999776482582)",
        ),
    ):
        assert refused(tally, error, message, lambda frame=frame: tally.add(frame)).code == "aggregate"
    empty = fm.Tally(SCHEMA)
    assert (
        refused(
            empty, errors.UnlikeError, "kind of 'conv': expected a mask, got grid", lambda: empty.add(grid)
        ).code
        == "aggregate"
    )
    empty.add(made(0, seed=9))  # what was refused has stated nothing
    assert empty.seed == 9


def test_what_the_caller_states_is_expected_of_the_first_frame():
    for stated, error, message in (
        ({"seed": 8}, errors.SeedError, "seed, byte 8: expected 8, got 7"),
        ({"round": 4}, errors.RoundError, "round, byte 24: expected 4, got 0"),
        ({"base_model": 4}, errors.BaseModelError, "base_model, byte 16: expected 4, got 0"),
        ({"mask": "binary"}, errors.UnlikeError, "mask kind of 'conv': expected binary, got signed"),
        (
            {"noise": fm.Bernoulli(1.0)},
            errors.NoiseError,
            f"noise of 'conv': expected {fm.Bernoulli(1.0)}, got {NOISE}",
        ),
        ({"limits": fm.Limits(max_tensors=2)}, errors.LimitError, None),
    ):
        tally = fm.Tally(SCHEMA, **stated)
        with pytest.raises(error, match=message and f"^{re.escape(message)}$"):
            tally.add(made(0))
        assert tally.frames == 0
    tally = fm.Tally(SCHEMA, seed=7, noise=NOISE, mask="signed", round=2, base_model=3)
    tally.add(made(0, round=2, base_model=3))
    again = fm.Tally.from_bytes(tally.to_bytes(), SCHEMA)
    with pytest.raises(errors.RoundError):
        again.add(made(1, round=1, base_model=3))
    with pytest.raises(errors.UnlikeError, match=r"^seed: "):
        again.add(made(1, round=2, base_model=3, seed=8))
    stated = fm.Tally.from_bytes(tally.to_bytes(), SCHEMA, seed=7)
    with pytest.raises(errors.SeedError):
        stated.add(made(1, round=2, base_model=3, seed=8))
    assert again.to_bytes() == stated.to_bytes() == tally.to_bytes()


def test_bad_arguments():
    for weight in (0, -1, 1.0, True, "3", None):
        with pytest.raises(fm.AggregateError, match=r"^weight: expected a positive integer, got "):
            fm.Tally(SCHEMA, weight=weight)
    with pytest.raises(fm.AggregateError, match=r"^weight: expected at most 2\^39 - 1, got 549755813888$"):
        fm.Tally(SCHEMA, weight=2**39)
    with pytest.raises(fm.ArgumentError, match=r"^mask: expected one of binary, signed, got 'grid'$"):
        fm.Tally(SCHEMA, mask="grid")
    with pytest.raises(fm.ArgumentError, match=r"^mask: expected one for each masked tensor"):
        fm.Tally(SCHEMA, mask={"conv": "signed"})
    with pytest.raises(fm.ArgumentError, match=r"^seed: "):
        fm.Tally(SCHEMA, seed=2**64)
    with pytest.raises(fm.ArgumentError, match=r"^coding: expected one of raw, rans14, got 'rans'$"):
        fm.Tally(SCHEMA).to_bytes("rans")
    with pytest.raises(fm.AggregateError, match=r"^frames: expected at least 1, got 0$"):
        fm.Tally(SCHEMA).to_bytes()
    with pytest.raises(fm.ArgumentError, match=r"^frame: expected contiguous bytes, got int"):
        fm.Tally(SCHEMA).add(3)


def test_numbers_of_frames_and_weights_are_bounded():
    schema = fm.Schema([fm.Tensor("w", (2,), masked=True)])
    frame = fm.encode_bits({"w": np.ones(2, bool)}, schema, seed=1, noise=NOISE, mask="signed")
    tally = tally_of([frame], schema, weight=2**38)
    words = "sum of weights: expected at most 2^39 - 1, got 549755813888"
    refused(tally, fm.AggregateError, words, lambda: tally.add(frame))
    refused(tally, fm.AggregateError, words, lambda: tally.merge(tally))
    refused(tally, fm.AggregateError, words, lambda: tally.add(b"no frame"))  # the numbers come first
    most = 2**24 - 1
    full = fm.Tally.from_counts(schema, {"w": np.zeros(2, int)}, most, seed=1, noise=NOISE)
    words = "frames: expected at most 2^24 - 1, got 16777216"
    refused(full, fm.AggregateError, words, lambda: full.add(frame))
    refused(full, fm.AggregateError, words, lambda: full.merge(tally_of([frame], schema)))


def test_merges_compare_both_sides():
    tally = tally_of([made(0)], seed=7)
    for other, message in (
        (3, "merge: expected a Tally, got int"),
        (
            tally_of([made(1, round=4)], round=4),
            "merge: expected a tally of the same schema, round and base model, got one that differs",
        ),
        (tally_of([made(1)], weight=2), "weight: expected 1, got 2"),
        (tally_of([made(1, seed=8)]), "seed: expected 7, got 8"),
        (tally_of([made(1, mask="binary")]), "mask kind of 'conv': expected 2, got 1"),
        (
            tally_of([made(1, noise=fm.Gaussian(0.5))]),
            f"noise of 'conv': expected {NOISE}, got {fm.Gaussian(0.5)}",
        ),
    ):
        refused(tally, fm.AggregateError, message, lambda other=other: tally.merge(other))
    before = tally.to_bytes()
    tally.merge(fm.Tally(SCHEMA))
    assert tally.to_bytes() == before
    empty = fm.Tally(SCHEMA, seed=7, noise=NOISE, mask="signed")
    empty.merge(tally)
    assert empty.to_bytes() == before
    tally.merge(tally)
    assert tally.to_bytes() == tally_of([made(0)] * 2).to_bytes()
    stated = fm.Tally(SCHEMA, seed=8)
    with pytest.raises(fm.AggregateError, match=r"^seed: expected 8, got 7$"):
        stated.merge(empty)


def test_an_aggregator_refuses_a_tally_unchanged():
    server = one_by_one([made(0)])
    good = tally_of([made(1)])
    for tally, seed, error, message in (
        (
            tally_of([made(1, round=4)], round=4),
            None,
            fm.AggregateError,
            "tally: expected one of the same schema, round and base model, got one that differs",
        ),
        (good, 8, errors.SeedError, "seed of the tally: expected 8, got 7"),
        (good.to_bytes(), 8, errors.SeedError, "seed, byte 8: expected 8, got 7"),
        (
            tally_of([made(1, noise=fm.Gaussian(0.5))]),
            None,
            errors.NoiseError,
            f"noise of 'conv': expected {NOISE}, got {fm.Gaussian(0.5)}",
        ),
        (
            tally_of([made(1)], weight=2**39 - 1),
            None,
            fm.AggregateError,
            "sum of weights: expected at most 2^39 - 1, got 549755813888",
        ),
        (
            good.to_bytes()[:63],
            None,
            errors.TruncatedError,
            "tally, byte 0: expected at least 64 bytes, got 63",
        ),
    ):
        call = lambda tally=tally, seed=seed: server.add_tally(tally, seed=seed)  # noqa: E731
        refused(server, error, message, call)
    other = fm.Schema([fm.Tensor("w", (2,), masked=True)])
    refused(
        server,
        fm.AggregateError,
        "tally: expected one of the same schema, round and base model, got one that differs",
        lambda: server.add_tally(fm.Tally(other)),
    )
    assert server.add_tally(fm.Tally(SCHEMA)).frames == 0
    assert server.add_tally(good, seed=7) is good
    assert server.add_tally(good.to_bytes(), seed=7).to_bytes() == good.to_bytes()
    same(server, one_by_one([made(0), made(1), made(1)]))


# --- counts that were summed elsewhere -------------------------------------------------------------------


@given(st.data(), st.integers(1, 5), st.sampled_from(["binary", "signed"]))
@settings(max_examples=40, deadline=None)
def test_a_tally_of_counts_and_sums_has_the_mean_of_the_frames(data, count, mask):
    """Dense floats as integers of a grid, whose step may be any of the dtype's."""
    tensors = [fm.Tensor("w", (5,), masked=True)]
    tensors += [fm.Tensor(name, (3,), dtype=name) for name in DTYPES]
    schema, rng = fm.Schema(tensors), np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    steps = {
        name: 2.0 ** data.draw(st.integers(bound.least_exponent, bound.largest_exponent), label=name)
        for name, bound in BOUNDS.items()
    }
    frames, counts, sums = [], np.zeros(5, int), {name: np.zeros(3, object) for name in DTYPES}
    for _ in range(count):
        bits, dense = rng.random(5) < 0.5, example_update(rng, schema)
        del dense["w"]
        for name in DTYPES:
            if name in BOUNDS:
                most = BOUNDS[name].largest
                z = rng.integers(-most, most + 1, 3).astype(np.int32)
                dense[name] = values(z, steps[name], DTYPES[name])
                sums[name] = sums[name] + z.astype(object)
            else:
                sums[name] = sums[name] + np.array([int(x) for x in dense[name]], object)
        counts += bits
        frames.append(fm.encode_bits({"w": bits}, schema, seed=7, noise=NOISE, mask=mask, dense=dense))
    given_sums = {
        name: (total.astype(np.int64), steps[name])
        if name in BOUNDS
        else (total if name in ("int64", "uint64") else total.astype(np.int64))
        for name, total in sums.items()
    }
    tally = fm.Tally.from_counts(
        schema, {"w": counts}, count, seed=7, noise=NOISE, mask=mask, weight=3, dense=given_sums
    )
    assert tally.counts()["w"].tolist() == counts.tolist()
    server = fm.Aggregator(schema)
    server.add_tally(tally.to_bytes())  # so that its bytes pass every check
    want = one_by_one(frames, schema, 3)
    assert as_bytes(server.mean()) == as_bytes(want.mean())
    assert server.statistics() == want.statistics()


def test_bad_counts():
    schema = fm.Schema(
        [fm.Tensor("w", (2,), masked=True), fm.Tensor("b", (2,)), fm.Tensor("n", (2,), dtype="int8")]
    )
    good = {"w": np.array([0, 2])}
    dense = {"b": (np.array([1, -5]), 0.5), "n": np.array([-256, 254])}
    stated = {"counts": good, "frames": 2, "seed": 1, "noise": NOISE, "dense": dense}
    assert fm.Tally.from_counts(schema, **stated).frames == 2
    big, text = 2**39 - 1, np.array([0, "x"], object)
    for changed, error, message in (
        ({"w": np.array([0, 3])}, fm.ArgumentError, "counts of 'w': expected 0 to 2, got 0 to 3"),
        ({"w": np.array([-1, 2])}, fm.ArgumentError, "counts of 'w': expected 0 to 2, got -1 to 2"),
        ({"w": np.array([0.0, 2])}, fm.UpdateError, "counts of 'w': expected integers, got float64"),
        ({"w": text}, fm.UpdateError, "counts of 'w': expected integers, got other objects"),
        ({"w": np.zeros(3, int)}, fm.UpdateError, "shape of 'w': expected (2,), as in the schema, got (3,)"),
        ({"counts": {}}, fm.UpdateError, "counts: expected every name of the schema, got nothing for ['w']"),
        ({"frames": 0}, fm.AggregateError, "frames: expected at least 1, got 0"),
        ({"frames": 2**24}, fm.ArgumentError, "frames: expected 0 to 2^24 - 1, got 16777216"),
        ({"dense": None}, fm.UpdateError, "dense: expected every name of the schema, got nothing for"),
        (
            {"b": np.zeros(2)},
            fm.UpdateError,
            "sum of 'b': expected a pair of integers and a step, got ndarray",
        ),
        (
            {"b": (np.zeros(2, int), 0.3)},
            fm.ArgumentError,
            "step of 'b': expected a power of two from 2^-126",
        ),
        ({"b": (np.array([0, 2**25]), 0.5)}, fm.ArgumentError, "sum of 'b': expected -33554430 to 33554430"),
        ({"n": np.array([0, 255])}, fm.ArgumentError, "sum of 'n': expected -256 to 254, got 0 to 255"),
        ({"weight": big}, fm.AggregateError, f"sum of weights: expected at most 2^39 - 1, got {2 * big}"),
    ):
        if changed.keys() <= good.keys():
            arguments = stated | {"counts": changed}
        elif changed.keys() <= dense.keys():
            arguments = stated | {"dense": dense | changed}
        else:
            arguments = stated | changed
        with pytest.raises(error, match=f"^{re.escape(message)}"):
            fm.Tally.from_counts(schema, **arguments)
