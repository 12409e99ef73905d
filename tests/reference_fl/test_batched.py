"""The batched simulation: its networks are PyTorch's, its masks are unbiased, its clients do not mix."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

import fedmrn_codec as fm
from reference_fl.batched import Observation, run, task
from reference_fl.batched.layout import Layout
from reference_fl.batched.local import Batches, draw_batches, train
from reference_fl.batched.loop import Server, Settings
from reference_fl.batched.lora import LoRA
from reference_fl.batched.masks import Masking, bucket_energies, buckets, entropy, unit_noise
from reference_fl.batched.nets import CNN, MLP, draw
from reference_fl.batched.rules import Adaptive, Fixed, Start, Steered
from reference_fl.batched.sequences import LSTM, Transformer
from reference_fl.batched.table import table

DISTRIBUTIONS = ("uniform", "gaussian", "bernoulli")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def of_clients(net, count=3):
    """Different parameters for each client, with the client dimension."""
    each = [net.init(generator(k)) for k in range(count)]
    return {name: torch.stack([p[name] for p in each]) for name in net.shapes}


def test_a_perceptron_is_pytorchs():
    net = MLP((6, 5, 4))
    p = of_clients(net)
    x = torch.randn(3, 7, 6, generator=generator(9))
    got = net.forward(p, x, {}, True)
    for k in range(3):
        hidden = torch.relu(nn.functional.linear(x[k], p["linear0.weight"][k], p["linear0.bias"][k]))
        want = nn.functional.linear(hidden, p["linear1.weight"][k], p["linear1.bias"][k])
        torch.testing.assert_close(got[k], want)


@pytest.mark.parametrize("training", [True, False])
def test_a_convolutional_network_with_batchnorm_is_pytorchs(training):
    net = CNN((2, 8, 8), 3, (4, 5), norm=True, scheme="he")
    p = of_clients(net)
    buffers = {n: b.expand(3, *b.shape).clone() for n, b in net.buffers().items()}
    x = torch.randn(3, 6, 2, 8, 8, generator=generator(9))
    got = net.forward(p, x, buffers, training)
    for k in range(3):
        norms = [nn.BatchNorm2d(4), nn.BatchNorm2d(5)]
        h = x[k]
        for i, norm in enumerate(norms):
            norm.train(training)
            h = norm(nn.functional.conv2d(h, p[f"conv{i}.weight"][k], padding=1))
            h = torch.relu(nn.functional.max_pool2d(h, 2))
            torch.testing.assert_close(buffers[f"bn{i}.mean"][k], norm.running_mean)
            torch.testing.assert_close(buffers[f"bn{i}.var"][k], norm.running_var)
        torch.testing.assert_close(got[k], h.flatten(1) @ p["linear.weight"][k].T, rtol=1e-4, atol=1e-4)


def test_an_lstm_is_pytorchs():
    net = LSTM(7, 3, 4)
    p = of_clients(net)
    x = torch.randint(7, (3, 2, 5), generator=generator(9))
    got = net.forward(p, x, {}, True)
    lstm = nn.LSTM(3, 4, batch_first=True)
    with torch.no_grad():
        for k in range(3):
            lstm.weight_ih_l0.copy_(p["lstm.weight_ih"][k])
            lstm.weight_hh_l0.copy_(p["lstm.weight_hh"][k])
            lstm.bias_ih_l0.copy_(p["lstm.bias"][k])
            lstm.bias_hh_l0.zero_()
            states, _ = lstm(p["embedding.weight"][k][x[k]])
            want = nn.functional.linear(states, p["linear.weight"][k], p["linear.bias"][k])
            torch.testing.assert_close(got[k], want)


def test_a_transformer_sees_no_later_token_and_no_other_client():
    net = Transformer(7, 6, 8, 2, 2)
    p = of_clients(net)
    x = torch.randint(7, (3, 2, 6), generator=generator(9))
    before = net.forward(p, x, {}, True)
    changed = x.clone()
    changed[1, :, 4] = (x[1, :, 4] + 1) % 7
    after = net.forward(p, changed, {}, True)
    torch.testing.assert_close(after[0], before[0])
    torch.testing.assert_close(after[1][:, :4], before[1][:, :4])
    assert not torch.allclose(after[1][:, 4:], before[1][:, 4:])


def test_lora_begins_as_its_frozen_network():
    net = MLP((6, 5, 4))
    frozen = net.init(generator())
    lora = LoRA(net, frozen, 2, ["linear0.weight"])
    x = torch.randn(3, 7, 6, generator=generator(9))
    plain = net.forward({n: w.expand(3, *w.shape) for n, w in frozen.items()}, x, {}, True)
    torch.testing.assert_close(lora.forward(of_clients(lora), x, {}, True), plain)
    assert set(lora.shapes) == {"linear0.weight.A", "linear0.weight.B"}


@pytest.mark.parametrize("norm", [False, True])
def test_clients_train_as_if_each_were_alone(norm):
    net = MLP((4, 3, 2), norm=norm)
    layout = Layout(net.shapes)
    base = layout.flatten(net.init(generator()))
    data = torch.randn(40, 4, generator=generator(1)), torch.randint(2, (40,), generator=generator(2))
    batches = draw_batches([torch.arange(24), torch.arange(24, 40)], 8, 2, generator(3))
    assert batches.steps.tolist() == [6, 4]
    buffers = {name: torch.stack([each, each]) for name, each in net.buffers().items()}
    together, dense = train(net, layout, base, buffers, data, batches, 0.5, None)
    for k, steps in enumerate(batches.steps):
        alone = Batches(batches.places[:steps, k : k + 1], batches.steps[k : k + 1], torch.ones(1))
        its = {name: each.unsqueeze(0).clone() for name, each in net.buffers().items()}
        masked, other = train(net, layout, base, its, data, alone, 0.5, None)
        for name, buffer in its.items():
            torch.testing.assert_close(buffers[name][k], buffer[0])
        torch.testing.assert_close(together[k], masked[0])
        torch.testing.assert_close(dense[k], other[0])


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize(("kind", "low"), [("binary", 0.0), ("signed", -1.0)])
def test_masks_are_unbiased_for_the_clipped_update(distribution, kind, low):
    noise = unit_noise(distribution, (1, 30), generator()).expand(10_000, -1)
    update = torch.linspace(-1.5, 1.5, 30).expand(10_000, -1)
    want = noise[0] * (update[0] / noise[0]).clamp(low, 1)
    masking = Masking(noise, kind, generator(1))
    values = masking.bits(update) * (1 - low) + low
    torch.testing.assert_close((noise * values).mean(0), want, atol=0.05, rtol=0)
    for tau in (0.3, 1.0):
        got = masking.effective(update, torch.full((10_000, 1), tau))
        torch.testing.assert_close(got.mean(0), want, atol=0.05, rtol=0)


def test_the_share_of_masked_elements_is_tau():
    noise = torch.ones(1, 10_000)
    got = Masking(noise, "binary", generator()).effective(torch.full((1, 10_000), 0.5), torch.tensor([[0.3]]))
    assert (got == 0.5).float().mean() == pytest.approx(0.7, abs=0.02)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_buckets_are_equally_likely_and_hold_the_energy(distribution):
    z = unit_noise(distribution, (200_000,), generator())
    where = buckets(distribution, z)
    if distribution == "bernoulli":
        assert (where == 15).all()
    else:
        assert torch.bincount(where, minlength=16).double() / len(z) == pytest.approx(1 / 16, abs=0.002)
    measured = z.double().square().mean()
    assert bucket_energies(distribution)[where].mean() == pytest.approx(float(measured), rel=0.01)


def test_entropy_is_that_of_each_bucket():
    got = entropy(torch.tensor([50.0, 0.0]), torch.tensor([100.0, 100.0]))
    assert float(got) == pytest.approx(100)


def observation(update, scale, kind, distribution, frames=10, seed=0):
    """What a server sees of frames that all carry the same update, of one tensor."""
    z = unit_noise(distribution, (frames, len(update)), generator(seed))
    noise = z * scale
    bits = Masking(noise, kind, generator(seed + 1)).bits(update.expand(frames, -1))
    masked = noise * (bits if kind == "binary" else 2.0 * bits - 1)
    where = buckets(distribution, z).flatten()
    return Observation(
        kind,
        distribution,
        frames,
        1 / frames,
        np.array([scale]),
        torch.bincount(where, minlength=16).double().numpy()[None],
        torch.bincount(where, bits.flatten().double(), minlength=16).numpy()[None],
        masked.square().mean(0).double().sum().numpy()[None],
        masked.mean(0).double().square().sum().numpy()[None],
    )


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize(("kind", "shrink"), [("binary", 0.5), ("signed", 1.0)])
def test_the_energy_of_the_mean_shows_the_signal(distribution, kind, shrink):
    update = 0.01 * torch.randn(200_000, generator=generator(5))
    scale = {"uniform": 0.5, "gaussian": 0.5, "bernoulli": 0.1}[distribution]
    seen = observation(update, scale, kind, distribution)
    want = float((shrink * update).square().sum())
    assert seen.signal_energy[0] == pytest.approx(want, rel=0.5 if kind == "signed" else 0.1)


def test_bits_show_the_share_of_clipped_updates():
    update = 0.01 * torch.randn(200_000, generator=generator(5))
    for scale in (0.005, 0.01, 0.02):
        seen = observation(update, scale, "binary", "uniform")
        smaller = math.erf(scale * 0.86 / 0.01 / math.sqrt(2))  # at the middle of the slope
        assert seen.unclipped[0] == pytest.approx(smaller, abs=0.06)


def start(*spreads):
    return Start([(8, 4)] * len(spreads), np.array(spreads))


def test_a_tensor_of_zeros_has_a_reference():
    assert start(0.0).reference[0] == pytest.approx(1 / math.sqrt(12))
    assert start(0.02, 0.0, 0.03).reference[1] == pytest.approx(0.025)


def test_steps_and_scales_are_bounded():
    rule = Steered(start(0.1), density=0.1, high=2.0, low=0.5)
    full = observation(torch.full((1000,), 1.0), 0.1, "binary", "bernoulli")
    for _ in range(9):
        rule.observe(full)
    assert rule.scales[0] == pytest.approx(0.2)
    nothing = observation(torch.zeros(1000), 0.1, "binary", "bernoulli")
    before = rule.scales[0]
    rule.observe(nothing)
    assert rule.scales[0] == pytest.approx(before / 2)


def test_a_fixed_rule_is_one_scale_or_a_multiple_of_the_spread():
    assert Fixed(start(0.1, 0.2), fixed=0.01).scales.tolist() == [0.01, 0.01]
    assert Fixed(start(0.1, 0.2), std=3).scales == pytest.approx([0.3, 0.6])


SHIPPED = {
    "binary": {"adaptive": 0.05, "common": 1, "clients": 1},
    "signed": {"adaptive": 0.01, "budget": 0.1, "std": 0.2},
}
"""The options of the rule that is `fedmrn_codec.AdaptiveNoise`."""


@pytest.mark.parametrize("clients", [1, 2, 5, 10, 50])
@pytest.mark.parametrize("agree", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("kind", ["binary", "signed"])
def test_the_rule_is_the_codecs(kind, agree, clients):
    """Tensors so small that a share in common cannot be told from none, and larger ones."""
    rng = np.random.default_rng(clients)
    model = {f"w{n}": rng.normal(0, 0.1, (n, 8)).astype(np.float32) for n in (40, 4000)}
    schema = fm.schema_of(model)
    rule = fm.AdaptiveNoise(schema, model, mask=kind)
    spread = np.array([float(np.std(array.astype(np.float64))) for array in model.values()])
    simulated = Adaptive(Start([array.shape for array in model.values()], spread), **SHIPPED[kind])
    for number in range(6):
        assert [each.scale for each in rule.noise.values()] == pytest.approx(simulated.scales, rel=1e-6)
        aggregator = fm.Aggregator(schema, noise=rule.noise)
        same = {name: rng.normal(0, 0.01, array.shape) for name, array in model.items()}
        for client in range(clients):
            update = {
                name: (agree * array + (1 - agree) * rng.normal(0, 0.01, array.shape)).astype(np.float32)
                for name, array in same.items()
            }
            seed = 1000 * number + client + 1
            aggregator.add(fm.encode(update, schema, seed=seed, noise=rule.noise, mask=kind), 1)
        seen = list(aggregator.statistics().values())
        first = np.eye(16)[0]  # all counts in one bucket of the noise's size
        simulated.observe(
            Observation(
                kind,
                "bernoulli",
                clients,
                seen[0].square_weights,
                np.array([each.noise.scale for each in seen]),
                np.outer([clients * each.elements for each in seen], first),
                np.outer([each.set_bits for each in seen], first),
                np.array([each.frame_energy for each in seen]),
                np.array([each.mean_energy for each in seen]),
            )
        )
        rule.observe(aggregator)


def test_lost_frames_are_the_same_for_all_methods():
    runs = [
        Server(task("digits-bn-iid"), Settings.parse(method), 0)
        for method in ("fedavg:drop=0.5", "binary-bernoulli:adaptive=0.05,drop=0.5")
    ]
    for _ in range(4):
        drawn = [run._draw()[0] for run in runs]
        assert drawn[0] == drawn[1]
        torch.rand(99, generator=runs[1].generator)  # of the noise


def test_a_run_repeats_and_learns():
    records = [list(run(task("digits-bn-iid"), "binary-bernoulli:std=1", 0, 6)) for _ in range(2)]
    assert [r["accuracy"] for r in records[0]] == [r["accuracy"] for r in records[1]]
    assert records[0][-1]["accuracy"] > 0.8
    assert 0 < records[0][-1]["bits"] < 1


def test_unknown_methods_and_tasks_are_refused():
    with pytest.raises(ValueError, match="expected one of"):
        Settings.parse("ternary-uniform")
    with pytest.raises(ValueError, match="expected one of"):
        task("nothing")


def test_he_and_torch_draws_have_their_spread():
    assert float(draw((400, 100), "he", generator()).std()) == pytest.approx(math.sqrt(0.02), rel=0.02)
    assert float(draw((400, 100), "torch", generator()).std()) == pytest.approx(0.1 / math.sqrt(3), rel=0.02)


def test_a_table_pairs_the_seeds():
    runs = [
        {"task": "t", "method": "fedavg", "seed": seed, "rounds": 9, "last": last}
        for seed, last in ((0, 0.5), (1, 0.7))
    ]
    runs.append({"task": "t", "method": "other", "seed": 1, "rounds": 9, "last": 0.65, "bits": 0.25})
    assert table(runs).splitlines()[2:] == [
        "| t | fedavg | 2 | 60.00 |  |  |  |",
        "| t | other | 1 | 65.00 | -5.00 |  | 0.25 |",
    ]
