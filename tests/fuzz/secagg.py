"""Harnesses of secure aggregation: messages to the server and to clients, saved states, and whole rounds.

The randomness of a round is that of its record, so each input gives the same messages again.
"""

import hashlib
import json
import random
from collections.abc import Iterator, Sequence
from typing import Any

from secagg_vectors import CASES, ROUNDS

from fedmrn_secagg.client import VERBS
from fedmrn_secagg.secret_state import DIGEST_BYTES

from . import secagg_mutator
from .harness import Harness, equal, joined
from .mutator import any_bytes, document, messages
from .secagg_judge import HEADER, TO_CLIENT, TO_SERVER, Place, verdict
from .secagg_play import DONE, Play, tried
from .secagg_record import STEPS, Record, records
from .seeds import finds

FRAME = "frame"
"""The kind of what a client reads from its own program, with the message `boxes`."""

BEFORE = 3
"""Bytes of an input before the message: the numbers of record, kind, and client."""


class Messages(Harness):
    """A harness whose inputs are messages at their places."""

    kinds: Sequence[str] = ()

    def seeds(self) -> Sequence[bytes]:
        return joined(self._of_records(), self._of_vectors(), finds(self.name))

    def _places(self) -> Iterator[tuple[bytes, Place]]:
        for r, record in enumerate(records()):
            for k, kind in enumerate(self.kinds):
                for c, id in enumerate(self._ids(record, kind)):
                    yield bytes([r, k, c]), Place(record, kind, id)

    def _of_records(self) -> Iterator[bytes]:
        for before, place in self._places():
            yield before + self.right(place)

    def _of_vectors(self) -> Iterator[bytes]:
        """The vectors of messages that are refused, and of frames."""
        names = list(ROUNDS)
        for case in CASES:
            kind = {"message": case.get("step"), "frame": FRAME}.get(case["kind"])
            if kind in self.kinds:
                number = names.index(case["round"])
                id = case.get("reader") or case["sender"]
                ids = self._ids(records()[number], kind)
                if id in ids:
                    before = bytes([number, self.kinds.index(kind), ids.index(id)])
                    yield before + bytes.fromhex(case["frame" if kind == FRAME else "message"])

    @staticmethod
    def _ids(record: Record, kind: str) -> list[int]:
        return list(record.sent["masked" if kind == FRAME else TO_CLIENT.get(kind, kind)])

    def located(self, data: bytes) -> tuple[Place, bytes]:
        """The place that an input names, and its message."""
        r, k, c = (data[:BEFORE] + bytes(BEFORE))[:BEFORE]
        record, kind = records()[r % len(records())], self.kinds[k % len(self.kinds)]
        ids = self._ids(record, kind)
        return Place(record, kind, ids[c % len(ids)]), data[BEFORE:]

    @staticmethod
    def right(place: Place) -> bytes:
        """The message that the record has at a place."""
        return place.record.members[place.id].frame if place.kind == FRAME else place.right

    def change(self, rng: random.Random, pool: Sequence[bytes]) -> bytes:
        data, other = rng.choice(pool), rng.choice(pool)
        place, message = self.located(data)
        if rng.randrange(4) == 0:  # replayed, reordered or foreign, as it is or changed
            own = rng.choice(secagg_mutator.pool_of(place))
            message = rng.choice((other[BEFORE:], self.right(place), own))
            if rng.randrange(4) == 0:
                return data[:BEFORE] + message
        if place.kind == FRAME:
            return data[:BEFORE] + messages(rng, [message, self.right(place)])
        return data[:BEFORE] + secagg_mutator.message(rng, place, message, self._other(rng, place, other))

    def _other(self, rng: random.Random, place: Place, other: bytes) -> bytes:
        """A message to take parts of: any, or one of the same kind in the same or in another round."""
        if rng.randrange(3) == 0:
            return other[BEFORE:]
        record = rng.choice((place.record, rng.choice(records())))
        return self.right(place._replace(record=record, id=rng.choice(self._ids(record, place.kind))))


