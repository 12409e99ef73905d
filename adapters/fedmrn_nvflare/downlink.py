"""The filters of the download: the server sends frames, and clients make arrays of them (spec 6.12)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np
from nvflare.apis.dxo import DXO, DataKind, from_shareable
from nvflare.apis.dxo_filter import DXOFilter
from nvflare.apis.event_type import EventType
from nvflare.apis.filter import ContentBlockedException
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.app_common.app_constant import AppConstants

import fedmrn_codec as fm
from fedmrn_codec.adapter_api import Arrays

from .arrays import MODEL, SCHEMA, checked, copied, from_model_frame, is_model_frame
from .replies import with_data
from .request import META, Request

HELD = "fedmrn.held"
"""Public property of a client's context: the id of the model that it holds, 0 for none.

NVFlare sends public properties along with every request for a task, so the server knows at that moment what
the client holds, also if its process has been started anew."""

DOWN = "downlink-bytes"
"""Key, in META of a task's meta, of the length of the frame in it."""

ADVANCE = "fedmrn.advance"
"""Event with which a workflow shows the model of a round before its tasks; also the key of its `Advance`."""


@dataclass
class Advance:
    """The model of a coming round, for a workflow that needs the id of what clients will hold.

    Attributes
    ----------
    round : int
        NVFlare's.
    arrays : mapping of str to array
    masked : list of str
        Names of the arrays that clients send as masks.
    base_model : int or None
        The answer of `ToGrid`: the id of the rounded model. None: there is no ToGrid, or no frame can
        represent the model, so that it is sent as it is.
    """

    round: int
    arrays: Arrays
    masked: list[str]
    base_model: int | None = None


