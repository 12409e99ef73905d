"""spec/COVERAGE.md, the list of numbered requirements and their tests, is what the tool writes."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tool(spec_program):
    return spec_program("make_coverage")


def test_the_file_is_what_the_tool_writes(tool):
    assert tool.FILE.read_text(encoding="utf-8") == tool.text(), "run python spec/make_coverage.py --write"


def test_every_number_is_covered_or_has_a_remark(tool):
    text = (ROOT / "spec" / "FORMAT.md").read_text(encoding="utf-8")
    assert set(tool.numbers()) == set(re.findall(r"\[([A-Z]-\d\d)\]", text))
    assert tool.uncovered() == []
    assert len(tool.numbers()) > 85


def test_a_number_without_a_test_is_found(tool, monkeypatch):
    monkeypatch.setattr(tool, "numbers", lambda: ["F-01", "N-03", "M-03", "F-99"])
    assert tool.uncovered() == ["F-99"]


def test_ids_are_put_together_only_where_all_of_them_are_meant(tool):
    every = [case["id"] for case in tool.load("invalid") if case["id"].startswith("invalid/f01-")]
    assert tool.vectors_in_words(every) == f"`invalid/f01-*` ({len(every)})"
    assert tool.vectors_in_words(every[:1]) == f"`{every[0]}`"
    assert tool.vectors_in_words(every[1:]) == ", ".join(f"`{id}`" for id in every[1:])
