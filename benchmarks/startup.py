"""Start of a second process: import and first decode, with the compiled code cached on disk by the first."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from .frames import made_frame
from .plan import Plan
from .tables import Section, Table, Target, number
from .timing import in_turns

BACKENDS = "numba", "numpy"
SCRIPT = """
import sys, time
start = time.perf_counter()
import fedmrn_codec as fm
fm.decode(open(sys.argv[1], "rb").read(), backend=sys.argv[2])
print(time.perf_counter() - start)
"""


def run(plan: Plan) -> Section:
    """Seconds by backend, and the acceptance target."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "frame.fmrn")
        path.write_bytes(made_frame(plan.model, embed_schema=True))
        cold, _ = first_decode(path, "numba")
        times = in_turns({name: partial(first_decode, path, name) for name in BACKENDS}, plan.processes + 1)
    # The first round, which fills the disk's cache, is left out.
    inner, whole = ({name: [pair[i] for pair in times[name][1:]] for name in BACKENDS} for i in (0, 1))
    rows = [[n, number(statistics.median(inner[n])), number(statistics.median(whole[n]))] for n in BACKENDS]
    rows.append(["numba, nothing cached", number(cold), ""])
    title = f"Seconds of a new process to import and to decode a {plan.model.upper()} frame"
    over = statistics.median(
        mine - 1.5 * its for mine, its in zip(inner["numba"], inner["numpy"], strict=True)
    )
    name = "second process: seconds beyond 1.5 times NumPy's"
    heads = "backend", "import and decode", "whole process"
    return Section([Table(title, heads, rows)], [Target(name, over, 0.5, at_least=False)])


def first_decode(path: Path, backend: str) -> tuple[float, float]:
    """Seconds of import and decode, and of the whole process; compiled code is cached beside the frame."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(path.parent / "cache")}
    start = time.perf_counter()
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(path), backend],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - start
    if result.returncode:
        raise RuntimeError(f"decoding with {backend} in a new process failed:\n{result.stderr}")
    return float(result.stdout), seconds
