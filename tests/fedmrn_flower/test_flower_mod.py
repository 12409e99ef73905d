"""Flower clients: the mod, and masks trained with PSM."""

import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from flower_cases import (
    MODEL,
    frame_of,
    honest,
    messages_of,
    network,
    record,
    through,
    train_with_psm,
    trained,
    without_mod,
)
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.clientapp.mod import fixedclipping_mod
from flwr.common.constant import ErrorCode
from flwr.serverapp.strategy import FedAvg

import fedmrn_codec as fm
import fedmrn_flower
from fedmrn_flower import FedMRN, Request, Uniform, mod


def assigned(mask="binary", arrays=None, **options):
    """One message of a round, as its client receives it."""
    strategy = FedMRN(
        FedAvg(min_available_nodes=1, min_train_nodes=1), noise=Uniform(0.01), mask=mask, **options
    )
    return messages_of(strategy, [1], arrays=arrays)[0]


def reply_with(message, arrays):
    numbers = MetricRecord({"num-examples": 1})
    return Message(RecordDict({"arrays": record(arrays), "metrics": numbers}), reply_to=message)


@pytest.mark.parametrize("mask", ["binary", "signed"])
def test_the_reply_holds_the_requested_frame(mask):
    message = assigned(mask)
    request = Request.of(message)
    reply = through(honest, message)
    info = fm.verify(
        frame_of(reply), request.schema, seed=request.seed, round=1, base_model=request.base_model
    )
    assert [entry.kind for entry in info.tensors] == [mask, "dense", "dense", mask]
    arrays = fm.decode(frame_of(reply), request.schema)
    noise = fm.noise(Uniform(0.01), seed=request.seed, stream=0, count=216).reshape(8, 3, 3, 3)
    assert np.isin(arrays["conv.weight"], [*noise.ravel(), *(-noise.ravel()), 0]).all()
    received, now = message.content["arrays"], trained(message)
    assert arrays["conv.bias"].tobytes() == (now["conv.bias"] - received["conv.bias"].numpy()).tobytes()
    assert arrays["bn.num_batches_tracked"] == 7
    own = {"fedmrn.clipped": 0.0, "fedmrn.held": request.base_model}
    assert reply.content["metrics"] == {"num-examples": 10, "loss": 0.5} | own


def test_masks_are_the_update_on_average():
    arrays = {"w": np.zeros((100, 1000), np.float32)}
    message = assigned(arrays=record(arrays), mask="signed")
    reply = through(lambda m: reply_with(m, {"w": np.full((100, 1000), 0.002, np.float32)}), message)
    decoded = fm.decode(frame_of(reply), Request.of(message).schema)["w"]
    noise = fm.noise(Uniform(0.01), seed=Request.of(message).seed, stream=0, count=100_000)
    reached = np.clip(0.002 / np.abs(noise), 0, 1) * np.abs(noise)
    assert abs(decoded.mean() - reached.mean()) < 1e-4


def test_frames_have_the_requested_codings():
    arrays = record({"w": np.zeros((64, 64), np.float32), "b": np.zeros(8, np.float32)})
    message = assigned(arrays=arrays, coding="rans", dense_coding="float16")
    reply = through(lambda m: Message(RecordDict({"arrays": arrays}), reply_to=m), message)
    assert [entry.coding for entry in fm.inspect(frame_of(reply)).tensors] == ["rans", "float16"]
    with pytest.raises(fm.ArgumentError, match=r"^coding: expected one of raw, rans, rans12, got 'zip'"):
        FedMRN(FedAvg(), noise=Uniform(0.01), coding="zip")


def test_two_encodings_of_one_update_differ():
    message = assigned()
    assert frame_of(through(honest, message)) != frame_of(through(honest, message))


def test_without_a_request_nothing_changes():
    content = RecordDict({"arrays": record(), "config": ConfigRecord({"lr": 0.1})})
    message = Message(content, dst_node_id=1, message_type="train")
    reply = through(honest, message)
    assert list(reply.content["arrays"]) == list(MODEL)


