"""The vectors of spec/SECAGG.md: its parts, rounds with fixed randomness, messages to be refused."""

import re
from pathlib import Path

import numpy as np
import pytest
from Crypto.Protocol import SecretSharing
from secagg_vectors import CASES, ROUNDS, randomness_of, terms_of

import fedmrn_codec as fm
import fedmrn_secagg
from fedmrn_secagg import errors, keys, randomness, sharing
from fedmrn_secagg.layout import Layout
from fedmrn_secagg.roster import Roster
from fedmrn_secagg.terms import Terms
from fedmrn_secagg.vector import Vector

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "spec" / "SECAGG.md").read_text(encoding="utf-8")
STEPS = ("keys", "roster", "shares", "boxes", "masked", "survivors", "reveal")


def cases(kind):
    found = [pytest.param(case, id=case["id"]) for case in CASES if case["kind"] == kind]
    assert found
    return pytest.mark.parametrize("case", found)


@cases("agreement")
def test_agreement(case):
    request, options = terms_of(case["agreed"])
    assert Terms(request, signed=case["agreed"]["signed"], **options).agreement.hex() == case["agreement"]


@cases("graph")
def test_graph(case):
    ids = case["ids"]
    roster = Roster(tuple(ids), (b"",) * len(ids), case["degree"], bytes.fromhex(case["graph_seed"]), b"")
    found = {str(i): [ids[p] for p in roster.neighbours(place)] for place, i in enumerate(ids)}
    assert found == case["neighbours"]


@cases("shamir")
def test_shares(case, monkeypatch):
    secret, *rest = map(bytes.fromhex, case["coefficients"])
    draws = iter(reversed(rest))
    monkeypatch.setattr(SecretSharing, "rng", lambda size: next(draws))
    shares = sharing.split(secret, len(rest) + 1, len(case["shares"]))
    assert [share.hex() for share in shares] == case["shares"]
    some = dict(list(enumerate(shares, 1))[1:])
    assert sharing.combine(some, len(rest) + 1) == secret
    if len(some) > len(rest) + 1:
        assert sharing.combine(dict(list(some.items())[1:]), len(rest) + 1) == secret
    assert next(draws, None) is None


@cases("pad")
def test_pads(case):
    bits = case["bits"]
    schema = fm.Schema(
        [
            fm.Tensor("m", (len(case["fields"]),), masked=True),
            fm.Tensor("f", (2,)),
            fm.Tensor("i", (2,), dtype="int64"),
        ]
    )
    request = fm.Request(1, fm.Bernoulli(1.0), "signed", 0, 0, schema)
    layout = Layout(Terms(request, 2, largest_weight=1), 2 ** (bits - 1))
    assert layout.bits == bits
    one, other = Vector(layout), Vector(layout)
    one.pad(bytes.fromhex(case["key"]))
    assert one.to_bytes().hex() == "".join(case["sections"])
    other.pad(bytes.fromhex(case["key"]), negative=True)
    other.add(one)
    assert not any(other.to_bytes())


def known_keys(others):
    """Public identity keys by id: a key that fm.Key refuses, [V-14], counts as none ([X-29])."""
    out = {}
    for i, key in others.items():
        out[int(i)] = None
        if key is not None:
            with pytest.raises(fm.ArgumentError, match="small order"):
                fm.Key.ed25519_public(bytes.fromhex(key))
    return out


class Replay:
    """The clients and the server of a round, with the randomness of the vectors."""

    def __init__(self, case, monkeypatch, others=None):
        """`others` has identity keys that replace those of the round, or None for no key."""
        self.case, self.patch = case, monkeypatch
        self.request, self.options = terms_of(case["agreed"])
        self.people = {client["id"]: client for client in case["clients"]}
        identities = None
        if case["agreed"]["signed"]:
            private = {i: fm.Key.ed25519(bytes.fromhex(p["identity"])) for i, p in self.people.items()}
            identities = {i: key.public for i, key in private.items()} | known_keys(others or {})
            identities = {i: key for i, key in identities.items() if key is not None}
        self.server = fedmrn_secagg.Server(
            self.request,
            clients=list(self.people),
            degree=case["degree"] or None,
            identities=identities,
            **self.options,
        )
        self.clients = {
            i: fedmrn_secagg.Client(
                i,
                self.request,
                weight=person["weight"],
                identity=private[i] if identities else None,
                identities=identities,
                max_clients=2**24,
                **self.options,
            )
            for i, person in self.people.items()
        }

    def draws(self, *values):
        found = iter(values)
        self.patch.setattr(randomness, "draw", lambda size: next(found))

    def message(self, name, id=None):
        return bytes.fromhex(self.case[name] if id is None else self.people[id][name])

    def have(self, name):
        return [i for i, person in self.people.items() if name in person]

    def client(self, id, step):
        """Make a client answer up to the message that it makes before `step`; returns its last one."""
        client, out = self.clients[id], None
        first, coefficients = randomness_of(self.people[id], self.options["threshold"])
        self.draws(*first)
        found = iter(coefficients)
        self.patch.setattr(SecretSharing, "rng", lambda size: next(found))
        calls = {
            "keys": lambda: client.keys(),
            "shares": lambda: client.shares(self.message("roster")),
            "masked": lambda: client.masked(self.message("frame", id), self.message("boxes", id)),
            "reveal": lambda: client.reveal(self.message("survivors")),
        }
        for name in STEPS[: STEPS.index(step)]:
            if name in calls:
                out = calls[name]()
                assert out.hex() == self.people[id][name], name
        return out

    def server_answers(self, step, change=lambda messages: messages):
        """Let the server answer up to a step; `change` changes the messages of the last one."""
        self.draws(bytes.fromhex(self.case["graph_seed"]))
        out = None
        for name in STEPS[: STEPS.index(step) + 1]:
            if name in ("keys", "shares", "masked", "reveal"):
                messages = {i: self.message(name, i) for i in self.have(name)}
                out = getattr(self.server, name)(change(messages) if name == step else messages)
        return out


