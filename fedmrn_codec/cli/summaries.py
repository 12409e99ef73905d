"""Summaries of frames, partial sums and tallies, as `inspect` shows them: for people, and as JSON."""

from __future__ import annotations

from typing import Any

from ..format.frame import Entry, Info
from ..format.schema import Tensor
from ..primitives.noise import noise_text
from ..sums import partial, tally_bytes
from .output import print_table

NONE = "-"
START = len(partial.MAGIC)
"""The bytes of a file that `is_sum` and `is_tally` read."""


def of_frame(info: Info) -> dict[str, Any]:
    """A frame's summary, ready for JSON; null for a value that is unknown without a schema.

    `bits_per_masked` counts masks, table and headers, for the elements that are sent as masks, and is null if
    there are none; `uncompressed_bytes` is the length of the same
    tensors in their own dtypes.
    """
    schema = info.schema.tensors if info.schema else [None] * len(info.tensors)
    sent = zip(info.schema, info.tensors, strict=True) if info.schema else []
    masked = sum(t.size for t, entry in sent if entry.noise) if info.schema else None
    plain = sum(t.size * t.type.numpy.itemsize for t in info.schema) if info.schema else None
    return {
        "kind": "frame",
        "version": f"{info.version[0]}.{info.version[1]}",
        "seed": info.seed,
        "round": info.round,
        "base_model": info.base_model,
        "schema_digest": info.digest.hex(),
        "embedded": info.embedded,
        "frame_bytes": info.frame_bytes,
        "mask_bytes": info.mask_bytes,
        "grid_bytes": info.grid_bytes,
        "dense_bytes": info.dense_bytes,
        "header_bytes": info.header_bytes,
        "masked_elements": masked,
        "bits_per_masked": 8 * (info.mask_bytes + info.header_bytes) / masked if masked else None,
        "uncompressed_bytes": plain,
        "ratio": None if plain is None else plain / info.frame_bytes,
        "tensors": [_of_tensor(e, t) for e, t in zip(info.tensors, schema, strict=True)],
    }


def is_sum(data: bytes) -> bool:
    """Whether these are the bytes of a partial sum or a tally, or at least its first `START` bytes."""
    return data[:START] == partial.MAGIC or is_tally(data)


def is_tally(data: bytes) -> bool:
    """Whether these are the bytes of a tally, or at least its first `START` bytes."""
    return data[:START] == tally_bytes.MAGIC


def of_partial(data: bytes) -> dict[str, Any]:
    """The summary of a partial sum, from its header; the data must be long enough to hold one."""
    header = partial.HEADER.unpack_from(data)
    _, major, minor, _, weight, base_model, round, tensor_count, digest, frames = header
    return {
        "kind": "partial_sum",
        "version": f"{major}.{minor}",
        "frames": frames,
        "weight": weight,
        "round": round,
        "base_model": base_model,
        "schema_digest": digest.hex(),
        "tensor_count": tensor_count,
        "sum_bytes": len(data),
    }


def of_tally(data: bytes) -> dict[str, Any]:
    """The summary of a tally, from its header; the data must be long enough to hold one."""
    header = tally_bytes.Header(*tally_bytes.HEADER.unpack_from(data))
    return {
        "kind": "tally",
        "version": f"{header.major}.{header.minor}",
        "seed": header.seed,
        "frames": header.frames,
        "weight": header.weight,
        "round": header.round,
        "base_model": header.base_model,
        "schema_digest": header.digest.hex(),
        "tensor_count": header.tensor_count,
        "sum_bytes": len(data),
    }


def show(file: str, summary: dict[str, Any]) -> None:
    """Print the summary of one file, with its tensors."""
    rows = [[name, text] for name, text in _lines(summary)]
    print_table(file, ["", ""], rows)
    if tensors := summary.get("tensors"):
        header = ["tensor", "stream", "kind", "noise", "dtype", "shape", "coding", "payload bytes"]
        print_table("", header, [_row(i, t) for i, t in enumerate(tensors)])


def show_many(summaries: dict[str, dict[str, Any]]) -> None:
    """Print one line for each file."""
    header = ["file", "kind", "seed", "round", "base model", "bytes", "bits/masked", "ratio"]
    print_table("", header, [[file, *_cells(summary)] for file, summary in summaries.items()])


def sentence(summary: dict[str, Any]) -> str:
    """The sizes of a frame, in a few words."""
    text = f"{summary['frame_bytes']:,} bytes"
    if summary["bits_per_masked"] is not None:
        text += f", {summary['bits_per_masked']:.4f} bits a masked parameter"
    if summary["ratio"] is not None:
        text += f", {summary['ratio']:.1f} times smaller than dense"
    return text


def _of_tensor(entry: Entry, tensor: Tensor | None) -> dict[str, Any]:
    return {
        "name": tensor.name if tensor else None,
        "shape": list(tensor.shape) if tensor else None,
        "kind": entry.kind,
        "noise": noise_text(entry.noise) if entry.noise else None,
        "dtype": entry.dtype,
        "coding": entry.coding,
        "offset": entry.offset,
        "payload_bytes": entry.length,
    }


def _lines(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """The name and the text of each value but the tensors."""
    lines = []
    for name, value in summary.items():
        if name == "tensors":
            continue
        if value is None:
            text = (
                "no tensor sent as a mask" if summary["masked_elements"] == 0 else "unknown without a schema"
            )
        elif value == 0 and name in ("round", "base_model"):
            text = "not given"
        elif isinstance(value, bool):
            text = "yes" if value else "no"
        elif isinstance(value, float):
            text = f"{value:.4f}"
        elif name.endswith(("_bytes", "_elements")):
            text = f"{value:,}"
        else:
            text = str(value)
        lines.append((name.replace("_", " "), text))
    return lines


def _row(stream: int, tensor: dict[str, Any]) -> list[str]:
    shape = NONE if tensor["shape"] is None else "x".join(map(str, tensor["shape"])) or "scalar"
    return [
        tensor["name"] or NONE,
        str(stream),
        tensor["kind"],
        tensor["noise"] or NONE,
        tensor["dtype"],
        shape,
        tensor["coding"],
        f"{tensor['payload_bytes']:,}",
    ]


def _cells(summary: dict[str, Any]) -> list[str]:
    size = summary.get("sum_bytes") or summary["frame_bytes"]
    bits, ratio = summary.get("bits_per_masked"), summary.get("ratio")
    return [
        summary["kind"].replace("_", " "),
        str(summary.get("seed", NONE)),
        str(summary["round"] or NONE),
        str(summary["base_model"] or NONE),
        f"{size:,}",
        NONE if bits is None else f"{bits:.4f}",
        NONE if ratio is None else f"{ratio:.1f}",
    ]
