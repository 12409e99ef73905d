"""attach(..., secure=SecAgg(...)): the sum of a round, with clients that drop out in each step."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from federation_parts import Persistor, Trainer
from nvflare.apis.dxo import DXO, DataKind, MetaKey, from_shareable
from nvflare.apis.filter import ContentBlockedException
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.shareable import make_reply
from nvflare.app_common.aggregators.intime_accumulate_model_aggregator import (
    InTimeAccumulateWeightedAggregator,
)
from nvflare.app_common.shareablegenerators.full_model_shareable_generator import FullModelShareableGenerator
from nvflare.app_common.workflows.fedavg import FedAvg
from nvflare.app_common.workflows.scatter_and_gather import ScatterAndGather
from nvflare.app_opt.pt.recipes.fedavg import FedAvgRecipe
from nvflare.job_config.api import FedJob
from nvflare_cases import MODEL, Context, bytes_of

import fedmrn_codec as fm
import fedmrn_nvflare
from fedmrn_nvflare import ExactMean, Request, SecAgg

pytest.importorskip("cryptography")
pytest.importorskip("Crypto")

from nvflare_secure_cases import NAMES, STEPS, Job, crash, expected, frames_of, rule_of, same

from fedmrn_nvflare.secagg import (
    ARRAY,
    PROTOCOL,
    client_id,
    clients_by_id,
    settings_from_json,
    settings_to_json,
    to_task,
)
from fedmrn_nvflare.secure_client import ToMasked
from fedmrn_nvflare.workflow import SecureFedAvg


def by_round(job):
    """The request of each round; all clients of a round have the same."""
    out = {}
    for request in job.requests:
        assert out.setdefault(request.round, request) == request
    return [out[number] for number in sorted(out)]


@pytest.mark.parametrize("downlink", ["raw", "grid"])
@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("mask", ["binary", "signed"])
def test_the_model_is_that_of_the_plain_mean(downlink, adaptive, mask):
    job = Job(downlink=downlink, mask=mask, rounds=3, **({"noise": None} if adaptive else {})).run()
    assert job.asked == [(step, name) for _ in range(3) for step in STEPS for name in NAMES]
    base, requests = MODEL, by_round(job)
    assert len({request.seed for request in requests}) == len(requests) == 3
    for number, request in enumerate(requests):
        assert (request.mask, request.coding, request.round) == (mask, "raw", number + 1)
        assert (request.base_model == fm.model_id(base)) == (downlink == "raw")
        assert request.seed == fm.choose_seed(5, number + 1, "all clients")
        assert same(job.models[number], expected(base, request, frames_of(job, number)))
        base = job.models[number]
    assert job.log.count("fedmrn: sum of 4 of 4 clients, total weight 4; bytes up: keys ") == 3


def test_the_rule_moves_as_after_plain_rounds():
    model = {"w": np.random.default_rng(0).normal(0, 0.05, (64, 100)).astype(np.float32)}
    job = Job(noise=None, rounds=3, model=model)
    for site in job.sites.values():
        site.update = lambda _, arrays: {"w": np.full_like(arrays["w"], 0.02)}
    job.run()
    requests = by_round(job)
    rule = rule_of(model, requests[0])
    for number, request in enumerate(requests):
        assert request.noise == rule.noise
        aggregator = request.aggregator()
        for frame in frames_of(job, number).values():
            aggregator.add(frame, 1)
        rule.observe(aggregator)
    assert len({str(request.noise) for request in requests}) > 1


def test_what_crosses_the_line():
    """No frame and no array leaves a client; its training sees no message of the protocol."""
    job = Job(downlink="grid").run()
    for step, _, result in job.results:
        data = from_shareable(result).data
        if step == "masked":
            (array,) = data.values()
            assert (list(data), array.dtype, array.ndim) == ([ARRAY], np.uint8, 1)
        else:
            assert list(data) == ["message"]
    for site in job.sites.values():
        (task,) = site.seen
        assert PROTOCOL not in task.meta
        assert list(task.data) == list(MODEL)
        frame = site.frames[0]
        assert not any(frame[64:96] in bytes(str(result), "latin1") for *_, result in job.results)
    metas = [from_shareable(result).meta for step, _, result in job.results if step == "masked"]
    for meta in metas:
        assert meta["fedmrn"] == {"secure-clipped": 0}
        assert meta[MetaKey.NUM_STEPS_CURRENT_ROUND] == 10
        assert meta[MetaKey.PROCESSED_ALGORITHM] == "fedmrn-secagg/1"


def test_the_log_has_the_bytes_of_each_step():
    job = Job().run()

    def size(step):
        found = [from_shareable(result).data for its, _, result in job.results if its == step]
        return sum(data[ARRAY].size if step == "masked" else len(data["message"]) for data in found)

    up = ", ".join(f"{step} {size(step)}" for step in STEPS)
    assert f"total weight 4; bytes up: {up}; bytes down: keys 0, shares " in job.log


@pytest.mark.parametrize("fault", [None, crash], ids=["silent", "error"])
@pytest.mark.parametrize("step", STEPS)
def test_a_dropout_in_each_step(step, fault):
    job = Job(
        SecAgg(threshold=3), faults={(step, "site-2", 0): fault}, rounds=2, timeout=60 if fault else 2
    ).run()
    inside = NAMES if step == "reveal" else [name for name in NAMES if name != "site-2"]
    requests = by_round(job)
    assert same(job.models[0], expected(MODEL, requests[0], frames_of(job, 0, inside)))
    assert f"fedmrn: sum of {len(inside)} of 4 clients" in job.log
    if step == "masked":
        assert "fedmrn: no accepted answer in `masked` of site-2" in job.log
    elif fault is None:
        assert f"fedmrn: no accepted answer in `{step}` of site-2" in job.log
    else:
        assert f"fedmrn: site-2 failed in `{step}`: result: expected OK, got EXECUTION_EXCEPTION" in job.log
    later = STEPS[STEPS.index(step) + 1 :]
    first = job.asked[: job.asked.index(("reveal", "site-1")) + 4]
    assert not any(its in later and name == "site-2" for its, name in first[:-1] if its != "keys")
    frames = {name: job.sites[name].frames[-1] for name in NAMES}  # the secrets it still has do no harm
    assert same(job.models[1], expected(job.models[0], requests[1], frames))


@pytest.mark.parametrize("step", STEPS)
def test_too_few_clients_lose_the_round_alone(step):
    faults = {(step, name, 0): crash for name in ("site-2", "site-3")}
    job = Job(SecAgg(threshold=3), faults=faults, rounds=2, noise=None).run()
    assert f"fedmrn: round 0 is lost, and the model stays as it is: {step}: " in job.log
    assert "expected at least 3, got 2" in job.log
    assert bytes_of(job.models[0]) == bytes_of(MODEL)
    assert job.log.count("fedmrn: sum of") == 1
    request = by_round(job)[-1]
    assert request.round == 2
    assert request.noise == rule_of(MODEL, request).noise  # the rule has not moved
    frames = {name: job.sites[name].frames[-1] for name in NAMES}
    assert same(job.models[1], expected(MODEL, request, frames))


def test_too_few_sampled_clients():
    job = Job(SecAgg(threshold=3), names=NAMES[:2]).run()
    assert job.asked == []
    assert "round 0 is lost, and the model stays as it is: keys: sampled clients" in job.log
    assert bytes_of(job.models[0]) == bytes_of(MODEL)


@pytest.mark.parametrize("step", STEPS)
def test_a_damaged_message_is_refused(step):
    def damaged(result):
        dxo = from_shareable(result)
        key = ARRAY if step == "masked" else "message"
        data = bytearray(bytes(dxo.data[key]))
        data[-1] ^= 1
        dxo.data[key] = np.frombuffer(bytes(data), np.uint8) if step == "masked" else bytes(data)
        return dxo.update_shareable(result)

    job = Job(SecAgg(threshold=3), faults={(step, "site-2"): damaged}).run()
    inside = NAMES if step == "reveal" else [name for name in NAMES if name != "site-2"]
    assert "fedmrn: refused the message of site-2 (" in job.log
    assert same(job.models[0], expected(MODEL, by_round(job)[0], frames_of(job, 0, inside)))


def test_a_frame_in_place_of_a_masked_vector_is_refused():
    def frame(result):
        dxo = from_shareable(result)
        return DXO(DataKind.WEIGHT_DIFF, {"fedmrn.frame": dxo.data[ARRAY]}, dxo.meta).to_shareable()

    job = Job(faults={("masked", "site-2"): frame}).run()
    assert "fedmrn: refused the result of site-2 (reply): result: expected one masked vector" in job.log
    assert "fedmrn: sum of 3 of 4 clients" in job.log


@pytest.mark.parametrize("key", [MetaKey.NUM_STEPS_CURRENT_ROUND, "fedmrn", MetaKey.INITIAL_METRICS])
def test_what_a_result_says_beside_its_vector_is_checked(key):
    def other(result):
        dxo = from_shareable(result)
        dxo.meta[key] = {MetaKey.INITIAL_METRICS: {"loss": float("nan")}}.get(key, -1)
        return dxo.update_shareable(result)

    job = Job(faults={("masked", "site-2"): other}).run()
    assert "fedmrn: refused the result of site-2 (" in job.log
    assert "fedmrn: sum of 3 of 4 clients" in job.log


def test_a_client_that_was_restarted_has_lost_its_secrets():
    job = Job(rounds=2)
    site = job.sites["site-3"]
    answer, errors = site.answer, []

    def restarted(task_name, task, peer):
        if task_name == "train" and not site.frames:
            site.start()
        try:
            return answer(task_name, task, peer)
        except ContentBlockedException as error:  # as NVFlare's client runner does
            errors.append(str(error))
            return make_reply(ReturnCode.TASK_RESULT_FILTER_ERROR)

    site.answer = restarted
    job.run()
    (error,) = errors
    assert "secrets of the client: expected those of a round under way, got none" in error
    assert "fedmrn: sum of 3 of 4 clients" in job.log
    assert "fedmrn: sum of 4 of 4 clients" in job.log


def test_weights_in_units_of_examples():
    examples = {"site-1": 10, "site-2": 44, "site-3": 46, "site-4": 10_000}
    meta = {
        name: {MetaKey.NUM_STEPS_CURRENT_ROUND: number, MetaKey.INITIAL_METRICS: {"acc": 1.0}}
        for name, number in examples.items()
    }
    job = Job(SecAgg(threshold=2, largest_weight=7, examples=30), meta=meta).run()
    weights = {"site-1": 1, "site-2": 1, "site-3": 2, "site-4": 7}
    assert same(job.models[0], expected(MODEL, by_round(job)[0], frames_of(job, 0), weights))
    assert "total weight 11" in job.log
    assert job.means[0].metrics["acc"] == pytest.approx(1.0)


def test_metrics_are_means_over_the_survivors():
    losses = dict(zip(NAMES, (1.0, 100.0, 3.0, 5.0), strict=True))
    meta = {name: {MetaKey.INITIAL_METRICS: {"loss": loss}} for name, loss in losses.items()}
    job = Job(SecAgg(threshold=0.75), meta=meta, faults={("masked", "site-2"): crash}).run()
    assert job.means[0].metrics == {"loss": pytest.approx(3.0)}


@pytest.mark.parametrize("step", STEPS)
def test_an_aborted_job_ends(step):
    def abort(result):
        job.signal.trigger(True)
        return crash(result)

    job = Job(rounds=1000, faults={(step, "site-2"): abort})
    job.run()
    assert job.controller.current_round <= 1
    assert len(job.models) <= 1


def test_many_clients_on_a_sparse_graph():
    names = [f"site-{number}" for number in range(1, 13)]
    faults = {("masked", "site-5"): crash, ("shares", "site-10"): crash}
    job = Job(SecAgg(threshold=3, degree=6), names=names, faults=faults).run()
    inside = [name for name in names if name not in ("site-5", "site-10")]
    assert same(job.models[0], expected(MODEL, by_round(job)[0], frames_of(job, 0, inside)))


def test_arrays_of_an_unchanged_training_are_masked():
    """An update that signed masks represent exactly, sent as full weights and as differences."""

    def train(site):
        def run(task):
            arrays = from_shareable(task).data
            step = {
                key: np.full_like(a, 0.01) if a.ndim > 1 else np.zeros_like(a) for key, a in arrays.items()
            }
            if site.name == "site-1":
                return DXO(DataKind.WEIGHT_DIFF, step, {}).to_shareable()
            full = {key: np.asarray(a + step[key]) for key, a in arrays.items()}
            return DXO(DataKind.WEIGHTS, full, {}).to_shareable()

        return run

    model = {"w": np.zeros((4, 5), np.float32), "b": np.zeros(3, np.float32)}
    job = Job(model=model, mask="signed")
    for site in job.sites.values():
        site.train = train(site)
    job.run()
    assert job.models[0]["w"].tobytes() == np.full((4, 5), np.float32(0.01)).tobytes()
    assert job.models[0]["b"].tobytes() == bytes(12)


def test_a_step_of_the_grid_reaches_the_clients():
    job = Job(SecAgg(threshold=2, step={"conv.bias": 2.0**-20}, session=b"mine")).run()
    assert "fedmrn: sum of 4 of 4 clients" in job.log
    assert same(job.models[0], expected(MODEL, by_round(job)[0], frames_of(job, 0)))


def test_ids_of_clients():
    digest = hashlib.sha256(b"fedmrn_nvflare client site-1").digest()
    assert client_id("site-1") == int.from_bytes(digest[:8], "little")
    assert set(clients_by_id(NAMES).values()) == set(NAMES)
    assert all(0 < id < 2**64 for id in clients_by_id(NAMES))


@pytest.mark.parametrize(
    "settings",
    [
        SecAgg(threshold=2),
        SecAgg(threshold=0.75, largest_weight=4, examples=10, step=2.0**-10, degree=4, session=b"\0\xff"),
        SecAgg(threshold=3, step={"b": 2.0**-8}),
    ],
)
def test_settings_in_a_jobs_configuration(settings):
    assert settings_from_json(json.loads(json.dumps(settings_to_json(settings)))) == settings


@pytest.mark.parametrize("settings", [{"threshold": 1}, {"least": 2}, {"threshold": 2, "session": "x"}, 3])
def test_bad_settings_in_a_jobs_configuration(settings):
    with pytest.raises(fm.ArgumentError):
        settings_from_json(settings)


def job_of(**options):
    out = FedJob("job", min_clients=2)
    out.to_server(FedAvg(**{"num_clients": 2, "num_rounds": 3} | options), id="flow")
    out.to_server(Persistor("nowhere"), id="persistor")
    out.to_clients(Trainer(), tasks=["train"])
    return out


def recipe(tmp_path):
    script = tmp_path / "client.py"
    script.write_text("print()\n")
    model = {"class_path": "torch.nn.Linear", "args": {"in_features": 2, "out_features": 2}}
    return FedAvgRecipe(name="job", min_clients=2, num_rounds=3, train_script=str(script), model=model)


@pytest.mark.parametrize("api", ["recipe", "job"])
def test_attached(api, tmp_path):
    target = recipe(tmp_path) if api == "recipe" else job_of(stop_cond="accuracy >= 80")
    secure = SecAgg(threshold=0.75, session=b"mine")
    fedmrn_nvflare.attach(target, "bernoulli:0.02", secure=secure, timeout=90, leave_out=["x"])
    (target.export if hasattr(target, "export") else target.export_job)(str(tmp_path / "out"))
    (server,), (client,) = (
        list((tmp_path / "out").rglob(f"config_fed_{side}.json")) for side in ("server", "client")
    )
    server, client = json.loads(server.read_text()), json.loads(client.read_text())
    (flow,) = server["workflows"]
    assert flow["path"] == "fedmrn_nvflare.workflow.SecureFedAvg"
    args = flow["args"]
    assert args["secure"] == {"threshold": 0.75, "session": "6d696e65"}
    assert args["ignore_result_error"] is True
    assert (args["timeout"], args["leave_out"], args["num_rounds"]) == (90, ["x"], 3)
    made = SecureFedAvg(**args)
    assert (made.secure, made.noise, made.num_clients) == (args["secure"], "bernoulli:0.02", 2)
    if api == "job":
        assert flow["id"] == "flow"
        assert made.stop_cond == "accuracy >= 80"
    assert not server.get("task_result_filters")
    (chain,) = client["task_result_filters"]
    assert chain["filters"] == [{"path": "fedmrn_nvflare.secure_client.ToMasked", "args": {}}]
    executors = {each["executor"]["path"]: each["tasks"] for each in client["executors"]}
    assert executors["fedmrn_nvflare.secure_client.Exchange"] == [
        "fedmrn_keys",
        "fedmrn_shares",
        "fedmrn_reveal",
    ]
    assert len(executors) == 2
    assert not [path for path in Path(tmp_path / "out").rglob("*") if "fedmrn" in path.name]


@pytest.mark.parametrize("name", ["output", "coding", "limits", "bits"])
def test_settings_for_single_results_are_refused(name):
    with pytest.raises(fm.ArgumentError, match=rf"^{name} with secure: expected none, since "):
        fedmrn_nvflare.attach(job_of(), secure=SecAgg(threshold=2), **{name: "FRAME"})


@pytest.mark.parametrize(
    "option",
    [
        {"aggregator": ExactMean()},
        {"exclude_vars": "bn.*"},
        {"aggregation_weights": {"site-1": 2.0}},
        {"enable_tensor_disk_offload": True},
    ],
    ids=lambda option: next(iter(option)),
)
def test_options_of_fedavg_for_single_results_are_refused(option):
    (name,) = option
    expected = f"^{name} of FedAvg with secure: expected none, since the server has only the sum of a round"
    with pytest.raises(fm.ArgumentError, match=expected):
        fedmrn_nvflare.attach(job_of(**option), secure=SecAgg(threshold=2))


def test_weights_beside_the_noise_of_a_rule_are_refused():
    with pytest.raises(fm.ArgumentError, match=r"^largest_weight: expected 1 with the noise of a rule"):
        Job(SecAgg(threshold=2, largest_weight=7, examples=30), noise=None)


def test_other_workflows_are_refused():
    job = FedJob("job", min_clients=2)
    flow = ScatterAndGather(
        min_clients=2,
        persistor_id="persistor",
        aggregator_id="aggregator",
        shareable_generator_id="generator",
    )
    job.to_server(flow)
    job.to_clients(Trainer(), tasks=["train"])
    job.to_server(FullModelShareableGenerator(), id="generator")
    job.to_server(InTimeAccumulateWeightedAggregator(), id="aggregator")
    with pytest.raises(
        fm.ArgumentError, match=r"workflow of the job with secure: expected one FedAvg .*, got ScatterAndG"
    ):
        fedmrn_nvflare.attach(job, secure=SecAgg(threshold=2))


def test_other_arguments_are_refused():
    with pytest.raises(fm.ArgumentError, match=r"^secure: expected a SecAgg, got int$"):
        fedmrn_nvflare.attach(job_of(), secure=2)
    with pytest.raises(fm.ArgumentError, match=r"^tasks with secure: expected 'train', FedAvg's, among them"):
        fedmrn_nvflare.attach(job_of(), secure=SecAgg(threshold=2), tasks=["fit"])
    with pytest.raises(fm.ArgumentError, match=r"^timeout: "):
        fedmrn_nvflare.attach(job_of(), secure=SecAgg(threshold=2), timeout=-1)
    keys = {"site-1": fm.Key.generate().public}
    with pytest.raises(fm.ArgumentError, match=r"^identities of secure: expected none, since .*, got 1 keys"):
        fedmrn_nvflare.attach(job_of(), secure=SecAgg(threshold=2, identities=keys))
    with pytest.raises(fm.ArgumentError, match=r"^aggregator: expected none, since"):
        SecureFedAvg(secure=SecAgg(threshold=2), aggregator=ExactMean())


def test_a_client_without_the_executor_says_so():
    schema = fm.schema_of({"w": np.zeros((2, 2), np.float32)})
    request = Request(1, fm.Bernoulli(0.01), "signed", 1, 0, schema)
    task = DXO(DataKind.WEIGHTS, {"w": np.zeros((2, 2), np.float32)}, {"fedmrn": request.to_dict()})
    masked = ToMasked()
    masked.handle_event("_before_task_execution", Context("server", "task-1", task.to_shareable()))
    result = DXO(DataKind.WEIGHT_DIFF, {"w": np.zeros((2, 2), np.float32)}).to_shareable()
    with pytest.raises(ContentBlockedException, match="secure aggregation: expected the executor Exchange"):
        masked.process(result, Context("server", "task-1"))


def test_a_task_out_of_order_is_answered_with_the_reason():
    site = Job().sites["site-1"]
    for entries, reason in (
        ({"step": "shares", "message": b""}, "secrets of the client: expected those of a round under way"),
        ({"step": "other"}, "step of secure aggregation: expected one of keys, shares, masked, reveal"),
        ({"step": "keys"}, "'threshold' in fedmrn.secagg: expected int, got None"),
    ):
        result = site.answer("fedmrn_shares", to_task(entries), None)
        assert result.get_return_code() == ReturnCode.BAD_TASK_DATA
        assert reason in result.get_header("fedmrn.reason")


def test_the_package_is_imported_only_when_it_is_used():
    code = (
        "import sys, fedmrn_codec, fedmrn_nvflare\n"
        "print('fedmrn_secagg' in sys.modules)\n"
        "sys.modules['Crypto.Protocol.SecretSharing'] = None\n"
        "try:\n    fedmrn_nvflare.SecAgg(threshold=2)\n"
        "except fedmrn_codec.ArgumentError as error:\n    print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    expected = "BackendError SecAgg: expected the packages cryptography and pycryptodome"
    assert done.stdout.startswith(f"False\n{expected} (pip install 'fedmrn-codec[secagg]'), got ")
