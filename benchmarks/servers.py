"""The memory of a server by the number of replies, in Flower and in NVFlare: `make bench-servers`.

Each line is measured in a process of its own: first the memory of the replies, as the framework holds them;
then the peak of the round in addition to them. Memory that was in use before, by the framework, the model and
the requests, is not counted. `python -m benchmarks.servers SERVER REPLIES ELEMENTS` measures one server, and
prints both numbers in bytes.
"""

from __future__ import annotations

import argparse
import gc
import struct
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg
from flwr.supercore.task_identity import TaskIdentity
from nvflare.apis.dxo import DXO, DataKind, MetaKey
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey, ReservedKey
from nvflare.apis.fl_context import FLContext
from nvflare.app_common.utils.fl_model_utils import FLModelUtils

import fedmrn_codec as fm
import fedmrn_flower
import fedmrn_nvflare
from fedmrn_flower import records
from fedmrn_nvflare.arrays import from_frame
from fedmrn_nvflare.replies import ALGORITHM

from .memory import peaks_of
from .peak import MIB, growth, resident
from .tables import Table, Target, number, targets_table

NOISE = fm.Uniform(0.01)
COUNTS, ELEMENTS, TENSORS = (10, 100), 10**7, 10
WEIGHT = 600

Model = dict[str, np.ndarray]
Round = tuple[Callable[[], Any], Callable[[Any], None]]
"""Two functions: the first makes the replies, the second does the server's work on them."""


def model_of(elements: int) -> Model:
    """A model of `TENSORS` equal arrays, all masked."""
    width = elements // TENSORS // 100
    return {f"layer{i}.weight": np.ones((100, width), np.float32) for i in range(TENSORS)}


def reseeded(frame: bytes, seed: int) -> bytes:
    """The frame with another seed: other noise, the same mask; nothing is encoded (spec 6.2)."""
    body = bytearray(frame[:-4])
    body[8:16] = struct.pack("<Q", seed)
    return bytes(body) + struct.pack("<I", zlib.crc32(body))


def flower(model: Model, count: int) -> Round:
    """A round of FedAvg in FedMRN; Flower holds all replies before the first is processed."""
    strategy = fedmrn_flower.FedMRN(_fedavg(count), noise=NOISE)
    messages = _messages(strategy, model, count)
    frame = _frame(fedmrn_flower.Request.of(messages[0]), model)

    def replies() -> list[Message]:
        seeds = (fedmrn_flower.Request.of(message).seed for message in messages)
        frames = (records.from_frame(reseeded(frame, seed)) for seed in seeds)
        return [_reply(*each) for each in zip(messages, frames, strict=True)]

    def work(received: list[Message]) -> None:
        _, metrics = strategy.aggregate_train(1, received)
        _check(metrics["fedmrn.clients"], count)

    return replies, work


def plain_flower(model: Model, count: int) -> Round:
    """The same round without the codec: every reply is a whole model."""
    strategy = _fedavg(count)
    messages = _messages(strategy, model, count)
    return (
        lambda: [_reply(message, _record(model)) for message in messages],
        lambda received: _check(len(strategy.aggregate_train(1, received)[0]), TENSORS),
    )


def nvflare(model: Model, count: int) -> Round:
    """A round of FromFrame and ExactMean, which process each result as it arrives."""
    server, mean = fedmrn_nvflare.FromFrame(NOISE, output="FRAME"), fedmrn_nvflare.ExactMean()
    requests = {}
    for client in map(str, range(count)):
        task = DXO(DataKind.WEIGHTS, model).to_shareable()
        task.set_header("current_round", 0)
        server.handle_event(EventType.BEFORE_TASK_DATA_FILTER, _context(client, task))
        requests[client] = fedmrn_nvflare.Request.of(task["DXO"]["meta"])
    frame = _frame(requests["0"], model)
    meta = {MetaKey.PROCESSED_ALGORITHM: ALGORITHM, MetaKey.NUM_STEPS_CURRENT_ROUND: WEIGHT}

    def results() -> Iterator[tuple[str, DXO]]:
        for client, request in requests.items():
            yield client, DXO(DataKind.WEIGHT_DIFF, from_frame(reseeded(frame, request.seed)), meta)

    def work(arriving: Iterator[tuple[str, DXO]]) -> None:
        for client, dxo in arriving:
            decoded = server.process(dxo.to_shareable(), _context(client))
            mean.accept_model(FLModelUtils.from_shareable(decoded))
        _check(len(mean.aggregate_model().params), TENSORS)

    return results, work


