"""What both sides refuse: calls out of order, foreign messages, few clients, wrong shares, bad arguments."""

import copy
import json
import pickle
import tracemalloc
import zlib
from dataclasses import replace

import numpy as np
import pytest
from secagg_cases import NOISE, REQUEST, SCHEMA, STEPS, Cohort, frames_of, same_means

import fedmrn_codec as fm
from fedmrn_secagg import Client, SecAggError, Server, errors, messages
from fedmrn_secagg.layout import Layout
from fedmrn_secagg.outcome import aggregator_of
from fedmrn_secagg.terms import Terms
from fedmrn_secagg.vector import Vector

IDS = [1, 2, 3, 4]
FRAMES = frames_of(REQUEST, IDS)
KEY, OTHER_KEY = fm.Key.generate(), fm.Key.generate()


def cohort(**options):
    return Cohort(REQUEST, FRAMES, **{"threshold": 3, **options})


def sealed(message, *changes):
    """A message with bytes replaced at offsets, and a checksum that is right again."""
    data = bytearray(message[:-4])
    for offset, new in changes:
        data[offset : offset + len(new)] = new
    return bytes(data) + zlib.crc32(data).to_bytes(4, "little")


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


def test_a_client_sends_one_vector():
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


def test_wrong_shares_are_found():
    c = cohort()
    survivors = c.play(last={4: 2}, until=3)
    reveals = c.answers("reveal", [1, 2, 3], survivors)
    for at, what in ((0, "self seed of client 1"), (3, "key seed of client 4")):
        offset = 48 + 16 * at
        wrong = sealed(reveals[1], (offset, bytes([reveals[1][offset] ^ 1])))
        with pytest.raises(errors.ReconstructionError, match=what):
            c.server.reveal({**reveals, 1: wrong})
    assert c.server.reveal(reveals).frames == 3


def test_a_vector_that_is_not_masked_as_agreed_is_found_in_the_sum():
    c = cohort()
    boxes = c.play(until=2)
    vectors = c.answers("masked", IDS, boxes)
    wrong = sealed(vectors[2], (60, bytes(8)))
    survivors = c.server.masked({**vectors, 2: wrong})
    with pytest.raises(errors.SumError):
        c.server.reveal(c.answers("reveal", IDS, survivors))
    assert c.server.state == "reveal"


def total_of(request, survivors):
    """The sum of no updates of so many clients, in a layout of three."""
    layout = Layout(Terms(request, 2), 3)
    total = Vector(layout)
    total.words[0] = survivors
    return total


def change(total, section):
    """Put something into a sum that cannot be there."""
    if section == "count":
        total.fields[0] = np.uint64(3)
    elif section == "padding":
        total.fields[0] = np.uint64(1 << 2 * 3)
    elif section == "few frames":
        total.words[0] -= np.uint32(1)
    elif section == "many frames":
        total.words[0] += np.uint32(1)
    elif section == "float":
        total.words[1] = np.uint32(2 * (2**24 - 1) + 1)
    elif section == "integer":
        total.longs[0] = np.uint64(2**63 - 1)
    else:
        total.longs[0] = np.uint64(2**64 - 1)


SECTIONS = ["count", "padding", "few frames", "many frames", "float", "integer", "negative"]


@pytest.mark.parametrize("section", SECTIONS)
def test_sums_that_no_vectors_have_are_refused(section):
    schema = fm.Schema(
        [fm.Tensor("m", (3,), masked=True), fm.Tensor("f", (1,)), fm.Tensor("i", (1,), dtype="uint8")]
    )
    request = fm.Request(1, NOISE, "signed", 0, 0, schema)
    total = total_of(request, 2)
    assert aggregator_of(total, 2).frames == 2
    change(total, section)
    with pytest.raises(errors.SumError):
        aggregator_of(total, 2)


def test_a_signed_round_refuses_keys_that_nobody_has_signed():
    ids = [1, 2, 3]
    private = {i: fm.Key.generate() for i in ids}
    public = {i: key.public for i, key in private.items()}

    def client(i, key, known=public):
        return Client(i, REQUEST, threshold=2, identity=key, identities=known)

    server = Server(REQUEST, clients=ids, threshold=2, identities=public)
    with pytest.raises(errors.SignatureError) as caught:
        server.keys({1: client(1, OTHER_KEY).keys()})
    assert caught.value.client == 1
    clients = {i: client(i, key) for i, key in private.items()}
    stranger = client(1, private[1], {1: public[1], 2: public[2]})
    messages = {i: each.keys() for i, each in clients.items()} | {1: stranger.keys()}
    roster = server.keys(messages)
    with pytest.raises(
        errors.SignatureError, match="identity key of client 3: expected a known one, got none"
    ):
        stranger.shares(roster)


