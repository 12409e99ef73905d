"""A federated update as one seed and one bit a parameter: `update = noise(seed) * mask`.

The bytes are written down in `spec/FORMAT.md`; the method is FedMRN (Li et al., ACM MM 2024).

    schema = fm.Schema([fm.Tensor("conv.weight", (32, 1, 3, 3), masked=True)])
    frame = fm.encode(update, schema, seed=7, noise=fm.Uniform(0.01), mask="binary")
    arrays = fm.decode(frame, schema)
"""

from .aggregate import Aggregator
from .decoding import decode, decode_bits, inspect, noise, philox_words, verify
from .encoding import encode, encode_bits
from .errors import (
    AggregateError,
    ArgumentError,
    BackendError,
    CodecError,
    FrameError,
    MalformedError,
    RefusedError,
    ReplyError,
    ScaleError,
    SchemaError,
    UnsupportedError,
    UpdateError,
)
from .frame import Entry, Info
from .limits import Limits
from .noise import Bernoulli, Gaussian, Noise, Uniform
from .request import Request
from .schema import Schema, Tensor
from .seeds import choose_seed
from .updates import apply, difference, model_id, schema_of

__version__ = "0.1.0"

__all__ = [
    "AggregateError",
    "Aggregator",
    "ArgumentError",
    "BackendError",
    "Bernoulli",
    "CodecError",
    "Entry",
    "FrameError",
    "Gaussian",
    "Info",
    "Limits",
    "MalformedError",
    "Noise",
    "RefusedError",
    "ReplyError",
    "Request",
    "ScaleError",
    "Schema",
    "SchemaError",
    "Tensor",
    "Uniform",
    "UnsupportedError",
    "UpdateError",
    "apply",
    "choose_seed",
    "decode",
    "decode_bits",
    "difference",
    "encode",
    "encode_bits",
    "inspect",
    "model_id",
    "noise",
    "philox_words",
    "schema_of",
    "verify",
]
