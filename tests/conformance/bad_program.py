"""A program that speaks the line protocol, well or badly: `python bad_program.py MODE`."""

import json
import os
import sys
import time

from fedmrn_codec.conformance.reference import Reference
from fedmrn_codec.conformance.serve import respond

MODE = sys.argv[1]
TARGET = Reference()


def hello(*profiles):
    return json.dumps({"id": 1, "result": {"name": "x", "version": "1", "profiles": profiles}}).encode()


def badly(message, good):
    """The bytes to write instead of a good answer."""
    line = json.dumps(good).encode()
    number = message["id"]
    if message["op"] == "hello":
        return {
            "hello-empty": b'{"id": 1, "result": {}}',
            "hello-error": b'{"id": 1, "error": "magic"}',
            "hello-unknown-profile": hello("all"),
            "decode-only": hello("decode"),
        }.get(MODE, line)
    if MODE == "crash":
        print("no such lane", file=sys.stderr, flush=True)
        os.abort()
    if MODE == "exit":
        sys.exit(3)
    if MODE == "hang":
        time.sleep(60)
    if MODE == "complains":
        sys.stderr.write("x" * 100_000)
    if MODE == "hang-on-digest" and message["op"] == "digest":
        time.sleep(60)
    if MODE == "no-encode" and message["op"] == "encode":
        return json.dumps({"id": number, "unsupported": True}).encode()
    return {
        "garbage": b"\xff\xfe lane 3: ok",
        "no-object": b"[1, 2]",
        "wrong-id": json.dumps(good | {"id": number + 1}).encode(),
        "two-outcomes": json.dumps(good | {"error": "magic"}).encode(),
        "no-outcome": json.dumps({"id": number}).encode(),
        "no-code": json.dumps({"id": number, "error": 3}).encode(),
        "unsupported-false": json.dumps({"id": number, "unsupported": False}).encode(),
        "no-base64": json.dumps({"id": number, "result": {"words": "§"}}).encode(),
        "no-member": json.dumps({"id": number, "result": {}}).encode(),
        "result-list": json.dumps({"id": number, "result": []}).encode(),
        "twice": line + b"\n" + line,
        "error-for-unknown": json.dumps({"id": number, "error": "magic"}).encode(),
    }.get(MODE, line)


def answered(text):
    """The bytes that answer a line."""
    good = respond(TARGET, text)
    if not good:
        return b'{"id": null, "error": "request"}\n' if MODE == "answers-blank-lines" else b""
    found = json.loads(good)
    if found.get("error") == "request":
        if MODE == "answers-beyond-the-range" and json.loads(text).get("op") in ("words", "noise"):
            return json.dumps({"id": found["id"], "result": {json.loads(text)["op"]: ""}}).encode() + b"\n"
        if MODE == "dies-at-malformed":
            sys.exit(1)
        other = found | {"error": "magic"} if MODE == "another-code-for-malformed" else found
        return json.dumps(other).encode() + b"\n"
    message = json.loads(text)
    strict = MODE == "refuses-more-members" and "later" in message
    if strict or (
        MODE == "needs-codings" and any("coding" not in part for part in message.get("tensors", ()))
    ):
        return json.dumps({"id": message["id"], "error": "request"}).encode() + b"\n"
    return badly(message, found) + b"\n"


for text in sys.stdin.buffer:
    sys.stdout.buffer.write(answered(text))
    sys.stdout.buffer.flush()
if MODE == "exit-code-at-end":
    sys.exit(4)
if MODE == "deaf-to-the-end":
    time.sleep(60)