def test_a_server_that_plays_clients_is_refused_with_identity_keys():
    ids = [1, 2, 3]
    private = {i: fm.Key.generate() for i in ids}
    public = {i: key.public for i, key in private.items()}
    honest = Client(1, REQUEST, threshold=2, identity=private[1], identities=public)
    made_up = {i: KEY.public if i > 1 else public[1] for i in ids}
    server = Server(REQUEST, clients=ids, threshold=2, identities=made_up)
    own = {i: Client(i, REQUEST, threshold=2, identity=KEY, identities=made_up).keys() for i in (2, 3)}
    roster = server.keys({1: honest.keys(), **own})
    with pytest.raises(errors.SignatureError):
        honest.shares(roster)


def test_too_many_clients_are_refused_before_memory_is_used():
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


@pytest.mark.parametrize("bad", ["text", None, 5, [1, 2]])
def test_messages_of_other_types_are_bad_arguments(bad):
    c = cohort()
    with pytest.raises(fm.ArgumentError):
        c.server.keys({1: bad})
    c.clients[1].keys()
    with pytest.raises(fm.ArgumentError):
        c.clients[1].shares(bad)
    with pytest.raises(fm.ArgumentError, match="messages: expected a mapping"):
        c.server.keys(bad)


def test_frames_that_are_not_for_the_request_are_refused():
    c = cohort()
    boxes = c.play(until=2)
    for request, error in (
        (replace(REQUEST, seed=8), fm.errors.SeedError),
        (replace(REQUEST, round=8), fm.errors.RoundError),
        (replace(REQUEST, mask="binary"), fm.ReplyError),
        (replace(REQUEST, noise=fm.Bernoulli(0.5)), fm.ReplyError),
    ):
        with pytest.raises(error):
            c.clients[1].masked(frames_of(request, [1])[1], boxes[1])
    grid = fm.encode_grid(
        {t.name: np.zeros(t.shape, t.type.numpy) for t in SCHEMA},
        SCHEMA,
        step=1.0,
        seed=7,
        round=3,
        base_model=9,
    )
    with pytest.raises(fm.ReplyError):
        c.clients[1].masked(grid, boxes[1])
    c.clients[1].masked(fm.verify(FRAMES[1], SCHEMA), boxes[1])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"threshold": 1}, "threshold: expected at least 2"),
        ({"threshold": "3"}, "threshold: expected an integer"),
        ({"largest_weight": 0}, "largest_weight: expected at least 1"),
        ({"largest_weight": 2**24 - 1}, "largest_weight"),
        ({"step": 0.3}, "step of 'conv.bias': expected a power of two"),
        ({"step": {"nowhere": 1.0}}, "step"),
        ({"session": "text"}, "session: expected at most 255 bytes"),
        ({"session": bytes(256)}, "session: expected at most 255 bytes"),
        ({"request": None}, "request: expected a Request"),
        ({"identities": {1: 5}}, "identity of client 1"),
        ({"identities": {1: fm.Key.generate("hmac-sha256")}}, "identity of client 1"),
        ({"identities": 7}, "identities: expected a mapping"),
    ],
)
def test_bad_arguments_of_both_sides(options, words):
    given = {"request": REQUEST, "threshold": 2, **options}
    with pytest.raises(fm.ArgumentError, match=words):
        Server(clients=[1, 2, 3], **given)
    if "identities" in options:
        given["identity"] = KEY
    with pytest.raises(fm.ArgumentError, match=words):
        Client(1, **given)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"clients": [1, 2, 2]}, "clients: expected each id once, got 2 twice"),
        ({"clients": [0, 1, 2]}, "id: expected 1 to"),
        ({"clients": [1, 2, 2**64]}, "id"),
        ({"clients": [1, 2]}, "threshold: expected at most 2"),
        ({"degree": 3}, "degree"),
        ({"degree": 0}, "degree"),
        ({"degree": "4"}, "degree"),
        ({"degree": 2, "threshold": 4, "clients": range(1, 9)}, "degree"),
    ],
)
def test_bad_arguments_of_a_server(options, words):
    with pytest.raises(fm.ArgumentError, match=words):
        Server(REQUEST, **{"clients": [1, 2, 3], "threshold": 3, **options})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"id": 0}, "id"),
        ({"weight": 2}, "weight: expected 1 to 1, got 2"),
        ({"weight": 0}, "weight"),
        ({"identity": KEY}, "identity: expected given together with identities"),
        ({"identity": KEY.public, "identities": {1: KEY}}, "identity: expected an Ed25519 key that signs"),
    ],
)
def test_bad_arguments_of_a_client(options, words):
    with pytest.raises(fm.ArgumentError, match=words):
        Client(**{"id": 1, "request": REQUEST, "threshold": 3, **options})


