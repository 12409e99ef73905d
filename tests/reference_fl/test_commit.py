"""The commit that results are recorded with."""

import subprocess

import pytest

from reference_fl.commit import commit, short_commit


@pytest.fixture
def checkout(tmp_path):
    def git(*arguments):
        who = ("-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
        done = subprocess.run(
            ["git", *who, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    git("init", "-q")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "page.md").write_text("page\n")
    (tmp_path / "source.py").write_text("source\n")
    git("add", "-A"), git("commit", "-q", "-m", "first")
    return tmp_path, git("rev-parse", "HEAD")


def test_a_plus_says_that_tracked_files_have_changed(checkout):
    root, digits = checkout
    (root / "runs.jsonl").write_text("not tracked\n")
    assert commit(root) == commit(root / "docs") == digits
    (root / "source.py").write_text("changed\n")
    assert commit(root / "docs") == digits + "+"


def test_changes_of_the_document_itself_do_not_count(checkout):
    root, digits = checkout
    page = root / "docs" / "page.md"
    page.write_text("a new table\n")
    assert commit(root) == digits + "+"
    assert short_commit(page) == digits[:7]
    (root / "source.py").write_text("changed\n")
    assert short_commit(page) == digits[:7] + "+"


def test_outside_a_checkout_there_is_no_commit(tmp_path):
    (tmp_path / "page.md").write_text("page\n")
    assert commit(tmp_path) is None
    assert short_commit(tmp_path / "page.md") == "no commit"
