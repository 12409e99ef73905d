"""The pair of filters: what passes, to the bit; what both sides refuse."""

import copy
import hashlib
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import torch
from nvflare.apis.dxo import DXO, DataKind, MetaKey, from_shareable
from nvflare.apis.event_type import EventType
from nvflare.apis.filter import ContentBlockedException
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.app_common.abstract.fl_model import FLModel, ParamsType
from nvflare_cases import MODEL, Context, Federation, bytes_of, wired, zeros

import fedmrn_codec as fm
from fedmrn_nvflare import ExactMean, FromFrame, Request, ToFrame

SCALE = np.float32(0.01)


def update():
    """One that Bernoulli noise of 0.01 and signed masks express exactly: every bit is certain."""
    return {
        "conv.weight": np.full((8, 3, 3, 3), SCALE),
        "conv.bias": np.full(8, 0.25, np.float32),
        "bn.num_batches_tracked": np.array(2),
        "linear.weight": np.full((5, 8), -SCALE),
    }


def trained():
    return {name: np.asarray(array + update()[name]) for name, array in MODEL.items()}


def rescaled(arrays):
    """What float32 makes of model + update - model: too little for a certain bit, so half the scale more."""
    return {name: np.asarray(a * 2 if "weight" in name else a) for name, a in arrays.items()}


def test_differences_come_back_to_the_bit():
    federation = Federation()
    dxo = federation.round(update(), meta={MetaKey.NUM_STEPS_CURRENT_ROUND: 7})
    assert dxo.data_kind == DataKind.WEIGHT_DIFF
    assert bytes_of(dxo.data) == bytes_of(update())
    assert dxo.meta[MetaKey.NUM_STEPS_CURRENT_ROUND] == 7
    assert MetaKey.PROCESSED_ALGORITHM not in dxo.meta
    assert dxo.get_filter_history() == ["ToFrame", "FromFrame"]


def test_what_travels_is_one_array_of_bytes():
    federation = Federation()
    federation.send()
    dxo = from_shareable(federation.reply(update()))
    (array,) = dxo.data.values()
    assert (array.dtype, array.ndim) == (np.uint8, 1)
    assert dxo.meta[MetaKey.PROCESSED_ALGORITHM] == "fedmrn/1"
    info = fm.inspect(array.tobytes())
    assert info.mask_bytes == 27 + 5
    assert info.frame_bytes == array.size < sum(a.nbytes for a in MODEL.values())


def test_codings_are_the_servers_choice():
    federation = Federation(mask="binary", coding="rans", dense_coding="float16")
    model = {"w": np.zeros((64, 64), np.float32), "b": np.zeros(8, np.float32)}
    federation.send(arrays=model)
    (array,) = from_shareable(federation.reply(model)).data.values()
    assert [entry.coding for entry in fm.inspect(array.tobytes()).tensors] == ["rans", "float16"]
    with pytest.raises(fm.ArgumentError, match="dense_coding: found 'half'"):
        Federation(dense_coding="half")


@pytest.mark.parametrize("output", ["WEIGHTS", "WEIGHT_DIFF"])
def test_full_models(output):
    federation = Federation(output=output)
    new = {name: np.asarray(a + rescaled(update())[name]) for name, a in MODEL.items()}
    dxo = federation.round(new, kind=DataKind.WEIGHTS)
    wanted = update() if output == "WEIGHT_DIFF" else trained()
    assert dxo.data_kind == output
    assert bytes_of(dxo.data) == bytes_of(wanted)


def test_the_server_alone_decides_what_it_hands_on():
    """FedAvg takes the kind of the first result for that of all: a client must not choose it."""
    federation = Federation()
    assert federation.round(trained(), kind=DataKind.WEIGHTS).data_kind == DataKind.WEIGHT_DIFF
    assert federation.round(update(), "site-2").data_kind == DataKind.WEIGHT_DIFF


def test_training_in_place_does_no_harm():
    federation = Federation()
    received = federation.send()
    arrays = from_shareable(received).data
    for name, each in rescaled(update()).items():
        arrays[name] += each
    dxo = federation.receive(federation.reply(arrays, kind=DataKind.WEIGHTS))
    assert bytes_of(dxo.data) == bytes_of(update())


