// Implements the line protocol of CONFORMANCE.md, section 3, with fedmrn.mjs: one JSON request per line on standard input,
// JSON responses on standard output. The response to a line that is no request is the error `request`, with the id null if
// the line has none. A fault of this program gives the error `internal`. Standard error has the details of both.

import { readFileSync } from 'node:fs';
import * as fedmrn from './fedmrn.mjs';

const { CODING, DISTRIBUTION, KIND } = fedmrn;
const { version } = JSON.parse(readFileSync(new URL('package.json', import.meta.url), 'utf8'));

class RequestError extends Error {}

// ------------------------------------------------------------------------------------------------- members of a request

/** Reads a member of a request: `accepts` tells whether a value is valid, `make` converts it. */
function member(said, accepts, make = (value) => value) {
  return (request, name) => {
    const value = request[name];
    if (!accepts(value)) throw new RequestError(`${name} must be ${said}`);
    return make(value);
  };
}

const matches = (pattern) => (value) => typeof value === 'string' && pattern.test(value);
const HEX = /^0x[0-9a-f]+$/i;

const unbase64 = (text) => new Uint8Array(Buffer.from(text, 'base64'));
const base64 = (bytes) => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('base64');
const isBase64 = (value) => typeof value === 'string' && Buffer.from(value, 'base64').toString('base64') === value;
const isCount = (value) => Number.isSafeInteger(value) && value >= 0;
const scaleOf = (bits) => fedmrn.toFloats(fedmrn.toBytes(Uint32Array.of(bits)))[0];

const bytes = member('base64', isBase64, unbase64);
const u64 = member('a hexadecimal string, 0x0 to 0xffffffffffffffff', (x) => matches(HEX)(x) && BigInt(x) < 2n ** 64n, BigInt);
const position = member('a hexadecimal string', matches(HEX), BigInt);
const count = member('a non-negative integer', isCount);
const u32 = member('an integer, 0 to 2^32 - 1', (x) => isCount(x) && x < 2 ** 32);
const flag = member('true or false', (x) => typeof x === 'boolean');
const scale = member('the bits of an f32', (x) => matches(HEX)(x) && BigInt(x) < 2n ** 32n, (x) => scaleOf(Number(x)));
const integer = member('a decimal string', matches(/^-?[0-9]+$/), BigInt);
const list = member('a list', Array.isArray);
const codeIn = (codes) => member(`one of ${Object.keys(codes).join(', ')}`,
  (x) => typeof x === 'string' && Object.hasOwn(codes, x), (x) => codes[x]);
const distribution = codeIn(DISTRIBUTION), kind = codeIn(KIND), coding = codeIn(CODING);
const tallyCoding = codeIn({ raw: CODING.raw, rans14: CODING.rans14 });
const maskKind = codeIn({ binary: KIND.binary, signed: KIND.signed });

const orNull = (read) => (request, name) => (request[name] == null ? null : read(request, name));
const each = (read) => (request, name) => list(request, name).map((_, i, all) => read(all, i));
const several = (read) => (request, name) => {
  const values = each(read)(request, name);
  if (values.length === 0) throw new RequestError(`${name} must be one or more`);
  return values;
};
const schema = (request, name) => fedmrn.parseSchema(bytes(request, name));

const object = member('an object', (x) => typeof x === 'object' && x !== null && !Array.isArray(x));

function entryOf(all, i) {
  const tensor = object(all, i), code = kind(tensor, 'kind');
  const entry = { kind: code, coding: orNull(coding)(tensor, 'coding') ?? CODING.raw, payload: bytes(tensor, 'payload') };
  if (code === KIND.dense) return entry;
  if (code === KIND.grid) return { ...entry, scale: scale(tensor, 'scale') };
  return { ...entry, type: distribution(tensor, 'distribution'), scale: scale(tensor, 'scale') };
}

/** The arguments that noise is made from, up to the stream. */
const noiseOf = (r) => [distribution(r, 'distribution'), scale(r, 'scale'), u64(r, 'seed'), u64(r, 'stream')];

/** The members count and start, whose sum is at most `most`. */
function range(request, most) {
  const n = count(request, 'count'), start = position(request, 'start');
  if (start + BigInt(n) > most) throw new RequestError(`start + count must be at most ${most}`);
  return [n, start];
}

function words32(request, name) {
  const array = bytes(request, name);
  if (array.length % 4) throw new RequestError(`${name} must be whole words of 4 bytes`);
  return array;
}

// ----------------------------------------------------------------------------------------------------------- operations

const summary = (aggregate) => ({ mean: aggregate.mean().map(base64), partial: base64(aggregate.toBytes()) });

