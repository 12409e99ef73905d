"""A hook of MkDocs: pages from outside docs/, and links that hold both in the repository and in the site."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
PAGES = (
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "adapters/fedmrn_flower/README.md",
    "adapters/fedmrn_nvflare/README.md",
    "adapters/fedmrn_secagg/README.md",
    "examples/README.md",
    "examples/flower_quickstart/README.md",
    "examples/nvflare_digits/README.md",
    "examples/receiver/README.md",
    "examples/secure_http/README.md",
    "spec/CONFORMANCE.md",
    "spec/COVERAGE.md",
    "spec/ENVELOPE.md",
    "spec/FORMAT.md",
    "spec/INVALID.md",
    "spec/README.md",
    "spec/SECAGG.md",
    "spec/decoders/c/README.md",
    "spec/decoders/js/README.md",
    "spec/vectors/README.md",
)
"""Pages that lie outside docs/; in the site they have the same paths."""

FILES = {"fedmrn_codec/cli/inspector.html": "inspector.html"}
"""Files of the repository that are no pages, and their paths in the site."""

LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\((?!\w+:|#)([^()\s#]+)(#[^()\s]*)?\)")


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add `PAGES` and `FILES` to the files of the site."""
    from mkdocs.structure.files import File

    for path in PAGES:
        files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
    for path, place in FILES.items():
        files.append(File.generated(config, place, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links of a page as the site needs them."""
    return links(markdown, page.file.src_uri, {file.src_uri for file in files})


def links(markdown: str, page: str, site: set[str]) -> str:
    """Replace links that hold in the repository by links that hold in the site.

    A link to a file or folder that has no page becomes text with its path. A link to nothing stays as it
    is, so that the strict build refuses it.

    Parameters
    ----------
    markdown : str
    page : str
        The page's path in the site.
    site : set of str
        Paths of all files in the site.
    """
    here = posixpath.dirname(page if page in PAGES else f"docs/{page}")

    def replaced(match: re.Match[str]) -> str:
        image, text, link, anchor = match[1], match[2], match[3], match[4] or ""
        path = posixpath.normpath(posixpath.join(here, link))
        for found in (FILES.get(path, path.removeprefix("docs/")), f"{path}/README.md"):
            if found in site:
                target = posixpath.relpath(found, posixpath.dirname(page) or ".")
                return f"{image}[{text}]({target}{anchor})"
        if path.startswith("..") or not (ROOT / path).exists():
            return match[0]
        return f"`{path}`" if path.endswith(text.strip("`/")) else f"{text} (`{path}`)"

    return LINK.sub(replaced, markdown)
