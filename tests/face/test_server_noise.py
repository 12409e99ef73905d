"""ServerNoise: fixed noise, rules by schema, and the file in which a server keeps them."""

import json
import re

import numpy as np
import pytest

import fedmrn_codec as fm
from fedmrn_codec.adapter_api import ServerNoise

SCHEMA = fm.Schema([fm.Tensor("w", (20, 30), masked=True)])
MODEL = {"w": np.random.default_rng(0).standard_normal((20, 30)).astype(np.float32)}


def round_of(noise, schema=SCHEMA, model=MODEL, seed=1):
    """The aggregator of a round with one frame."""
    its_noise = noise.of(schema, model)
    aggregator = fm.Aggregator(schema, noise=its_noise)
    update = {name: 0.01 * array for name, array in model.items()}
    aggregator.add(fm.encode(update, schema, seed=seed, noise=its_noise, private_seed=2, mask=noise.mask), 1)
    return aggregator


def seen_round(noise, times=0.01, clipped=None, seed=1):
    """A round with one frame of `times` the model; what `end_round` gives."""
    its_noise = noise.of(SCHEMA, MODEL)
    aggregator, update = fm.Aggregator(SCHEMA, noise=its_noise), {"w": np.float32(times) * MODEL["w"]}
    frame = fm.verify(
        fm.encode(update, SCHEMA, seed=seed, noise=its_noise, private_seed=2, mask=noise.mask), SCHEMA
    )
    aggregator.add(frame, 1)
    noise.see(frame, clipped)
    noise.observe(aggregator)
    return noise.end_round()


def test_a_fixed_noise_never_changes():
    noise = ServerNoise(fm.Uniform(0.5), "binary")
    assert not noise.adaptive
    assert noise.observe(round_of(noise)) == {}
    assert noise.of(SCHEMA, MODEL) == fm.Uniform(0.5)


def test_the_rule_starts_with_the_first_model_and_moves():
    noise = ServerNoise(None, "binary")
    first = noise.of(SCHEMA, MODEL)
    assert first == fm.AdaptiveNoise(SCHEMA, MODEL).noise
    seen = noise.observe(round_of(noise))
    assert seen["scale.w"] == first["w"].scale
    metrics, warning = seen_round(ServerNoise(None, "binary"))
    assert 0 < metrics["density.w"] < 0.05
    assert warning is None
    assert noise.of(SCHEMA, {"w": 100 * MODEL["w"]})["w"].scale < first["w"].scale


def test_a_given_rule_is_used_and_shared():
    rule = fm.AdaptiveNoise(SCHEMA, MODEL, bits=0.5)
    noise = ServerNoise(rule, "binary")
    noise.observe(round_of(noise))
    assert rule.rounds == 1
    assert noise.of(SCHEMA, MODEL) == rule.noise


def test_signed_masks_have_no_density():
    noise = ServerNoise(None, "signed")
    assert set(noise.observe(round_of(noise))) == {"scale.w"}
    assert seen_round(noise) == ({}, None)
    assert seen_round(noise, clipped=0.25) == ({"clipped": 0.25}, None)


@pytest.mark.parametrize(
    ("scale", "clipped", "mask", "text"),
    [
        (1e-4, None, "binary", r"4\d % of the mask bits are set, .*; use a larger scale, or give no noise"),
        (1e4, None, "binary", r"^0 % of the mask bits are set, .*; use a smaller scale, or give no noise"),
        (1.0, 0.93, "signed", r"^about 90 % of the update's masked .*; use a larger scale, or give no noise"),
    ],
)
def test_a_fixed_scale_that_does_not_fit_is_reported_once(scale, clipped, mask, text):
    noise = ServerNoise(fm.Bernoulli(scale), mask)
    assert re.search(text, seen_round(noise, clipped=clipped)[1])
    assert seen_round(noise, clipped=clipped)[1] is None


@pytest.mark.parametrize("noise", [None, fm.Bernoulli(0.1)])
def test_a_scale_that_fits_is_not_reported(noise):
    noise = ServerNoise(noise, "binary")
    for number in range(14):
        metrics, warning = seen_round(noise, clipped=0.01, seed=number + 3)
        assert warning is None
    assert 0.02 < metrics["density.w"] < 0.2


def test_a_rule_is_judged_after_its_first_rounds_unless_bits_chose_its_density():
    for bits, number in ((None, 11), (0.9, None)):
        noise = ServerNoise(None, "binary", bits=bits)
        rounds = [seen_round(noise, clipped=0.9, seed=number + 3)[1] for number in range(14)]
        assert [i for i, text in enumerate(rounds, 1) if text] == ([number] if number else [])


def test_the_text_about_a_rule_does_not_ask_for_another_noise():
    noise = ServerNoise(None, "binary")
    (text,) = filter(None, (seen_round(noise, clipped=0.9, seed=number + 3)[1] for number in range(12)))
    assert text.endswith("the rule has not come near its target in 10 rounds; check the learning rate")


def test_each_schema_has_a_rule():
    noise, other = ServerNoise(None, "binary"), fm.Schema([fm.Tensor("v", (4, 5), masked=True)])
    model = {"v": np.eye(4, 5, dtype=np.float32)}
    noise.of(SCHEMA, MODEL), noise.of(other, model)
    noise.observe(round_of(noise))
    assert noise.of(other, model) == fm.AdaptiveNoise(other, model).noise


