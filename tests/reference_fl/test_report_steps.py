"""The steps of secure aggregation in the report, from synthetic files."""

import json
import subprocess
import sys

import pytest
from made_runs import ACCURACIES, BINARY, as_lines, write

from reference_fl import report, secure_steps
from reference_fl.report import page, steps
from reference_fl.report.runs import distinct, some_rounds
from reference_fl.report.sections import sections

SECURE = {**BINARY, "mask": "signed", "noise": "adaptive", "secure": True}
UP = {"keys": 580, "shares": 1380, "masked": 50_000, "reveal": 660}
DOWN = {"roster": 2260, "boxes": 1230, "survivors": 265}


def step(number, seconds=1.0, clipped=0):
    return {"round": number, "threshold": 4, "up": UP, "down": DOWN, "clipped": clipped, "seconds": seconds}


def written(folder, **given):
    write(folder, **{**SECURE, **given})
    lines = [step(i, i / 2, clipped=i) for i in range(1, len(ACCURACIES) + 1)]
    (folder / "secure.jsonl").write_text(as_lines(*lines))
    return folder


def test_a_row_of_each_secure_run_and_none_of_others(tmp_path):
    runs = [written(tmp_path / "sums"), write(tmp_path / "plain", **{**SECURE, "secure": False})]
    (section,) = sections(report.load(runs))
    assert [row.label for row in section.rows] == ["fedmrn signed", "fedmrn signed, secure"]
    grid = steps.grid(section)
    (row,) = grid.rows
    cells = dict(zip(grid.heads, row, strict=True))
    assert cells == {
        "method": "fedmrn signed, secure",
        "keys up": "116",
        "shares up": "276",
        "masked up": "10,000",
        "reveal up": "132",
        "roster down": "452",
        "boxes down": "246",
        "survivors down": "53",
        "threshold": "4",
        "clipped": str(1 + 2 + 3 + 4),
        "seconds": "1.25",  # the median of 0.5, 1, 1.5 and 2
        "share of a round": "12.5 %",  # 5 of 40 seconds
    }
    heads, rows = steps.step_table(report.load(runs))
    assert dict(zip(heads, rows[0], strict=True)) == {"data": "digits", "partition": "iid", **cells}
    assert len(rows) == 1


def test_the_page_shows_them_where_there_are_any(tmp_path):
    page.write(report.load([written(tmp_path / "sums")]), tmp_path / "one")
    assert (
        "Secure aggregation by step: bytes a client and round" in (tmp_path / "one" / page.PAGE).read_text()
    )
    page.write(report.load([write(tmp_path / "plain")]), tmp_path / "two")
    text = (tmp_path / "two" / page.PAGE).read_text()
    assert "Secure aggregation by step: bytes a client and round" not in text


def test_rounds_that_are_left_out_do_not_count(tmp_path):
    runs = some_rounds(report.load([written(tmp_path / "sums")]), 2, 3)
    (row,) = steps.grid(sections(runs)[0]).rows
    assert row[-3:] == ["5", "1.25", "12.5 %"]


def test_of_equal_runs_the_one_with_steps_is_kept(tmp_path):
    with_steps = written(tmp_path / "sums")
    without = write(tmp_path / "without", **SECURE)
    (run,) = distinct(report.load([without]) + report.load([with_steps]))
    assert len(run.secure) == len(ACCURACIES)


@pytest.mark.parametrize("change", [{"seconds": None}, {"up": {}}, {"down": {**DOWN, "roster": -1}}], ids=str)
def test_damaged_steps_are_refused(change, tmp_path):
    (tmp_path / "secure.jsonl").write_text(json.dumps({**step(7), **change}) + "\n")
    words = "expected (the steps of secure aggregation|no negative number), got"
    with pytest.raises(ValueError, match=rf"secure.jsonl, round 7: {words}"):
        secure_steps.read(tmp_path / "secure.jsonl")


def test_the_program_puts_them_into_a_document(tmp_path):
    document = tmp_path / "page.md"
    document.write_text("<!-- steps: here -->\n<!-- end of steps -->\n")
    arguments = [written(tmp_path / "sums"), "--steps", "--document", document, "--place", "steps"]
    command = [sys.executable, "-m", "reference_fl.report", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "| digits | iid | fedmrn signed, secure | 116 |" in document.read_text()
