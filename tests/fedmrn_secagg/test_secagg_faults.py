"""Wrong shares, vectors and signatures, which server and clients find."""

import numpy as np
import pytest
from secagg_cases import IDS, KEY, NOISE, OTHER_KEY, REQUEST, cohort, sealed

import fedmrn_codec as fm
from fedmrn_secagg import Client, Server, errors
from fedmrn_secagg.layout import Layout
from fedmrn_secagg.outcome import aggregator_of
from fedmrn_secagg.terms import Terms
from fedmrn_secagg.vector import Vector


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
