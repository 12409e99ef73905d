"""Secure aggregation beside Flower's SecAgg+ and homomorphic encryption as in NVFlare, for one network.

Every peer really runs: each of ten clients has an update of its own, all messages are serialised and counted,
and each peer's sum is compared with that of the updates, or of the frames. One process plays all roles, and
attributes its CPU time to them.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec

import numpy as np

import fedmrn_codec as fm
import fedmrn_secagg
from fedmrn_secagg.errors import TooFewError

from .frames import float32_bytes, schema_of, update_of
from .plan import Plan
from .secagg_ledger import STAGES, Ledger
from .secagg_roles import STEPS
from .tables import Section, Table, Target, number
from .timing import in_turns

CLIENTS, THRESHOLD = 10, 6
IDS = [int(id) for id in np.random.default_rng(0).integers(2**62, 2**63, CLIENTS)]
"""Numbers of 63 bits, as Flower's: some of its messages have ids as text."""

MOST_BITS = 4.3
"""The target: bits up a masked parameter, with all that the protocol sends."""

MOST_ROUNDS = 3
NOISE = fm.Bernoulli(0.01)

Model = dict[str, np.ndarray]
Play = Callable[[fm.Schema, dict[int, Model], Ledger, Mapping[int, str]], bool]
"""Plays a round with these updates, where some clients are silent from a stage on; whether it gave a sum."""


@dataclass(frozen=True)
class Peer:
    """A way to sum updates.

    Attributes
    ----------
    play : callable
        As `Play` says.
    packages : tuple of str
        What it needs.
    learns : str
        What the server learns of the updates.
    stages : tuple of str
        Those of `STAGES` that it has.
    """

    play: Play
    packages: tuple[str, ...]
    learns: str
    stages: tuple[str, ...] = STAGES

    @property
    def missing(self) -> str:
        """Why it cannot run here; empty if it can."""
        names = [name for name in self.packages if find_spec(name) is None]
        return f"not run: {' and '.join(names)} not installed" if names else ""


def fedmrn(schema: fm.Schema, updates: dict[int, Model], ledger: Ledger, silent: Mapping[int, str]) -> bool:
    """A round of `fedmrn_secagg`, from the updates to the mean; the download has the model in float32.

    Raises
    ------
    AssertionError
        The mean has not the bytes of that of the frames.
    """
    request = fm.Request(2026, NOISE, "signed", 1, 0, schema)
    server = fedmrn_secagg.Server(request, clients=updates, threshold=THRESHOLD)
    clients = {id: fedmrn_secagg.Client(id, request, threshold=THRESHOLD) for id in updates}
    frames: dict[int, bytes] = {}
    last = {id: 1 + STAGES.index(silent[id]) if id in silent else len(STEPS) for id in updates}
    answer: bytes | dict[int, bytes] = b""
    for id in updates:
        ledger.down[id] += float32_bytes(schema)
    try:
        for number_of_step, step in enumerate(STEPS):
            messages = {}
            for id in (id for id in updates if last[id] > number_of_step):
                given = answer[id] if isinstance(answer, dict) else answer
                ledger.down[id] += len(given)
                with ledger.of_client(id):
                    if step == "masked":
                        frames[id] = request.encode(updates[id])
                        messages[id] = clients[id].masked(frames[id], given)
                    else:
                        messages[id] = getattr(clients[id], step)(*([given] if given else []))
                ledger.up[id] += len(messages[id])
            with ledger.of_server():
                answer = getattr(server, step)(messages)
    except TooFewError:
        return False
    with ledger.of_server():
        mean = answer.mean()
    check(mean, request, frames)
    return True


def check(mean: Model, request: fm.Request, frames: dict[int, bytes]) -> None:
    """Compare a mean with that of frames: the masked tensors byte for byte, the others within their grid."""
    plain = request.aggregator()
    for frame in frames.values():
        plain.add(frame, 1)
    masked = {tensor.name for tensor in request.schema if tensor.masked}
    for name, wanted in plain.mean().items():
        if name in masked:
            same = mean[name].tobytes() == wanted.tobytes()
        else:
            same = np.abs(mean[name] - wanted).max(initial=0) <= 2.0**-18
        if not same:
            raise AssertionError(f"the mean of {name!r} is not that of the frames")


def floats(model: Model) -> list[np.ndarray]:
    """The tensors that the peers sum: without the counters of BatchNorm, which are integers."""
    return [array for array in model.values() if array.dtype.kind == "f"]


def flower(schema: fm.Schema, updates: dict[int, Model], ledger: Ledger, silent: Mapping[int, str]) -> bool:
    """A round of SecAgg+ in which clients send models, as its users do; errors as in `fedmrn`."""
    from . import secagg_flower

    model = floats({tensor.name: np.full(tensor.shape, 0.5, tensor.dtype) for tensor in schema})
    sent = {id: floats(update) for id, update in updates.items()}
    return secagg_flower.play(model, sent, ledger, silent, THRESHOLD / CLIENTS)


def ckks(schema: fm.Schema, updates: dict[int, Model], ledger: Ledger, silent: Mapping[int, str]) -> bool:
    """A round of homomorphic encryption; errors as in `fedmrn`."""
    from . import secagg_ckks

    return secagg_ckks.play({id: floats(update) for id, update in updates.items()}, ledger, silent)


