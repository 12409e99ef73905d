"""Envelopes: the vectors, other implementations of the signatures, replays, and keys that are refused."""

import dataclasses
import json
import pickle
import re
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fedmrn_codec as fm
from fedmrn_codec import errors
from fedmrn_codec.face import keys as keys_module

pytest.importorskip("cryptography")

ROOT = Path(__file__).resolve().parents[2]
CASES = json.loads((ROOT / "spec" / "vectors" / "envelopes.json").read_text())["cases"]
VALID = [case for case in CASES if case["result"] == "valid"]
TEXT = (ROOT / "spec" / "ENVELOPE.md").read_text(encoding="utf-8")

PRIVATE, SECRET = fm.Key.ed25519(bytes(range(32))), fm.Key.hmac(bytes(range(32, 64)))
SIGNERS = pytest.mark.parametrize("key", [PRIVATE, SECRET], ids=["ed25519", "hmac"])
RING = fm.KeyRing({"ann": PRIVATE.public, "bob": SECRET})
CONTEXT = b"run 1, to the server"

SCHEMA = fm.Schema([fm.Tensor("w", (40,), masked=True)])
NOISE = fm.Uniform(0.01)


def frame(seed=5, round=7):
    update = {"w": np.full(40, 0.005, np.float32)}
    return fm.encode(update, SCHEMA, seed=seed, noise=NOISE, round=round, base_model=9, private_seed=1)


POLICY = fm.Policy(
    schema=SCHEMA, noise=NOISE, round=7, base_model=9, seeds={"ann": 5, "bob": 6}, max_weight=600
)


def known(entry):
    make = fm.Key.hmac if entry["algorithm"] == "hmac-sha256" else fm.Key.ed25519_public
    return make(bytes.fromhex(entry["key"]))


def ring_of(case):
    return fm.KeyRing({entry["sender"]: known(entry) for entry in case["keys"]})


@pytest.mark.parametrize("case", [pytest.param(case, id=case["id"]) for case in CASES])
def test_vectors(case):
    data, context = bytes.fromhex(case["envelope"]), bytes.fromhex(case["context"])
    if case["result"] == "invalid":
        with pytest.raises(fm.FrameError) as caught:
            fm.unseal(data, ring_of(case), context=context, **case["options"])
        assert caught.value.code == case["code"]
        return
    got = fm.unseal(data, ring_of(case), context=context, **case["options"])
    assert got == (case["sender"], bytes.fromhex(case["frame"]), bytes.fromhex(case["key_id"]))
    make = fm.Key.hmac if case["sender"] == "bob" else fm.Key.ed25519
    assert fm.seal(got.frame, make(bytes.fromhex(case["secret"])), context=context) == data


def test_every_check_of_the_text_has_a_vector_and_its_class():
    checks = dict(re.findall(r"^\| \[(V-\d\d)\] \|.*\| `(\w+)` \| \w+ \|$", TEXT, re.M))
    classes = dict(re.findall(r"`(\w+)` \| (\w+) \|$", TEXT, re.M))
    assert len(checks) == 11
    assert {(*case["spec"], case["code"]) for case in CASES if "code" in case} == set(checks.items())
    bases = {"malformed": fm.MalformedError, "unsupported": fm.UnsupportedError, "refused": fm.RefusedError}
    found = {cls.code: cls for cls in vars(errors).values() if isinstance(cls, type)}
    for code, name in classes.items():
        assert issubclass(found[code], bases[name])


def test_every_number_of_the_text_is_defined_once():
    defined = re.findall(r"^(?:\| |- )\[(V-\d\d)\]", TEXT, re.M)
    assert len(defined) == len(set(defined)) == 16
    assert set(re.findall(r"\[(V-\d\d)\]", TEXT)) == set(defined)


# Other implementations


def signed_message(data, context, tag_bytes):
    return b"fedmrn envelope 1\0" + bytes([len(context)]) + context + data[:-tag_bytes]