const operations = {
  hello: () => ({ name: 'fedmrn.mjs', version, profiles: ['decode', 'encode', 'aggregate', 'tally'] }),

  words: (r) => {
    const found = fedmrn.words(u64(r, 'seed'), u64(r, 'stream'), ...range(r, 2n ** 66n));
    return { words: base64(fedmrn.toBytes(found)) };
  },

  noise: (r) => ({ noise: base64(fedmrn.toBytes(fedmrn.noise(...noiseOf(r), ...range(r, 2n ** 48n)))) }),

  digest: (r) => ({ digest: base64(schema(r, 'schema').digest) }),

  decode: (r) => {
    const demands = { round: orNull(u32)(r, 'round'), baseModel: orNull(u64)(r, 'base_model'), seed: orNull(u64)(r, 'seed') };
    const [tensors, schemaBytes, elements] = ['max_tensors', 'max_schema_bytes', 'max_elements'].map((name) => count(r, name));
    const frame = bytes(r, 'frame'), ours = orNull(schema)(r, 'schema');
    const parsed = fedmrn.parseFrame(frame, { schema: ours, ...demands }, { tensors, schemaBytes, elements });
    return { tensors: fedmrn.decodeFrame(parsed).map(base64) };
  },

  sample: (r) => {
    const update = fedmrn.toFloats(words32(r, 'update')), draws = words32(r, 'draws');
    const view = new DataView(draws.buffer, draws.byteOffset, draws.byteLength);
    const integers = Uint32Array.from({ length: draws.length / 4 }, (_, i) => view.getUint32(4 * i, true));
    if (integers.length !== update.length) throw new RequestError('update and draws differ in length');
    if (integers.some((x) => x >= 2 ** 24)) throw new RequestError('draws must be below 2^24');
    const code = maskKind(r, 'kind');
    return { mask: base64(fedmrn.sampleMask(code, update, fedmrn.noise(...noiseOf(r), update.length), integers)) };
  },

  encode: (r) => {
    const head = { seed: u64(r, 'seed'), baseModel: u64(r, 'base_model'), round: u32(r, 'round') };
    const update = { ...head, embedSchema: flag(r, 'embed_schema'), entries: each(entryOf)(r, 'tensors') };
    return { frame: base64(fedmrn.encodeFrame({ schema: schema(r, 'schema'), ...update })) };
  },

  aggregate: (r) => {
    const demands = { round: u32(r, 'round'), baseModel: u64(r, 'base_model') };
    const frames = each(bytes)(r, 'frames'), weights = each(integer)(r, 'weights');
    if (frames.length !== weights.length) throw new RequestError('frames and weights differ in number');
    const aggregate = new fedmrn.Aggregate(schema(r, 'schema'), demands);
    frames.forEach((frame, i) => aggregate.add(frame, weights[i]));
    return summary(aggregate);
  },

  merge: (r) => {
    const partials = several(bytes)(r, 'partials'), ours = schema(r, 'schema');
    const [first, ...others] = partials.map((partial) => fedmrn.Aggregate.fromBytes(partial, ours));
    others.forEach((other) => first.merge(other));
    return summary(first);
  },

  tally: (r) => {
    const options = { weight: integer(r, 'weight'), round: u32(r, 'round'), baseModel: u64(r, 'base_model') };
    const frames = several(bytes)(r, 'frames'), chosen = orNull(tallyCoding)(r, 'coding') ?? CODING.raw;
    const tally = new fedmrn.Tally(schema(r, 'schema'), options);
    frames.forEach((frame) => tally.add(frame));
    return { tally: base64(tally.toBytes(chosen)) };
  },

  merge_tallies: (r) => {
    const tallies = several(bytes)(r, 'tallies'), chosen = orNull(tallyCoding)(r, 'coding') ?? CODING.raw;
    const ours = schema(r, 'schema');
    const [first, ...others] = tallies.map((tally) => fedmrn.Tally.fromBytes(tally, ours));
    others.forEach((other) => first.merge(other));
    return { tally: base64(first.toBytes(chosen)) };
  },

  add_tallies: (r) => {
    const demands = { round: u32(r, 'round'), baseModel: u64(r, 'base_model') }, seed = orNull(u64)(r, 'seed');
    const tallies = several(bytes)(r, 'tallies'), ours = schema(r, 'schema');
    const aggregate = new fedmrn.Aggregate(ours, demands);
    tallies.forEach((tally) => aggregate.addTally(fedmrn.Tally.fromBytes(tally, ours, { seed })));
    return summary(aggregate);
  },
};

// ------------------------------------------------------------------------------------------------------------- protocol

function respond(line) {
  let id = null;
  try {
    const request = parseRequest(line);
    if (Number.isSafeInteger(request.id)) ({ id } = request);
    else throw new RequestError('id must be an integer');
    if (typeof request.op !== 'string') throw new RequestError('op must be a string');
    if (!Object.hasOwn(operations, request.op)) return { id, unsupported: true };
    return { id, result: operations[request.op](request) };
  } catch (error) {
    if (error instanceof fedmrn.FedmrnError) return { id, error: error.code };
    process.stderr.write(`${error instanceof RequestError ? error.message : error.stack}\n`);
    // A RangeError means that fedmrn.mjs refused an argument, or that an array is too long for the memory.
    return { id, error: error instanceof RequestError || error instanceof RangeError ? 'request' : 'internal' };
  }
}

function parseRequest(line) {
  let request;
  try {
    request = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(line));
  } catch (error) {
    throw new RequestError(`no line of JSON: ${error.message}`);
  }
  return object({ request }, 'request');
}

/** The lines of standard input, as bytes; only a line feed ends one. */
async function* lines() {
  let parts = [];
  for await (const chunk of process.stdin) {
    let from = 0;
    for (let end; (end = chunk.indexOf(10, from)) >= 0; from = end + 1) {
      yield Buffer.concat([...parts, chunk.subarray(from, end)]);
      parts = [];
    }
    parts.push(chunk.subarray(from));
  }
  yield Buffer.concat(parts);
}

for await (const line of lines()) {
  if (line.toString('latin1').trim()) process.stdout.write(`${JSON.stringify(respond(line))}\n`);
}
