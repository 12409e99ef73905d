"""The harness of the decoder in C: `fuzz.c` with libFuzzer and sanitizers, or without libFuzzer (`alone`)."""

import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from . import seeds
from .harness import Finding, Result, joined

NAME = "c"
SOURCE = Path(__file__).with_name("fuzz.c")
HEADERS = Path(__file__).resolve().parents[2] / "spec" / "decoders" / "c"
FLAGS = (
    "-std=c99",
    "-ffp-contract=off",
    "-O1",
    "-g",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-fno-sanitize-recover=all",
)
MOST_BYTES = 1500
# To look at the operands of comparisons takes two thirds of the time, and the mutator knows the fields.
LIBFUZZER = ("-O2", "-fsanitize=fuzzer,address,undefined", "-fno-sanitize-coverage=trace-cmp")


def build(folder: Path, compiler: str, *flags: str, headers: Path = HEADERS) -> Path:
    """Compile the target; the program. RuntimeError with the compiler's words if that fails."""
    program = folder / "fuzz"
    command = [compiler, *FLAGS, *flags, f"-I{headers}", "-o", program, SOURCE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{compiler}: expected a program, got: {done.stderr[-2000:]}")
    return program


def write_seeds(folder: Path, items: Iterable[bytes]) -> list[Path]:
    """Write each input to a file of its own; the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, data in enumerate(items):
        paths.append(folder / f"{number:05}")
        paths[-1].write_bytes(data)
    return paths


def inputs() -> list[bytes]:
    """The inputs to begin with: messages with schemas, updates to encode, and the corpus."""
    pool = (*seeds.frames(), *seeds.large_frames(), *seeds.partials(), *seeds.tallies())
    messages = [seeds.with_schema(data) for data in pool]
    few = bytes((i * 37) % 256 * (i % 9 == 0) for i in range(600))
    scale = (0x3F800000).to_bytes(4, "little")
    updates = [
        b"\0\0" + bytes([kind, type_, coding]) + scale + bytes(8) + few
        for kind in range(4)
        for type_ in (1, 2, 3, 4)
        for coding in range(6)
    ]
    return [data for data in joined(messages, updates, seeds.finds(NAME)) if len(data) <= MOST_BYTES]


def alone(folder: Path, count: int, seed: int = 0, headers: Path = HEADERS) -> Result:
    """Run the target without libFuzzer on seeds and changed seeds; any C compiler with sanitizers will do."""
    program = build(folder, "cc", "-DALONE", "-fsanitize=address,undefined", headers=headers)
    paths = write_seeds(folder / "seeds", inputs())
    done = subprocess.run(
        [program, str(count), str(seed), *paths], capture_output=True, text=True, check=False
    )
    result = Result(NAME, executions=int(done.stdout or 0))
    if done.returncode:
        result.findings.append(Finding(NAME, b"", done.stderr))
    return result


def guided(folder: Path, seconds: float, seed: int = 0) -> Result:
    """Run the target with libFuzzer; `new` are the inputs that cover what the seeds do not."""
    if shutil.which("clang") is None:
        return Result(NAME, skipped="clang is not installed")
    program = build(folder, "clang", *LIBFUZZER)
    begin, grown, found = (folder / name for name in ("seeds", "grown", "found"))
    for path in (grown, found):
        path.mkdir(exist_ok=True)
    write_seeds(begin, inputs())
    options = [
        f"-max_len={MOST_BYTES}",
        f"-seed={seed + 1}",
        "-rss_limit_mb=4096",
        "-timeout=25",
        "-verbosity=1",
    ]
    more = [f"-max_total_time={max(1, int(seconds))}", f"-artifact_prefix={found}/", "-print_final_stats=1"]
    done = subprocess.run(
        [program, *options, *more, grown, begin], capture_output=True, text=True, check=False, cwd=folder
    )
    counted = re.findall(r"number_of_executed_units: (\d+)|^#(\d+)\s", done.stderr, re.MULTILINE)
    result = Result(NAME, executions=max((int(a or b) for a, b in counted), default=0))
    for path in sorted(found.iterdir()):
        result.findings.append(Finding(NAME, path.read_bytes(), done.stderr[-8000:]))
    if done.returncode and not result.findings:
        result.findings.append(Finding(NAME, b"", done.stderr[-8000:]))
    result.new = smallest(program, folder, begin, grown)
    return result


def smallest(program: Path, folder: Path, begin: Path, grown: Path) -> list[bytes]:
    """Those of the grown inputs that together cover what the seeds do not, by libFuzzer's merge."""
    merged = folder / "merged"
    shutil.copytree(begin, merged, dirs_exist_ok=True)
    command = [program, "-merge=1", f"-max_len={MOST_BYTES}", merged, grown]
    subprocess.run(command, capture_output=True, check=False, cwd=folder)
    names = {path.name for path in begin.iterdir()}
    return [path.read_bytes() for path in sorted(merged.iterdir()) if path.name not in names]


def repeat(folder: Path, path: Path) -> Result:
    """Give one input to the target."""
    program = build(folder, "cc", "-DALONE", "-fsanitize=address,undefined")
    done = subprocess.run([program, "1", "0", path], capture_output=True, text=True, check=False)
    findings = [Finding(NAME, path.read_bytes(), done.stderr)] if done.returncode else []
    return Result(NAME, 1, findings)
