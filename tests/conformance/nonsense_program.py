"""A program that answers with nonsense: `python nonsense_program.py MODE`. It starts fast."""

import json
import os
import subprocess
import sys
import time

MODE = sys.argv[1]
NOISE = b'\x00\xff\xfe\x80{["\x1b[31m\r' * 50
HELLO = {"name": "x", "version": "1", "profiles": ["decode", "encode", "aggregate"]}
HELLOS = {
    "hello-unhashable": {**HELLO, "profiles": [["decode"], {}]},
    "hello-long": {**HELLO, "name": "x" * 10**6},
    "hello-surrogates": {**HELLO, "name": "\ud800\x1b[31m\n", "version": "\udfff"},
    "hello-twice": {**HELLO, "profiles": ["decode"] * 1000},
}


def say(line):
    sys.stdout.buffer.write(line + b"\n")
    sys.stdout.buffer.flush()


def answers(number, op):
    """The line, or lines, that answer a request after `hello`."""
    if MODE == "noise":
        return NOISE
    if MODE == "endless-line":
        while True:
            sys.stdout.buffer.write(b"A" * 2**20)
    if MODE == "endless-lines":
        while True:
            say(b'{"id": 1, "result": {}}')
    if MODE == "slow-line":
        while True:
            sys.stdout.buffer.write(b" ")
            sys.stdout.buffer.flush()
            time.sleep(0.05)
    if MODE == "dies":
        os._exit(3)
    if MODE == "closes-its-output":
        os.close(1)
        time.sleep(60)
    if MODE == "deletes-itself":
        os.remove(sys.argv[2])
        os._exit(3)
    if MODE == "leaves-a-process":
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(20)"], start_new_session=True)
        os._exit(3)
    if MODE == "deep":
        return b'{"id": %d, "result": ' % number + b"[" * 10**5
    if MODE == "digits":
        return b'{"id": ' + b"9" * 10**5 + b"}"
    return {
        "wrong-id": json.dumps({"id": number + 1, "result": {}}),
        "id-of-another-type": json.dumps({"id": float(number), "result": {}}),
        "long-id": json.dumps({"id": "x" * 10**6, "result": {}}),
        "long-code": json.dumps({"id": number, "error": "x" * 10**6}),
        "surrogate-code": json.dumps({"id": number, "error": "\ud800\x1b[31m\n"}),
        "refuses": json.dumps({"id": number, "error": "magic"}),
        "refuses-coding": json.dumps({"id": number, "error": "coding"}),
        "empty-results": json.dumps(
            {"id": number, "result": dict.fromkeys(("words", "noise", "mask", "frame"), "")}
        ),
        "empty-lists": json.dumps(
            {"id": number, "result": {"tensors": [], "mean": [], "partial": "", "digest": ""}}
        ),
        "odd-bytes": json.dumps(
            {
                "id": number,
                "result": {
                    **dict.fromkeys(("words", "noise", "mask", "frame", "partial", "digest"), "AAAA"),
                    "tensors": ["AAAA"] * 2,
                    "mean": ["AAAA"],
                },
            }
        ),
        "unsupported": json.dumps({"id": number, "unsupported": True}),
    }[MODE].encode()


if MODE == "dies-at-once":
    sys.exit(3)
for text in sys.stdin.buffer:
    try:
        request = json.loads(text)
        number, op = request["id"], request["op"]
    except (ValueError, KeyError, TypeError, RecursionError):
        number, op = 0, ""
    if op == "hello" or MODE in HELLOS:
        say(json.dumps({"id": number, "result": HELLOS.get(MODE, HELLO)}).encode())
    else:
        say(answers(number, op))