def test_an_error_reply_passes_unchanged():
    reply = through(lambda message: Message(Error(2, "no data"), reply_to=message), assigned())
    assert reply.error == Error(2, "no data")


def test_a_frame_passes_unchanged():
    message = assigned()
    ready = through(honest, message)
    assert frame_of(through(lambda _: ready, message)) == frame_of(ready)


def nan(arrays):
    arrays["conv.weight"][0, 0, 0, 0] = np.nan


def infinite(arrays):
    arrays["conv.bias"][0] = np.inf


def broadcast(arrays):
    arrays["conv.bias"] = np.ones(1, np.float32)


def wider(arrays):
    arrays["conv.bias"] = arrays["conv.bias"].astype(np.float64)


def missing(arrays):
    del arrays["linear.weight"]


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (nan, "'conv.weight': expected finite values, got a NaN or an infinity"),
        (infinite, "'conv.bias': expected finite values, got a NaN or an infinity"),
        (broadcast, "trained 'conv.bias': expected float32[8], as received, got float32[1]"),
        (wider, "trained 'conv.bias': expected float32[8], as received, got float64[8]"),
        (missing, "trained arrays: expected every name of the schema, got nothing for 'linear.weight'"),
    ],
)
def test_what_cannot_be_encoded_is_an_error_reply(spoil, reason):
    def train(message):
        arrays = trained(message)
        spoil(arrays)
        return reply_with(message, arrays)

    reply = through(train, assigned())
    assert reply.has_error()
    assert reply.error.code == ErrorCode.MOD_FAILED_PRECONDITION
    assert reply.error.reason == f"fedmrn: {reason}"


def test_two_array_records_are_an_error_reply():
    def train(message):
        reply = honest(message)
        reply.content["more"] = record()
        return reply

    reason = through(train, assigned()).error.reason
    assert reason == "fedmrn: number of ArrayRecords in the reply: expected 1, got 2"


def test_a_damaged_request_is_an_error_reply():
    message = assigned()
    del message.content["config"]["fedmrn.noise"]
    reason = through(honest, message).error.reason
    assert reason == "fedmrn: request entry 'noise': expected str or list, got NoneType"


def test_flowers_own_mods_still_work():
    message = assigned()
    message.content["config"]["clipping_norm"] = 1.0  # as its server-side wrapper sends it
    reply = through(honest, message, mods=(mod, fixedclipping_mod))
    bias = fm.decode(frame_of(reply), Request.of(message).schema)["conv.bias"]
    full = 0.002 * np.sqrt(8)
    assert 0.1 * full < np.linalg.norm(bias) < 0.2 * full  # the counter takes 7 of the norm


def test_a_message_survives_flowers_serialisation():
    message = assigned()
    config = message.content["config"]
    assert ConfigRecord.inflate(config.deflate()) == config
    assert Request.find(message).seed == config["fedmrn.seed"]


DTYPES = {
    "half": np.full((2, 3), 2, np.float16),
    "double": np.full((2, 3), 2, np.float64),
    "big-endian": np.full((2, 3), 2, ">f4"),
    "double-bias": np.full(3, 2, np.float64),
    "half-bias": np.full(3, 2, np.float16),
    "scalar": np.array(2, np.float32),
    "empty": np.zeros((0, 4), np.float32),
    "bytes": np.full((2, 2), 255, np.uint8),
    "int64": np.array(2**40),
    "bool": np.array([True, False]),
}


def test_every_dtype_is_preserved():
    strategy = FedMRN(FedAvg(min_available_nodes=1, min_train_nodes=1), noise=Uniform(0.01))
    (message,) = messages_of(strategy, [1], arrays=record(DTYPES))
    new = {
        "bool": np.array([False, False]),
        "bytes": np.full((2, 2), 3, np.uint8),  # wraps around
        "int64": np.array(2**40 + 1),
        "half-bias": np.full(3, 2.5, np.float16),
        "double-bias": np.full(3, 2 + 2**-40),
    }
    reply = through(lambda m: reply_with(m, DTYPES | new), message)
    arrays, _ = strategy.aggregate_train(1, [reply])
    got = {name: array.numpy() for name, array in arrays.items()}
    assert {name: (a.dtype, a.shape) for name, a in got.items()} == {
        name: (a.dtype, a.shape) for name, a in DTYPES.items()
    }
    for name in new:
        assert got[name].tobytes() == new[name].tobytes(), name
    assert all((got[name] == 2).all() for name in ("half", "double", "big-endian", "scalar"))


