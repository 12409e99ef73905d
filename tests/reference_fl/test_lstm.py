"""The LSTM; and masks on each of its weights, of which `nn.LSTM` keeps a separate list."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import fedmrn_codec as fm
import fedmrn_torch
from reference_fl import console, data, loop, methods, models
from reference_fl.lstm import CharLSTM
from reference_fl.settings import defaults, split

TOKENS = 7


def small():
    model = CharLSTM(TOKENS, 4, 6, 2)
    model.initialise(np.random.default_rng(0))
    return model


def batch():
    draws = torch.randint(0, TOKENS, (5, 10), generator=torch.Generator().manual_seed(1))
    return draws[:, :-1], draws[:, -1]


def test_the_architecture():
    model = models.build("lstm", (80,), 90, seed=0)
    sizes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    assert sizes == {
        "embedding.weight": (90, 8),
        "lstm.weight_ih_l0": (1024, 8),
        "lstm.weight_hh_l0": (1024, 256),
        "lstm.bias_ih_l0": (1024,),
        "lstm.bias_hh_l0": (1024,),
        "lstm.weight_ih_l1": (1024, 256),
        "lstm.weight_hh_l1": (1024, 256),
        "lstm.bias_ih_l1": (1024,),
        "lstm.bias_hh_l1": (1024,),
        "linear.weight": (90, 256),
        "linear.bias": (90,),
    }
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    assert 0.8 < float(model.embedding.weight.detach().std()) < 1.2
    for name, parameter in model.named_parameters():
        assert name == "embedding.weight" or 0 < float(parameter.detach().abs().max()) <= 1 / 16
    again, other = (models.build("lstm", (80,), 90, seed=seed) for seed in (0, 1))
    assert torch.equal(again.linear.weight, model.linear.weight)
    assert not torch.equal(other.linear.weight, model.linear.weight)


def train(model, steps=4, after=lambda: None):
    x, y = batch()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        after()


def test_under_psm_without_masks_it_trains_as_without_psm():
    plain, masked = small(), small()
    start = {name: parameter.detach().clone() for name, parameter in plain.named_parameters()}
    train(plain)
    noise = fm.Uniform(10.0)  # wide enough that no value is clipped
    with fedmrn_torch.PSM(
        masked, seed=1, noise=noise, private_seed=2, steps=4, stochastic=False, progressive=False
    ) as psm:
        assert [t.name for t in psm.schema if t.masked] == [n for n, p in start.items() if p.ndim == 2]
        train(masked, after=psm.step)
        update = psm.update()
    for name, parameter in plain.named_parameters():
        trained = parameter.detach() - start[name]
        assert float(trained.abs().max()) > 1e-4
        np.testing.assert_allclose(update[name], trained.numpy(), rtol=0, atol=1e-6)


def test_each_forward_pass_has_masks_of_its_own_in_every_weight():
    model, (x, _) = small(), batch()
    for changed in ("embedding.weight", "lstm.weight_ih_l0", "lstm.weight_hh_l0", "lstm.weight_hh_l1"):
        with fedmrn_torch.PSM(
            model, seed=1, noise=fm.Uniform(0.5), mask="signed", private_seed=2, steps=1, masked=[changed]
        ):
            first, second = model(x), model(x)
        assert not torch.equal(first, second), changed


@pytest.mark.parametrize(("method", "mask"), [("fedavg", None), ("fedmrn", "binary")])
def test_a_federation_of_roles_learns_its_letters(method, mask, tmp_path):
    lines = {"A": "abcd", "B": "abce", "C": "abcf", "D": "abcg"}
    (tmp_path / "shakespeare.txt").write_text(
        "\n\n".join(f"{role}:\n{word * 100}" for role, word in lines.items())
    )
    letters = data.load("shakespeare", tmp_path)
    given = {"model": "lstm-small", "clients": 4, "clients_per_round": 4, "rounds": 3, "threads": 1}
    given |= {"epochs": 3, "learning_rate": 1.0, "noise": "uniform:0.1" if mask else None}
    given |= {"options": {"coding": "raw"} if mask else {}}
    settings = defaults("shakespeare", method, mask, **given, partition="natural")
    rounds = list(loop.run(settings, letters, tmp_path / "run", verify=True))
    assert rounds[-1]["accuracy"] > 0.5 > 1 / letters.classes
    schema = methods.build(settings).schema(models.build("lstm-small", (80,), letters.classes, 0))
    bits = [t.size for t in schema if t.masked]
    assert rounds[0]["uplink_mask_bytes"] == 4 * sum((size + 7) // 8 for size in bits)
    assert (sum(bits) > 18_000) == (mask is not None)


def test_natural_clients_need_a_data_set_that_has_them():
    with pytest.raises(
        ValueError, match="partition natural: expected a data set with natural clients, got digits"
    ):
        split(defaults("digits", "fedavg", None, partition="natural"), data.load("digits"))


def test_the_shell_prints_what_the_clients_are(tmp_path, capsys):
    (tmp_path / "text.txt").write_text("No play, just words that anybody may say. " * 600)
    given = {"model": "lstm-small", "clients": 2, "clients_per_round": 1, "rounds": 1, "threads": 1}
    settings = defaults("shakespeare", "fedavg", None, **given, partition="natural", batch_size=500)
    root = tmp_path / "text.txt"
    console.run([settings], tmp_path / "run", root, several=False, verify=False, as_json=True)
    assert "shakespeare: 2 clients share 3 chunks of 10,000 characters" in capsys.readouterr().err
