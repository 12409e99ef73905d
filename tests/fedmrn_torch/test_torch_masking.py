"""The training masks: their statistics, their gradient, and when a new one is drawn."""

from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import fedmrn_codec as fm
from fedmrn_torch import PSM, fused
from fedmrn_torch.draws import draw
from fedmrn_torch.masking import LOW, clipped_share, mask_

NOISE = fm.Uniform(0.01)
KINDS = sorted(LOW)


def generator(seed=1):
    return torch.Generator().manual_seed(seed)


def sample(share, low, tau, stochastic, number=1):
    share = share.clone()
    mask_(share, draw(share.numel(), share.device, 5, number), low, tau, stochastic)
    return share


def start(model, **settings):
    return PSM(model, **{"seed": 7, "noise": NOISE, "steps": 4, "private_seed": 3, **settings})


def parametrization(module, name="weight"):
    return module.parametrizations[name][0]


def update_of(module, name="weight"):
    return module.parametrizations[name].original


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tau", [1 / 94, 0.3, 1.0])
@pytest.mark.parametrize("share", [-1.3, -1.0, -0.4, 0.0, 0.001, 0.5, 0.77, 1.0, 1.6])
def test_a_sample_has_the_probabilities_and_the_mean_of_psm(kind, tau, share):
    low, count = LOW[kind], 2**18
    clipped = min(max(share, low), 1.0)
    given = torch.tensor(clipped)
    got = sample(given.repeat(count), low, tau, True)

    p = (clipped - low) / (1 - low)
    for value, chance in ((1.0, tau * p), (low, tau * (1 - p))):
        if clipped != value:  # else an element that is not masked looks the same
            sigma = (count * chance * (1 - chance)) ** 0.5
            assert abs(int((got == value).sum()) - count * chance) <= 5 * sigma + count * 2**-17 + 1e-9
    assert set(got.tolist()) <= {low, 1.0, float(given)}
    sigma = (1 - low) * (tau * p * (1 - p) / count) ** 0.5
    assert abs(float(got.double().mean()) - clipped) <= 5 * sigma + (1 - low) * 2**-17 + 1e-6


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("stochastic", [True, False])
@pytest.mark.parametrize("tau", [1 / 94, 0.3, 1.0])
@pytest.mark.parametrize("kind", KINDS)
def test_the_fused_kernel_gives_the_same_bits(kind, tau, stochastic, layout):
    pytest.importorskip("numba")
    low, source = LOW[kind], generator()
    base, u, n = (torch.randn((16, 3, 7, 5), generator=source).to(memory_format=layout) for _ in range(3))
    u[0, 0, 0, :3] = torch.tensor([float("nan"), float("inf"), -float("inf")])
    assert fused.usable(base, n, u)
    share = clipped_share(u, n, low)
    mask_(share, draw(u.numel(), u.device, 5, 1), low, tau, stochastic)
    got = fused.weight(base, n, u, (5, 1), low, tau, stochastic)
    assert got.stride() == base.stride()
    assert got.numpy().tobytes() == (share * n + base).numpy().tobytes()
    assert got.isnan().sum() == 1


def test_the_fused_kernel_needs_dense_floats_of_one_layout():
    x, half = torch.ones(4, 6, 2, 2), torch.ones(4, 6, 2, 2, dtype=torch.bfloat16)
    assert not fused.usable(half, x, x)
    assert not fused.usable(x, x, x.to(memory_format=torch.channels_last))
    assert not fused.usable(x[:, ::2], x[:, ::2], x[:, ::2])


def test_training_is_the_same_with_and_without_numba(monkeypatch):
    def trained():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Flatten(), nn.Linear(48, 2))
        with start(model, noise=fm.Uniform(1.0)) as psm:
            for _ in range(4):
                model(torch.ones(2, 1, 6, 6)).square().sum().backward()
                with torch.no_grad():
                    for parameter in model.parameters():
                        parameter -= 0.01 * parameter.grad
                psm.step()
            return psm.finish()

    want = trained()
    monkeypatch.setattr(fused, "usable", lambda *tensors: False)
    assert trained() == want


def test_draws_are_the_codecs_words():
    words = fm.philox_words(seed=5, stream=9, count=4)
    halves = [int(half) - 2**16 * (half >= 2**15) for w in words for half in (w & 0xFFFF, w >> 16)]
    assert draw(7, torch.device("cpu"), 5, 9).tolist() == halves[:7]


