"""Exit codes, JSON errors, help, and verbs of other packages."""

import json
import logging
import re
from importlib.metadata import EntryPoint
from pathlib import Path

import journals
import pytest

import fedmrn_codec as fm
from fedmrn_codec.cli import plugins, problems
from fedmrn_codec.cli.app import SECTIONS, _Remarks, app
from fedmrn_codec.cli.examples import EXAMPLES, FIRST

ROOT = Path(__file__).resolve().parents[2]
KEYS = {"code", "class", "file", "field", "offset", "expected", "got", "message"}
VERBS = ["encode", "decode", "inspect", "verify", "aggregate", "noise", "schema", "replay"]

USAGE = {
    "no verb": (),
    "unknown verb": ("frobnicate",),
    "no argument": ("decode",),
    "unknown option": ("decode", "a.fmrn", "--frobnicate"),
    "no seed": ("encode", "update.safetensors", "--noise", "uniform:1"),
    "random seed": ("encode", "update.safetensors", "--noise", "uniform:1", "--seed", "random"),
    "negative seed": ("encode", "update.safetensors", "--noise", "uniform:1", "--seed", "-1"),
    "large seed": ("noise", "--noise", "uniform:1", "--seed", str(2**64)),
    "no scale": ("noise", "--noise", "uniform", "--seed", "1"),
    "unknown noise": ("noise", "--noise", "cauchy:1", "--seed", "1"),
    "scale 0": ("noise", "--noise", "uniform:0", "--seed", "1"),
    "scale nan": ("noise", "--noise", "gaussian:nan", "--seed", "1"),
    "unknown mask": ("encode", "update.safetensors", "--noise", "uniform:1", "--seed", "1", "--mask", "x"),
    "unknown backend": ("decode", "a.fmrn", "-o", "x.npz", "--backend", "abacus"),
    "unknown format": ("decode", "a.fmrn", "--format", "pickle"),
    "stdin twice": ("verify", "-", "-"),
    "stdin twice, as schema": ("decode", "-", "--schema", "-"),
}


@pytest.mark.parametrize("name", USAGE)
def test_usage_errors(folder, invoke, name):
    plain = invoke(2, *USAGE[name])
    assert plain.stdout == ""
    assert plain.stderr
    if name != "no verb":
        found = invoke(2, *USAGE[name], "--json")
        assert found.stdout == ""
        error = json.loads(found.stderr)["error"]
        assert set(error) == KEYS
        assert error["class"] in {"usage", "argument"}


@pytest.mark.parametrize("name", ["no seed", "stdin twice", "no target", "two outputs"])
def test_usage_errors_show_the_usage(folder, invoke, name):
    more = {
        "no target": ("conformance",),
        "two outputs": ("aggregate", "a.fmrn", "-o", "x", "--partial", "y"),
    }
    arguments = (USAGE | more)[name]
    lines = invoke(2, *arguments).stderr.splitlines()
    assert lines[0].startswith("Usage: ")
    assert f" {arguments[0]} [OPTIONS]" in lines[0]
    assert lines[-1].startswith("Error: ")


def test_without_a_verb_the_help_is_shown(invoke):
    shown = invoke(2)
    assert shown.stdout == ""
    assert shown.stderr == invoke(0, "--help").stdout


def test_errors_have_one_form(folder, invoke):
    Path("x.fmrn").write_bytes(b"FMRN")
    error = json.loads(invoke(1, "decode", "x.fmrn", "-o", "x.npz", "--json").stderr)["error"]
    assert error == {
        "code": "truncated",
        "class": "malformed",
        "file": "x.fmrn",
        "field": "frame",
        "offset": 0,
        "expected": "at least 52 bytes",
        "got": "4",
        "message": "frame, byte 0: expected at least 52 bytes, got 4",
    }
    error = json.loads(invoke(3, "decode", "nope", "-o", "x.npz", "--json").stderr)["error"]
    assert set(error) == KEYS
    assert (error["code"], error["class"], error["file"]) == ("file", "file", "nope")
    error = json.loads(invoke(2, "noise", "--noise", "x", "--seed", 1, "--json").stderr)["error"]
    assert (error["code"], error["field"]) == ("usage", "--noise")


