// Runs every case in a browser: browser.html in headless Chromium. $CHROMIUM names another program than `chromium`.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import path from 'node:path';
import test from 'node:test';
import { fileURLToPath } from 'node:url';

const SPEC = fileURLToPath(new URL('../../', import.meta.url));
const TYPES = { '.html': 'text/html', '.mjs': 'text/javascript', '.json': 'application/json' };
const PATIENCE = 120_000; // milliseconds within which Chromium must report

function findChromium() {
  const name = process.env.CHROMIUM || 'chromium';
  const folders = name.includes(path.sep) ? [''] : (process.env.PATH ?? '').split(path.delimiter);
  return folders.map((folder) => path.join(folder, name)).find((file) => {
    try {
      accessSync(file, constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

/** Serves the folder spec/ on a free port of 127.0.0.1, and passes what is posted to /report to the function `report`. */
async function serve(report) {
  const server = createServer(async (request, response) => {
    try {
      if (request.method === 'POST' && request.url === '/report') {
        const chunks = [];
        for await (const chunk of request) chunks.push(chunk);
        response.end();
        report(JSON.parse(Buffer.concat(chunks).toString()));
        return;
      }
      const file = path.join(SPEC, new URL(request.url, 'http://localhost').pathname);
      if (!file.startsWith(SPEC)) throw new Error('outside');
      const body = await readFile(file);
      response.writeHead(200, { 'content-type': TYPES[path.extname(file)] ?? 'application/octet-stream' }).end(body);
    } catch {
      response.writeHead(404).end();
    }
  });
  await new Promise((resolve, reject) => server.once('error', reject).listen(0, '127.0.0.1', resolve));
  return server;
}

/** Starts Chromium on a page, with a separate profile and no network requests of its own. */
function start(program, url, profile) {
  const flags = [
    '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
    '--disable-component-update', '--disable-sync', '--disable-dev-shm-usage', `--user-data-dir=${profile}`,
  ];
  const environment = { ...process.env, HOME: profile, TMPDIR: profile, XDG_CONFIG_HOME: profile, XDG_CACHE_HOME: profile };
  const child = spawn(program, [...flags, url], { stdio: ['ignore', 'ignore', 'pipe'], env: environment });
  let said = '';
  child.stderr.on('data', (chunk) => { said = (said + chunk).slice(-4000); });
  const ended = new Promise((resolve) => {
    child.once('error', (error) => resolve(error.message));
    child.once('close', (code, signal) => resolve(`Chromium ended by itself (${code ?? signal}):\n${said}`));
  });
  return { child, ended };
}

async function stop({ child, ended }) {
  child.kill('SIGTERM');
  const late = setTimeout(() => {
    child.kill('SIGKILL');
    child.stderr.destroy(); // in case a process of Chromium still has it open
  }, 10_000);
  await ended;
  clearTimeout(late);
}

/** Returns the report of the page: [{ id, error }, ...]. */
async function runInChromium(program) {
  let report;
  const reported = new Promise((resolve) => { report = resolve; });
  const server = await serve(report);
  const profile = await mkdtemp(path.join(tmpdir(), 'fedmrn-chromium-'));
  const chromium = start(program, `http://127.0.0.1:${server.address().port}/decoders/js/browser.html?report`, profile);
  let timer;
  const late = new Promise((resolve) => { timer = setTimeout(resolve, PATIENCE, `no report within ${PATIENCE / 1000} s`); });
  try {
    const outcome = await Promise.race([reported, chromium.ended, late]);
    assert.ok(Array.isArray(outcome), outcome);
    return outcome;
  } finally {
    clearTimeout(timer);
    await stop(chromium);
    server.closeAllConnections();
    server.close();
    await rm(profile, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 });
  }
}

const program = findChromium();
const skip = program ? false : 'chromium is not installed (on Debian: apt-get install chromium)';

test('all cases in Chromium', { skip }, async (t) => {
  const results = await runInChromium(program);
  assert.ok(results.length > 0);
  for (const { id, error } of results) await t.test(id, () => assert.equal(error, null));
});
