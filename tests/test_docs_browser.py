"""The documentation site in headless Chromium, opened as files: no page is too wide, the search works."""

import json
import os
import re
import shutil
import signal
import subprocess

import pytest
from test_docs import ROOT, build

CHROMIUM = shutil.which(os.environ.get("CHROMIUM") or "chromium")
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
]
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--enable-logging=stderr", "--dump-dom"),
)
PAGES = (
    "index.html",
    "guides/defaults.html",
    "adapters/fedmrn_flower/index.html",
    "integrating.html",
    "spec/FORMAT.html",
    "api/fedmrn_codec.html",
    "architecture.html",
    "results.html",
    "mutation.html",
    "guides/inspector.html",
    "inspector.html",
)
# The pages in frames of each width; the pages that scroll sideways become the text of this page.
HARNESS = """<!DOCTYPE html><meta charset="utf-8"><body><script>
const frames = PAGES.flatMap((page) => [390, 1280].map((width) => {
  const frame = document.createElement('iframe');
  frame.style = `width: ${width}px; height: 800px; border: 0`;
  frame.src = page;
  document.body.append(frame);
  return frame;
}));
window.onload = () => {
  const width = (frame) => frame.contentDocument.scrollingElement.scrollWidth;
  const wide = frames.filter((frame) => width(frame) > frame.clientWidth);
  document.body.textContent = JSON.stringify([frames.length, wide.map((frame) => frame.src)]);
};
</script></body>"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of the built site."""
    target = tmp_path_factory.mktemp("site")
    done = build(ROOT / "mkdocs.yml", target)
    assert done.returncode == 0, done.stderr
    return target


def browse(address, profile, *flags):
    """The DOM after loading, and the console messages."""
    names = "HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"
    command = [CHROMIUM, *FLAGS, *flags, f"--user-data-dir={profile}", address]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **dict.fromkeys(names, str(profile))},
        start_new_session=True,
    ) as process:
        try:
            out, err = process.communicate(timeout=180)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    assert process.returncode == 0, err
    return out, re.findall(r"CONSOLE.*", err)


def test_no_page_is_wider_than_the_screen(site, tmp_path):
    harness = tmp_path / "harness.html"
    harness.write_text(HARNESS.replace("PAGES", json.dumps([f"file://{site}/{page}" for page in PAGES])))
    dom, console = browse(f"file://{harness}", tmp_path / "profile", "--allow-file-access-from-files")
    assert console == []
    (text,) = re.findall(r"<body>(.*)</body>", dom)
    assert json.loads(text) == [2 * len(PAGES), []]


def test_the_search_works_in_a_file(site, tmp_path):
    address = f"file://{site}/guides/codec.html?q=partial"
    dom, console = browse(address, tmp_path / "profile", "--virtual-time-budget=20000")
    assert console == []
    (meta,) = re.findall(r'md-search-result__meta">\s*([^<]*?)\s*<', dom)
    assert re.fullmatch(r"\d+ matching documents", meta)