@pytest.mark.parametrize("kind", KINDS)
def test_elements_and_steps_are_independent(kind):
    low = LOW[kind]
    share = torch.full((2, 2**16), 0.3)
    a, b = (sample(share, low, 0.7, True, number) for number in (1, 2))
    for x, y in ((a, b), (a[0], a[1]), (a[0, :-1], a[0, 1:]), (a[0, :-2], a[0, 2:]), (a[0, :-4], a[0, 4:])):
        correlation = float(torch.corrcoef(torch.stack([x.flatten(), y.flatten()]))[0, 1])
        assert abs(correlation) < 5 * x.numel() ** -0.5


@pytest.mark.parametrize(("kind", "ones"), [("binary", [0, 0, 0, 1, 1, 1]), ("signed", [0, 0, 1, 1, 1, 1])])
def test_a_deterministic_mask_takes_the_nearer_value(kind, ones):
    low = LOW[kind]
    noise = torch.tensor([0.5, -0.5, 0.25, -0.25, 2.0, 1.0])
    share = clipped_share(torch.tensor([-2.0, 0.1, 0.0, -0.2, 1.0, 9.0]), noise, low)
    assert share.tolist() == pytest.approx([low, -0.2 if low else 0.0, 0.0, 0.8, 0.5, 1.0])
    got = sample(share, low, 1.0, False)
    assert got.tolist() == [1.0 if one else low for one in ones]


def test_a_nan_in_the_update_reaches_the_weight():
    share = clipped_share(torch.tensor([float("nan"), 0.5]), torch.ones(2), 0.0)
    assert share.isnan().tolist() == [True, False]
    assert sample(share, 0.0, 0.5, True).isnan().tolist() == [True, False]


@pytest.mark.parametrize("kind", KINDS)
def test_the_weight_is_base_plus_masked_noise(kind):
    model = nn.Linear(40, 30)
    base = model.weight.detach().clone()
    psm = start(model, mask=kind, progressive=False)
    noise = torch.from_numpy(fm.noise(NOISE, seed=7, stream=0, count=1200)).view(30, 40)
    with torch.no_grad():
        update_of(model).copy_(noise * 0.4)
    weight = model.weight
    kept, dropped = weight == base + noise, weight == base + noise * LOW[kind]
    assert bool((kept | dropped).all())
    assert 0.25 < float(kept.float().mean()) < (0.55 if kind == "binary" else 0.85)
    psm.restore()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("noise", [fm.Uniform(0.01), fm.Gaussian(0.01), fm.Bernoulli(0.01)])
def test_noise_is_the_codecs_to_the_byte(kind, noise):
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 5, bias=False))
    psm = start(model, mask=kind, noise=noise, seed=2**64 - 1)
    names = [t.name for t in psm.schema]
    for name, module in (("0.weight", model[0]), ("3.weight", model[3])):
        got = parametrization(module).noise
        want = fm.noise(noise, seed=2**64 - 1, stream=names.index(name), count=got.numel())
        assert got.numpy().tobytes() == want.tobytes()
    psm.restore()


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_is_the_plain_one_at_the_effective_weight(kind):
    torch.manual_seed(1)
    model, x = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 2)), torch.randn(7, 6)
    psm = start(model, mask=kind)
    with torch.no_grad():
        for layer in (model[0], model[2]):  # three times the clip range
            update_of(layer).copy_(0.03 * torch.randn(update_of(layer).shape))
    seen = {}
    for layer in (model[0], model[2]):
        parametrization(layer).register_forward_hook(
            lambda module, _, out: seen.update({module: out.detach()})
        )
    model(x).square().sum().backward()

    plain = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 2))
    with torch.no_grad():
        for i in (0, 2):
            plain[i].weight.copy_(seen[parametrization(model[i])])
            plain[i].bias.copy_(model[i].bias)
    plain(x).square().sum().backward()
    for i in (0, 2):
        assert torch.equal(update_of(model[i]).grad, plain[i].weight.grad)
        assert torch.equal(model[i].bias.grad, plain[i].bias.grad)
    assert (
        float(update_of(model[0]).detach().abs().max()) > NOISE.scale
    )  # clipped where used, but not clamped
    psm.restore()


def test_at_the_start_the_gradient_is_that_of_the_plain_model():
    torch.manual_seed(1)
    model, x = nn.Linear(6, 5), torch.randn(7, 6)
    model(x).square().sum().backward()
    want = model.weight.grad.clone()
    psm = start(model)  # binary masks of a zero update keep nothing
    model(x).square().sum().backward()
    assert torch.equal(update_of(model).grad, want)
    psm.restore()


