"""The harness of whole rounds of secure aggregation, in which several things go wrong."""

import json
import random
import zlib
from collections.abc import Sequence
from typing import Any

import fedmrn_codec as fm

from .harness import Harness, equal, joined
from .mutator import number
from .secagg_judge import CHECKSUM, HEADER
from .secagg_play import DONE, Play, out_of_order
from .secagg_record import STEPS, Record, records
from .seeds import finds

HARMLESS = ("lost", "early", "twice", "saved", "stranger")
"""Faults that change no message: with these alone, a round fails for lack of clients only."""

KINDS = ("keys", "roster", "shares", "boxes", "masked", "survivors", "reveal")

Fault = dict[str, Any]


class SecAggRounds(Harness):
    """Rounds in which messages are lost, forged, replayed, sent twice or out of order, and clients restart.

    An input is JSON: the number of a record, and faults. A fault has the number of its step, the position of
    its client, its side ("server" reads the message, or "client"), and what happens (`how`). For "forge":
    `source` is the number of a record, a kind and a client, or null for the message that is there; `head`
    tells whether it has the header of the message that is there; `edits` are offsets, numbers of bytes
    removed, and bytes put in; `seal` tells whether its checksum is made right.

    Whatever happens, no client answers a step twice, every refusal is documented and changes nothing, and the
    round ends with the sum of the survivors' frames or with none.
    """

    name = "secagg-rounds"

    def seeds(self) -> Sequence[bytes]:
        found = []
        for r in range(len(records())):
            found.append(_input(r, []))
            for step in range(len(STEPS)):
                for how in (*HARMLESS, "forge"):
                    for side in ("server", "client"):
                        found.append(_input(r, [_fault(step, r + step, side, how)]))
        return joined(found, finds(self.name))

    def change(self, rng: random.Random, pool: Sequence[bytes]) -> bytes:
        about = json.loads(rng.choice(pool))
        r, faults = about["record"], list(about["faults"])
        if rng.randrange(4) == 0 and faults:
            del faults[rng.randrange(len(faults))]
        for _ in range(rng.choice((1, 1, 2, 3, 5))):
            faults.append(_random_fault(rng))
        if rng.randrange(6) == 0:
            r = rng.randrange(len(records()))
        return _input(r, faults[-12:])

    def check(self, data: bytes) -> object:
        try:
            about = json.loads(data)
            record = records()[about["record"]]
            faults: list[Fault] = about["faults"]
        except (ValueError, TypeError, KeyError, IndexError):
            return "no round"
        play = Play(record)
        play.enter()
        end = None
        while end is None and play.number < len(STEPS):
            end = Step(play, [f for f in faults if f["step"] == play.number]).taken()
        if end is None:
            play.check_sum()
            end = DONE
        elif all(fault["how"] in HARMLESS for fault in faults):
            equal("why a round ends in which clients were lost", "too_few", end)
        return end, tuple(sorted(set(play.codes))), len(play.server.survivors)


