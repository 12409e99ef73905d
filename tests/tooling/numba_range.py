"""Run the tests that concern Numba with the oldest version that pyproject.toml allows, and with the newest.

Each version gets a virtual environment with NumPy, Numba, pytest and Hypothesis only, in `.venv/numba/`:

- oldest: the first version that the extra `numba` allows and that has a wheel for this Python,
  with the newest NumPy that it supports;
- newest: what pip installs for the extra `numba`.
"""

import re
import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HOME = ROOT / ".venv" / "numba"
TESTS = [f"tests/backends/test_backend_{name}.py" for name in ("compiled", "agreement", "threads")]
TESTS += ["tests/backends/test_backend_automatic.py"]
TESTS += ["tests/format/test_codings.py", "tests/format/test_coded_grids.py"]
TOOLS = ("pytest", "hypothesis")
NEWER_RELEASES = 20
"""Minor versions of Numba to try before it is certain that none has a wheel for this Python."""


def main() -> int:
    """Run the tests at both ends; the exit status is 0 if all pass."""
    requirement = allowed()
    oldest, newest = environment("oldest"), environment("newest")
    for version in releases_from(requirement):
        if install(oldest, f"numba=={version}", quiet=True):
            break
    else:
        sys.exit(
            f"numba: expected a wheel of {requirement} for this Python, got none of {NEWER_RELEASES} releases"
        )
    if not install(newest, "--upgrade", requirement):
        sys.exit(f"numba: expected pip to install {requirement}, got an error (above)")
    return max(run_tests(python) for python in (oldest, newest))


def allowed() -> str:
    """The requirement of the extra `numba`, as in `numba>=0.60`."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (requirement,) = extras["numba"]
    return str(requirement)


def releases_from(requirement: str) -> list[str]:
    """Versions 0.N from the lowest that the requirement allows."""
    lowest = re.match(r"numba>=0\.(\d+)", requirement)
    if lowest is None:
        sys.exit(f"extra numba of pyproject.toml: expected numba>=0.N, got {requirement}")
    first = int(lowest[1])
    return [f"0.{minor}" for minor in range(first, first + NEWER_RELEASES)]


def environment(name: str) -> Path:
    """The interpreter of an environment, which is made if it is not there."""
    home = HOME / name
    scheme = sysconfig.get_paths("venv", vars={"base": str(home), "platbase": str(home)})
    python = Path(scheme["scripts"]) / "python"
    if not python.exists():
        venv.create(home, with_pip=False)
    return python


def install(python: Path, *numba: str, quiet: bool = False) -> bool:
    """Install Numba with the newest NumPy it supports, and the pinned test tools."""
    pins = re.findall(rf"^(?:{'|'.join(TOOLS)})==.+$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check", "install"]
    command = [*pip, "--quiet", "--only-binary", ":all:", *numba, "numpy", *pins]
    return subprocess.run(command, check=False, stderr=subprocess.DEVNULL if quiet else None).returncode == 0


def run_tests(python: Path) -> int:
    """Run the tests with one environment, after a line that says which versions it has."""
    show = "import numba, numpy; print(f'Numba {numba.__version__}, NumPy {numpy.__version__}:', flush=True)"
    subprocess.run([python, "-c", show], check=True)
    options = [
        "-q",
        "-o",
        "addopts=--strict-markers",
        "-p",
        "no:cacheprovider",
        "-k",
        "not torch and not onnx",
    ]
    return subprocess.run([python, "-m", "pytest", *options, *TESTS], cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