def test_eval_mode_is_the_clipped_update_and_draws_nothing():
    model = nn.Linear(4, 3)
    base = model.weight.detach().clone()
    psm = start(model)
    noise = parametrization(model).noise
    with torch.no_grad():
        update_of(model).copy_(noise * torch.linspace(-1, 2, 12).view(3, 4))
    state = psm.state_dict()
    model.eval()
    want = torch.addcmul(base, noise, clipped_share(update_of(model).detach(), noise, 0.0))
    assert torch.equal(model.weight, want)
    assert torch.equal(model.weight, model.weight)
    assert psm.state_dict()["drawn"] == state["drawn"] == 0
    psm.restore()


def test_training_without_both_features_is_plain():
    torch.manual_seed(1)
    model, x = nn.Linear(4, 3), torch.randn(5, 4)
    base = model.weight.detach().clone()
    psm = start(model, stochastic=False, progressive=False, steps=None)
    with torch.no_grad():
        update_of(model).fill_(0.5)
    assert torch.equal(model.weight, base + 0.5)
    assert torch.equal(model.eval().weight, base + 0.5)
    assert torch.isfinite(model(x)).all()
    psm.restore()


def test_tau_progresses_and_stops_at_one():
    model = nn.Linear(100, 100)
    psm = start(model, steps=2)
    base, noise = parametrization(model).base, parametrization(model).noise
    with torch.no_grad():
        update_of(model).copy_(noise * 0.25)
    shares = []
    for step in range(4):
        weight = model.weight.detach()
        shares.append([float((weight == value).float().mean()) for value in (base + noise, base)])
        with pytest.warns(RuntimeWarning, match="more than 2 times") if step == 2 else nullcontext():
            psm.step()
    # Of the masked elements a quarter keeps the noise; rounding blurs the few with the smallest noise.
    assert shares[0] == pytest.approx([0.125, 0.375], abs=0.03)
    assert shares[1:] == [pytest.approx([0.25, 0.75], abs=0.03)] * 3
    psm.restore()