def test_a_report_never_mixes_with_data(folder, invoke):
    found = invoke(0, "decode", "a.fmrn", "--json")
    assert json.loads(found.stderr)["file"] == "-"
    assert len(found.stdout_bytes) > 1000
    found = invoke(0, "decode", "a.fmrn", "-o", "x.npz", "--json")
    assert json.loads(found.stdout)["file"] == "x.npz"
    assert found.stderr == ""


def test_every_codec_error_has_an_exit_code():
    def below(kind: type) -> set[type]:
        return {kind} | {each for sub in kind.__subclasses__() for each in below(sub)}

    for kind in below(fm.CodecError):
        code, problem = problems.describe(kind("field", "expected", "got", None))
        refused = issubclass(kind, fm.FrameError | fm.AggregateError)
        assert code == (problems.REFUSED if refused else problems.USAGE)
        assert set(problem) == KEYS


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (MemoryError(), 3, "not enough memory"),
        (OSError(5, "Input/output error", "disk"), 3, "Input/output error"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (ModuleNotFoundError("No module named 'rich'", name="rich"), 2, "package rich is not installed"),
        (RuntimeError("a bug"), 70, "internal error, please report it: RuntimeError: a bug"),
        (BrokenPipeError(), 141, ""),
    ],
)
def test_other_errors(folder, runner, monkeypatch, error, code, words):
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("fedmrn_codec.face.decoding.decode", fail)
    for more in ((), ("--json",)):
        found = runner.invoke(app, ["decode", "a.fmrn", "-o", "x.npz", *more])
        assert found.exit_code == code
        assert words in found.stderr
        assert "Traceback" not in found.stderr
        if more and words:
            assert set(json.loads(found.stderr)["error"]) == KEYS
    monkeypatch.setenv("FEDMRN_TRACEBACK", "1")
    found = runner.invoke(app, ["decode", "a.fmrn", "-o", "x.npz"])
    assert ("Traceback" in found.stderr) == (code in (2, 3, 70))


def test_the_help_has_sections_examples_and_extras(invoke):
    text = invoke(0, "--help").stdout
    for section, verbs in SECTIONS.items():
        part = text.partition(f"\n{section}:\n")[2].partition("\n\n")[0]
        assert [line.split()[0] for line in part.splitlines() if line[2] != " "] == list(verbs)
    assert all(f"\n  {line}\n" in text for line in FIRST)
    extras = set(re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(), re.M))
    assert "pip install 'fedmrn-codec[NAME]'" in text
    named = re.findall(r"^    ([a-z]+)  +[a-z]", text.partition("Extras")[2].partition("Exit")[0], re.M)
    assert len(named) == 7
    assert set(named) <= extras
    assert set(problems.EXTRAS.values()) <= extras


def test_each_example_is_in_the_help_of_its_verb(invoke):
    assert set(EXAMPLES) == {verb for verbs in SECTIONS.values() for verb in verbs}
    for verb in ("encode", "conformance", "sweep"):
        assert all(line in invoke(0, verb, "--help").stdout for line in EXAMPLES[verb])


@pytest.mark.integration
def test_the_examples_run(folder, shell):
    journals.written("journal")
    for verb in ("encode", "inspect", "verify", "decode", "aggregate", "schema", "noise", "replay"):
        for line in EXAMPLES[verb]:
            done = shell(line)
            assert done.returncode == 0, (line, done.stderr)


@pytest.mark.slow
@pytest.mark.integration
def test_the_examples_that_take_longer_run(folder, shell):
    for verb in ("bench", "conformance", "export-onnx", "train", "sweep", "report"):
        for line in EXAMPLES[verb]:
            done = shell(line, PYTHONWARNINGS="default")
            assert done.returncode == 0, (line, done.stderr)


