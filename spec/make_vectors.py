"""Make the vectors of the format with the plain-integer oracle and the standard library.

    python spec/make_vectors.py              # check that the files in spec/vectors are what this would write
    python spec/make_vectors.py --write      # write them
    python spec/make_vectors.py --example    # print the worked example of FORMAT.md, section 12

The cases themselves are in `vector_cases`. The oracle checks every one of them: a bad frame that is refused
by another check than the one in its name is an error.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "spec")]

from vector_cases import (  # noqa: E402
    aggregate,
    envelopes,
    example,
    frames,
    invalid,
    masks,
    partials,
    secagg,
    secagg_frames,
    secagg_messages,
    secagg_refused,
    tallies,
    tallies_invalid,
    words,
)
from vector_cases.basics import Case  # noqa: E402

VECTORS = ROOT / "spec" / "vectors"


def secagg_cases() -> Iterator[Case]:
    """The cases of secure aggregation."""
    yield from secagg.secagg_cases()
    yield from secagg_messages.message_cases()
    yield from secagg_refused.more_message_cases()
    yield from secagg_frames.frame_cases()


FILES: dict[str, tuple[str, Callable[[], Iterator[Case]]]] = {
    "philox": ("Random words (FORMAT.md 2)", words.philox_cases),
    "noise": ("Noise and its draws (FORMAT.md 3)", words.noise_cases),
    "bits": ("Masks: packing, decoding, sampling (FORMAT.md 4)", masks.bits_cases),
    "schema": ("Schemas, their bytes and digests (FORMAT.md 5)", frames.schema_cases),
    "frames": ("Valid frames and what they decode to (FORMAT.md 6)", frames.frame_cases),
    "invalid": ("Frames to be refused, and the code (FORMAT.md 7)", invalid.invalid_cases),
    "aggregate": ("Means, partial sums, merges (FORMAT.md 8)", aggregate.aggregate_cases),
    "partials_invalid": ("Partial sums to be refused, and the code (FORMAT.md 8.5)", partials.partial_cases),
    "tallies": ("Tallies, merged and added (FORMAT.md 8.6)", tallies.tally_cases),
    "tallies_invalid": (
        "Tallies to be refused, and the code (FORMAT.md 8.6)",
        tallies_invalid.bad_tally_cases,
    ),
    "envelopes": ("Envelopes, valid and to be refused (ENVELOPE.md)", envelopes.envelope_cases),
    "secagg": (
        "Secure aggregation: its parts, rounds, messages to be refused (SECAGG.md)",
        secagg_cases,
    ),
}

VERSIONS = {
    "envelopes": "fedmrn envelope 1",
    "secagg": "fedmrn secagg 1",
    "tallies": "fedmrn 1.4",
    "tallies_invalid": "fedmrn 1.4",
}
"""What the files are about that are not about version 1.3 of the format."""


def exact_in_javascript(value: object) -> bool:
    """Whether a double holds every number in a JSON value exactly."""
    if isinstance(value, dict):
        return all(exact_in_javascript(v) for v in value.values())
    if isinstance(value, list | tuple):
        return all(exact_in_javascript(v) for v in value)
    return not isinstance(value, float) and not (isinstance(value, int) and abs(value) > 2**53)


def file_text(name: str) -> str:
    """The text of a vector file, with one line for each field, so that differences are short."""
    about, make = FILES[name]
    cases = [case | {"id": f"{name}/{case['id']}"} for case in make()]
    assert len({case["id"] for case in cases}) == len(cases), "two cases with one id"
    assert exact_in_javascript(cases)
    blocks = (",\n".join(f"   {json.dumps(k)}: {json.dumps(v)}" for k, v in case.items()) for case in cases)
    head = (
        f'{{\n "format": "{VERSIONS.get(name, "fedmrn 1.3")}",\n "about": {json.dumps(about)},\n "cases": [\n'
    )
    return head + ",\n".join(f"  {{\n{block}\n  }}" for block in blocks) + "\n ]\n}\n"


def differing() -> list[str]:
    """The vector files that are missing, differ from what this would write, or are unknown."""
    wrong = []
    for name in FILES:
        path = VECTORS / f"{name}.json"
        if not path.is_file() or path.read_bytes() != file_text(name).encode():
            wrong.append(path.name)
    return wrong + [path.name for path in VECTORS.glob("*.json") if path.stem not in FILES]


def main() -> None:
    if "--example" in sys.argv:
        print(example.example(), end="")
        return
    if "--write" in sys.argv:
        VECTORS.mkdir(exist_ok=True)
        for name in FILES:
            (VECTORS / f"{name}.json").write_bytes(file_text(name).encode())
    wrong = differing()
    if wrong:
        sys.exit("not what spec/make_vectors.py writes: " + ", ".join(wrong))
    for name in FILES:
        cases = json.loads((VECTORS / f"{name}.json").read_text())["cases"]
        refused = sum(case["result"] == "invalid" for case in cases)
        print(f"{name}.json: {len(cases)} cases, {refused} invalid")


if __name__ == "__main__":
    main()
