"""A journal: what an audit needs of each round, on the disk of the server (docs/journal.md)."""

from __future__ import annotations

import os
import sys
import weakref
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Self

import numpy as np

from .. import errors
from ..format.checked import CheckedFrame
from ..format.frame import Buffer
from ..format.parsing import Expected
from ..format.schema import Schema, Tensor
from ..primitives import atomic
from . import journal_files
from .aggregation import Aggregator
from .downlink import Downlink
from .grids import encode_grid
from .models import Arrays, apply, check_schema, model_id
from .request import Request

LOCK = ".lock"
"""The file that a writer holds a lock of the operating system on; it is empty, and never removed."""


class Journal:
    """Writes what an audit needs of each round; `replay` checks it and computes all models anew.

    A folder that is absent or empty becomes a journal that begins with these models. Otherwise all digests of
    the journal are checked, and it is continued: these must be the models that it ends with. Only one writer
    can hold a folder, in this process or another; a lock of the operating system is released if it ends.

    Parameters
    ----------
    folder : str or os.PathLike
    schema : Schema
    model : mapping of str to array
        The server's own model, of finite numbers. Arrays that are not in the schema are kept too.
    downlink : Downlink, optional
        What the server sends the model with. The journal reads it in each `append`. Default: clients receive
        the server's own model.

    Attributes
    ----------
    folder : str
    round : int
        The last round; 0 before the first.
    digest : str
        The SHA-256 of the last round in hexadecimal digits. Who knows it can tell whether any bit of the
        journal up to here has been changed, even with all digests computed anew.

    Raises
    ------
    ArgumentError
        Another writer holds the folder, or the models are not those that the journal ends with.
    SchemaError, UpdateError
        The model does not fit the schema, or holds a NaN or an infinity.
    JournalError
        The journal in the folder is damaged.
    OSError
        The folder cannot be read or written.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        schema: Schema,
        model: Arrays,
        downlink: Downlink | None = None,
    ) -> None:
        check_schema(schema, model)
        self.folder, self._schema, self._downlink = os.fspath(folder), schema, downlink
        os.makedirs(self.folder, exist_ok=True)
        atomic.sync_folder(os.path.dirname(os.path.abspath(self.folder)))
        self.round, self.digest, self._model_id = 0, journal_files.NO_DIGEST, 0
        self._release = weakref.finalize(self, os.close, _locked(os.path.join(self.folder, LOCK)))
        try:
            journal_files.remove_temporary(self.folder)
            head, rounds = journal_files.listing(self.folder)
            self._model = {name: np.array(array) for name, array in model.items()}
            if head is None and rounds in ([], [0]):  # a start that was stopped has no head
                self._begin()
            else:
                self._resume()
        except BaseException:
            self.close()
            raise

    def append(
        self,
        frames: Mapping[Any, tuple[Request, Buffer | CheckedFrame, int]],
        total: Aggregator,
        model: Arrays,
    ) -> str:
        """Add a round; when this returns, it is on the disk. On an error the journal is as before.

        It is called once the server has its new model, and `Downlink.advance` has been called with that. A
        call that failed may be repeated.

        Parameters
        ----------
        frames : mapping of client to (Request, bytes-like or CheckedFrame, int)
            Of each accepted frame, by the name of its client, which is kept as text: the request, the frame
            that `Request.check` has accepted, and its weight. The requests may differ in seed, mask and
            codings.
        total : Aggregator
            The sum of these frames.
        model : mapping of str to array
            The server's new model. Where it is not the former one plus the mean (`apply`), as with a
            server's optimizer, the round has its arrays.

        Returns
        -------
        str
            The new `digest`.

        Raises
        ------
        ArgumentError
            The frames are not those of the sum or of the requests, a request is not for the round after the
            last one and its model, or the downlink has not been advanced to this model.
        FrameError
            The header of a frame is not as requested.
        UpdateError
            The model has other arrays than before, or a NaN or an infinity.
        OSError
            A file cannot be written.
        """
        if not self._release.alive:
            raise errors.ArgumentError("journal", "one that is open", "a closed one")
        described, data = self._described(frames, total)
        request = next(iter(frames.values()))[0]
        if self._model.keys() != model.keys():
            raise errors.UpdateError("model", f"the arrays {sorted(self._model)}", sorted(model))
        server = {name: np.array(model[name]) for name in self._model}
        arrays = self._arrays(server, apply(self._model, total.mean(), self._schema))
        about = self._versions(server)
        frame = b"" if self._downlink is None else self._downlink.frame(self._model_id)
        about = {"request": request.to_json(), "frames": described} | about
        number, its_id = request.round, int(about["model_id"])
        former = self.folder, self.round, self.digest
        journal_files.discard_after(*former)  # if it could not be discarded when it failed
        try:
            digest = journal_files.write(self.folder, number, self.digest, about, data, frame, arrays)
            # Together, since an interrupt may come between two lines.
            self.digest, self.round, self._model, self._model_id = digest, number, server, its_id
        except BaseException:
            with suppress(Exception):
                journal_files.discard_after(*former)
            raise
        return digest

    def close(self) -> None:
        """Release the folder for other writers; the journal is complete without this."""
        self._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _begin(self) -> None:
        """Write round 0: the models that the first round begins with."""
        down = self._downlink
        arrays = self._arrays(self._model, {} if down is None else down.model)
        frame = b"" if down is None else down.frame()
        versions = self._versions(self._model)
        about = {"schema": self._schema.to_json(), "arrays_of": self._dtypes(), "frames": []} | versions
        self.digest = journal_files.write(self.folder, 0, self.digest, about, [], frame, arrays)
        self._model_id = int(versions["model_id"])

    def _dtypes(self) -> list[tuple[str, str]]:
        """The names and dtypes of the server's arrays."""
        dense = {tensor.name: tensor.dtype for tensor in self._schema if not tensor.masked}
        return [(name, dense.get(name, array.dtype.name)) for name, array in self._model.items()]

    def _resume(self) -> None:
        """Check all digests, and that the journal ends with these models."""
        schema = last = None
        for last in journal_files.entries(self.folder):
            schema = schema or last.about.get("schema")
        assert last is not None  # `entries` raises an error in place of yielding nothing
        versions = self._versions(self._model)
        about = {"schema": self._schema.to_json(), "downlink": self._downlink is not None} | versions
        ends = {"schema": schema, "downlink": last.about.get("steps") is not None}
        ends |= {name: last.about.get(name) for name in ("server_id", "model_id")}
        for name, value in ends.items():
            if value != about[name]:
                expected = f"{value}, as in the journal after round {last.round}"
                raise errors.ArgumentError(f"{name} of the models", expected, about[name])
        journal_files.write_head(self.folder, last.round, last.digest)
        self.round, self.digest, self._model_id = last.round, last.digest, int(versions["model_id"])

    def _described(
        self, frames: Mapping[Any, tuple[Request, Buffer | CheckedFrame, int]], total: Aggregator
    ) -> tuple[list[dict[str, Any]], list[bytes]]:
        """The JSON of each frame, and its bytes, after checks of what the caller may have mixed up."""
        weight = sum(its_weight for _, _, its_weight in frames.values())
        if not frames or (len(frames), weight) != (total.frames, total.weight):
            expected = f"the {total.frames} frames of the sum, with a weight of {total.weight}"
            raise errors.ArgumentError("frames", expected, f"{len(frames)} frames of weight {weight}")
        common = next(iter(frames.values()))[0]
        shared, described, data = common.to_json(), [], []
        for client, (request, frame, its_weight) in frames.items():
            got = (request.round, request.base_model, request.schema)
            if request.round <= self.round or got != (common.round, self._model_id, self._schema):
                expected = f"one round after {self.round}, base model {self._model_id}, the journal's schema"
                raise errors.ArgumentError(
                    f"request of {client!r}",
                    expected,
                    f"round {request.round}, base model {request.base_model}",
                )
            checked = CheckedFrame.open(
                frame, Expected(request.schema, request.round, request.base_model, request.seed)
            )
            own = {key: value for key, value in request.to_json().items() if value != shared[key]}
            described.append(
                {"client": str(client), "weight": int(its_weight), "request": own, "bytes": len(checked.view)}
            )
            data.append(bytes(checked.view))
        return described, data

    def _versions(self, server: Arrays) -> dict[str, Any]:
        """The ids of both models and the steps of the grid, for JSON."""
        own, down = model_id(server, self._schema), self._downlink
        if down is None:
            return {"server_id": str(own), "model_id": str(own), "steps": None}
        steps = down.steps
        if down.schema != self._schema or not _rounds_to(server, down):
            expected = "this model rounded to its grid, by Downlink.advance"
            raise errors.ArgumentError("model of the downlink", expected, "another")
        return {"server_id": str(own), "model_id": str(down.model_id), "steps": steps}

    def _arrays(self, server: Arrays, computed: Arrays) -> bytes:
        """The frame, with its schema, of the arrays that are not the computed ones; empty if all are."""
        dtypes, differ = dict(self._dtypes()), {}
        for name, array in server.items():
            before = self._model[name]
            if (array.dtype, array.shape) != (before.dtype, before.shape):
                expected = f"{before.dtype}{list(before.shape)}"
                raise errors.UpdateError(
                    f"{name!r} of the model", expected, f"{array.dtype}{list(array.shape)}"
                )
            if name not in computed or array.tobytes() != computed[name].tobytes():
                differ[name] = array
        if not differ:
            return b""
        schema = Schema(Tensor(name, array.shape, dtype=dtypes[name]) for name, array in differ.items())
        return encode_grid(differ, schema, step={}, embed_schema=True)


def _locked(path: str) -> int:
    """The descriptor of a file that this process has locked; closing it releases the lock."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException as error:
        os.close(descriptor)
        if isinstance(error, OSError):
            raise errors.ArgumentError(
                "journal", f"no other writer that locks {path}", error.strerror
            ) from None
        raise
    return descriptor


def _rounds_to(server: Arrays, down: Downlink) -> bool:
    """Whether a model, rounded to the grid of a downlink, is the downlink's."""
    try:
        return Downlink(down.schema, server, step=down.steps).model_id == down.model_id
    except errors.UpdateGridError:
        return False
