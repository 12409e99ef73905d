"""PSM with damped masks: the same clip in the forward pass and in the frame."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import nn

import fedmrn_codec as fm
from fedmrn_torch import PSM, fused, schema
from fedmrn_torch.draws import draw
from fedmrn_torch.masking import clipped_share, mask_

NOISE = fm.Bernoulli(0.01)


def start(model, **settings):
    defaults = {"seed": 7, "noise": NOISE, "mask": "signed", "steps": 4, "private_seed": 3, "damping": 0.25}
    return PSM(model, **{**defaults, **settings})


def with_update(model, psm, value):
    """Set every element of the masked weight's update."""
    with torch.no_grad():
        model.parametrizations["weight"].original.fill_(value)
    return psm


@pytest.mark.parametrize("value", [0.02, -0.02, 0.001])
def test_training_and_frame_have_the_damped_probabilities(value):
    model = nn.Linear(400, 400, bias=False)
    base = model.weight.detach().clone()
    psm = with_update(model, start(model, progressive=False), value)
    share = float(np.clip(value / 0.01, -0.25, 0.25))
    sigma = 400 * 0.5
    clipped = pytest.warns(RuntimeWarning, match="larger than the scale of the noise")
    trained = int((model.weight > base).sum())
    assert abs(trained - 160_000 * (1 + share) / 2) < 5 * sigma
    for _ in range(4):
        psm.step()
    with clipped if abs(value) > 0.0025 else nullcontext():
        frame = psm.finish()
    sent = int((fm.decode(frame, psm.schema)["weight"] > 0).sum())
    assert abs(sent - 160_000 * (1 + share) / 2) < 5 * sigma


def test_eval_mode_is_the_update_within_the_damping():
    model = nn.Linear(2, 1, bias=False)
    base = model.weight.detach().clone()
    with start(model) as psm:
        with torch.no_grad():
            model.parametrizations["weight"].original.copy_(torch.tensor([[0.02, -0.001]]))
        model.eval()
        assert (model.weight - base)[0].tolist() == pytest.approx([0.0025, -0.001], rel=1e-4)
        assert psm.schema == fm.Schema([fm.Tensor("weight", (1, 2), masked=True)])


@pytest.mark.parametrize("damping", [0.25, 1.0])
@pytest.mark.parametrize("tau", [0.3, 1.0])
def test_the_fused_kernel_gives_the_same_bits(tau, damping):
    pytest.importorskip("numba")
    source = torch.Generator().manual_seed(1)
    base, u, n = (torch.randn((16, 3, 7), generator=source) for _ in range(3))
    u[0, 0, :3] = torch.tensor([float("nan"), float("inf"), -float("inf")])
    share = clipped_share(u, n, -1.0, damping)
    assert float(share.nan_to_num().abs().max()) == damping
    mask_(share, draw(u.numel(), u.device, 5, 1), -1.0, tau, True)
    got = fused.weight(base, n, u, (5, 1), -1.0, tau, True, damping)
    assert got.numpy().tobytes() == (share * n + base).numpy().tobytes()


def test_the_frame_is_that_of_the_codec():
    model = nn.Linear(30, 20)
    psm = with_update(model, start(model, norm=2.0), 0.01)
    update, private_seed = psm.update(), psm.upload_seed
    with pytest.warns(RuntimeWarning, match="larger than the scale of the noise"):
        frame = finished(psm, 4)
    settings = {"seed": 7, "noise": NOISE, "mask": "signed", "private_seed": private_seed}
    assert frame == fm.encode(update, schema(model), damping=0.25, norm=2.0, **settings)
    assert frame != fm.encode(update, schema(model), damping=0.25, **settings)
    assert psm.clipped == 1


def finished(psm, steps):
    for _ in range(steps):
        psm.step()
    return psm.finish()


def test_a_request_is_trained_with_the_clients_own_damping():
    model = nn.Linear(3, 2)
    request = fm.Request(7, NOISE, "signed", 1, 0, schema(model))
    with PSM.from_request(model, request, steps=1, damping=0.5, norm=1.0, private_seed=9) as psm:
        update, private_seed = psm.update(), psm.upload_seed
        frame = finished(psm, 1)
    assert frame == request.encode(update, damping=0.5, norm=1.0, private_seed=private_seed)


@pytest.mark.parametrize("change", [{"damping": 0.5}, {"norm": 1.0}, {"damping": 1.0}])
def test_a_state_of_another_damping_is_refused(change):
    psm, other = start(nn.Linear(3, 2)), start(nn.Linear(3, 2), **change)
    (setting,) = change
    with pytest.raises(fm.ArgumentError, match=rf"^state_dict: {setting}: expected .*, as in this PSM, got "):
        other.load_state_dict(psm.state_dict())


def test_a_state_from_before_there_was_a_damping_can_be_loaded():
    psm, other = (start(nn.Linear(3, 2), damping=1.0) for _ in range(2))
    state = psm.state_dict()
    state["settings"] = {
        key: value for key, value in state["settings"].items() if key not in ("damping", "norm")
    }
    other.load_state_dict(state)
    damped, match = start(nn.Linear(3, 2)), r"^state_dict: damping: expected 0\.25, as in this PSM, got 1\.0$"
    with pytest.raises(fm.ArgumentError, match=match):
        damped.load_state_dict(state)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"damping": 0}, "damping: expected a number above 0 and at most 1, got 0"),
        ({"mask": "binary"}, "damping: expected 1, or signed masks over Bernoulli noise, got binary masks"),
        (
            {"noise": fm.Uniform(0.01)},
            "damping: expected 1, or signed masks over Bernoulli noise, got signed",
        ),
        ({"stochastic": False}, r"damping: expected 1, since masks are not stochastic, got 0\.25"),
        ({"damping": 1, "norm": 2.0}, "damping: expected a number below 1, since there is a norm"),
    ],
)
def test_what_gives_no_privacy_is_refused(settings, match):
    model = nn.Linear(3, 2)
    with pytest.raises(fm.ArgumentError, match=f"^{match}"):
        start(model, **settings)
    assert not hasattr(model, "parametrizations")
