"""The two filters: results that pass are restored to the bit; both sides refuse bad ones."""

import copy
import gc
import hashlib
import struct
import subprocess
import sys
import weakref
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
from nvflare.app_common.utils.fl_model_utils import FLModelUtils
from nvflare_cases import MODEL, Context, Federation, bytes_of, wired, zeros

import fedmrn_codec as fm
from fedmrn_codec import errors
from fedmrn_codec.format import checked
from fedmrn_codec.format.parsing import parse
from fedmrn_nvflare import ExactMean, FromFrame, Request, ToFrame
from fedmrn_nvflare.arrays import _checked_frames

SCALE = np.float32(0.01)


def update():
    """An update that Bernoulli noise of 0.01 and signed masks represent exactly; no bit is random."""
    return {
        "conv.weight": np.full((8, 3, 3, 3), SCALE),
        "conv.bias": np.full(8, 0.25, np.float32),
        "bn.num_batches_tracked": np.array(2),
        "linear.weight": np.full((5, 8), -SCALE),
    }


def trained():
    return {name: np.asarray(array + update()[name]) for name, array in MODEL.items()}


def rescaled(arrays):
    """Masked updates doubled: rounding in model + update - model could otherwise leave a bit random."""
    return {name: np.asarray(a * 2 if "weight" in name else a) for name, a in arrays.items()}


def test_differences_come_back_to_the_bit():
    federation = Federation()
    dxo = federation.round(update(), meta={MetaKey.NUM_STEPS_CURRENT_ROUND: 7})
    assert dxo.data_kind == DataKind.WEIGHT_DIFF
    assert bytes_of(dxo.data) == bytes_of(update())
    assert dxo.meta[MetaKey.NUM_STEPS_CURRENT_ROUND] == 7
    assert MetaKey.PROCESSED_ALGORITHM not in dxo.meta
    assert dxo.get_filter_history() == ["ToFrame", "FromFrame"]


def test_a_result_holds_one_array_of_bytes():
    federation = Federation()
    federation.send()
    dxo = from_shareable(federation.reply(update()))
    (array,) = dxo.data.values()
    assert (array.dtype, array.ndim) == (np.uint8, 1)
    assert dxo.meta[MetaKey.PROCESSED_ALGORITHM] == "fedmrn/1"
    info = fm.inspect(array.tobytes())
    assert info.mask_bytes == 27 + 5
    assert info.frame_bytes == array.size < sum(a.nbytes for a in MODEL.values())


@pytest.mark.parametrize("limits", [{"max_schema_bytes": 10}, fm.Limits(max_schema_bytes=10)])
def test_limits_are_those_of_the_frames_that_clients_send(limits):
    federation = Federation(limits=limits)
    assert FromFrame(limits=federation.server.limits).limits == federation.server.limits  # as in a job's JSON
    sent = from_shareable(federation.send())
    embedding = Request.of(sent.meta).encode(update(), embed_schema=True)
    result = federation.reply(update())
    dxo = from_shareable(result)
    dxo.data[next(iter(dxo.data))] = np.frombuffer(embedding, np.uint8)
    dxo.update_shareable(result)
    with pytest.raises(
        ContentBlockedException, match=r"\(limit\): schema length, byte 48: expected at most 10"
    ):
        federation.receive(result)
    with pytest.raises(fm.ArgumentError, match=r"limits: expected fields of fedmrn_codec.Limits"):
        Federation(limits={"max_bytes": 10})


def test_frames_have_the_requested_codings():
    federation = Federation(mask="binary", coding="rans", dense_coding="float16")
    model = {"w": np.zeros((64, 64), np.float32), "b": np.zeros(8, np.float32)}
    federation.send(arrays=model)
    (array,) = from_shareable(federation.reply(model)).data.values()
    assert [entry.coding for entry in fm.inspect(array.tobytes()).tensors] == ["rans", "float16"]
    with pytest.raises(fm.ArgumentError, match=r"^dense_coding: expected one of raw, .*, got 'half'$"):
        Federation(dense_coding="half")


