"""The vector files: those of the checkout, or those in the wheel."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

FILES = (
    "philox",
    "noise",
    "bits",
    "schema",
    "frames",
    "invalid",
    "aggregate",
    "partials_invalid",
    "tallies",
    "tallies_invalid",
)


@cache
def folder() -> Path:
    """The folder of the vectors; `FileNotFoundError` if there is none."""
    here = Path(__file__).resolve()
    places = (here.parents[2] / "spec" / "vectors", here.with_name("vectors"))
    for place in places:
        if (place / "philox.json").is_file():
            return place
    raise FileNotFoundError(f"no vectors in {' or '.join(map(str, places))}")


@cache
def load(name: str) -> tuple[dict[str, Any], ...]:
    """Load the cases of one file; a file that is missing or empty is an error."""
    cases = json.loads((folder() / f"{name}.json").read_text(encoding="utf-8"))["cases"]
    if not cases:
        raise ValueError(f"{name}.json has no cases")
    return tuple(cases)
