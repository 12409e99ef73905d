"""What is installed: the contents of the wheel, its dependency, and what `import fedmrn_codec` imports."""

import importlib.metadata
import json
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FRAMEWORKS = {"torch", "numba", "onnx", "onnxruntime"}

# Runs in an environment that holds NumPy and the wheel alone. Prints the top-level names of all it imported.
ROUND_TRIP = """
import json, sys
import numpy as np
import fedmrn_codec as fm

noise = fm.Uniform(0.01)
schema = fm.Schema([
    fm.Tensor("conv.weight", (32, 1, 3, 3), masked=True),
    fm.Tensor("bn.weight", (32,), dtype="float32"),
])
update = {
    "conv.weight": np.linspace(-0.01, 0.01, 288, dtype=np.float32).reshape(32, 1, 3, 3),
    "bn.weight": np.linspace(-1, 1, 32, dtype=np.float32),
}
arrays = fm.decode(fm.encode(update, schema, seed=7, noise=noise, mask="binary"), schema)

assert list(arrays) == ["conv.weight", "bn.weight"], list(arrays)
assert arrays["bn.weight"].tobytes() == update["bn.weight"].tobytes()
masked = arrays["conv.weight"]
assert masked.dtype == np.float32 and masked.shape == (32, 1, 3, 3), (masked.dtype, masked.shape)
got = masked.reshape(-1).view(np.uint32)
kept = fm.noise(noise, seed=7, stream=0, start=0, count=288).view(np.uint32)
assert np.all((got == kept) | (got == 0)), "a masked value is neither its noise nor +0.0"
assert 0 < np.count_nonzero(got) < 288, "the mask is constant"

print(json.dumps({
    "origin": fm.__file__,
    "imported": sorted({name.partition(".")[0] for name in sys.modules}),
}))
"""

INSTALLED = """
import importlib.metadata as m
print(sorted(d.name for d in m.distributions()))
"""


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command in `cwd`; a failure shows all it printed."""
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, f"{command} exited {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def imported_by(statement: str, cwd: Path) -> set[str]:
    """Top-level names of every module that the statement imports, as `-X importtime` reports them."""
    report = run(sys.executable, "-X", "importtime", "-c", statement, cwd=cwd).stderr
    lines = [line for line in report.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built with the backend that is installed here, so that no network is needed."""
    out = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, ROOT, cwd=out)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        return Parser().parsestr(archive.read(name).decode())


@pytest.fixture(scope="module")
def bare_python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a new environment that holds the wheel and NumPy, and not even pip."""
    home = tmp_path_factory.mktemp("bare") / "venv"
    venv.create(home, with_pip=False)
    scheme = sysconfig.get_paths("venv", vars={"base": str(home), "platbase": str(home)})
    python = Path(scheme["scripts"]) / "python"

    site = Path(scheme["purelib"])
    for file in importlib.metadata.files("numpy") or []:
        if ".." not in file.parts:  # leaves out NumPy's scripts
            (site / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file.locate(), site / file)
    pip = (sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check")
    run(*pip, "install", "--no-index", "--no-deps", wheel, cwd=home)
    run(*pip, "check", cwd=home)  # NumPy alone satisfies what the wheel asks for
    return python


def test_wheel_holds_the_packages_and_nothing_else(wheel: Path) -> None:
    packages = {Path(p).name for p in _pyproject()["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]}
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {n.partition("/")[0] for n in names if ".dist-info/" not in n} == packages
    assert {"fedmrn_codec/py.typed", "reference_fl/report/page.html.jinja"} <= set(names)
    assert any(n.endswith(".dist-info/licenses/LICENSE") for n in names)
    presets = {f"reference_fl/presets/{p.name}" for p in (ROOT / "reference_fl" / "presets").glob("*.toml")}
    assert presets
    assert presets <= set(names)
    rooms = {p.parent.name for p in (ROOT / "fedmrn_codec").glob("*/__init__.py")}
    assert rooms >= {"primitives", "backends", "format", "sums", "face", "cluster", "conformance", "cli"}
    assert {f"fedmrn_codec/{room}/__init__.py" for room in rooms} <= set(names)
    data = {"fedmrn_codec/primitives/data": "fedmrn_codec/primitives/data"}
    data |= {"spec/vectors": "fedmrn_codec/conformance/vectors"}
    for source, place in data.items():
        on_disk = {f"{place}/{p.name}" for p in (ROOT / source).iterdir() if p.is_file()}
        assert on_disk
        assert on_disk <= set(names)
    assert {"fedmrn_codec/conformance/places.json", "fedmrn_codec/cli/inspector.html"} <= set(names)


def test_wheel_declares_its_commands(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith("entry_points.txt"))
        entries = archive.read(name).decode()
    assert "[console_scripts]\nfedmrn = fedmrn_codec.cli:main" in entries
    commands = entries.partition("[fedmrn.commands]\n")[2].splitlines()
    assert commands == [
        "conformance = fedmrn_codec.cli.verbs.conformance:conformance",
        "export-onnx = fedmrn_codec.cli.verbs.export_onnx:export_onnx",
        "report = reference_fl.report.cli:report",
        "sweep = reference_fl.cli:sweep",
        "train = reference_fl.cli:train",
    ]


def test_numpy_is_the_only_requirement_outside_extras(metadata: Message) -> None:
    requirements = metadata.get_all("Requires-Dist") or []
    core = [r for r in requirements if "extra ==" not in r]
    assert len(core) == 1, core
    assert core[0].startswith("numpy")


def test_every_extra_is_in_all(metadata: Message) -> None:
    extras = set(metadata.get_all("Provides-Extra") or [])
    runtimes = {"numba", "onnx", "torch", "flower", "nvflare", "envelope", "secagg"}
    apart = {"all", "dev", "docs", "fuzz", "simulation", "ray", "privacy"}
    assert extras == runtimes | {"cli", "conformance", "receiver", "reference"} | apart
    inside = _pyproject()["project"]["optional-dependencies"]["all"][0]
    assert set(inside.partition("[")[2].rstrip("]").split(",")) == extras - apart


@pytest.mark.integration
def test_wheel_round_trips_beside_numpy_alone(bare_python: Path, tmp_path: Path) -> None:
    assert run(bare_python, "-I", "-c", INSTALLED, cwd=tmp_path).stdout == "['fedmrn-codec', 'numpy']\n"
    report = json.loads(run(bare_python, "-I", "-c", ROUND_TRIP, cwd=tmp_path).stdout)
    assert Path(report["origin"]).is_relative_to(bare_python.parents[1])
    assert {"fedmrn_codec", "numpy"} <= set(report["imported"])
    assert not (FRAMEWORKS | {"typer"}) & set(report["imported"])


def test_import_loads_no_framework(tmp_path: Path) -> None:
    # Here, unlike in the bare environment, the frameworks are there to be imported by mistake.
    imported = imported_by("import fedmrn_codec", tmp_path)
    assert {"fedmrn_codec", "numpy"} <= imported
    assert not FRAMEWORKS & imported


def test_the_import_check_sees_a_framework(tmp_path: Path) -> None:
    assert "onnx" in imported_by("import onnx", tmp_path)


def _pyproject() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())
