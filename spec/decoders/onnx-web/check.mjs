// Runs graphs that `fedmrn export-onnx` wrote in onnxruntime-web (WebAssembly, one thread).
//
// Each line of standard input is a request, each line of standard output the response to it:
//   {"model": "decode-uniform-binary.onnx", "inputs": {"seed": {"type": "uint64", "dims": [], "hex": "0700000000000000"}, ...}}
//   {"decoded": "5ff6143c..."}
// `hex` is the little-endian bytes of the elements.
//
//   npm ci --ignore-scripts && node check.mjs < requests

import { readFile } from 'node:fs/promises';
import { createInterface } from 'node:readline';
import * as ort from 'onnxruntime-web/wasm';

const ARRAYS = {
  uint8: Uint8Array,
  int32: Int32Array,
  uint32: Uint32Array,
  int64: BigInt64Array,
  uint64: BigUint64Array,
  float32: Float32Array,
};

function tensor({ type, dims, hex }) {
  const bytes = Uint8Array.from(Buffer.from(hex, 'hex')); // a copy, so aligned
  return new ort.Tensor(type, new ARRAYS[type](bytes.buffer), dims);
}

function hex({ data }) {
  return Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString('hex');
}

const mapped = (object, change) => Object.fromEntries(Object.entries(object).map(([k, v]) => [k, change(v)]));

ort.env.wasm.numThreads = 1;
const sessions = new Map();

async function run({ model, inputs }) {
  if (!sessions.has(model)) {
    sessions.set(model, await ort.InferenceSession.create(await readFile(model), { executionProviders: ['wasm'] }));
  }
  return mapped(await sessions.get(model).run(mapped(inputs, tensor)), hex);
}

for await (const line of createInterface({ input: process.stdin })) {
  console.log(JSON.stringify(await run(JSON.parse(line))));
}