class SecAggServer(Messages):
    """What a server reads: one message of a round is changed, and the round goes on.

    It is refused with the code of the first check that it fails, in the name of its client, and the round
    goes on with the right message as if nothing had been; or it fails no check, and then the sum is that of
    the survivors' frames. A forged vector that fails no check changes the sum by what was changed of it
    (spec/SECAGG.md 11.4), or it gives a sum that no vectors have.
    """

    name, kinds = "secagg-server", TO_SERVER

    def check(self, data: bytes) -> object:
        place, message = self.located(data)
        code, step = verdict(place, message), place.step
        play, sent = Play(place.record, STEPS.index(step)), place.record.sent[step]
        given = {**sent, place.id: message}
        if step == "masked":
            play.forge(place.id, sent[place.id], message)
        answer, error = play.give(given)
        if code is None and error is None:
            return self._accepted(play, answer, place, given)
        ends = error is not None and error.client is None and step == "reveal" and code is None
        if ends:
            equal("a code of a round that ends", True, error.code in ("reconstruction", "sum"))
        else:
            equal("the code of a message", code, error and error.code)
            self._check_named(place, message, error)
        play.forged.clear()
        equal("the round with the right message", None, play.collect(sent))
        self._check_right(play, place)
        return place.kind, code, ends and error.code

    @staticmethod
    def _check_named(place: Place, message: bytes, error: Any) -> None:
        """The error names the client; of two with one public key, the one with the larger id."""
        if error.code == "public_key" and error.client != place.id:
            theirs = place.record.sent["keys"][error.client]
            mine = {message[at : at + 32] for at in (HEADER, HEADER + 32)}
            equal("a key that occurs twice", True, bool(mine & {theirs[48:80], theirs[80:112]}))
        else:
            equal("the client in the error", place.id, error.client)

    @staticmethod
    def _check_right(play: Play, place: Place) -> None:
        """What the server answers is what it answers in the record."""
        if place.step == "reveal":
            play.check_sum()
        else:
            equal("the server's answer", place.record.answers[place.step], play.answer)

    def _accepted(self, play: Play, answer: Any, place: Place, given: dict[int, bytes]) -> object:
        """What becomes of a round whose server has accepted a message that fails no check."""
        play.advance(answer, given)
        if given[place.id] == place.right or place.step == "reveal":
            self._check_right(play, place)
            return place.kind, "right", given[place.id] == place.right
        play.enter(given)
        end = play.finish()
        if place.step == "masked" and end != DONE:
            equal("a forged vector that ends a round", ("sum", None), (end, play.expected()))
        return place.kind, "accepted", end, tuple(sorted(set(play.codes)))


class SecAggClient(Messages):
    """What a client reads: one message to it, or its own frame, is changed, and the round goes on.

    It is refused with the code of the first check that it fails, and the client answers the right one as if
    nothing had been; or it fails no check. The answer to another roster, or to other survivors, is of no use
    to the server. A frame that is accepted is in the sum.
    """

    name, kinds = "secagg-client", (*TO_CLIENT, FRAME)

    def check(self, data: bytes) -> object:
        place, message = self.located(data)
        if place.kind == FRAME:
            return self._check_frame(place._replace(kind="boxes"), message)
        code, (answer, error), client = verdict(place, message), *self._asked(place, message)
        equal("the code of a message", code, error and error.code)
        if error is not None:
            return place.kind, code, self._refused(place, client)
        if message == place.right:
            equal("the client's answer", place.record.sent[place.step][place.id], answer)
            return place.kind, "right"
        play, code = with_answer(place.record, place.step, client, answer)
        if place.kind != "boxes":
            equal("codes of an answer to a forged message", ["digest"], play.codes)
        return place.kind, "accepted", code or play.finish(), tuple(play.codes)

    def _asked(self, place: Place, message: bytes, frame: bytes | None = None) -> Any:
        """The answer or the error of the client, and the client."""
        record, step = place.record, place.step
        client = record.client(place.id, record.saved[step][place.id])
        before = client.state
        found = tried(lambda: record.ask(client, step, message, frame), message + (frame or b""))
        if found[1] is not None:
            equal("the state of a client that refused", before, client.state)
        return found, client

    @staticmethod
    def _refused(place: Place, client: Any) -> str:
        """Give the client that has refused a message the right one."""
        answer = place.record.ask(client, place.step, place.right)
        equal("the answer to the right message", place.record.sent[place.step][place.id], answer)
        return "refused"

    def _check_frame(self, place: Place, frame: bytes) -> object:
        (answer, error), client = self._asked(place, place.right, frame)
        if error is not None:
            return FRAME, error.code, self._refused(place, client)
        play, code = with_answer(place.record, place.step, client, answer, frame)
        equal("how a round with another frame ends", DONE, code or play.finish())
        return FRAME, "accepted", client.clipped


