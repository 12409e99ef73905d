"""A round of secure aggregation from one of its steps on, and what must become of it whatever is changed."""

import time
import tracemalloc
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import fedmrn_codec as fm
from fedmrn_secagg import Client, SecAggError
from fedmrn_secagg.errors import OrderError
from fedmrn_secagg.layout import Layout

from .harness import equal
from .secagg_judge import CHECKSUM, HEADER
from .secagg_record import (
    STEPS,
    Record,
    Sections,
    bytes_of_mean,
    drawn,
    layout_of,
    mean_of,
    plain_mean,
    plus,
    sections,
    vector,
)

SECONDS, MEMORY, SHARE = 0.5, 2**18, 8
"""What a refusal may take: processor time, and bytes of memory, in addition to so many times the message."""

DONE = "done"
"""How a round ends that gives a sum."""

SAMPLED = 16
"""The memory of one in so many refusals is measured, since that makes all of it slower."""


def tried(call: Callable[[], Any], data: bytes) -> tuple[Any, fm.CodecError | None]:
    """The result of a call that reads `data`, or its error, which must not take much time or memory."""
    measured = zlib.crc32(data) % SAMPLED == 0
    if measured:
        tracemalloc.start()
    begin = time.thread_time()
    try:
        return call(), None
    except fm.CodecError as error:
        seconds = time.thread_time() - begin
        peak = tracemalloc.get_traced_memory()[1] if measured else 0
        if seconds > SECONDS * (1 + 9 * measured) or peak > MEMORY + SHARE * len(data):
            found = f"{seconds:.3f} s and {peak:,} bytes for {len(data):,} bytes"
            raise AssertionError(f"a refusal costs too much: {found}: {error}") from error
        equal("a refusal has the code of its check", True, bool(error.code) and error.code != "secagg")
        return None, error
    finally:
        if measured:
            tracemalloc.stop()


class Play:
    """A round that begins at a step, with the messages of the record before it.

    Attributes
    ----------
    number : int
        The step that comes next, as its position in `STEPS`.
    server : Server
    clients : dict of int to Client
        Those that have not dropped out.
    accepted : set of int
        The ids whose messages the server has accepted in the last step.
    answer : object
        What the server has answered last.
    frames : dict of int to bytes
        What clients mask.
    forged : dict of int to Sections or None
        What was added to the vectors of clients; None if a client has sent none and the server has one.
    codes : list of str
        Of the messages that were refused.
    """

    def __init__(self, record: Record, begin: int = 0) -> None:
        self.record, self.number = record, begin
        self.server = record.server(begin)
        self.answer = record.answers[STEPS[begin - 1]] if begin else None
        self.roster: bytes = record.answers["keys"]
        self.frames = {i: member.frame for i, member in record.members.items()}
        self.forged: dict[int, Sections | None] = {}
        self.codes: list[str] = []
        self.clients: dict[int, Client] = {}
        self.accepted: set[int] = set()

    @property
    def step(self) -> str:
        return STEPS[self.number]

    def enter(self, ids: Any = None) -> None:
        """Let the clients of the record, or those of them with these ids, come in with their states."""
        saved = self.record.saved[self.step]
        self.clients = {i: self.record.client(i, s) for i, s in saved.items() if ids is None or i in ids}

    def ask(self, id: int, given: Any) -> bytes | None:
        """A client's message of this step, or None if it refuses, which must change nothing."""
        client = self.clients[id]
        before = client.state
        if given is None and self.number:
            return None
        frame, ask = self.frames[id], self.record.ask
        message, error = tried(lambda: ask(client, self.step, given, frame), given or b"")
        if error is not None:
            equal("the state of a client that refused", before, client.state)
            self.codes.append(error.code)
        return None if error is not None else bytes(message)

    def collect(self, messages: Mapping[int, bytes]) -> str | None:
        """Give the server the messages of this step, without those that it refuses.

        Returns
        -------
        str or None
            The code with which it ended the round.
        """
        left = dict(messages)
        while True:
            answer, error = self.give(left)
            if error is None:
                break
            if error.client is None:
                return error.code
            equal("an error names a client that has sent something", True, error.client in left)
            self.codes.append(error.code)
            del left[error.client]
        self.advance(answer, left)
        return None

    def advance(self, answer: Any, accepted: Mapping[int, bytes]) -> None:
        """Go on to the next step, with the clients whose messages were accepted."""
        if self.number == 0:
            self.roster = answer
        self.number, self.answer, self.accepted = self.number + 1, answer, set(accepted)
        self.clients = {i: client for i, client in self.clients.items() if i in accepted}

    def give(self, messages: Mapping[int, bytes]) -> tuple[Any, SecAggError | None]:
        """The answer of the server, or its error, which must change nothing."""
        step, survivors = self.server.state, self.server.survivors
        with drawn([self.record.graph_seed]):
            answer, error = tried(
                lambda: getattr(self.server, self.step)(messages), b"".join(messages.values())
            )
        if error is None:
            return answer, None
        if not isinstance(error, SecAggError):
            raise AssertionError(f"expected an error of secure aggregation, got {error!r}") from error
        equal("the server after a refusal", (step, survivors), (self.server.state, self.server.survivors))
        return None, error

    def finish(self) -> str:
        """Play the steps that are left; the code with which the round ended, or `DONE`."""
        while self.number < len(STEPS):
            asked = {i: self.ask(i, self.record.given(self.answer, i)) for i in list(self.clients)}
            code = self.collect({i: message for i, message in asked.items() if message is not None})
            if code is not None:
                return code
        self.check_sum()
        return DONE

    def forge(self, id: int, live: bytes | None, sent: bytes) -> None:
        """Note that a client's vector was exchanged; a header or length that is wrong makes no difference."""
        layout = self.layout
        if live is None:
            self.forged[id] = None
        elif len(sent) == len(live) == layout.size + HEADER + CHECKSUM:
            both = (sections(message[HEADER:-CHECKSUM], layout) for message in (sent, live))
            self.forged[id] = plus(*both, -1, layout)

    @property
    def layout(self) -> Layout:
        """The layout of the vectors, which depends on the number of clients in the roster."""
        return layout_of(self.record, int.from_bytes(self.roster[HEADER : HEADER + 4], "little"))

    def expected(self) -> Any:
        """The mean that the survivors' frames give, with what was forged; None if it must be refused."""
        survivors, layout = self.server.survivors, self.layout
        total = sections(bytes(layout.size), layout)
        for id in survivors:
            total = plus(total, vector(self.record, id, self.frames[id], layout), 1, layout)
            if id in self.forged:
                more = self.forged[id]
                if more is None:
                    return None
                total = plus(total, more, 1, layout)
        return mean_of(self.record, total, len(survivors), layout)

    def check_sum(self) -> None:
        """Compare the aggregator with the frames of the survivors."""
        survivors = self.server.survivors
        equal("at least the threshold", True, len(survivors) >= self.record.terms.threshold)
        got = bytes_of_mean(self.answer)
        equal("the sum of the survivors", self.expected(), got)
        own = all(self.frames[i] == self.record.members[i].frame for i in survivors)
        if self.record.exact and own and not self.forged:
            equal("the sum of the survivors' frames", plain_mean(self.record, survivors), got)


def out_of_order(call: Callable[[], object]) -> None:
    """Check that a call is refused as one out of order."""
    try:
        call()
    except OrderError:
        return
    raise AssertionError("expected a refusal of a call out of order, got an answer")
