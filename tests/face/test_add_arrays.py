"""Aggregator.add_arrays: the sums of the frame that `encode_bits` makes, and refusals that change nothing."""

import re

import numpy as np
import pytest
from face_cases import NOISES, U64, all_kinds_schema, example_update, noises, schemas
from hypothesis import given, settings
from hypothesis import strategies as st

import fedmrn_codec as fm
from fedmrn_codec import errors

CLIENTS = st.lists(
    st.tuples(U64, st.integers(1, 2**36), st.sampled_from(fm.MaskKind), st.booleans()), min_size=1, max_size=5
)


def arrays_of(schema, seed):
    """Mask bits and dense arrays that fit a schema."""
    rng = np.random.default_rng(seed)
    update = example_update(rng, schema)
    bits = {t.name: rng.random(t.shape) < 0.4 for t in schema if t.masked}
    return bits, {t.name: update[t.name] for t in schema if not t.masked}


def as_bytes(arrays):
    return [(name, array.dtype, array.shape, array.tobytes()) for name, array in arrays.items()]


def compare(schema, noise, clients, backend=None):
    """Frames on one side; on the other arrays for the clients that say so, and frames for the others."""
    by_frames, mixed = (fm.Aggregator(schema, backend=backend) for _ in range(2))
    for number, (seed, weight, mask, as_arrays) in enumerate(clients):
        bits, dense = arrays_of(schema, number)
        frame = fm.encode_bits(bits, schema, seed=seed, noise=noise, mask=mask, dense=dense)
        by_frames.add(frame, weight)
        if as_arrays:
            mixed.add_arrays(dense, weight, bits=bits, seed=seed, noise=noise, mask=mask.label)
        else:
            mixed.add(frame, weight)
    assert (mixed.frames, mixed.weight) == (by_frames.frames, by_frames.weight)
    assert mixed.to_bytes() == by_frames.to_bytes()
    assert as_bytes(mixed.mean()) == as_bytes(by_frames.mean())


@given(schemas(), noises, CLIENTS)
@settings(max_examples=60)
def test_sums_are_those_of_frames(schema, noise, clients):
    compare(schema, noise, clients)


@pytest.mark.parametrize("backend", ["numpy", "numba", "torch", "onnx"])
@pytest.mark.parametrize("noise", NOISES)
def test_every_dtype_and_backend(noise, backend):
    """More than a batch of each."""
    clients = [(2**64 - 1 - i, 1 + i**3, list(fm.MaskKind)[i % 2], i % 3 > 0) for i in range(40)]
    compare(all_kinds_schema(), noise(0.01), clients, backend)


def test_noise_and_mask_by_name():
    schema = fm.Schema([fm.Tensor(name, (9,), masked=True) for name in "ab"])
    bits = {"a": np.arange(9) % 2 == 0, "b": np.arange(9) % 3 == 0}
    settings = {
        "seed": 5,
        "noise": {"b": fm.Gaussian(2.0), "a": fm.Bernoulli(0.5)},
        "mask": {"a": "signed", "b": fm.MaskKind.BINARY},
    }
    by_frame, by_arrays = fm.Aggregator(schema), fm.Aggregator(schema)
    by_frame.add(fm.encode_bits(bits, schema, **settings), 7)
    by_arrays.add_arrays({}, 7, bits=bits, **settings)
    assert by_arrays.to_bytes() == by_frame.to_bytes()


@pytest.mark.parametrize("stated", [True, False])
def test_noise_is_the_aggregators_by_default(stated):
    schema, noise = fm.Schema([fm.Tensor("w", (9,), masked=True)]), fm.Gaussian(0.5)
    bits = {"w": np.ones(9, bool)}
    server, reference = fm.Aggregator(schema, noise=noise if stated else None), fm.Aggregator(schema)
    frames = [fm.encode_bits(bits, schema, seed=seed, noise=noise) for seed in (1, 2)]
    reference.add_many(frames, [3, 4])
    if stated:
        server.add_arrays({}, 3, bits=bits, seed=1)
    else:
        message = re.escape("noise: expected one for each masked tensor, got nothing for ['w']")
        with pytest.raises(fm.ArgumentError, match=f"^{message}$"):
            server.add_arrays({}, 3, bits=bits, seed=1)
        server.add(frames[0], 3)
    server.add_arrays({}, 4, bits=bits, seed=2)
    assert server.to_bytes() == reference.to_bytes()


def test_a_schema_without_masked_tensors_needs_no_seed():
    schema, update = fm.Schema([fm.Tensor("b", (2,))]), {"b": np.float32([1, -3])}
    server = fm.Aggregator(schema)
    server.add_arrays(update, 2)
    server.add_arrays({"b": np.float32([4, 0])}, 1)
    assert server.mean()["b"].tolist() == [2, -2]
    assert update["b"].tolist() == [1, -3]