@pytest.mark.parametrize("output", ["WEIGHTS", "WEIGHT_DIFF"])
def test_full_models(output):
    federation = Federation(output=output)
    new = {name: np.asarray(a + rescaled(update())[name]) for name, a in MODEL.items()}
    dxo = federation.round(new, kind=DataKind.WEIGHTS)
    expected = update() if output == "WEIGHT_DIFF" else trained()
    assert dxo.data_kind == output
    assert bytes_of(dxo.data) == bytes_of(expected)


def test_the_output_does_not_depend_on_what_the_client_sends():
    """FedAvg assumes that all results are of the first one's kind; a client must not choose it."""
    federation = Federation()
    assert federation.round(trained(), kind=DataKind.WEIGHTS).data_kind == DataKind.WEIGHT_DIFF
    assert federation.round(update(), "site-2").data_kind == DataKind.WEIGHT_DIFF


def test_training_in_place_does_not_change_the_base():
    federation = Federation()
    received = federation.send()
    arrays = from_shareable(received).data
    for name, each in rescaled(update()).items():
        arrays[name] += each
    dxo = federation.receive(federation.reply(arrays, kind=DataKind.WEIGHTS))
    assert bytes_of(dxo.data) == bytes_of(update())


def test_the_filters_change_no_input():
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


def test_a_result_sent_twice_is_decoded_to_the_same_arrays():
    """NVFlare repeats a result if it has no confirmation, and drops the second one itself."""
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


def test_a_task_sent_again_has_the_same_seed():
    federation = Federation()
    first, again = (Request.of(from_shareable(federation.send()).meta) for _ in range(2))
    assert first == again


def test_a_model_that_the_workflow_changes_in_place_gets_a_new_id():
    """ScatterAndGather writes the new arrays into the dictionary of the old ones."""
    federation, model = Federation(output="WEIGHTS"), dict(MODEL)
    first = Request.of(from_shareable(federation.send(arrays=model)).meta)
    second = Request.of(from_shareable(federation.send("site-2", arrays=model)).meta)
    assert first.base_model == second.base_model
    model["conv.bias"] = model["conv.bias"] + 1
    late = federation.receive(federation.reply(update()))
    assert late.data["conv.bias"].tobytes() == trained()["conv.bias"].tobytes()
    third = Request.of(from_shareable(federation.send(arrays=model, task="task-2", number=1)).meta)
    assert third.base_model != first.base_model


def test_other_tasks_get_no_request():
    """FedAvg's `validate` sends weights too, and with a NaN in them it ended the job."""
    federation = Federation(None, "binary", tasks=["train"])
    bad = MODEL | {"linear.weight": np.full((5, 8), np.nan, np.float32)}
    assert "fedmrn" not in from_shareable(federation.send(arrays=bad, name="validate")).meta
    assert not federation.panics
    federation.send(arrays=bad, task="task-2")
    assert "'linear.weight'" in federation.panics[0]
    assert FromFrame("uniform:0.1", tasks=("train",)).tasks == ["train"]
    with pytest.raises(fm.ArgumentError, match="tasks: expected a sequence of names, got 'train'"):
        FromFrame("uniform:0.1", tasks="train")


@pytest.mark.parametrize("answer", ["frame", "failed", "bad"])
def test_models_of_rounds_before_are_freed(answer):
    federation, alive = Federation(), []
    for number in range(4):
        model = {name: array.copy() for name, array in MODEL.items()}
        alive.append(weakref.ref(model["conv.weight"]))
        federation.send(f"site-{number}", model, number=number)
        if answer == "frame":
            federation.receive(federation.reply(update(), f"site-{number}"), f"site-{number}")
        elif answer == "failed":
            failed = make_reply(ReturnCode.EXECUTION_EXCEPTION)
            federation.server.process(failed, Context(f"site-{number}", "task-1"))
        else:
            with pytest.raises(ContentBlockedException):
                federation.receive(DXO(DataKind.WEIGHT_DIFF, update()).to_shareable(), f"site-{number}")
        del model
    gc.collect()
    assert [ref() is None for ref in alive] == [True, True, True, False]


