"""The results of a run as text, JSON and JUnit XML."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any
from xml.etree import ElementTree

from .request import Decode, Digest, Request, to_wire
from .run import EXPECTED, FAILED, PASSED, SKIPPED, Record, Report

SHOWN = 20
"""The number of failures that are shown in full."""

LONGEST = 4000
"""The number of characters of a request that are shown."""

LISTS = {"frames": "frame", "partials": "partial sum", "tallies": "tally"}
"""The members of requests that are lists of bytes, and what an item is."""


def lines_of(record: Record) -> list[str]:
    """A failure: its id, the violated requirement, and the request that shows it."""
    return [f"FAILED {record.id}", f"  {record.message}", *(f"  {line}" for line in evidence(record.request))]


def evidence(request: Request | None) -> list[str]:
    """The frames of a request, and the request as a line of the protocol."""
    if request is None:
        return []
    shown = []
    if isinstance(request, Decode):
        shown.append(f"minimal frame: {request.frame.hex() or '(no bytes)'}")
    for name, what in LISTS.items():
        shown += [f"{what} {i}: {each.hex()}" for i, each in enumerate(getattr(request, name, ()))]
    schema = None if isinstance(request, Digest) else getattr(request, "schema", None)
    if schema is not None:
        shown.append(f"schema: {schema.hex()}")
    shown.append(f"request: {json.dumps({'id': 1, 'op': request.op, **to_wire(request)})}")
    return [
        line if len(line) <= LONGEST else f"{line[:LONGEST]}... ({len(line)} characters)" for line in shown
    ]


def summary(report: Report, examples: int) -> list[str]:
    """The reasons of skipped checks, the violated requirements, and the counts."""
    lines = []
    reasons = Counter(record.message for record in report.of(SKIPPED))
    lines += [f"skipped {count}: {reason}" for reason, count in reasons.items()]
    if report.broken:
        broken = ", ".join(f"[{must}] {count}" for must, count in report.broken.items())
        lines.append(f"violated, the one to fix first in front: {broken}")
    if not report.records:
        lines.append("no check was run")
    lines.append(f"{' '.join(filter(None, (report.name, report.version)))}: {counts(report)}")
    lines += [
        f"  {profile}: {counts(report, profile)}"
        for profile in dict.fromkeys(r.profile for r in report.records)
    ]
    lines.append(f"profiles: {', '.join(report.profiles) or 'none'}; cases for each property: {examples}")
    return lines


def counts(report: Report, profile: str | None = None) -> str:
    """Passed, failed, skipped and, if there are any, expected failures: of one profile, or of all."""
    count = Counter(record.status for record in report.records if profile in (None, record.profile))
    text = f"{count[PASSED]} passed, {count[FAILED]} failed, {count[SKIPPED]} skipped"
    return f"{text}, {count[EXPECTED]} failed as expected" if count[EXPECTED] else text


def document(report: Report) -> dict[str, Any]:
    """The run as one JSON document."""
    return {
        "ok": report.ok,
        "target": {"name": report.name, "version": report.version},
        "profiles": list(report.profiles),
        **{status: report.count(status) for status in (PASSED, FAILED, SKIPPED, EXPECTED)},
        "broken": report.broken,
        "checks": [_entry(record) for record in report.records],
    }


def _entry(record: Record) -> dict[str, Any]:
    request = None if record.request is None else {"op": record.request.op, **to_wire(record.request)}
    return {
        "id": record.id,
        "status": record.status,
        "musts": list(record.musts),
        "message": record.message,
        "request": request,
    }


def junit(report: Report) -> bytes:
    """The run as JUnit XML, in which an expected failure counts as skipped."""
    seconds = sum(record.seconds for record in report.records)
    skipped = report.count(SKIPPED) + report.count(EXPECTED)
    totals = {
        "name": _printable(f"{report.name} {report.version}"),
        "tests": str(len(report.records)),
        "failures": str(report.count(FAILED)),
        "errors": "0",
        "skipped": str(skipped),
        "time": f"{seconds:.3f}",
    }
    root = ElementTree.Element("testsuites", totals)
    suite = ElementTree.SubElement(root, "testsuite", totals)
    for record in report.records:
        names = {"classname": f"fedmrn.{record.profile}", "name": record.id, "time": f"{record.seconds:.3f}"}
        case = ElementTree.SubElement(suite, "testcase", names)
        if record.status == FAILED:
            text = _printable(record.message)
            about = {"message": text, "type": " ".join(record.musts)}
            inside = ElementTree.SubElement(case, "failure", about)
            inside.text = "\n".join([text, *map(_printable, evidence(record.request))])
        elif record.status in (SKIPPED, EXPECTED):
            why = "expected failure: " if record.status == EXPECTED else ""
            ElementTree.SubElement(case, "skipped", {"message": why + _printable(record.message)})
    ElementTree.indent(root)
    return bytes(ElementTree.tostring(root, encoding="utf-8", xml_declaration=True))


def _printable(text: str) -> str:
    """The text, with characters that XML does not allow replaced by escapes."""
    return "".join(c if c in "\t\n" or (c.isprintable() and ord(c) < 0xFFFE) else repr(c)[1:-1] for c in text)
