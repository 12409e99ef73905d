"""Write frames, partial sums and schemas with the code of one commit, and what this code reads in them.

    git worktree add FOLDER COMMIT
    PYTHONPATH=FOLDER python tests/format/written/write.py FORMAT COMMIT > FORMAT-COMMIT.json

FORMAT is the version of the format that the commit writes, such as 1.2. The inputs are the same for each
commit; codings and kinds are those of its version. The digests of decoded tensors and of means are those that
the commit's own code gives, with NumPy. The files are never written again: every later version of the library
has to read them.
"""

import hashlib
import json
import sys

import numpy as np

import fedmrn_codec as fm

DENSE = ("float32", "float64", "float16", "bfloat16", "int8", "int16", "int32", "int64")
DENSE += ("uint8", "uint16", "uint32", "uint64", "bool")
LAYERS = fm.Schema(
    [
        fm.Tensor("conv.weight", (8, 3, 7, 7), masked=True),
        fm.Tensor("conv.bias", (8,)),
        fm.Tensor("fc/größe", (5, 7), masked=True),
    ]
)
EVERY_DTYPE = fm.Schema(
    [
        fm.Tensor("w", (9, 11), masked=True),
        *(fm.Tensor(dtype, (2, 3), dtype=dtype) for dtype in DENSE),
        fm.Tensor("scalar", ()),
        fm.Tensor("empty", (0, 4)),
        fm.Tensor("v", (13,), masked=True),
    ]
)
SCHEMAS = {"layers": LAYERS, "every dtype": EVERY_DTYPE}
NOISES = {"uniform": fm.Uniform(0.01), "gaussian": fm.Gaussian(0.005), "bernoulli": fm.Bernoulli(0.02)}


def bits(tensor, every):
    """One set bit in `every`, beginning at the third."""
    return (np.arange(tensor.size) % every == 2).reshape(tensor.shape)


def dense(tensor):
    """Small numbers that every dtype holds."""
    numbers = np.arange(tensor.size).reshape(tensor.shape)
    if tensor.dtype == "bfloat16":
        return (0x3F80 + numbers).astype(np.uint16)
    if tensor.dtype == "bool":
        return numbers % 2 == 1
    shifted = numbers if tensor.dtype.startswith("uint") else numbers - 2
    return (shifted * 3).astype(tensor.dtype)


def frame(schema, seed, noise, every=2, **options):
    """A frame with chosen bits, so that nothing is sampled."""
    if "coding" in options:
        options["backend"] = "numpy"  # an argument of `encode_bits` since 1.1
    masks = {t.name: bits(t, every) for t in schema if t.masked}
    plain = {t.name: dense(t) for t in schema if not t.masked}
    return fm.encode_bits(masks, schema, seed=seed, noise=NOISES[noise], dense=plain, **options)


def frames(minor):
    """Name, name of the schema, and bytes of each frame."""
    for name in NOISES:
        for mask in ("binary", "signed"):
            yield (
                f"{name} {mask}",
                "every dtype",
                frame(EVERY_DTYPE, 7, name, mask=mask, round=3, base_model=5),
            )
    yield "embedded", "layers", frame(LAYERS, 2**64 - 1, "uniform", embed_schema=True)
    update = {t.name: np.linspace(-0.01, 0.01, t.size, dtype=np.float32).reshape(t.shape) for t in LAYERS}
    yield (
        "sampled",
        "layers",
        fm.encode(update, LAYERS, seed=8, noise=fm.Uniform(0.01), private_seed=9, backend="numpy"),
    )
    if minor >= 1:
        for name in NOISES:
            yield f"rans {name}", "layers", frame(LAYERS, 9, name, 16, coding="rans")
        for coding in ("float16", "bfloat16"):
            yield f"dense {coding}", "layers", frame(LAYERS, 10, "uniform", dense_coding=coding)
    if minor >= 2:
        for name in NOISES:
            yield f"rans12 {name}", "layers", frame(LAYERS, 11, name, 16, coding="rans12", mask="signed")
    if minor >= 3:
        for coding in ("raw", "rans14"):
            grid = fm.encode_grid(update, LAYERS, step=2.0**-12, round=4, coding=coding, backend="numpy")
            yield f"grid {coding}", "layers", grid


def digests(tensors):
    """The SHA-256 of the bytes of each tensor, little-endian."""
    little = {name: a.astype(a.dtype.newbyteorder("<")) for name, a in tensors.items()}
    return {name: hashlib.sha256(a.tobytes()).hexdigest() for name, a in little.items()}


def sums(written):
    """Name, name of the schema, bytes and means of the partial sum of the frames that add up."""
    groups = {"uniform": ("every dtype", ("uniform binary", "uniform signed"), (3, 2**20))}
    groups["grid"] = ("layers", ("grid raw", "grid rans14"), (1, 600))
    for name, (of, members, weights) in groups.items():
        if set(members) <= set(written):
            aggregator = fm.Aggregator(SCHEMAS[of], backend="numpy")
            for member, weight in zip(members, weights, strict=True):
                aggregator.add(written[member], weight)
            yield name, of, aggregator.to_bytes(), aggregator.mean()


def tallies():
    """Name, name of the schema, bytes, and the mean of an aggregator that adds the tally."""
    for name, of, coding in (("raw", "every dtype", "raw"), ("rans14", "layers", "rans14")):
        tally = fm.Tally(SCHEMAS[of], weight=3, round=4, base_model=5, backend="numpy")
        for every in (16, 16, 24, 32, 48):
            tally.add(frame(SCHEMAS[of], 12, "bernoulli", every, mask="signed", round=4, base_model=5))
        data = tally.to_bytes(coding)
        aggregator = fm.Aggregator(SCHEMAS[of], round=4, base_model=5, backend="numpy")
        aggregator.add_tally(data)
        yield name, of, data, aggregator.mean()


def main(version, commit):
    """Print the file."""
    minor = int(version.partition(".")[2])
    written = {name: (of, data) for name, of, data in frames(minor)}
    document = {
        "format": version,
        "commit": commit,
        "schemas": {name: schema.data.hex() for name, schema in SCHEMAS.items()},
        "frames": [
            {
                "name": name,
                "schema": of,
                "minor": data[5],
                "bytes": data.hex(),
                "decoded": digests(fm.decode(data, SCHEMAS[of], backend="numpy")),
            }
            for name, (of, data) in written.items()
        ],
        "sums": [
            {"name": name, "schema": of, "minor": data[5], "bytes": data.hex(), "mean": digests(mean)}
            for name, of, data, mean in sums({name: data for name, (_, data) in written.items()})
        ],
    }
    if minor >= 4:
        document["tallies"] = [
            {"name": name, "schema": of, "bytes": data.hex(), "mean": digests(mean)}
            for name, of, data, mean in tallies()
        ]
    print(json.dumps(document, indent=1))


if __name__ == "__main__":
    main(*sys.argv[1:])
