"""The documentation: its examples run, it names what is public, and the site is built strictly from it."""

import os
import re
import subprocess
import sys
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def hook():
    """The hook of MkDocs that adds pages and moves links."""
    spec = spec_from_file_location("repository", ROOT / "docs" / "repository.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


REPOSITORY = hook()
PATHS = ["README.md", *(str(path.relative_to(ROOT)) for path in ROOT.glob("docs/**/*.md")), *REPOSITORY.PAGES]
PAGES = {path: (ROOT / path).read_text(encoding="utf-8") for path in PATHS}
BLOCK = re.compile(r"(?:<!-- not run: ([^\n]+) -->\n\n?)?^```(\w+)\n(.*?)^```", re.M | re.S)
PROGRAM = re.compile(r"# \w+\.py\n")  # tests/test_integrating.py writes it to this file and runs it


def examples(page):
    """The blocks of a page that are run here: Python, and shell blocks of the command `fedmrn` alone."""
    for reason, kind, text in BLOCK.findall(PAGES[page]):
        shell = kind == "sh" and all(line.startswith("fedmrn ") for line in text.splitlines())
        if (shell or kind == "python") and not reason and not PROGRAM.match(text):
            yield kind, text


@pytest.mark.parametrize("page", sorted(page for page in PAGES if any(examples(page))))
def test_examples_run(page, tmp_path, monkeypatch):
    """All blocks of a page, in their order, in one folder, with the names of the blocks before."""
    if "fedmrn_flower" in PAGES[page]:
        pytest.importorskip("flwr")
    names = {}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    monkeypatch.chdir(tmp_path)
    for kind, text in examples(page):
        if kind == "python":
            exec(compile(text, page, "exec"), names)
        else:
            script = f"set -euo pipefail\n{text}"
            done = subprocess.run(
                ["bash", "-c", script], env={**os.environ, "PATH": path}, capture_output=True, text=True
            )
            assert done.returncode == 0, done.stderr


def test_most_examples_are_run():
    python = [text for page in PAGES.values() for _, kind, text in BLOCK.findall(page) if kind == "python"]
    run = [text for page in PAGES for kind, text in examples(page) if kind == "python"]
    programs = [text for text in python if PROGRAM.match(text)]
    assert len(run) > 10
    assert len(run) + len(programs) >= 0.8 * len(python)
    assert {kind for page in PAGES for kind, _ in examples(page)} == {"python", "sh"}


@pytest.mark.parametrize("page", sorted(PAGES))
def test_links_lead_to_files(page):
    text = re.sub(r"```.*?```|`[^`\n]*`", "", PAGES[page], flags=re.S)
    links = re.findall(r"\]\((?!http)([^)#]+)", text)
    assert [link for link in links if not ((ROOT / page).parent / link).exists()] == []


def test_the_tests_that_the_threat_model_names_exist():
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGES["SECURITY.md"])
    assert len(named) > 20
    for path, name in named:
        assert f"\ndef {name}(" in (ROOT / path).read_text(encoding="utf-8"), f"{path}::{name}"


def test_the_frame_size_in_the_table_is_the_measured_one():
    import numpy as np

    import fedmrn_codec as fm
    import fedmrn_torch
    from reference_fl import models

    schema = fedmrn_torch.schema(models.build("cnn4", (1, 28, 28), 10, 0))
    zeros = {t.name: np.zeros(t.shape, t.type.numpy) for t in schema}
    frame = fm.encode(zeros, schema, seed=1, noise=fm.Uniform(0.01))
    assert f"this format {len(frame):,} " in PAGES["docs/index.md"]
    row = re.search(r"\| iid \| fedmrn binary, .*noise adaptive \|.*", PAGES["docs/results.md"])
    with_the_rule = row.group().split(" | ")[5]  # mean bytes up in the table of the reference runs
    assert f"with the default noise {with_the_rule}, " in PAGES["docs/index.md"]


