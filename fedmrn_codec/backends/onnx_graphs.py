"""The codec's operations as ONNX graphs: opset 18, operators of the domain ai.onnx only.

Each function adds the nodes of one formula of the specification, given in its docstring, to a graph, and
returns the name of the result. All arithmetic is in integers, except the product of spec 3.1 and the
comparison of spec 4.3. Comparisons and products replace a count of leading zeros and a cast of bits, which
ONNX lacks, and Where, which is far slower.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ..primitives.codes import MaskKind
from ..primitives.noise import MAX_DRAW, Bernoulli, Gaussian, Noise, gaussian_table
from ..primitives.philox import LOW, MULTIPLIER_0, MULTIPLIER_1, ROUNDS, WEYL_0, WEYL_1

RAW_FORMAT, GRID_FORMAT, TALLY_FORMAT = "1.0", "1.3", "1.4"
"""The versions of the format that have raw masks, the integers of grids, and tallies."""

OPSET, IR = 18, 8
"""Those of ONNX 1.13, the first version with BitwiseAnd and BitwiseXor."""

U64, U32, U8 = TensorProto.UINT64, TensorProto.UINT32, TensorProto.UINT8
I64, I32, F32 = TensorProto.INT64, TensorProto.INT32, TensorProto.FLOAT

INPUTS: dict[str, tuple[int, list[str], str]] = {
    "seed": (U64, [], "the frame's seed"),
    "stream": (U64, [], "the tensor's position in the schema, from 0, dense tensors counted too (spec 2.1)"),
    "start": (U64, [], "number of the first element or word; 0 for a whole tensor"),
    "count": (I64, [], "the number of elements or words"),
    "scale": (F32, [], "the tensor's scale a (spec 3.5) or step (spec 6.12), as in the frame"),
    "payload": (U8, ["bytes"], "the packed mask (spec 4.1); its first bit is element `start`"),
    "update": (F32, ["count"], "the update u, finite"),
    "draws": (U32, ["count"], "the integers r of spec 4.3, below 2^24, private to the client, [M-03]"),
    "private_seed": (U64, [], "source of r (spec 4.3): secret, random, never the frame's seed, [M-03]"),
    "weight": (I64, [], "the frame's weight w, 1 .. 2^39 - 1 (spec 8.1)"),
    "sums": (I64, ["count"], "the sums S of earlier frames (spec 8.2)"),
    "weights": (F32, ["count"], "a tensor of the model, flat (spec 1.5)"),
    "integers": (I32, ["count"], "the integers z of a grid (spec 6.12)"),
    "factors": (I32, ["count"], "c of a tally if its kind is binary, 2 * c - n if it is signed (spec 8.6)"),
}
"""Every input of a graph: its type, shape ([] for a scalar) and meaning."""

OUTPUTS: dict[str, tuple[int, list[str], str]] = {
    "words": (U32, ["count"], "words `start`, `start` + 1, ... (spec 2)"),
    "noise": (F32, ["count"], "the noise (spec 3)"),
    "decoded": (F32, ["count"], "the update: noise * mask (spec 4.2) or z * step (spec 6.12)"),
    "new_sums": (
        I64,
        ["count"],
        "the sums plus those of this frame (spec 8.2) or tally (spec 8.6)",
    ),
    "packed": (U8, ["bytes"], "the packed mask (spec 4.1); its first bit is element `start`"),
    "new_weights": (
        F32,
        ["count"],
        "weights + the update, product and sum each rounded to float32",
    ),
}

OPERATIONS = {
    "words": (["seed", "stream", "start", "count"], "words"),
    "noise": (["seed", "stream", "start", "count", "scale"], "noise"),
    "decode": (["seed", "stream", "start", "count", "scale", "payload"], "decoded"),
    "accumulate": (["seed", "stream", "start", "payload", "weight", "sums"], "new_sums"),
    "accumulate-counts": (["seed", "stream", "start", "factors", "weight", "sums"], "new_sums"),
    "sample": (["seed", "stream", "start", "scale", "update", "draws"], "packed"),
    "sample-seeded": (["seed", "stream", "start", "scale", "update", "private_seed"], "packed"),
    "apply": (["seed", "stream", "start", "scale", "payload", "weights"], "new_weights"),
    "grid-decode": (["scale", "integers"], "decoded"),
    "grid-accumulate": (["integers", "weight", "sums"], "new_sums"),
    "grid-apply": (["scale", "integers", "weights"], "new_weights"),
}
"""Every operation: the names of its inputs, in order, and of its output."""

REQUIREMENTS = {
    "words": ("N-02", ""),
    "noise": ("N-01 N-02 N-04", "N-03"),
    "decode": ("N-01 N-02 N-04 M-02", "N-03 M-01"),
    "accumulate": ("N-02 N-04", "M-01 A-01 A-02"),
    "accumulate-counts": ("N-02 N-04", "T-20 A-01 A-02 A-10"),
    "sample": ("N-01 N-02 N-04 M-01 M-04", "N-03 M-03 E-02"),
    "sample-seeded": ("N-01 N-02 N-04 M-01 M-04", "N-03 M-03 E-02"),
    "apply": ("N-01 N-02 N-04 M-02", "N-03 M-01"),
    "grid-decode": ("N-01", "F-24 F-32"),
    "grid-accumulate": ("N-01", "F-32 A-01 A-02"),
    "grid-apply": ("N-01", "F-24 F-32"),
}
"""The requirements of `spec/FORMAT.md` that a graph meets (N-01 if its runtime does), and those on its
inputs, which the caller must check, since a graph cannot refuse them."""


class Graph:
    """A graph that is being built; its values are referred to by name."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[tuple[str, tuple[int, ...], bytes], onnx.TensorProto] = {}

    def add(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Add an operator; returns the name of its result."""
        name = f"{op}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], name, **attributes))
        return name

    def constant(self, value: np.ndarray | np.generic, name: str | None = None) -> str:
        """Add an initializer, unless there is an equal one; returns its name."""
        array = np.asarray(value)
        key = array.dtype.str, array.shape, array.tobytes()
        if key not in self.constants:
            name = name or f"constant_{len(self.constants)}"
            self.constants[key] = numpy_helper.from_array(array, name)
        return str(self.constants[key].name)

    def u64(self, value: int) -> str:
        """A uint64 scalar."""
        return self.constant(np.uint64(value))

    def u32(self, value: int) -> str:
        """A uint32 scalar."""
        return self.constant(np.uint32(value))

    def i32(self, value: int) -> str:
        """An int32 scalar."""
        return self.constant(np.int32(value))

    def i64(self, *values: int) -> str:
        """An int64 vector."""
        return self.constant(np.array(values, np.int64))

    def f32(self, value: float) -> str:
        """A float32 scalar."""
        return self.constant(np.float32(value))

    def cast(self, x: str, to: int) -> str:
        """A conversion to another type; in these graphs it never changes a value."""
        return self.add("Cast", x, to=to)

    def right(self, x: str, distance: str) -> str:
        """A logical shift to the right."""
        return self.add("BitShift", x, distance, direction="RIGHT")

    def flat(self, x: str) -> str:
        """A vector of all elements of a tensor."""
        return self.add("Reshape", x, self.i64(-1))


def build(
    operation: str, distribution: type[Noise] | None = None, kind: int | None = None
) -> onnx.ModelProto:
    """The model of one operation.

    Parameters
    ----------
    operation : str
        A key of `OPERATIONS`.
    distribution : subclass of Noise, or None for "words" and the operations on grids
    kind : int, or None for these, "noise" and "accumulate-counts"
        A code of spec 4.2.

    Returns
    -------
    onnx.ModelProto
        With the inputs and outputs of `OPERATIONS`, and metadata under keys `fedmrn.*`. Every call gives the
        same bytes.
    """
    names, output = OPERATIONS[operation]
    g = Graph()
    if operation in GRIDS:
        result = GRIDS[operation](g)
    elif distribution is None:
        result = words(g, "seed", "start", "count")
    else:
        result = _body(g, operation, distribution, kind)
    g.nodes.append(helper.make_node("Identity", [result], [output], output))
    labels = {"operation": operation}
    if distribution is not None:
        labels["distribution"] = distribution.name
    if kind is not None:
        labels["mask"] = MaskKind(kind).label
    graph = helper.make_graph(
        g.nodes,
        "-".join(labels.values()),
        [_value_info(name, INPUTS) for name in names],
        [_value_info(output, OUTPUTS)],
        list(g.constants.values()),
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR, producer_name="fedmrn-codec"
    )
    labels["meets"], labels["caller_checks"] = REQUIREMENTS[operation]
    metadata = {
        "format": FORMATS.get(operation, RAW_FORMAT),
        "specification": "spec/FORMAT.md",
    } | labels
    helper.set_model_props(model, {f"fedmrn.{key}": value for key, value in metadata.items()})
    return model


def _value_info(name: str, table: dict[str, tuple[int, list[str], str]]) -> onnx.ValueInfoProto:
    dtype, shape, meaning = table[name]
    return helper.make_tensor_value_info(name, dtype, shape, doc_string=meaning)


def _body(g: Graph, operation: str, distribution: type[Noise], kind: int | None) -> str:
    if operation == "noise":
        return values(g, distribution, draws(g, distribution, "count"))
    if operation == "decode":
        return values(g, distribution, masked(g, distribution, kind, "count"))
    if operation == "accumulate":
        product = g.cast(masked(g, distribution, kind, g.add("Size", "sums")), I64)
        return g.add("Add", "sums", g.add("Mul", product, "weight"))
    if operation == "accumulate-counts":
        q = g.cast(draws(g, distribution, g.add("Size", "sums")), I64)
        product = g.add("Mul", q, g.cast("factors", I64))
        return g.add("Add", "sums", g.add("Mul", product, "weight"))
    if operation == "apply":
        return applied(g, distribution, kind)
    count = g.add("Size", "update")
    if operation == "sample":
        private = "draws"
    else:
        private = g.right(words(g, "private_seed", "start", count), g.u32(8))
    noise = values(g, distribution, draws(g, distribution, count))
    return packed(g, sampled(g, kind, noise, private), count)


def grid_values(g: Graph) -> str:
    """Integers times the step, f32(z) * step (spec 6.12): float32; conversion and product are exact."""
    return g.add("Mul", g.cast("integers", F32), "scale")


GRIDS: dict[str, Callable[[Graph], str]] = {
    "grid-decode": grid_values,
    "grid-accumulate": lambda g: g.add("Add", "sums", g.add("Mul", g.cast("integers", I64), "weight")),
    "grid-apply": lambda g: g.add("Add", "weights", grid_values(g)),
}
"""The operations on grids: what adds their nodes. A fused product and sum has the same bits: it is exact."""

FORMATS = dict.fromkeys(GRIDS, GRID_FORMAT) | {"accumulate-counts": TALLY_FORMAT}
"""The version of the format that an operation needs, if it is not that of raw masks."""


def words(g: Graph, seed: str, start: str, count: str) -> str:
    """Words of the stream (spec 2.1): uint32, shape (count,).

    Word j is lane j mod 4 of block j div 4.
    """
    first = g.right(start, g.u64(2))
    skip = g.cast(g.add("BitwiseAnd", start, g.u64(3)), I64)
    end = g.add("Add", skip, count)
    one = g.constant(np.int64(1))
    blocks = g.add("Div", g.add("Add", end, g.constant(np.int64(3))), g.constant(np.int64(4)))
    index = g.add("Range", g.constant(np.int64(0)), blocks, one)
    lanes = philox(g, g.add("Add", first, g.cast(index, U64)), "stream", seed)
    rows = g.add("Concat", *(g.add("Unsqueeze", lane, g.i64(1)) for lane in lanes), axis=1)
    return _slice(g, g.flat(rows), skip, end)


def philox(g: Graph, block: str, stream: str, seed: str) -> list[str]:
    """The four lanes of blocks (spec 2.2, 2.3): uint32, each of the shape of `block`, which is uint64.

    Ten times: p0, p1 = M0 * c0, M1 * c2;
    c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ ka, p1 mod 2^32, (p0 >> 32) ^ c3 ^ kb, p0 mod 2^32.
    """
    low, shift = g.u64(LOW), g.u64(32)
    c0, c1 = g.add("BitwiseAnd", block, low), g.right(block, shift)
    c2, c3 = g.add("BitwiseAnd", stream, low), g.right(stream, shift)
    k0, k1 = g.add("BitwiseAnd", seed, low), g.right(seed, shift)
    for r in range(ROUNDS):
        ka = g.add("BitwiseAnd", g.add("Add", k0, g.u64(r * WEYL_0)), low)
        kb = g.add("BitwiseAnd", g.add("Add", k1, g.u64(r * WEYL_1)), low)
        p0, p1 = g.add("Mul", c0, g.u64(MULTIPLIER_0)), g.add("Mul", c2, g.u64(MULTIPLIER_1))
        c0 = g.add("BitwiseXor", g.add("BitwiseXor", g.right(p1, shift), c1), ka)
        c2 = g.add("BitwiseXor", g.add("BitwiseXor", g.right(p0, shift), c3), kb)
        c1, c3 = g.add("BitwiseAnd", p1, low), g.add("BitwiseAnd", p0, low)
    return [g.cast(lane, U32) for lane in (c0, c1, c2, c3)]


def draws(g: Graph, distribution: type[Noise], count: str) -> str:
    """The integer draws q of elements `start` on (spec 3): int32, shape (count,)."""
    if distribution is Bernoulli:
        return bernoulli(g, count)
    w = words(g, "seed", "start", count)
    return gaussian(g, w) if distribution is Gaussian else uniform(g, w)


def uniform(g: Graph, w: str) -> str:
    """Uniform draws q = 2 * (w >> 8) - (2^24 - 1) (spec 3.2)."""
    double = g.add("Mul", g.cast(g.right(w, g.u32(8)), I32), g.i32(2))
    return g.add("Sub", double, g.i32(MAX_DRAW))


def bernoulli(g: Graph, count: str) -> str:
    """Bernoulli draws: q = +1 if bit i mod 32 of word i div 32 is set, else -1 (spec 3.3)."""
    skip = g.cast(g.add("BitwiseAnd", "start", g.u64(31)), I64)
    end = g.add("Add", skip, count)
    needed = g.add("Div", g.add("Add", end, g.constant(np.int64(31))), g.constant(np.int64(32)))
    w = words(g, "seed", g.right("start", g.u64(5)), needed)
    rows = g.right(g.add("Unsqueeze", w, g.i64(1)), g.constant(np.arange(32, dtype=np.uint32)))
    bits = _slice(g, g.flat(g.add("BitwiseAnd", rows, g.u32(1))), skip, end)
    return g.add("Sub", g.add("Mul", g.cast(bits, I32), g.i32(2)), g.i32(1))


def gaussian(g: Graph, w: str) -> str:
    """Gaussian draws (spec 3.4).

    g = T[k] - (((T[k] - T[k+1]) * f + 2^15) >> 16); q = max(g, 1), negated if w >> 31 is 1.
    """
    table = g.constant(gaussian_table().astype(np.uint32), "gaussian_table")
    above = g.add("Slice", table, g.i64(0), g.i64(2048))
    drop = g.add("Sub", above, g.add("Slice", table, g.i64(1), g.i64(2049)))
    x = g.add("Add", g.add("Mul", g.add("BitwiseAnd", w, g.u32(2**31 - 1)), g.u32(2)), g.u32(1))
    m, missing = normalised(g, x)
    # 64 * j + s with j = 31 - missing and s = (m >> 25) - 64, which leaves the leading one out
    k = g.add("Sub", g.add("Add", g.right(m, g.u32(25)), g.u32(64 * 30)), g.add("Mul", missing, g.u32(64)))
    f = g.add("BitwiseAnd", g.right(m, g.u32(9)), g.u32(2**16 - 1))
    index = g.cast(k, I32)
    product = g.add("Mul", g.add("Gather", drop, index), f)
    down = g.right(g.add("Add", product, g.u32(2**15)), g.u32(16))
    size = g.add("Max", g.add("Sub", g.add("Gather", above, index), down), g.u32(1))
    sign = g.add("Sub", g.i32(1), g.add("Mul", g.cast(g.right(w, g.u32(31)), I32), g.i32(2)))
    return g.add("Mul", g.cast(size, I32), sign)


def normalised(g: Graph, x: str) -> tuple[str, str]:
    """The pair m = x << d, whose leading one is bit 31, and d = 31 - j, of uint32, by five comparisons.

    For t = 16, 8, 4, 2, 1: if x < 2^(32 - t), x is multiplied by 2^t, and d grows by t.
    """
    moved = ""
    for t in (16, 8, 4, 2, 1):
        small = g.cast(g.add("Less", x, g.u32(2 ** (32 - t))), U32)
        x = g.add("Mul", x, g.add("Add", g.add("Mul", small, g.u32(2**t - 1)), g.u32(1)))
        d = g.add("Mul", small, g.u32(t))
        moved = g.add("Add", moved, d) if moved else d
    return x, moved


def values(g: Graph, distribution: type[Noise], q: str) -> str:
    """Noise f32(q) * step (spec 3.1): the conversion is exact, as is the step's product with a power of 2."""
    step = "scale"
    if distribution.step_exponent:
        step = g.add("Mul", step, g.f32(2.0**distribution.step_exponent))
    return g.add("Mul", g.cast(q, F32), step)


def mask_bits(g: Graph, count: str) -> str:
    """The bits of the mask: bit i mod 8 of byte i div 8 of the payload (spec 4.1): int32, shape (count,)."""
    table = np.arange(256)[:, None] >> np.arange(8) & 1
    rows = g.add("Gather", g.constant(table.astype(np.int32), "bits_of_bytes"), g.cast("payload", I32))
    return _slice(g, g.flat(rows), g.constant(np.int64(0)), count)


def masked(g: Graph, distribution: type[Noise], kind: int | None, count: str) -> str:
    """Draws times mask, m = 1 or 0, or 1 or -1 (spec 4.2): int32. An integer 0 becomes +0.0, never -0.0."""
    bits = mask_bits(g, count)
    m = bits if kind == MaskKind.BINARY else g.add("Sub", g.add("Mul", bits, g.i32(2)), g.i32(1))
    return g.add("Mul", draws(g, distribution, count), m)


def applied(g: Graph, distribution: type[Noise], kind: int | None) -> str:
    """Weights + noise * mask: float32, shape (count,).

    The mask is applied after the product, so that a selection is between product and sum, and no compiler can
    fuse the two into one operation with one rounding.
    """
    count = g.add("Size", "weights")
    noise = values(g, distribution, draws(g, distribution, count))
    keep = g.cast(mask_bits(g, count), TensorProto.BOOL)
    update = g.add("Where", keep, noise, g.f32(0) if kind == MaskKind.BINARY else g.add("Neg", noise))
    return g.add("Add", "weights", update)


def sampled(g: Graph, kind: int | None, noise: str, private: str) -> str:
    """The bits f32(r) < t, with p = u / noise and t = p * 2^24 or (p + 1) * 2^23 (spec 4.3): bool."""
    p = g.add("Div", "update", noise)
    if kind == MaskKind.BINARY:
        t = g.add("Mul", p, g.f32(2.0**24))
    else:
        t = g.add("Mul", g.add("Add", p, g.f32(1)), g.f32(2.0**23))
    return g.add("Less", g.cast(private, F32), t)


def packed(g: Graph, bits: str, count: str) -> str:
    """Booleans as packed bytes (spec 4.1), padded with zero bits: uint8.

    A byte is the sum of bit i times 2^i.
    """
    missing = g.add("Mod", g.add("Neg", count), g.constant(np.int64(8)))
    none = numpy_helper.from_array(np.zeros(1, np.uint8))
    zeros = g.add("ConstantOfShape", g.add("Reshape", missing, g.i64(1)), value=none)
    rows = g.add("Reshape", g.add("Concat", g.cast(bits, U8), zeros, axis=0), g.i64(-1, 8))
    powers = g.constant((1 << np.arange(8)).astype(np.uint8)[:, None], "powers_of_2")
    return g.flat(g.cast(g.add("MatMulInteger", rows, powers), U8))


def _slice(g: Graph, x: str, begin: str, end: str) -> str:
    one = g.i64(1)
    return g.add("Slice", x, g.add("Reshape", begin, one), g.add("Reshape", end, one))