def test_what_the_library_logs_is_a_remark(capsys):
    record = logging.LogRecord("fedmrn_codec", logging.WARNING, "", 0, "compiling %s", ("it",), None)
    _Remarks().emit(record)
    assert capsys.readouterr() == ("", "fedmrn: compiling it\n")


@pytest.mark.parametrize("verb", VERBS)
def test_help(invoke, verb):
    text = invoke(0, verb, "--help").stdout
    assert f"Usage: fedmrn {verb} " in text.replace("root", "fedmrn")
    assert "\\[" not in text
    assert "--json" in text


def test_version(invoke):
    assert invoke(0, "--version").stdout == f"fedmrn {fm.__version__} (format 1.3)\n"


# --- verbs of other packages -------------------------------------------------------------------------


@pytest.fixture
def offer(monkeypatch):
    """Make these the entry points of the group."""

    def set_points(*points: tuple[str, str]) -> None:
        made = [EntryPoint(name, value, plugins.GROUP) for name, value in points]
        monkeypatch.setattr(plugins, "entry_points", lambda group: made if group == plugins.GROUP else [])

    return set_points


def test_plugins_run(offer, invoke, tmp_path, monkeypatch):
    (tmp_path / "some_plugin.py").write_text(
        "from typing import Annotated\nimport typer\nimport fedmrn_codec as fm\n"
        "def hello(name: Annotated[str, typer.Option(help='who')] = 'you'):\n"
        "    'Say hello.'\n    print('hello', name)\n    return 1\n"
        "def refuse():\n    fm.decode(b'')\n"
        "app = typer.Typer()\napp.command()(hello)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    offer(
        ("hello", "some_plugin:hello"),
        ("hello-app", "some_plugin:app"),
        ("refuse", "some_plugin:refuse"),
        ("decode", "some_plugin:hello"),
    )
    assert invoke(0, "hello", "--name", "world").stdout == "hello world\n"
    assert invoke(0, "hello-app").stdout == "hello you\n"
    assert "truncated" in invoke(1, "refuse").stderr
    assert invoke(2, "decode").stdout == ""  # still ours
    text = invoke(0, "--help").stdout
    assert "Say hello." in text
    assert text.count("  decode  ") == 1


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("no_such_package.cli:train", "the package no_such_package is not installed"),
        ("json:no_such_function", "AttributeError"),
        ("bad_plugin:x", "RuntimeError: no GPU today"),
        ("json:decoder", ""),  # a module is no command
    ],
)
def test_broken_plugins_are_listed_with_the_reason(offer, invoke, tmp_path, monkeypatch, value, reason):
    (tmp_path / "bad_plugin.py").write_text("raise RuntimeError('no GPU today')")
    monkeypatch.syspath_prepend(tmp_path)
    offer(("train", value))
    text = invoke(0, "--help").stdout
    assert "train" in text
    assert "not available" in text
    for args in (("train",), ("train", "--rounds", 3), ("train", "--help"), ("train", "x", "y")):
        found = invoke(2, *args)
        assert "not available" in found.stderr
        assert reason in found.stderr
    assert json.loads(invoke(2, "train", "--json").stderr)["error"]["code"] == "usage"
    invoke(0, "noise", "--noise", "uniform:1", "--seed", 1)


def test_two_plugins_of_one_name(offer, invoke):
    offer(("train", "json:loads"), ("train", "json:dumps"))
    assert (
        "expected one package that offers it, got several: json:dumps, json:loads"
        in invoke(2, "train").stderr
    )
    offer(("train", "json:loads"), ("train", "json:loads"))  # one package seen twice
    assert "expected one package" not in invoke(2, "train").stderr


def test_other_verbs_import_no_plugin(offer, invoke):
    offer(("train", "no_such_package.cli:train"))

    def fail(name: str) -> None:
        raise AssertionError(name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plugins, "command", fail)
        invoke(0, "noise", "--noise", "uniform:1", "--seed", 1)
        invoke(0, "decode", "--help")
