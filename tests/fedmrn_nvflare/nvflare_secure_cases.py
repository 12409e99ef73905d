"""A job with secure aggregation in one process: NVFlare's own server parts, and clients as objects."""

from threading import Thread

import numpy as np
from nvflare.apis.client import Client
from nvflare.apis.dxo import DXO, DataKind, MetaKey, from_shareable
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey, ReturnCode
from nvflare.apis.fl_context import FLContextManager
from nvflare.apis.impl.wf_comm_server import WFCommServer
from nvflare.apis.shareable import make_reply
from nvflare.apis.signal import Signal
from nvflare.apis.utils.event import fire_event_to_components
from nvflare_cases import MODEL, bytes_of, wired

import fedmrn_codec as fm
from fedmrn_nvflare import FromGrid, Request, SecAgg, ToGrid
from fedmrn_nvflare.arrays import from_frame
from fedmrn_nvflare.secure_client import Exchange, ToMasked
from fedmrn_nvflare.workflow import SecureFedAvg

NAMES = ["site-1", "site-2", "site-3", "site-4"]
STEPS = ("keys", "shares", "masked", "reveal")
TASKS = {"fedmrn_keys": "keys", "fedmrn_shares": "shares", "train": "masked", "fedmrn_reveal": "reveal"}
STEP = 2.0**-18
"""Of the grid on which the dense floats of all updates lie."""


def update_of(name, arrays):
    """A client's update, whose dense floats lie on the default grid; another one for each client."""
    rng, out = np.random.default_rng(int(name.removeprefix("site-"))), {}
    for key, array in arrays.items():
        if array.ndim >= 2:
            out[key] = rng.normal(0, 0.01, array.shape).astype(array.dtype)
        elif array.dtype.kind == "f":
            out[key] = (rng.integers(-500, 500, array.shape) * STEP).astype(array.dtype)
        else:
            out[key] = np.asarray(rng.integers(0, 9))
    return out


class Site:
    """One client of a job: its executors and filters, called as NVFlare's client runner calls them.

    Its training encodes the frame itself, so that the test knows it: `frames` has those of all rounds.
    """

    def __init__(self, name, downlink, meta):
        self.name, self.meta, self.frames, self.seen = name, meta, [], []
        self.update = update_of
        self.manager = FLContextManager(self, name, "job")
        self.filters = [FromGrid()] if downlink == "grid" else []
        self.start()

    def start(self):
        """What a new process of the client does."""
        self.exchange, self.masked = Exchange(), ToMasked()
        self.fire(EventType.START_RUN, self.manager.new_context())

    def fire(self, event, context):
        fire_event_to_components(event, [self.exchange, self.masked, *self.filters], context)

    def fire_event(self, event, context):
        """As an engine."""
        self.fire(event, context)

    def answer(self, task_name, task, peer):
        """The result of a task."""
        context = self.manager.new_context()
        context.set_peer_context(peer)
        if task_name == "train":
            for each in self.filters:
                task = each.process(task, context)
        context.set_prop(FLContextKey.TASK_DATA, task, private=True, sticky=False)
        self.fire(EventType.BEFORE_TASK_EXECUTION, context)
        if task_name != "train":
            return self.exchange.execute(task_name, task, context, Signal())
        return self.masked.process(self.train(task), context)

    def train(self, task):
        """A result with a frame of this client's update."""
        dxo = from_shareable(task)
        self.seen.append(dxo)
        self.frames.append(Request.of(dxo.meta).encode(self.update(self.name, dxo.data)))
        return DXO(DataKind.WEIGHT_DIFF, from_frame(self.frames[-1]), dict(self.meta)).to_shareable()


