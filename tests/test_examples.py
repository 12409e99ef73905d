"""The examples stand alone, and the READMEs beside them and of the adapters link to files that exist."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROGRAMS = sorted((ROOT / "examples").rglob("*.py"))
PAGES = sorted([*(ROOT / "examples").rglob("*.md"), *(ROOT / "adapters").rglob("*.md")])


def imports(path):
    """The top-level names that a program imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").partition(".")[0]


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: str(path.relative_to(ROOT)))
def test_an_example_does_not_import_the_reference_training(path):
    assert "reference_fl" not in set(imports(path))


def test_every_example_has_a_row_and_a_readme():
    rows = set(re.findall(r"^\| \[(\w+)\]", (ROOT / "examples" / "README.md").read_text(), re.M))
    assert rows == {path.name for path in (ROOT / "examples").iterdir() if path.is_dir()}
    assert all((ROOT / "examples" / name / "README.md").exists() for name in rows)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page):
    links = re.findall(r"\]\((?!http)([^)#]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []
