"""The exact weighted mean of updates that are decoded one by one, as FedAvg's server takes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

import fedmrn_codec as fm


class DecodedSum:
    """Adds up decoded updates; the same bits in any order (spec 8.3, 8.4).

    Parameters
    ----------
    schema : fedmrn_codec.Schema
        Of the updates; masked or not makes no difference here.
    """

    def __init__(self, schema: fm.Schema) -> None:
        self._schema = fm.Schema(fm.Tensor(t.name, t.shape, dtype=t.dtype) for t in schema)
        self._sum = fm.Aggregator(self._schema)

    def add(self, arrays: Mapping[str, np.ndarray], weight: int) -> None:
        """Add an update: finite, of the schema's names, shapes and dtypes."""
        self._sum.add(fm.encode(arrays, self._schema, seed=0, noise={}, mask={}), weight)

    def mean(self) -> dict[str, np.ndarray]:
        """The weighted mean, one rounding an element."""
        return self._sum.mean()


class FrameSum:
    """The collector of a method whose frames have a noise scale of their own in every client.

    `fedmrn_codec.Aggregator` adds frames of one scale in integers; these are decoded first.

    Parameters
    ----------
    schema : fedmrn_codec.Schema
    round, base_model : int
        Frames of others are refused; 0 asks nothing, as in `fedmrn_codec.Aggregator`.
    """

    def __init__(self, schema: fm.Schema, round: int, base_model: int) -> None:
        self.schema, self.round, self.base_model = schema, round, base_model
        self._sum = DecodedSum(schema)

    def add(self, data: bytes, weight: int, *, seed: int | None = None) -> fm.Info:
        """Check, decode and add one frame."""
        expected: dict[str, Any] = {
            "round": self.round or None,
            "base_model": self.base_model or None,
            "seed": seed,
        }
        self._sum.add(fm.decode(data, self.schema, **expected), weight)
        return fm.inspect(data, self.schema)

    def mean(self) -> dict[str, np.ndarray]:
        """The weighted mean of the updates."""
        return self._sum.mean()
