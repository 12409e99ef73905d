"""The C implementation, under sanitizers: all vectors, generated cases, and the README's example."""

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