def test_another_library_finds_the_signatures_right():
    eddsa = pytest.importorskip("Crypto.Signature.eddsa")
    for case in VALID:
        data, context = bytes.fromhex(case["envelope"]), bytes.fromhex(case["context"])
        if case["sender"] == "ann":
            public = eddsa.import_public_key(bytes.fromhex(case["keys"][0]["key"]))
            eddsa.new(public, "rfc8032").verify(signed_message(data, context, 64), data[-64:])


def test_another_library_finds_the_tags_right():
    hmac, hashes = pytest.importorskip("Crypto.Hash.HMAC"), pytest.importorskip("Crypto.Hash.SHA256")
    for case in VALID:
        data, context = bytes.fromhex(case["envelope"]), bytes.fromhex(case["context"])
        if case["sender"] == "bob":
            tag = hmac.new(bytes.fromhex(case["secret"]), signed_message(data, context, 32), hashes)
            tag.verify(data[-32:])


@pytest.mark.parametrize(
    ("private", "public", "message", "signature"),
    [  # RFC 8032, section 7.1, tests 1 to 3
        (
            "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            "",
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b"
            "d25bf5f0595bbe24655141438e7a100b",
        ),
        (
            "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
            "72",
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c"
            "387b2eaeb4302aeeb00d291612bb0c00",
        ),
        (
            "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
            "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
            "af82",
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc659"
            "4a7c15e9716ed28dc027beceea1ec40a",
        ),
    ],
)
def test_the_plain_integers_give_the_answers_of_the_rfc(private, public, message, signature, ed25519):
    assert ed25519.public(bytes.fromhex(private)).hex() == public
    assert ed25519.sign(bytes.fromhex(private), bytes.fromhex(message)).hex() == signature
    assert ed25519.verify(*map(bytes.fromhex, (public, message, signature)))
    assert not ed25519.verify(*map(bytes.fromhex, (public, message + "00", signature)))


@pytest.fixture
def ed25519(monkeypatch):
    """The implementation in plain integers that the vectors are made with."""
    monkeypatch.syspath_prepend(ROOT / "spec")
    from vector_cases import ed25519

    return ed25519


@given(st.binary(min_size=32, max_size=32), st.binary(max_size=40), st.binary(max_size=255))
def test_any_frame_and_context_comes_back(secret, data, context):
    for key in (fm.Key.hmac(secret), fm.Key.ed25519(secret)):
        assert fm.unseal(fm.seal(data, key, context=context), fm.KeyRing({1: key}), context=context) == (
            1,
            data,
            key.id,
        )


# What is refused


@SIGNERS
def test_every_flipped_bit_is_found(key):
    data = fm.seal(frame(), key, context=CONTEXT)
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(fm.FrameError):
            fm.unseal(changed, RING, context=CONTEXT)


@SIGNERS
def test_every_truncation_is_found(key):
    data = fm.seal(frame(), key)
    for length in range(len(data)):
        with pytest.raises(fm.errors.TruncatedError):
            fm.unseal(data[:length], RING)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data[:31], "envelope, byte 0: expected at least 32 bytes, got 31"),
        (lambda data: bytes(32), "magic, byte 0: expected b'FMRE', got b'\\x00\\x00\\x00\\x00'"),
        (lambda data: data[:4] + b"\2" + data[5:], "version, byte 4: expected 1, got 2"),
        (
            lambda data: data[:5] + b"\3" + data[6:],
            "algorithm, byte 5: expected 1 (hmac-sha256) or 2 (ed25519), got 3",
        ),
        (lambda data: data[:6] + b"\1\1" + data[8:], "reserved, byte 6: expected 0, got 257"),
        (lambda data: data[:24] + b"\5" + data[25:], "frame length, byte 24: expected at most 4, got 5"),
        (lambda data: data[:-1], "envelope, byte 67: expected 68 bytes for its parts, got 67"),
        (lambda data: data + b"\0", "envelope, byte 68: expected 68 bytes for its parts, got 69"),
        (
            lambda data: data[:8] + bytes(16) + data[24:],
            f"key id, byte 8: expected that of a known key, got {'00' * 16}",
        ),
        (
            lambda data: data[:5] + b"\2" + data[6:] + bytes(32),
            "algorithm, byte 5: expected hmac-sha256, that of the key, got ed25519",
        ),
        (
            lambda data: data[:-1] + bytes([data[-1] ^ 1]),
            f"signature, byte 36: expected that of key {SECRET.id.hex()} for these bytes and the context b''",
        ),
    ],
)
def test_messages_name_the_place(change, message):
    data = fm.seal(b"four", SECRET)
    with pytest.raises(fm.FrameError, match=f"^{re.escape(message)}"):
        fm.unseal(change(data), RING, max_bytes=4)


