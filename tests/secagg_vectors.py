"""The rounds of `spec/vectors/secagg.json`: their requests, options and randomness."""

import json
import struct
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from Crypto.Protocol import SecretSharing

import fedmrn_codec as fm
from fedmrn_secagg import randomness

FILE = Path(__file__).resolve().parents[1] / "spec" / "vectors" / "secagg.json"
CASES = json.loads(FILE.read_text())["cases"]
ROUNDS = {case["id"]: case for case in CASES if case["kind"] == "round"}
NOISES = {"uniform": fm.Uniform, "gaussian": fm.Gaussian, "bernoulli": fm.Bernoulli}


def f32(bits):
    return struct.unpack("<f", struct.pack("<I", int(bits, 16)))[0]


def terms_of(agreed):
    """Request and options of a case."""
    tensors = [
        fm.Tensor(t["name"], tuple(t["shape"]), t["role"] == "masked", t["dtype"]) for t in agreed["schema"]
    ]
    request = fm.Request(
        int(agreed["seed"], 16),
        NOISES[agreed["distribution"]](f32(agreed["scale"])),
        agreed["mask"],
        agreed["round"],
        int(agreed["base_model"], 16),
        fm.Schema(tensors),
    )
    options = {
        "threshold": agreed["threshold"],
        "largest_weight": agreed["largest_weight"],
        "step": {name: f32(bits) for name, bits in agreed["steps"].items()},
        "session": bytes.fromhex(agreed["session"]),
    }
    return request, options


def randomness_of(client, threshold):
    """What a client of a case draws, in the order in which it does: secrets, and coefficients of sharings."""
    first = [bytes.fromhex(client[name]) for name in ("box_private", "key_seed", "self_seed")]
    rest = [*reversed(client["self_coefficients"]), *reversed(client["key_coefficients"])]
    assert len(rest) == 2 * (threshold - 1)
    return first, list(map(bytes.fromhex, rest))


@contextmanager
def drawn(values, coefficients=()):
    """Let both packages draw these values, and no others."""
    with (
        mock.patch.object(randomness, "draw", _drawing(values)),
        mock.patch.object(SecretSharing, "rng", _drawing(coefficients)),
    ):
        yield


def _drawing(values):
    """A function of a size that returns one value after the other; much faster to make than a mock."""
    left = iter(values)

    def draw(size):
        return next(left)

    return draw