def test_derived_seeds():
    """The rule in the documentation of `choose_seed`, computed here."""
    digest = hashlib.sha256(b"fedmrn 5 3 site-1").digest()
    request = Request.of(from_shareable(Federation(seed=5).send(number=2)).meta)
    assert request.seed == int.from_bytes(digest[:8], "little")
    assert request.round == 3


def test_derived_seeds_need_a_round():
    federation = Federation(seed=5)
    federation.send(number=None)
    assert "round: expected at least 1, since the seeds are derived from it, got 0" in federation.panics[0]


def test_a_workflow_without_rounds():
    assert bytes_of(Federation().round(update(), number=None).data) == bytes_of(update())


def framed(federation, arrays=None, **changed):
    """A result with a frame that follows the request, except for the settings in `changed`."""
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
    "nan in a list": (lambda f: with_meta(f, initial_metrics={"loss": [0.5, [float("nan")]]}), "reply"),
    "infinity in a dict": (lambda f: with_meta(f, initial_metrics={"a": {"b": (float("inf"),)}}), "reply"),
    "nan in an array in a list": (
        lambda f: with_meta(f, initial_metrics={"loss": [np.array([1, np.nan])]}),
        "reply",
    ),
    "integer beyond a float": (lambda f: with_meta(f, initial_metrics={"loss": 10**400}), "reply"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_results_are_refused(name):
    make, code = BAD[name]
    federation = Federation()
    federation.send()
    with pytest.raises(ContentBlockedException, match=rf"refused the result of site-1 \({code}\): "):
        federation.receive(make(federation))
    assert bytes_of(federation.receive(federation.reply(update())).data) == bytes_of(update())


def test_nan_in_a_frame_is_refused():
    """The codec does not encode a NaN; this test writes one into the bytes, with a matching checksum."""
    federation = Federation()
    federation.send()
    frame = from_shareable(framed(federation)).data["fedmrn.frame"].tobytes()
    body = frame[:-4].replace(np.float32(0.25).tobytes() * 8, np.float32("nan").tobytes() * 8)
    assert body != frame[:-4]
    bad = body + struct.pack("<I", zlib.crc32(body))
    with pytest.raises(
        ContentBlockedException,
        match=r"\(non_finite\): payload of 'conv.bias', byte \d+: expected finite values",
    ):
        federation.receive(with_frame(np.frombuffer(bad, np.uint8)))


def test_an_update_that_makes_the_model_infinite_is_refused():
    large = {"bias": np.full(8, np.finfo(np.float32).max, np.float32)}
    federation = Federation()
    federation.send(arrays=large)
    message = "tensor 'bias': expected a finite sum with the base model, got a NaN or an infinity"
    with pytest.raises(ContentBlockedException, match=message):
        federation.receive(federation.reply(large))


TASK = "task: expected {}, the last one sent to {}, got '{}'"


def test_a_replayed_result_is_refused():
    federation = Federation()
    federation.send()
    old = federation.reply(update())
    with pytest.raises(ContentBlockedException, match=TASK.format("'task-1'", "site-1", "task-0")):
        federation.receive(old, task="task-0")
    with pytest.raises(ContentBlockedException, match="task: expected an open one, got 'task-1'"):
        federation.receive(old, client="site-9")
    federation.send(task="task-2", number=1)
    with pytest.raises(ContentBlockedException, match=r"\(round\): round, byte 24: expected 2, got 1"):
        federation.receive(old, task="task-2")


def test_another_clients_frame_is_refused():
    federation = Federation()
    federation.send(), federation.send("site-2")
    with pytest.raises(ContentBlockedException, match=r"\(seed\): seed, byte 8: expected \d+, got \d+"):
        federation.receive(federation.reply(update()), client="site-2")


def test_failed_tasks_pass_both_filters():
    failed = make_reply(ReturnCode.EXECUTION_EXCEPTION)
    assert ToFrame().process(failed, Context("server", "t")) is failed
    assert Federation().server.process(failed, Context("site-1", "t")) is failed


def without(arrays, name):
    return {key: array for key, array in arrays.items() if key != name}


UNSENDABLE = {
    "nan": (
        update() | {"conv.bias": np.full(8, np.nan, np.float32)},
        r"\(argument_non_finite\): 'conv.bias': expected finite values, got a NaN or an infinity",
    ),
    "masked nan": (
        update() | {"linear.weight": np.full((5, 8), np.nan, np.float32)},
        r"\(argument_non_finite\): 'linear.weight': expected finite values, got a NaN or an infinity",
    ),
    "missing": (
        without(update(), "conv.bias"),
        "(update|trained arrays): expected every name of the schema, got nothing for 'conv.bias'",
    ),
    "shape": (
        update() | {"conv.bias": np.zeros(1, np.float32)},
        r"'conv.bias': expected (\(8,\), as in the schema, got \(1,\)"
        r"|float32\[8\], as received, got float32\[1\])",
    ),
    "dtype": (
        update() | {"conv.bias": np.zeros(8)},
        r"'conv.bias': expected float32(, as in the schema, got float64"
        r"|\[8\], as received, got float64\[8\])",
    ),
    "no array": (
        update() | {"conv.bias": [0.0] * 8},
        r"'conv.bias' of the result: expected a NumPy array .*, got builtins.list",
    ),
}


@pytest.mark.parametrize("kind", [DataKind.WEIGHTS, DataKind.WEIGHT_DIFF])
@pytest.mark.parametrize("name", UNSENDABLE)
def test_a_client_refuses_to_send_what_it_cannot_encode(name, kind):
    data, message = UNSENDABLE[name]
    federation = Federation()
    federation.send()
    with pytest.raises(ContentBlockedException, match=message):
        federation.reply(data, kind=kind)


def test_a_client_needs_a_request():
    client = ToFrame()
    result = DXO(DataKind.WEIGHT_DIFF, update()).to_shareable()
    with pytest.raises(
        ContentBlockedException,
        match=r"task: expected a request \(is fedmrn_nvflare.FromFrame .*\), got none",
    ):
        client.process(result, Context("server", "task-1"))


def test_quantised_results_are_refused():
    federation = Federation()
    federation.send()
    with pytest.raises(
        ContentBlockedException,
        match=r"result: expected plain arrays \(ToFrame must be .*\), got the output of 'quantization'",
    ):
        federation.reply(update(), meta={MetaKey.PROCESSED_ALGORITHM: "quantization"})


def test_the_error_for_full_models_of_an_external_process_says_what_to_do():
    """The arrays of the task are then references, which only that process can resolve."""
    federation = Federation()
    received = federation.send()
    received["DXO"]["data"] = {name: object() for name in MODEL}
    client = federation.clients["site-1"]
    client.handle_event(EventType.BEFORE_TASK_EXECUTION, Context("server", "task-1", received))
    with pytest.raises(
        ContentBlockedException,
        match=r"of the task: expected a NumPy array \(.*params_transfer_type=TransferType\.DIFF\)",
    ):
        federation.reply(trained(), kind=DataKind.WEIGHTS)
    assert bytes_of(federation.receive(federation.reply(update())).data) == bytes_of(update())


def test_a_frameworks_tensors_are_refused():
    federation = Federation()
    data = DXO(DataKind.WEIGHTS, {"weight": torch.ones(2, 3)}).to_shareable()
    federation.server.handle_event(EventType.BEFORE_TASK_DATA_FILTER, Context("site-1", "task-1", data))
    expected = "a NumPy array (server_expected_format=ExchangeFormat.NUMPY)"
    assert f"'weight' of the task: expected {expected}, got torch.Tensor" in federation.panics[0]


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
def test_every_dtype_is_preserved(kind, output):
    step = {name: np.ones_like(array) for name, array in MIXED.items()}
    step |= {name: np.zeros_like(MIXED[name]) for name in ("half", "double")}
    new = {name: np.asarray(array + step[name]) for name, array in MIXED.items()}
    federation = Federation(output=output, noise="bernoulli:0.5")
    dxo = federation.round(new if kind == "WEIGHTS" else step, kind=kind, arrays=MIXED)
    expected = new if output == "WEIGHTS" else step
    dense = [name for name in MIXED if name not in ("half", "double", "empty")]
    assert {n: (a.dtype, a.shape) for n, a in dxo.data.items()} == {
        n: (a.dtype, a.shape) for n, a in expected.items()
    }
    for name in dense:
        assert dxo.data[name].tobytes() == expected[name].tobytes(), name


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
        (
            MODEL,
            {"masked": ["nowhere"]},
            "masked and leave_out: expected names of the model's arrays, got 'nowhere'",
        ),
        (
            MODEL,
            {"leave_out": ["nowhere"]},
            "masked and leave_out: expected names of the model's arrays, got 'nowhere'",
        ),
        (
            MODEL,
            {"masked": ["bn.num_batches_tracked"]},
            "dtype of masked 'bn.num_batches_tracked': expected a float, got int64",
        ),
        (
            {"flag": np.array(True)},
            {},
            "dtype of 'flag': expected a dtype that NVFlare can average "
            "(or name the array in leave_out), got bool",
        ),
        ({"c": np.ones(2, np.complex64)}, {}, "uint64, bool, got 'complex64'"),
    ],
)
def test_a_model_without_a_valid_schema_ends_the_job(arrays, settings, message):
    federation = Federation(**settings)
    federation.send(arrays=arrays)
    assert federation.panics[0].startswith("fedmrn: cannot make a request for this model: ")
    assert federation.panics[0].endswith(message)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"noise": 0.01}, "noise: expected Uniform, Gaussian or Bernoulli, got 0.01"),
        (
            {"noise": "uniform"},
            "noise: expected NAME:SCALE, NAME of uniform, gaussian, bernoulli, got 'uniform'",
        ),
        (
            {"noise": "uniform:0"},
            "noise scale: expected 1.97215e-31 to 3.40282e+38 for uniform noise, got 0",
        ),
        ({"noise": "uniform:0.1", "mask": "both"}, "mask: expected one of binary, signed, got 'both'"),
        (
            {"noise": "uniform:0.1", "output": "METRICS"},
            "output: expected one of WEIGHT_DIFF, WEIGHTS, FRAME, got 'METRICS'",
        ),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(fm.CodecError) as caught:
        FromFrame(**settings)
    assert str(caught.value) == message


