"""`attach`, seen in the files of the exported job; and training with the settings of a task."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from federation_parts import Persistor, Trainer
from nvflare.apis.dxo import DXO, DataKind, from_shareable
from nvflare.app_common.abstract.fl_model import FLModel, ParamsType
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.app_event_type import AppEventType
from nvflare.app_common.utils.fl_model_utils import FLModelUtils
from nvflare.app_common.workflows.fedavg import FedAvg
from nvflare.app_opt.pt.recipes.fedavg import FedAvgRecipe
from nvflare.client.converter_utils import convert_params
from nvflare.job_config.api import FedJob
from nvflare_cases import MODEL, Context, Federation, bytes_of

import fedmrn_codec as fm
import fedmrn_nvflare
from fedmrn_nvflare import SecAgg


def configs(folder):
    """The server's and the clients' configuration of a job."""
    (server,), (client,) = (list(folder.rglob(f"config_fed_{side}.json")) for side in ("server", "client"))
    return json.loads(server.read_text()), json.loads(client.read_text())


def recipe(tmp_path):
    script = tmp_path / "client.py"
    script.write_text("print()\n")
    model = {"class_path": "torch.nn.Linear", "args": {"in_features": 2, "out_features": 2}}
    return FedAvgRecipe(name="job", min_clients=2, train_script=str(script), model=model)


def job(ignore=None, clients=("@ALL",)):
    out = FedJob("job", min_clients=2)
    out.to_server(FedAvg(num_clients=2, num_rounds=1, ignore_result_error=ignore))
    out.to_server(Persistor("nowhere"), id="persistor")
    for client in clients:
        out.to(Trainer(), client, tasks=["train"])
    return out


def exported(target, tmp_path, **settings):
    fedmrn_nvflare.attach(target, fm.Uniform(0.01), mask="signed", seed=3, **settings)
    (target.export if hasattr(target, "export") else target.export_job)(str(tmp_path / "out"))
    return configs(tmp_path / "out")


@pytest.mark.parametrize("api", ["recipe", "job"])
def test_attached(api, tmp_path):
    server, client = exported(recipe(tmp_path) if api == "recipe" else job(), tmp_path)
    (chain,) = client["task_result_filters"]
    assert chain["tasks"] == ["train"]
    assert chain["filters"] == [{"path": "fedmrn_nvflare.client.ToFrame", "args": {}}]
    (chain,) = server["task_result_filters"]
    (found,) = chain["filters"]
    assert found["path"] == "fedmrn_nvflare.server.FromFrame"
    assert found["args"] == {"noise": "uniform:0.01", "mask": "signed", "seed": 3, "tasks": ["train"]}
    assert fedmrn_nvflare.FromFrame(**found["args"]).noise == "uniform:0.01"
    (chain,) = server["task_data_filters"]
    assert chain["tasks"] == ["train"]
    assert chain["filters"] == [{"path": "fedmrn_nvflare.downlink.ToGrid", "args": {}}]
    (chain,) = client["task_data_filters"]
    assert chain["filters"] == [{"path": "fedmrn_nvflare.downlink.FromGrid", "args": {}}]
    assert server["workflows"][0]["args"]["ignore_result_error"] is True
    assert not [path for path in Path(tmp_path / "out").rglob("*") if "fedmrn" in path.name]


@pytest.mark.parametrize("secure", [None, SecAgg(threshold=2)])
def test_clients_with_an_app_each_keep_it(secure, tmp_path):
    target = job(clients=("site-1", "site-2"))
    fedmrn_nvflare.attach(target, secure=secure)
    target.export_job(str(tmp_path / "out"))
    clients = sorted((tmp_path / "out").rglob("config_fed_client.json"))
    assert [path.parent.parent.name for path in clients] == ["app_site-1", "app_site-2"]
    for path in clients:
        config = json.loads(path.read_text())
        assert config["executors"][0]["executor"]["path"].endswith("Trainer")
        assert len(config["executors"]) == (1 if secure is None else 2)
        assert len(config["task_result_filters"]) == len(config["task_data_filters"]) == 1


def test_a_job_without_its_parts_is_refused():
    target = FedJob("job", min_clients=2)
    with pytest.raises(fm.ArgumentError, match=r"workflow of the job: expected at least one, .* got none"):
        fedmrn_nvflare.attach(target)
    target.to_server(FedAvg(num_clients=2, num_rounds=1))
    with pytest.raises(fm.ArgumentError, match=r"clients of the job: expected at least one, .* got none"):
        fedmrn_nvflare.attach(target)
    assert not target._deploy_map["server"].app_config.task_result_filters


@pytest.mark.parametrize("api", ["recipe", "job"])
def test_attached_without_frames_of_the_model(api, tmp_path):
    target = recipe(tmp_path) if api == "recipe" else job()
    for config in exported(target, tmp_path, downlink="raw"):
        assert not config.get("task_data_filters")


def test_other_downlinks_are_refused():
    with pytest.raises(fm.ArgumentError, match=r"^downlink: expected one of grid, raw, got 'zip'$"):
        fedmrn_nvflare.attach(job(), downlink="zip")


def test_a_job_may_stop_at_a_bad_result(tmp_path):
    server, _ = exported(job(ignore=False), tmp_path)
    assert server["workflows"][0]["args"]["ignore_result_error"] is False


def test_attach_needs_a_job():
    with pytest.raises(fm.ArgumentError, match=r"^target: expected a Recipe or a FedJob, got object$"):
        fedmrn_nvflare.attach(object(), fm.Uniform(0.01))


def test_a_round_of_refused_results_does_not_change_the_model():
    """Without the filter, FedAvg would replace the model by an empty one."""
    for filtered, kept in ((False, []), (True, list(MODEL))):
        mean, context = FLModel(params={}), Context("site-1", "task-1")
        context.set_prop(AppConstants.AGGREGATION_RESULT, mean, private=True, sticky=False)
        if filtered:
            Federation().server.handle_event(AppEventType.AFTER_AGGREGATION, context)
        model = FLModelUtils.update_model(FLModel(params=dict(MODEL)), mean)
        assert list(model.params) == kept


def test_fedavgs_mean_keeps_the_models_dtypes():
    federation, context = Federation(), Context("site-1", "task-1")
    federation.send()
    mean = {name: array / 1.5 for name, array in MODEL.items()}
    assert mean["bn.num_batches_tracked"].dtype == np.float64
    model = FLModel(params={**mean, "other": np.zeros(1, np.float16)})
    context.set_prop(AppConstants.AGGREGATION_RESULT, model, private=True, sticky=False)
    federation.server.handle_event(AppEventType.AFTER_AGGREGATION, context)
    expected = mean | {"bn.num_batches_tracked": np.array(2), "other": np.zeros(1, np.float16)}
    assert bytes_of(model.params) == bytes_of(expected)
    shareable = DXO(DataKind.WEIGHT_DIFF, mean).to_shareable()  # of ScatterAndGather
    context.set_prop(AppConstants.AGGREGATION_RESULT, shareable, private=True, sticky=False)
    federation.server.handle_event(AppEventType.AFTER_AGGREGATION, context)
    del expected["other"]
    assert bytes_of(from_shareable(shareable).data) == bytes_of(expected)


def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 2))


def received_by(federation, net):
    arrays = {name: tensor.numpy() for name, tensor in net.state_dict().items()}
    return FLModelUtils.from_shareable(federation.send(arrays=arrays))


def test_masks_trained_with_psm():
    federation, model = Federation("uniform:0.01"), network()
    received = received_by(federation, network())
    psm = fedmrn_nvflare.psm(model, received, steps=3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):
        loss = torch.nn.functional.cross_entropy(model(torch.ones(6, 4)), torch.zeros(6, dtype=torch.long))
        loss.backward(), optimizer.step(), optimizer.zero_grad(), psm.step()
    sent = fedmrn_nvflare.result(psm, meta={"NUM_STEPS_CURRENT_ROUND": 6})
    assert sent.params_type == ParamsType.DIFF
    wire = convert_params(sent.params, "pytorch", "numpy", {})  # what flare.send() does
    frame = wire["fedmrn.frame"].tobytes()
    dxo = federation.receive(federation.reply(wire, meta=sent.meta))
    assert bytes_of(dxo.data) == bytes_of(fm.decode(frame, fedmrn_nvflare.Request.of(received.meta).schema))
    assert 0 < np.abs(dxo.data["0.weight"]).max() <= 0.0100001
    assert dxo.data["1.num_batches_tracked"] == 3
    assert dxo.meta["NUM_STEPS_CURRENT_ROUND"] == 6


def test_psm_for_another_model_names_the_remedy():
    received = received_by(Federation(), network())
    other = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 3))
    remedy = "give the server's FromFrame masked=[...], and use one order of tensors on all machines"
    expected = f"the model's own, fedmrn_torch.schema(model) ({remedy})"
    start = f"schema of the request: expected {expected}, got tensor 7 is "
    with pytest.raises(fm.SchemaError, match=re.escape(start)):
        fedmrn_nvflare.psm(other, received, steps=1)


def test_psm_needs_a_request():
    with pytest.raises(
        fm.ArgumentError, match=r"^task: expected a request \(is fedmrn_nvflare.FromFrame .*\), got none$"
    ):
        fedmrn_nvflare.psm(network(), FLModel(params={}), steps=1)


def test_a_request_without_an_entry_is_refused():
    meta = from_shareable(Federation().send()).meta
    del meta["fedmrn"]["seed"]
    with pytest.raises(fm.ArgumentError, match=r"^request entry 'seed': expected int or str, got NoneType$"):
        fedmrn_nvflare.Request.of(meta)
