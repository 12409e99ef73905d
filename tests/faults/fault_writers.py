"""What is written to the disk, by the functions that write it: how it is made, changed and read."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import journals

import fedmrn_codec as fm
from fedmrn_codec.adapter_api import ServerNoise
from fedmrn_codec.cli import files, tensors
from fedmrn_codec.cli.dense import Dense
from fedmrn_codec.primitives import atomic
from reference_fl import record

SCHEMA = fm.Schema([fm.Tensor("w", (6, 30), masked=True), fm.Tensor("b", (4,))])
NOISE = fm.Uniform(0.01)


def made(seed: int) -> dict[str, np.ndarray]:
    """An update of the schema."""
    rng = np.random.default_rng(seed)
    return {t.name: rng.normal(0, 0.01, t.shape).astype(np.float32) for t in SCHEMA}


def frame(seed: int, noise: object = NOISE) -> bytes:
    """A frame of that update."""
    return fm.encode(made(seed), SCHEMA, seed=seed, noise=noise, private_seed=seed + 2**32, backend="numpy")


def summed(*seeds: int, noise: object = NOISE) -> fm.Aggregator:
    """An aggregator of such frames."""
    out = fm.Aggregator(SCHEMA, noise=noise, backend="numpy")
    for seed in seeds:
        out.add(frame(seed, noise), seed)
    return out


@dataclass
class Writer:
    """One thing that is written into a folder.

    Attributes
    ----------
    name : str
    make, change : function of the folder
        They write the old and the new state.
    read : function of the folder, to str
        The state, after every check that a reader makes.
    """

    name: str
    make: Callable[[Path], object]
    change: Callable[[Path], object]
    read: Callable[[Path], str]

    def __post_init__(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="fedmrn-faults-"))
        self.make(self._folder("old"))
        self.make(self._folder("new"))
        self.change(self.home / "new")
        self.old, self.new = self.read(self.home / "old"), self.read(self.home / "new")
        assert self.old != self.new
        self.names = {path.name for folder in ("old", "new") for path in (self.home / folder).iterdir()}
        self.largest = max(path.stat().st_size for path in (self.home / "new").iterdir())

    def _folder(self, name: str) -> Path:
        folder = self.home / name
        folder.mkdir()
        return folder

    def copy(self) -> Path:
        """A folder with the old state, in the place of the last one."""
        shutil.rmtree(self.home / "now", ignore_errors=True)
        return Path(shutil.copytree(self.home / "old", self.home / "now"))

    def state(self, folder: Path, *, temporary: bool) -> str:
        """Which state a folder has; an error if it is a mix, or has files that do not belong there."""
        found = self.read(folder)
        assert found in (self.old, self.new), f"{self.name}: neither old nor new: {found}"
        rest = {path.name for path in folder.iterdir()} - self.names
        left = {name for name in rest if name.startswith(atomic.PREFIX) and name.endswith(atomic.SUFFIX)}
        assert rest == (left if temporary else set()), f"{self.name}: files left: {sorted(rest)}"
        return "old" if found == self.old else "new"

    def remove(self) -> None:
        """Remove the folders."""
        shutil.rmtree(self.home)


def digest(*parts: bytes) -> str:
    """A short text that is another one for other bytes."""
    return hashlib.sha256(b"".join(parts)).hexdigest()


def of_arrays(arrays: dict[str, np.ndarray]) -> str:
    """The same for arrays."""
    return digest(*(arrays[name].tobytes() for name in sorted(arrays)))


def frame_file() -> Writer:
    """A frame, as the command writes it."""
    return Writer(
        "frame",
        lambda folder: files.write(str(folder / "a.fmrn"), [frame(1)]),
        lambda folder: files.write(str(folder / "a.fmrn"), [frame(2)[:50], frame(2)[50:]]),
        lambda folder: of_arrays(fm.decode((folder / "a.fmrn").read_bytes(), SCHEMA, backend="numpy")),
    )


def partial_sum() -> Writer:
    """A partial sum, as the command writes it."""

    def read(folder: Path) -> str:
        got = fm.Aggregator.from_bytes((folder / "a.fmrs").read_bytes(), SCHEMA, backend="numpy")
        return of_arrays(got.mean())

    return Writer(
        "partial sum",
        lambda folder: files.write(str(folder / "a.fmrs"), [summed(1).to_bytes()]),
        lambda folder: files.write(str(folder / "a.fmrs"), [summed(1, 2).to_bytes()]),
        read,
    )


def decoded(name: str) -> Writer:
    """Decoded tensors in a file, as the command writes them."""

    def write(folder: Path, seed: int) -> None:
        arrays = fm.decode(frame(seed), SCHEMA, backend="numpy")
        dense = {n: Dense("float32", array) for n, array in arrays.items()}
        tensors.save(str(folder / name), tensors.TensorFile(dense, tensors.Format.NPZ))

    def read(folder: Path) -> str:
        return of_arrays({n: t.array for n, t in tensors.load(str(folder / name)).tensors.items()})

    return Writer(f"tensors, {name}", lambda f: write(f, 1), lambda f: write(f, 2), read)


@contextmanager
def refused_logs() -> Iterator[None]:
    """OSError at the end of the block if the library has logged something."""
    said: list[str] = []
    handler, logger = logging.Handler(), logging.getLogger("fedmrn_codec")
    handler.emit = lambda entry: said.append(entry.getMessage())  # type: ignore[method-assign]
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
    if said:
        raise OSError(said[0])


def noise_state() -> Writer:
    """The state of the noise rule, as the plug-ins of servers write it."""
    model = made(9)

    def observe(folder: Path) -> None:
        server = ServerNoise(None, "binary", state=folder / "noise.json")
        noise = server.of(SCHEMA, model)
        with refused_logs():  # a server goes on, and the log says that the rule is not saved
            server.observe(summed(1, 2, noise=noise))

    def read(folder: Path) -> str:
        (entries,) = json.loads((folder / "noise.json").read_bytes()).values()
        return str(fm.AdaptiveNoise.from_json(entries).noise)

    return Writer("noise rule", observe, observe, read)


def journal() -> Writer:
    """A journal, to which a round is added."""
    home = Path(tempfile.mkdtemp(prefix="fedmrn-faults-"))
    server = journals.Server(home).run(1)
    model, down = server.model, server.down.to_bytes()
    arguments = server.ask(2)
    server.journal.close()
    shutil.rmtree(home)

    def change(folder: Path) -> None:
        held = fm.Downlink.from_bytes(down, journals.SCHEMA, backend="numpy")
        last = list(fm.replay(folder, backend="numpy"))[-1]
        if last.round == 2:
            held.advance(arguments[2])
        with fm.Journal(folder, journals.SCHEMA, last.model, held) as opened:
            if opened.round == 1:
                held.advance(arguments[2])
                opened.append(*arguments)

    def read(folder: Path) -> str:
        last = list(fm.replay(folder, backend="numpy"))[-1]
        assert last.model_id == server.ids[last.round]
        return f"round {last.round}"

    assert model.keys() == arguments[2].keys()
    return Writer("journal", lambda f: journals.Server(f).run(1).journal.close(), change, read)


def line(number: int) -> dict[str, object]:
    """The line of a round in the results of a run."""
    return dict.fromkeys(record.ROUND_KEYS, 0) | {"round": number}


def results() -> Writer:
    """The results and the state of a run, to which a round is added; what its continuation would read."""
    import safetensors.numpy

    def add(folder: Path) -> None:
        done = record._finished_rounds(folder / record.STATE)
        lines = record.read(folder / record.METRICS) if (folder / record.METRICS).exists() else []
        rounds = lines[0][1][:done] if lines else []
        state = safetensors.numpy.save({"w": np.full(40, done + 1)}, {"round": str(done + 1)})
        with record.Record(folder, {"settings": {"rounds": 2}}, rounds) as opened:
            opened.append(line(done + 1), state, {"traffic": {"round": done + 1}})

    def read(folder: Path) -> str:
        done = record._finished_rounds(folder / record.STATE)
        ((header, rounds),) = record.read(folder / record.METRICS)
        assert header["settings"] == {"rounds": 2}
        assert [each["round"] for each in rounds[:done]] == list(range(1, done + 1))
        assert len(rounds) in (done, done + 1)
        state = safetensors.numpy.load((folder / record.STATE).read_bytes())
        assert state["w"].tolist() == [done] * 40
        return f"round {done}"

    return Writer("results of a run", add, add, read)


WRITERS: dict[str, Callable[[], Writer]] = {
    "frame": frame_file,
    "partial sum": partial_sum,
    "tensors.npz": lambda: decoded("a.npz"),
    "tensors.safetensors": lambda: decoded("a.safetensors"),
    "noise rule": noise_state,
    "journal": journal,
    "results": results,
}

assert os.name == "posix"
