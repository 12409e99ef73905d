"""Run tests in new environments, with other versions than those of constraints.txt; write docs/versions.md.

- `python tests/tooling/versions.py newest` installs the newest versions that pyproject.toml allows;
- `lowest` installs the lowest ones;
- `extras` installs each extra alone, from the built wheel, and runs an example of it.

Each environment is made by uv in a temporary folder, which is removed after its tests. PyTorch's packages for
Linux bring CUDA: the first run downloads several GB into uv's cache.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from reference_fl.commit import short_commit
from reference_fl.report import insert

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "versions.md"
SHOWN = (
    *("numpy", "numba", "onnx", "onnxruntime", "torch", "flwr", "nvflare", "ray"),
    *("cryptography", "pycryptodome"),
    *("typer", "click", "rich", "safetensors", "scikit-learn", "matplotlib", "hypothesis"),
)
"""The packages in the tables."""

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MARKED, MARKED_QUICK = "not (slow and integration)", "not slow and not integration"
EVERYWHERE = "numba,onnx,torch,nvflare,envelope,secagg,privacy,cli,conformance,receiver,reference"
CLI, CLI_QUICK = "tests/cli", "tests/cli/test_cli_errors.py tests/cli/test_cli_round_trip.py"
CODEC = "tests/primitives tests/format tests/sums tests/face tests/backends"
CODEC_QUICK = "tests/format/test_vectors.py tests/backends/test_backend_automatic.py"
SECAGG = "tests/fedmrn_secagg"
FLOWER, OTHERS = "tests/fedmrn_flower", "tests/fedmrn_nvflare tests/fedmrn_torch"


@dataclass(frozen=True)
class Environment:
    """An environment to test: heading of its column, Python, extras, tests, and further constraints."""

    heading: str
    python: str
    extras: str
    tests: str
    constraints: tuple[str, ...] = ()


def environments(lowest: bool, quick: bool) -> list[Environment]:
    """Those of one run. Flower allows only Typer below 0.21, so there is one with Flower and one without."""
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    # Typer below 0.15.4 does not work with newer Click, which it does not say; this is the last older one.
    more = ("click==8.1.8",) if lowest else ()
    first, second = "tests --ignore=tests/fedmrn_flower --ignore=tests/tooling", f"{FLOWER} {OTHERS} {CLI}"
    third = f"{CODEC} {FLOWER} {CLI}"
    if quick:
        first, second = f"{CODEC_QUICK} {OTHERS} {CLI_QUICK}", f"{FLOWER} {CLI_QUICK}"
        third = f"{CODEC_QUICK} {FLOWER} {CLI_QUICK}"
    found = [Environment(f"Python {here}, Flower", here, f"{EVERYWHERE},flower,simulation", second, more)]
    if not lowest:
        wanted = f"{EVERYWHERE},flower", third
        others = [version for version in ("3.11", "3.12", "3.13") if version != here]
        found += [Environment(f"Python {version}, Flower", version, *wanted) for version in others]
    found.append(Environment(f"Python {here}", here, f"{EVERYWHERE},ray", first, more))
    # Without other packages that ask for `cryptography`; with Hypothesis, which the extra `conformance` has.
    return [*found, Environment(f"Python {here}, secagg", here, "secagg,conformance", SECAGG, more)]


def interpreter(version: str) -> Path | None:
    """A Python of this version: on the path, or among those of pyenv; None if there is none."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    on_path = shutil.which(f"python{version}")
    for path in ([Path(on_path)] if on_path else []) + sorted(pyenv.glob(f"{version}.*/bin/python")):
        say = [path, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        done = subprocess.run(say, capture_output=True, text=True, check=False)
        if done.stdout.strip() == version:
            return path
    return None


def uv(*arguments: str | Path) -> None:
    """Run uv; an error ends this program."""
    if subprocess.run([sys.executable, "-m", "uv", *arguments], check=False).returncode:
        sys.exit(f"uv {' '.join(map(str, arguments))}: expected success, got an error (above)")


def create(home: Path, python: Path, *packages: str | Path) -> Path:
    """Make an environment with these packages; return its interpreter."""
    uv("venv", "--quiet", "--seed", "--python", python, home)  # with pip, which some tests use
    inside = home / ("Scripts" if os.name == "nt" else "bin") / "python"
    uv("pip", "install", "--quiet", "--python", inside, *packages)
    return inside


def tools() -> list[str]:
    """The requirements of the tests' tools, at the versions of constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if "==" in line)
    names = [re.match(r"[\w.-]+", each)[0] for each in PROJECT["optional-dependencies"]["dev"]]
    ours = {"hypothesis", "import-linter", "uv"}  # of these, a range is tested or asks for another
    return [f"{name}=={pins[name]}" for name in names if name in pins and name not in ours]


def versions(python: Path) -> dict[str, str]:
    """The installed versions of the packages of `SHOWN`."""
    listed = subprocess.run(
        [sys.executable, "-m", "uv", "pip", "list", "--quiet", "--format", "json", "--python", python],
        capture_output=True,
        text=True,
        check=True,
    )
    return {each["name"]: each["version"] for each in json.loads(listed.stdout) if each["name"] in SHOWN}


def test(python: Path, tests: str, marked: str, workers: str) -> tuple[int, str]:
    """Run the tests; return the exit code and pytest's last line."""
    command = [python, "-m", "pytest", "-q", "-n", workers, "-m", marked, "-p", "no:cacheprovider"]
    lines = []
    with subprocess.Popen([*command, *tests.split()], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line.strip())
    counted = [line for line in lines if re.search(r"\d+ (passed|failed|error)", line)]
    return process.returncode, re.sub(r" in .*|=", "", counted[-1]).strip() if counted else "no test"


def run(mode: str, chosen: str, quick: bool, workers: str, only: str) -> int:
    """Test the environments of one mode, and write the table after each; 0 if every test passes.

    With `only`, headings separated by semicolons, others are not tested, and their columns stay.
    """
    columns, worst = columns_of(mode) if only else {}, 0
    resolution = "lowest-direct" if mode == "lowest" else "highest"
    for each in environments(mode == "lowest", quick):
        if only and each.heading not in only.split(";"):
            continue
        python = interpreter(each.python)
        if python is None:
            columns[each.heading] = {"result": "no such interpreter on this machine"}
            continue
        print(f"{mode}: {each.heading}", flush=True)
        with tempfile.TemporaryDirectory(prefix="fedmrn-versions-") as folder:
            wanted = ["-e", f"{ROOT}[{each.extras}]", *tools(), *each.constraints]
            inside = create(Path(folder, "venv"), python, "--resolution", resolution, *wanted)
            tests = chosen or each.tests
            marked = MARKED_QUICK if quick else MARKED
            code, counts = test(inside, tests, marked, workers)
            tests += ", without slow and integration tests" if quick else ""
            about = {"commit": short_commit(DOCUMENT), "tests": tests, "result": counts}
            columns[each.heading] = {f"`{name}`": its for name, its in versions(inside).items()} | about
            worst = max(worst, code)
        write(mode, columns)
    return worst


def write(place: str, columns: dict[str, dict[str, str]]) -> None:
    """Write a table with a column for each environment, from its cells by the name of their row."""
    rows = [["package", *columns], ["---"] * (len(columns) + 1)]
    for row in (*(f"`{name}`" for name in SHOWN), "commit", "tests", "result"):
        rows.append([row, *(column.get(row, "-") for column in columns.values())])
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    print(table)
    insert(DOCUMENT, f"On {platform.system()} {platform.machine()}:\n\n{table}", place)


def columns_of(place: str) -> dict[str, dict[str, str]]:
    """The columns of the table that `write` has written."""
    part = DOCUMENT.read_text().partition(f"<!-- {place}:")[2].partition(f"<!-- end of {place}")[0]
    lines = [line.strip("| ").split(" | ") for line in part.splitlines() if line.startswith("| ")]
    heads, *rows = [line for line in lines if line[0] != "---"] or [["package"]]
    return {head: {row[0]: row[k] for row in rows} for k, head in enumerate(heads[1:], 1)}


def blocks(heading: str) -> str:
    """The README's Python blocks below a heading."""
    text = (ROOT / "README.md").read_text()
    part = re.search(rf"^## {re.escape(heading)}\n(.*?)^## ", text, re.M | re.S)
    assert part is not None, heading
    return "\n".join(re.findall(r"^```python\n(.*?)^```", part[1], re.M | re.S))


TRAINING = """
import subprocess
short = "--rounds 1 --clients 6 --clients-per-round 2 --epochs 1 --threads 1"
for line in (
    f"fedmrn train --dataset digits --method fedmrn --mask binary {short} --out runs/digits",
    "fedmrn report runs/digits -o report",
    "fedmrn train --list-presets",
):
    subprocess.run(line.split(), check=True)
assert subprocess.run(["fedmrn", "sweep"]).returncode == 2
"""

SUMS = """
import fedmrn_secagg
request = fm.Request(1, fm.Bernoulli(0.01), "signed", 1, 0, schema)
server = fedmrn_secagg.Server(request, clients=[1, 2, 3], threshold=2)
clients = {i: fedmrn_secagg.Client(i, request, threshold=2) for i in (1, 2, 3)}
roster = server.keys({i: c.keys() for i, c in clients.items()})
boxes = server.shares({i: c.shares(roster) for i, c in clients.items()})
one = request.encode(update)
survivors = server.masked({i: clients[i].masked(one, boxes[i]) for i in (1, 3)})
assert server.reveal({i: clients[i].reveal(survivors) for i in (1, 3)}).frames == 2
"""

SPENT = """
import fedmrn_secagg
accountant = fedmrn_secagg.Accountant(fm.Schema([fm.Tensor("w", (8,), masked=True)]), damping=0.5)
accountant.spend(10)
assert 0 < accountant.epsilon(1e-5) < 100
"""

RECEIVER = f"""
import subprocess, sys
example = {str(ROOT / "examples" / "receiver")!r}
subprocess.run([sys.executable, example + "/start.py", "receiver", "ann"], check=True)
options = "--wanted 1 --rounds 1 --port 8765".split()
command = [sys.executable, example + "/serve.py", "receiver", *options]
client = [sys.executable, example + "/client.py", "http://127.0.0.1:8765", "ann", "receiver/ann.token"]
with subprocess.Popen(command) as server:
    try:
        subprocess.run(client, check=True)
    finally:
        server.terminate()
"""


def examples() -> dict[str, str]:
    """Extra -> the Python program that is run with it alone; the empty extra is the package without any."""
    codec = blocks("The codec")
    shell = (
        "import subprocess, sys\nfrom fedmrn_codec.cli.examples import EXAMPLES\n"
        "from fedmrn_codec.cli.app import app\nimport typer.testing\n"
        "for verb in {verbs}:\n    for line in EXAMPLES[verb]:\n"
        "        subprocess.run(['bash', '-c', line], check=True)\n"
        "assert subprocess.run(['fedmrn', 'encode']).returncode == 2\n"
        "open('bad.fmrn', 'wb').write(frame[:100])\n"
        "assert subprocess.run(['fedmrn', 'verify', 'bad.fmrn']).returncode == 1\n"
    )
    save = "np.savez('update.npz', **update)\nfrom safetensors.numpy import save_file\n"
    save += "save_file(update, 'update.safetensors')\n"
    frames = ["encode", "inspect", "verify", "decode", "aggregate", "schema", "noise", "bench"]
    backend = "\nfor b in ({!r}, 'numpy'):\n    again = fm.decode(frame, schema, backend=b)\n"
    backend += "    assert all(again[k].tobytes() == v.tobytes() for k, v in arrays.items())\n"
    names = "import numpy as np\nimport fedmrn_codec as fm\n"
    return {
        "": codec,
        "numba": codec + backend.format("numba"),
        "onnx": codec + backend.format("onnx"),
        "torch": blocks("Masked training with PyTorch") + codec + backend.format("torch"),
        "flower": names + blocks("In Flower"),
        "nvflare": names + blocks("In NVFlare"),
        "envelope": codec + "\nkey = fm.Key.generate()\nring = fm.KeyRing({'ann': key.public})\n"
        "assert fm.unseal(fm.seal(frame, key), ring).frame == frame\n",
        "secagg": codec + SUMS,
        "privacy": codec + SPENT,
        "cli": codec + save + shell.format(verbs=frames),
        "conformance": codec + shell.format(verbs=["conformance"]),
        "receiver": names + RECEIVER,
        "reference": TRAINING,
        "ray": "from fedmrn_codec.cluster.ray import connected\nwith connected(None, ''): pass\n",
        "simulation": names + "import ray, flwr.simulation\n",
    }


def extras(chosen: str) -> int:
    """Install the wheel with each extra alone, run its example, and write the table; 0 if all succeed.

    With names of extras, separated by commas, others are not tested, and their rows stay.
    """
    failed, found = [], {}
    wanted = set(filter(None, chosen.split(",")))
    if unknown := wanted - set(examples()):
        sys.exit(f"extras: expected some of {', '.join(filter(None, examples()))}, got {', '.join(unknown)}")
    with tempfile.TemporaryDirectory(prefix="fedmrn-versions-") as folder:
        build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT]
        subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
        (wheel,) = Path(folder).glob("*.whl")
        for extra, program in examples().items():
            if wanted and extra not in wanted:
                continue
            print(f"extra {extra or 'none'}", flush=True)
            home = Path(folder, extra or "none")
            python = create(home, Path(sys.executable), f"{wheel}[{extra}]" if extra else wheel)
            (home / "work").mkdir()
            variables = os.environ | {"PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}"}
            variables.pop("PYTHONPATH", None)
            done = subprocess.run([python, "-c", program], cwd=home / "work", env=variables, check=False)
            found[extra or "none"] = row(extra or "none", versions(python), done.returncode)
            failed += [extra] if done.returncode else []
            shutil.rmtree(home)
    kept = rows_of("extras") | found
    names = [extra or "none" for extra in examples()]
    lines = ["| extra | example | installed |", "|---|---|---|", *(kept[n] for n in names if n in kept)]
    insert(DOCUMENT, "\n".join(lines), "extras")
    print(f"failed: {', '.join(failed)}" if failed else "every example runs")
    return bool(failed)


