"""A federated update as one seed and one bit per parameter: `update = noise(seed) * mask`.

A frame has seed and mask; the receiver recomputes the noise. `spec/FORMAT.md` specifies the bytes; the method
is FedMRN (Li et al., ACM MM 2024).

    schema = fm.Schema([fm.Tensor("conv.weight", (32, 1, 3, 3), masked=True)])
    frame = fm.encode(update, schema, seed=7, noise=fm.Uniform(0.01), mask="binary")
    arrays = fm.decode(frame, schema)
"""

from . import errors
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
from .face.adaptive import AdaptiveNoise
from .face.aggregation import Aggregator
from .face.decoding import decode, decode_bits, inspect, noise, philox_words, verify
from .face.downlink import Downlink, Replica
from .face.encoding import encode, encode_bits
from .face.envelope import Unsealed, seal, unseal
from .face.grids import encode_grid
from .face.intake import Intake
from .face.journal import Journal
from .face.keys import Key, KeyRing
from .face.models import apply, difference, model_id, schema_of
from .face.policy import Policy
from .face.replay import Accepted, Replayed, replay
from .face.request import Request
from .face.seeds import choose_seed
from .face.tally import Tally
from .format.checked import CheckedFrame
from .format.frame import Entry, Info
from .format.limits import Limits
from .format.schema import Schema, Tensor
from .primitives.codes import Coding, MaskKind
from .primitives.noise import Bernoulli, Gaussian, Noise, Uniform
from .sums.statistics import MaskStatistics

__version__ = "0.1.0"

__all__ = [
    "Accepted",
    "AdaptiveNoise",
    "AggregateError",
    "Aggregator",
    "ArgumentError",
    "BackendError",
    "Bernoulli",
    "CheckedFrame",
    "CodecError",
    "Coding",
    "Downlink",
    "Entry",
    "FrameError",
    "Gaussian",
    "Info",
    "Intake",
    "Journal",
    "Key",
    "KeyRing",
    "Limits",
    "MalformedError",
    "MaskKind",
    "MaskStatistics",
    "Noise",
    "Policy",
    "RefusedError",
    "Replayed",
    "Replica",
    "ReplyError",
    "Request",
    "ScaleError",
    "Schema",
    "SchemaError",
    "Tally",
    "Tensor",
    "Uniform",
    "Unsealed",
    "UnsupportedError",
    "UpdateError",
    "apply",
    "choose_seed",
    "decode",
    "decode_bits",
    "difference",
    "encode",
    "encode_bits",
    "encode_grid",
    "errors",
    "inspect",
    "model_id",
    "noise",
    "philox_words",
    "replay",
    "schema_of",
    "seal",
    "unseal",
    "verify",
]
