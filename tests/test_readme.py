"""The README's blocks run, in their order, in one folder; its make targets exist."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, re.M | re.S)


def test_there_are_blocks_of_both_kinds():
    assert {kind for kind, _ in BLOCKS} == {"python", "sh"}


def test_blocks_run(tmp_path):
    names = {}
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    here = Path.cwd()
    os.chdir(tmp_path)
    try:
        for kind, text in BLOCKS:
            if kind == "python":
                exec(compile(text, "README.md", "exec"), names)
            elif not text.startswith("make "):
                script = f"set -euo pipefail\n{text}"
                done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True)
                assert done.returncode == 0, done.stderr
    finally:
        os.chdir(here)
    assert {p.name for p in tmp_path.iterdir()} >= {"client1.fmrn", "decoded.safetensors", "mean.safetensors"}


@pytest.mark.parametrize("target", sorted(set(re.findall(r"make ([a-z][a-z-]+)", README))))
def test_make_targets_exist(target):
    done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_frame_size_in_the_table_is_the_measured_one():
    import numpy as np

    import fedmrn_codec as fm
    import fedmrn_torch
    from reference_fl import models

    schema = fedmrn_torch.schema(models.build("cnn4", (1, 28, 28), 10, 0))
    zeros = {t.name: np.zeros(t.shape, t.type.numpy) for t in schema}
    frame = fm.encode(zeros, schema, seed=1, noise=fm.Uniform(0.01))
    assert f"this format {len(frame):,}:" in README


def test_links_lead_somewhere():
    for link in re.findall(r"\]\((?!http)([^)#]+)", README):
        assert (ROOT / link).exists(), link