@pytest.mark.parametrize(
    ("page", "link", "moved"),
    [
        ("results.md", "[a](noise_rule.md#x)", "[a](noise_rule.md#x)"),
        ("results.md", "![a](scales.png)", "![a](scales.png)"),
        ("guides/codec.md", "[a](../../spec/FORMAT.md#8)", "[a](../spec/FORMAT.md#8)"),
        ("spec/README.md", "[a](FORMAT.md)", "[a](FORMAT.md)"),
        ("spec/README.md", "[a](vectors/)", "[a](vectors/README.md)"),
        ("spec/README.md", "[a](tables/gaussian.bin)", "a (`spec/tables/gaussian.bin`)"),
        ("spec/README.md", "[tables/gaussian.bin](tables/gaussian.bin)", "`spec/tables/gaussian.bin`"),
        ("adapters/fedmrn_flower/README.md", "[a](../../docs/results.md)", "[a](../../results.md)"),
        ("adapters/fedmrn_flower/README.md", "[`a`](../../examples/flower_quickstart)", None),
        ("index.md", "[a](../fedmrn_codec/cli/inspector.html)", "[a](inspector.html)"),
        ("guides/codec.md", "[a](../../fedmrn_codec/cli/inspector.html#x)", "[a](../inspector.html#x)"),
        ("results.md", "[a](nowhere.md)", "[a](nowhere.md)"),
        ("results.md", "[a](https://example.org/b.md) [a](#b)", "[a](https://example.org/b.md) [a](#b)"),
    ],
)
def test_links_of_the_repository_become_links_of_the_site(page, link, moved):
    site = {*REPOSITORY.PAGES, *REPOSITORY.FILES.values(), "results.md", "noise_rule.md", "scales.png"}
    moved = moved or "[`a`](../../examples/flower_quickstart/README.md)"
    assert REPOSITORY.links(f"x {link} y", page, site) == f"x {moved} y"


def build(config, target):
    """Build a site; the result of the command."""
    pytest.importorskip("mkdocs", reason="the extra `docs` is not installed")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", str(config), "-d", str(target)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the built site."""
    target = tmp_path_factory.mktemp("site")
    done = build(ROOT / "mkdocs.yml", target)
    assert done.returncode == 0, done.stderr
    return target


def test_the_site_fetches_nothing(site):
    """All scripts, styles, fonts and images are files of the site."""
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 30
    tag = re.compile(r"<(?:script|link|img|iframe|source)\b[^>]*(?:src|href)=[\"']?(?:https?:)?//[^>]*>")
    assert {found for page in pages for found in tag.findall(page.read_text())} == set()
    styles = "".join(path.read_text() for path in site.rglob("*.css"))
    assert re.findall(r"(?:@import|url\()\s*[\"']?(?:https?:)?//", styles) == []


@pytest.mark.parametrize(
    ("name", "page"),
    [
        *(
            (name, name)
            for name in ("fedmrn_codec", "fedmrn_torch", "fedmrn_flower", "fedmrn_nvflare", "fedmrn_secagg")
        ),
        *((f"fedmrn_codec.adapter_api{part}", "adapter_api") for part in ("", ".secagg", ".torch", ".numba")),
    ],
)
def test_every_public_name_has_an_entry(site, name, page):
    module, text = import_module(name), (site / "api" / f"{page}.html").read_text()
    heads = set(re.findall(r'<h\d id="[\w.]*?(\w+)"', text))
    assert set(module.__all__) - {"errors"} - heads == set()


def test_every_error_has_an_entry(site):
    from fedmrn_codec import errors

    names = {name for name, value in vars(errors).items() if isinstance(value, type)}
    text = (site / "api" / "errors.html").read_text()
    assert {name for name in names if f'id="fedmrn_codec.errors.{name}"' not in text} == set()


@pytest.mark.parametrize("link", ["nowhere.md", "index.md#nowhere", "/index.md", "folder"])
def test_a_broken_link_stops_the_build(tmp_path, link):
    yaml = pytest.importorskip("yaml")
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["validation"]
    (tmp_path / "docs").mkdir()
    config = tmp_path / "mkdocs.yml"
    config.write_text(yaml.safe_dump({"site_name": "x", "theme": "mkdocs", "validation": settings}))
    (tmp_path / "docs" / "index.md").write_text("# Head\n\n[a](index.md#head)\n")
    assert build(config, tmp_path / "good").returncode == 0
    (tmp_path / "docs" / "index.md").write_text(f"# Head\n\n[a]({link})\n")
    done = build(config, tmp_path / "bad")
    assert done.returncode == 1
    assert "Aborted with 1 warnings in strict mode" in done.stderr + done.stdout
