"""The C implementation, under sanitizers: all vectors, generated cases, and the README's example."""

import base64
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import fedmrn_codec as fm
from fedmrn_codec.conformance.program import CommandTarget
from fedmrn_codec.conformance.run import FAILED, PASSED, SKIPPED, run
from fedmrn_codec.conformance.suite import checks_for

FOLDER = Path(__file__).resolve().parents[2] / "spec" / "decoders" / "c"

pytestmark = pytest.mark.skipif(
    not (shutil.which("cc") and shutil.which("make")), reason="cc and make are not both installed"
)


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """A function that builds a program of a copy of the folder."""
    folder = tmp_path_factory.mktemp("c") / "c"
    shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns("conform", "conform-*", "example"))

    def make(program):
        done = subprocess.run(
            ["make", "-C", folder, program], capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stderr
        return folder / program

    return make


@pytest.mark.parametrize("program", ["conform", "conform-sanitized"])
def test_conforms(build, program):
    target = CommandTarget([str(build(program))], timeout=60)
    try:
        records = list(run(target, checks_for(target, target.profiles, examples=25)))
    finally:
        target.close()
    assert [f"{r.id}: {r.message}" for r in records if r.status == FAILED] == []
    assert sum(r.status == PASSED for r in records) > 600
    assert {r.message for r in records if r.status == SKIPPED} <= {
        "[A-05]: the line protocol cannot continue after a refusal"
    }


def test_the_example_decodes_a_file(build, tmp_path):
    schema = fm.Schema([fm.Tensor("w", (33,), masked=True), fm.Tensor("b", (2,))])
    update = {"w": np.linspace(-0.01, 0.01, 33, dtype=np.float32), "b": np.float32([1.5, -2])}
    frame = fm.encode(update, schema, seed=5, noise=fm.Uniform(0.01), private_seed=6, embed_schema=True)
    (tmp_path / "u.fmrn").write_bytes(frame)
    done = subprocess.run(
        [build("example"), tmp_path / "u.fmrn"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "w" in done.stdout
    (tmp_path / "u.fmrn").write_bytes(frame[:-1])
    done = subprocess.run(
        [build("example"), tmp_path / "u.fmrn"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode != 0
    assert "truncated" in done.stdout + done.stderr


def test_the_table_in_the_header_is_that_of_the_format(tmp_path):
    script, table = FOLDER / "make_table.py", FOLDER.parents[1] / "tables" / "gaussian.bin"
    made = subprocess.run(["python3", script, table], capture_output=True, text=True, timeout=60, check=True)
    assert made.stdout == (FOLDER / "fedmrn_table.h").read_text()


def base64_of(content):
    return base64.b64encode(content).decode()


def encoded(program, schema, tensors):
    """A frame of the program `conform`."""
    line = {
        "id": 1,
        "op": "encode",
        "schema": base64_of(schema),
        "seed": "0x7",
        "base_model": "0x0",
        "round": 0,
        "embed_schema": False,
        "tensors": tensors,
    }
    done = subprocess.run(
        [program], input=json.dumps(line), capture_output=True, text=True, timeout=60, check=True
    )
    return base64.b64decode(json.loads(done.stdout)["result"]["frame"])


def test_any_range_of_a_coded_tensor_can_be_decoded(build, tmp_path):
    n, rng = 2 * 65536 + 777, np.random.default_rng(3)
    small = np.abs(rng.normal(size=n)) < 0.1
    mask = {
        "kind": "binary",
        "distribution": "bernoulli",
        "scale": "0x3f000000",
        "payload": base64_of(np.packbits(small, bitorder="little").tobytes()),
    }
    grid = {"kind": "grid", "scale": "0x3f000000"}
    one = rng.normal(0, 9, n).astype("<i4"), np.exp2(rng.uniform(0, 23, n)).astype("<i4")
    grids = [{**grid, "coding": c, "payload": base64_of(z.tobytes())} for c in ("raw", "rans14") for z in one]
    masks = [{**mask, "coding": c} for c in ("raw", "rans", "rans12")]
    tensors = [fm.Tensor(f"mask{k}", (n,), masked=True) for k in range(3)]
    tensors += [fm.Tensor(f"grid{k}", (n,), masked=k < 2) for k in range(4)]
    schema = fm.Schema(tensors).data
    (tmp_path / "schema").write_bytes(schema)
    (tmp_path / "frame").write_bytes(encoded(build("conform"), schema, masks + grids))
    compile_ranges = ["cc", "-std=c99", "-ffp-contract=off", "-O1", "-g", "-Wall", "-Wextra", "-Werror"]
    compile_ranges += ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", f"-I{FOLDER}"]
    source = Path(__file__).parent / "ranges.c"
    subprocess.run([*compile_ranges, "-o", tmp_path / "ranges", source], timeout=120, check=True)
    done = subprocess.run(
        [tmp_path / "ranges", tmp_path / "schema", tmp_path / "frame"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[3] for line in lines] == ["0:", "1:", "4:", "0:", "0:", "5:", "5:"]
