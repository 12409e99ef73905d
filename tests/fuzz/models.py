"""Harnesses of what follows a server's model: replicas, and the replay of a journal."""

import hashlib
import io
import json
import random
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
from journals import written

import fedmrn_codec as fm
from fedmrn_codec.errors import CodecError, FrameError, JournalError

from . import seeds
from .codec import LIMITS, Messages
from .harness import Harness, bytes_of, equal, joined, outcome_of
from .mutator import any_bytes, document, messages


@cache
def versions(digest: bytes) -> tuple[bytes, ...]:
    """The whole model of a server, and the frame that leads from it to the next version."""
    schema, rng = seeds.schemas()[digest], np.random.default_rng(11)

    def model(scale: float) -> dict[str, np.ndarray]:
        out = {}
        for t in schema:
            values = np.clip(rng.normal(0, scale, t.shape), -1, 1)
            if t.dtype == "bfloat16":
                out[t.name] = (np.asarray(values, np.float32).view(np.uint32) >> 16).astype(np.uint16)
            else:
                small = values if t.type.is_float else np.abs(values)
                out[t.name] = np.asarray(small).astype(t.type.numpy)
        return out

    down = fm.Downlink(schema, model(0.2))
    first = down.model_id
    whole = down.frame()
    down.advance(model(0.3))
    return whole, down.frame(first)


class Replicas(Messages):
    """`Replica.apply`: what is refused changes nothing; a model can be written and read."""

    name = "replicas"

    def seeds(self) -> Sequence[bytes]:
        grids = [data for data in seeds.frames() if len(data) > 5 and data[5] == 3]
        known = {data[32:48] for data in grids} & seeds.schemas().keys()
        small = sorted(digest for digest in known if seeds.schemas()[digest].elements < 2000)
        return joined(*(versions(digest) for digest in small), grids, seeds.finds(self.name))

    def change(self, rng: random.Random, pool: Sequence[bytes]) -> bytes:
        return messages(rng, pool, often=0.98)

    def check(self, data: bytes) -> object:
        schema = seeds.schema_of(data)
        if schema is None or schema.elements > 10_000:
            return "unknown schema"
        replica = fm.Replica(schema, limits=LIMITS, backend="numpy")
        replica.apply(versions(schema.digest)[0])
        before, model = replica.model_id, bytes_of(replica.model)
        try:
            arrays = replica.apply(data)
        except FrameError as error:
            equal(
                "the model after a refused frame",
                (before, model),
                (replica.model_id, bytes_of(replica.model)),
            )
            return outcome_of(error)
        equal("the id of the model", fm.model_id(arrays, schema), replica.model_id)
        whole = int.from_bytes(data[16:24], "little") == 0
        if whole:
            update = fm.decode(data, schema, limits=LIMITS, backend="numpy")
            zeros = {t.name: np.zeros(t.shape, t.type.numpy) for t in schema}
            equal("the whole model", bytes_of(fm.apply(zeros, update, schema)), bytes_of(arrays))
        other = fm.Replica(schema, limits=LIMITS, backend="numpy")
        other.apply(replica.to_bytes(), replica.model_id)
        equal("the model, written and read", bytes_of(arrays), bytes_of(other.model))
        return "accepted", whole, len(schema)