class Step:
    """One step of a round, with its faults."""

    def __init__(self, play: Play, faults: Sequence[Fault]) -> None:
        self.play, self.record = play, play.record
        self.ids = list(self.record.members)
        self.faults = [(self.ids[f["client"] % len(self.ids)], f) for f in faults]

    def of(self, id: int, side: str) -> list[Fault]:
        """The faults of a client's message to the server, or of the one that it reads."""
        return [fault for its, fault in self.faults if its == id and fault["side"] == side]

    def taken(self) -> str | None:
        """Take the step; the code with which the server ended the round."""
        play, live = self.play, {}
        for id in list(play.clients):
            message = self._answer(id)
            if message is not None:
                live[id] = message
        messages = self._on_the_way(live)
        if play.step == "masked":
            for id in messages.keys() | live.keys():
                if messages.get(id) != live.get(id) and id in messages:
                    play.forge(id, live.get(id), messages[id])
        before = play.step
        code = play.collect(messages)
        if any(fault["how"] == "twice" for _, fault in self.faults) and code is None:
            out_of_order(lambda: getattr(play.server, before)(messages))
        return code

    def _answer(self, id: int) -> bytes | None:
        """The answer of a client to what reaches it."""
        play, faults = self.play, self.of(id, "client")
        given = self.record.given(play.answer, id)
        for fault in faults:
            if fault["how"] == "early":
                self._early(play.clients[id], given)
            elif fault["how"] == "saved":
                play.clients[id] = self.record.client(id, play.clients[id].to_bytes())
            elif fault["how"] == "lost":
                return None
            elif fault["how"] == "forge" and play.number:
                given = self._forged(fault, given)
        message = play.ask(id, given)
        if any(fault["how"] == "twice" for fault in faults) and message is not None:
            out_of_order(lambda: self.record.ask(play.clients[id], STEPS[play.number], given))
        return message

    def _early(self, client: Any, given: Any) -> None:
        """Every other call is refused, whatever it is given."""
        for step in set(STEPS) - {self.play.step}:
            out_of_order(lambda step=step: self.record.ask(client, step, given))

    def _on_the_way(self, live: dict[int, bytes]) -> dict[int, bytes]:
        """The messages that reach the server."""
        play, out = self.play, dict(live)
        allowed = self._allowed()
        for id, fault in self.faults:
            if fault["side"] != "server":
                continue
            if fault["how"] == "lost":
                out.pop(id, None)
            elif fault["how"] == "early":
                for step in set(STEPS) - {play.step}:
                    out_of_order(lambda step=step: getattr(play.server, step)(out))
            elif fault["how"] == "stranger":
                self._strange(out)
            elif fault["how"] == "forge" and id in allowed:
                forged = self._forged(fault, out.get(id))
                if forged is not None:
                    out[id] = forged
        return out

    def _allowed(self) -> set[int]:
        """The ids from which the server takes messages in this step."""
        play = self.play
        if play.number == 0:
            return set(self.ids)
        return set(play.accepted)

    def _strange(self, messages: dict[int, bytes]) -> None:
        """A message of somebody who does not take part is refused as a whole."""
        state = self.play.server.state
        for id in (2**64 - 2, 0, -1, "1", None, 1.5):
            try:
                getattr(self.play.server, self.play.step)({**messages, id: b""})
            except fm.ArgumentError:
                equal("the server after a refusal", state, self.play.server.state)
                continue
            raise AssertionError(f"expected a refusal of the id {id!r}, got an answer")

    def _forged(self, fault: Fault, there: bytes | None) -> bytes | None:
        """What takes the place of a message; None if there is nothing to begin with."""
        data = _source(self.record, fault["source"], there)
        if data is None:
            return there
        if fault["head"] and there is not None:
            data = there[:HEADER] + data[HEADER:]
        for at, removed, put in fault["edits"]:
            begin = at % (len(data) + 1)
            data = data[:begin] + bytes.fromhex(put) + data[begin + removed :]
        if fault["seal"]:
            data = data[:-CHECKSUM] + zlib.crc32(data[:-CHECKSUM]).to_bytes(4, "little")
        return data


def _source(record: Record, source: Any, there: bytes | None) -> bytes | None:
    """A message of a record, or the one that is there."""
    if source is None:
        return there
    r, k, c = source
    other, kind = records()[r % len(records())], KINDS[k % len(KINDS)]
    if kind in STEPS:
        messages = list(other.sent[kind].values())
        return messages[c % len(messages)]
    answer = other.answers[STEPS[KINDS.index(kind) // 2]]
    messages = list(answer.values()) if isinstance(answer, dict) else [answer]
    return messages[c % len(messages)]


def _input(record: int, faults: list[Fault]) -> bytes:
    return json.dumps({"record": record, "faults": faults}).encode()


def _fault(step: int, client: int, side: str, how: str) -> Fault:
    more = {"source": None, "head": False, "edits": [[60, 1, "55"]], "seal": True} if how == "forge" else {}
    return {"step": step, "client": client, "side": side, "how": how} | more


def _random_fault(rng: random.Random) -> Fault:
    how = rng.choice((*HARMLESS, "lost", *["forge"] * 8))
    fault = _fault(rng.randrange(len(STEPS)), rng.randrange(8), rng.choice(("server", "client")), how)
    if how != "forge":
        return fault
    step = fault["step"]
    kind = 2 * step - (fault["side"] == "client")
    source = None
    if rng.randrange(2):
        kind = kind if rng.randrange(4) else rng.randrange(len(KINDS))
        source = [rng.randrange(6), kind % len(KINDS), rng.randrange(8)]
    edits = []
    for _ in range(rng.choice((0, 1, 1, 2, 3))):
        at = rng.choice((rng.randrange(HEADER), HEADER + rng.randrange(64), number(rng, 200, 2)))
        size = rng.choice((1, 1, 4, 16, 32, 48))
        put = rng.choice((rng.randbytes(size), bytes(size), b"\xff" * size, b"", rng.randbytes(2 * size)))
        edits.append([at, size, put.hex()])
    return fault | {
        "source": source, "head": rng.randrange(3) > 0, "edits": edits, "seal": rng.randrange(8) > 0,
    }  # fmt: skip
