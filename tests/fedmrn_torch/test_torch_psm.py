"""PSM around a training loop: the frame, the module afterwards, and everything a module may be."""

import copy
import io
import re
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

import fedmrn_codec as fm
from fedmrn_torch import PSM, apply_, schema

NOISE = fm.Uniform(0.1)
KINDS = ["binary", "signed"]


def convnet():
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)
    )


def batch(number=0):
    source = torch.Generator().manual_seed(number)
    return torch.rand((6, 1, 4, 4), generator=source), torch.randint(3, (6,), generator=source)


def start(model, **changes):
    return PSM(model, **{"seed": 7, "noise": NOISE, "steps": 4, "private_seed": 3, **changes})


def train(model, psm, optimizer, steps=4, first=0):
    for number in range(first, first + steps):
        x, y = batch(number)
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
        psm.step()


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.1)


def facts(model):
    """The state that must be restored: objects, storages, bytes, modes, classes, names and their order."""
    tensors = [
        (name, t) for name, t in model.state_dict(keep_vars=True).items() if isinstance(t, torch.Tensor)
    ]
    return (
        [(n, id(t), t.data_ptr(), t.requires_grad, t.stride(), t.dtype, t.grad) for n, t in tensors],
        [t.detach().clone().view(-1).view(torch.uint8).tolist() for _, t in tensors],
        [(name, id(p)) for name, p in model.named_parameters()],
        [(name, type(m), m.training, len(m._forward_hooks), len(m._forward_pre_hooks))
         for name, m in model.named_modules()],
    )  # fmt: skip


# --- the frame -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("noise", [NOISE, fm.Gaussian(0.1), fm.Bernoulli(0.1)])
def test_the_frame_equals_that_of_encode(kind, noise):
    model = convnet()
    psm = start(model, mask=kind, noise=noise)
    train(model, psm, sgd(model))
    update = psm.update()
    header = {"round": 3, "base_model": 9, "embed_schema": True}
    want = fm.encode(
        update, psm.schema, seed=7, noise=noise, mask=kind, private_seed=psm.upload_seed, **header
    )
    frame = psm.finish(**header)
    assert frame == want
    info = fm.inspect(frame)
    assert (info.seed, info.round, info.base_model) == (7, 3, 9)
    assert fm.decode(frame).keys() == update.keys()


def test_the_upload_seed_is_derived_and_by_default_random():
    frames = set()
    for private_seed in (3, 3, 4, None, None):
        model = convnet()
        psm = start(model, private_seed=private_seed)
        assert psm.upload_seed not in (7, private_seed)
        train(model, psm, sgd(model))
        frames.add(psm.finish())
    assert len(frames) == 4  # the two of seed 3 are equal


@pytest.mark.parametrize("kind", KINDS)
def test_the_update_holds_u_and_the_differences(kind):
    model = convnet()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    psm = start(model, mask=kind)
    train(model, psm, sgd(model))
    update, now = psm.update(), psm.state_dict()["model"]
    assert list(update) == [t.name for t in psm.schema]
    assert update["0.weight"].tobytes() == now["0.parametrizations.weight.original"].numpy().tobytes()
    assert (
        update["1.running_var"].tobytes()
        == (now["1.running_var"] - before["1.running_var"]).numpy().tobytes()
    )
    assert update["1.num_batches_tracked"] == 4
    assert update["1.num_batches_tracked"].dtype == np.int64
    update["0.weight"][:] = 5  # a copy
    assert float(now["0.parametrizations.weight.original"].max()) < 5
    psm.restore()


@pytest.mark.parametrize("kind", KINDS)
def test_without_stochastic_masking_the_bits_are_those_of_training(kind):
    model = convnet()
    psm = start(model, mask=kind, stochastic=False)
    train(model, psm, sgd(model))
    masked = model[4].parametrizations.weight[0]
    with torch.no_grad():
        weight = model[4].weight  # after the last step every element is masked
    base, update = masked.base.clone(), psm.update()
    decoded = fm.decode(psm.finish(), psm.schema)
    assert torch.equal(weight, base + torch.from_numpy(decoded["4.weight"]))
    noise = fm.noise(NOISE, seed=7, stream=len(psm.schema) - 2, count=48).reshape(3, 16)
    kept = update["4.weight"] / noise >= (0.5 if kind == "binary" else 0)
    assert decoded["4.weight"].tobytes() == np.where(kept, noise, 0 if kind == "binary" else -noise).tobytes()