def test_no_shared_data_is_changed():
    model, sent = copy.deepcopy(MODEL), update()
    federation = Federation(output="WEIGHTS")
    federation.send(arrays=model), federation.send("site-2", arrays=model)
    result = DXO(DataKind.WEIGHT_DIFF, sent, {"a": [1], MetaKey.FILTER_HISTORY: ["X"]}).to_shareable()
    before = copy.deepcopy(result)
    framed = federation.clients["site-1"].process(result, Context("server", "task-1"))
    assert from_shareable(result).meta == from_shareable(before).meta
    assert bytes_of(from_shareable(result).data) == bytes_of(from_shareable(before).data)
    assert from_shareable(framed).get_filter_history() == ["X", "ToFrame"]
    whole, framed_before = wired(framed), copy.deepcopy(from_shareable(framed).meta)
    federation.receive(framed)
    assert from_shareable(framed).meta == framed_before
    assert federation.receive(whole, "site-1").data["conv.bias"][0] == 1.25
    assert bytes_of(model) == bytes_of(MODEL)


def test_a_result_sent_twice_is_decoded_twice_alike():
    """NVFlare sends again what it does not know to have arrived, and drops the second itself."""
    federation = Federation()
    federation.send()
    result = federation.reply(update())
    assert bytes_of(federation.receive(result).data) == bytes_of(federation.receive(result).data)


def test_seeds_differ_by_client_and_task():
    federation, seen = Federation(), set()
    for task in ("task-1", "task-2"):
        for client in ("site-1", "site-2", "site-3"):
            seen.add(Request.of(from_shareable(federation.send(client, task=task)).meta).seed)
    assert len(seen) == 6


def test_a_task_sent_again_keeps_its_seed():
    federation = Federation()
    first, again = (Request.of(from_shareable(federation.send()).meta) for _ in range(2))
    assert first == again


def test_a_model_that_the_workflow_changes_in_place_is_another_model():
    """ScatterAndGather puts the new arrays into the dictionary of the old ones."""
    federation, model = Federation(output="WEIGHTS"), dict(MODEL)
    first = Request.of(from_shareable(federation.send(arrays=model)).meta)
    second = Request.of(from_shareable(federation.send("site-2", arrays=model)).meta)
    assert first.base_model == second.base_model
    model["conv.bias"] = model["conv.bias"] + 1
    late = federation.receive(federation.reply(update()))
    assert late.data["conv.bias"].tobytes() == trained()["conv.bias"].tobytes()
    third = Request.of(from_shareable(federation.send(arrays=model, task="task-2", number=1)).meta)
    assert third.base_model != first.base_model


def test_derived_seeds():
    """The rule that `choose_seed` states, worked out by hand."""
    digest = hashlib.sha256(b"fedmrn 5 3 site-1").digest()
    request = Request.of(from_shareable(Federation(seed=5).send(number=2)).meta)
    assert request.seed == int.from_bytes(digest[:8], "little")
    assert request.round == 3


def test_derived_seeds_need_a_round():
    federation = Federation(seed=5)
    federation.send(number=None)
    assert "round: found none" in federation.panics[0]


def test_workflows_without_a_round_are_served():
    assert bytes_of(Federation().round(update(), number=None).data) == bytes_of(update())


def framed(federation, arrays=None, **changed):
    """A result whose frame a client has made up itself, of the request but for what is changed."""
    request = Request.of(federation.clients["site-1"]._task.meta)
    settings = {"seed": request.seed, "round": request.round, "base_model": request.base_model}
    settings |= {"noise": request.noise, "mask": request.mask, "schema": request.schema} | changed
    frame = fm.encode(arrays or update(), **settings)
    return with_frame(np.frombuffer(frame, np.uint8))


def with_frame(array, kind=DataKind.WEIGHT_DIFF, **meta):
    meta = {MetaKey.PROCESSED_ALGORITHM: "fedmrn/1"} | meta
    return DXO(kind, {"fedmrn.frame": array}, meta).to_shareable()


def with_meta(federation, **meta):
    result = federation.reply(update())
    result["DXO"]["meta"].update(meta)
    return result


def flipped(federation):
    frame = from_shareable(framed(federation)).data["fedmrn.frame"].copy()
    frame[-9] ^= 1
    return with_frame(frame)


def other_schema():
    return fm.Schema([fm.Tensor(n, a.shape, a.ndim > 1, a.dtype.name) for n, a in reversed(MODEL.items())])


