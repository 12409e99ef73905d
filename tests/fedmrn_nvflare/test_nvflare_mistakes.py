"""Mistakes that would pass silently: no FromFrame on the server, wrong orders, scales that do not fit."""

import logging

import numpy as np
import pytest
from nvflare.apis.dxo import DXO, DataKind, from_shareable
from nvflare.apis.dxo_filter import DXOFilter
from nvflare.apis.event_type import EventType
from nvflare.apis.filter import ContentBlockedException
from nvflare_cases import MODEL, Context, Federation, wired, zeros

from fedmrn_nvflare import ToFrame


def update(step=0.002):
    return {
        name: np.asarray(np.full_like(array, step) if array.dtype.kind == "f" else np.array(1))
        for name, array in MODEL.items()
    }


class Rounding(DXOFilter):
    """A filter that changes arrays, as those for privacy do."""

    def __init__(self):
        super().__init__([DataKind.WEIGHTS, DataKind.WEIGHT_DIFF], None)

    def process_dxo(self, dxo, shareable, fl_ctx):
        return DXO(
            dxo.data_kind, {name: array.astype(np.float64) for name, array in dxo.data.items()}, dxo.meta
        )


def result():
    return DXO(DataKind.WEIGHT_DIFF, zeros()).to_shareable()


def test_a_server_that_asks_for_no_frame_is_an_error_of_the_client():
    client = ToFrame()
    task = DXO(DataKind.WEIGHTS, MODEL).to_shareable()
    client.handle_event(EventType.BEFORE_TASK_EXECUTION, Context("server", "task-1", task))
    with pytest.raises(
        ContentBlockedException, match=r"a request \(is fedmrn_nvflare.FromFrame among the server's"
    ):
        client.process(result(), Context("server", "task-1"))


def test_a_filter_that_changes_frames_is_named_with_the_right_order():
    federation = Federation()
    federation.send()
    context = Context("server", "task-1")
    changed = Rounding().process(federation.clients["site-1"].process(result(), context), context)
    expected = "order of the client's filters: expected ToFrame last among those that change arrays"
    with pytest.raises(ContentBlockedException, match=rf"{expected}, got \['Rounding'\] after it"):
        federation.receive(wired(changed))


def test_a_filter_before_ours_is_no_mistake():
    federation = Federation()
    federation.send()
    context = Context("server", "task-1")
    arrays = {
        name: array.astype(np.float32) for name, array in zeros().items() if name != "bn.num_batches_tracked"
    }
    arrays["bn.num_batches_tracked"] = np.array(0)

    class Half(Rounding):
        def process_dxo(self, dxo, shareable, fl_ctx):
            return DXO(dxo.data_kind, {name: array // 2 for name, array in dxo.data.items()}, dxo.meta)

    halved = Half().process(DXO(DataKind.WEIGHT_DIFF, arrays).to_shareable(), context)
    assert federation.receive(wired(federation.clients["site-1"].process(halved, context))).data


def test_two_toframe_are_refused():
    federation = Federation()
    federation.send()
    first = federation.reply(zeros())
    with pytest.raises(ContentBlockedException, match="expected one ToFrame among the client's filters"):
        federation.clients["site-1"].process(first, Context("server", "task-1"))


def fit_of_round(federation, step, number=0):
    federation.send(task=f"task-{number}", number=number)
    return federation.receive(federation.reply(update(step)), task=f"task-{number}").meta["fedmrn"]


@pytest.mark.parametrize("mask", ["binary", "signed"])
def test_the_shares_are_in_the_meta_of_the_result(mask):
    for step, clipped in ((0.002, 0.0), (0.02, 1.0)):
        meta = fit_of_round(Federation(mask=mask), step)
        assert meta["clipped"] == clipped
        assert ("density.conv.weight" in meta) == (mask == "binary")
    if mask == "binary":
        assert 0.3 < meta["density.conv.weight"] < 0.7


def test_a_fixed_scale_that_does_not_fit_is_reported_by_both_sides_once(caplog):
    federation = Federation("uniform:0.0001")
    with caplog.at_level(logging.WARNING):
        for number in range(3):
            fit_of_round(federation, 0.002, number)
    warnings = [record.getMessage() for record in caplog.records if "fedmrn: about" in record.getMessage()]
    found = (
        "about 100 % of the update's masked elements are larger than the scale of the noise and are clipped"
    )
    assert len(warnings) == 2
    assert all(found in text for text in warnings)
    assert "use a larger scale in the server's FromFrame, or no noise" in warnings[0]
    assert warnings[1].endswith("use a larger scale, or give no noise, so that a rule sets it")


def test_the_first_rounds_of_a_rule_are_not_reported(caplog):
    federation = Federation(None, "binary")
    with caplog.at_level(logging.WARNING):
        for number in range(3):
            fit_of_round(federation, 0.002, number)
    assert not [record for record in caplog.records if "fedmrn" in record.getMessage()]


@pytest.mark.parametrize("share", [-1, 2, "half", float("nan")])
def test_a_bad_share_is_refused(share):
    federation = Federation()
    federation.send()
    dxo = from_shareable(federation.reply(update()))
    dxo.meta["fedmrn"] = {"clipped": share}
    with pytest.raises(ContentBlockedException, match="clipped share: expected a number from 0 to 1, got"):
        federation.receive(dxo.to_shareable())


def test_a_psm_reports_its_share():
    import torch

    import fedmrn_nvflare

    model = torch.nn.Linear(4, 4)
    federation = Federation(None, "binary")
    received = federation.send(arrays={name: tensor.numpy() for name, tensor in model.state_dict().items()})
    task = type("Received", (), {"meta": from_shareable(received).meta})()
    psm = fedmrn_nvflare.psm(model, task, steps=1)
    model(torch.rand(3, 4)).square().sum().backward()
    torch.optim.SGD(model.parameters(), lr=1e-3).step(), psm.step()
    sent = fedmrn_nvflare.result(psm, meta={"NUM_STEPS_CURRENT_ROUND": 3})
    assert sent.meta == {"NUM_STEPS_CURRENT_ROUND": 3, "fedmrn": {"clipped": psm.clipped}}
    data = {name: array.numpy() for name, array in sent.params.items()}
    assert (
        federation.receive(federation.reply(data, meta=sent.meta)).meta["fedmrn"]["clipped"]
        == psm.clipped
        == 0
    )
