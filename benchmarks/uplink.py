"""The uplink speed above which encoding no longer pays.

Sending S bytes of float32 over an uplink of B bit/s takes 8 S / B seconds. A codec takes t seconds and sends
s bytes: t + 8 s / B. The codec is quicker below B = 8 (S - s) / t. In one column t is the client's time to
encode; in another it includes the server's time to decode and add, as if the server waited for this client
alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import zstandard

import fedmrn_codec as fm
from reference_fl import methods
from reference_fl.methods.packed import PackedMethod
from reference_fl.settings import defaults

from .contenders import ZSTD_LEVEL
from .frames import BACKEND, NOISE, PRIVATE_SEED, SEED, float32_bytes, schema_of, update_of
from .plan import Plan
from .tables import Section, Table, number
from .timing import Work, adding, measure

RAW, CODED, HALVED = "fedmrn", "fedmrn, coding 1", "fedmrn, coding 1, float16 dense"


@dataclass(frozen=True)
class Message:
    """A message of one contender: functions that encode it, and decode and add it; and its bytes."""

    encode: Callable[[], object]
    add: Callable[[], object]
    size: int


def run(plan: Plan) -> Section:
    """Measure the messages for the plan's network, all on one thread."""
    schema = schema_of(plan.model)
    whole, all_messages = float32_bytes(schema), messages(schema)
    encoding = measure({n: Work(m.encode, 1) for n, m in all_messages.items()}, plan.rounds, plan.limit)
    addition = measure({n: adding(m.add) for n, m in all_messages.items()}, plan.rounds, plan.limit)
    rows = []
    for name, message in all_messages.items():
        client, server = encoding.median(name), addition.median(name)
        rows.append(
            [
                name,
                f"{message.size:,}",
                number(whole / message.size),
                number(encoding.ratio(name, RAW)),
                number(addition.ratio(name, RAW)),
                _speed(whole, message.size, client),
                _speed(whole, message.size, client + server),
            ]
        )
    heads = "message", "bytes", "ratio", "encode", "decode and add", "pays below, Mbit/s", "with the server"
    notes = [
        f"{plan.model.upper()}, {whole:,} bytes of float32; times relative to the first row; one thread",
        "encoding pays below 8 (S - s) / t bit/s: S bytes of float32, s sent, t seconds to encode (and add)",
        f"the first row takes {1e3 * encoding.median(RAW):.2f} ms and {1e3 * addition.median(RAW):.2f} ms",
    ]
    table = Table("The uplink above which encoding no longer pays", heads, rows, notes)
    return Section([table], summary=table)


def break_even(whole: int, sent: int, seconds: float) -> float:
    """The bit/s below which the codec is quicker; 0 if it never is."""
    return max(8 * (whole - sent) / seconds, 0.0)


def _speed(whole: int, sent: int, seconds: float) -> str:
    speed = break_even(whole, sent, seconds)
    return number(speed / 1e6) if speed else "never"


def messages(schema: fm.Schema) -> dict[str, Message]:
    """This codec's frames, the baselines' messages, and a cast and zstd of all tensors concatenated."""
    update = update_of(schema)
    flat = np.concatenate([array.reshape(-1).astype(np.float32) for array in update.values()])
    return {
        RAW: _frame(schema, update),
        CODED: _frame(schema, update, coding="rans"),
        HALVED: _frame(schema, update, coding="rans", dense_coding="float16"),
        "EDEN": _packed("eden", schema, update),
        "DRIVE": _packed("drive", schema, update),
        "float16 cast": _cast(flat),
        "zstd of float32": _zstd(flat),
    }


def _frame(schema: fm.Schema, update: dict[str, np.ndarray], **codings: str) -> Message:
    def encode() -> bytes:
        fixed = {"seed": SEED, "noise": NOISE, "private_seed": PRIVATE_SEED, "backend": BACKEND}
        return fm.encode(update, schema, **fixed, **codings)  # type: ignore[arg-type]

    frame, server = encode(), fm.Aggregator(schema, noise=NOISE, backend=BACKEND)
    return Message(encode, lambda: server.add(frame, weight=1), len(frame))


def _packed(name: str, schema: fm.Schema, update: dict[str, np.ndarray]) -> Message:
    method = methods.build(defaults("fashion-mnist", name, None))
    assert isinstance(method, PackedMethod)
    nothing = torch.empty(0)
    task = methods.Task(
        x=nothing,
        y=nothing,
        round=1,
        base_model=1,
        seed=SEED,
        private_seed=PRIVATE_SEED,
        order_seed=1,
        client=0,
    )
    message, server = method.message(update, schema, task), method.server(schema, 1, 1)
    return Message(
        lambda: method.message(update, schema, task), lambda: server.add(message, weight=1), len(message)
    )


def _cast(flat: np.ndarray) -> Message:
    halves, sums = flat.astype(np.float16), np.zeros_like(flat)
    return Message(
        lambda: flat.astype(np.float16).tobytes(),
        lambda: np.add(sums, halves.astype(np.float32), out=sums),
        halves.nbytes,
    )


def _zstd(flat: np.ndarray) -> Message:
    packer, unpacker, sums = (
        zstandard.ZstdCompressor(ZSTD_LEVEL),
        zstandard.ZstdDecompressor(),
        np.zeros_like(flat),
    )
    packed = packer.compress(flat)
    return Message(
        lambda: packer.compress(flat),
        lambda: np.add(sums, np.frombuffer(unpacker.decompress(packed), np.float32), out=sums),
        len(packed),
    )
