"""Which source made a result: the commit, and whether files have changed since."""

from __future__ import annotations

import subprocess
from pathlib import Path


def commit(folder: Path, but: str | None = None) -> str | None:
    """The commit of the checkout that a folder belongs to.

    Parameters
    ----------
    folder : Path
    but : str, optional
        A file in this folder whose changes do not count, such as the document that gets the result.

    Returns
    -------
    str or None
        40 hexadecimal digits, and "+" if files that Git tracks have changed; None outside a checkout.
    """

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    files = [] if but is None else ["--", ":(top)", f":(exclude){but}"]
    try:
        changes = git("status", "--porcelain", "--untracked-files=no", *files)
        return git("rev-parse", "HEAD") + ("+" if changes else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def short_commit(document: Path) -> str:
    """The commit that a table of a document is about: 7 digits, and "+" if other files have changed."""
    found = commit(document.parent, document.name)
    return "no commit" if found is None else found[:7] + found[40:]