class ToGrid(DXOFilter):
    """Replace the model in a task by a frame that leads from the version a client holds to the present one.

    A server output filter, the last one: `recipe.add_server_output_filter(ToGrid(), tasks=["train"])`, with
    `FromGrid` on the clients; `attach` adds both. The model that clients get is the server's, rounded to a
    grid (`fedmrn_codec.Downlink`); the request that `FromFrame` has added to the task gets its id. The
    workflow goes on with its own model, which is not rounded, and adds the mean to it.

    A client without `FromGrid` gets the rounded arrays. A model that no frame can represent, because of a NaN
    for instance, is sent as it is, which is logged once. The event `ADVANCE` shows the filter the model of a
    round before its first task.

    Parameters
    ----------
    masked : list of str, optional
        Names of the float32 arrays that are rounded to coarse steps, if the task has no request. Default:
        those of two or more dimensions. All other floats keep as many bits as a grid has.
    """

    def __init__(self, masked: list[str] | None = None) -> None:
        super().__init__([DataKind.WEIGHTS], None)
        self.masked = masked
        self._lock = Lock()
        self._down: fm.Downlink | None = None
        self._seen: tuple[Any, Any] | None = None
        self._told = False
        self._shown: int | None = None

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Round the model of the coming round, and tell the workflow its id."""
        about = fl_ctx.get_prop(ADVANCE) if event_type == ADVANCE else None
        if not isinstance(about, Advance):
            return
        with self._lock:
            self._shown = None
            try:
                down = self._advance(dict(checked(about.arrays, "model")), about.masked)
            except fm.CodecError as error:
                self._tell(error, fl_ctx)
                return
            self._shown, about.base_model = about.round, down.model_id

    def process_dxo(self, dxo: DXO, shareable: Shareable, fl_ctx: FLContext) -> DXO | None:
        """A new DXO with a frame, or with the rounded arrays; None, so that the task stays as it is."""
        if not dxo.data:
            return None
        with self._lock:
            try:
                down = self._advanced(dxo, shareable)
            except fm.CodecError as error:
                self._tell(error, fl_ctx)
                return None
            known = {**_request(dxo), "base_model": down.model_id}  # both of one version
            held = fl_ctx.get_peer_context().get_prop(HELD)
            if not isinstance(held, int):
                return with_data(dxo, dxo.data_kind, dict(down.model), {META: known})
            data = self._frame(down, held, fl_ctx)
        return with_data(dxo, dxo.data_kind, data, {META: {**known, DOWN: len(data[MODEL])}})

    def _frame(self, down: fm.Downlink, held: int, fl_ctx: FLContext) -> dict[str, np.ndarray]:
        """The data for a client that holds this version; what they are is logged."""
        frame = down.frame(held)
        whole = fm.inspect(frame).base_model == 0
        client = fl_ctx.get_peer_context().get_identity_name()
        what = "the whole model" if whole else f"the changes since version {held:016x}"
        self.log_info(fl_ctx, f"fedmrn: frame to {client}: {len(frame)} bytes down, {what}")
        return from_model_frame(frame, down.schema.data if whole else None)

    def _advanced(self, dxo: DXO, task: Shareable) -> fm.Downlink:
        """The downlink at the version of this task; a model is looked at once for all clients."""
        # Some workflows write the next model into the dictionary of the last one.
        seen = dxo.data, task.get_header(AppConstants.CURRENT_ROUND)
        if self._down is not None and self._shown is not None and self._shown == seen[1]:
            return self._down
        if self._down is not None and self._seen and self._seen[0] is seen[0] and self._seen[1] == seen[1]:
            return self._down
        arrays = dict(checked(dxo.data, "task"))
        down = self._advance(arrays, self._masked(arrays, dxo))
        self._seen = seen
        return down

    def _advance(self, arrays: Arrays, masked: Sequence[str]) -> fm.Downlink:
        """The downlink at the version of these arrays."""
        names = set(masked)
        coarse = [name for name, array in arrays.items() if name in names and array.dtype == np.float32]
        schema = fm.schema_of(arrays, masked=coarse)
        if self._down is None or self._down.schema != schema:
            self._down = fm.Downlink(schema, arrays)
        else:
            self._down.advance(arrays)
        return self._down

    def _tell(self, error: fm.CodecError, fl_ctx: FLContext) -> None:
        """Log, once, that models are sent without frames."""
        if not self._told:
            self._told = True
            self.log_warning(fl_ctx, f"fedmrn: models are sent as they are, without frames: {error}")

    def _masked(self, arrays: Arrays, dxo: DXO) -> list[str]:
        """The arrays that clients send as masks."""
        if META in dxo.meta:
            return [tensor.name for tensor in Request.of(dxo.meta).schema if tensor.masked]
        if self.masked is not None:
            return self.masked
        return [name for name, array in arrays.items() if np.ndim(array) >= 2]


class FromGrid(DXOFilter):
    """Replace the frame in a task by the arrays of the model, so that the executor sees arrays alone.

    A client input filter, the first one: `recipe.add_client_input_filter(FromGrid(), tasks=["train"])`. It
    keeps the last model in memory while the job runs, and tells the server with every request for a task
    which one that is. A client that is started anew holds none, and gets the whole model. Tasks without a
    frame pass unchanged.

    A frame that is damaged, or leads to another model than the request says, raises
    `ContentBlockedException`, and the client keeps the model it has; NVFlare reports TASK_DATA_FILTER_ERROR.
    """

    def __init__(self) -> None:
        super().__init__([DataKind.WEIGHTS], None)
        self._replica: fm.Replica | None = None

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Tell the server that frames are understood here."""
        if event_type == EventType.START_RUN:
            self._tell(fl_ctx)

    def process_dxo(self, dxo: DXO, shareable: Shareable, fl_ctx: FLContext) -> DXO | None:
        """A new DXO with arrays, which may be written to; None if there is no frame."""
        if not is_model_frame(dxo.data):
            return None
        try:
            arrays = self._followed(dxo.data, _base_model(dxo))
        except fm.CodecError as error:
            reason = f"fedmrn: the model of the task cannot be decoded ({error.code}): {error}"
            raise ContentBlockedException(reason) from None
        self._tell(fl_ctx)
        return with_data(dxo, dxo.data_kind, copied(arrays), {})

    def _followed(self, data: dict[str, Any], wanted: int | None) -> dict[str, np.ndarray]:
        """The new model; on an error the one held stays."""
        replica = self._replica
        if SCHEMA in data:
            replica = fm.Replica(fm.Schema.from_bytes(data[SCHEMA].tobytes()))
        if replica is None:
            raise fm.ArgumentError("model that the client holds", "one, for a frame of differences", "none")
        arrays = replica.apply(data[MODEL].tobytes(), wanted)
        self._replica = replica
        return arrays

    def _tell(self, fl_ctx: FLContext) -> None:
        held = 0 if self._replica is None else self._replica.model_id
        fl_ctx.set_prop(HELD, held, private=False, sticky=True)


def base_model_of(task: Any) -> int | None:
    """The id of the model in a task as it leaves the server; None if there is none."""
    try:
        return _base_model(from_shareable(task))
    except (ValueError, AttributeError):
        return None


def _base_model(dxo: DXO) -> int | None:
    found = _request(dxo).get("base_model")
    return found if isinstance(found, int) else None


def _request(dxo: DXO) -> dict[str, Any]:
    """The entries of the request in a task; none if it has no request."""
    found = dxo.get_meta_prop(META)
    return found if isinstance(found, dict) else {}