def accepted(federation, aggregator, client, weight, metrics=None):
    """Pass one client's result of a round to the aggregator, in the form that FedAvg uses."""
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


@pytest.mark.parametrize(
    ("weight", "metrics"),
    [
        (3, {"accuracy": float("nan")}),
        (3, {"loss": [0.5, float("inf")]}),
        (3, {"accuracy": np.array([0.5, np.nan])}),
        (3, {"accuracy": 10**400}),
        ("3", {}),
        (float("nan"), {}),
        (float("inf"), {}),
        ([3], {}),
        (True, {}),
        (2.5, {}),
    ],
    ids=str,
)
def test_exact_mean_looks_at_all_of_a_reply_before_it_adds_the_frame(weight, metrics):
    federation, aggregator = Federation(output="FRAME"), ExactMean()
    accepted(federation, aggregator, "site-1", 1, {"accuracy": 0.5})
    dxo = federation.round(update(), "site-2")
    meta = {**dxo.meta, MetaKey.NUM_STEPS_CURRENT_ROUND: weight, "client_name": "site-2"}
    with pytest.raises(fm.CodecError):
        aggregator.accept_model(
            FLModel(params=dxo.data, params_type=ParamsType.DIFF, metrics=metrics, meta=meta)
        )
    mean = aggregator.aggregate_model()
    assert (aggregator._sum.frames, mean.metrics) == (1, {"accuracy": 0.5})


