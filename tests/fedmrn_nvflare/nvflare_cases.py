"""A small model, and the filters of a server and its clients, called as NVFlare calls them."""

import numpy as np
from nvflare.apis.dxo import DXO, DataKind, from_shareable
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey, ReservedKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable, make_copy
from nvflare.fuel.utils import fobs
from nvflare.private.fed.utils.fed_utils import nvflare_fobs_initialize

from fedmrn_nvflare import FromFrame, ToFrame

nvflare_fobs_initialize()

MODEL = {
    "conv.weight": np.linspace(-1, 1, 8 * 3 * 3 * 3, dtype=np.float32).reshape(8, 3, 3, 3),
    "conv.bias": 1 + np.arange(8, dtype=np.float32) / 8,  # sums with eighths are exact
    "bn.num_batches_tracked": np.array(3),
    "linear.weight": np.linspace(-2, 2, 40, dtype=np.float32).reshape(5, 8),
}


class Context(FLContext):
    """A context of one task of one client."""

    def __init__(self, client, task, data=None, name="train"):
        super().__init__()
        peer = FLContext()
        peer.set_prop(ReservedKey.IDENTITY_NAME, client)
        self.set_peer_context(peer)
        self.set_prop(FLContextKey.TASK_NAME, name, private=True, sticky=False)
        self.set_prop(FLContextKey.TASK_ID, task, private=True, sticky=False)
        self.set_prop(FLContextKey.TASK_DATA, data, private=True, sticky=False)


class Federation:
    """A server's filter and the clients' filters, with NVFlare's serialisation between them."""

    def __init__(self, noise="bernoulli:0.01", mask="signed", **settings):
        self.server = FromFrame(noise, mask, **settings)
        self.panics = []
        self.server.system_panic = lambda reason, fl_ctx: self.panics.append(reason)
        self.clients = {}

    def send(self, client="site-1", arrays=MODEL, task="task-1", number=0, name="train"):
        """The task as the client's executor sees it."""
        shared = DXO(DataKind.WEIGHTS, arrays).to_shareable()
        if number is not None:
            shared.set_header("current_round", number)
        data = make_copy(shared)  # NVFlare makes a copy for each client
        self.server.handle_event(EventType.BEFORE_TASK_DATA_FILTER, Context(client, task, data, name))
        received = wired(data)
        filter_ = self.clients.setdefault(client, ToFrame())
        filter_.handle_event(EventType.BEFORE_TASK_EXECUTION, Context("server", task, received))
        return received

    def reply(self, data, client="site-1", kind=DataKind.WEIGHT_DIFF, meta=None):
        """The result that leaves the client, serialised and read again."""
        result = DXO(kind, data, meta or {}).to_shareable()
        return wired(self.clients[client].process(result, Context("server", "task-1")))

    def receive(self, result, client="site-1", task="task-1"):
        """The DXO that the workflow gets."""
        return from_shareable(self.server.process(result, Context(client, task)))

    def round(self, data, client="site-1", kind=DataKind.WEIGHT_DIFF, meta=None, **sent):
        """Send one task and receive its result."""
        self.send(client, **sent)
        return self.receive(self.reply(data, client, kind, meta), client)


def wired(shareable: Shareable) -> Shareable:
    """A message as it comes out of NVFlare's serialisation."""
    return fobs.loads(fobs.dumps(shareable))


def zeros(arrays=MODEL):
    """An update of zeros."""
    return {name: np.zeros_like(array) for name, array in arrays.items()}


def bytes_of(arrays):
    """Name, dtype, shape and every byte, to compare to the bit."""
    return [(name, a.dtype.str, a.shape, a.tobytes()) for name, a in arrays.items()]
