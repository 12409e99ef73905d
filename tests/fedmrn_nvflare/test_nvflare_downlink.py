"""The download in NVFlare: the server's and the clients' filters, called as NVFlare calls them."""

import numpy as np
import pytest
from nvflare.apis.dxo import DXO, DataKind, from_shareable
from nvflare.apis.event_type import EventType
from nvflare.apis.filter import ContentBlockedException
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext, FLContextManager
from nvflare.apis.shareable import make_copy
from nvflare_cases import MODEL, bytes_of, wired

import fedmrn_codec as fm
from fedmrn_nvflare import FromFrame, FromGrid, Request, ToFrame, ToGrid

LARGE = {**MODEL, "linear.weight": np.linspace(-2, 2, 40000, dtype=np.float32).reshape(50, 800)}


class Client:
    """The filters of a client, whose context sends its public properties to the server."""

    def __init__(self, name, grid=True):
        self.name, self.grid = name, grid
        self.restart()

    def restart(self):
        """A new process."""
        self.manager = FLContextManager(identity_name=self.name, job_id="job")
        self.follow, self.encode = FromGrid(), ToFrame()
        if self.grid:
            self.follow.handle_event(EventType.START_RUN, self.manager.new_context())

    def peer(self):
        """What the server knows about the client when it asks for a task."""
        peer = FLContext()
        peer.set_public_props(wired(self.manager.new_context().get_all_public_props()))
        return peer

    def take(self, task):
        """The task as the executor sees it."""
        with self.manager.new_context() as context:
            if self.grid:
                task = self.follow.process(task, context)
            context.set_prop(FLContextKey.TASK_DATA, task, private=True, sticky=False)
            self.encode.handle_event(EventType.BEFORE_TASK_EXECUTION, context)
            return task

    def give(self, update):
        """The result that leaves the client."""
        with self.manager.new_context() as context:
            result = DXO(DataKind.WEIGHT_DIFF, update, {}).to_shareable()
            return wired(self.encode.process(result, context))


class Server:
    """The filters of a server."""

    def __init__(self, masked=None, frames=True):
        self.decode, self.send = FromFrame("bernoulli:0.01", seed=1), ToGrid(masked)
        self.frames = frames
        self.logged = []
        self.send.log_info = lambda context, text: self.logged.append(text)
        self.send.log_warning = lambda context, text: self.logged.append(text)
        self.sums = {}

    def context(self, client, number, data):
        """Of one request for a task."""
        context = FLContextManager(identity_name="server", job_id="job").new_context()
        context.set_peer_context(client.peer())
        context.set_prop(FLContextKey.TASK_ID, f"task-{number}", private=True, sticky=False)
        context.set_prop(FLContextKey.TASK_DATA, data, private=True, sticky=False)
        return context

    def task(self, arrays, number, client):
        """The task that leaves for a client, as bytes would bring it there."""
        shared = DXO(DataKind.WEIGHTS, arrays).to_shareable()
        shared.set_header("current_round", number)
        data = make_copy(shared)
        context = self.context(client, number, data)
        if self.frames:
            self.decode.handle_event(EventType.BEFORE_TASK_DATA_FILTER, context)
        data = self.send.process(data, context)
        context.set_prop(FLContextKey.TASK_DATA, data, private=True, sticky=False)
        if self.frames:
            self.decode.handle_event(EventType.AFTER_TASK_DATA_FILTER, context)
        return wired(data)

    def result(self, result, number, client):
        """The update that the workflow gets."""
        return from_shareable(self.decode.process(result, self.context(client, number, None))).data


def changed(arrays, seed):
    """The model after a round."""
    rng = np.random.default_rng(seed)
    return {
        name: (array + rng.normal(0, 0.01, array.shape)).astype(np.float32) if array.ndim > 1 else array + 1
        for name, array in arrays.items()
    }


def size(task):
    """Bytes of the arrays in a task."""
    return sum(array.nbytes for array in from_shareable(task).data.values())


def test_clients_hold_the_rounded_model_and_the_workflow_its_own():
    server, clients = Server(), [Client("site-1"), Client("site-2")]
    arrays = LARGE
    for number in range(4):
        seen = [client.take(server.task(arrays, number, client)) for client in clients]
        models = [from_shareable(each).data for each in seen]
        assert bytes_of(models[0]) == bytes_of(models[1]) == bytes_of(server.send._down.model)
        assert all(np.allclose(models[0][name], arrays[name], atol=0.3) for name in arrays)
        for client, each in zip(clients, seen, strict=True):
            request = Request.of(from_shareable(each).meta)
            assert request.base_model == fm.model_id(models[0])
            update = server.result(
                client.give({n: np.zeros_like(a) for n, a in arrays.items()}), number, client
            )
            assert {name: array.dtype for name, array in update.items()} == {
                name: array.dtype for name, array in arrays.items()
            }
        arrays = changed(arrays, number)


def test_the_arrays_of_the_app_may_be_written_to_and_the_replica_stays():
    server, client = Server(), Client("site-1")
    model = from_shareable(client.take(server.task(LARGE, 0, client))).data
    model["linear.weight"] += 1
    arrays = changed(LARGE, 0)
    model = from_shareable(client.take(server.task(arrays, 1, client))).data
    assert bytes_of(model) == bytes_of(server.send._down.model)


