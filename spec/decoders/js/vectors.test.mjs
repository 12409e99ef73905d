import { readFile } from 'node:fs/promises';
import test from 'node:test';
import { cases } from './cases.mjs';

const SPEC = new URL('../../', import.meta.url);

for await (const { id, run } of cases((path) => readFile(new URL(path, SPEC)))) test(id, run);
