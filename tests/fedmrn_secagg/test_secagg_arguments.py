"""Bad arguments, frames for other requests, what objects show of their secrets, and saved clients."""

import copy
import hashlib
import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
from secagg_cases import FRAMES, IDS, KEY, REQUEST, SCHEMA, STEPS, cohort, frames_of, same_means, sealed

import fedmrn_codec as fm
from fedmrn_secagg import Client, SecAggError, Server, errors


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
    """[X-38], and arguments of other types."""
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
    secret = json.loads(data[32:])["key_seed"]
    some = [0, 31, 32, 40, len(data) // 2, data.index(secret.encode()), len(data) - 1]
    flipped = [data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :] for at in some]
    for bad in (b"", b"{}", data[:-9], data + b" ", data[32:], *flipped, "\ud800", None, 5, [1]):
        with pytest.raises(fm.ArgumentError, match=r"bytes of Client\.to_bytes") as caught:
            Client.from_bytes(bad, REQUEST, threshold=3)
        assert secret not in str(caught.value)
        assert caught.value.__suppress_context__
    with pytest.raises(fm.ArgumentError, match="with these agreed values"):
        Client.from_bytes(data, REQUEST, threshold=2)
    with pytest.raises(fm.ArgumentError, match="roster, number of clients: expected at most 3, got 4"):
        Client.from_bytes(data, REQUEST, threshold=3, max_clients=3)
    assert Client.from_bytes(bytearray(data), REQUEST, threshold=3).state == "shared"


def with_entries(data, **entries):
    """A saved state with other entries, and a digest that is right again."""
    body = json.dumps(json.loads(data[32:]) | entries).encode()
    return hashlib.sha256(b"fedmrn secagg 1 state\0" + body).digest() + body


SHARE = "00" * 16
NO_STATES = [
    (step, entries)
    for step, several in {
        0: [
            {"version": 2},
            {"version": True},
            {"state": "done"},
            {"state": ["new"]},
            {"state": "keyed"},
            {"id": "1"},
            {"id": 1.0},
            {"clipped": 0},
            {"public": "00" * 64},
            {"box_private": "00" * 32},
            {"shares": [[0, SHARE, SHARE]]},
            {"shares": 5},
            {"roster": 5},
        ],
        1: [
            {"state": "shared"},
            {"box_private": "00" * 31},
            {"key_seed": ""},
            {"self_seed": "00" * 17},
            {"self_seed": None},
            {"public": ""},
            {"public": "00" * 128},
            {"shares": [[0, SHARE, SHARE]]},
        ],
        2: [
            {"roster": None},
            {"roster": ""},
            {"id": 2},
            {"id": 9},
            {"public": "00" * 64},
            {"shares": []},
            {"shares": [[1, SHARE, SHARE]]},
            {"shares": [[0, SHARE, SHARE], [1, SHARE, SHARE]]},
            {"shares": [[0, SHARE, "00"]]},
            {"shares": [[0, SHARE]]},
            {"shares": [[0.0, SHARE, SHARE]]},
            {"shares": [[1e400, SHARE, SHARE]]},
            {"shares": [["0", SHARE, SHARE]]},
            {"clipped": 0},
        ],
        3: [
            {"clipped": None},
            {"clipped": -1},
            {"clipped": "0"},
            {"shares": [[1, SHARE, SHARE]]},
            {"shares": [[0, SHARE, SHARE], [4, SHARE, SHARE]]},
            {"shares": [[0, SHARE, SHARE], [-1, SHARE, SHARE]]},
            {"state": "shared"},
        ],
    }.items()
    for entries in several
]


@pytest.mark.parametrize(("step", "entries"), NO_STATES, ids=str)
def test_states_that_no_client_can_have_are_refused(step, entries):
    c = cohort()
    if step:
        c.play(until=step)
    data = c.clients[1].to_bytes()
    assert with_entries(data) == data
    with pytest.raises(fm.ArgumentError) as caught:
        Client.from_bytes(with_entries(data, **entries), REQUEST, threshold=3)
    assert caught.value.field.startswith("state")


def test_states_without_end_are_refused():
    body = b'{"version": ' + b"[" * 100_000
    digest = hashlib.sha256(b"fedmrn secagg 1 state\0" + body).digest()
    with pytest.raises(fm.ArgumentError, match=r"bytes of Client\.to_bytes"):
        Client.from_bytes(digest + body, REQUEST, threshold=3)
