"""The report in headless Chromium: figures are drawn, no console message, no overflow of the width."""

import html
import json
import os
import re
import shutil
import signal
import subprocess

import made_runs
import pytest

from reference_fl import report
from reference_fl.report import page

CHROMIUM = shutil.which(os.environ.get("CHROMIUM") or "chromium")
pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
]
WIDTHS = (390, 1280, 2000)
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--allow-file-access-from-files", "--enable-logging=stderr", "--dump-dom"),
)
# What each figure must show of FedMRN binary: its line or its bar, or the first layer's line.
COLOUR = {"Test accuracy": "#0072b2", "Share of mask": "#0072b2", "Density and": "#440154"}

# The page in a frame of each width; what is measured in it becomes the text of this page.
HARNESS = """<!DOCTYPE html><meta charset="utf-8"><body><script>
function measure(frame) {
  const page = frame.contentDocument, root = page.documentElement, width = frame.clientWidth;
  const inBox = (e) => e.closest('.scroll') !== null;
  const box = (e) => { const b = e.getBoundingClientRect(); return [b.left, b.right, b.width, b.height]; };
  const outside = [...page.body.querySelectorAll('*')]
    .filter((e) => !inBox(e) && !e.closest('svg svg, svg *') && (box(e)[1] > width + .5 || box(e)[0] < -.5))
    .map((e) => e.outerHTML.slice(0, 80));
  const figures = [...page.querySelectorAll('figure')].map((figure) => {
    const svg = figure.querySelector('svg'), marks = {};
    for (const mark of svg ? svg.querySelectorAll('path[style]') : []) {
      for (const colour of mark.getAttribute('style').match(/#[0-9a-f]{6}/g) ?? []) {
        marks[colour] = Math.max(marks[colour] ?? 0, box(mark)[2]);
      }
    }
    return { words: figure.getAttribute('aria-label'), box: svg ? box(svg) : [0, 0, 0, 0], marks };
  });
  return { width, scroll: Math.max(root.scrollWidth, page.body.scrollWidth), outside, figures,
           tables: page.querySelectorAll('table').length };
}
const frames = WIDTHS.map((width) => {
  const frame = document.createElement('iframe');
  frame.style = `width: ${width}px; height: 800px; border: 0`;
  frame.src = PAGE;
  document.body.append(frame);
  return frame;
});
window.onload = () => { document.body.textContent = JSON.stringify(frames.map(measure)); };
</script></body>"""


def browse(address, profile):
    """The DOM after loading, and the console messages."""
    environment = {
        **os.environ,
        "HOME": str(profile),
        "XDG_CONFIG_HOME": str(profile),
        "XDG_CACHE_HOME": str(profile),
    }
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", f"file://{address}"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    ) as process:
        try:
            out, err = process.communicate(timeout=90)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    assert process.returncode == 0, err
    return out, re.findall(r"CONSOLE.*", err)


def look(path, folder):
    """The faults of a page, in words; none for a good page."""
    harness = folder / "harness.html"
    harness.write_text(
        HARNESS.replace("WIDTHS", str(list(WIDTHS))).replace("PAGE", json.dumps(f"file://{path}"))
    )
    dom, console = browse(harness, folder / "profile")
    found = json.loads(html.unescape(re.search(r"<body>(.*)</body>", dom, re.S)[1]))
    assert [view["width"] for view in found] == list(WIDTHS)
    problems = [f"console: {text}" for text in console]
    for view in found:
        problems += _overflow(view)
        problems += [why for figure in view["figures"] for why in _not_drawn(figure, view["width"])]
    return problems, found


def _overflow(view):
    if view["scroll"] > view["width"]:
        yield f"{view['width']}: {view['scroll']} wide"
    yield from (f"{view['width']}: outside: {what}" for what in view["outside"])


def _not_drawn(figure, width):
    _, _, wide, high = figure["box"]
    if wide < 300 or high < 100:
        yield f"{width}: {figure['words']}: {wide} x {high}"
    (colour,) = [colour for words, colour in COLOUR.items() if figure["words"].startswith(words)]
    if figure["marks"].get(colour, 0) < 30:
        yield f"{width}: {figure['words']}: nothing drawn in {colour}"


def test_a_report_has_no_faults_at_any_width(tmp_path):
    runs = made_runs.write_many(tmp_path / "runs")
    wordy = {**made_runs.BINARY, "options": {"a_setting_with_a_long_name": "and-an-unbroken-value-" * 3}}
    made_runs.write(tmp_path / "runs" / "wordy", partition="labels:3", **wordy)
    made_runs.write(tmp_path / "runs" / "plain", partition="labels:3", **made_runs.BINARY)
    path, *others = page.write(report.load([runs]), tmp_path / "out")
    problems, found = look(path, tmp_path)
    assert problems == []
    pictures = [file for file in others if file.suffix == ".png"]
    for view in found:
        assert len(view["figures"]) == len(pictures) == 11
        assert view["tables"] == 1 + 2 * 7 + 1
        right = max(figure["box"][0] + figure["box"][2] for figure in view["figures"])
        assert right > 0.9 * view["width"], "the figures leave a part of the width empty"


def test_these_checks_fail_for_a_bad_page(tmp_path):
    path = tmp_path / "bad.html"
    path.write_text(
        "<!DOCTYPE html><meta http-equiv='Content-Security-Policy' content=\"default-src 'none'; "
        "style-src 'unsafe-inline'; script-src 'unsafe-inline'\">"
        "<body><div style='width: 900px'>wide</div><img src='http://127.0.0.1:1/x.png'>"
        "<figure aria-label='Test accuracy: no picture'></figure>"
        "<figure aria-label='Test accuracy: empty'><svg width='350' height='200'><path "
        "style='stroke: #000000' d='M 0 0 L 300 100'/></svg></figure></body>"
    )
    problems, _ = look(path, tmp_path)
    text = "\n".join(problems)
    for part in (
        "console:",
        "390: 90",
        "390: outside: <div",
        "no picture: 0 x 0",
        "empty: nothing drawn in #0072b2",
    ):
        assert part in text, (part, text)
    assert "1280: outside" not in text