def test_arrays_may_change_afterwards_and_have_any_layout():
    schema = all_kinds_schema()
    bits, dense = arrays_of(schema, 0)
    settings = {"seed": 5, "noise": fm.Uniform(0.01)}
    reference, server = fm.Aggregator(schema), fm.Aggregator(schema)
    reference.add(fm.encode_bits(bits, schema, dense=dense, **settings), 3)
    bits = {name: np.array(array, order="F") for name, array in bits.items()}
    dense = {name: np.array(array, array.dtype.newbyteorder(">"), order="F") for name, array in dense.items()}
    server.add_arrays(dense, 3, bits=bits, **settings)
    for array in (*bits.values(), *dense.values()):
        array[...] = 0
    assert server.to_bytes() == reference.to_bytes()


SCHEMA = fm.Schema(
    [fm.Tensor("w", (9,), masked=True), fm.Tensor("b", (2,)), fm.Tensor("n", (), dtype="int64")]
)
NOISE = fm.Uniform(0.5)
BITS = {"w": np.ones(9, bool)}
DENSE = {"b": np.ones(2, np.float32), "n": np.int64(3)}


MISSING = "expected every name of the schema, got nothing for"
ONLY = "expected only names of the schema, got"


@pytest.mark.parametrize("before", [0, 1])
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"arrays": {"b": DENSE["b"]}}, fm.UpdateError, f"update: {MISSING} ['n']"),
        ({"arrays": {**DENSE, "w": 1}}, fm.UpdateError, f"update: {ONLY} ['w']"),
        ({"arrays": {**DENSE, "b": np.ones(2)}}, fm.UpdateError, "dtype of 'b': expected float32, as in"),
        ({"arrays": {**DENSE, "b": np.float32([1, np.inf])}}, fm.UpdateError, "'b': expected finite values"),
        ({"arrays": {**DENSE, "n": np.int64([1])}}, fm.UpdateError, "shape of 'n': expected (), as in"),
        ({"bits": None}, fm.UpdateError, f"bits: {MISSING} ['w']"),
        ({"bits": {**BITS, "b": 1}}, fm.UpdateError, f"bits: {ONLY} ['b']"),
        ({"bits": {"w": np.ones(8, bool)}}, fm.UpdateError, "shape of 'w': expected (9,), as in the schema"),
        ({"bits": {"w": np.ones(9)}}, fm.UpdateError, "bits of 'w': expected bool, got float64"),
        ({"seed": None}, fm.ArgumentError, "seed: expected the seed of the masked tensors' noise, got None"),
        ({"seed": -1}, fm.ArgumentError, "seed: expected 0 to 2^64 - 1, got -1"),
        ({"seed": 2**64}, fm.ArgumentError, "seed: expected 0 to 2^64 - 1, got 18446744073709551616"),
        ({"mask": "ternary"}, fm.ArgumentError, "mask: expected one of binary, signed, got 'ternary'"),
        ({"noise": 0.5}, fm.ArgumentError, "noise: expected Uniform, Gaussian or Bernoulli, got 0.5"),
        ({"noise": {}}, fm.ArgumentError, "noise: expected one for each masked tensor, got ['w'] missing"),
        ({"weight": 0}, fm.AggregateError, "weight: expected a positive integer, got 0"),
        ({"weight": 1.5}, fm.AggregateError, "weight: expected a positive integer, got 1.5"),
        ({"weight": 2**39}, fm.AggregateError, "sum of weights: expected at most 2^39 - 1, got 5497558138"),
    ],
)
def test_refused_arguments_change_nothing(before, change, error, message):
    server = fm.Aggregator(SCHEMA)
    arguments = {"arrays": DENSE, "weight": 2, "bits": BITS, "seed": 7, "noise": NOISE}
    for _ in range(before):
        server.add_arrays(**arguments)
    state = server.to_bytes() if before else None
    with pytest.raises(error, match=f"^{re.escape(message)}"):
        server.add_arrays(**arguments | change)
    assert (server.frames, server.weight) == (before, 2 * before)
    assert (server.to_bytes() if before else None) == state
    server.add(
        fm.encode_bits(BITS, SCHEMA, seed=1, noise=NOISE if before else fm.Gaussian(3), dense=DENSE), 1
    )


def test_other_noise_is_refused_and_changes_nothing():
    server = fm.Aggregator(SCHEMA, noise=NOISE)
    server.add_arrays(DENSE, 2, bits=BITS, seed=7)
    before = server.to_bytes()
    message = re.escape(f"noise of 'w': expected {NOISE}, got {fm.Uniform(0.25)}")
    with pytest.raises(errors.NoiseError, match=f"^{message}$"):
        server.add_arrays(DENSE, 1, bits=BITS, seed=7, noise=fm.Uniform(0.25))
    assert server.to_bytes() == before
