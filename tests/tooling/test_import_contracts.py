"""The import contracts of pyproject.toml: `lint-imports` reports each kind of forbidden import."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

pytest.importorskip("importlinter")

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = "Packages import only packages below them"
ROOMS = "Rooms of fedmrn_codec import only rooms below them"
ADAPTERS = "Adapters import only the public parts of fedmrn_codec"
TYPING = "from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    "

# (the file that gets the import, the import, the contract that it breaks)
FORBIDDEN = {
    "a package imports one above it": (
        "adapters/fedmrn_torch/draws.py",
        "import reference_fl.loop",
        PACKAGES,
    ),
    "one adapter imports another": ("adapters/fedmrn_flower/records.py", "import fedmrn_nvflare", PACKAGES),
    "the reference imports a benchmark": ("reference_fl/loop.py", "import benchmarks.frames", PACKAGES),
    "a room imports one above it": ("fedmrn_codec/primitives/mask.py", "from ..format import frame", ROOMS),
    "for typing alone": ("fedmrn_codec/format/rans.py", TYPING + "from ..sums import exact", ROOMS),
    "inside a function": ("fedmrn_codec/backends/tiles.py", "def f():\n    from ..cli import app", ROOMS),
    "through the package itself": ("fedmrn_codec/format/limits.py", "import fedmrn_codec as fm", ROOMS),
    "a circle of two rooms": ("fedmrn_codec/face/arrays.py", "from .. import adapter_api", ROOMS),
    "two rooms side by side": ("fedmrn_codec/cluster/ray.py", "from ..conformance import run", ROOMS),
    "a room without a place": ("fedmrn_codec/attic/__init__.py", "", ROOMS),
    "an adapter imports a private room": (
        "adapters/fedmrn_torch/draws.py",
        "from fedmrn_codec.format.frame import Entry",
        ADAPTERS,
    ),
}


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The Python files of every package, and the contracts, in a folder of their own."""
    for folder in ("fedmrn_codec", "reference_fl", "benchmarks", "adapters"):
        for source in (ROOT / folder).rglob("*.py"):
            target = tmp_path / source.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
    shutil.copyfile(ROOT / "pyproject.toml", tmp_path / "pyproject.toml")
    return tmp_path


def broken_contracts(folder: Path) -> tuple[int, set[str]]:
    """The exit status of `lint-imports` in a folder, and the contracts that it reports as broken."""
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()"]
    path = os.pathsep.join((str(folder), str(folder / "adapters")))  # before what is installed
    environment = {**os.environ, "PYTHONPATH": path, "COLUMNS": "200"}
    done = subprocess.run(
        [*command, "--no-cache"], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert "Contracts: " in done.stdout, done.stdout + done.stderr
    return done.returncode, set(re.findall(r"^(.+) BROKEN$", done.stdout, re.MULTILINE))


def test_the_packages_keep_all_contracts(copy: Path) -> None:
    assert broken_contracts(copy) == (0, set())


@pytest.mark.parametrize("case", FORBIDDEN)
def test_a_forbidden_import_breaks_its_contract(copy: Path, case: str) -> None:
    file, statement, contract = FORBIDDEN[case]
    path = copy / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"{path.read_text() if path.exists() else ''}\n\n{statement}\n")
    assert broken_contracts(copy) == (1, {contract})


def test_every_private_room_is_forbidden_to_adapters() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    (contract,) = (c for c in settings["contracts"] if c["name"] == ADAPTERS)
    modules = [p.stem for p in (ROOT / "fedmrn_codec").glob("*.py")]
    rooms = [p.parent.name for p in (ROOT / "fedmrn_codec").glob("*/__init__.py")]
    public = {"__init__", "errors", "adapter_api"}
    expected = {f"fedmrn_codec.{name}" for name in {*modules, *rooms} - public}
    assert set(contract["forbidden_modules"]) == expected