class Twice(nn.Module):
    """One layer used twice, and its weight tied to another's."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(20, 20, bias=False), nn.Linear(20, 20, bias=False)
        self.second.weight = self.first.weight
        self.seen = []

    def forward(self, x):
        self.seen = [self.first.weight, self.second.weight]
        return self.second(self.first(self.first(x)))


def test_one_forward_pass_uses_one_mask_and_the_next_another():
    model = Twice()
    psm = start(model, progressive=False)
    u = update_of(model.first)
    assert u is update_of(model.second)
    with torch.no_grad():
        u.copy_(parametrization(model.first).noise * 0.5)
    x = torch.randn(3, 20)
    model(x).sum().backward()
    before, gradient = model.seen, u.grad.clone()
    assert torch.equal(*before)
    model(x)
    assert not torch.equal(before[0], model.seen[0])
    assert not torch.equal(model.first.weight, model.first.weight)  # read outside of a forward pass

    w = before[0].detach().requires_grad_()
    (x @ w.T @ w.T @ w.T).sum().backward()
    torch.testing.assert_close(gradient, w.grad, rtol=1e-4, atol=1e-5)
    psm.restore()


def test_a_forward_pass_that_fails_does_not_keep_its_masks():
    model = nn.Linear(20, 20)
    psm = start(model, progressive=False)
    with torch.no_grad():
        update_of(model).copy_(parametrization(model).noise * 0.5)
    with pytest.raises(RuntimeError, match="mat1 and mat2 shapes cannot be multiplied"):
        model(torch.randn(3, 19))
    assert not torch.equal(model.weight, model.weight)
    psm.restore()


@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpointing_recomputes_with_the_same_mask(reentrant):
    class Checkpointed(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.outer, self.seen = nn.Linear(6, 8), nn.Linear(8, 1), []

        def part(self, x):
            self.seen.append(self.inner.weight.detach().clone())
            return torch.tanh(self.inner(x))

        def forward(self, x):
            return self.outer(checkpoint(self.part, x, use_reentrant=reentrant))

    model = Checkpointed()
    psm = start(model, progressive=False)
    with torch.no_grad():
        update_of(model.inner).copy_(parametrization(model.inner).noise * 0.5)
    model(torch.randn(3, 6, requires_grad=True)).sum().backward()
    first, again = model.seen
    assert torch.equal(first, again)
    assert update_of(model.inner).grad is not None
    psm.restore()


def test_moving_the_module_to_another_dtype_does_not_round_the_noise():
    model = nn.Linear(4, 3)
    psm = start(model)
    noise = parametrization(model).noise.clone()
    model.to(torch.bfloat16)
    assert torch.equal(parametrization(model).noise, noise)
    assert model(torch.ones(1, 4, dtype=torch.bfloat16)).dtype == torch.bfloat16
    psm.restore()
    assert model.weight.dtype == torch.bfloat16


def test_the_global_random_state_is_left_alone():
    torch.manual_seed(5)
    state = torch.get_rng_state()
    model = nn.Linear(4, 3)
    torch.set_rng_state(state)
    psm = start(model)
    model(torch.ones(2, 4)).sum().backward()
    psm.step()
    psm.finish()
    assert torch.equal(torch.get_rng_state(), state)


def test_the_compiled_kernels_can_be_kept_on_the_disk():
    """Numba finds the code of a kernel by the values of its closure, which are others in each process."""
    pytest.importorskip("numba")
    from fedmrn_torch import numba_fused

    for kernel in (numba_fused.kernel, numba_fused.tile):
        assert getattr(kernel, "py_func", kernel).__closure__ is None


class Checkpointed(nn.Module):
    """Two layers, of which the first is computed again in the backward pass."""

    def __init__(self, wanted=True, reentrant=False):
        super().__init__()
        torch.manual_seed(0)
        self.inner, self.outer = nn.Linear(6, 8), nn.Linear(8, 1)
        self.wanted, self.reentrant = wanted, reentrant

    def part(self, x):
        return torch.tanh(self.inner(x))

    def forward(self, x):
        again = self.wanted and torch.is_grad_enabled()
        hidden = checkpoint(self.part, x, use_reentrant=self.reentrant) if again else self.part(x)
        return self.outer(hidden)


def checkpointed(wanted, reentrant=False):
    model = Checkpointed(wanted, reentrant)
    psm = start(model, progressive=False)
    with torch.no_grad():
        update_of(model.inner).copy_(parametrization(model.inner).noise * 0.5)
    return model, psm


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_pass_without_gradients_between_forward_and_backward_keeps_the_masks(reentrant):
    x, gradients = torch.randn(3, 6, generator=generator()).requires_grad_(), []
    for wanted in (False, True):
        model, psm = checkpointed(wanted, reentrant)
        out = model(x).sum()
        with torch.no_grad():
            model.eval()(x), model.train()(x)
        out.backward()
        gradients.append(update_of(model.inner).grad.clone())
        psm.restore()
    assert torch.equal(*gradients)


def test_gradients_of_several_passes_add_up_if_each_is_followed_by_its_backward():
    x, gradients = torch.randn(2, 3, 6, generator=generator()).requires_grad_(), []
    for wanted in (False, True):
        model, psm = checkpointed(wanted)
        for each in x:
            model(each).sum().backward()
        gradients.append(update_of(model.inner).grad.clone())
        psm.restore()
    assert torch.equal(*gradients)


def test_two_passes_before_a_backward_are_refused_with_checkpointing_alone():
    x = torch.randn(2, 3, 6, generator=generator()).requires_grad_()
    model, psm = checkpointed(False)
    (model(x[0]).sum() + model(x[1]).sum()).backward()
    psm.restore()
    model, psm = checkpointed(True)
    loss = model(x[0]).sum() + model(x[1]).sum()
    with pytest.raises(RuntimeError, match="activation checkpointing under a PSM: expected one forward pass"):
        loss.backward()
    psm.step()
    model(x[0]).sum().backward()
    psm.restore()


def test_a_module_that_calls_itself_has_one_mask_in_a_pass():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.seen = nn.Linear(4, 4), []

        def forward(self, x, again=True):
            self.seen.append(self.linear.weight.detach().clone())
            out = self.linear(self(x, again=False) if again else x)
            self.seen.append(self.linear.weight.detach().clone())
            return out

    model = Twice()
    psm = start(model, progressive=False)
    with torch.no_grad():
        update_of(model.linear).copy_(parametrization(model.linear).noise * 0.5)
    model(torch.randn(2, 4))
    assert len(model.seen) == 4
    assert all(torch.equal(model.seen[0], each) for each in model.seen[1:])
    psm.restore()
