"""A journal holds what a replay needs, finds every change, and survives a crash at any moment."""

import errno
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
import zlib
from contextlib import suppress
from pathlib import Path

import journals
import numpy as np
import pytest

import fedmrn_codec as fm
from fedmrn_codec.face import journal_files
from fedmrn_codec.primitives import atomic


def replayed(folder, backend="numpy"):
    return list(fm.replay(folder, backend=backend))


def same(one, other):
    return {n: a.tobytes() for n, a in one.items()} == {n: a.tobytes() for n, a in other.items()}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A journal of 3 rounds; not to be changed."""
    folder = tmp_path_factory.mktemp("journal") / "small"
    return folder, journals.written(folder)


@pytest.fixture
def copy(small, tmp_path):
    return Path(shutil.copytree(small[0], tmp_path / "copy"))


@pytest.mark.parametrize("backend", ["numpy", "numba", "torch", "onnx"])
def test_a_replay_gives_the_server_s_models(small, backend):
    folder, server = small
    states = replayed(folder, backend)
    assert {state.round: state.model_id for state in states} == server.ids
    assert same(states[-1].model, server.model)
    assert same(states[-1].held, server.down.model)
    assert states[-1].steps == server.down.steps
    assert states[-1].digest == server.journal.digest
    assert [state.given for state in states] == [("w", "b"), (), (), ()]
    assert [(a.client, a.weight) for a in states[2].frames] == [("client0", 100), ("client1", 101)]
    assert states[2].total.frames == 2


def test_a_client_can_follow_the_frames_of_the_journal(small):
    replica = fm.Replica(journals.SCHEMA)
    for entry in journal_files.entries(str(small[0])):
        replica.apply(entry.downlink)
        assert str(replica.model_id) == entry.about["model_id"]


def momentum(model, mean):
    return {
        name: np.asarray(array + np.asarray(2 * mean[name], array.dtype)) for name, array in model.items()
    }


def only_bias(model, mean):
    out = fm.apply(model, mean)
    return out | {"b": out["b"] * np.float32(0.5)}


@pytest.mark.parametrize(
    ("optimizer", "given"), [(momentum, ("w", "b", "count")), (only_bias, ("b",)), (fm.apply, ())]
)
@pytest.mark.parametrize("grid", [True, False])
def test_a_server_s_own_step_is_kept(tmp_path, optimizer, given, grid):
    server = journals.written(tmp_path, optimizer=optimizer, grid=grid)
    states = replayed(tmp_path)
    assert [state.given for state in states[1:]] == [given] * 3
    assert same(states[-1].model, server.model)
    assert states[-1].model_id == server.held_id


ALL = fm.Schema(
    [
        fm.Tensor("w", (3, 2), masked=True),
        fm.Tensor("half", (2, 2), masked=True),
        fm.Tensor("bf", (3,), dtype="bfloat16"),
        fm.Tensor("double", (2,), dtype="float64"),
        fm.Tensor("flag", (5,), dtype="bool"),
        fm.Tensor("empty", (0, 2), masked=True),
        fm.Tensor("größe/file", (2,), dtype="uint8"),
    ]
)


@pytest.mark.parametrize("grid", [True, False])
def test_every_dtype_and_arrays_outside_of_the_schema(tmp_path, grid):
    model = journals.start(ALL, buffer=np.array([1.5, 2.0]))
    model["half"] = model["half"].astype(np.float16)
    model["bf"] = np.array([0x3F80, 0xBF81, 0x0000], np.uint16)

    def step(model, mean):
        return fm.apply(model, mean, ALL)

    server = journals.written(tmp_path, model=model, schema=ALL, grid=grid, optimizer=step)
    states = replayed(tmp_path)
    assert same(states[-1].model, server.model)
    assert {n: a.dtype for n, a in states[-1].model.items()} == {n: a.dtype for n, a in model.items()}
    assert states[-1].model_id == server.held_id


def test_thirty_rounds(tmp_path):
    server = journals.written(tmp_path, rounds=30)
    states = replayed(tmp_path, None)
    assert {state.round: state.model_id for state in states} == server.ids
    assert len(set(server.ids.values())) == 31


# --- changes


def found(folder, file, number=None):
    """Assert that a replay fails and names the file, and the round if one is given."""
    with pytest.raises(fm.errors.JournalError) as caught:
        replayed(folder)
    assert caught.value.file == file, caught.value
    assert str(caught.value).startswith(f"{file}, ")
    if number is not None:
        assert f"{file}, round {number}" in str(caught.value)
    return caught.value


def damaged(folder, file):
    """Assert that the checks of the files, with which a replay begins, fail and name the file."""
    with pytest.raises(fm.errors.JournalError) as caught:
        for _ in journal_files.entries(str(folder)):
            pass
    assert caught.value.file == file, caught.value


def changed(path, data):
    """Replace the bytes of a file for the time of a `with` block."""

    class Changed:
        def __enter__(self):
            self.kept = path.read_bytes()
            path.write_bytes(data)

        def __exit__(self, *_):
            path.write_bytes(self.kept)

    return Changed()


SPARSE = 97
"""One of so many changes is also shown to the replay itself, which takes longer than the checks of files."""

FILES = [*(f"round-{number:06}.fmrj" for number in range(4)), "head.json"]


def test_the_files_are_those_of_the_page(small):
    assert sorted(os.listdir(small[0])) == sorted([*FILES, ".lock"])
    assert (small[0] / ".lock").stat().st_size == 0


@pytest.mark.parametrize("name", FILES)
def test_every_changed_byte_is_found(copy, name):
    path, rng = copy / name, np.random.default_rng(1)
    data = path.read_bytes()
    for at in range(len(data)):
        other = bytearray(data)
        other[at] ^= int(rng.integers(1, 256))
        with changed(path, other):
            damaged(copy, name)
            if at % SPARSE == 0:
                found(copy, name)
    replayed(copy)


@pytest.mark.parametrize("name", FILES)
def test_every_truncation_is_found(copy, name):
    path = copy / name
    data = path.read_bytes()
    for length in range(len(data)):
        with changed(path, data[:length]):
            damaged(copy, name)
            if length % SPARSE == 0:
                found(copy, name)
    with changed(path, data + b"\n"):
        found(copy, name)


def test_deleted_files_are_found(copy):
    for number, after in ((0, 0), (1, 2), (2, 3), (3, 3)):
        path = copy / FILES[number]
        data = path.read_bytes()
        path.unlink()
        found(copy, FILES[after], after)
        path.write_bytes(data)
    (copy / "head.json").unlink()
    found(copy, "head.json")
    for number in (3, 2, 1, 0):
        (copy / FILES[number]).unlink()
        found(copy, "head.json")


def test_the_last_rounds_cut_off_are_found(copy):
    (copy / FILES[3]).unlink()
    assert "round 3, file: expected one, since head.json names it, got none" in str(found(copy, FILES[3], 3))
    (copy / FILES[2]).unlink()
    found(copy, FILES[3], 3)


def test_reordered_and_renamed_files_are_found(copy):
    first, second, third = (copy / FILES[number] for number in (1, 2, 3))
    data = first.read_bytes(), second.read_bytes()
    first.write_bytes(data[1])
    second.write_bytes(data[0])
    found(copy, FILES[1], 1)
    first.write_bytes(data[0])
    found(copy, FILES[2], 2)
    second.write_bytes(data[1])
    replayed(copy)
    third.rename(copy / "round-000004.fmrj")
    found(copy, "round-000004.fmrj", 4)
    for name in ("round-3.fmrj", "round-0000003.fmrj", "round-000003.fmrj.bak", "notes.txt"):
        (copy / "round-000004.fmrj").rename(copy / name)
        assert found(copy, name).got == repr(name)
        (copy / name).rename(copy / "round-000004.fmrj")


def test_a_round_of_another_journal_is_found(copy, tmp_path):
    other = tmp_path / "other"
    journals.written(other, model=journals.start() | {"count": np.array(5, np.int64)})
    shutil.copy(other / FILES[2], copy / FILES[2])
    damaged(copy, FILES[2])
    found(copy, FILES[2], 2)


def test_a_round_that_differs_in_a_name_only_is_found_where_it_is_referred_to(small, tmp_path):
    server = journals.Server(tmp_path).run(1)
    accepted, total, model = server.ask(2)
    server.journal.append(dict(zip("ab", accepted.values(), strict=True)), total, model)
    server.run(3)
    shutil.copy(small[0] / FILES[2], tmp_path / FILES[2])
    assert "round 3, digest of the round before: expected " in str(found(tmp_path, FILES[3], 3))


def test_an_older_head_is_found_unless_an_append_could_have_been_stopped_there(small, copy, tmp_path):
    for rounds in (0, 1, 2):
        journals.written(tmp_path / str(rounds), rounds=rounds)
        for number in range(rounds + 1):  # the same rounds give the same bytes
            assert (tmp_path / str(rounds) / FILES[number]).read_bytes() == (
                copy / FILES[number]
            ).read_bytes()
        shutil.copy(tmp_path / str(rounds) / "head.json", copy)
        if rounds == 2:
            assert replayed(copy)[-1].round == 3
        else:
            found(copy, "head.json", 3)


def forged(folder, number, change):
    """Change the JSON, frames, downlink and arrays of a round, and compute all digests anew."""
    former = journal_files.NO_DIGEST
    for entry in list(journal_files.entries(str(folder))):
        parts = {
            "about": entry.about,
            "frames": entry.frames,
            "downlink": entry.downlink,
            "arrays": entry.arrays,
        }
        if entry.round == number:
            parts |= change(**json.loads(json.dumps({"about": entry.about})), frames=list(entry.frames)) or {}
        for item, frame in zip(parts["about"].get("frames") or [], parts["frames"], strict=False):
            if isinstance(item, dict):
                item["bytes"] = len(frame)
        for key in ("format", "version", "round", "former", "downlink", "arrays"):
            parts["about"] = {k: v for k, v in parts["about"].items() if k != key}
        former = journal_files.write(str(folder), entry.round, former, **parts)


def weight(about, frames):
    about["frames"][0]["weight"] += 1
    return {"about": about}


def dropped(about, frames):
    del about["frames"][0]
    return {"about": about, "frames": frames[1:]}


def swapped(about, frames):
    return {"frames": frames[::-1]}


def louder(about, frames):
    about["request"]["noise"] = "uniform:0.02"
    return {"about": about}


def other_seed(about, frames):
    about["frames"][1]["request"]["seed"] = "12"
    return {"about": about}


def no_frames(about, frames):
    return {"about": about | {"frames": []}, "frames": []}


def other_steps(about, frames):
    return {"about": about | {"steps": {name: 2 * step for name, step in about["steps"].items()}}}


def server_id(about, frames):
    return {"about": about | {"server_id": "77"}}


def model_id(about, frames):
    return {"about": about | {"model_id": "77"}}


def no_downlink(about, frames):
    return {"downlink": b""}


def damaged_frame(about, frames):
    frames[0] = frames[0][:-9] + bytes([frames[0][-9] ^ 1]) + frames[0][-8:]
    return {"frames": frames}


def other_base(about, frames):
    """Frames and request for another base model, which give the same mean."""
    about["request"]["base_model"] = "999"
    for number, frame in enumerate(frames):
        body = frame[:16] + (999).to_bytes(8, "little") + frame[24:-4]
        frames[number] = body + zlib.crc32(body).to_bytes(4, "little")
    return {"about": about, "frames": frames}


def no_steps(about, frames):
    return {"about": about | {"steps": None}, "downlink": b""}


def without(key):
    def change(about, frames):
        del about[key]
        return {"about": about}

    return change


def being(key, value):
    def change(about, frames):
        return {"about": about | {key: value}}

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (weight, "id of the server's model: expected "),
        (dropped, "id of the server's model: expected "),
        (swapped, "seed, byte 8: expected "),
        (louder, "tensor 'w': expected binary mask of Uniform(scale=0.0199"),
        (other_base, "request: expected round 2, base model "),
        (other_seed, "seed, byte 8: expected 12, got "),
        (no_frames, "frames: expected at least 1, got 0"),
        (other_steps, "id of the server's model on the grid: expected "),
        (server_id, "id of the server's model: expected 77, got "),
        (model_id, "id of the new model, byte 16: expected 77, got "),
        (no_downlink, "frame, byte 0: expected "),
        (damaged_frame, "checksum, byte "),
        (no_steps, "steps: expected either in every round or in none"),
        (without("steps"), "first line: expected "),
        (without("request"), "first line: expected "),
        (being("model_id", []), "first line: expected "),
        (being("model_id", "-1"), "model_id: expected 0 to "),
        (being("steps", 3), "step of 'w': expected "),
        (being("steps", {"w": "x", "b": 1}), "step of 'w': expected "),
        (being("steps", {"w": 1e300, "b": 0.5}), "step of 'w': expected "),
        (being("request", []), "first line: expected "),
        (being("request", {"seed": 1}), "request entry 'base_model': expected "),
        (being("frames", [1, 2]), "first line: expected "),
    ],
)
def test_a_forged_round_does_not_replay(copy, change, words):
    """Also if all digests fit: what the frames give is not what the journal states."""
    with suppress(fm.errors.JournalError):  # the forger stumbles over the forged JSON
        forged(copy, 2, change)
    error = found(copy, FILES[2], 2)
    assert words in str(error)


def test_a_forged_id_of_the_model_does_not_replay_without_a_downlink(tmp_path):
    journals.written(tmp_path, grid=False, rounds=2)
    forged(tmp_path, 2, model_id)
    assert "id of the clients' model: expected 77, got " in str(found(tmp_path, FILES[2], 2))


def test_a_new_start_does_not_replay(copy):
    def change(about, frames):
        about["schema"] = about["schema"][:1]
        return {"about": about}

    forged(copy, 0, change)
    found(copy, FILES[0], 0)


def test_the_error_can_be_pickled(copy):
    (copy / FILES[2]).unlink()
    error = found(copy, FILES[3])
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.file, again.field) == (str(error), error.file, error.field)


# --- crashes


class Crash(BaseException):
    """The power fails; nothing runs after it."""


def crashing(monkeypatch, at):
    """Make operation number `at` on the disk fail, and all after it; the names of those that were done."""
    done, dead = [], []

    def step(name):
        if dead or len(done) == at:
            dead.append(True)
            raise Crash
        done.append(name)

    def stopping(name):
        real = getattr(os, name)

        def call(*arguments, **options):
            step(name)
            return real(*arguments, **options)

        monkeypatch.setattr(atomic.os, name, call)

    for name in ("open", "fsync", "replace", "unlink"):
        stopping(name)
    real = os.fdopen

    class File:
        def __init__(self, *arguments):
            self.file = real(*arguments)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def __getattr__(self, name):
            return getattr(self.file, name)

        def write(self, data):
            try:
                step("write")
            except Crash:
                self.file.write(data[: len(data) // 2])
                raise
            self.file.write(data)

    monkeypatch.setattr(atomic.os, "fdopen", File)
    return done


def test_each_file_is_flushed_before_its_name_is_and_the_folder_after(monkeypatch, tmp_path):
    server = journals.Server(tmp_path).run(1)
    arguments = server.ask(2)
    with monkeypatch.context() as patch:
        done = crashing(patch, -1)
        server.journal.append(*arguments)
    parts = ["first line", "a frame", "a frame", "downlink", "arrays", "digest"]
    for writes in (len(parts), 1):
        now, done = done[: writes + 5], done[writes + 5 :]
        assert now == ["open", *["write"] * writes, "fsync", "replace", "open", "fsync"]
    assert done == []


def test_a_crash_at_any_moment_of_an_append(monkeypatch, tmp_path):
    outcomes = []
    for at in range(17):  # all operations of the test before
        folder = tmp_path / str(at)
        server = journals.Server(folder).run(1)
        arguments = server.ask(2)
        with monkeypatch.context() as patch:
            crashing(patch, at)
            with pytest.raises(Crash):
                server.journal.append(*arguments)
        server.journal.close()
        states = replayed(folder)
        outcomes.append(states[-1].round)
        assert states[-1].model_id == server.ids[states[-1].round]
        last = states[-1]
        down = fm.Downlink(last.schema, last.model, first=last.steps)
        with fm.Journal(folder, last.schema, last.model, down) as again:  # a new process would do so
            assert again.round == last.round
            assert json.loads((folder / "head.json").read_bytes())["round"] == last.round
            server.model, server.down, server.journal = last.model, down, again
            server.run(*range(again.round + 1, 5))
        assert [state.round for state in replayed(folder)] == [0, 1, 2, 3, 4]
        assert not [name for name in os.listdir(folder) if name.endswith(".tmp")]
    assert set(outcomes) == {1, 2}
    assert outcomes == sorted(outcomes)


def test_a_crash_at_any_moment_of_the_start(monkeypatch, tmp_path):
    at, stopped = 0, True
    while stopped:
        folder, stopped = tmp_path / str(at), False
        with monkeypatch.context() as patch:
            crashing(patch, at)
            try:
                journals.Server(folder).journal.close()
            except Crash:
                stopped = True
        journals.written(folder, rounds=1)
        assert [state.round for state in replayed(folder)] == [0, 1]
        at += 1
    assert at > 10


@pytest.mark.parametrize("operation", ["open", "fsync", "replace"])
@pytest.mark.parametrize("file", [0, 1])
def test_an_append_that_fails_changes_nothing_and_can_be_repeated(monkeypatch, tmp_path, operation, file):
    server = journals.Server(tmp_path).run(1)
    arguments, real, calls = server.ask(2), getattr(os, operation), []

    def full(*given, **options):
        path = str(given[0])
        if operation == "fsync" or path.endswith((".tmp", ".fmrj", ".json")):
            calls.append(path)
            if len(calls) == 1 + file * (2 if operation == "fsync" else 1):
                raise OSError(errno.ENOSPC, "No space left on device")
        return real(*given, **options)

    with monkeypatch.context() as patch:
        patch.setattr(atomic.os, operation, full)
        with pytest.raises(OSError, match="No space left"):
            server.journal.append(*arguments)
    assert [state.round for state in replayed(tmp_path)] == [0, 1]
    server.journal.append(*arguments)
    server.run(3)
    assert {state.round: state.model_id for state in replayed(tmp_path)} == server.ids


def test_a_round_that_could_not_be_discarded_is_replaced(monkeypatch, tmp_path):
    server = journals.Server(tmp_path).run(1)
    model, down = server.model, server.down.to_bytes()
    arguments, real = server.ask(2), atomic.write
    with monkeypatch.context() as patch:
        patch.setattr(atomic, "write", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "I/O error")))
        with pytest.raises(OSError, match="I/O error"):
            server.journal.append(*arguments)
    assert real is atomic.write
    assert (tmp_path / FILES[2]).exists()
    server.model, server.down = model, fm.Downlink.from_bytes(down, journals.SCHEMA)
    server.journal._downlink = server.down
    server.run(5)
    assert [state.round for state in replayed(tmp_path)] == [0, 1, 5]


PROGRAM = """
import itertools, sys
import journals
server = journals.Server(sys.argv[1])
for number in itertools.count(1):
    server.run(number)
    print(number, server.held_id, flush=True)
