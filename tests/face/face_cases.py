"""Schemas of every dtype, updates that fit a schema, and Hypothesis strategies for schemas and noise."""

import numpy as np
from hypothesis import strategies as st

import fedmrn_codec as fm
from fedmrn_codec.primitives.dtypes import DTYPES

NOISES = [fm.Uniform, fm.Gaussian, fm.Bernoulli]
BACKENDS = ["numpy", "numba", "torch", "onnx"]
U64 = st.integers(0, 2**64 - 1)


def example_update(rng, schema):
    """Finite arrays that fit a schema, every bit of a dense element at random."""
    out = {}
    for t in schema:
        if t.masked:
            out[t.name] = rng.normal(0, 0.01, t.shape).astype(np.float32)
            continue
        raw = rng.integers(0, 256, (*t.shape, t.type.numpy.itemsize), np.uint8)
        if t.dtype == "bool":
            raw &= 1
        elif t.type.is_float:
            raw[..., -1] &= np.uint8(0xBF)  # clear the exponent's top bit: finite
        out[t.name] = raw.view(t.type.numpy).reshape(t.shape)
    return out


def all_kinds_schema():
    dense = [fm.Tensor(f"dense.{name}", (3, 2), dtype=name) for name in DTYPES]
    return fm.Schema(
        [
            fm.Tensor("conv.weight", (4, 3, 3, 3), masked=True),
            *dense,
            fm.Tensor("μ", (), masked=True),
            fm.Tensor("steps", (), dtype="int64"),
            fm.Tensor("empty", (0, 5), masked=True),
            fm.Tensor("empty.dense", (5, 0), dtype="float64"),
        ]
    )


@st.composite
def schemas(draw):
    """Up to five tensors of random roles, dtypes and shapes."""
    names = draw(st.lists(st.text(min_size=1, max_size=6).filter(_encodable), max_size=5, unique=True))
    tensors = []
    for name in names:
        shape = tuple(draw(st.lists(st.integers(0, 6), max_size=3)))
        masked = draw(st.booleans())
        dtype = "float32" if masked else draw(st.sampled_from(sorted(DTYPES)))
        tensors.append(fm.Tensor(name, shape, masked, dtype))
    return fm.Schema(tensors)


def _encodable(text):
    try:
        return bool(text.encode())
    except UnicodeEncodeError:
        return False


noises = st.builds(
    lambda cls, scale: cls(scale), st.sampled_from(NOISES), st.floats(1e-20, 1e20, allow_subnormal=False)
)
