"""What both sides refuse: calls out of order, foreign messages, too few clients, lengths."""

import tracemalloc
from dataclasses import replace
from threading import Barrier, Thread

import pytest
from secagg_cases import FRAMES, IDS, KEY, REQUEST, SCHEMA, STEPS, Cohort, cohort, frames_of, sealed

import fedmrn_codec as fm
from fedmrn_secagg import Client, errors, messages


def test_every_call_in_every_state_but_the_right_one_is_refused():
    c = cohort()
    answers = [None]
    for number, step in enumerate(STEPS):
        client = c.clients[1]
        for other in set(STEPS) - {step}:
            with pytest.raises(errors.OrderError, match=f"expected `{step}`.*got `{other}`"):
                c.answers(other, [1], {1: b""} if other == "masked" else b"")
            with pytest.raises(errors.OrderError):
                getattr(c.server, other)({1: b""})
        messages = c.answers(step, IDS, answers[-1])
        assert client.state == ("keyed", "shared", "masked", "done")[number]
        answers.append(getattr(c.server, step)(messages))
    for step in STEPS:
        with pytest.raises(errors.OrderError, match="expected nothing in state done"):
            c.answers(step, [1], {1: b""} if step == "masked" else b"")
        with pytest.raises(errors.OrderError):
            getattr(c.server, step)({1: b""})


def test_a_client_reveals_once_and_never_both_secrets_of_one_peer():
    c = cohort()
    c.play(until=3)
    client = c.clients[1]
    digest = c.server._known.digest
    both = [messages.pack(messages.Type.SURVIVORS, 0, digest, bytes([bits])) for bits in (0b1111, 0b0111)]
    client.reveal(both[0])
    for again in both:
        with pytest.raises(errors.OrderError):
            client.reveal(again)


def test_of_two_threads_one_gets_an_answer():
    """[X-06], [X-07]: two survivors at once, of which the client answers one."""
    for _ in range(5):
        c = cohort()
        c.play(until=3)
        digest = c.server._known.digest
        both = [messages.pack(messages.Type.SURVIVORS, 0, digest, bytes([bits])) for bits in (15, 7)]
        barrier, answers = Barrier(2), []

        def ask(survivors, c=c, barrier=barrier, answers=answers):
            barrier.wait()
            try:
                answers.append(c.clients[1].reveal(survivors))
            except errors.OrderError as error:
                answers.append(error)

        threads = [Thread(target=ask, args=(survivors,)) for survivors in both]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(type(answer) is bytes for answer in answers) == [False, True]


def test_a_client_sends_one_vector():
    """Not even of another update, [X-09]."""
    c = cohort()
    boxes = c.play(until=2)
    c.clients[1].masked(FRAMES[1], boxes[1])
    with pytest.raises(errors.OrderError):
        c.clients[1].masked(FRAMES[2], boxes[1])


@pytest.mark.parametrize(
    "options",
    [
        {"session": b"another"},
        {"threshold": 2},
        {"largest_weight": 2},
        {"step": 2.0**-10},
        {"request": replace(REQUEST, round=4)},
        {"request": replace(REQUEST, seed=8)},
        {"request": replace(REQUEST, base_model=8)},
        {"request": replace(REQUEST, mask="binary")},
        {"request": replace(REQUEST, noise=fm.Bernoulli(0.02))},
        {"request": replace(REQUEST, noise=fm.Uniform(0.01))},
        {"request": replace(REQUEST, schema=fm.Schema(list(SCHEMA)[:3]))},
        {"identities": {1: KEY.public}, "identity": KEY},
    ],
)
def test_messages_of_another_session_request_or_agreement_are_refused(options):
    c = cohort()
    roster = c.play(until=1)
    given = {"request": REQUEST, "threshold": 3, **options}
    client = Client(1, **given)
    foreign = client.keys()
    with pytest.raises(errors.DigestError) as caught:
        cohort().server.keys({1: foreign})
    assert (caught.value.code, caught.value.client) == ("digest", 1)
    with pytest.raises(errors.DigestError):
        client.shares(roster)


