"""A small model, its frames, and rounds that are played to their end."""

import zlib

import numpy as np

import fedmrn_codec as fm
import fedmrn_secagg

SCHEMA = fm.Schema(
    [
        fm.Tensor("conv.weight", (3, 5), masked=True),
        fm.Tensor("conv.bias", (3,)),
        fm.Tensor("head", (2, 2), masked=True),
        fm.Tensor("batches", (), dtype="int64"),
    ]
)
NOISE = fm.Bernoulli(0.01)
REQUEST = fm.Request(7, NOISE, "signed", 3, 9, SCHEMA)
STEP = 2.0**-18
STEPS = ("keys", "shares", "masked", "reveal")
NEVER = len(STEPS)


def update_of(schema, rng):
    """An update whose dense floats lie on the default grid of float32."""
    out = {}
    for tensor in schema:
        if tensor.masked:
            out[tensor.name] = rng.normal(0, 0.01, tensor.shape).astype(np.float32)
        elif tensor.type.is_float:
            out[tensor.name] = (rng.integers(-1000, 1000, tensor.shape) * STEP).astype(tensor.type.numpy)
        elif tensor.dtype == "bool":
            out[tensor.name] = np.asarray(rng.integers(0, 2, tensor.shape), bool)
        else:
            out[tensor.name] = np.asarray(rng.integers(0, 100, tensor.shape), tensor.type.numpy)
    return out


def frames_of(request, ids, seed=0):
    """A frame for each id."""
    rng = np.random.default_rng(seed)
    return {
        i: request.encode(update_of(request.schema, rng), private_seed=2**50 + int(i) % 2**32) for i in ids
    }


class Cohort:
    """A server and clients; `frames` and `weights` by id, other options as those of both sides."""

    def __init__(self, request, frames, *, threshold, weights=None, degree=None, **options):
        self.request, self.frames, self.weights = request, frames, weights or dict.fromkeys(frames, 1)
        self.server = fedmrn_secagg.Server(
            request, clients=list(frames), threshold=threshold, degree=degree, **options
        )
        self.clients = {
            i: fedmrn_secagg.Client(i, request, threshold=threshold, weight=self.weights[i], **options)
            for i in frames
        }

    def answers(self, step, ids, given=None):
        """The messages of a step of these clients; `given` is what the server answered to the last one."""
        out = {}
        for i in ids:
            client = self.clients[i]
            if step == "keys":
                out[i] = client.keys()
            elif step == "masked":
                out[i] = client.masked(self.frames[i], given[i])
            else:
                out[i] = getattr(client, step)(given)
        return out

    def play(self, last=None, until=NEVER):
        """Play the steps before `until`; `last` has the first step without a client, by its id.

        Returns what the server has answered: at the end the aggregator.
        """
        answer = None
        for number, step in enumerate(STEPS[:until]):
            ids = [i for i in self.clients if (last or {}).get(i, NEVER) > number]
            answer = getattr(self.server, step)(self.answers(step, ids, answer))
        return answer

    def expected(self, ids):
        """The aggregator that has added the frames of these clients."""
        out = self.request.aggregator()
        for i in ids:
            out.add(self.frames[i], self.weights[i])
        return out


IDS = [1, 2, 3, 4]
FRAMES = frames_of(REQUEST, IDS)
KEY, OTHER_KEY = fm.Key.generate(), fm.Key.generate()


def cohort(**options):
    """Four clients, of whom three are enough if nothing else is said."""
    return Cohort(REQUEST, FRAMES, **{"threshold": 3, **options})


def sealed(message, *changes):
    """A message with bytes replaced at offsets, and a checksum that is right again."""
    data = bytearray(message[:-4])
    for offset, new in changes:
        data[offset : offset + len(new)] = new
    return bytes(data) + zlib.crc32(data).to_bytes(4, "little")


def same_means(got, wanted):
    """Whether two aggregators give the same mean to the bit."""
    one, other = got.mean(), wanted.mean()
    assert list(one) == list(other)
    return all(one[name].tobytes() == other[name].tobytes() for name in one)
