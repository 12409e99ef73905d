"""The client's filter: a result with trained arrays becomes a result with a frame."""

from __future__ import annotations

from typing import Any

from nvflare.apis.dxo import DXO, DataKind, MetaKey, from_shareable
from nvflare.apis.dxo_filter import DXOFilter
from nvflare.apis.event_type import EventType
from nvflare.apis.filter import ContentBlockedException
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable, make_copy

import fedmrn_codec as fm
from fedmrn_codec.adapter_api import as_update

from .arrays import NOT_KEPT, checked, copied, from_frame, is_frame
from .replies import ALGORITHM, result_dxo, with_data
from .request import Request


class ToFrame(DXOFilter):
    """Encode a client's result as the frame that the task asks for.

    For the clients' results on their way out, behind no other filter that changes the arrays:
    `recipe.add_client_output_filter(ToFrame(), tasks=["train"])`. Weights become the difference to those that
    the task brought (it keeps a copy of them while training runs, which NVFlare does not let it have when an
    external process trains); weight differences are taken as they are; a result that holds a frame already
    (`fedmrn_nvflare.result`) passes. The masks' bits come from the operating system's random numbers
    (spec 4.3), the noise from the seed that the server assigned.

    A result that cannot be encoded (a NaN, an array missing or of another shape or dtype) raises
    `ContentBlockedException`: NVFlare then reports TASK_RESULT_FILTER_ERROR to the server.
    """

    def __init__(self) -> None:
        super().__init__([DataKind.WEIGHTS, DataKind.WEIGHT_DIFF], None)
        self._task: DXO | None = None

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Keep what a task brings, just before it is executed."""
        if event_type == EventType.BEFORE_TASK_EXECUTION:
            self._task = _kept(fl_ctx.get_prop(FLContextKey.TASK_DATA))

    def process(self, shareable: Shareable, fl_ctx: FLContext) -> Shareable:
        """A copy of the result whose DXO holds a frame; failed results pass as they are."""
        try:
            if result_dxo(shareable) is None:
                return shareable
            return super().process(make_copy(shareable), fl_ctx)
        except fm.CodecError as error:
            raise ContentBlockedException(f"fedmrn: result not sent ({error.code}): {error}") from None

    def process_dxo(self, dxo: DXO, shareable: Shareable, fl_ctx: FLContext) -> DXO:
        """A new DXO with the frame as one uint8 array."""
        other = dxo.get_meta_prop(MetaKey.PROCESSED_ALGORITHM)
        if other:
            raise fm.ArgumentError(
                "result", "arrays (ToFrame must be the first filter)", f"processed by {other!r}"
            )
        request = Request.of(self._task.meta if self._task else None)
        data = dxo.data if is_frame(dxo.data) else from_frame(request.encode(self._update(dxo, request)))
        return with_data(dxo, dxo.data_kind, data, {MetaKey.PROCESSED_ALGORITHM: ALGORITHM})

    def _update(self, dxo: DXO, request: Request) -> dict[str, Any]:
        trained = checked(dxo.data, "result")
        if dxo.data_kind == DataKind.WEIGHT_DIFF:
            return as_update(trained, request.schema)
        assert self._task is not None
        return fm.difference(trained, checked(self._task.data, "task", NOT_KEPT), request.schema)


def _kept(task: Any) -> DXO | None:
    """A task's DXO with a copy of its arrays, or None if the task has no DXO."""
    try:
        dxo = from_shareable(task)
    except (ValueError, AttributeError):
        return None
    return DXO(dxo.data_kind, copied(dxo.data), dxo.meta) if isinstance(dxo.data, dict) else None