def test_a_new_server_continues_from_the_file(tmp_path):
    state = tmp_path / "noise.json"
    first = ServerNoise(None, "binary", state=state)
    first.of(SCHEMA, MODEL)
    assert not state.exists()
    first.observe(round_of(first))
    second = ServerNoise(None, "binary", state=str(state))
    assert second.of(SCHEMA, {"w": np.zeros((20, 30), np.float32)}) == first.of(SCHEMA, MODEL)
    second.observe(round_of(second, seed=3)), first.observe(round_of(first, seed=3))
    assert second.of(SCHEMA, MODEL) == first.of(SCHEMA, MODEL)
    other = fm.Schema([fm.Tensor("v", (4, 5), masked=True)])
    model = {"v": np.eye(4, 5, dtype=np.float32)}
    assert second.of(other, model) == fm.AdaptiveNoise(other, model).noise


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "expected JSON of ServerNoise"),
        (b"[]", "expected JSON of ServerNoise"),
        (b"\xff", "expected JSON of ServerNoise"),
        (json.dumps({SCHEMA.digest.hex(): {"version": 9}}).encode(), "expected one of version 1, got 9"),
    ],
)
def test_a_file_with_something_else_is_refused(tmp_path, content, message):
    state = tmp_path / "noise.json"
    state.write_bytes(content)
    with pytest.raises(fm.ArgumentError, match=message):
        ServerNoise(None, "binary", state=state).of(SCHEMA, MODEL)


def test_a_file_of_other_settings_is_refused(tmp_path):
    state = tmp_path / "noise.json"
    first = ServerNoise(None, "binary", state=state)
    first.observe(round_of(first))
    with pytest.raises(fm.ArgumentError, match=r"expected signed masks .*, bits None, got binary"):
        ServerNoise(None, "signed", state=state).of(SCHEMA, MODEL)
    with pytest.raises(fm.ArgumentError, match=r"expected binary masks .*, bits 0\.5, got .*None"):
        ServerNoise(None, "binary", bits=0.5, state=state).of(SCHEMA, MODEL)


@pytest.mark.parametrize(
    ("noise", "mask", "options", "message"),
    [
        (0.01, "binary", {}, "noise: expected Uniform, Gaussian or Bernoulli"),
        (None, "both", {}, "mask: expected one of binary, signed"),
        (None, "binary", {"bits": 3}, "bits: expected a number above 0 and at most 1, got 3"),
        (fm.Uniform(1.0), "binary", {"bits": 0.5}, r"bits: expected none beside a noise, got 0\.5"),
        (fm.Uniform(1.0), "binary", {"state": "x"}, "state: expected none beside a fixed noise, got x"),
        (fm.AdaptiveNoise(SCHEMA, MODEL), "signed", {}, "mask: expected 'binary', that of the rule"),
    ],
)
def test_bad_settings_are_refused(noise, mask, options, message):
    with pytest.raises(fm.ArgumentError, match=message):
        ServerNoise(noise, mask, **options)


OTHER = fm.Schema([fm.Tensor("w", (20, 30), masked=True), fm.Tensor("b", (2,))])
OTHERS = {**MODEL, "b": np.zeros(2, np.float32)}


def test_a_given_rule_goes_on_from_the_file(tmp_path):
    path = tmp_path / "rule.json"
    first = ServerNoise(fm.AdaptiveNoise(SCHEMA, MODEL, bits=0.5), "binary", state=path)
    for seed in range(3):
        first.observe(round_of(first, seed=seed + 10))
    again = ServerNoise(fm.AdaptiveNoise(SCHEMA, MODEL, bits=0.5), "binary", state=path)
    assert again.of(SCHEMA, MODEL) == first.of(SCHEMA, MODEL)
    again.observe(round_of(again, seed=9))
    (saved,) = json.loads(path.read_text()).values()
    assert saved["rounds"] == 4
    for rule in (
        fm.AdaptiveNoise(SCHEMA, MODEL),
        fm.AdaptiveNoise(SCHEMA, MODEL, bits=0.5, distribution="uniform"),
    ):
        with pytest.raises(fm.ArgumentError, match=r"^state in .*: expected .* noise, bits .*, got binary"):
            ServerNoise(rule, "binary", state=path).of(SCHEMA, MODEL)


def test_a_given_rule_for_another_model_is_refused():
    noise = ServerNoise(fm.AdaptiveNoise(SCHEMA, MODEL), "binary")
    with pytest.raises(fm.SchemaError, match=r"^schema of the rule: expected that of the model"):
        noise.of(OTHER, OTHERS)


def test_rules_of_other_schemas_stay_in_the_file(tmp_path):
    path = tmp_path / "rules.json"
    first = ServerNoise(None, "binary", state=path)
    for seed in range(2):
        first.observe(round_of(first, seed=seed + 10))
        first.observe(round_of(first, OTHER, OTHERS, seed=seed + 10))
    again = ServerNoise(None, "binary", state=path)
    again.observe(round_of(again, seed=5))
    assert sorted(saved["rounds"] for saved in json.loads(path.read_text()).values()) == [2, 3]
    assert again.of(OTHER, OTHERS) == first.of(OTHER, OTHERS)


def test_a_round_goes_on_if_the_rule_cannot_be_saved(tmp_path, caplog):
    noise = ServerNoise(None, "binary", state=tmp_path / "no folder" / "rule.json")
    before = noise.of(SCHEMA, MODEL)
    assert noise.observe(round_of(noise))
    assert noise.of(SCHEMA, MODEL) != before
    assert "the noise rule is not saved in" in caplog.text
