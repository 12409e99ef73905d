"""Random histories and damaged messages: nothing but the documented errors, and never a wrong mean."""

import random
import zlib

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from secagg_cases import REQUEST, STEPS, Cohort, frames_of, same_means

import fedmrn_codec as fm
from fedmrn_secagg import SecAggError
from fedmrn_secagg.client import VERBS
from fedmrn_secagg.errors import TooFewError

IDS = [1, 2, 3, 4]
FRAMES = frames_of(REQUEST, IDS)
THRESHOLD = 3


class Round(RuleBasedStateMachine):
    """A server and clients whose messages are lost, damaged, repeated and mixed up."""

    def __init__(self):
        super().__init__()
        self.cohort = Cohort(REQUEST, FRAMES, threshold=THRESHOLD)
        self.sent = {step: {} for step in STEPS}
        self.answers = {}
        self.reveals = dict.fromkeys(IDS, 0)
        self.aggregator = None

    def given(self, step, client):
        """What the server has answered for a client before a step."""
        answer = self.answers.get(STEPS[STEPS.index(step) - 1]) if step != "keys" else None
        return answer.get(client) if isinstance(answer, dict) else answer

    def ask(self, client, step, given):
        """Call a verb of a client; its message, or None if it refuses."""
        mine = self.cohort.clients[client]
        before = mine.state
        try:
            if step == "masked":
                out = mine.masked(FRAMES[client], given)
            else:
                out = getattr(mine, step)(*([] if step == "keys" else [given]))
        except SecAggError:
            assert mine.state == before
            return None
        self.reveals[client] += step == "reveal"
        return out

    @rule(client=st.sampled_from(IDS), step=st.sampled_from([*[None] * 8, *STEPS]))
    def client_answers(self, client, step):
        step = step or VERBS.get(self.cohort.clients[client].state, "keys")
        given = self.given(step, client)
        message = self.ask(client, step, b"" if given is None else given)
        if message is not None:
            assert step not in self.sent or client not in self.sent[step]
            self.sent[step][client] = message

    @rule(
        client=st.sampled_from(IDS),
        step=st.sampled_from(STEPS[1:]),
        at=st.integers(0, 10**6),
        bit=st.integers(0, 7),
    )
    def client_refuses_damaged(self, client, step, at, bit):
        given = self.given(step, client)
        if given:
            assert self.ask(client, step, damaged(given, at, bit)) is None

    @precondition(lambda self: self.aggregator is None)
    @rule(missing=st.sets(st.sampled_from(IDS), max_size=2))
    def server_collects(self, missing):
        step = self.cohort.server.state
        messages = {i: m for i, m in self.sent[step].items() if i not in missing}
        before = list(self.answers)
        try:
            answer = getattr(self.cohort.server, step)(messages)
        except TooFewError:
            assert list(self.answers) == before
            assert self.cohort.server.state == step
            return
        assert len(messages) >= THRESHOLD
        self.answers[step] = answer
        if step == "reveal":
            self.aggregator = answer
            self.check()

    @precondition(lambda self: self.aggregator is None)
    @rule(client=st.sampled_from(IDS), at=st.integers(0, 10**6), bit=st.integers(0, 7))
    def server_refuses_damaged(self, client, at, bit):
        step = self.cohort.server.state
        if client in self.sent[step]:
            with pytest.raises((SecAggError, fm.ArgumentError)):
                getattr(self.cohort.server, step)(
                    self.sent[step] | {client: damaged(self.sent[step][client], at, bit)}
                )
            assert self.cohort.server.state == step

    def check(self):
        survivors = self.cohort.server.survivors
        assert len(survivors) >= THRESHOLD
        assert same_means(self.aggregator, self.cohort.expected(survivors))

    @invariant()
    def nobody_reveals_twice(self):
        assert max(self.reveals.values()) <= 1


def damaged(message, at, bit):
    out = bytearray(message)
    out[at % len(out)] ^= 1 << bit
    return bytes(out)


TestRound = Round.TestCase
TestRound.settings = settings(max_examples=25, stateful_step_count=60, deadline=None)


@pytest.mark.parametrize("seed", range(3))
def test_random_histories_reach_the_end(seed):
    """The machine above is not often so lucky: clients that answer, and messages that are lost at random."""
    rng = random.Random(seed)
    for _ in range(10):
        c = Cohort(REQUEST, FRAMES, threshold=2)
        answer, alive = None, IDS
        for step in STEPS:
            alive = [i for i in alive if rng.random() < 0.9] or alive
            if len(alive) < 2:
                break
            answer = getattr(c.server, step)(c.answers(step, alive, answer))
        else:
            assert same_means(answer, c.expected(c.server.survivors))


def mutated(message, rng):
    """A message with a few changes, and nearly always the right checksum."""
    data = bytearray(message[:-4])
    for _ in range(rng.randint(1, 3)):
        kind = rng.randrange(5)
        at = rng.randrange(len(data)) if data else 0
        if kind == 0 and data:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1 and data:
            data[at : at + 4] = rng.choice([b"\0\0\0\0", b"\xff\xff\xff\xff", rng.randbytes(4)])
        elif kind == 2:
            del data[at : at + rng.randint(1, 80)]
        elif kind == 3:
            data[at:at] = rng.randbytes(rng.randint(1, 80))
        elif data:
            low = rng.randrange(0, min(len(data), 60))
            data[low] = rng.randrange(256)
    out = bytes(data)
    if rng.random() < 0.95:
        out += zlib.crc32(out).to_bytes(4, "little")
    return out


@pytest.mark.parametrize("step", STEPS)
def test_damaged_messages_cause_documented_errors_alone(step):
    """Of both sides; a message that is accepted, such as one with other keys, ends the loop."""
    rng = random.Random(step)
    number = STEPS.index(step)
    tried, codes = 0, set()
    while tried < 150:
        c = Cohort(REQUEST, FRAMES, threshold=THRESHOLD)
        given = c.play(until=number) if number else None
        messages = None
        for _ in range(50):
            tried += 1
            try:
                if number:
                    right = given[1] if isinstance(given, dict) else given
                    bad = mutated(right, rng)
                    c.answers(step, [1], {1: bad} if isinstance(given, dict) else bad)
                    break
            except SecAggError as error:
                codes.add(error.code)
        else:
            messages = c.answers(step, IDS, given)
            for _ in range(50):
                tried += 1
                try:
                    getattr(c.server, step)({**messages, 1: mutated(messages[1], rng)})
                    break
                except SecAggError as error:
                    codes.add(error.code)
    assert len(codes) > 3