BAD = {
    "garbage": (lambda f: with_frame(np.arange(200, dtype=np.uint8)), "magic"),
    "damaged": (flipped, "checksum"),
    "cut off": (lambda f: with_frame(np.zeros(3, np.uint8)), "truncated"),
    "own seed": (lambda f: framed(f, seed=1), "seed"),
    "old round": (lambda f: framed(f, round=9), "round"),
    "other model": (lambda f: framed(f, base_model=9), "base_model"),
    "own noise": (lambda f: framed(f, noise=fm.Bernoulli(1.0)), "reply"),
    "own mask": (lambda f: framed(f, mask="binary"), "reply"),
    "own schema": (lambda f: framed(f, schema=other_schema()), "schema_mismatch"),
    "plain arrays": (lambda f: DXO(DataKind.WEIGHT_DIFF, update()).to_shareable(), "reply"),
    "frame and more": (
        lambda f: DXO(
            DataKind.WEIGHT_DIFF,
            {"fedmrn.frame": np.zeros(9, np.uint8), "x": np.zeros(1)},
            {MetaKey.PROCESSED_ALGORITHM: "fedmrn/1"},
        ).to_shareable(),
        "reply",
    ),
    "not bytes": (lambda f: with_frame(np.zeros(9)), "reply"),
    "not flat": (lambda f: with_frame(np.zeros((9, 9), np.uint8)), "reply"),
    "a list": (lambda f: with_frame([1, 2]), "reply"),
    "nothing": (lambda f: DXO(DataKind.WEIGHT_DIFF, {}).to_shareable(), "reply"),
    "unmarked": (lambda f: with_meta(f, PROCESSED_ALGORITHM=None), "reply"),
    "other kind": (lambda f: with_frame(np.zeros(9, np.uint8), DataKind.METRICS), "reply"),
    "unknown kind": (lambda f: DXO("SURPRISE", zeros()).to_shareable(), "reply"),
    "collection": (lambda f: DXO("COLLECTION", {"a": DXO("WEIGHTS", zeros())}).to_shareable(), "reply"),
    "no DXO": (lambda f: Shareable({"params": zeros()}), "reply"),
    "negative weight": (lambda f: with_meta(f, NUM_STEPS_CURRENT_ROUND=-1), "reply"),
    "no weight": (lambda f: with_meta(f, NUM_STEPS_CURRENT_ROUND=0), "reply"),
    "nan weight": (lambda f: with_meta(f, NUM_STEPS_CURRENT_ROUND=float("nan")), "reply"),
    "huge weight": (lambda f: with_meta(f, NUM_STEPS_CURRENT_ROUND=2**40), "reply"),
    "text weight": (lambda f: with_meta(f, NUM_STEPS_CURRENT_ROUND="7"), "reply"),
    "nan metric": (lambda f: with_meta(f, initial_metrics={"loss": float("nan")}), "reply"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_results_are_refused(name):
    make, code = BAD[name]
    federation = Federation()
    federation.send()
    with pytest.raises(ContentBlockedException, match=rf"result of site-1 left out \({code}\)"):
        federation.receive(make(federation))
    assert bytes_of(federation.receive(federation.reply(update())).data) == bytes_of(update())


def test_nan_in_a_frame_is_refused():
    """The codec writes none: this one is put into the bytes, with a checksum that fits."""
    federation = Federation()
    federation.send()
    frame = from_shareable(framed(federation)).data["fedmrn.frame"].tobytes()
    body = frame[:-4].replace(np.float32(0.25).tobytes() * 8, np.float32("nan").tobytes() * 8)
    assert body != frame[:-4]
    bad = body + struct.pack("<I", zlib.crc32(body))
    with pytest.raises(ContentBlockedException, match=r"\(non_finite\)"):
        federation.receive(with_frame(np.frombuffer(bad, np.uint8)))


def test_sums_beyond_the_dtype_are_refused():
    large = {"bias": np.full(8, np.finfo(np.float32).max, np.float32)}
    federation = Federation()
    federation.send(arrays=large)
    with pytest.raises(ContentBlockedException, match="an update beyond its dtype"):
        federation.receive(federation.reply(large))


def test_replay():
    federation = Federation()
    federation.send()
    old = federation.reply(update())
    with pytest.raises(ContentBlockedException, match="which was not the last one sent"):
        federation.receive(old, task="task-0")
    with pytest.raises(ContentBlockedException, match="which was not the last one sent"):
        federation.receive(old, client="site-9")
    federation.send(task="task-2", number=1)
    with pytest.raises(ContentBlockedException, match=r"\((round|seed)\)"):
        federation.receive(old, task="task-2")


def test_another_clients_frame_is_refused():
    federation = Federation()
    federation.send(), federation.send("site-2")
    with pytest.raises(ContentBlockedException, match=r"\(seed\)"):
        federation.receive(federation.reply(update()), client="site-2")


def test_failed_tasks_pass_both_filters():
    failed = make_reply(ReturnCode.EXECUTION_EXCEPTION)
    assert ToFrame().process(failed, Context("server", "t")) is failed
    assert Federation().server.process(failed, Context("site-1", "t")) is failed


def without(arrays, name):
    return {key: array for key, array in arrays.items() if key != name}


UNSENDABLE = {
    "nan": (update() | {"conv.bias": np.full(8, np.nan, np.float32)}, "argument_non_finite"),
    "masked nan": (update() | {"linear.weight": np.full((5, 8), np.nan, np.float32)}, "argument_non_finite"),
    "missing": (without(update(), "conv.bias"), "nothing for 'conv.bias'"),
    "shape": (update() | {"conv.bias": np.zeros(1, np.float32)}, "conv.bias"),
    "dtype": (update() | {"conv.bias": np.zeros(8)}, "conv.bias"),
    "no array": (update() | {"conv.bias": [0.0] * 8}, "builtins.list, required: a NumPy array"),
}


@pytest.mark.parametrize("kind", [DataKind.WEIGHTS, DataKind.WEIGHT_DIFF])
@pytest.mark.parametrize("name", UNSENDABLE)
def test_unsendable_results_stay_at_the_client(name, kind):
    data, message = UNSENDABLE[name]
    federation = Federation()
    federation.send()
    with pytest.raises(ContentBlockedException, match=message):
        federation.reply(data, kind=kind)


def test_a_client_whose_server_asks_for_no_frame_says_so():
    client = ToFrame()
    result = DXO(DataKind.WEIGHT_DIFF, update()).to_shareable()
    with pytest.raises(ContentBlockedException, match=r"required: fedmrn_nvflare\.FromFrame among the"):
        client.process(result, Context("server", "task-1"))


def test_quantised_results_are_not_masked():
    federation = Federation()
    federation.send()
    with pytest.raises(ContentBlockedException, match="processed by 'quantization'"):
        federation.reply(update(), meta={MetaKey.PROCESSED_ALGORITHM: "quantization"})


def test_full_models_of_an_external_process_are_told_what_to_do():
    """The task's arrays are then references, which that process alone follows."""
    federation = Federation()
    received = federation.send()
    received["DXO"]["data"] = {name: object() for name in MODEL}
    client = federation.clients["site-1"]
    client.handle_event(EventType.BEFORE_TASK_EXECUTION, Context("server", "task-1", received))
    with pytest.raises(ContentBlockedException, match=r"needs params_transfer_type=TransferType\.DIFF"):
        federation.reply(trained(), kind=DataKind.WEIGHTS)
    assert bytes_of(federation.receive(federation.reply(update())).data) == bytes_of(update())


def test_tensors_of_a_framework_are_named():
    federation = Federation()
    data = DXO(DataKind.WEIGHTS, {"weight": torch.ones(2, 3)}).to_shareable()
    federation.server.handle_event(EventType.BEFORE_TASK_DATA_FILTER, Context("site-1", "task-1", data))
    assert "'weight' of the task: found torch.Tensor, required: a NumPy array" in federation.panics[0]


MIXED = {
    "half": np.full((2, 3), 2, np.float16),
    "double": np.full((2, 3), 2, np.float64),
    "double-bias": np.full(3, 2, np.float64),
    "half-bias": np.full(3, 2, np.float16),
    "scalar": np.array(2, np.float32),
    "empty": np.zeros((0, 4), np.float32),
    "bytes": np.full((2, 2), 255, np.uint8),
    "int64": np.array(2**40),
}


@pytest.mark.parametrize("output", ["WEIGHTS", "WEIGHT_DIFF"])
@pytest.mark.parametrize("kind", [DataKind.WEIGHTS, DataKind.WEIGHT_DIFF])
def test_dtypes_as_they_come(kind, output):
    step = {name: np.ones_like(array) for name, array in MIXED.items()}
    step |= {name: np.zeros_like(MIXED[name]) for name in ("half", "double")}
    new = {name: np.asarray(array + step[name]) for name, array in MIXED.items()}
    federation = Federation(output=output, noise="bernoulli:0.5")
    dxo = federation.round(new if kind == "WEIGHTS" else step, kind=kind, arrays=MIXED)
    wanted = new if output == "WEIGHTS" else step
    dense = [name for name in MIXED if name not in ("half", "double", "empty")]
    assert {n: (a.dtype, a.shape) for n, a in dxo.data.items()} == {
        n: (a.dtype, a.shape) for n, a in wanted.items()
    }
    for name in dense:
        assert dxo.data[name].tobytes() == wanted[name].tobytes(), name


def test_masked_and_left_out():
    federation = Federation(masked=["linear.weight"], leave_out=["conv.weight"], output="WEIGHTS")
    dxo = federation.round(update(), arrays=MODEL)
    assert bytes_of(dxo.data) == bytes_of(trained() | {"conv.weight": MODEL["conv.weight"]})
    schema = Request.of(from_shareable(federation.send()).meta).schema
    assert [(t.name, t.masked) for t in schema] == [
        ("conv.bias", False),
        ("bn.num_batches_tracked", False),
        ("linear.weight", True),
    ]


@pytest.mark.parametrize(
    ("arrays", "settings", "message"),
    [
        (MODEL, {"masked": ["nowhere"]}, "'nowhere'"),
        (MODEL, {"leave_out": ["nowhere"]}, "'nowhere'"),
        (MODEL, {"masked": ["bn.num_batches_tracked"]}, "int64, required: a float"),
        ({"flag": np.array(True)}, {}, "bool, which NVFlare cannot average"),
        ({"c": np.ones(2, np.complex64)}, {}, "complex64"),
    ],
)
def test_models_that_cannot_be_asked_for_end_the_job(arrays, settings, message):
    federation = Federation(**settings)
    federation.send(arrays=arrays)
    assert message in federation.panics[0]


@pytest.mark.parametrize(
    "settings",
    [
        {"noise": 0.01},
        {"noise": "uniform"},
        {"noise": "uniform:0"},
        {"noise": "uniform:0.1", "mask": "both"},
        {"noise": "uniform:0.1", "output": "METRICS"},
    ],
)
def test_bad_settings(settings):
    with pytest.raises(fm.ArgumentError, match="required"):
        FromFrame(**settings)


def accepted(federation, aggregator, client, weight, metrics=None):
    """One client's round, into the aggregator as FedAvg does it."""
    meta = {MetaKey.NUM_STEPS_CURRENT_ROUND: weight}
    step = {name: np.asarray(array * weight, array.dtype) for name, array in update().items()}
    dxo = federation.round(step, client, meta=meta)
    model = FLModel(
        params=dxo.data,
        params_type=ParamsType.DIFF,
        metrics=metrics,
        meta={**dxo.meta, "client_name": client},
    )
    aggregator.accept_model(model)


def test_exact_mean_has_the_same_bytes_in_any_order():
    results = []
    for order in ((1, 2, 3), (3, 1, 2)):
        federation, aggregator = Federation(output="FRAME", seed=1), ExactMean()
        for weight in order:
            accepted(federation, aggregator, f"site-{weight}", weight, {"accuracy": weight / 4})
        mean = aggregator.aggregate_model()
        assert mean.params_type == ParamsType.DIFF
        assert mean.metrics["accuracy"] == pytest.approx((1 + 4 + 9) / 6 / 4)
        assert mean.params["conv.bias"][0] == np.float32(0.25 * (1 + 4 + 9) / 6)
        results.append(bytes_of(mean.params))
    assert results[0] == results[1]


def test_exact_mean_of_nothing_changes_nothing():
    mean = ExactMean().aggregate_model()
    assert (mean.params, mean.params_type) == ({}, ParamsType.DIFF)


def test_exact_mean_needs_frames():
    with pytest.raises(fm.ArgumentError, match="required: FromFrame"):
        ExactMean().accept_model(FLModel(params=update()))


def test_the_adapter_does_without_torch():
    script = "import sys, fedmrn_nvflare; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0