@pytest.mark.parametrize("mods", [(), (mod,)])
def test_masks_trained_with_psm(mods):
    downlink = "grid" if mods else "raw"
    fedavg = FedAvg(min_available_nodes=1, min_train_nodes=1)
    strategy = FedMRN(fedavg, noise=Uniform(0.01), mask="signed", downlink=downlink)
    start = ArrayRecord(network().state_dict())
    (message,) = messages_of(strategy, [1], arrays=start)
    reply = through(train_with_psm, message, mods)
    arrays, metrics = strategy.aggregate_train(1, [reply])
    assert metrics["fedmrn.clients"] == 1
    assert list(arrays) == list(start)
    moved = np.abs(arrays["0.weight"].numpy() - start["0.weight"].numpy())
    assert 0 < moved.max() <= 0.0100001
    assert arrays["1.num_batches_tracked"].numpy() == 3
    network().load_state_dict(arrays.to_torch_state_dict())


def test_psm_needs_a_request():
    message = Message(RecordDict({"arrays": record()}), dst_node_id=1, message_type="train")
    with pytest.raises(
        fm.ArgumentError, match=r"^message: expected a request \(does fedmrn_flower.FedMRN wrap .*, got none"
    ):
        fedmrn_flower.psm(network(), message, steps=1)


def test_psm_for_another_model_names_the_remedy():
    message = assigned(arrays=ArrayRecord(network().state_dict()))
    other = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 3))
    remedy = "give the server's FedMRN schema=fedmrn_torch.schema(model)"
    expected = f"the model's own, fedmrn_torch.schema(model) ({remedy})"
    message_start = f"schema of the request: expected {expected}, got tensor 7 is "
    with pytest.raises(fm.SchemaError, match=re.escape(message_start)):
        fedmrn_flower.psm(other, message, steps=1)


def test_the_error_for_plain_arrays_names_the_mod(monkeypatch):
    logged = []
    monkeypatch.setattr("fedmrn_flower.strategy.log", lambda level, text, *args: logged.append(text % args))
    strategy = FedMRN(FedAvg(min_available_nodes=1, min_train_nodes=1), noise=Uniform(0.01))
    (message,) = messages_of(strategy, [1])
    arrays, metrics = strategy.aggregate_train(1, [through(without_mod, message, mods=())])
    assert arrays is None
    assert metrics["fedmrn.refused"] == 1
    (line,) = logged
    assert "arrays: expected one frame (is fedmrn_flower.mod among the client's mods?), got 4 arrays" in line


def test_a_frame_cannot_be_read_as_a_numpy_array():
    """A strategy without the wrapper raises, instead of averaging the bytes of frames."""
    reply = through(honest, assigned())
    (array,) = reply.content["arrays"].values()
    with pytest.raises(TypeError, match="fedmrn/1"):
        array.numpy()
    assert isinstance(array, Array)


def test_the_adapter_does_not_import_torch():
    """Servers, and clients of other frameworks, need no torch."""
    script = "import sys, fedmrn_flower; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0


def test_an_app_may_answer_with_the_content_of_the_message():
    message, kept = assigned(mask="signed"), {}

    def app(message):
        kept.update({name: each.numpy() for name, each in message.content["arrays"].items()})
        kept["now"] = trained(message)
        message.content["arrays"] = record(kept["now"])
        message.content["metrics"] = MetricRecord({"num-examples": 1})
        return Message(message.content, reply_to=message)

    request = Request.of(message)
    arrays = fm.decode(frame_of(through(app, message)), request.schema)
    assert arrays["conv.bias"].tobytes() == (kept["now"]["conv.bias"] - kept["conv.bias"]).tobytes()
    assert arrays["conv.bias"].any()
    assert arrays["bn.num_batches_tracked"] == 7
