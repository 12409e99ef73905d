"""The frame inspector in headless Chromium: files are given to it, and what it then shows comes back."""

import base64
import json
import os
import shutil
import signal
import subprocess
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fedmrn_codec as fm

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "fedmrn_codec" / "cli" / "inspector.html"
CHROMIUM = shutil.which(os.environ.get("CHROMIUM") or "chromium")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--allow-file-access-from-files",
)
PATIENCE = 240  # seconds

# Each case has a page of its own, in a frame; the report is posted to the server that waits for it.
HARNESS = """<!DOCTYPE html><meta charset="utf-8"><body><script>
const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));

function transfer(view, files) {
  const data = new view.DataTransfer();
  for (const { name, content } of files) data.items.add(new view.File([bytes(content)], name));
  return data;
}

function choose(view, id, files) {
  const input = view.document.getElementById(id);
  input.files = transfer(view, files).files;
  input.dispatchEvent(new view.Event('change'));
}

async function until(condition) {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 5));
}

async function settled(view) {
  await until(() => view.document.body.dataset.state !== 'working');
}

async function inspect({ page, width, steps }) {
  const frame = document.createElement('iframe');
  frame.style = `width: ${width}px; height: 800px; border: 0`;
  frame.src = page;
  const loaded = new Promise((resolve) => { frame.onload = resolve; });
  document.body.append(frame);
  await loaded;
  const view = frame.contentWindow, page_ = view.document, violations = [];
  page_.addEventListener('securitypolicyviolation', (event) => violations.push(event.violatedDirective));
  await settled(view);
  for (const { drop, file, schema, as, press } of steps) {
    if (as !== undefined) {
      page_.getElementById('as').value = as;
      page_.getElementById('as').dispatchEvent(new view.Event('change'));
    }
    if (schema) choose(view, 'schema-file', [schema]);
    if (file) choose(view, 'file', [file]);
    if (drop) page_.dispatchEvent(new view.DragEvent('drop', { dataTransfer: transfer(view, drop) }));
    if (press) page_.getElementById(press).click();
    await settled(view);
  }
  const shown = { violations };
  for (const node of page_.querySelectorAll('section[id]')) {
    shown[node.id] = node.hidden ? null : node.innerText;
  }
  shown.status = page_.getElementById('status').innerText;
  shown.schema = page_.getElementById('schema-name').innerText;
  const rows = [...page_.querySelectorAll('#tensors tbody tr')];
  shown.rows = rows.map((row) => [...row.cells].map((cell) => cell.textContent.trim()));
  shown.list = [...page_.querySelectorAll('.checks > ol > li > span')].map((node) => node.textContent);
  shown.bad = [...page_.querySelectorAll('.bytes .bad')].map((node) => node.textContent).join(' ');
  shown.hex = [...page_.querySelectorAll('.half > span')].map((node) => node.textContent).join(' ');
  shown.canvases = [...page_.querySelectorAll('canvas')].map((node) => {
    const { data } = node.getContext('2d').getImageData(0, 0, node.width, node.height);
    const isDark = (_, i) => (data[4 * i + 3] && data[4 * i] < 200 ? 1 : 0);
    const dark = Array.from({ length: data.length / 4 }, isDark);
    return { label: node.getAttribute('aria-label'), dark: dark.reduce((a, b) => a + b, 0) };
  });
  shown.bars = page_.querySelectorAll('svg rect').length;
  shown.scripts = page_.querySelectorAll('script').length;
  shown.unnamed = [...page_.querySelectorAll('input, select')].filter((node) => !node.labels.length).length;
  shown.too_wide = page_.scrollingElement.scrollWidth > frame.clientWidth;
  frame.remove();
  return shown;
}

async function all(cases) {
  const report = {};
  for (const [name, one] of Object.entries(cases)) report[name] = await inspect(one);
  return report;
}

all(CASES).catch((error) => ({ error: String(error.stack) })).then((report) => {
  fetch('REPORT', { method: 'POST', mode: 'no-cors', body: JSON.stringify(report) });
});
</script></body>"""


def given(name: str, content: bytes) -> dict[str, str]:
    """A file for a step."""
    return {"name": name, "content": base64.b64encode(content).decode()}


@contextmanager
def _receiver():
    """The address of a server, and a function that waits for what is posted to it."""
    posted: list[bytes] = []
    arrived = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            posted.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(204)
            self.end_headers()
            arrived.set()

        def log_message(self, *arguments):
            pass

    def wait() -> dict:
        assert arrived.wait(PATIENCE), "Chromium posted no report"
        return json.loads(posted[0])

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/", wait
        server.shutdown()


def vectors(name: str) -> list[dict]:
    """The cases of a vector file."""
    return json.loads((ROOT / "spec" / "vectors" / f"{name}.json").read_text(encoding="utf-8"))["cases"]


def schema_of(case: dict) -> bytes:
    """The bytes of a vector's schema."""
    if "schema_bytes" in case:
        return bytes.fromhex(case["schema_bytes"])
    tensors = [
        fm.Tensor(t["name"], tuple(t["shape"]), t["role"] == "masked", t["dtype"]) for t in case["schema"]
    ]
    return fm.Schema(tensors).data


def with_schema(case: dict, key: str) -> dict:
    """The steps that show bytes of a vector, its `frame`, `partial` or `tally`, with its schema."""
    schema = [{"schema": given("s.bin", schema_of(case))}] if case.get("schema") is not None else []
    as_ = "sum" if key == "partial" else key
    return {"steps": [*schema, {"as": as_}, {"file": given("x", bytes.fromhex(case[key]))}]}


def look(cases: dict[str, dict], folder: Path) -> dict[str, dict]:
    """What the inspector shows, by case.

    A case has `steps`: each chooses a `file` or a `schema`, drops files (`drop`), sets what they are read
    `as`, or presses a button (`press`). `page` is another page than the package's,
    `width` that of the screen.
    """
    full = {
        name: {
            "page": f"file://{one.get('page', PAGE)}",
            "width": one.get("width", 1280),
            "steps": one["steps"],
        }
        for name, one in cases.items()
    }
    harness, profile = folder / "harness.html", folder / "profile"
    homes = dict.fromkeys(("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"), str(profile))
    with _receiver() as (address, wait):
        text = HARNESS.replace("CASES", json.dumps(full)).replace("REPORT", address)
        harness.write_text(text, encoding="utf-8")
        command = [
            CHROMIUM,
            *FLAGS,
            f"--user-data-dir={profile}",
            "--remote-debugging-port=0",
            f"file://{harness}",
        ]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        with subprocess.Popen(
            command, env={**os.environ, **homes}, start_new_session=True, **quiet
        ) as process:
            try:
                report = wait()
            finally:
                os.killpg(process.pid, signal.SIGKILL)
    assert set(report) == set(cases), report.get("error")
    return report
