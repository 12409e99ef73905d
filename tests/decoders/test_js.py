"""The JavaScript implementation: the vectors in Node and in Chromium, and its end of the line protocol."""

import base64
import json
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

SPEC = Path(__file__).resolve().parents[2] / "spec"
FOLDER = SPEC / "decoders" / "js"
NODE = shutil.which("node")
CHROMIUM = shutil.which(os.environ.get("CHROMIUM") or "chromium")
FILES = [
    path for path in SPEC.glob("vectors/*.json") if path.stem not in ("envelopes", "secagg")
]  # it has none
VECTORS = {case["id"]: case for path in FILES for case in json.loads(path.read_text())["cases"]}


def node_is_old():
    version = subprocess.run([NODE, "--version"], capture_output=True, text=True, check=True).stdout
    return int(re.match(r"v(\d+)", version)[1]) < 20


pytestmark = pytest.mark.skipif(
    NODE is None or node_is_old(), reason="node, version 20 or newer, is not installed"
)


def node(*arguments, stdin="", seconds):
    """The exit code and what was written, of Node run in a process group of its own that ends with it."""
    with subprocess.Popen(
        [NODE, *arguments],
        cwd=FOLDER,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        start_new_session=True,
    ) as process:
        try:
            out, err = process.communicate(stdin, timeout=seconds)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    return process.returncode, out, err


def passes_every_vector(file, seconds):
    code, out, err = node("--test", "--test-reporter=tap", file, seconds=seconds)
    failed = re.findall(r"^ *not ok \d+ - (.+)$", out, re.M)
    assert (code, failed) == (0, []), out[-4000:] + err
    passed = set(re.findall(r"^ *ok \d+ - (\S+)$", out, re.M))
    assert len(VECTORS) > 500
    assert set(VECTORS) <= passed, sorted(set(VECTORS) - passed)


def test_vectors_in_node():
    passes_every_vector("vectors.test.mjs", seconds=120)


@pytest.mark.integration
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_vectors_in_chromium():
    passes_every_vector("browser.test.mjs", seconds=180)


def converse(*lines):
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    code, out, err = node("conform.mjs", stdin=text, seconds=60)
    assert code == 0, err
    return [json.loads(line) for line in out.splitlines()], err


def b64(hexadecimal):
    return base64.b64encode(bytes.fromhex(hexadecimal)).decode()


def decode(number, case, **changes):
    limits = {"max_tensors": 65536, "max_schema_bytes": 2**24, "max_elements": 2**34}
    asked = {"round": None, "base_model": None, "seed": None}
    schema = b64(case["schema_bytes"])
    return {
        "id": number,
        "op": "decode",
        "frame": b64(case["frame"]),
        "schema": schema,
        **asked,
        **limits,
        **changes,
    }


def encode(number, case, **changes):
    tensors = [{"coding": "raw", **t, "payload": b64(t["payload"]), **changes} for t in case["tensors"]]
    head = {key: case[key] for key in ("seed", "base_model", "round", "embed_schema")}
    return {"id": number, "op": "encode", "schema": b64(case["schema_bytes"]), "tensors": tensors, **head}


def test_protocol_answers():
    case = VECTORS["frames/worked-example"]
    schema = b64(case["schema_bytes"])
    sum_of_one = {"schema": schema, "frames": [b64(case["frame"])], "round": 0, "base_model": "0x0"}
    answers, err = converse(
        {"id": 1, "op": "hello"},
        decode(2, case),
        encode(3, case),
        {"id": 4, "op": "digest", "schema": schema},
        {"id": 5, "op": "aggregate", "weights": ["3"], **sum_of_one},
    )
    assert not err
    assert [answer["id"] for answer in answers] == [1, 2, 3, 4, 5]
    hello, decoded, encoded, digest, aggregate = [answer["result"] for answer in answers]
    assert hello["profiles"] == ["decode", "encode", "aggregate", "tally"]
    assert decoded == {"tensors": [b64(tensor) for tensor in case["decoded"]]}
    assert encoded == {"frame": b64(case["frame"])}
    assert digest == {"digest": b64("2fe981680536992ab9ac781cc25f96f5")}
    assert aggregate["mean"] == [b64(tensor) for tensor in case["decoded"]]
    merge = {"id": 6, "op": "merge", "schema": schema, "partials": [aggregate["partial"]] * 2}
    (merged,), _ = converse(merge)
    assert merged["result"]["mean"] == aggregate["mean"]


