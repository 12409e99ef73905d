"""All harnesses, one after the other: their time, their results, and the table of them."""

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from . import compiled, guided
from .codec import Backends, Frames, Partials, Tallies
from .harness import Harness, Result, run
from .models import Journals, Replicas, States
from .payloads import Codings
from .programs import Programs
from .secagg import SecAggClient, SecAggServer, SecAggStates
from .secagg_rounds import SecAggRounds
from .shell import Shell
from .texts import Policies, Requests, Rules

ROOT = Path(__file__).resolve().parents[2]
HARNESSES: dict[str, Callable[[], Harness]] = {
    each.name: each  # type: ignore[misc]
    for each in (
        Frames, Backends, Partials, Tallies, Codings, Requests, Policies, Rules, Replicas, States, Journals,
        SecAggServer, SecAggClient, SecAggStates, SecAggRounds, Shell, Programs,
    )
}  # fmt: skip
ABOUT = {
    "frames": "`inspect`, `verify`, `decode`, `Request.check`, `Policy.check`, `Aggregator.add`",
    "backends": "the same on every backend: equal bytes or the same error",
    "partials": "partial sums: `Aggregator.from_bytes`, `merge`, `mean`; one form only",
    "tallies": "`Tally.from_bytes`, `merge`, `Aggregator.add_tally`; one form only",
    "codings": "payloads of codings 1, 4 and 5, decoded and encoded, with NumPy and Numba",
    "requests": "`Request.from_dict`, `Schema.from_json`",
    "policies": "`Policy.from_toml`",
    "rules": "`AdaptiveNoise.from_json`",
    "replicas": "`Replica.apply`: a refused frame changes nothing",
    "states": "`Downlink.from_bytes`",
    "journals": "`replay` of changed journals",
    "secagg-server": "messages to `fedmrn_secagg.Server`: the code of the first check, or the right sum",
    "secagg-client": "messages to `fedmrn_secagg.Client`: the code of the first check, or the right sum",
    "secagg-states": "`fedmrn_secagg.Client.from_bytes`, and the rest of the round",
    "secagg-rounds": "rounds with several faults: the sum of the survivors' frames, or none",
    "shell": "the verbs of `fedmrn` on any files",
    "programs": "oracle, library, C and JavaScript: the same code or the same bytes",
    compiled.NAME: "`fedmrn.h` with sanitizers: frames, partial sums, tallies, codings, `fedmrn_apply`",
}
GUIDED = tuple(f"{name} (atheris)" for name in guided.NAMES)
ALL = (*HARNESSES, *GUIDED, compiled.NAME)
SHARE = {compiled.NAME: 6.0, "programs": 3.0, "backends": 2.0, "partials": 2.0}
"""The shares of the time; 1 for the others."""

HEAD = ["| harness | what it tests | inputs | executions | findings | commit |", "|---|---|---|---|---|---|"]


def run_all(names: Sequence[str], seconds: float, seed: int, tell: Callable[[Result], None]) -> list[Result]:
    """Run harnesses by name, one after the other; each has its share of the time."""
    whole = sum(SHARE.get(name, 1.0) for name in names)
    results = []
    for name in names:
        with tempfile.TemporaryDirectory(prefix="fedmrn-fuzz-") as folder:
            results.append(run_one(name, seconds * SHARE.get(name, 1.0) / whole, seed, Path(folder)))
        tell(results[-1])
    return results


def run_one(name: str, seconds: float, seed: int, folder: Path) -> Result:
    """Run one harness for this time."""
    if name == compiled.NAME:
        return compiled.guided(folder, seconds, seed)
    if name in GUIDED:
        return guided.run(name.split(" ")[0], folder, seconds, seed)
    harness = HARNESSES[name]()
    try:
        return run(harness, seconds=seconds, seed=seed)
    finally:
        harness.close()


def repeat(name: str, path: Path) -> Result:
    """Give one input to a harness."""
    if name == compiled.NAME:
        with tempfile.TemporaryDirectory(prefix="fedmrn-fuzz-") as folder:
            return compiled.repeat(Path(folder), path)
    harness = HARNESSES[name.split(" ")[0]]()
    try:
        return run(Single(harness, path.read_bytes()), count=1)
    finally:
        harness.close()


class Single(Harness):
    """A harness with one input only."""

    def __init__(self, harness: Harness, data: bytes) -> None:
        self.name, self._harness, self._data = harness.name, harness, data

    def seeds(self) -> Sequence[bytes]:
        return [self._data]

    def change(self, rng: object, pool: Sequence[bytes]) -> bytes:
        return self._data

    def check(self, data: bytes) -> object:
        return self._harness.check(data)


def rows(results: Iterable[Result], version: str) -> dict[str, str]:
    """A row of the table in Markdown for each harness, by its name; `version` is the commit tested."""
    out = {}
    for each in results:
        name = each.harness.split(" ")[0]
        count = f"skipped: {each.skipped}" if each.skipped else f"{each.executions:,}"
        cells = name, ABOUT[name], inputs_of(each.harness), count, len(each.findings), version
        out[each.harness] = f"| {' | '.join(map(str, cells))} |"
    return out


def inputs_of(name: str) -> str:
    """Where the inputs of a harness come from."""
    if name in GUIDED:
        return "atheris"
    return "libFuzzer" if name == compiled.NAME else "changed vectors"


def table(new: Mapping[str, str], former: str = "") -> str:
    """The table in Markdown; rows of harnesses that did not run are those of the former one."""
    kept = dict.fromkeys(ALL, "")
    for line in former.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        name = f"{cells[0]} (atheris)" if "atheris" in cells else cells[0]
        if name in kept:
            kept[name] = line
    chosen = [row for row in (kept | dict(new)).values() if row]
    counts = [row.split(" | ")[3:5] for row in chosen]
    total = sum(int(count.replace(",", "")) for count, _ in counts if not count.startswith("skipped"))
    found = sum(int(findings) for _, findings in counts)
    return "\n".join([*HEAD, *chosen, f"| all | | | {total:,} | {found} | |"])


def former(document: str) -> str:
    """The table that a document has between its comments."""
    return document.partition("<!-- fuzzing")[2].partition("<!-- end of fuzzing -->")[0]