SERVERS = {
    "Flower, FedMRN(FedAvg)": flower,
    "NVFlare, ExactMean": nvflare,
    "Flower, FedAvg alone": plain_flower,
}
"""The last one holds one model for each reply: 4 GB for 100 replies."""


def measured(server: str, count: int, elements: int) -> tuple[int, int]:
    """The bytes of the replies of a round, and the peak of the round in addition to them."""
    TaskIdentity.run_id = TaskIdentity.node_id = TaskIdentity.task_id = (
        1  # flwr sets these, and messages need them
    )
    replies, work = SERVERS[server](model_of(1000 * TENSORS), 2)
    work(replies())  # imports and compiles what a round needs
    replies, work = SERVERS[server](model_of(elements), count)
    gc.collect()
    before = resident()
    received = replies()
    held = resident() - before
    return held, growth(lambda: work(received))


def run(counts: Sequence[int], elements: int) -> tuple[Table, list[Target]]:
    """A row for each server and count; for servers with the codec, the growth of the additional peak."""
    model = model_of(elements)
    frame = len(_frame(fm.Request(1, NOISE, "binary", 1, 1, fm.schema_of(model)), model))
    rows, targets = [], []
    for name, server in SERVERS.items():
        peaks = []
        for count in counts:
            held, beyond = peaks_of(name, str(count), str(elements), module="benchmarks.servers")
            peaks.append(beyond)
            rows.append([name, str(count), *(number(each / MIB) for each in (held, beyond, held + beyond))])
        if server is not plain_flower:
            growth_of = f"{name}: growth of the additional peak, MiB"
            targets.append(Target(growth_of, (peaks[-1] - peaks[0]) / MIB, 1.0, at_least=False))
    notes = [f"{elements:,} parameters: a model is {4 * elements / MIB:,.0f} MiB, a frame {frame:,} bytes"]
    heads = "server", "replies", "memory of the replies", "additional peak", "total"
    return Table("Memory of a server's round in MiB", heads, rows, notes), targets


def _fedavg(count: int) -> FedAvg:
    return FedAvg(min_train_nodes=count, min_available_nodes=count)


def _messages(strategy: FedAvg | fedmrn_flower.FedMRN, model: Model, count: int) -> list[Message]:
    grid = type("Grid", (), {"get_node_ids": lambda _: list(range(1, count + 1))})()
    return list(strategy.configure_train(1, _record(model), ConfigRecord(), grid))


def _record(model: Model) -> ArrayRecord:
    return ArrayRecord({name: Array(array) for name, array in model.items()})


def _reply(message: Message, arrays: ArrayRecord) -> Message:
    metrics = MetricRecord({"num-examples": WEIGHT})
    return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)


def _frame(request: fm.Request, model: Model) -> bytes:
    return request.encode({name: np.full_like(array, 0.001) for name, array in model.items()})


def _context(client: str, task: object = None) -> FLContext:
    """A context as NVFlare's server makes it for one task of one client."""
    context, peer = FLContext(), FLContext()
    peer.set_prop(ReservedKey.IDENTITY_NAME, client)
    context.set_peer_context(peer)
    context.set_prop(FLContextKey.TASK_ID, "task", private=True, sticky=False)
    context.set_prop(FLContextKey.TASK_DATA, task, private=True, sticky=False)
    return context


def _check(got: object, expected: object) -> None:
    if got != expected:
        raise RuntimeError(f"result of a round: expected {expected}, got {got}")


def main() -> None:
    """Measure one server in this process, or each server in processes of its own."""
    if sys.argv[1:2] and sys.argv[1] in SERVERS:
        print(*measured(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
        return
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.servers", description="measure the memory of a server"
    )
    parser.add_argument(
        "--elements", type=int, default=ELEMENTS, help="parameters of the model; default %(default)s"
    )
    table, targets = run(COUNTS, parser.parse_args().elements)
    table.print()
    targets_table(targets).print()


if __name__ == "__main__":
    main()