@cases("round")
def test_rounds(case, monkeypatch):
    replay = Replay(case, monkeypatch)
    threshold = case["agreed"]["threshold"]
    assert len(case["clients"]) > len(replay.have("masked")) >= len(replay.have("reveal")) >= threshold
    for i in replay.people:
        names = [name for name in ("keys", "shares", "masked", "reveal") if name in replay.people[i]]
        following = {"keys": "roster", "shares": "boxes", "masked": "survivors", "reveal": "reveal"}
        replay.client(i, following[names[-1]])
        if names[-1] == "reveal":
            assert replay.clients[i].reveal(replay.message("survivors")).hex() == replay.people[i]["reveal"]
            assert replay.clients[i].state == "done"
        if "clipped" in replay.people[i]:
            assert replay.clients[i].clipped == replay.people[i]["clipped"]
    replay = Replay(case, monkeypatch)
    aggregator = replay.server_answers("reveal")
    assert [each.tobytes().hex() for each in aggregator.mean().values()] == case["mean"]
    assert aggregator.frames == aggregator.weight == case["frames"]


@cases("round")
def test_answers_of_the_server(case, monkeypatch):
    for step, name in (("keys", "roster"), ("masked", "survivors")):
        assert Replay(case, monkeypatch).server_answers(step).hex() == case[name]
    boxes = Replay(case, monkeypatch).server_answers("shares")
    assert {i: data.hex() for i, data in boxes.items()} == {
        person["id"]: person["boxes"] for person in case["clients"] if "boxes" in person
    }


@cases("round")
def test_values_between(case):
    """Keys and shares that no message shows."""
    digest, agreement = bytes.fromhex(case["roster_digest"]), bytes.fromhex(case["agreement"])
    assert (
        digest
        == __import__("hashlib")
        .sha256(b"fedmrn secagg 1 roster\0" + bytes.fromhex(case["roster"])[:-4])
        .digest()
    )
    people = {person["id"]: person for person in case["clients"]}
    for i, person in people.items():
        private = keys.pad_private(bytes.fromhex(person["key_seed"]), agreement, i)
        assert private.hex() == person["pad_private"]
        for j, expected in person.get("pair_keys", {}).items():
            public = bytes.fromhex(people[int(j)]["keys"])[80:112]
            assert keys.pair_key(private, public, digest, i, int(j)).hex() == expected
        if "self_key" in person:
            seed = bytes.fromhex(person["self_seed"])
            assert keys.self_key(seed, digest, i).hex() == person["self_key"]
            assert keys.commitment(seed, digest, i).hex() == person["commitment"]
        for j, expected in person.get("box_keys", {}).items():
            public = bytes.fromhex(people[int(j)]["keys"])[48:80]
            product = keys.agree(bytes.fromhex(person["box_private"]), public, "")
            assert keys.derive(product, digest, "box", i, int(j)).hex() == expected


@cases("message")
def test_messages_that_are_refused(case, monkeypatch):
    replay = Replay(ROUNDS[case["round"]], monkeypatch, case.get("identities"))
    message, step = bytes.fromhex(case["message"]), case["step"]
    if case["reader"]:
        replay.client(case["reader"], step)
        client = replay.clients[case["reader"]]
        before = client.state
        call = {
            "roster": lambda: client.shares(message),
            "boxes": lambda: client.masked(replay.message("frame", case["reader"]), message),
            "survivors": lambda: client.reveal(message),
        }[step]
        with pytest.raises(fedmrn_secagg.SecAggError) as caught:
            call()
        assert client.state == before
    else:
        with pytest.raises(fedmrn_secagg.SecAggError) as caught:
            replay.server_answers(step, lambda messages: messages | {case["sender"]: message})
        assert caught.value.client is not None
        assert replay.server.state == step
    assert caught.value.code == case["code"]
    (number,) = case["spec"]
    assert f"[{number}]" in type(caught.value).__doc__


