"""Serve this project's own codec over the line protocol of spec/CONFORMANCE.md, as an example.

python -m fedmrn_codec.conformance.serve [--backend NAME]
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from typing import Any, BinaryIO

from .module import ModuleTarget
from .request import HELLO, REQUESTS, from_wire, result_to_wire
from .target import Broken, Refused, Target, Unsupported

MALFORMED = "request"
"""The error for a line that is no request."""


def answer(target: Target, message: dict[str, Any]) -> dict[str, Any]:
    """The response to one JSON object."""
    number, op = message.get("id"), message.get("op")
    if not isinstance(number, int) or isinstance(number, bool):
        return {"id": None, "error": MALFORMED}
    if not isinstance(op, str):
        return {"id": number, "error": MALFORMED}
    if op == HELLO:
        introduction = {"name": target.name, "version": target.version, "profiles": list(target.profiles)}
        return {"id": number, "result": introduction}
    if op not in REQUESTS:
        return {"id": number, "unsupported": True}
    try:
        request = from_wire(op, message)
    except ValueError:
        return {"id": number, "error": MALFORMED}
    try:
        return {"id": number, "result": result_to_wire(target.ask(request))}
    except Refused as refusal:
        return {"id": number, "error": refusal.code}
    except Unsupported:
        return {"id": number, "unsupported": True}
    except Broken as broken:
        print(broken, file=sys.stderr, flush=True)
        return {"id": number, "error": "internal"}


def respond(target: Target, line: bytes) -> bytes:
    """The line that answers a line; empty for a blank line."""
    if not line.strip():
        return b""
    try:
        message = json.loads(line.decode())
    except (ValueError, RecursionError):
        message = None
    found = answer(target, message) if isinstance(message, dict) else {"id": None, "error": MALFORMED}
    return json.dumps(found).encode() + b"\n"


def serve(target: Target, requests: Iterable[bytes], responses: BinaryIO) -> None:
    """Answer requests, one JSON object a line, until there are no more."""
    for line in requests:
        responses.write(respond(target, line))
        responses.flush()


def main() -> None:
    """Serve standard input."""
    parser = argparse.ArgumentParser(prog="python -m fedmrn_codec.conformance.serve")
    parser.add_argument("--backend", help="The backend. Default: the fastest that is installed.")
    backend = parser.parse_args().backend
    serve(ModuleTarget("fedmrn_codec", backend), sys.stdin.buffer, sys.stdout.buffer)


if __name__ == "__main__":
    main()
