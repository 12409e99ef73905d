"""Frames of integers on a grid: encode_grid, their decoding, and their sums (spec 6.12, 8)."""

import numpy as np
import pytest

import fedmrn_codec as fm
from fedmrn_codec import errors

SCHEMA = fm.Schema(
    [
        fm.Tensor("w", (30, 40), masked=True),
        fm.Tensor("half", (9,), dtype="float16"),
        fm.Tensor("brain", (3, 4), dtype="bfloat16"),
        fm.Tensor("wide", (5,), dtype="float64"),
        fm.Tensor("bias", (7,)),
        fm.Tensor("count", (), dtype="int64"),
        fm.Tensor("flags", (2,), dtype="bool"),
        fm.Tensor("none", (0, 3), masked=True),
    ]
)
STEPS = {"w": 2**-7, "half": 2**-4, "brain": 2**-3, "wide": 2**-9, "bias": 2**-10, "none": 1.0}


def integers(seed=0):
    rng = np.random.default_rng(seed)
    return {t.name: np.rint(rng.laplace(0, 3, t.shape)).astype(np.int32) for t in SCHEMA.tensors[:5]}


def update(seed=0):
    z = integers(seed)
    wide = {name: its * STEPS[name] for name, its in z.items()}
    return {
        "w": wide["w"].astype("f4"),
        "half": wide["half"].astype("f2"),
        "brain": (wide["brain"].astype("f4").view("u4") >> 16).astype("u2"),
        "wide": wide["wide"],
        "bias": wide["bias"].astype("f4"),
        "count": np.array(-3, np.int64),
        "flags": np.array([True, False]),
        "none": np.zeros((0, 3), "f4"),
    }


def encode(seed=0, **changed):
    return fm.encode_grid(update(seed), SCHEMA, **{"step": STEPS, **changed})


@pytest.mark.parametrize("coding", ["raw", "rans14"])
@pytest.mark.parametrize("backend", ["numpy", "numba", "torch", "onnx"])
def test_multiples_of_the_step_survive(coding, backend):
    if backend not in fm.backends.installed():
        pytest.skip("not installed")
    frame = encode(coding=coding, round=3, base_model=9, backend=backend)
    decoded = fm.decode(frame, SCHEMA, round=3, base_model=9, backend=backend)
    for name, array in update().items():
        assert decoded[name].dtype == array.dtype
        assert decoded[name].tobytes() == array.tobytes(), name
    decoded["w"][0] = 1  # new and writable
    info = fm.inspect(frame)
    assert info.version == (1, 3)
    assert info.tensors[0].kind == "grid"
    assert info.tensors[0].step == STEPS["w"]
    assert info.mask_bytes == 0
    assert info.grid_bytes + info.dense_bytes + info.header_bytes == len(frame)


def test_elements_are_rounded_to_nearest_ties_to_even():
    schema = fm.Schema([fm.Tensor("w", (5,), masked=True)])
    frame = fm.encode_grid({"w": np.array([0.5, 1.5, -0.5, -0.6, 2.4], "f4")}, schema, step=1.0)
    values = fm.decode(frame, schema)["w"]
    assert values.tolist() == [0, 2, 0, -1, 2]
    assert not np.signbit(values[2])


def test_tensors_without_a_step_are_sent_as_elements():
    steps = {"w": STEPS["w"], "none": 1.0}
    arrays = update() | {"bias": np.full(7, 0.3, "f4")}
    frame = fm.encode_grid(arrays, SCHEMA, step=steps)
    assert fm.decode(frame, SCHEMA)["bias"].tobytes() == arrays["bias"].tobytes()


@pytest.mark.parametrize(
    ("step", "got"),
    [
        (0.3, "0.3"),
        (0.0, "0.0"),
        (-0.5, "-0.5"),
        (float("nan"), "nan"),
        (2.0**105, ""),
        ("1", "'1'"),
        ({}, "w"),
    ],
)
def test_a_bad_step_is_an_error(step, got):
    with pytest.raises(fm.ArgumentError, match="step") as caught:
        fm.encode_grid(update(), SCHEMA, step=step)
    assert got in str(caught.value)