def test_secrets_are_in_no_text_and_dropped_after_their_use():
    c = cohort()
    roster = c.play(until=1)
    client = c.clients[1]
    secrets = [client._secrets.box_private, client._secrets.key_seed, client._secrets.self_seed]
    shares = c.answers("shares", IDS, roster)
    boxes = c.server.shares(shares)

    def texts(thing):
        return "".join(f(thing) for f in (repr, str)) + repr(thing.__dict__.get("_secrets"))

    for secret in secrets:
        assert len(secret) in (16, 32)
        assert secret.hex() not in texts(client)
        assert repr(secret) not in texts(client)
    broken = sealed(boxes[1], (60, bytes(4)))
    with pytest.raises(errors.BoxError) as caught:
        client.masked(FRAMES[1], broken)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    survivors = c.server.masked(c.answers("masked", IDS, boxes))
    kept = client._secrets
    assert (kept.box_private, kept.key_seed, kept.self_seed) == (b"", b"", b"")
    assert len(kept.shares) == 4
    c.server.reveal(c.answers("reveal", IDS, survivors))
    assert client._secrets.shares == {}
    assert c.server._sum is None


def test_a_client_cannot_be_copied():
    client = Client(1, REQUEST, threshold=2)
    for copied in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="cannot be copied"):
            copied(client)


def test_errors_keep_their_client_when_they_are_pickled():
    error = errors.SenderError("id", 1, 2, 8).of_client(7)
    again = pickle.loads(pickle.dumps(error))
    assert (again.client, again.code, str(again)) == (7, "sender", str(error))
    assert isinstance(again, SecAggError)
    assert isinstance(again, fm.CodecError)


def test_every_error_has_a_code_of_its_own():
    kinds = [
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, SecAggError)
    ]
    assert len({kind.code for kind in kinds}) == len(kinds) > 20


@pytest.mark.parametrize("step", range(4))
def test_a_client_can_be_saved_between_any_two_steps(step):
    c = cohort()
    given = c.play(until=step) if step else None
    old = c.clients[2]
    data = old.to_bytes()
    assert old.state == "saved"
    for verb in STEPS:
        with pytest.raises(errors.OrderError, match="expected nothing in state saved"):
            c.answers(verb, [2], {2: b""} if verb == "masked" else b"")
    with pytest.raises(errors.OrderError):
        old.to_bytes()
    c.clients[2] = Client.from_bytes(data, REQUEST, threshold=3)
    for following in STEPS[step:]:
        given = getattr(c.server, following)(c.answers(following, IDS, given))
    assert same_means(given, c.expected(IDS))
    with pytest.raises(errors.OrderError):
        c.clients[2].to_bytes()


def test_states_that_are_damaged_or_of_other_rounds_are_refused():
    c = cohort()
    c.play(until=2)
    data = c.clients[1].to_bytes()
    secret = json.loads(data)["key_seed"]
    for bad in (
        b"",
        b"{}",
        b"[]",
        b"5",
        data[:-9],
        data.replace(b'"version": 1', b'"version": 2'),
        "\ud800",
        None,
    ):
        with pytest.raises(fm.ArgumentError, match=r"bytes of Client\.to_bytes") as caught:
            Client.from_bytes(bad, REQUEST, threshold=3)
        assert secret not in str(caught.value)
        assert caught.value.__suppress_context__
    with pytest.raises(fm.ArgumentError, match="with these agreed values"):
        Client.from_bytes(data, REQUEST, threshold=2)
