"""The exported files in onnxruntime-web, WebAssembly under Node.js: `make onnx-web` installs it."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from test_backend_onnx import NAMES, case_of

from fedmrn_codec.backends.onnx_export import models

FOLDER = Path(__file__).resolve().parents[2] / "spec" / "decoders" / "onnx-web"


def described(array):
    return {"type": array.dtype.name, "dims": list(array.shape), "hex": array.tobytes().hex()}


@pytest.mark.integration
def test_the_same_bytes_in_webassembly(tmp_path):
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    if not (FOLDER / "node_modules" / "onnxruntime-web").is_dir():
        pytest.skip("onnxruntime-web is not installed; `make onnx-web` does that")
    requests, expected = [], []
    for name, model in models():
        (tmp_path / name).write_bytes(model.SerializeToString())
    for name in NAMES:
        for size in (0, 1, 37, 20_001):
            feeds, want = case_of(name, size)
            inputs = {key: described(array) for key, array in feeds.items()}
            requests.append(json.dumps({"model": str(tmp_path / name), "inputs": inputs}))
            expected.append((name, size, want.hex()))
    done = subprocess.run(
        ["node", str(FOLDER / "check.mjs")], input="\n".join(requests), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == len(expected)
    for (name, size, want), answer in zip(expected, answers, strict=True):
        (got,) = answer.values()
        assert got == want, (name, size)