def test_a_replay_is_refused():
    """In the same round, in another one, for another run, and back to the side that signed."""
    sealed = fm.seal(frame(), PRIVATE, context=CONTEXT)
    intake = fm.Intake(POLICY)
    sender, inner, _ = fm.unseal(sealed, RING, context=CONTEXT)
    intake.accept(sender, inner, 1)
    with pytest.raises(errors.RepeatedError):
        intake.accept(sender, fm.unseal(sealed, RING, context=CONTEXT).frame, 1)
    later = fm.Intake(dataclasses.replace(POLICY, round=8))
    with pytest.raises(errors.RoundError):
        later.accept(sender, fm.unseal(sealed, RING, context=CONTEXT).frame, 1)
    for context in (b"run 2, to the server", b"run 1, to the clients", b""):
        with pytest.raises(errors.SignatureError, match="for these bytes and the context"):
            fm.unseal(sealed, RING, context=context)


def test_a_client_cannot_send_in_the_name_of_another():
    """Its own signature gives its own name, and the frame for another client has another seed."""
    sender, inner, _ = fm.unseal(fm.seal(frame(seed=5), SECRET), RING)
    assert sender == "bob"
    with pytest.raises(errors.SeedError):
        fm.Intake(POLICY).accept(sender, inner, 1)


def test_public_keys_of_small_order_are_refused(ed25519):
    """The eight points whose product with 8 is the neutral element, in each spelling of 32 bytes."""
    found = set()
    for number in range(2, 40):  # a point times the order of the large subgroup has small order
        try:
            point = ed25519.with_y(number, 0)
        except ValueError:
            continue
        found.add(ed25519.times(ed25519.L, point))
    assert len(found) == 8
    coordinates = {y for _, y in found}
    spelled = coordinates | {y + ed25519.P for y in coordinates if y + ed25519.P < 2**255}
    assert spelled == keys_module.SMALL_ORDER
    for y in spelled:
        for sign in (0, 2**255):
            with pytest.raises(fm.ArgumentError, match=r"^public key: expected a point that is not"):
                fm.Key.ed25519_public((y | sign).to_bytes(32, "little"))


