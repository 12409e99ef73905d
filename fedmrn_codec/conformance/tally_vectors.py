"""The vectors of tallies as checks (spec 8.6)."""

from __future__ import annotations

from collections.abc import Iterator

from .check import Case
from .replay import all_bytes, case, number, schema
from .request import AddTallies, Count, MergeTallies, Request
from .target import Outcome, Refused
from .vector_files import load


def tallies() -> Iterator[Case]:
    """`tallies.json`: tallies of frames, merges, and the sums of an aggregator that adds them."""
    for v in load("tallies"):
        given = {name: number(v.get(name, 0)) for name in ("round", "base_model")}
        coding, raw = v.get("coding"), schema(v)
        request: Request
        if v["op"] == "tally":
            frames, weight = all_bytes(v["frames"]), number(v["weight"])
            request = Count(schema=raw, frames=frames, weight=weight, coding=coding, **given)
        elif v["op"] == "merge_tallies":
            request = MergeTallies(schema=raw, tallies=all_bytes(v["tallies"]), coding=coding)
        else:
            seed = number(v["seed"]) if "seed" in v else None
            request = AddTallies(schema=raw, tallies=all_bytes(v["tallies"]), seed=seed, **given)
        if v["result"] == "invalid":
            yield case(v, request, Refused(v["code"], v["spec"][0]))
            continue
        sums: Outcome = {}
        if "mean" in v:
            sums = {"mean": all_bytes(v["mean"]), "partial": bytes.fromhex(v["partial"])}
        if v["op"] == "add_tallies":
            yield case(v, request, sums)
            continue
        tally = bytes.fromhex(v["tally"])
        yield case(v, request, {"tally": tally})
        if v["op"] == "tally":
            yield case(v, MergeTallies(schema=raw, tallies=(tally,), coding=coding), {"tally": tally})
            yield case(v, AddTallies(schema=raw, tallies=(tally,), **given), sums)


def bad_tallies() -> Iterator[Case]:
    """`tallies_invalid.json`: bytes that no reader accepts."""
    for v in load("tallies_invalid"):
        seed = number(v["seed"]) if "seed" in v else None
        request = AddTallies(schema=schema(v), tallies=(bytes.fromhex(v["tally"]),), seed=seed)
        yield case(v, request, Refused(v["code"], v["spec"][0]))
