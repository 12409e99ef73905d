"""The replay of a journal: every round computed anew from the accepted frames (docs/journal.md)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .. import backends, errors
from ..format.checked import CheckedFrame
from ..format.schema import Schema
from ..primitives.arguments import U64, unsigned
from ..primitives.dtypes import DTYPES
from . import journal_files
from .aggregation import Aggregator
from .decoding import decode, verify
from .downlink import Downlink, Replica
from .journal_files import Entry
from .models import apply, check_schema, model_id
from .request import Request


class Accepted(NamedTuple):
    """A frame that went into the mean of a round.

    Attributes
    ----------
    client : str
    request : Request
    frame : CheckedFrame
    weight : int
    """

    client: str
    request: Request
    frame: CheckedFrame
    weight: int


@dataclass(frozen=True)
class Replayed:
    """The end of a round as a replay computes it; round 0 is the start.

    Attributes
    ----------
    round : int
    schema : Schema
    frames : tuple of Accepted
    total : Aggregator or None
        The sum of the frames, which `AdaptiveNoise.observe` takes; None in round 0.
    model, held : dict of str to numpy.ndarray
        The server's own model, and the one that clients hold, which is the same without a downlink. They must
        not be written to.
    model_id : int
        Of the model that clients hold.
    steps : dict of str to float, or None
        The steps of the grid; None without a downlink.
    given : tuple of str
        The arrays of the model that are copied from the journal, not computed: in round 0 the server's own,
        later those where its step was not to add the mean.
    digest : str
        The SHA-256 of the round in hexadecimal digits, as in `Journal.digest`.
    bytes : int
        Of all frames that the journal has for this round.
    """

    round: int
    schema: Schema
    frames: tuple[Accepted, ...]
    total: Aggregator | None
    model: dict[str, np.ndarray]
    held: dict[str, np.ndarray]
    model_id: int
    steps: dict[str, float] | None
    given: tuple[str, ...]
    digest: str
    bytes: int


def replay(folder: str | os.PathLike[str], *, backend: str | None = None) -> Iterator[Replayed]:
    """Check a journal, and compute all its models anew, to the bit.

    Of each round: the digests; each frame against its request; the mean with the weights; the server's model,
    which is the former one plus the mean or, for the arrays named in `given`, what the journal has; its id;
    the frame for the clients, added to the model that they hold; the rounding of the server's model to the
    grid; the id of the result. Whether the last round is missing is known at the end only.

    Parameters
    ----------
    folder : str or os.PathLike
        It is only read; a writer may append to it meanwhile.
    backend : {"numba", "numpy", "torch", "onnx"}, optional
        As in `decode`.

    Yields
    ------
    Replayed
        One for the start, with round 0, and one for each round.

    Raises
    ------
    JournalError
        A check fails. What has been yielded before is sound.
    BackendError
        The backend does not exist.
    OSError
        The folder or a file cannot be read.
    """
    backends.get(backend)
    rounds: _Rounds | None = None
    for entry in journal_files.entries(os.fspath(folder)):
        with _reported(entry):
            rounds = rounds or _Rounds(entry, backend)
            state = rounds.follow(entry)
        yield state


class _Rounds:
    """What a replay holds between two rounds."""

    def __init__(self, start: Entry, backend: str | None) -> None:
        self.schema, self.backend = Schema.from_json(start.about["schema"]), backend
        dtypes = [(str(name), str(dtype)) for name, dtype in start.about["arrays_of"]]
        self.names = [name for name, _ in dtypes]
        self.replica: Replica | None = None
        if start.about["steps"] is not None:
            like = {name: DTYPES[dtype].numpy for name, dtype in dtypes}
            models = {t.name: np.broadcast_to(like[t.name].type(), t.shape) for t in self.schema}
            self.replica = Replica(self.schema, models, backend=backend)
        self.state: Replayed | None = None

    def follow(self, entry: Entry) -> Replayed:
        """The end of a round, after all checks of it."""
        given = decode(entry.arrays, backend="numpy") if entry.arrays else {}
        frames, total, computed = self._mean(entry)
        expected, steps = _id(entry, "model_id"), entry.about["steps"]
        if (self.replica is None) != (steps is None):
            raise errors.ArgumentError("steps", "either in every round or in none", steps)
        held = {} if self.replica is None else self.replica.apply(entry.downlink, expected)
        if self.state is None:
            computed = held
        elif unknown := given.keys() - computed.keys():
            raise errors.ArgumentError("arrays", f"some of {self.names}", sorted(unknown))
        model = {name: given[name] if name in given else computed[name] for name in self.names}
        check_schema(self.schema, model)
        _check_id("id of the server's model", _id(entry, "server_id"), model_id(model, self.schema))
        if self.replica is None:
            held = model
            _check_id("id of the clients' model", expected, model_id(model, self.schema))
        else:
            rounded = Downlink(self.schema, model, step=steps, backend=self.backend)
            _check_id("id of the server's model on the grid", expected, rounded.model_id)
        self.state = Replayed(
            entry.round,
            self.schema,
            frames,
            total,
            model,
            held,
            expected,
            steps,
            tuple(given),
            entry.digest,
            entry.size,
        )
        return self.state

    def _mean(self, entry: Entry) -> tuple[tuple[Accepted, ...], Aggregator | None, dict[str, np.ndarray]]:
        """The frames of a round, their sum, and the former model plus their mean."""
        if self.state is None:
            return (), None, {}
        frames, total = [], None
        for data, about in zip(entry.frames, entry.about["frames"], strict=True):
            request = Request.from_dict({**entry.about["request"], **about["request"]})
            expected = (entry.round, self.state.model_id, self.schema)
            if (request.round, request.base_model, request.schema) != expected:
                text = f"round {entry.round}, base model {self.state.model_id}, and the schema of the start"
                got = f"round {request.round}, base model {request.base_model}"
                raise errors.ArgumentError("request", text, got)
            if total is None:
                total = Aggregator(self.schema, noise=request.noise, backend=self.backend)
            checked = request.check(verify(data, self.schema, backend=self.backend))
            total.add(checked, about["weight"])
            frames.append(Accepted(str(about["client"]), request, checked, about["weight"]))
        if total is None:
            raise errors.ArgumentError("frames", "at least 1", 0)
        return tuple(frames), total, apply(self.state.model, total.mean(), self.schema)


@contextmanager
def _reported(entry: Entry) -> Iterator[None]:
    """Report what is wrong with an entry, with its round and its file."""
    try:
        yield
    except errors.CodecError as error:
        parts = (error.expected, error.got, error.offset)
        raise errors.JournalError(f"round {entry.round}, {error.field}", *parts, entry.file) from error
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        got = f"{type(error).__name__}: {error}"
        field, expected = f"round {entry.round}, first line", "the entries of docs/journal.md"
        raise errors.JournalError(field, expected, got, file=entry.file) from error


def _id(entry: Entry, name: str) -> int:
    return unsigned(int(entry.about[name]), U64, name)


def _check_id(field: str, expected: int, got: int) -> None:
    if got != expected:
        raise errors.ArgumentError(field, expected, got)
