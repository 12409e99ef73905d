"""A short run of every harness; and that harnesses find faults that are put into the readers."""

import contextlib
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fedmrn_codec as fm
from fedmrn_codec import backends
from fedmrn_codec.backends import numpy_rans12
from fedmrn_codec.cli import summaries
from fedmrn_codec.conformance.module import ModuleTarget
from fedmrn_codec.face import downlink_state, replay, request, toml
from fedmrn_codec.format import checked, codings
from fedmrn_codec.sums import partial, tally_bytes
from fedmrn_secagg import Client, Server, client
from fedmrn_secagg.errors import ChecksumError
from fedmrn_secagg.messages import Message

from . import compiled, mutator, seeds
from .harness import Finding, Harness, Result, run
from .message import read, repaired
from .models import Journals, Replicas, States
from .payloads import Codings
from .programs import Programs
from .run import ALL, HARNESSES, rows, table

COUNTS = {
    "frames": 400, "backends": 100, "partials": 1500, "tallies": 400, "codings": 150, "requests": 1500,
    "policies": 300, "rules": 500, "replicas": 80, "states": 80, "journals": 30, "secagg-server": 200,
    "secagg-client": 150, "secagg-states": 100, "secagg-rounds": 30, "shell": 25, "programs": 150,
}  # fmt: skip
needs_c = pytest.mark.skipif(
    not (shutil.which("cc") and shutil.which("make")), reason="cc and make are not both installed"
)


@contextlib.contextmanager
def opened(make: Callable[[], Harness]) -> Any:
    harness = make()
    try:
        yield harness
    finally:
        harness.close()


@pytest.mark.parametrize("name", HARNESSES)
def test_no_finding(name: str) -> None:
    with opened(HARNESSES[name]) as harness:
        result = run(harness, count=COUNTS[name])
    assert [finding.error for finding in result.findings] == []
    assert result.executions == COUNTS[name]
    assert result.new


@needs_c
def test_no_finding_in_c(tmp_path: Path) -> None:
    result = compiled.alone(tmp_path, 4000)
    assert [finding.error for finding in result.findings] == []
    assert result.executions == 4000


# --- planted faults ---------------------------------------------------------------------------------


