"""The README is short, and its make targets exist; tests/test_docs.py runs its examples."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def test_it_is_short():
    assert len(README.splitlines()) < 150
    (table,) = re.findall(r"^<!-- results\b.*?-->\n(.*?)^<!-- end of results -->", README, re.M | re.S)
    assert 3 <= len(table.splitlines()) - 2 <= 8
    assert len(re.findall(r"^!\[", README, re.M)) == 1


@pytest.mark.parametrize("target", sorted(set(re.findall(r"make ([a-z][a-z-]+)", README))))
def test_make_targets_exist(target):
    done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
