"""Mistakes around a PSM that would otherwise pass silently: each is named, with its number and its remedy."""

import copy
import io
import re
import warnings
from contextlib import contextmanager

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F

import fedmrn_codec as fm
from fedmrn_torch import PSM, schema

NOISE = fm.Uniform(0.1)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))


def start(model, **changes):
    return PSM(model, **{"seed": 7, "noise": NOISE, "steps": 3, "private_seed": 3, **changes})


def train(model, psm, steps=3, rate=0.1):
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    x, y = torch.rand((6, 4), generator=torch.Generator().manual_seed(1)), torch.tensor([0, 0, 0, 1, 1, 1])
    for _ in range(steps):
        F.cross_entropy(model(x), y).backward()
        optimizer.step(), optimizer.zero_grad(), psm.step()


def texts(caught):
    return [str(each.message) for each in caught]


# --- steps ---------------------------------------------------------------------------------------------

REMEDY = (
    "call it once after each optimizer.step(), and pass steps=epochs * batches, so that masking reaches all "
)


@pytest.mark.parametrize(("steps", "called"), [(1, "1 time"), (2, "2 times")])
def test_fewer_steps_than_stated_are_reported_by_finish(steps, called):
    model = network()
    psm = start(model)
    train(model, psm, steps)
    with pytest.warns(RuntimeWarning) as caught:
        psm.finish()
    assert texts(caught) == [
        f"psm.step() was called {called}, but the PSM has steps=3: {REMEDY}elements in the last step"
    ]
    assert caught[0].filename == __file__


def test_a_step_that_was_never_called_is_reported():
    psm = start(model := network())
    F.cross_entropy(model(torch.ones(2, 4)), torch.tensor([0, 1])).backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    with pytest.warns(RuntimeWarning, match=r"^psm.step\(\) was called 0 times, but the PSM has steps=3"):
        psm.finish()


def test_more_steps_than_stated_are_reported_at_the_first_and_by_finish():
    psm = start(model := network())
    train(model, psm)
    with pytest.warns(RuntimeWarning) as caught:
        train(model, psm, steps=4)
    assert len(caught) == 1
    assert re.match(r"psm.step\(\) was called more than 3 times, but the PSM has steps=3", texts(caught)[0])
    with pytest.warns(RuntimeWarning, match=r"^psm.step\(\) was called 7 times, but the PSM has steps=3"):
        psm.finish()


def test_steps_do_not_matter_without_progress_or_without_training():
    psm = start(model := network(), progressive=False, steps=None)
    train(model, psm, steps=2)
    psm.finish()
    start(network()).finish()


# --- the scale -----------------------------------------------------------------------------------------


def finished(noise, **settings):
    """A PSM that is finished after training, and the texts of its warnings."""
    psm = start(model := network(), noise=noise, **settings)
    train(model, psm)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        psm.finish()
    return psm, texts(caught)


@pytest.mark.parametrize("mask", ["binary", "signed"])
def test_a_scale_that_does_not_fit_is_reported_with_number_and_remedy(mask):
    psm, found = finished(fm.Bernoulli(1e-6), mask=mask)
    assert psm.clipped > 0.5
    share = f"{round(psm.clipped, 1):.0%}".replace("%", " %")
    assert found == [
        f"about {share} of the update's masked elements are larger than the scale of the noise and are "
        "clipped; use a larger scale on the server, or fm.AdaptiveNoise there, which sets it"
    ]
    psm, found = finished(fm.Bernoulli(1e3), mask=mask)
    assert psm.clipped == 0
    (text,) = found
    assert re.match(
        r"the update's masked elements are on average \de-0\d of the scale of the noise, so nearly no ", text
    )
    assert "use a smaller scale on the server" in text


def test_a_scale_that_fits_or_comes_from_a_rule_is_not_reported():
    assert finished(fm.Bernoulli(0.1))[1] == []
    noise = {"0.weight": fm.Bernoulli(1e-6), "2.weight": fm.Bernoulli(1e-6)}
    psm, found = finished(noise)  # one noise for each tensor: the server's rule corrects it
    assert psm.clipped > 0.5
    assert found == []


# --- checkpoints ---------------------------------------------------------------------------------------


class Parent(nn.Module):
    def __init__(self, child):
        super().__init__()
        self.child = child


@pytest.mark.parametrize("taken", [lambda model: model, Parent, lambda model: model[2]])
def test_a_checkpoint_during_a_psm_is_reported_once(taken):
    psm = start(model := network())
    with pytest.warns(RuntimeWarning) as caught:  # noqa: PT031
        taken(model).state_dict()
        taken(model).state_dict()
    assert texts(caught) == [
        "this state_dict holds updates in place of weights, because a PSM is active; call its finish() or "
        "restore() first, or save psm.state_dict(), which holds the model's, to resume this training"
    ]
    assert caught[0].filename == __file__
    psm.restore()
    taken(model).state_dict()


def test_the_psms_own_state_holds_the_models():
    psm = start(model := network())
    train(model, psm)
    state = copy.deepcopy(psm.state_dict())
    want = psm.finish()
    psm = start(network(), private_seed=9)
    psm.load_state_dict(state)
    assert psm.finish() == want