@SIGNERS
def test_claims_cost_no_memory(key):
    data = bytearray(fm.seal(frame(), key))
    data[24:32] = (2**40).to_bytes(8, "little")
    tracemalloc.start()
    with pytest.raises(errors.TruncatedError):
        fm.unseal(data, RING)
    assert tracemalloc.get_traced_memory()[1] < 10**5
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fm.seal("text", SECRET), "frame: expected contiguous bytes, got str"),
        (lambda: fm.seal(b"", b"key"), "key: expected a Key that can sign, got b'key'"),
        (lambda: fm.seal(b"", PRIVATE.public), "key: expected a Key that can sign, got Key(algorithm="),
        (lambda: fm.seal(b"", SECRET, context="x"), "context: expected at most 255 bytes, got str"),
        (lambda: fm.seal(b"", SECRET, context=bytes(256)), "context: expected at most 255 bytes, got 256 b"),
        (lambda: fm.unseal(b"", {"ann": SECRET}), "keys: expected a KeyRing, got dict"),
        (lambda: fm.unseal(b"", RING, context=None), "context: expected at most 255 bytes, got NoneType"),
        (lambda: fm.unseal(b"", RING, max_bytes=-1), "max_bytes: expected 0 to 2^64 - 1, got -1"),
        (lambda: fm.Key.hmac(bytes(31)), "secret: expected 32 bytes, got 31 bytes"),
        (lambda: fm.Key.hmac("x" * 32), "secret: expected 32 bytes, got str"),
        (lambda: fm.Key.ed25519(bytes(64)), "private key: expected 32 bytes, got 64 bytes"),
        (lambda: fm.Key.ed25519_public(bytes(33)), "public key: expected 32 bytes, got 33 bytes"),
        (lambda: fm.Key.generate("rsa"), "algorithm: expected one of hmac-sha256, ed25519, got 'rsa'"),
        (lambda: SECRET.public, "key: expected one of ed25519, to have a public key, got hmac-sha256"),
        (lambda: fm.KeyRing([SECRET]), "keys: expected a mapping of sender to Key, got list"),
        (lambda: fm.KeyRing({"ann": b"x"}), "key of 'ann': expected a Key, got int"),
        (lambda: fm.KeyRing({"ann": None}), "key of 'ann': expected a Key, got NoneType"),
        (
            lambda: fm.KeyRing({"ann": PRIVATE, "eve": PRIVATE.public}),
            "key of 'eve': expected one of no other sender, got Key(",
        ),
    ],
)
def test_wrong_arguments(call, message):
    with pytest.raises(fm.ArgumentError, match=f"^{re.escape(message)}"):
        call()


# Keys


@pytest.mark.parametrize("algorithm", ["ed25519", "hmac-sha256"])
def test_generated_keys_differ_and_work(algorithm):
    key, other = fm.Key.generate(algorithm), fm.Key.generate(algorithm)
    assert key.id != other.id
    assert key.algorithm == other.algorithm == algorithm
    assert fm.unseal(fm.seal(b"x", key), fm.KeyRing({1: other, 2: key})).sender == 2


def test_without_the_package_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.asymmetric.ed25519", None)
    with pytest.raises(fm.BackendError, match=r"pip install 'fedmrn-codec\[envelope\]'"):
        fm.Key.generate()


def test_a_sender_may_have_several_keys():
    ring = fm.KeyRing({"ann": [PRIVATE, SECRET]})
    assert [fm.unseal(fm.seal(b"x", key), ring).key_id for key in (PRIVATE, SECRET)] == [
        PRIVATE.id,
        SECRET.id,
    ]


def test_no_secret_is_shown():
    for key in (PRIVATE, SECRET):
        assert key.data.hex() not in repr(key)
        assert repr(key.data) not in repr(key)
    assert PRIVATE.data not in PRIVATE.public.__getstate__().values()
    assert pickle.loads(pickle.dumps(SECRET)).id == SECRET.id


def test_the_frame_does_not_change_with_the_caller_s_bytes():
    data = bytearray(fm.seal(b"frame", SECRET))
    inner = fm.unseal(data, RING).frame
    data[:] = bytes(len(data))
    assert inner == b"frame"


def test_cryptography_is_imported_when_it_is_needed():
    program = (
        "import sys, fedmrn_codec as fm; key = fm.Key.hmac(bytes(32)); fm.KeyRing({1: key})\n"
        "assert 'cryptography' not in sys.modules\n"
        "sys.modules['cryptography'] = None\n"
        "try: fm.seal(b'', key)\n"
        "except fm.BackendError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(
        "envelope: expected the package cryptography (pip install 'fedmrn-codec[envelope]'), got "
    )
