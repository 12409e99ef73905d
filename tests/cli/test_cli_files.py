"""Files appear whole or not at all; hostile ones give an error and nothing else."""

import io
import json
import os
import stat
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedmrn_codec.cli import files, npz, schemas, tensors
from fedmrn_codec.cli.problems import FileProblem

ENCODE = ("encode", "--seed", "7", "--noise", "uniform:0.01")
DECODE = ("decode", "a.fmrn", "-o", "out.npz")


def names(folder: Path) -> set[str]:
    return set(os.listdir(folder))


@pytest.mark.parametrize("broken", ["write", "fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_write_leaves_nothing_behind(folder, invoke, monkeypatch, broken, error):
    def fail(*_: object, **__: object) -> None:
        raise error

    Path("out.npz").write_bytes(b"as it was")
    before = names(folder)
    if broken == "write":
        monkeypatch.setattr(np.lib.format, "write_array", fail)
    else:
        monkeypatch.setattr(os, broken, fail)
    found = invoke(3 if isinstance(error, OSError) else 130, *DECODE)
    assert ("out.npz: No space" in found.stderr) == isinstance(error, OSError)
    assert Path("out.npz").read_bytes() == b"as it was"
    assert names(folder) == before


def test_permissions_are_those_of_the_umask(folder, invoke):
    for mask in (0o022, 0o077):
        old = os.umask(mask)
        try:
            invoke(0, *DECODE)
        finally:
            os.umask(old)
        assert stat.S_IMODE(os.stat("out.npz").st_mode) == 0o666 & ~mask
    assert not [name for name in names(folder) if name.endswith(".tmp")]


def test_a_link_stays_a_link_and_a_pipe_a_pipe(folder, invoke):
    os.mkdir("elsewhere")
    os.symlink("elsewhere/real.npz", "out.npz")
    invoke(0, *DECODE)
    assert os.path.islink("out.npz")
    assert Path("elsewhere/real.npz").stat().st_size
    assert names(folder / "elsewhere") == {"real.npz"}
    invoke(0, "decode", "a.fmrn", "-o", os.devnull, "--format", "npz")
    assert not os.path.isfile(os.devnull)


@pytest.mark.parametrize("path", [".", "nowhere/x.npz", "a.fmrn/x.npz", "n" * 300 + ".npz", "\0.npz"])
def test_places_that_cannot_be_written(folder, invoke, path):
    before = names(folder)
    invoke(3, "decode", "a.fmrn", "-o", path, "--format", "npz")
    assert names(folder) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_file_is_not_replaced(folder, invoke):
    Path("out.npz").touch(mode=0o444)
    assert "not writable" in invoke(3, *DECODE).stderr


@pytest.mark.parametrize("verb", ["decode", "inspect", "verify", "schema", "aggregate"])
def test_files_that_cannot_be_read(folder, invoke, verb):
    for path in ("nope.fmrn", ".", "\0"):
        found = invoke(3, verb, path)
        assert path.replace("\0", "\\x00") in found.stdout + found.stderr


@pytest.mark.parametrize("verb", ["decode", "inspect", "verify", "aggregate"])
def test_an_empty_file_is_a_truncated_frame(folder, invoke, verb):
    Path("empty").touch()
    found = invoke(1, verb, "empty")
    assert "[truncated]" in found.stdout + found.stderr


@pytest.mark.parametrize("suffix", ["pt", "npy", "fmrn", ""])
def test_unknown_formats(folder, invoke, suffix):
    path = f"x.{suffix}".rstrip(".")
    assert (
        "suffix: expected .safetensors or .npz, or --format, got "
        in invoke(3, "decode", "a.fmrn", "-o", path).stderr
    )
    invoke(0, "decode", "a.fmrn", "-o", path, "--format", "npz")
    invoke(0, *ENCODE, path, "-o", "y.fmrn")  # known by its content
    Path(path).write_bytes(b"neither of them")
    assert "expected a safetensors or npz file, got another format" in invoke(3, *ENCODE, path).stderr
    invoke(3, *ENCODE, path, "--format", "npz")


def test_a_pickle_gets_a_hint(folder, invoke):
    Path("x.pt").write_bytes(b"\x80\x04pickle")
    assert "can run code" in invoke(3, *ENCODE, "x.pt").stderr


# --- hostile tensors ---------------------------------------------------------------------------------


def header(shape: object, descr: str = "<f4") -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        stream, {"descr": descr, "fortran_order": False, "shape": tuple(shape)}
    )
    return stream.getvalue()


def archive(**members: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as out:
        for name, content in members.items():
            out.writestr(name.replace("_npy", ".npy"), content)
    return stream.getvalue()


def pickled() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, x=np.array([{}], object))
    return stream.getvalue()


def safetensor(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def one(dtype: str, shape: list[int], end: int) -> dict[str, object]:
    return {"x": {"dtype": dtype, "shape": shape, "data_offsets": [0, end]}}


HOSTILE = {
    "empty.npz": b"",
    "cut.npz": archive(x_npy=header([1]) + bytes(4))[:-9],
    "no array.npz": archive(x=b"text"),
    "huge.npz": archive(x_npy=header([2**40, 2**20])),
    "negative.npz": archive(x_npy=header([-1])),
    "short.npz": archive(x_npy=header([2]) + bytes(7)),
    "long.npz": archive(x_npy=header([2]) + bytes(9)),
    "object.npz": pickled(),
    "complex.npz": archive(x_npy=header([1], "<c8") + bytes(8)),
    "text.npz": archive(x_npy=header([1], "<U2") + bytes(8)),
    "void.npz": archive(x_npy=header([1], "|V3") + bytes(3)),
    "bool.npz": archive(x_npy=header([2], "|b1") + b"\1\2"),
    "npy 3.npz": archive(x_npy=b"\x93NUMPY\3\0" + bytes(4)),
    "not npy.npz": archive(x_npy=b"hello"),
    "code.npz": archive(x_npy=b"\x93NUMPY\1\0\x20\0__import__('os').abort()        "),
    "empty.safetensors": b"",
    "cut.safetensors": safetensor(one("F32", [2], 8), bytes(7)),
    "long.safetensors": safetensor(one("F32", [2], 8), bytes(9)),
    "no json.safetensors": safetensor(b"hello"),
    "deep.safetensors": safetensor(b'{"a":' * 5000),
    "huge header.safetensors": b"\xff" * 8 + b"{}",
    "huge.safetensors": safetensor(one("F32", [2**62, 8], 2**62)),
    "overflow.safetensors": safetensor(one("F32", [0, 2**63], 0)),
    "float8.safetensors": safetensor(one("F8_E4M3", [2], 2), bytes(2)),
    "complex.safetensors": safetensor(one("C64", [1], 8), bytes(8)),
    "bool.safetensors": safetensor(one("BOOL", [2], 2), b"\1\2"),
    "rank.safetensors": safetensor(one("U8", [1] * 70, 1), b"\1"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_tensors(folder, invoke, name):
    Path(name).write_bytes(HOSTILE[name])
    found = invoke(3, *ENCODE, name, "-o", "x.fmrn", "--json")
    error = json.loads(found.stderr)["error"]
    assert (error["class"], error["file"]) == ("file", name)
    assert "not a valid" in error["message"]
    assert not Path("x.fmrn").exists()


def test_a_zip_bomb_is_not_unpacked(folder, invoke, monkeypatch):
    monkeypatch.setattr(npz, "FREE_BYTES", 1000)
    Path("x.npz").write_bytes(archive(x_npy=header([3000, 1]) + bytes(12000)))
    assert "unpacked size: expected at most " in invoke(3, *ENCODE, "x.npz").stderr
    np.savez("y.npz", x=np.random.default_rng(0).random(3000, np.float32))  # as long, but not packed
    invoke(0, *ENCODE, "y.npz", "-o", "y.fmrn")


def test_members_that_occur_twice(folder, invoke):
    with zipfile.ZipFile("x.npz", "w") as out:
        out.writestr("x.npy", header([1]) + bytes(4))
        with pytest.warns(UserWarning, match="Duplicate name"):
            out.writestr("x.npy", header([1]) + bytes(4))
    assert ": expected once, got 2 times" in invoke(3, *ENCODE, "x.npz").stderr


def test_names_that_a_file_format_cannot_hold(folder, invoke):
    rows = [{"name": "a\0b", "shape": []}, {"name": "__metadata__", "shape": []}]
    Path("schema.json").write_text(json.dumps(rows))
    import fedmrn_codec as fm

    arrays = {row["name"]: np.float32(1) for row in rows}
    schema = fm.Schema.from_json(rows)
    Path("x.fmrn").write_bytes(fm.encode(arrays, schema, seed=1, noise=fm.Uniform(1), embed_schema=True))
    for suffix in ("npz", "safetensors"):
        invoke(3, "decode", "x.fmrn", "-o", f"x.{suffix}")
        assert not Path(f"x.{suffix}").exists()
    invoke(0, "decode", "x.fmrn", "-o", "x.safetensors", "--names", "a\0b")
    assert list(tensors.load("x.safetensors").tensors) == ["a\0b"]


# --- random damage -----------------------------------------------------------------------------------


@st.composite
def damage(draw: st.DrawFn, data: bytes) -> bytes:
    """The bytes with something done to them."""
    out = bytearray(data)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(len(out) - 1, 0)))
        kind = draw(st.sampled_from(["flip", "cut", "append", "insert", "delete", "set"]))
        if kind == "flip" and out:
            out[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "cut":
            del out[at:]
        elif kind == "append":
            out += draw(st.binary(min_size=1, max_size=9))
        elif kind == "insert":
            out[at:at] = draw(st.binary(min_size=1, max_size=9))
        elif kind == "delete":
            del out[at : at + draw(st.integers(1, 9))]
        elif out:
            out[at] = draw(st.sampled_from([0, 1, 127, 128, 255]))
    return bytes(out)


FUZZ = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FUZZ
@given(data=st.data())
def test_damaged_frames_are_refused(folder, invoke, data):
    good = Path("a.fmrn").read_bytes()
    bad = data.draw(damage(good))
    Path("x.fmrn").write_bytes(bad)
    code = 0 if bad == good else 1
    found = json.loads(invoke(code, "verify", "x.fmrn", "--json").stdout)["files"][0]
    if code:
        assert found["error"]["class"] in {"malformed", "unsupported", "refused"}
    invoke(code, "decode", "x.fmrn", "-o", "x.npz")
    invoke(None, "inspect", "x.fmrn", "--json")


@FUZZ
@given(data=st.data(), suffix=st.sampled_from(["safetensors", "npz"]))
def test_damaged_tensors_give_an_error_or_a_frame(folder, model, invoke, data, suffix):
    tensors.save(f"good.{suffix}", model)
    Path(f"x.{suffix}").write_bytes(data.draw(damage(Path(f"good.{suffix}").read_bytes())))
    assert invoke(None, *ENCODE, f"x.{suffix}", "-o", "x.fmrn").exit_code in (0, 2, 3)


def test_reading_maps_files_and_survives_empty_ones(folder):
    Path("empty").touch()
    assert bytes(files.read("empty")) == b""
    assert bytes(files.read("a.fmrn")) == Path("a.fmrn").read_bytes()
    with pytest.raises(FileProblem, match="No such file"):
        files.read("nope")


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_a_private_file_stays_private(folder, invoke):
    Path("out.npz").touch(0o600)
    invoke(0, *DECODE)
    assert stat.S_IMODE(os.stat("out.npz").st_mode) == 0o600
    assert Path("out.npz").stat().st_size


@pytest.mark.skipif(not os.path.exists("/dev/stdout"), reason="a name for stdout")
def test_the_name_of_stdout_is_stdout(folder, shell):
    """The file that it is redirected to is not replaced, with what others have written there."""
    done = shell("(echo before; fedmrn schema update.safetensors -o /dev/stdout; echo after) > log.txt")
    assert done.returncode == 0
    first, *schema, last = Path("log.txt").read_text().splitlines()
    assert (first, last) == ("before", "after")
    assert json.loads("\n".join(schema))[0]["name"]


@pytest.mark.parametrize(
    "line",
    [
        (*ENCODE, "update.safetensors", "-o", "update.safetensors"),
        (*ENCODE, "update.safetensors", "--base", "y.safetensors", "-o", "./y.safetensors"),
        (*ENCODE, "update.safetensors", "--schema", "schema.json", "-o", "schema.json"),
        ("decode", "a.fmrn", "-o", "a.fmrn", "--format", "npz"),
        ("decode", "a.fmrn", "--schema", "schema.json", "-o", "schema.json", "--format", "npz"),
        ("aggregate", "a.fmrn", "b.fmrn", "--partial", "a.fmrn"),
        ("aggregate", "a.fmrn", "b.fmrn", "--partial", "link.fmrn"),
        ("aggregate", "a.fmrn", "--weights-file", "w.json", "-o", "w.json", "--format", "npz"),
        ("schema", "update.safetensors", "-o", "update.safetensors"),
        ("inspect", "a.fmrn", "--html", "a.fmrn"),
    ],
    ids=" ".join,
)
def test_no_output_replaces_an_input(folder, invoke, line):
    Path("y.safetensors").write_bytes(Path("update.safetensors").read_bytes())
    Path("schema.json").write_text(invoke(0, "schema", "update.safetensors").stdout)
    Path("w.json").write_text('{"a.fmrn": 1}')
    os.symlink("b.fmrn", "link.fmrn")
    before = {name: Path(name).read_bytes() for name in names(folder)}
    found = invoke(2, *line)
    assert "expected an output other than the input" in " ".join(found.stderr.replace("│", " ").split())
    assert {name: Path(name).read_bytes() for name in names(folder)} == before


def test_few_bytes_do_not_ask_for_much_memory(folder, invoke, monkeypatch):
    """A frame may embed a schema of any size, and code many elements in few bytes; one's own schema may."""
    monkeypatch.setattr(schemas, "LARGE", 100)
    monkeypatch.setattr(schemas, "PER_BYTE", 0)
    Path("schema.json").write_text(invoke(0, "schema", "a.fmrn").stdout)
    for line in (("verify", "a.fmrn"), DECODE, ("aggregate", "a.fmrn", "-o", "out.npz")):
        found = invoke(1, *line)
        assert "at most 100" in found.stderr + found.stdout
        assert not os.path.exists("out.npz")
        invoke(0, *line, "--schema", "schema.json")
        Path("out.npz").unlink(missing_ok=True)
    monkeypatch.setattr(schemas, "PER_BYTE", 64)
    invoke(0, "verify", "a.fmrn")