def test_exact_mean_leaves_out_metrics_that_it_cannot_add():
    federation, aggregator = Federation(output="FRAME"), ExactMean()
    accepted(federation, aggregator, "site-1", 1, {"accuracy": 0.5, "by class": np.array([1.0, 2.0])})
    accepted(federation, aggregator, "site-2", 1, {"accuracy": np.array([1, 2, 3]), "by class": np.zeros(3)})
    accepted(federation, aggregator, "site-3", 1, {"accuracy": 0.7, "by class": np.array([3.0, 4.0])})
    mean = aggregator.aggregate_model()
    assert aggregator._sum.frames == 3
    assert mean.metrics["accuracy"] == pytest.approx(0.6)
    assert mean.metrics["by class"].tolist() == [2.0, 3.0]


def test_exact_mean_without_frames_has_no_arrays():
    mean = ExactMean().aggregate_model()
    assert (mean.params, mean.params_type) == ({}, ParamsType.DIFF)


def test_exact_mean_needs_frames():
    expected = r'^params: expected one frame, from FromFrame\(..., output="FRAME"\), got no frame$'
    with pytest.raises(fm.ArgumentError, match=expected):
        ExactMean().accept_model(FLModel(params=update()))


def difference(params, meta):
    return FLModel(params=params, params_type=ParamsType.DIFF, meta=meta)