class States(Harness):
    """`Downlink.from_bytes`: what is accepted can be written and read again."""

    name = "states"

    def __init__(self) -> None:
        self.schema = next(schema for schema in seeds.schemas().values() if len(schema) > 8)

    def seeds(self) -> Sequence[bytes]:
        down = fm.Downlink(self.schema, {t.name: np.ones(t.shape, t.type.numpy) for t in self.schema})
        first = down.to_bytes()
        down.advance({t.name: np.zeros(t.shape, t.type.numpy) for t in self.schema})
        return joined([first, down.to_bytes()], seeds.finds(self.name))

    def change(self, rng: random.Random, pool: Sequence[bytes]) -> bytes:
        data = rng.choice(pool)
        if rng.randrange(4) == 0:
            return any_bytes(rng, data)
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as file:
                arrays = {name: file[name].tobytes() for name in file.files}
            name = rng.choice(list(arrays))
            if name == "about":
                arrays[name] = json.dumps(document(rng, json.loads(arrays[name]))).encode()
            else:
                arrays[name] = messages(rng, [arrays[name]], often=0.98)
            out = io.BytesIO()
            np.savez(out, **{name: np.frombuffer(part, np.uint8) for name, part in arrays.items()})
            return out.getvalue()
        except Exception:  # no archive any more
            return any_bytes(rng, data)

    def check(self, data: bytes) -> object:
        try:
            down = fm.Downlink.from_bytes(data, self.schema, backend="numpy")
        except CodecError as error:
            return outcome_of(error)
        again = fm.Downlink.from_bytes(down.to_bytes(), self.schema, backend="numpy")
        equal("the id of the model, written and read", down.model_id, again.model_id)
        return "accepted", len(down.versions)


class Journals(Harness):
    """`replay` of a journal of which a file has been changed, mostly with all digests computed anew.

    An input is the number of a round, a line of JSON, and the bytes of its frames.
    """

    name = "journals"

    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="fedmrn-fuzz-")
        written(self.folder.name, rounds=2).journal.close()
        path = Path(self.folder.name)
        self.files = sorted(file.name for file in path.glob("round-*.fmrj"))
        self.bodies = [(path / name).read_bytes()[:-32] for name in self.files]

    def seeds(self) -> Sequence[bytes]:
        return joined([b"%d" % i + body for i, body in enumerate(self.bodies)], seeds.finds(self.name))

    def change(self, rng: random.Random, pool: Sequence[bytes]) -> bytes:
        data = rng.choice(pool)
        if rng.randrange(16) == 0:
            return any_bytes(rng, data)
        line, _, rest = data[1:].partition(b"\n")
        if rng.randrange(2):
            try:
                line = json.dumps(document(rng, json.loads(line))).encode()
            except (ValueError, RecursionError):
                line = any_bytes(rng, line)
        else:
            line, rest = self._with_frame(rng, line, rest)
        return data[:1] + line + b"\n" + rest

    def _with_frame(self, rng: random.Random, line: bytes, rest: bytes) -> tuple[bytes, bytes]:
        """One of the frames of a round changed, and its length in the line."""
        try:
            about = json.loads(line)
            owners = [*about["frames"], *[about] * 2]
            keys = [*["bytes"] * len(about["frames"]), "downlink", "arrays"]
            i = rng.randrange(len(keys))
            begin = sum(int(owner[key]) for owner, key in zip(owners[:i], keys[:i], strict=True))
            frame = rest[begin : begin + int(owners[i][keys[i]])]
            new = messages(rng, [frame], often=0.98) if frame else frame
            owners[i][keys[i]] = len(new)
            return json.dumps(about).encode(), rest[:begin] + new + rest[begin + len(frame) :]
        except (ValueError, KeyError, TypeError, IndexError, OverflowError, RecursionError):
            return line, any_bytes(rng, rest)

    def check(self, data: bytes) -> object:
        number, path = int(data[:1]) if data[:1].isdigit() else 0, Path(self.folder.name)
        bodies = list(self.bodies)
        bodies[number % len(bodies)] = data[1:]
        former = "0" * 64
        for i, (name, body) in enumerate(zip(self.files, bodies, strict=True)):
            line, end, rest = body.partition(b"\n")
            if i > number % len(bodies):
                line = json.dumps(json.loads(line) | {"former": former}).encode()
            whole = line + end + rest
            former = hashlib.sha256(whole).hexdigest()
            (path / name).write_bytes(whole + bytes.fromhex(former))
        head = json.dumps({"round": len(bodies) - 1, "sha256": former}) + "\n"
        (path / "head.json").write_text(head)
        try:
            return len(list(fm.replay(path, backend="numpy")))
        except JournalError as error:
            return error.code, error.field.split(" of ")[0][:40]

    def close(self) -> None:
        self.folder.cleanup()