def row(extra: str, listed: dict[str, str], code: int) -> str:
    """The row of an extra: whether its example has run, and the versions installed with it."""
    shown = ", ".join(f"{name} {version}" for name, version in sorted(listed.items()))
    return f"| {extra} | {'fails' if code else 'runs'} | {shown} |"


def rows_of(place: str) -> dict[str, str]:
    """The rows of a table of the page, by the name in their first cell."""
    part = DOCUMENT.read_text().partition(f"<!-- {place}:")[2].partition(f"<!-- end of {place}")[0]
    return {line.split(" | ")[0].strip("| "): line for line in part.splitlines() if line.startswith("| ")}


def main() -> int:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("mode", choices=["newest", "lowest", "extras"])
    parser.add_argument("--tests", default="", help="other tests than those of each environment")
    parser.add_argument("--quick", action="store_true", help="leave out slow tests")
    only = "extras, separated by commas, or headings of columns, by semicolons; the rest of the table stays"
    parser.add_argument("--only", default="", help=only)
    parser.add_argument("--workers", default="auto", help="of pytest-xdist")
    given = parser.parse_args()
    if find_spec("uv") is None:
        sys.exit("uv: expected the package of the extra `dev`, got none")
    if given.mode == "extras":
        return extras(given.only)
    return run(given.mode, given.tests, given.quick, given.workers, given.only)


if __name__ == "__main__":
    sys.exit(main())