def test_messages_of_an_earlier_attempt_at_the_same_round_are_refused():
    old, new = cohort(), cohort()
    roster = old.play(until=1)
    new.play(until=1)
    with pytest.raises(errors.OwnKeyError):
        new.clients[1].shares(roster)
    new = cohort()
    old, given = cohort(), None
    answers = {}
    for step in STEPS[:3]:
        messages = old.answers(step, IDS, given)
        given = getattr(old.server, step)(messages)
        answers[step] = messages, given
    fresh = new.play(until=1)
    with pytest.raises(errors.DigestError) as caught:
        new.server.shares(answers["shares"][0])
    assert caught.value.client == 1
    boxes = new.server.shares(new.answers("shares", IDS, fresh))
    with pytest.raises(errors.DigestError):
        new.clients[1].masked(FRAMES[1], answers["shares"][1][1])
    with pytest.raises(errors.DigestError):
        new.server.masked(answers["masked"][0])
    new.server.masked(new.answers("masked", IDS, boxes))
    with pytest.raises(errors.DigestError):
        new.clients[1].reveal(answers["masked"][1])


def test_one_client_as_another_is_refused():
    c = cohort()
    messages = c.answers("keys", IDS)
    with pytest.raises(errors.SenderError) as caught:
        c.server.keys({**messages, 2: messages[1]})
    assert caught.value.client == 2
    assert "client 2, id, byte 8: expected 2, got 1" in str(caught.value)
    c.server.keys({i: message for i, message in messages.items() if i != caught.value.client})


@pytest.mark.parametrize("step", range(4))
def test_clients_that_do_not_take_part_are_refused(step):
    c = cohort()
    given = c.play(last={4: max(step - 1, 0)}, until=step) if step else None
    messages = c.answers(STEPS[step], [1, 2, 3], given)
    stranger = 9 if step == 0 else 4
    with pytest.raises(fm.ArgumentError, match=f"got client {stranger}"):
        getattr(c.server, STEPS[step])({**messages, stranger: messages[1]})
    getattr(c.server, STEPS[step])(messages)


@pytest.mark.parametrize("step", range(4))
def test_too_few_clients_give_nothing_and_more_of_them_go_on(step):
    c = cohort()
    given = c.play(until=step) if step else None
    messages = c.answers(STEPS[step], IDS, given)
    some = {i: messages[i] for i in (1, 3)}
    for few in ({}, some):
        with pytest.raises(errors.TooFewError) as caught:
            getattr(c.server, STEPS[step])(few)
        assert caught.value.code == "too_few"
        assert c.server.state == STEPS[step]
    assert getattr(c.server, STEPS[step])(some | {4: messages[4]}) is not None


def test_a_graph_with_too_few_neighbours_is_refused():
    """[X-30]: a server that states a degree of 2 to clients with a threshold of 4."""
    ids = range(1, 9)
    c = Cohort(REQUEST, frames_of(REQUEST, ids), threshold=4, degree=4)
    roster = c.play(until=1)
    thin = sealed(roster, (52, b"\2\0\0\0"))
    with pytest.raises(errors.TooFewError, match="holders: expected at least 4, got 3"):
        c.clients[1].shares(thin)
    assert "[X-30]" in errors.TooFewError.__doc__


def test_a_neighbourhood_without_enough_survivors_gives_nothing():
    ids = list(range(1, 12))
    c = Cohort(REQUEST, frames_of(REQUEST, ids), threshold=4, degree=4)
    boxes = c.play(until=2)
    roster = c.server._known
    gone = {roster.ids[p] for p in roster.neighbours(0)[:2]}
    vectors = c.answers("masked", [i for i in ids if i not in gone], boxes)
    assert len(vectors) == 9
    with pytest.raises(errors.TooFewError, match="holders of the secrets of client"):
        c.server.masked(vectors)


def test_too_many_clients_are_refused_before_memory_is_used():
    """[X-18], [X-23]."""
    c = cohort()
    roster = c.play(until=1)
    huge = sealed(roster, (48, b"\xff\xff\xff\xff"))
    tracemalloc.start()
    with pytest.raises(errors.LimitError):
        c.clients[1].shares(huge)
    claimed = sealed(roster, (48, (2**16).to_bytes(4, "little")))
    with pytest.raises(errors.TruncatedError):
        c.clients[1].shares(claimed)
    assert tracemalloc.get_traced_memory()[1] < 100_000
    tracemalloc.stop()
    small = Client(1, REQUEST, threshold=3, max_clients=3)
    small.keys()
    with pytest.raises(errors.LimitError, match="at most 3, got 4"):
        small.shares(roster)


def test_long_messages_are_refused_by_their_length():
    c = cohort()
    boxes = c.play(until=2)
    vectors = c.answers("masked", IDS, boxes)
    with pytest.raises(errors.TrailingError, match=f"expected {len(vectors[1])} bytes"):
        c.server.masked({**vectors, 1: vectors[1] + bytes(10**6)})