def test_protocol_codings():
    coded, halves = VECTORS["frames/coded"], VECTORS["frames/halves-bfloat16"]
    answers, err = converse(encode(1, coded), decode(2, coded), encode(3, halves), decode(4, halves))
    assert not err
    assert [answers[0]["result"], answers[2]["result"]] == [
        {"frame": b64(c["frame"])} for c in (coded, halves)
    ]
    for answer, case in ((answers[1], coded), (answers[3], halves)):
        assert answer["result"] == {"tensors": [b64(tensor) for tensor in case["decoded"]]}
    refused, _ = converse(
        encode(5, halves, coding="rans"),
        encode(6, halves, payload=b64("ffff7f7f" * 13)),
        encode(7, halves, coding="zip"),
        encode(8, halves, kind=None),
    )
    assert [answer["error"] for answer in refused] == ["unknown_coding", "non_finite", "request", "request"]
    raw, _ = converse(encode(9, halves, coding="raw"), encode(10, halves, coding=None))
    assert raw[0]["result"] == raw[1]["result"]


def test_protocol_refusals():
    case = VECTORS["frames/worked-example"]
    nothing = {"schema": b64("00000000"), "frames": [], "weights": [], "round": 0, "base_model": "0x0"}
    answers, _ = converse(
        decode(1, case, frame=b64(case["frame"][:-2])),
        decode(2, case, seed="0xffffffffffffffff"),
        decode(3, case, max_tensors=1),
        decode(4, case, schema=None),
        {"id": 5, "op": "aggregate", **nothing},
        {"id": 6, "op": "levitate"},
        {"id": 7, "op": "constructor"},
    )
    codes = [answer.get("error") for answer in answers[:5]]
    assert codes == ["truncated", "seed", "limit", "no_schema", "aggregate"]
    assert answers[5:] == [{"id": 6, "unsupported": True}, {"id": 7, "unsupported": True}]


def test_protocol_survives_what_is_no_request():
    case = VECTORS["frames/worked-example"]
    answers, err = converse(
        "no JSON",
        "[1, 2]",
        '{"id": "one", "op": "hello"}',
        {"id": 4},
        decode(5, case, frame="no base64"),
        decode(6, case, max_tensors="many"),
        {"id": 7, "op": "words", "seed": "7", "stream": "0x0", "start": "0x0", "count": 1},
        {"id": 8, "op": "words", "seed": "0x7", "stream": "0x0", "start": "0x0", "count": 10**15},
        {"id": 9, "op": "hello"},
    )
    refused = [{"id": number, "error": "request"} for number in (None, None, None, 4, 5, 6, 7, 8)]
    assert answers[:-1] == refused
    assert answers[-1]["id"] == 9
    assert answers[-1]["result"]["name"] == "fedmrn.mjs"
    assert "max_tensors must be" in err


ODD = """
import * as f from './fedmrn.mjs';
const thrown = (act) => { try { act(); } catch (e) { return e.code ?? e.name; } return 'nothing'; };
const tensor = (name) => ({ name, role: f.ROLE.dense, dtype: f.DTYPE.float32, shape: [3] });
const frame = new Uint8Array(await (await import('node:fs/promises')).readFile(process.argv[1]));
const long = 'b'.repeat(9000);
console.log(JSON.stringify([
  ...[1, undefined, NaN, -1, '9'].map((elements) => thrown(() => f.parseFrame(frame, {}, { elements }))),
  ...[0, undefined].map((tensors) => thrown(() => f.parseFrame(frame, {}, { tensors }))),
  f.buildSchema([tensor(long), tensor(`${long}c`)]).tensors.length,
  thrown(() => f.buildSchema([tensor(long), tensor('a'), tensor(long)])),
  ...[5, 2 ** 24, 1.5, -1, NaN].map((r) => thrown(() => f.sampleMask(f.KIND.binary, [0.1], [1], [r]))),
]));
"""


def test_limits_names_and_random_numbers_that_javascript_would_let_pass(tmp_path):
    """A limit that is no number compares with nothing, and engines hash long texts by their length."""
    import numpy as np

    import fedmrn_codec as fm

    update = {"w": np.ones((2, 4), np.float32)}
    frame = fm.encode(update, fm.schema_of(update), seed=1, noise=fm.Uniform(1.0), embed_schema=True)
    (tmp_path / "a.fmrn").write_bytes(frame)
    command = [NODE, "--input-type=module", "-e", ODD, str(tmp_path / "a.fmrn")]
    done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, check=True, timeout=60)
    limits = ["limit", "nothing", "RangeError", "RangeError", "RangeError", "limit", "nothing"]
    assert json.loads(done.stdout) == [*limits, 2, "schema_name", "nothing", *["RangeError"] * 4]
