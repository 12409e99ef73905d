"""Damped masks: no bit is certain, whatever the update is, and the frame still equals it on average."""

import numpy as np
import pytest
from face_cases import BACKENDS

import fedmrn_codec as fm
from fedmrn_codec.face.damping import damped
from fedmrn_codec.format.mask_spec import mask_specs

ROUNDING = 2.0**-22
"""What the accountant of fedmrn_secagg adds to the probabilities."""

LEVELS = 2**24
SCALES = [0.01, 2.0**-126, 1.0, 3e38]


def schema_of(*sizes):
    return fm.Schema([fm.Tensor(f"w{i}", (size,), masked=True) for i, size in enumerate(sizes)])


def encode(update, scale, *, seed=7, **options):
    schema = schema_of(len(update))
    return fm.encode({"w0": update}, schema, seed=seed, noise=fm.Bernoulli(scale), mask="signed", **options)


def positive(frame, size):
    """Which elements are sent as the positive value."""
    return fm.decode(frame, schema_of(size))["w0"] > 0


def probability(value, scale, damping, sign, backend):
    """The probability that an element is sent as the positive value, to the last of 2^24 integers."""
    size = 2**14
    noise = fm.noise(fm.Bernoulli(scale), seed=7, stream=0, count=size)
    where = np.flatnonzero(np.sign(noise) == sign)[:64]
    share = min(max(value / scale, -damping), damping)
    middle = round((1 + sign * share) / 2 * LEVELS)
    draws = np.zeros(size, np.uint32)
    draws[where] = middle - 32 + np.arange(64)  # set below the threshold, which is within 32 of the middle
    update = np.full(size, value, np.float32)
    frame = encode(update, scale, draws={"w0": draws}, damping=damping, backend=backend)
    kept = positive(frame, size)[where] == (sign > 0)
    assert kept[0]
    assert not kept[-1]
    share_kept = (middle - 32 + int(kept.sum())) / LEVELS
    return share_kept if sign > 0 else 1 - share_kept


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("damping", [0.9, 0.5, 0.1, 0.01, 1e-4])
def test_the_probability_is_that_of_the_clipped_update(backend, scale, damping):
    for value in np.float32([0.7 * damping * scale, damping * scale, min(2 * damping, 1) * scale]):
        for sign in (-1, 1):
            share = min(float(value) / float(np.float32(scale)), damping)
            got = probability(float(value), float(np.float32(scale)), damping, sign, backend)
            assert abs(got - (1 + share) / 2) <= ROUNDING


@pytest.mark.parametrize("damping", [0.9, 0.25, 0.01])
def test_no_update_makes_a_bit_more_certain(damping):
    largest = float(np.finfo(np.float32).max)
    for value in (largest, -largest):
        for sign in (-1, 1):
            got = probability(value, float(np.float32(0.01)), damping, sign, None)
            assert abs(got - 1 / 2) <= damping / 2 + ROUNDING


