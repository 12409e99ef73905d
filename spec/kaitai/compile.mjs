// Compiles spec/fedmrn.ksy into a folder, with the compiler of Kaitai Struct that package-lock.json pins.
//
//   npm ci --ignore-scripts && node compile.mjs python build

import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import compiler from 'kaitai-struct-compiler';
import { parse } from 'yaml';

const [language, folder] = process.argv.slice(2);
if (!compiler.languages.includes(language) || folder === undefined) {
  console.error(`usage: node compile.mjs LANGUAGE FOLDER; LANGUAGE is one of ${compiler.languages.join(', ')}`);
  process.exit(2);
}
const text = await readFile(new URL('../fedmrn.ksy', import.meta.url), 'utf8');
const none = { importYaml: (name) => Promise.reject(new Error(`fedmrn.ksy imports nothing, but asked for ${name}`)) };
const files = await compiler.compile(language, parse(text), none, false).catch((error) => {
  console.error(String(error));
  process.exit(1);
});
await mkdir(folder, { recursive: true });
for (const [name, content] of Object.entries(files)) {
  await writeFile(join(folder, name), content);
  console.log(join(folder, name));
}