class Job:
    """A server with its clients; it is the server's engine, too.

    Parameters
    ----------
    faults : dict
        Maps (step, client) or (step, client, round from 0) to what happens to its result: None for silence,
        or a function of the result that returns another one.
    meta : dict
        By client: the meta of its results.
    """

    def __init__(self, secure=None, names=NAMES, faults=None, downlink="raw", meta=None, rounds=1, **options):
        settings = {"seed": 5, "noise": "bernoulli:0.01", "timeout": 60} | options
        model = settings.pop("model", MODEL)
        self.controller = SecureFedAvg(
            num_clients=len(names),
            num_rounds=rounds,
            persistor_id="",
            save_filename="",
            model=dict(model),
            ignore_result_error=True,
            task_check_period=0.005,
            secure=secure or SecAgg(threshold=2),
            **settings,
        )
        self.communicator = WFCommServer(task_check_period=0.005)
        self.controller.set_communicator(self.communicator)
        self.grid = [ToGrid()] if downlink == "grid" else []
        self.faults, self.rounds = dict(faults or {}), rounds
        self.clients = [Client(name, f"token of {name}") for name in names]
        self.sites = {
            name: Site(name, downlink, (meta or {}).get(name, {MetaKey.NUM_STEPS_CURRENT_ROUND: 10}))
            for name in names
        }
        self.manager, self.signal = FLContextManager(self, "server", "job"), Signal()
        self.asked, self.results, self.models, self.events, self.logs = [], [], [], [], []
        self.requests, self.means, self.offered = [], [], set()
        for level in ("info", "warning", "error", "exception"):
            setattr(self.controller, level, self.logs.append)
        self.controller.update_model = self.update_model

    # What an engine offers.

    def get_clients(self):
        return self.clients

    def new_context(self):
        return self.manager.new_context()

    def get_component(self, _):
        return None

    def fire_event(self, event, context):
        self.events.append(event)
        fire_event_to_components(event, [self.controller, *self.grid], context)

    # The job.

    def update_model(self, model, update):
        """Keeps the model after each round, and the update."""
        self.means.append(update)
        new = type(self.controller).update_model(self.controller, model, update)
        self.models.append({name: np.asarray(array) for name, array in new.params.items()})
        return new

    def run(self):
        """All rounds; the clients ask for tasks in turn."""
        context = self.new_context()
        self.communicator.initialize_run(context)
        self.controller.initialize(context)
        thread = Thread(target=self.controller.control_flow, args=(self.signal, context))
        thread.start()
        while thread.is_alive():
            for client in self.clients:
                self.serve(client)
            thread.join(0.002)
        self.communicator.finalize_run(context)
        assert EventType.FATAL_SYSTEM_ERROR not in self.events, self.logs
        return self

    def serve(self, client):
        """Give a client a task, if there is one, and take its result."""
        if self.signal.triggered:  # NVFlare's server then gives out no tasks
            return
        site, context = self.sites[client.name], self.new_context()
        context.set_peer_context(site.manager.new_context())
        name, task_id, task = self.communicator.process_task_request(client, context)
        if not name:
            return
        if task_id not in self.offered:  # NVFlare offers a silent client its task again
            self.offered.add(task_id)
            self.asked.append((TASKS[name], client.name))
        fault = self.faults.get((TASKS[name], client.name), unchanged)
        fault = self.faults.get((TASKS[name], client.name, self.controller.current_round), fault)
        if fault is None:
            return
        for key, value in {FLContextKey.TASK_NAME: name, FLContextKey.TASK_DATA: task}.items():
            context.set_prop(key, value, private=True, sticky=False)
        self.fire_event(EventType.BEFORE_TASK_DATA_FILTER, context)
        if name == "train":
            self.requests.append(Request.of(from_shareable(task).meta))
            for each in self.grid:
                task = each.process(task, context)
        result = wired(site.answer(name, wired(task), context))
        self.results.append((TASKS[name], client.name, result))
        result = wired(fault(result))
        self.communicator.process_submission(client, name, task_id, result, context)

    @property
    def log(self):
        """All messages of the server."""
        return "\n".join(map(str, self.logs))


def unchanged(result):
    return result


def crash(result):
    """What NVFlare sends for an executor that has raised an exception."""
    return make_reply(ReturnCode.EXECUTION_EXCEPTION)


def expected(base, request, frames, weights=None):
    """The model plus the mean that a plain aggregator gives for these frames."""
    aggregator = request.aggregator()
    for name, frame in frames.items():
        aggregator.add(frame, (weights or {}).get(name, 1))
    return {name: np.asarray(base[name] + update) for name, update in aggregator.mean().items()}


def frames_of(job, number, names=NAMES):
    """The frames of a round by client; every client must have trained in each round so far."""
    return {name: job.sites[name].frames[number] for name in names}


def same(arrays, wanted):
    return bytes_of(arrays) == bytes_of(wanted)


def rule_of(model, request):
    """A rule as it is before its first round."""
    return fm.AdaptiveNoise(request.schema, model, mask=request.mask)