PEERS = {
    "fedmrn_secagg": Peer(
        fedmrn, ("cryptography", "Crypto"), f"the sum of {THRESHOLD} updates or more, the sum of weights"
    ),
    "Flower, SecAgg+": Peer(
        flower,
        ("flwr", "cryptography", "Crypto"),
        f"the sum of {THRESHOLD} updates or more, the sum of weights; the seed of a pad has 32 bits",
    ),
    "TenSEAL, CKKS": Peer(
        ckks,
        ("tenseal", "nvflare"),
        "not even the sum; the clients have one secret key, which decrypts every update",
        STAGES[1:2],
    ),
}


def updates_of(schema: fm.Schema) -> dict[int, Model]:
    """An update of each client: that of the benchmarks, times a factor of its own."""
    update = update_of(schema)
    factors = np.linspace(0.2, 1.1, CLIENTS, dtype=np.float32)
    return {
        id: {name: (array * factor).astype(array.dtype) for name, array in update.items()}
        for id, factor in zip(IDS, factors, strict=True)
    }


def played(peer: Peer, schema: fm.Schema, updates: dict[int, Model]) -> Ledger:
    """The costs of a round in which no client drops out."""
    ledger = Ledger(updates)
    if not peer.play(schema, updates, ledger, {}):
        raise AssertionError("a round without dropouts gave no sum")
    return ledger


SMALL = fm.Schema([fm.Tensor("w", (3, 8), masked=True), fm.Tensor("b", (3,))])


def tolerated(peer: Peer) -> str:
    """The most clients that may drop out before each of `STAGES`, as a round of a small model shows."""
    updates = updates_of(SMALL)
    found = {stage: str(most_silent(peer, updates, stage)) for stage in peer.stages}
    return ", ".join(found.get(stage, "-") for stage in STAGES)


def most_silent(peer: Peer, updates: dict[int, Model], stage: str) -> int:
    """The most clients that may be silent from a stage on, so that there is a sum."""
    for count in range(1, CLIENTS + 1):
        silent = dict.fromkeys(IDS[:count], stage)
        if not peer.play(SMALL, updates, Ledger(updates), silent):
            return count - 1
    return CLIENTS


def run(plan: Plan) -> Section:
    """A row for each peer, and the target."""
    schema, rounds = schema_of(plan.network), min(plan.processes, MOST_ROUNDS)
    updates = updates_of(schema)
    able = {name: peer for name, peer in PEERS.items() if not peer.missing}
    for peer in able.values():
        played(peer, SMALL, updates_of(SMALL))  # imports what a round needs
    played(PEERS["fedmrn_secagg"], schema, updates)  # compiles kernels
    ledgers = in_turns({name: partial(played, peer, schema, updates) for name, peer in able.items()}, rounds)
    parameters = sum(tensor.size for tensor in schema)
    masked = sum(tensor.size for tensor in schema if tensor.masked)
    rows = [
        row(name, peer, ledgers[name], parameters) if name in able else empty_row(name, peer)
        for name, peer in PEERS.items()
    ]
    heads = (
        "system",
        "bits up",
        "bits down",
        "client, s",
        "server, s",
        "dropouts",
        "the server learns of the updates",
    )
    own = ledgers["fedmrn_secagg"][0]
    bits = 8 * own.median(own.up) / masked
    name = f"secure aggregation, {CLIENTS} clients of {plan.network.upper()}: bits up a masked parameter"
    return Section(
        [Table("Secure aggregation beside others", heads, rows, notes_of(plan, parameters, rounds))],
        [Target(name, bits, MOST_BITS, at_least=False)],
    )


def notes_of(plan: Plan, parameters: int, rounds: int) -> list[str]:
    """What a reader of the table needs."""
    network = f"{CLIENTS} clients of {plan.network.upper()}, {parameters:,} parameters"
    notes = [
        f"{network}; {rounds} rounds in rotating order",
        "bits a parameter, of all messages, the download with the model in float32, or the encrypted sum",
        "CPU time: of a client for a million parameters, with its frame or its decryption",
        "and of the server for the round",
        "dropouts: the most clients that may drop out before the shares, before the vectors, and after them",
        f"threshold {THRESHOLD}; other settings of SecAgg+ are Flower's defaults",
    ]
    if not PEERS["TenSEAL, CKKS"].missing:
        from . import secagg_ckks

        notes.append(f"CKKS as NVFlare sets it: {secagg_ckks.settings()}, a vector for each tensor")
    frameworks = [name for name in ("flwr", "nvflare", "tenseal") if find_spec(name) is not None]
    notes.append(", ".join(f"{name} {version(name)}" for name in frameworks))
    return notes


def row(name: str, peer: Peer, ledgers: list[Ledger], parameters: int) -> list[str]:
    """The row of a peer that has run."""
    first = ledgers[0]
    client = statistics.median(ledger.median(ledger.seconds) for ledger in ledgers)
    return [
        name,
        number(8 * first.median(first.up) / parameters),
        number(8 * first.median(first.down) / parameters),
        number(client / parameters * 1e6),
        number(statistics.median(ledger.server for ledger in ledgers)),
        tolerated(peer),
        peer.learns,
    ]


def empty_row(name: str, peer: Peer) -> list[str]:
    """The row of a peer that cannot run here."""
    return [name, *[""] * 5, peer.missing]
