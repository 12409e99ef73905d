"""The command lines that `--help` shows; the tests run them in a folder with an update and a journal."""

from __future__ import annotations

EXAMPLES = {
    "encode": (
        "fedmrn encode update.safetensors --seed 7 --noise uniform:0.01 -o a.fmrn",
        "fedmrn encode update.safetensors --seed 8 --noise uniform:0.01 --coding rans -o b.fmrn",
    ),
    "inspect": (
        "fedmrn inspect a.fmrn",
        "fedmrn inspect *.fmrn --json",
        "fedmrn inspect --annotate a.fmrn > a.txt",
        "fedmrn inspect --from-annotated a.txt -o again.fmrn",
        "fedmrn inspect a.fmrn --html a.html",
    ),
    "verify": ("fedmrn verify a.fmrn b.fmrn",),
    "decode": (
        "fedmrn decode a.fmrn -o decoded.safetensors",
        "fedmrn decode - -o decoded.npz < a.fmrn",
    ),
    "aggregate": (
        "fedmrn aggregate a.fmrn b.fmrn --weights 600,400 -o mean.safetensors",
        "fedmrn aggregate a.fmrn b.fmrn --weights 600,400 --partial sum.fmrs",
    ),
    "schema": ("fedmrn schema update.safetensors -o schema.json",),
    "replay": ("fedmrn replay journal", "fedmrn replay journal --backend numpy --json"),
    "noise": ("fedmrn noise --noise uniform:0.01 --seed 7 --count 3",),
    "bench": ("fedmrn bench --size 100000 --rounds 3",),
    "conformance": ("fedmrn conformance --module fedmrn_codec --backend numpy --examples 10",),
    "export-onnx": ("fedmrn export-onnx -o onnx --operation decode",),
    "train": (
        "fedmrn train --dataset digits --method fedmrn --mask binary --rounds 2 --out runs/digits",
        "fedmrn train --list-presets",
    ),
    "sweep": (
        "fedmrn sweep --preset digits --methods fedavg,fedmrn-signed --rounds 2 --jobs 2 --out runs/sweep",
    ),
    "report": ("fedmrn report runs/digits -o report",),
}
"""Verb -> its examples, in an order in which they work."""

FIRST = tuple(EXAMPLES[verb][0] for verb in ("encode", "inspect", "decode", "aggregate"))
"""The examples of the help of `fedmrn` itself."""
