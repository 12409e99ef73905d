"""Collectors for methods whose server decodes each message before it adds it."""

from __future__ import annotations

import fedmrn_codec as fm

from ..messages import verified


def dense_sum(schema: fm.Schema) -> fm.Aggregator:
    """An aggregator in which all tensors are dense: add decoded updates by `Aggregator.add_arrays`."""
    return fm.Aggregator(fm.Schema(fm.Tensor(t.name, t.shape, dtype=t.dtype) for t in schema))


class FrameSum:
    """The exact weighted mean of frames whose noise scale differs from client to client.

    `fedmrn_codec.Aggregator` adds frames of one noise scale without decoding them. This collector decodes
    each frame and adds the arrays; the mean has the same bits in any order of the frames (spec 8.3, 8.4).

    Parameters
    ----------
    schema : fedmrn_codec.Schema
    round, base_model : int
        Frames with another value are refused; 0 accepts any value.
    """

    def __init__(self, schema: fm.Schema, round: int, base_model: int) -> None:
        self.schema, self.round, self.base_model = schema, round, base_model
        self._sum = dense_sum(schema)
        self.mean = self._sum.mean

    def add(self, data: bytes, weight: int, *, seed: int | None = None) -> fm.CheckedFrame:
        """Check, decode and add one frame."""
        checked = verified(data, self.schema, self.round, self.base_model, seed)
        self._sum.add_arrays(fm.decode(checked), weight)
        return checked