@pytest.mark.parametrize("flags", [(True, True), (True, False), (False, True), (False, False)])
def test_training_learns_with_each_ablation(flags):
    model = convnet()
    x, y = batch()
    loss = float(F.cross_entropy(model(x), y).detach())
    psm = start(
        model, stochastic=flags[0], progressive=flags[1], steps=40, noise=fm.Uniform(0.5), mask="signed"
    )
    optimizer = sgd(model)
    for _ in range(40):
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
        psm.step()
    apply_(model, fm.decode(psm.finish(), psm.schema))
    assert float(F.cross_entropy(model(x), y).detach()) < loss


def test_noise_and_mask_by_name():
    model = convnet()
    noise = {"0.weight": fm.Uniform(0.02), "4.weight": fm.Gaussian(0.01)}
    psm = start(model, noise=noise, mask={"0.weight": "binary", "4.weight": "signed"})
    train(model, psm, sgd(model))
    entries = [entry for entry in fm.inspect(psm.finish(), psm.schema).tensors if entry.noise is not None]
    assert [entry.noise for entry in entries] == list(noise.values())


@settings(max_examples=25, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    noise=st.sampled_from([fm.Uniform, fm.Gaussian, fm.Bernoulli]),
    scale=st.floats(1e-6, 1e3),
    seed=st.integers(0, 2**64 - 1),
    shape=st.lists(st.integers(0, 5), min_size=0, max_size=3),
    spread=st.floats(0, 3),
)
def test_applying_the_frame_gives_base_plus_noise_times_mask(kind, noise, scale, seed, shape, spread):
    model = nn.Module()
    source = torch.Generator().manual_seed(seed % 2**63)
    model.weight = nn.Parameter(torch.randn(shape, generator=source))
    model.bias = nn.Parameter(torch.randn(3, generator=source))
    its_noise, base = noise(scale), model.weight.detach().clone()
    psm = PSM(model, seed=seed, noise={"weight": its_noise}, mask=kind, masked=["weight"], progressive=False)
    with torch.no_grad():
        model.parametrizations.weight.original.normal_(generator=source).mul_(spread * its_noise.scale)
    frame = psm.finish()
    apply_(model, fm.decode(frame, schema(model, ["weight"])))
    n = fm.noise(its_noise, seed=seed, stream=0, count=base.numel()).reshape(base.shape)
    got = model.weight.detach().numpy()
    kept = base.numpy() + n
    other = base.numpy() + (np.float32(0) if kind == "binary" else -n)
    assert np.all(
        (got.view(np.uint32) == kept.view(np.uint32)) | (got.view(np.uint32) == other.view(np.uint32))
    )


# --- the module afterwards -----------------------------------------------------------------------------


