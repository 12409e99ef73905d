"""Methods that train as FedAvg does and send each weight tensor as a part of a packed message."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from torch import nn

import fedmrn_codec as fm
from fedmrn_codec.errors import UpdateNonFiniteError

from .. import messages
from ..messages import Packed, Part
from . import Summing, Task
from .base import Base, trained_update
from .collect import dense_sum

IDS: dict[int, type] = {}


class PackedMethod(Base):
    """A method that compresses each masked tensor by itself: `pack` on the client, `unpack` on the server.

    The class attribute `ID`, unique among these methods, is the method byte of the message.
    """

    ID: ClassVar[int]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.ID in IDS:
            raise ValueError(f"method id of {cls.__name__}: expected an unused one, got {cls.ID}")
        IDS[cls.ID] = cls

    def pack(self, update: np.ndarray, stream: int, task: Task) -> bytes:
        """Encode one tensor as a part of the message.

        Parameters
        ----------
        update : float32, flat
        stream : int
            The tensor's position in the schema.
        task : Task
            Its seeds are used.
        """
        raise NotImplementedError

    def unpack(self, part: Part, size: int, stream: int, seed: int) -> np.ndarray:
        """Decode a part: float32, shape (size,).

        Raises
        ------
        MessageError
            The part does not have this method's form.
        """
        raise NotImplementedError

    def client(self, model: nn.Module, task: Task) -> bytes:
        """Train with SGD; send the packed difference."""
        schema = self.schema(model)
        return self.message(trained_update(model, task, self.settings, schema), schema, task)

    def message(self, update: Mapping[str, np.ndarray], schema: fm.Schema, task: Task) -> bytes:
        """Encode an update.

        Raises
        ------
        fedmrn_codec.UpdateError
            The update holds a NaN or an infinity.
        """
        for name, array in update.items():
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise UpdateNonFiniteError(f"{name!r}", "finite values", "a NaN or an infinity")
        parts = [
            self.pack(update[tensor.name].reshape(-1), stream, task)
            for stream, tensor in enumerate(schema)
            if tensor.masked
        ]
        dense = messages.dense_schema(schema)
        arrays = {tensor.name: update[tensor.name] for tensor in dense}
        frame = fm.encode(arrays, dense, noise={}, mask={}, **task.header)
        return messages.build(self.ID, schema, parts, frame)

    def decode(
        self,
        data: bytes,
        schema: fm.Schema,
        *,
        round: int | None = None,
        base_model: int | None = None,
        seed: int | None = None,
    ) -> tuple[dict[str, np.ndarray], Packed]:
        """The arrays of a message and the sizes of its fields, from its bytes alone.

        Parameters
        ----------
        data : bytes
        schema : fedmrn_codec.Schema
        round, base_model, seed : int, optional
            Refuse a message with another value; a round or base model of 0 accepts any value.

        Raises
        ------
        fedmrn_codec.FrameError
            The bytes are not a message of this method and schema, or the round, base model or seed differs.
        """
        packed = messages.parse(data, self.ID, schema, round=round, base_model=base_model, seed=seed)
        arrays, parts = fm.decode(packed.frame), iter(packed.parts)
        for stream, tensor in enumerate(schema):
            if tensor.masked:
                part = next(parts)
                with np.errstate(over="ignore", invalid="ignore"):
                    values = self.unpack(part, tensor.size, stream, packed.frame.seed)
                if not np.isfinite(values).all():
                    raise part.error(f"values of {tensor.name!r}", "finite values", "an overflow")
                arrays[tensor.name] = values.reshape(tensor.shape)
        return arrays, packed

    def frame(self, message: bytes, schema: fm.Schema) -> tuple[bytes, fm.Schema]:
        """The frame of the dense tensors."""
        return bytes(messages.parse(message, self.ID, schema).frame.view), messages.dense_schema(schema)

    def server(
        self, schema: fm.Schema, round: int, base_model: int, model: nn.Module | None = None
    ) -> Summing:
        """The exact weighted mean of the unpacked updates."""
        return PackedSum(self, schema, round, base_model)


class PackedSum:
    """The exact weighted mean of the updates in packed messages; other parameters as in `FrameSum`."""

    def __init__(self, method: PackedMethod, schema: fm.Schema, round: int, base_model: int) -> None:
        self.method, self.schema, self.round, self.base_model = method, schema, round, base_model
        self._sum = dense_sum(schema)

    def add(self, data: bytes, weight: int, *, seed: int | None = None) -> Packed:
        """Check, decode and add one message."""
        arrays, packed = self.method.decode(
            data, self.schema, round=self.round, base_model=self.base_model, seed=seed
        )
        self._sum.add_arrays(arrays, weight)
        self.count(arrays)
        return packed

    def count(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Do more with the arrays of a message that has been added; a hook for subclasses."""

    def mean(self) -> dict[str, np.ndarray]:
        """The weighted mean of the updates."""
        return self._sum.mean()
