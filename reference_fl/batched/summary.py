"""What is kept of the records of a run."""

from __future__ import annotations

from typing import Any

import numpy as np

LAST = 8  # rounds of the means


def last_of(records: list[dict[str, Any]], name: str, digits: int) -> float:
    """The mean of a number over the last rounds."""
    return round(float(np.mean([record[name] for record in records[-LAST:]])), digits)


def summary(records: list[dict[str, Any]]) -> dict[str, Any]:
    """Means of the last rounds, the seconds of all, their accuracies, and the bits of a masked element."""
    found: dict[str, Any] = {
        "last": last_of(records, "accuracy", 5),
        "last_loss": last_of(records, "loss", 5),
        "seconds": round(sum(record["seconds"] for record in records), 1),
        "accuracy": [record["accuracy"] for record in records],
    }
    if "bits" in records[0]:
        found["bits"] = last_of(records, "bits", 4)
    return found