class Tied(nn.Module):
    """Tied embeddings and a frozen layer, trained on the labels of a batch."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(2)
        self.embed, self.mix, self.head = nn.Embedding(16, 8), nn.Linear(8, 8), nn.Linear(8, 16, bias=False)
        self.head.weight = self.embed.weight
        self.mix.weight.requires_grad_(False)

    def forward(self, x):
        index = (x.flatten(1)[:, :4] * 16).long().clamp(0, 15)
        return self.head(torch.tanh(self.mix(self.embed(index)))).mean(1)[:, :3]


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.lstm, self.head = nn.LSTM(4, 5, num_layers=2, batch_first=True), nn.Linear(5, 3)

    def forward(self, x):
        return self.head(self.lstm(x.squeeze(1))[0][:, -1])


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(4)
        self.layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True)

    def forward(self, x):
        return self.layer(x.squeeze(1)).mean(1)[:, :3]


def normed():
    """A module whose weights already have a parametrization."""
    torch.manual_seed(5)
    return nn.Sequential(nn.Flatten(), nn.utils.parametrizations.weight_norm(nn.Linear(16, 3)))


def channels_last():
    return convnet().to(memory_format=torch.channels_last)


ZOO = [convnet, Tied, Recurrent, Attention, normed, channels_last]


@pytest.mark.parametrize("make", ZOO)
@pytest.mark.parametrize("ending", ["finish", "restore", "with", "exception"])
def test_the_module_is_as_it_was(make, ending):
    model = make()
    before = facts(model)
    if ending in ("finish", "restore"):
        psm = start(model)
        train(model, psm, sgd(model))
        getattr(psm, ending)()
    else:
        try:
            with start(model) as psm:
                train(model, psm, sgd(model))
                if ending == "exception":
                    raise KeyError
        except KeyError:
            pass
    assert facts(model) == before
    copy.deepcopy(model)(batch()[0])


@pytest.mark.parametrize("make", ZOO)
def test_every_masked_tensor_learns_and_its_frame_applies(make):
    model = make()
    twin = copy.deepcopy(model)
    psm = start(model)
    train(model, psm, sgd(model))
    update = psm.update()
    for tensor in psm.schema:
        if tensor.masked:
            assert np.any(update[tensor.name]), tensor.name
    arrays = fm.decode(psm.finish(), schema(twin))
    apply_(model, arrays)
    apply_(twin, arrays)
    for (name, mine), other in zip(model.state_dict().items(), twin.state_dict().values(), strict=True):
        assert torch.equal(mine, other), name


def test_frozen_and_tied_parameters():
    model = Tied()
    psm = start(model)
    assert [(t.name, t.masked) for t in psm.schema] == [("embed.weight", True), ("mix.bias", False)]
    frozen = model.mix.weight.detach().clone()
    train(model, psm, sgd(model))
    assert torch.equal(model.mix.weight, frozen)
    assert model.embed.parametrizations.weight.original is model.head.parametrizations.weight.original
    psm.finish()
    assert model.embed.weight is model.head.weight


def test_buffers_that_were_replaced_come_back():
    model = convnet()
    before = facts(model)
    psm = start(model)
    model[1].running_mean = torch.ones(4)
    assert psm.update()["1.running_mean"].tolist() == [1, 1, 1, 1]
    psm.restore()
    assert facts(model) == before


def test_a_model_that_was_moved_stays_where_it_is():
    model = convnet()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    psm = start(model)
    train(model, psm, sgd(model), 2)
    model.double()
    psm.restore()
    for name, tensor in model.state_dict().items():
        assert tensor.dtype == (torch.float64 if before[name].is_floating_point() else before[name].dtype)
        assert torch.equal(tensor, before[name].to(tensor.dtype))


def test_a_buffer_of_another_dtype_comes_back():
    model = convnet()
    before = facts(model)
    psm = start(model)
    model[1].running_mean = torch.ones(4, dtype=torch.bfloat16)
    psm.restore()
    assert facts(model) == before


def test_a_dense_parameter_that_was_replaced_comes_back():
    model = convnet()
    before = facts(model)
    psm = start(model)
    model[1].weight = nn.Parameter(model[1].weight.detach().double())
    psm.restore()
    assert facts(model) == before


def test_a_conversion_that_replaces_parameters():
    model = convnet()
    psm = start(model)
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        model.double()
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(False)
    psm.restore()
    assert not any(is_masked for is_masked in (hasattr(t, "_fedmrn_psm") for t in model.parameters()))
    model.double()(batch()[0].double())


def test_a_copy_made_during_training_outlives_the_original():
    model = convnet()
    psm = start(model)
    optimizer = sgd(model)
    train(model, psm, optimizer, 2)
    twin = copy.deepcopy(model)
    x, _ = batch()
    assert torch.equal(twin(x), model(x))  # the copy has the same private draws
    want = model.eval()(x)
    train(model.train(), psm, optimizer, 2)
    psm.finish()
    twin.eval()
    twin[1].load_state_dict(model[1].state_dict())
    assert torch.isfinite(twin(x)).all()
    assert twin[4].weight.shape == (3, 16)
    assert want.shape == twin(x).shape


def test_a_state_dict_during_training_holds_base_and_update():
    model = nn.Linear(4, 3)
    psm = start(model)
    names = {"bias", "parametrizations.weight.original", "parametrizations.weight.0.base"}
    assert set(psm.state_dict()["model"]) == names
    psm.restore()
    assert list(model.state_dict()) == ["weight", "bias"]


# --- optimisers and loops ------------------------------------------------------------------------------

OPTIMIZERS = [
    sgd,
    lambda model: torch.optim.SGD(
        model.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=1e-3
    ),
    lambda model: torch.optim.Adam(model.parameters(), lr=0.01),
    lambda model: torch.optim.AdamW(model.parameters(), lr=0.01, foreach=True),
]


@pytest.mark.parametrize("make", OPTIMIZERS)
def test_the_optimiser_may_be_made_before_or_after(make):
    frames = []
    for before in (True, False):
        model = convnet()
        optimizer = make(model) if before else None
        psm = start(model)
        optimizer = optimizer or make(model)
        train(model, psm, optimizer)
        assert np.any(psm.update()["4.weight"])
        frames.append(psm.finish())
        parameters = {id(p) for p in model.parameters()}
        assert {id(p) for group in optimizer.param_groups for p in group["params"]} == parameters
        F.cross_entropy(model(batch()[0]), batch()[1]).backward()
        optimizer.step()  # the optimiser still works on the restored module
        assert {id(p) for p in model.parameters()} == parameters
    assert frames[0] == frames[1]


def test_gradients_accumulate():
    grads = []
    for parts in (1, 3):
        model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
        nn.init.ones_(model[1].weight)
        nn.init.zeros_(model[1].bias)
        psm = start(model)  # u is zero and the mask binary, so that every mask gives the same weight
        x, y = batch()
        for i in range(parts):
            chunk = slice(i * 6 // parts, (i + 1) * 6 // parts)
            (F.cross_entropy(model(x[chunk]), y[chunk]) / parts).backward()
        grads.append(model[1].parametrizations.weight.original.grad.clone())
        psm.restore()
    torch.testing.assert_close(grads[0], grads[1])


def test_autocast():
    model = convnet()
    psm = start(model)
    optimizer = sgd(model)
    x, y = batch()
    for _ in range(4):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = model(x)
            loss = F.cross_entropy(out, y)
        assert out.dtype == torch.bfloat16
        loss.backward()
        u = model[4].parametrizations.weight.original
        assert u.grad.dtype == u.dtype == torch.float32
        optimizer.step()
        optimizer.zero_grad()
        psm.step()
    assert np.any(psm.update()["0.weight"])
    fm.decode(psm.finish(), schema(model))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_modules_of_other_floating_dtypes(dtype, kind):
    torch.manual_seed(1)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).to(dtype)
    base, bias = (p.detach().clone() for p in model.parameters())
    psm = start(model, mask=kind)
    assert [(t.masked, t.dtype) for t in psm.schema] == [(True, "float32"), (False, str(dtype)[6:])]
    x, y = batch()
    optimizer = sgd(model)
    for _ in range(4):
        out = model(x.to(dtype))
        assert out.dtype == dtype
        F.cross_entropy(out.float(), y).backward()
        assert model[1].parametrizations.weight.original.grad.dtype == dtype
        optimizer.step()
        optimizer.zero_grad()
        psm.step()
    moved = model[1].bias.detach().clone()
    arrays = fm.decode(psm.finish(), schema(model))
    assert torch.equal(model[1].weight, base)
    apply_(model, arrays)
    assert torch.equal(model[1].weight, (base + torch.from_numpy(arrays["1.weight"])).to(dtype))
    torch.testing.assert_close(model[1].bias, moved)
    assert not torch.equal(model[1].bias, bias)


@pytest.mark.parametrize("make", [convnet, Tied])
def test_a_resumed_training_gives_the_identical_frame(make):
    adam = partial(torch.optim.Adam, lr=0.01)
    model = make()
    psm, optimizer = start(model), adam(model.parameters())
    train(model, psm, optimizer)
    want = psm.finish()

    model = make()
    psm, optimizer = start(model), adam(model.parameters())
    train(model, psm, optimizer, 2)
    file = io.BytesIO()
    torch.save([optimizer.state_dict(), psm.state_dict()], file)
    train(model, psm, optimizer, 2, first=2)
    assert psm.finish() == want  # saving changes nothing

    model = make()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)  # the base comes from the file
    psm = start(model, private_seed=99)
    optimizer = adam(model.parameters())
    file.seek(0)
    for part, state in zip((optimizer, psm), torch.load(file, weights_only=True), strict=True):
        part.load_state_dict(state)
    train(model, psm, optimizer, 2, first=2)
    assert psm.finish() == want
    fresh = make().state_dict()
    assert all(torch.equal(value, fresh[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    "change",
    [{"seed": 8}, {"noise": fm.Uniform(0.02)}, {"mask": "signed"}, {"steps": 5}, {"progressive": False},
     {"stochastic": False}, {"masked": ["0.weight"]}],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_a_state_of_other_settings_is_refused(change):
    psm = start(convnet())
    other = start(convnet(), **change)
    (setting,) = change
    field = "schema" if setting == "masked" else setting
    with pytest.raises(fm.ArgumentError, match=rf"^state_dict: {field}: expected .*, as in this PSM, got "):
        other.load_state_dict(psm.state_dict())


# --- misuse --------------------------------------------------------------------------------------------


def test_a_finished_psm_refuses_every_verb():
    psm = start(convnet())
    psm.finish()
    for verb in (psm.finish, psm.step, psm.update, psm.state_dict, partial(psm.load_state_dict, {})):
        with pytest.raises(RuntimeError, match="expected an active PSM, got one that is finished"):
            verb()
    psm.restore()  # does nothing


def test_a_second_psm_on_one_module_is_refused():
    model = convnet()
    psm = start(model)
    with pytest.raises(RuntimeError, match="expected one without an active PSM"):
        start(model, seed=8)
    psm.restore()
    start(model).restore()


@pytest.mark.parametrize("stochastic", [True, False])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_non_finite_update_is_an_error_and_the_module_restorable(bad, stochastic):
    model = convnet()
    before = facts(model)
    with start(model, stochastic=stochastic) as psm:
        psm.step()
        with torch.no_grad():
            model[4].parametrizations.weight.original[0, 0] = bad
        with pytest.raises(
            fm.UpdateError, match=r"^'4.weight': expected finite values, got a NaN or an infinity"
        ):
            psm.finish()
        assert np.any(~np.isfinite(psm.update()["4.weight"]))  # the update can still be inspected
    assert facts(model) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"masked": []}, "masked: expected at least one trainable floating-point parameter, got none"),
        (
            {"masked": ["typo.weight"]},
            "masked: expected names of trainable floating-point parameters, got ['typo.weight']",
        ),
        ({"mask": "ternary"}, "mask: expected one of binary, signed, got 'ternary'"),
        (
            {"mask": {"0.weight": "binary"}},
            "mask: expected one for each masked tensor, got ['4.weight'] missing or unknown",
        ),
        ({"noise": 0.01}, "noise: expected Uniform, Gaussian or Bernoulli, got 0.01"),
        (
            {"noise": {"0.weight": NOISE}},
            "noise: expected one for each masked tensor, got ['4.weight'] missing or unknown",
        ),
        ({"seed": -1}, "seed: expected 0 to 2^64 - 1, got -1"),
        ({"seed": 2**64}, f"seed: expected 0 to 2^64 - 1, got {2**64}"),
        ({"seed": "seven"}, "seed: expected an integer, got 'seven'"),
        ({"seed": 3}, "private_seed: expected a value other than the public seed, got 3"),
        ({"private_seed": 2**64}, f"private_seed: expected 0 to 2^64 - 1, got {2**64}"),
        ({"private_seed": 0.5}, "private_seed: expected an integer, got 0.5"),
        ({"steps": None}, "steps: expected the number of local steps, 1 or more, got None"),
        ({"steps": 0}, "steps: expected the number of local steps, 1 or more, got 0"),
        ({"steps": 2.5}, "steps: expected the number of local steps, 1 or more, got 2.5"),
    ],
)
def test_a_bad_argument_changes_nothing(change, message):
    model = convnet()
    before = facts(model)
    with pytest.raises(fm.ArgumentError, match=f"^{re.escape(message)}$"):
        start(model, **change)
    assert facts(model) == before


def test_a_failure_half_way_changes_nothing(monkeypatch):
    model = convnet()
    before = facts(model)
    calls = []

    def register(*arguments, **keywords):
        calls.append(arguments)
        if len(calls) == 2:
            raise OSError
        return real(*arguments, **keywords)

    real = torch.nn.utils.parametrize.register_parametrization
    monkeypatch.setattr(torch.nn.utils.parametrize, "register_parametrization", register)
    with pytest.raises(OSError):  # noqa: PT011
        start(model)
    assert facts(model) == before


def test_a_bad_round_leaves_the_psm_usable():
    psm = start(convnet())
    with pytest.raises(fm.ArgumentError, match=r"^round: expected 0 to 2\^32 - 1, got -1"):
        psm.finish(round=-1)
    psm.finish()