"""


@pytest.mark.integration
@pytest.mark.parametrize("wait", [0.0, 0.0123, 0.0317])
def test_a_killed_server_leaves_a_journal_that_goes_on(tmp_path, wait):
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(Path(journals.__file__).parent), *sys.path])
    }
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        lines = [process.stdout.readline() for _ in range(3)]
        time.sleep(wait)
        os.kill(process.pid, signal.SIGKILL)
        lines += process.stdout.readlines()
    done = {
        int(number): int(held) for number, held in (line.split() for line in lines if line.endswith("\n"))
    }
    states = replayed(tmp_path)
    ids = {state.round: state.model_id for state in states}
    assert len(done) >= 3
    assert done.items() <= ids.items()
    assert len(ids) <= len(done) + 2  # the start, and a round that was not yet announced
    last = states[-1]
    down = fm.Downlink(last.schema, last.model, first=last.steps)
    with fm.Journal(tmp_path, last.schema, last.model, down) as journal:
        assert journal.round == last.round


# --- writers


def test_a_second_writer_is_refused(tmp_path):
    server = journals.Server(tmp_path).run(1)
    with pytest.raises(fm.ArgumentError, match=r"no other writer that locks .*\.lock"):
        fm.Journal(tmp_path, server.schema, server.model, server.down)
    program = "import sys, journals\ntry:\n    journals.Server(sys.argv[1])\n"
    program += "except ValueError as error:\n    print(error)"
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(Path(journals.__file__).parent), *sys.path])
    }
    command = [sys.executable, "-c", program, str(tmp_path)]
    assert (
        "no other writer" in subprocess.run(command, capture_output=True, text=True, env=environment).stdout
    )
    server.run(2)
    server.journal.close()
    fm.Journal(tmp_path, server.schema, server.model, server.down).close()
    with pytest.raises(fm.ArgumentError, match="a closed one"):
        server.run(3)


def test_a_reopened_journal_continues(tmp_path):
    server = journals.written(tmp_path)
    digest = server.journal.digest
    server.journal = fm.Journal(tmp_path, server.schema, server.model, server.down)
    assert (server.journal.round, server.journal.digest) == (3, digest)
    server.run(4, 7)
    assert {state.round: state.model_id for state in replayed(tmp_path)} == server.ids


def test_a_reopened_journal_refuses_other_models(tmp_path):
    server = journals.written(tmp_path)
    model, down = server.model, server.down
    other = {name: array + np.asarray(1, array.dtype) for name, array in model.items()}
    schema = fm.Schema([*list(journals.SCHEMA)[:2], fm.Tensor("count", (), dtype="int64")][::-1])
    for given, words in (
        ((journals.SCHEMA, other, down), "model of the downlink"),
        ((journals.SCHEMA, other, fm.Downlink(journals.SCHEMA, other)), "server_id of the models"),
        ((journals.SCHEMA, model, fm.Downlink(journals.SCHEMA, model, step=1)), "model_id of the models"),
        ((journals.SCHEMA, model, None), "downlink of the models"),
        ((schema, model, None), "schema of the models"),
    ):
        with pytest.raises(fm.ArgumentError, match=words):
            fm.Journal(tmp_path, *given)
    fm.Journal(tmp_path, journals.SCHEMA, model, down).close()


def test_a_damaged_journal_is_not_continued(copy, small):
    server = small[1]
    path = copy / FILES[1]
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    with pytest.raises(fm.errors.JournalError, match=r"round-000001\.fmrj, round 1, digest: expected"):
        fm.Journal(copy, server.schema, server.model, server.down)


def test_a_journal_without_its_head_is_not_overwritten(copy, small):
    server = small[1]
    (copy / "head.json").unlink()
    with pytest.raises(fm.errors.JournalError, match=r"the file head\.json, got none"):
        fm.Journal(copy, server.schema, server.model, server.down)
    assert (copy / FILES[3]).read_bytes() == (small[0] / FILES[3]).read_bytes()


def mixed(server):
    """Arguments of `append` that do not fit, with words of the error."""
    old = server.model
    accepted, total, model = server.ask(1)
    (first, (request, frame, weight)), (second, other) = accepted.items()
    yield {first: accepted[first]}, total, model, "frames: expected the 2 frames of the sum"
    yield {first: (request, frame, weight + 1), second: other}, total, model, "with a weight of 201"
    yield {first: (request, other[1], weight), second: other}, total, model, "seed, byte 8: expected"
    yield accepted, total, old, "model of the downlink: expected this model rounded"
    yield accepted, total, model | {"more": model["w"]}, "model: expected the arrays"
    yield accepted, total, model | {"w": model["w"].T}, r"'w' of the model: expected float32\[3, 5\]"
    yield {}, total, model, "got 0 frames"


def test_what_does_not_fit_is_not_appended(tmp_path):
    server = journals.Server(tmp_path)
    for accepted, total, model, words in mixed(server):
        with pytest.raises(fm.CodecError, match=words):
            server.journal.append(accepted, total, model)
    assert [state.round for state in replayed(tmp_path)] == [0]


def test_rounds_are_in_order_and_for_the_model_before(tmp_path):
    server = journals.Server(tmp_path).run(1)
    with pytest.raises(fm.ArgumentError, match="expected one round after 1, base model"):
        server.journal.append(*server.ask(1))
    server = journals.Server(tmp_path / "other").run(1)
    server.ask(2)  # a round that is not appended
    with pytest.raises(fm.ArgumentError, match="expected one round after 1, base model"):
        server.journal.append(*server.ask(3))


def test_the_server_may_change_its_arrays_in_place(tmp_path):
    server = journals.Server(tmp_path)

    def in_place(model, mean):
        for name, array in fm.apply(model, mean).items():
            model[name][...] = array
        return model

    server.optimizer = in_place
    server.run(1, 2, 3)
    states = replayed(tmp_path)
    assert [state.given for state in states[1:]] == [(), (), ()]
    assert same(states[-1].model, server.model)


def test_a_journal_that_grows_is_replayed(tmp_path):
    server = journals.Server(tmp_path).run(1)
    states = fm.replay(tmp_path, backend="numpy")
    assert next(states).round == 0
    server.run(2, 3)
    assert [state.round for state in states] == [1]
    assert len(replayed(tmp_path)) == 4


def test_the_head_may_change_while_it_is_read(copy, monkeypatch):
    heads = [b"older", (copy / "head.json").read_bytes()]
    real = journal_files._bytes
    monkeypatch.setattr(journal_files, "_bytes", lambda *given: heads.pop(0) if heads else real(*given))
    assert len(replayed(copy)) == 4


def test_a_server_goes_on_from_its_journal_alone(tmp_path):
    server = journals.written(tmp_path, adaptive=True)
    first, *later = replayed(tmp_path)
    rule = fm.AdaptiveNoise(first.schema, first.model)
    for state in later:
        rule.observe(state.total)
    assert rule.to_json() == server.rule.to_json()
    server.rule, last = rule, later[-1]
    server.model, server.down = last.model, fm.Downlink(last.schema, last.model, first=last.steps)
    server.journal = fm.Journal(tmp_path, last.schema, last.model, server.down)
    server.run(4)
    assert {state.round: state.model_id for state in replayed(tmp_path)} == server.ids


def test_an_unknown_backend_and_a_missing_folder(small, tmp_path):
    with pytest.raises(fm.BackendError):
        replayed(small[0], "abacus")
    with pytest.raises(FileNotFoundError):
        replayed(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    found(tmp_path / "empty", "head.json")