def test_what_is_too_large_for_the_dtype_is_an_error():
    with pytest.raises(errors.UpdateGridError, match="at most 255 steps"):
        encode(step=STEPS | {"brain": 2**-100})
    with pytest.raises(errors.UpdateNonFiniteError):
        fm.encode_grid(update() | {"bias": np.full(7, np.nan, "f4")}, SCHEMA, step=STEPS)


def exact(frames, weights, name):
    total = sum(int(w) for w in weights)
    z = sum(w * integers(seed)[name].astype(object) for seed, w in zip(frames, weights, strict=True))
    return (z.astype(np.float64) / total * STEPS[name]).astype("f4")


def test_sums_are_exact_and_merge():
    seeds, weights = range(5), [3, 1, 2**30, 7, 5]
    frames = [encode(seed) for seed in seeds]
    whole, first, second = (fm.Aggregator(SCHEMA) for _ in range(3))
    whole.add_many(frames, weights)
    first.add_many(frames[:2], weights[:2])
    second.add_many(frames[2:], weights[2:])
    again = fm.Aggregator.from_bytes(first.to_bytes(), SCHEMA)
    again.merge(second)
    assert again.to_bytes() == whole.to_bytes()
    assert whole.to_bytes()[5] == 1
    means = again.mean()
    assert means["w"].tobytes() == exact(seeds, weights, "w").tobytes()
    assert means["bias"].tobytes() == exact(seeds, weights, "bias").tobytes()
    assert whole.statistics() == {}


def test_a_sum_of_masks_stays_in_version_1_0():
    schema = fm.Schema([fm.Tensor("w", (4,), masked=True)])
    aggregator = fm.Aggregator(schema)
    aggregator.add(fm.encode({"w": np.ones(4, "f4")}, schema, seed=1, noise=fm.Uniform(1)), 1)
    assert aggregator.to_bytes()[4:6] == bytes([1, 0])


def test_another_step_or_a_mask_is_refused_and_changes_nothing():
    schema = fm.Schema([fm.Tensor("w", (4,), masked=True)])
    values = {"w": np.array([1, 0, -2, 4], "f4")}
    grid = fm.encode_grid(values, schema, step=0.5)
    aggregator = fm.Aggregator(schema)
    aggregator.add(grid, 1)
    before = aggregator.to_bytes()
    others = [
        fm.encode_grid(values, schema, step=0.25),
        fm.encode(values, schema, seed=1, noise=fm.Bernoulli(0.5)),
    ]
    for frame in others:
        with pytest.raises(errors.NoiseError):
            aggregator.add(frame, 1)
        assert aggregator.to_bytes() == before
    stated = fm.Aggregator(schema, noise=fm.Uniform(1))
    with pytest.raises(errors.NoiseError):
        stated.add(grid, 1)


def test_bits_of_a_frame_of_grids_are_none():
    assert fm.decode_bits(encode(), SCHEMA) == {}


@pytest.mark.parametrize("backend", fm.backends.installed())
def test_arrays_are_repeated_by_counts_of_the_systems_own_integers(backend, monkeypatch):
    """On a 32-bit system NumPy refuses other counts, such as uint32, which it takes elsewhere."""
    repeat = np.repeat

    def strict(array, repeats, **options):
        assert np.ndim(repeats) == 0 or np.asarray(repeats).dtype == np.intp
        return repeat(array, repeats, **options)

    model = {"w": np.linspace(-1, 1, 600, dtype=np.float32).reshape(20, 30)}
    schema = fm.schema_of(model)
    down = fm.Downlink(schema, model)
    monkeypatch.setattr(np, "repeat", strict)
    got = fm.Replica(schema, backend=backend).apply(down.frame(0))
    assert fm.model_id(got) == down.model_id