def test_a_client_that_missed_rounds_gets_one_frame_and_a_new_process_the_whole_model():
    server, always, seldom = Server(), Client("site-1"), Client("site-2")
    arrays, sizes = LARGE, []
    seldom.take(server.task(arrays, 0, seldom))
    for number in range(5):
        task = server.task(arrays, number, always)
        sizes.append(size(task))
        always.take(task)
        arrays = changed(arrays, number)
    task = server.task(arrays, 5, seldom)
    length = size(task)
    assert max(sizes[1:]) < length < sizes[0]
    model = from_shareable(seldom.take(task)).data
    assert bytes_of(model) == bytes_of(server.send._down.model)
    seldom.restart()
    again = server.task(arrays, 5, seldom)
    assert size(again) > length
    assert bytes_of(from_shareable(seldom.take(again)).data) == bytes_of(model)
    assert "bytes down, the changes since version" in server.logged[-2]
    assert "bytes down, the whole model" in server.logged[-1]


def test_a_client_without_the_filter_gets_the_rounded_arrays():
    server, old, new = Server(), Client("site-1", grid=False), Client("site-2")
    models = [from_shareable(each.take(server.task(LARGE, 0, each))).data for each in (old, new)]
    assert bytes_of(models[0]) == bytes_of(models[1])
    frame = old.give({name: np.zeros_like(array) for name, array in LARGE.items()})
    server.result(frame, 0, old)


def test_the_frame_of_a_client_is_for_the_rounded_model():
    server, client = Server(), Client("site-1")
    client.take(server.task(LARGE, 0, client))
    frame = from_shareable(client.give({name: np.zeros_like(array) for name, array in LARGE.items()})).data
    assert fm.inspect(frame["fedmrn.frame"].tobytes()).base_model == server.send._down.model_id


def test_without_masks_the_download_works_alone():
    server, client = Server(masked=["linear.weight"], frames=False), Client("site-1")
    arrays = LARGE
    for number in range(3):
        model = from_shareable(client.take(server.task(arrays, number, client))).data
        assert bytes_of(model) == bytes_of(server.send._down.model)
        arrays = changed(arrays, number)
    assert [tensor.name for tensor in server.send._down.schema if tensor.masked] == ["linear.weight"]


@pytest.mark.parametrize("damage", ["frame", "model", "lost", "schema"])
def test_a_damaged_task_is_refused_and_the_client_keeps_its_model(damage):
    server, client = Server(), Client("site-1")
    before = from_shareable(client.take(server.task(LARGE, 0, client))).data
    held = client.follow._replica
    task = server.task(changed(LARGE, 0), 1, client)
    dxo = from_shareable(task)
    if damage == "frame":
        dxo.data["fedmrn.model"] = dxo.data["fedmrn.model"].copy()
        dxo.data["fedmrn.model"][-9] ^= 1
    elif damage == "model":
        dxo.meta["fedmrn"]["base_model"] ^= 1
    elif damage == "schema":
        dxo.data["fedmrn.schema"] = np.zeros(7, np.uint8)
    else:
        client.follow = FromGrid()
        held = None
    with pytest.raises(ContentBlockedException, match="the model of the task cannot be decoded"):
        client.take(dxo.update_shareable(task))
    assert client.follow._replica is held
    if held is not None:
        assert bytes_of(held.model) == bytes_of(before)


def test_a_model_that_no_frame_can_represent_is_sent_as_it_is():
    server, client = Server(), Client("site-1")
    bad = {**LARGE, "conv.bias": np.full(8, np.nan, np.float32)}
    for number in range(2):
        model = from_shareable(client.take(server.task(bad, number, client))).data
        assert bytes_of(model) == bytes_of(bad)
    assert len(server.logged) == 1
    assert "sent as they are" in server.logged[0]
    model = from_shareable(client.take(server.task(LARGE, 2, client))).data
    assert bytes_of(model) == bytes_of(server.send._down.model)


@pytest.mark.parametrize("held", ["7", None, -1, 2**64 - 1, 5])
def test_what_a_client_says_that_it_holds_harms_nobody(held):
    server, client = Server(), Client("site-1")
    client.take(server.task(LARGE, 0, client))
    client.manager.new_context().set_prop("fedmrn.held", held, private=False, sticky=True)
    data = from_shareable(server.task(changed(LARGE, 0), 1, client)).data
    assert "fedmrn.schema" in data or bytes_of(data) == bytes_of(server.send._down.model)


def test_a_workflow_that_writes_the_next_model_into_the_same_dictionary():
    server, client = Server(), Client("site-1")
    arrays = dict(LARGE)
    client.take(server.task(arrays, 0, client))
    arrays.update(changed(arrays, 0))
    model = from_shareable(client.take(server.task(arrays, 1, client))).data
    assert np.allclose(model["linear.weight"], arrays["linear.weight"], atol=0.3)
    assert bytes_of(model) == bytes_of(server.send._down.model)
    assert not np.array_equal(model["conv.bias"], LARGE["conv.bias"])