def test_a_module_under_a_psm_cannot_be_pickled():
    psm = start(model := network())
    expected = (
        "saving a module: expected one without an active PSM, got one whose parameters hold updates in place"
    )
    with pytest.raises(RuntimeError, match=f"^{expected} of weights; call the PSM's finish"):
        torch.save(model, io.BytesIO())
    psm.restore()
    torch.save(model, io.BytesIO())


# --- modules that torch distributes --------------------------------------------------------------------


@pytest.fixture
def group():
    """A group of this process alone."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@contextmanager
def quiet():
    """torch announces changes of FSDP by warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def fsdp(model):
    from torch.distributed.fsdp import FullyShardedDataParallel

    return FullyShardedDataParallel(model, device_id=torch.device("cpu"))


def fsdp2(model):
    from torch.distributed import fsdp
    from torch.distributed.device_mesh import init_device_mesh

    if not hasattr(fsdp, "fully_shard"):
        pytest.skip("fully_shard is public from torch 2.6 on")
    return fsdp.fully_shard(model, mesh=init_device_mesh("cpu", (1,)))


@pytest.mark.usefixtures("group")
@pytest.mark.parametrize(
    ("wrap", "got", "remedy"),
    [
        (nn.DataParallel, "DataParallel", "use DistributedDataParallel around the module"),
        (
            nn.parallel.DistributedDataParallel,
            "DistributedDataParallel",
            "pass the module inside, ddp.module",
        ),
        (fsdp, "FullyShardedDataParallel", "a PSM needs whole parameters; use DistributedDataParallel"),
        (fsdp2, "FSDPModule", "a PSM needs whole parameters; use DistributedDataParallel"),
    ],
)
def test_a_wrapped_module_is_refused(wrap, got, remedy):
    request = fm.Request(7, NOISE, "binary", 1, 1, schema(network()))
    with quiet():
        model = wrap(network())
    for make in (start, schema, lambda model: PSM.from_request(model, request, steps=1), within):
        with pytest.raises(fm.ArgumentError) as caught:
            make(model)
        assert str(caught.value).startswith(f"model: expected the model itself ({remedy}")
        assert caught.value.got == f"one in a {got}"


def within(model):
    return start(Parent(model))


@pytest.mark.usefixtures("group")
@pytest.mark.parametrize("wrap", [fsdp, fsdp2])
@pytest.mark.parametrize("first", [True, False])
def test_a_module_that_fsdp_manages_is_refused(wrap, first):
    def use(model):
        if first:
            wrap(model)
            start(model)
        else:
            start(model)
            wrap(model)(torch.ones(2, 4))

    with quiet(), pytest.raises(fm.ArgumentError, match=r"^model: expected .* whole parameters; use Distr"):
        use(network())


@pytest.mark.usefixtures("group")
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("view", [True, False])
def test_a_ddp_may_be_around_the_module(first, view):
    frames = []
    for wrapped in (False, True):
        model = network()
        outer, make = (
            model,
            lambda inner: nn.parallel.DistributedDataParallel(inner, gradient_as_bucket_view=view),
        )
        if wrapped and first:
            outer = make(model)
        for seed in (7, 8):  # two rounds, with one wrapper if it is made first
            psm = start(model, seed=seed)
            if wrapped and not first:
                outer = make(model)
            train(outer, psm)
            frames.append(psm.finish())
    assert frames[:2] == frames[2:]
    assert len(set(frames)) == 2


def test_a_data_parallel_around_a_psm_is_refused():
    psm = start(model := network())
    with pytest.raises(RuntimeError, match="expected no DataParallel around it; use DistributedDataParallel"):
        model[0].parametrizations.weight[0]._replicate_for_data_parallel()  # as it does for each device
    psm.restore()


# --- tensors that another PSM has -----------------------------------------------------------------------


def test_a_module_that_shares_a_weight_with_one_under_a_psm_is_refused():
    one, other = nn.Linear(4, 4), nn.Linear(4, 4)
    other.weight = one.weight
    before = one.weight.detach().clone()
    with start(one):
        for verb in (lambda: start(other), lambda: schema(other)):
            with pytest.raises(RuntimeError, match="expected one without an active PSM"):
                verb()
    assert torch.equal(one.weight, before)
    assert other.weight is one.weight
    with start(other):
        pass
    assert torch.equal(other.weight, before)


def test_a_part_of_a_module_under_a_psm_is_refused_also_if_all_of_it_is_dense():
    model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))
    with start(model) as psm:
        with pytest.raises(RuntimeError, match="expected one without an active PSM"):
            start(model[1], masked=lambda name, tensor: True)
        psm.step(), psm.step(), psm.step()
        psm.finish()
    with start(model[1], masked=lambda name, tensor: True):
        pass


def test_the_state_of_another_model_changes_nothing():
    class Scaled(nn.Module):
        def __init__(self, count):
            super().__init__()
            self.linear = nn.Linear(4, 4)
            self.frozen = nn.Parameter(torch.ones(count), requires_grad=False)

    torch.manual_seed(0)
    small, large = Scaled(2), Scaled(3)
    with start(small) as psm:
        state = psm.state_dict()
    before = {name: each.clone() for name, each in large.state_dict().items()}
    with start(large) as psm, pytest.raises(fm.ArgumentError, match="state_dict: "):
        psm.load_state_dict(state)
    after = large.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
