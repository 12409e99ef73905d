"""The components of the job in `federation_job.py`; NVFlare creates them by their names."""

import time
from pathlib import Path

import numpy as np
from nvflare.apis.dxo import DXO, DataKind, MetaKey, from_shareable
from nvflare.apis.dxo_filter import DXOFilter
from nvflare.apis.executor import Executor
from nvflare.apis.fl_constant import FLContextKey, ReturnCode
from nvflare.apis.shareable import make_reply
from nvflare.app_common.abstract.model import ModelLearnableKey, make_model_learnable
from nvflare.app_common.abstract.model_persistor import ModelPersistor

import fedmrn_codec as fm
from fedmrn_nvflare import Request

KEY = "fedmrn.frame"
WEIGHTS = {"site-1": 100, "site-2": 300, "site-3": 200}
MODEL = {
    "conv.weight": np.linspace(-1, 1, 8 * 3 * 3 * 3, dtype=np.float32).reshape(8, 3, 3, 3),
    "conv.bias": np.linspace(1, 2, 8, dtype=np.float32),
    "bn.num_batches_tracked": np.array(3),
    "linear.weight": np.linspace(-2, 2, 4000, dtype=np.float32).reshape(50, 80),
}


class Trainer(Executor):
    """Adds a small update to every array. Site 2 replies with its model, the others with the update."""

    def execute(self, task_name, shareable, fl_ctx, abort_signal):
        """The result of one task."""
        if task_name != "train":
            return make_reply(ReturnCode.TASK_UNKNOWN)
        site, received = fl_ctx.get_identity_name(), from_shareable(shareable).data
        rng = np.random.default_rng(WEIGHTS[site])
        step = {name: stepped(rng, array) for name, array in received.items()}
        meta = {MetaKey.NUM_STEPS_CURRENT_ROUND: WEIGHTS[site]}
        if site == "site-2":
            new = {name: np.asarray(array + step[name]) for name, array in received.items()}
            return DXO(DataKind.WEIGHTS, new, meta).to_shareable()
        return DXO(DataKind.WEIGHT_DIFF, step, meta).to_shareable()


def stepped(rng, array):
    """A random update of some thousandths; a counter goes up by one."""
    if array.dtype.kind == "i":
        return np.ones_like(array)
    return rng.uniform(-0.004, 0.004, array.shape).astype(array.dtype)


class Saboteur(DXOFilter):
    """On site 3, after ToFrame: random bytes, then the previous frame, then one with another seed."""

    def __init__(self):
        super().__init__(None, None)
        self.task, self.frames = None, []

    def handle_event(self, event_type, fl_ctx):
        """Keep the task."""
        if event_type == "_before_task_execution":
            self.task = from_shareable(fl_ctx.get_prop(FLContextKey.TASK_DATA))

    def process_dxo(self, dxo, shareable, fl_ctx):
        """The result with another frame."""
        if fl_ctx.get_identity_name() != "site-3":
            return None
        self.frames.append(dxo.data[KEY])
        frame = (self.garbage, self.replay, self.own_seed)[len(self.frames) - 1]()
        return DXO(dxo.data_kind, {KEY: frame}, dict(dxo.meta))

    def garbage(self):
        """Random bytes, as many as a frame has."""
        return np.random.default_rng(0).integers(0, 256, self.frames[0].size, np.uint8)

    def replay(self):
        """The frame of the previous round."""
        return self.frames[-2]

    def own_seed(self):
        """A frame that is valid except for its seed."""
        request = Request.of(self.task.meta)
        settings = {"noise": request.noise, "mask": request.mask, "round": request.round}
        update = {name: np.zeros_like(array) for name, array in self.task.data.items()}
        frame = fm.encode(update, request.schema, seed=1, base_model=request.base_model, **settings)
        return np.frombuffer(frame, np.uint8)


class Spy(DXOFilter):
    """On the server, before FromFrame: writes what has arrived to files."""

    def __init__(self, folder):
        super().__init__(None, None)
        self.folder = folder

    def process_dxo(self, dxo, shareable, fl_ctx):
        """Write the arrays of a result to a file."""
        site = fl_ctx.get_peer_context().get_identity_name()
        number = sum(1 for _ in Path(self.folder).glob(f"{site}-*.npz"))
        np.savez(Path(self.folder) / f"{site}-{number}.npz", **dxo.data)


class Persistor(ModelPersistor):
    """Starts with MODEL, and writes one file per round."""

    def __init__(self, folder):
        super().__init__()
        self.folder = folder

    def load_model(self, fl_ctx):
        """The model to start with."""
        return make_model_learnable(dict(MODEL), {})

    def save_model(self, model, fl_ctx):
        """The global model after a round."""
        number = sum(1 for _ in Path(self.folder).glob("model-*.npz"))
        np.savez(Path(self.folder) / f"model-{number}.npz", **model[ModelLearnableKey.WEIGHTS])


class Framer(Trainer):
    """Replies with a frame, which it also writes to a file; site 3 hangs from its second round on."""

    def __init__(self, folder):
        super().__init__()
        self.folder = folder

    def execute(self, task_name, shareable, fl_ctx, abort_signal):
        """The result of one task."""
        site, dxo = fl_ctx.get_identity_name(), from_shareable(shareable)
        request = Request.of(dxo.meta)
        while site == "site-3" and request.round > 1 and not abort_signal.triggered:
            time.sleep(0.1)
        rng = np.random.default_rng(WEIGHTS[site])
        update = {name: on_grid(stepped(rng, array)) for name, array in dxo.data.items()}
        frame = request.encode(update)
        (Path(self.folder) / f"{site}-{request.round}.frame").write_bytes(frame)
        data = {KEY: np.frombuffer(frame, np.uint8)}
        return DXO(
            DataKind.WEIGHT_DIFF, data, {MetaKey.NUM_STEPS_CURRENT_ROUND: WEIGHTS[site]}
        ).to_shareable()


def on_grid(array):
    """A dense update rounded to the grid of secure aggregation, so that the mean of frames is the same."""
    return array if array.dtype.kind == "i" else np.round(array * 2**18) / np.float32(2**18)
