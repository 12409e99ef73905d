"""The page of the frame inspector is made from its sources; the command writes it with a file inside."""

import base64
import html
import json
import os
import re
import subprocess
import sys
from hashlib import sha256
from html.parser import HTMLParser
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import fedmrn_codec as fm
from fedmrn_codec.cli import inspector
from fedmrn_codec.cli.app import app

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "fedmrn_codec" / "cli" / "inspector.html").read_text(encoding="utf-8")
SOURCES = sorted((ROOT / "spec" / "inspector").glob("*.mjs"))
MARKUP = re.compile(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|fetch\(")
SCHEMA = fm.Schema([fm.Tensor("w", (4, 4), masked=True)])


def maker():
    """The script that makes the page."""
    spec = spec_from_file_location("make_inspector", ROOT / "spec" / "make_inspector.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MAKER = maker()


class Scripts(HTMLParser):
    """The texts of the scripts and styles of a page, as HTML finds them, and all tags."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.texts, self.tags, self.inside = [], [], False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.inside = tag in ("script", "style")
        if self.inside:
            self.texts.append([tag, dict(attrs).get("id"), ""])

    def handle_endtag(self, tag):
        self.inside = False

    def handle_data(self, data):
        if self.inside:
            self.texts[-1][2] += data


def texts_of(page):
    """The style, the given file and the program of a page."""
    style, given, program = [text for _, _, text in Scripts(page).texts]
    return style, json.loads(given), program


def test_the_page_is_what_its_sources_make():
    script = [sys.executable, str(ROOT / "spec" / "make_inspector.py")]
    done = subprocess.run(script, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert MAKER.page() == PAGE


def test_a_change_of_a_source_is_noticed(monkeypatch, tmp_path):
    changed = tmp_path / "fedmrn.mjs"
    changed.write_text(MAKER.DECODER.read_text(encoding="utf-8") + "// more\n", encoding="utf-8")
    monkeypatch.setattr(MAKER, "DECODER", changed)
    monkeypatch.setattr(sys, "argv", ["make_inspector.py"])
    with pytest.raises(SystemExit, match="is not what"):
        MAKER.main()


def test_the_decoder_is_that_of_the_folder_decoders():
    decoder = (ROOT / "spec" / "decoders" / "js" / "fedmrn.mjs").read_text(encoding="utf-8")
    (inside,) = re.findall(r"^const fedmrn_module = \(\(\) => \{\n(.*?)\nreturn \{", PAGE, re.M | re.S)
    assert inside == re.sub(r"^export ", "", decoder, flags=re.M)
    (names,) = re.findall(r"\nreturn \{ (DTYPE|[\w, ]*FedmrnError[\w, ]*) \};", PAGE)
    exported = re.findall(r"^export (?:const|class|function) (\w+)", decoder, re.M)
    assert names.split(", ") == exported


def test_every_check_of_the_text_is_in_the_page():
    checks = MAKER.checks()
    numbers = [c["number"] for group in [*checks["frame"], *checks["sum"]] for c in group["checks"]]
    of_tallies = [c["number"] for group in checks["tally"] for c in group["checks"]]
    numbers += [number for number in of_tallies if number[0] == "T"]
    text = (ROOT / "spec" / "FORMAT.md").read_text(encoding="utf-8")
    assert numbers == re.findall(r"^\| \[([FSCPT]-\d\d)\] \|", text, re.M)
    assert len(numbers) > 90
    coded = [f"C-{i}" for i in range(10, 15)]
    assert of_tallies == [*(f"T-{i:02}" for i in range(1, 20)), *coded, "T-20"]  # in the order of 8.6
    decoder = (ROOT / "spec" / "decoders" / "js" / "fedmrn.mjs").read_text(encoding="utf-8")
    raised = set(re.findall(r"'([FSCPT]-\d\d)': '", decoder))
    assert raised == set(numbers)
    assert [c["number"] for c in checks["schema"][0]["checks"]] == [f"S-0{i}" for i in range(1, 7)]
    assert checks["other"]["A-07"].startswith("A mean (8.3) that, once rounded")


def test_modules_that_need_each_other_are_an_error(monkeypatch, tmp_path):
    (tmp_path / "a.mjs").write_text("import { b } from './b.mjs';\nexport const a = 1;\n")
    (tmp_path / "b.mjs").write_text("import { a } from './a.mjs';\nexport const b = 1;\n")
    monkeypatch.setattr(MAKER, "SOURCE", tmp_path)
    with pytest.raises(ValueError, match="no circle"):
        MAKER.modules()
    with pytest.raises(ValueError, match="by name alone"):
        MAKER.wrapped("c", "export default 1;\n")


def test_the_policy_allows_the_program_and_no_connection():
    page = Scripts(PAGE)
    (policy,) = [a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    style, given, program = texts_of(PAGE)
    hashes = [base64.b64encode(sha256(text.encode()).digest()).decode() for text in (program, style)]
    assert given is None
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert [rules["script-src"], rules["style-src"]] == [f"'sha256-{digest}'" for digest in hashes]
    assert rules["worker-src"] == "blob:"
    assert not {"connect-src", "frame-src", "object-src"} & set(rules)
    links = [v for _, a in page.tags for k, v in a.items() if k in ("src", "href", "action")]
    assert links == ["data:,"]


def test_no_source_makes_markup_from_text():
    assert len(SOURCES) > 10
    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        assert MARKUP.findall(text) == [], path.name
        assert max(map(len, text.splitlines())) <= 130, path.name
        assert len(text.splitlines()) <= 400, path.name


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run the command in an empty folder: `run(code, arguments)`, its result."""
    monkeypatch.chdir(tmp_path)
    frame = fm.encode_bits({"w": np.ones((4, 4), bool)}, SCHEMA, seed=1, noise=fm.Uniform(1))
    Path("a.fmrn").write_bytes(frame)
    Path("s.json").write_text(json.dumps(SCHEMA.to_json()))

    def invoke(code, *arguments, **more):
        result = CliRunner().invoke(app, ["inspect", *arguments], **more)
        assert result.exit_code == code, result.output
        return result

    return invoke


def test_the_command_writes_the_page_with_a_file(run):
    run(0, "a.fmrn", "--html", "out.html")
    style, given, program = texts_of(Path("out.html").read_text(encoding="utf-8"))
    assert (style, program) == (texts_of(PAGE)[0], texts_of(PAGE)[2])
    assert given == {"name": "a.fmrn", "bytes": base64.b64encode(Path("a.fmrn").read_bytes()).decode()}
    run(0, "a.fmrn", "--html", "out.html", "--schema", "s.json", "--as", "partial-sum")
    _, given, _ = texts_of(Path("out.html").read_text(encoding="utf-8"))
    assert given["as"] == "sum"
    assert given["schema"] == {"name": "s.json", "bytes": base64.b64encode(SCHEMA.data).decode()}
    run(0, "a.fmrn", "--html", "out.html", "--as", "tally")
    assert texts_of(Path("out.html").read_text(encoding="utf-8"))[1]["as"] == "tally"
    assert run(0, "-", "--html", "-", input=Path("a.fmrn").read_bytes()).stdout.startswith("<!doctype html>")


@pytest.mark.parametrize("what", ["", "garbage", "FMRN"])
def test_damaged_files_get_a_page_too(run, what):
    Path("x").write_bytes(what.encode())
    run(0, "x", "--html", "out.html")
    _, given, _ = texts_of(Path("out.html").read_text(encoding="utf-8"))
    assert base64.b64decode(given["bytes"]) == what.encode()


@pytest.mark.parametrize(
    ("code", "arguments", "words"),
    [
        (2, ("a.fmrn", "a.fmrn", "--html", "o"), "--html: expected one file and no --json, got 2 files"),
        (2, ("a.fmrn", "--html", "o", "--json"), "--html: expected one file and no --json, got --json"),
        (2, ("a.fmrn", "--html", "o", "--annotate"), "got --annotate and --html"),
        (2, ("a.fmrn", "--as", "frame"), "--as: expected together with --annotate or --html"),
        (2, ("a.fmrn", "--html", "o", "-o", "b"), "--output: expected together with --from-annotated"),
        (3, ("nope", "--html", "o"), "No such file"),
        (3, ("a.fmrn", "--html", "no/o"), "No such file"),
    ],
)
def test_wrong_usage(run, code, arguments, words):
    assert words in " ".join(run(code, *arguments).stderr.split())
    assert not Path("o").exists()


def test_names_end_no_script():
    evil = "</script><script>alert(1)</script><!--"
    page = inspector.page(evil, b"x", None, evil, SCHEMA)
    assert len(Scripts(page).texts) == 3
    assert texts_of(page)[1]["name"] == os.path.basename(evil)
    assert html.escape(evil) not in page