@pytest.fixture
def parsed(monkeypatch):
    """The frames that are parsed during a test."""
    out = []
    monkeypatch.setattr(checked, "parse", lambda view, *args: out.append(view) or parse(view, *args))
    return out


@pytest.mark.parametrize("output", ["FRAME", "WEIGHT_DIFF", "WEIGHTS"])
def test_each_frame_is_parsed_once(output, parsed):
    federation, aggregator = Federation(output=output), ExactMean()
    for number in (1, 2, 3):
        dxo = federation.round(update(), f"site-{number}")
        if output == "FRAME":
            aggregator.accept_model(FLModelUtils.from_shareable(dxo.to_shareable()))  # as FedAvg does
    assert len(parsed) == 3


def test_exact_mean_checks_a_frame_that_no_filter_of_this_process_has_checked(parsed):
    dxo = Federation(output="FRAME").round(update())
    received = from_shareable(wired(dxo.to_shareable())).data["fedmrn.frame"]  # from another process
    for array in (received, dxo.data["fedmrn.frame"].copy()):
        parsed.clear()
        aggregator = ExactMean()
        aggregator.accept_model(difference({"fedmrn.frame": array}, dxo.meta))
        assert [bytes(view) for view in parsed] == [array.tobytes()]
        assert bytes_of(aggregator.aggregate_model().params) == bytes_of(update())
    damaged = received.copy()
    damaged[-9] ^= 1
    with pytest.raises(errors.ChecksumError, match=r"^checksum, byte \d+: expected 0x"):
        ExactMean().accept_model(difference({"fedmrn.frame": damaged}, dxo.meta))
    of_seed_1 = {"fedmrn": dxo.meta["fedmrn"] | {"seed": 1}}
    with pytest.raises(errors.SeedError, match=r"^seed, byte 8: expected 1, got \d+"):
        ExactMean().accept_model(difference(dxo.data, of_seed_1))


def test_a_checked_frame_is_freed_with_its_array():
    gc.collect()
    before = len(_checked_frames)
    dxo = Federation(output="FRAME").round(update())
    assert len(_checked_frames) == before + 1
    del dxo
    gc.collect()
    assert len(_checked_frames) == before


def test_the_adapter_does_not_import_torch():
    script = "import sys, fedmrn_nvflare; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0