@pytest.mark.parametrize("share", [-0.25, -0.1, 0.0, 1e-3, 0.2, 0.25])
def test_the_frame_equals_the_update_on_average(share):
    size, scale = 2**16, 0.01
    draws = {"w0": (np.arange(size, dtype=np.uint32) * (LEVELS // size))}
    update = np.full(size, share * scale, np.float32)
    both = [
        fm.decode(encode(update, scale, draws=draws, damping=0.25, seed=seed), schema_of(size))["w0"].mean()
        for seed in range(4)
    ]
    assert np.mean(both) == pytest.approx(share * scale, abs=scale * 0.01)


def test_the_mean_of_many_clients_is_unbiased():
    """With draws of their own; the error is that of the binomial distribution."""
    size, clients, scale, damping = 2000, 50, 0.01, 0.2
    update = np.linspace(-damping, damping, size).astype(np.float32) * np.float32(scale)
    tally = fm.Tally(schema_of(size))
    for client in range(clients):
        tally.add(encode(update, scale, private_seed=100 + client, damping=damping))
    aggregator = fm.Aggregator(schema_of(size))
    aggregator.add_tally(tally)
    error = (aggregator.mean()["w0"] - update).astype(np.float64) / scale
    assert abs(error.mean()) < 5 / np.sqrt(size * clients)
    assert error.var() == pytest.approx(np.mean(1 - (update / scale) ** 2) / clients, rel=0.2)
    assert abs(np.mean(error * update / scale)) < 5 * damping / np.sqrt(size * clients)


@pytest.mark.parametrize("norm", [0.01, 1.0, 3.0, 1e9])
@pytest.mark.parametrize("damping", [0.9, 0.1])
def test_both_bounds_hold_and_the_direction_stays(norm, damping):
    schema, rng = schema_of(300, 50), np.random.default_rng(5)
    specs = mask_specs(schema, {"w0": fm.Bernoulli(0.01), "w1": fm.Bernoulli(3.0)}, "signed")
    scale = {"w0": float(np.float32(0.01)), "w1": 3.0}
    update = {name: (rng.normal(0, each, size)).astype(np.float32)
              for (name, each), size in zip(scale.items(), (300, 50), strict=True)}  # fmt: skip
    before = {name: array.copy() for name, array in update.items()}
    got = damped(update, specs, damping, norm)
    assert all(np.array_equal(update[name], before[name]) for name in update)
    units = {name: got[name].astype(np.float64) / scale[name] for name in got}
    length = np.sqrt(sum(np.square(each).sum() for each in units.values()))
    clipped = {name: np.clip(update[name] / np.float32(scale[name]), -damping, damping) for name in got}
    unbounded = np.sqrt(sum(np.square(each, dtype=np.float64).sum() for each in clipped.values()))
    assert all(np.abs(each).max() <= damping for each in units.values())
    assert length <= norm
    assert length == pytest.approx(min(norm, unbounded), rel=1e-6)
    for name in got:
        assert units[name] == pytest.approx(clipped[name] * (length / unbounded), rel=1e-5)


def test_the_norm_is_that_of_the_frame():
    """Only a shortened update has these probabilities."""
    update = np.full(4096, 0.005, np.float32)
    norm = 0.5 * 64 / 10
    bits = [
        positive(encode(update, 0.01, private_seed=2**40 + i, damping=0.5, norm=norm), 4096).mean()
        for i in range(20)
    ]
    assert np.mean(bits) == pytest.approx((1 + 0.05) / 2, abs=5 * 0.5 / np.sqrt(20 * 4096))


def test_without_damping_the_bytes_are_as_ever():
    update = np.linspace(-0.02, 0.02, 999).astype(np.float32)
    assert encode(update, 0.01, private_seed=3, damping=1.0) == encode(update, 0.01, private_seed=3)
    assert encode(update, 0.01, private_seed=3, damping=0.99) != encode(update, 0.01, private_seed=3)


def test_a_request_passes_it_on():
    update = np.linspace(-0.02, 0.02, 99).astype(np.float32)
    request = fm.Request(7, fm.Bernoulli(0.01), "signed", 1, 0, schema_of(99))
    got = request.encode({"w0": update}, private_seed=3, damping=0.1, norm=0.5)
    assert got == encode(update, 0.01, private_seed=3, damping=0.1, norm=0.5, round=1)


@pytest.mark.parametrize(
    "damping",
    [
        0,
        -0.1,
        1.01,
        2,
        float("nan"),
        float("inf"),
        True,
        None,
        "0.5",
        np.array([0.5, 0.5]),
        pytest.param(10**400, id="10^400"),
    ],
)
def test_a_damping_that_is_none_is_refused(damping):
    with pytest.raises(fm.ArgumentError, match=r"^damping: expected a number above 0 and at most 1, got "):
        encode(np.zeros(3, np.float32), 0.01, damping=damping)


@pytest.mark.parametrize(
    "norm",
    [
        0,
        -1,
        float("nan"),
        float("inf"),
        True,
        "1",
        pytest.param(10**400, id="10^400"),
        pytest.param(10**5000, id="10^5000"),
    ],
)
def test_a_norm_that_is_none_is_refused(norm):
    with pytest.raises(fm.ArgumentError, match=r"^norm: expected a finite number above 0, got "):
        encode(np.zeros(3, np.float32), 0.01, damping=0.5, norm=norm)


def test_a_norm_needs_a_damping():
    with pytest.raises(fm.ArgumentError, match=r"^damping: expected a number below 1, since there is a norm"):
        encode(np.zeros(3, np.float32), 0.01, norm=1.0)


@pytest.mark.parametrize(
    ("noise", "mask", "got"),
    [
        (fm.Bernoulli(0.01), "binary", "binary masks over bernoulli noise for 'w0'"),
        (fm.Uniform(0.01), "signed", "signed masks over uniform noise for 'w0'"),
        ({"w0": fm.Bernoulli(1), "w1": fm.Uniform(1)}, "signed", "signed masks over uniform noise for 'w1'"),
        (fm.Bernoulli(0.01), {"w0": "signed", "w1": "binary"}, "binary masks over bernoulli noise for 'w1'"),
    ],
)  # fmt: skip
def test_masks_with_certain_bits_are_refused(noise, mask, got):
    update = {"w0": np.zeros(3, np.float32), "w1": np.zeros(2, np.float32)}
    match = f"^damping: expected 1, or signed masks over Bernoulli noise, got {got}$"
    with pytest.raises(fm.ArgumentError, match=match):
        fm.encode(update, schema_of(3, 2), seed=1, noise=noise, mask=mask, damping=0.5)
