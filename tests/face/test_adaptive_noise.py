"""AdaptiveNoise: the first scales, one step at a time, recovery, bounds, and the state as JSON."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fedmrn_codec as fm
from fedmrn_codec.face import adaptive

SIZE = 4000
SCHEMA = fm.Schema(
    [fm.Tensor("a", (40, 100), masked=True), fm.Tensor("b", (20, 50), masked=True), fm.Tensor("bias", (3,))]
)
RNG = np.random.default_rng(0)
MODEL = {
    "a": (0.1 * RNG.standard_normal((40, 100))).astype(np.float32),
    "b": np.zeros((20, 50), np.float32),
    "bias": np.zeros(3, np.float32),
}


def normal(size, clients, seed, common=0.0):
    """An update of each client for the tensors of the schema; `common` is the part that all share."""
    rng = np.random.default_rng(seed)
    shared = {t.name: rng.standard_normal(t.shape) for t in SCHEMA}
    for _ in range(clients):
        yield {
            t.name: (
                size * (common * shared[t.name] + math.sqrt(1 - common**2) * rng.standard_normal(t.shape))
            ).astype(np.float32)
            for t in SCHEMA
        }


def play(rule, rounds, size=0.01, clients=4, common=0.3, weights=None, first=0):
    """Rounds of clients whose updates have a standard deviation of `size`; the last aggregator."""
    for number in range(first, first + rounds):
        aggregator = fm.Aggregator(SCHEMA, noise=rule.noise)
        for client, update in enumerate(normal(size, clients, number, common)):
            seed = 1000 * number + client
            frame = fm.encode(
                update, SCHEMA, seed=seed, noise=rule.noise, mask=rule.mask, private_seed=seed + 2**32
            )
            aggregator.add(frame, weights[client] if weights else 1)
        rule.observe(aggregator)
    return aggregator


def scales(rule):
    return {name: noise.scale for name, noise in rule.noise.items()}


# The first round


def test_the_first_scale_is_the_spread_of_the_weights():
    rule = fm.AdaptiveNoise(SCHEMA, MODEL)
    spread = float(np.std(MODEL["a"].astype(np.float64)))
    assert rule.noise["a"] == fm.Bernoulli(spread)
    assert fm.AdaptiveNoise(SCHEMA, MODEL, mask="signed").noise["a"].scale == pytest.approx(0.2 * spread)
    assert type(fm.AdaptiveNoise(SCHEMA, MODEL, distribution="uniform").noise["a"]) is fm.Uniform
    assert rule.rounds == 0


def test_zeros_start_with_the_usual_spread_or_that_of_the_others():
    rule = fm.AdaptiveNoise(SCHEMA, MODEL)
    assert scales(rule)["b"] == pytest.approx(min(1 / math.sqrt(3 * 50), np.std(MODEL["a"])))
    alone = fm.Schema([fm.Tensor("b", (20, 50), masked=True)])
    got = scales(fm.AdaptiveNoise(alone, {"b": MODEL["b"]}))["b"]
    assert got == pytest.approx(1 / math.sqrt(150))
    vector = fm.Schema([fm.Tensor("v", (12,), masked=True)])
    got = scales(fm.AdaptiveNoise(vector, {"v": np.ones(12, np.float32)}))["v"]
    assert got == pytest.approx(1 / math.sqrt(36))


def test_weights_in_half_precision_and_a_tensor_without_elements():
    schema = fm.Schema([fm.Tensor("h", (4, 5), masked=True), fm.Tensor("none", (0, 3), masked=True)])
    model = {"h": np.arange(20, dtype=np.float16).reshape(4, 5), "none": np.zeros((0, 3), np.float32)}
    rule = fm.AdaptiveNoise(schema, model)
    assert scales(rule)["h"] == pytest.approx(np.std(np.arange(20)))
    before = rule.noise["none"]
    aggregator = fm.Aggregator(schema, noise=rule.noise)
    update = {"h": np.ones((4, 5), np.float32), "none": np.zeros((0, 3), np.float32)}
    aggregator.add(fm.encode(update, schema, seed=1, noise=rule.noise), 1)
    rule.observe(aggregator)
    assert rule.noise["none"] == before


# Steering


@pytest.mark.parametrize("distribution", ["bernoulli", "uniform", "gaussian"])
def test_binary_masks_come_to_the_target(distribution):
    rule = fm.AdaptiveNoise(SCHEMA, MODEL, distribution=distribution)
    seen = play(rule, 20, common=0.0, clients=10).statistics()
    assert seen["a"].density == pytest.approx(0.05, rel=0.15)
    assert seen["b"].density == pytest.approx(0.05, rel=0.25)


@pytest.mark.parametrize("bits", [0.1, 0.5, 0.9])
def test_bits_are_what_a_mask_then_costs(bits):
    rule = fm.AdaptiveNoise(SCHEMA, MODEL, bits=bits)
    density = play(rule, 20, common=0.0).statistics()["a"].density
    assert -density * math.log2(density) - (1 - density) * math.log2(1 - density) == pytest.approx(
        bits, rel=0.1
    )


def test_signed_masks_come_to_the_share_in_common():
    rule = fm.AdaptiveNoise(SCHEMA, MODEL, mask="signed")
    seen = play(rule, 25, size=0.001, clients=10, common=1.0).statistics()["a"]
    share = (seen.mean_energy / seen.frame_energy - 0.1) / 0.9
    error = 2 * math.sqrt(2 / seen.elements) * 0.1 / 0.9
    assert abs(share - adaptive.COMMON) < 2.5 * error + 0.3 * adaptive.COMMON


def test_signed_masks_of_one_client_hold_still():
    rule = fm.AdaptiveNoise(SCHEMA, MODEL, mask="signed")
    rule_scales = scales(rule)
    play(rule, 3, clients=1)
    assert (
        scales(rule)["a"] <= rule_scales["a"]
    )  # the budget may lower it: one client's noise is not averaged
    low = scales(rule)
    play(rule, 3, clients=1)
    assert scales(rule) == low


def test_one_client_and_unequal_weights_are_steered_too():
    one, unequal = fm.AdaptiveNoise(SCHEMA, MODEL), fm.AdaptiveNoise(SCHEMA, MODEL)
    of_one = 0.05 * math.sqrt(10)
    assert play(one, 20, clients=1).statistics()["a"].density == pytest.approx(of_one, rel=0.2)
    seen = play(unequal, 20, weights=[1, 10**9, 3, 7]).statistics()["a"]  # as good as one client
    assert seen.density == pytest.approx(of_one, rel=0.2)


def test_fewer_clients_have_denser_masks():
    """A mean of few frames has more noise, and denser masks have less."""
    assert adaptive.density_for(1 / 2) == pytest.approx(0.05 * math.sqrt(5))
    assert adaptive.density_for(1 / 10) == pytest.approx(0.05)
    assert adaptive.density_for(1 / 40) == adaptive.density_for(1 / 1000) == pytest.approx(0.025)


def test_chance_does_not_shrink_the_signed_masks_of_a_small_tensor():
    """That frames have nothing in common cannot be told from 20 elements, even if their sum is 0."""
    schema = fm.Schema([fm.Tensor("w", (4, 5), masked=True)])
    rule = fm.AdaptiveNoise(schema, {"w": 10 * np.eye(4, 5, dtype=np.float32)}, mask="signed")
    before, aggregator = rule.noise, fm.Aggregator(schema, noise=rule.noise)
    for client in range(4):
        positive = fm.noise(rule.noise["w"], seed=client, count=20).reshape(4, 5) > 0
        bits = {"w": positive == (client < 2)}  # two clients send the scale, two its negative
        aggregator.add_arrays({}, 1, bits=bits, seed=client, mask="signed")
    assert not aggregator.mean()["w"].any()
    rule.observe(aggregator)
    assert rule.noise["w"].scale >= before["w"].scale


def test_a_round_without_frames_changes_nothing():
    rule = fm.AdaptiveNoise(SCHEMA, MODEL)
    before = rule.to_json()
    rule.observe(fm.Aggregator(SCHEMA, noise=rule.noise))
    assert rule.to_json() == before


# Bounds and recovery


@pytest.mark.parametrize("factor", [0.01, 100.0])
@pytest.mark.parametrize("mask", ["binary", "signed"])
def test_a_start_that_is_far_off_is_forgotten(factor, mask):
    usual = fm.AdaptiveNoise(SCHEMA, MODEL, mask=mask)
    state = usual.to_json()
    for entry in state["tensors"].values():
        entry["scale"] *= factor
    other = fm.AdaptiveNoise.from_json(json.loads(json.dumps(state)))
    for rule in (usual, other):
        play(rule, 25, size=0.001, clients=10, common=1.0)
    for name, scale in scales(usual).items():
        assert scales(other)[name] == pytest.approx(scale, rel=0.35)


def test_a_step_is_bounded_and_bad_rounds_are_forgotten():
    rule = fm.AdaptiveNoise(SCHEMA, MODEL)
    play(rule, 15)
    good = scales(rule)
    play(rule, 1, size=1e6, first=50)  # every bit as the noise has it
    bad = scales(rule)
    assert all(1 / 4.001 <= bad[name] / good[name] <= 4.001 for name in good)
    play(rule, 12, first=60)
    assert all(0.7 < scales(rule)[name] / good[name] < 1.4 for name in good)


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.sampled_from([0.0, 1e-30, 1e-6, 0.01, 1.0, 1e10, 1e30]), min_size=1, max_size=12),
    mask=st.sampled_from(["binary", "signed"]),
    distribution=st.sampled_from(["bernoulli", "uniform", "gaussian"]),
    clients=st.integers(1, 3),
)
def test_it_never_runs_away(sizes, mask, distribution, clients):
    rule = fm.AdaptiveNoise(SCHEMA, MODEL, mask=mask, distribution=distribution)
    spreads = {name: entry["spread"] for name, entry in rule.to_json()["tensors"].items()}
    for number, size in enumerate(sizes):
        before = scales(rule)
        play(rule, 1, size=size, clients=clients, first=number)
        for name, scale in scales(rule).items():
            assert adaptive.LOW * spreads[name] * 0.999 <= scale <= adaptive.HIGH * spreads[name] * 1.001
            assert 1 / 4.001 <= scale / before[name] <= 4.001


def test_the_noise_of_the_mean_is_limited_by_the_size_of_the_weights():
    """Masks that are all set ask for more noise each round; the budget ends that."""
    rule = fm.AdaptiveNoise(SCHEMA, MODEL)
    for number in range(12):
        aggregator = fm.Aggregator(SCHEMA, noise=rule.noise)
        bits = {"a": np.ones((40, 100), bool), "b": np.ones((20, 50), bool)}
        aggregator.add_arrays({"bias": MODEL["bias"]}, 1, bits=bits, seed=number)
        rule.observe(aggregator)
    for name, entry in rule.to_json()["tensors"].items():
        assert scales(rule)[name] == pytest.approx(0.5 * entry["size"], rel=1e-5)


# What an aggregator knows


def test_statistics_are_those_of_the_frames():
    rule = fm.AdaptiveNoise(SCHEMA, MODEL)
    whole = fm.Aggregator(SCHEMA, noise=rule.noise)
    parts = [fm.Aggregator(SCHEMA, noise=rule.noise) for _ in range(2)]
    frames, weights = [], [3, 5, 7]
    for number, update in enumerate(normal(0.05, 3, 1)):
        frame = fm.encode(update, SCHEMA, seed=number, noise=rule.noise, coding="rans")
        frames.append(frame)
        whole.add(frame, weights[number])
        parts[number % 2].add(frame, weights[number])
    parts[0].merge(parts[1])
    assert whole.statistics() == parts[0].statistics()
    seen, decoded = whole.statistics()["a"], [fm.decode(frame, SCHEMA)["a"] for frame in frames]
    assert seen.set_bits == sum(int(fm.decode_bits(frame, SCHEMA)["a"].sum()) for frame in frames)
    assert (seen.binary_frames, seen.signed_frames, seen.elements) == (3, 0, SIZE)
    assert seen.square_weights == pytest.approx((9 + 25 + 49) / 15**2)
    energies = [float((x.astype(np.float64) ** 2).sum()) for x in decoded]
    assert seen.frame_energy == pytest.approx(np.mean(energies), rel=1e-6)
    mean = whole.mean()["a"].astype(np.float64)
    assert seen.mean_energy == pytest.approx((mean**2).sum(), rel=1e-5)


@pytest.mark.parametrize("distribution", [fm.Uniform, fm.Gaussian, fm.Bernoulli])
def test_energies_of_signed_frames_of_any_noise(distribution):
    noise = distribution(0.05)
    aggregator = fm.Aggregator(SCHEMA, noise=noise)
    (update,) = normal(0.01, 1, 3)
    frame = fm.encode(update, SCHEMA, seed=1, noise=noise, mask="signed")
    aggregator.add(frame, 1)
    seen = aggregator.statistics()["a"]
    energy = float((fm.decode(frame, SCHEMA)["a"].astype(np.float64) ** 2).sum())
    assert seen.frame_energy == pytest.approx(energy, rel=0.1)
    assert seen.mean_energy == pytest.approx(energy, rel=1e-5)
    assert (seen.density, seen.signed_frames) == (0.0, 1)


def test_energy_of_huge_sums():
    """Sums near 2^61, whose squares no int64 holds."""
    schema = fm.Schema([fm.Tensor("w", (3, 5), masked=True)])
    noise, aggregator = fm.Uniform(1.0), fm.Aggregator(schema)
    update = {"w": np.ones((3, 5), np.float32)}
    for seed in range(2):
        aggregator.add(fm.encode(update, schema, seed=seed, noise=noise, mask="signed"), 2**37)
    mean = aggregator.mean()["w"].astype(np.float64)
    assert aggregator.statistics()["w"].mean_energy == pytest.approx((mean**2).sum(), rel=1e-5)


# The state, and bad input


@pytest.mark.parametrize("options", [{}, {"mask": "signed", "distribution": "gaussian"}, {"bits": 0.25}])
def test_the_state_continues_to_the_bit(options):
    rule = fm.AdaptiveNoise(SCHEMA, MODEL, **options)
    play(rule, 3)
    again = fm.AdaptiveNoise.from_json(json.loads(json.dumps(rule.to_json())))
    assert (again.noise, again.rounds, again.to_json()) == (rule.noise, 3, rule.to_json())
    play(rule, 2, first=3), play(again, 2, first=3)
    assert again.to_json() == rule.to_json()
    assert repr(again) == repr(rule)


def change(**fields):
    return lambda state: {**state, **fields}


def of_a(**fields):
    return lambda state: {**state, "tensors": {**state["tensors"], "a": {**state["tensors"]["a"], **fields}}}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (change(version=2), "expected one of version 1, got 2"),
        (lambda state: [], "expected one of version 1, got 'list'"),
        (change(tensors={}), "expected what to_json gave"),
        (change(tensors=None), "expected what to_json gave"),
        (change(mask="ternary"), "mask: expected one of binary, signed"),
        (change(distribution="cauchy"), "distribution: expected one of uniform, gaussian, bernoulli"),
        (change(bits=2), "bits: expected a number above 0 and at most 1, got 2"),
        (change(rounds=-1), "rounds: expected a number at least 0"),
        (of_a(scale=math.nan), "scale of 'a': expected a number above 0"),
        (of_a(spread="1"), "spread of 'a': expected a number above 0"),
        (of_a(size=True), "size of 'a': expected a number above 0"),
        (of_a(scale=10**400), "scale of 'a': expected a number above 0"),
        (change(schema="x"), "schema"),
    ],
)
def test_a_damaged_state_is_refused(damage, message):
    with pytest.raises(fm.CodecError, match=message):
        fm.AdaptiveNoise.from_json(damage(fm.AdaptiveNoise(SCHEMA, MODEL).to_json()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask": "signed", "bits": 0.5}, "bits: expected none for signed masks, which take 1 bit, got 0.5"),
        ({"bits": 0}, "bits: expected a number above 0 and at most 1, got 0"),
        ({"bits": "0.5"}, "bits: expected a number above 0"),
        (
            {"distribution": "cauchy"},
            "distribution: expected one of uniform, gaussian, bernoulli, got 'cauchy'",
        ),
        ({"mask": "both"}, "mask: expected one of binary, signed"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(fm.ArgumentError, match=message):
        fm.AdaptiveNoise(SCHEMA, MODEL, **options)


def test_bad_models_are_refused():
    with pytest.raises(fm.SchemaError, match="expected names of the model's arrays, got 'b'"):
        fm.AdaptiveNoise(SCHEMA, {"a": MODEL["a"]})
    with pytest.raises(fm.UpdateError, match="weights of 'a': expected finite ones"):
        fm.AdaptiveNoise(SCHEMA, {**MODEL, "a": np.full((40, 100), np.inf, np.float32)})


def test_other_rounds_are_refused_and_change_nothing():
    rule = fm.AdaptiveNoise(SCHEMA, MODEL)
    before, (update,) = rule.to_json(), normal(0.01, 1, 0)
    frame = fm.encode(update, SCHEMA, seed=1, noise=rule.noise)
    other = fm.Aggregator(SCHEMA)
    other.add(fm.encode(update, SCHEMA, seed=1, noise=fm.Bernoulli(0.5)), 1)
    with pytest.raises(fm.AggregateError, match=r"noise of 'a': expected Bernoulli\(.*\), the rule's, got"):
        rule.observe(other)
    signed = fm.Aggregator(SCHEMA)
    signed.add(fm.encode(update, SCHEMA, seed=1, noise=rule.noise, mask="signed"), 1)
    with pytest.raises(fm.AggregateError, match="masks of 'a': expected binary ones only, got 1 of others"):
        rule.observe(signed)
    whole = fm.Aggregator(SCHEMA)
    whole.add(frame, 1)
    partial = fm.Aggregator.from_bytes(whole.to_bytes(), SCHEMA)
    for aggregator in (partial, whole):
        if aggregator is whole:
            aggregator.merge(partial)
        with pytest.raises(fm.AggregateError, match="statistics: expected frames that were added here"):
            rule.observe(aggregator)
    with pytest.raises(fm.AggregateError, match="schema: expected that of the rule"):
        rule.observe(fm.Aggregator(fm.Schema([fm.Tensor("a", (40, 100), masked=True)])))
    with pytest.raises(fm.AggregateError, match="observe: expected an Aggregator, got bytes"):
        rule.observe(frame)
    assert rule.to_json() == before