def with_answer(
    record: Record, step: str, client: Any, answer: bytes, frame: bytes | None = None
) -> tuple[Play, str | None]:
    """The round after a step in which one client has given another answer; or the code that ended it."""
    play = Play(record, STEPS.index(step))
    if frame is not None:
        play.frames[client.id] = frame
    play.enter()
    for id in play.clients.keys() - {client.id}:
        play.ask(id, record.given(play.answer, id))
    play.clients[client.id] = client
    return play, play.collect({**record.sent[step], client.id: answer})


class SecAggStates(Harness):
    """`Client.from_bytes`: what is accepted can be saved again, and gives the right sum or none."""

    name = "secagg-states"

    def seeds(self) -> Sequence[bytes]:
        found = []
        for r, record in enumerate(records()):
            for k, step in enumerate(STEPS):
                for c, state in enumerate(record.saved[step].values()):
                    found.append(bytes([r, k, c]) + state)
        return joined(found, finds(self.name))

    def change(self, rng: random.Random, pool: Sequence[bytes]) -> bytes:
        data, other = rng.choice(pool), rng.choice(pool)
        if rng.randrange(16) == 0:
            return data[:BEFORE] + any_bytes(rng, data[BEFORE:])
        if rng.randrange(16) == 0:
            return data[:BEFORE] + other[BEFORE:]
        try:
            state, its = unpacked(data[BEFORE:]), unpacked(other[BEFORE:])
        except ValueError:
            return data[:BEFORE] + any_bytes(rng, data[BEFORE:])
        for _ in range(rng.choice((1, 1, 2, 3))):
            state = self._changed(rng, state, its)
        return data[:BEFORE] + packed(state)

    @staticmethod
    def _changed(rng: random.Random, state: Any, its: Any) -> Any:
        """A state with an entry changed as a value or as bytes, or taken from another one."""
        how = rng.randrange(4)
        if how == 0 or not isinstance(state, dict) or not isinstance(its, dict) or not state:
            return document(rng, state)
        name = rng.choice(list(state))
        if how == 1:
            return {**state, name: its.get(name)}
        try:
            change = rng.choice((any_bytes, secagg_mutator.same_length))
            return {**state, name: change(rng, bytes.fromhex(state[name])).hex()}
        except (ValueError, TypeError):
            return {**state, name: document(rng, state[name])}

    def check(self, data: bytes) -> object:
        r, k, c = (data[:BEFORE] + bytes(BEFORE))[:BEFORE]
        record, step = records()[r % len(records())], STEPS[k % len(STEPS)]
        ids = list(record.saved[step])
        id = ids[c % len(ids)]
        client, error = tried(lambda: record.client(id, data[BEFORE:]), data)
        if error is not None:
            return error.code, error.field
        again = client.to_bytes()
        equal("a state, restored and saved again", again, record.client(id, again).to_bytes())
        if client.id not in record.members:
            return "a stranger"
        right = again == record.saved[step].get(client.id)
        return self._used(record, record.client(client.id, again), right)  # with the weight of this client

    @staticmethod
    def _used(record: Record, client: Any, right: bool) -> object:
        """Let the client answer, in the round of the record."""
        verb, id = VERBS[client.state], client.id
        given = record.before(verb, id)
        message, error = tried(lambda: record.ask(client, verb, b"" if given is None else given), b"")
        if right and verb != "keys":
            equal("the answer of a restored client", record.sent[verb].get(id), message)
        if error is not None:
            return verb, error.code
        if id not in record.sent[verb]:
            return verb, "too late"
        play, code = with_answer(record, verb, client, message)
        return verb, code or play.finish(), tuple(play.codes)


def unpacked(data: bytes) -> Any:
    """The entries of a saved state; ValueError for other bytes."""
    return json.loads(data[DIGEST_BYTES:])


def packed(state: Any) -> bytes:
    """The bytes of a saved state with these entries, and with the right digest."""
    body = json.dumps(state).encode()
    return hashlib.sha256(b"fedmrn secagg 1 state\0" + body).digest() + body
