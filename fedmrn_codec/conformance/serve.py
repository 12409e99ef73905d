"""Serve this project's own codec over the line protocol of spec/CONFORMANCE.md, as an example.

python -m fedmrn_codec.conformance.serve [--backend NAME]
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from typing import Any, TextIO

from .module import ModuleTarget
from .request import HELLO, REQUESTS, from_wire, result_to_wire
from .target import Refused, Target, Unsupported


def answer(target: Target, message: dict[str, Any]) -> dict[str, Any]:
    """The response to one request."""
    op = message["op"]
    if op == HELLO:
        introduction = {"name": target.name, "version": target.version, "profiles": list(target.profiles)}
        return {"id": message["id"], "result": introduction}
    if op not in REQUESTS:
        return {"id": message["id"], "unsupported": True}
    try:
        result = target.ask(from_wire(op, message))
    except Refused as refusal:
        return {"id": message["id"], "error": refusal.code}
    except Unsupported:
        return {"id": message["id"], "unsupported": True}
    return {"id": message["id"], "result": result_to_wire(result)}


def serve(target: Target, requests: Iterable[str], responses: TextIO) -> None:
    """Answer requests, one JSON object a line, until there are no more."""
    for line in requests:
        responses.write(json.dumps(answer(target, json.loads(line))) + "\n")
        responses.flush()


def main() -> None:
    """Serve standard input."""
    parser = argparse.ArgumentParser(prog="python -m fedmrn_codec.conformance.serve")
    parser.add_argument("--backend", help="The backend. Default: the fastest that is installed.")
    backend = parser.parse_args().backend
    serve(ModuleTarget("fedmrn_codec", backend), sys.stdin, sys.stdout)


if __name__ == "__main__":
    main()