@cases("frame")
def test_frames_that_are_refused(case, monkeypatch):
    """With the right boxes, or with bad ones, whose checks come first; then the right ones are answered."""
    replay = Replay(ROUNDS[case["round"]], monkeypatch)
    reader = case["reader"]
    replay.client(reader, "boxes")
    client = replay.clients[reader]
    with pytest.raises(fm.CodecError) as caught:
        client.masked(bytes.fromhex(case["frame"]), bytes.fromhex(case["boxes"]))
    assert caught.value.code == case["code"]
    assert client.state == "shared"
    right = client.masked(replay.message("frame", reader), replay.message("boxes", reader))
    assert right == replay.message("masked", reader)


def test_a_frame_that_was_checked_before_is_checked_again(monkeypatch):
    """[X-37], and the expected values, of an object in the place of bytes."""
    found = 0
    for case in CASES:
        if case["kind"] == "frame" and case["spec"][0] in ("X-37", "X-04", "F-12", "F-13", "F-14"):
            replay = Replay(ROUNDS[case["round"]], monkeypatch)
            replay.client(case["reader"], "boxes")
            checked = fm.verify(bytes.fromhex(case["frame"]), replay.request.schema)
            with pytest.raises(fm.CodecError) as caught:
                replay.clients[case["reader"]].masked(checked, bytes.fromhex(case["boxes"]))
            assert caught.value.code == case["code"]
            found += 1
    assert found > 10


def test_the_client_goes_on_after_a_message_that_it_refused(monkeypatch):
    case = next(case for case in CASES if case["id"] == "secagg/x33-exchanged")
    replay = Replay(ROUNDS[case["round"]], monkeypatch)
    reader = case["reader"]
    replay.client(reader, "boxes")
    with pytest.raises(errors.BoxError):
        replay.clients[reader].masked(replay.message("frame", reader), bytes.fromhex(case["message"]))
    sent = replay.clients[reader].masked(replay.message("frame", reader), replay.message("boxes", reader))
    assert sent == replay.message("masked", reader)


def test_sums_of_the_vectors():
    """The vectors of the survivors, added in plain integers, are the sum."""
    for case in ROUNDS.values():
        bits = case["bits"]
        vectors = [person["vector"] for person in case["clients"] if "vector" in person]
        for section, width in enumerate((bits, 32, 64)):
            strings = [int.from_bytes(bytes.fromhex(v[section]), "little") for v in vectors]
            total = int.from_bytes(bytes.fromhex(case["sum"][section]), "little")
            for at in range(0, 4 * len(case["sum"][section]), width):
                mine = sum(string >> at & (2**width - 1) for string in strings) % 2**width
                assert mine == total >> at & (2**width - 1)


def test_every_check_of_the_table_has_vectors_or_is_tested_elsewhere():
    rows = re.findall(r"^\| \[(X-\d\d)\] \|", TEXT, re.M)
    seen = {number for case in CASES if case["kind"] == "message" for number in case["spec"]}
    assert set(rows) - seen == set()
    codes = dict(re.findall(r"^\| \[(X-\d\d)\] \|.*\| `(\w+)` \|$", TEXT, re.M))
    assert all(case["code"] == codes[case["spec"][0]] for case in CASES if case["kind"] == "message")


def test_an_array_of_numpy_is_a_message_too(monkeypatch):
    replay = Replay(ROUNDS["secagg/round-four"], monkeypatch)
    replay.client(3, "roster")
    data = np.frombuffer(replay.message("roster"), np.uint8)
    assert replay.clients[3].shares(data) == replay.message("shares", 3)


def test_every_number_is_cited_where_it_is_implemented_or_tested():
    numbers = set(re.findall(r"^(?:- |\| )\[(X-\d\d)\]", TEXT, re.M))
    assert numbers == {f"X-{number:02}" for number in range(1, 39)}
    folders = ROOT / "adapters" / "fedmrn_secagg", ROOT / "tests" / "fedmrn_secagg"
    cited = "".join(path.read_text() for folder in folders for path in folder.glob("*.py"))
    spans = re.findall(r"\[X-(\d\d)\](?: to \[X-(\d\d)\])?", cited)
    found = {f"X-{n:02}" for low, high in spans for n in range(int(low), int(high or low) + 1)}
    assert numbers - found == set()