def _wrong_torch(patch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    module: Any = backends.get("torch")
    right = module.decode

    def wrong(noise: Any, kind: int, seed: int, stream: int, payload: np.ndarray, out: np.ndarray) -> None:
        right(noise, kind, seed, stream, payload, out)
        out[out == 0] = -0.0

    patch.setattr(module, "decode", wrong)


def _lost_model(patch: pytest.MonkeyPatch) -> None:
    right = fm.Replica.apply

    def wrong(self: Any, data: Any, model_id: int | None = None) -> Any:
        try:
            return right(self, data, model_id)
        except fm.FrameError:
            self._held = None
            raise

    patch.setattr(fm.Replica, "apply", wrong)


def _any_end(patch: pytest.MonkeyPatch) -> None:
    """Numbers that are left after the last element are not noticed."""
    right = numpy_rans12.decode
    patch.setattr(numpy_rans12, "decode", lambda *given: (np.zeros(0, np.int64), *right(*given)[1:]))


def _any_checksum(patch: pytest.MonkeyPatch) -> None:
    right = Message.body

    def wrong(self: Message, size: int) -> memoryview:
        try:
            return right(self, size)
        except ChecksumError:
            return self.view[48:-4]

    patch.setattr(Message, "body", wrong)


FAULTS: dict[str, tuple[Callable[[], Harness], Callable[[pytest.MonkeyPatch], object], int]] = {
    "any length of a payload": (
        HARNESSES["frames"],
        lambda patch: patch.setattr(codings, "lengths", lambda *given: (0, 2**63)),
        600,
    ),
    "-0.0 on one backend": (HARNESSES["backends"], _wrong_torch, 60),
    "any size of a sum": (
        HARNESSES["partials"],
        lambda patch: patch.setattr(partial, "_check_sums", lambda *given: None),
        1500,
    ),
    "any padding of counts": (
        HARNESSES["tallies"],
        lambda patch: patch.setattr(tally_bytes, "_check_padding", lambda *given: None),
        1500,
    ),
    "any end of a coded block": (lambda: Codings(["numpy"]), _any_end, 600),
    "any text as a number": (
        HARNESSES["requests"],
        lambda patch: patch.setattr(request, "_number", lambda entries, name: int(entries[name])),
        1500,
    ),
    "any text as a number in TOML": (
        HARNESSES["policies"],
        lambda patch: patch.setattr(toml, "integer", lambda value, field: int(value, 0)),
        600,
    ),
    "a model that a refused frame ends": (Replicas, _lost_model, 100),
    "any names in a state": (
        States,
        lambda patch: patch.setattr(
            downlink_state,
            "_checked",
            lambda about, frames, schema: downlink_state.State(
                *(about[name] for name in downlink_state.State._fields[:-1]), frames
            ),
        ),
        300,
    ),
    "exceptions of a journal as they are": (
        Journals,
        lambda patch: patch.setattr(replay, "_reported", contextlib.nullcontext),
        100,
    ),
    "any checksum of a message to a server": (HARNESSES["secagg-server"], _any_checksum, 600),
    "any survivors": (
        HARNESSES["secagg-client"],
        lambda patch: patch.setattr(Client, "_check_survivors", lambda *given: None),
        600,
    ),
    "any state of a client": (
        HARNESSES["secagg-states"],
        lambda patch: patch.setattr(client, "check", lambda *given: None),
        600,
    ),
    "pads of clients that have dropped out": (
        HARNESSES["secagg-rounds"],
        lambda patch: patch.setattr(
            Server, "_needed", lambda self, alive: [p for p in sorted(self._boxes) if alive[p]]
        ),
        100,
    ),
    "a verb that fails": (
        HARNESSES["shell"],
        lambda patch: patch.setattr(summaries, "of_frame", lambda info: 1 // 0),
        30,
    ),
    "padding that is not looked at": (
        lambda: Programs([ModuleTarget("fedmrn_codec", "numpy")]),
        lambda patch: patch.setattr(checked, "padding_is_zero", lambda raw, size: True),
        1000,
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make, plant, count = FAULTS[fault]
    with opened(make) as harness:
        harness.seeds()  # made before the fault is there
        plant(monkeypatch)
        assert run(harness, count=count, most_findings=1).findings
        monkeypatch.undo()


@needs_c
def test_a_fault_in_c_is_found(tmp_path: Path) -> None:
    check = "if (frame->minor != minor) return fedmrn__fail(FEDMRN_MINOR, 5);"
    headers = tmp_path / "c"
    shutil.copytree(compiled.HEADERS, headers)
    text = (headers / "fedmrn.h").read_text()
    assert text.count(check) == 1
    (headers / "fedmrn.h").write_text(text.replace(check, ""))
    (finding,) = compiled.alone(tmp_path, 20_000, headers=headers).findings
    assert "a frame has two forms" in finding.error


# --- the tool ---------------------------------------------------------------------------------------


def test_the_parts_of_a_message_give_the_same_bytes() -> None:
    for data in (*seeds.frames(), *seeds.partials(), *seeds.tallies(), b"", b"FMRN", b"FMRS" + bytes(60)):
        assert read(data, seeds.tensors_of(data[32:48])).write() == data


def test_what_is_right_is_not_repaired() -> None:
    rng = random.Random(0)
    for data in seeds.made_frames():
        assert repaired(read(data), rng, often=1.0) == data


def test_the_same_seed_gives_the_same_inputs() -> None:
    pool = seeds.frames()
    one, other = ([mutator.messages(random.Random(n), pool) for n in range(200)] for _ in range(2))
    assert one == other
    assert len(set(one)) > 190


def test_a_finding_is_kept(tmp_path: Path) -> None:
    class Fails(Harness):
        name = "fails"

        def seeds(self) -> list[bytes]:
            return [b"a", b"b"]

        def change(self, rng: random.Random, pool: Any) -> bytes:
            return mutator.any_bytes(rng, pool[0])

        def check(self, data: bytes) -> object:
            if data == b"b":
                raise KeyError(data)
            return len(data) > 1

    result = run(Fails(), count=50)
    (finding,) = result.findings
    path = finding.write(tmp_path)
    assert path.read_bytes() == b"b"
    assert "KeyError" in path.with_suffix(".txt").read_text()
    assert len(result.new) == 1


def test_rows_of_other_harnesses_stay() -> None:
    first = table(rows([Result(name, 1000) for name in ALL], "1234567"))
    assert "| all | | | " + f"{1000 * len(ALL):,} | 0 | |" in first
    finding = Finding("c", b"", "")
    new = rows([Result("c", 5, [finding]), Result("partials (atheris)", skipped="why")], "7654321")
    second = table(new, first)
    assert "| all | | | " + f"{1000 * (len(ALL) - 2) + 5:,} | 1 | |" in second
    assert second.count("skipped: why") == 1
    assert table({}, second) == second


def test_the_corpus_is_of_known_harnesses() -> None:
    names = {path.stem for path in seeds.CORPUS.glob("*.txt")}
    assert names <= {name.split(" ")[0] for name in ALL}
    for name in names:
        assert seeds.finds(name)
