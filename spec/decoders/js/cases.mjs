// The test vectors, and further cases that they do not cover. This module works on every platform: a test runner in Node
// or a page in a browser passes a function that loads files, and gets cases { id, run }. `run` throws if the case fails.

import * as fedmrn from './fedmrn.mjs';

const { CODING, DISTRIBUTION, DTYPE, KIND, ROLE } = fedmrn;
const FILES = { // the version of the format that each has vectors of
  philox: 1.3, noise: 1.3, bits: 1.3, schema: 1.3, frames: 1.3, invalid: 1.3, aggregate: 1.3, partials_invalid: 1.3,
  tallies: 1.4, tallies_invalid: 1.4,
};

/**
 * @param {(path: string) => Promise<Uint8Array>} load reads a file of the spec's folder, such as 'vectors/philox.json'
 * @returns {AsyncGenerator<{ id: string, run: () => void }>}
 */
export async function* cases(load) {
  for (const [file, version] of Object.entries(FILES)) {
    const vectors = JSON.parse(new TextDecoder().decode(await load(`vectors/${file}.json`)));
    yield { id: `own/${file}-format`, run: () => same([vectors.format, vectors.cases.length > 0], [`fedmrn ${version}`, true]) };
    for (const c of vectors.cases) yield { id: c.id, run: () => runVector(file, c) };
  }
  const table = await load('tables/gaussian.bin');
  yield { id: 'own/gaussian-table', run: () => same(hex(fedmrn.toBytes(fedmrn.gaussianTable())), hex(table)) };
  for (const [name, run] of Object.entries(own)) yield { id: `own/${name}`, run };
}

// --------------------------------------------------------------------------------------------------------------- compare

const show = (value) => JSON.stringify(value, (_, x) => (typeof x === 'bigint' ? `${x}n` : x)) ?? String(value);

function same(found, right) {
  if (show(found) !== show(right)) throw new Error(`found ${show(found)}, right is ${show(right)}`);
}

function refusal(run, code, number) {
  let error;
  try {
    run();
  } catch (thrown) {
    error = thrown;
  }
  if (!(error instanceof fedmrn.FedmrnError)) throw error ?? new Error(`not refused, right is ${code}`);
  same(error.code, code);
  if (number) same(error.number, number);
  if ([error.field, error.expected, error.got].some((x) => x === undefined)) throw new Error(`little said: ${error.message}`);
  return error;
}

function rangeError(run) {
  try {
    run();
  } catch (error) {
    if (error instanceof RangeError) return;
    throw error;
  }
  throw new Error('no RangeError');
}

// ------------------------------------------------------------------------------- values in the notation of the vectors

const hex = (bytes) => Array.from(bytes, (x) => x.toString(16).padStart(2, '0')).join('');
const unhex = (text) => Uint8Array.from({ length: text.length / 2 }, (_, i) => parseInt(text.slice(2 * i, 2 * i + 2), 16));
const word = (x) => `0x${x.toString(16).padStart(8, '0')}`;
const scaleOf = (bits) => new Float32Array(Uint32Array.of(Number(bits)).buffer)[0];
const u64 = (text) => (text === undefined ? undefined : BigInt(text));
const schemaOf = (list) => fedmrn.buildSchema(list.map((t) => ({ ...t, role: ROLE[t.role], dtype: DTYPE[t.dtype] })));
const source = (c) => [DISTRIBUTION[c.distribution], scaleOf(c.scale), BigInt(c.seed), BigInt(c.stream)];

function entryOf({ kind, distribution, scale, coding = 'raw', payload }) {
  const noise = scale === undefined ? {} : { type: DISTRIBUTION[distribution], scale: scaleOf(scale) };
  return { kind: KIND[kind], ...noise, coding: CODING[coding], payload: unhex(payload) };
}

function parse(bytes, schema, { round, base_model, seed, max_tensors, max_schema_bytes, max_elements }) {
  const limits = { tensors: max_tensors, schemaBytes: max_schema_bytes, elements: max_elements };
  return fedmrn.parseFrame(bytes, { schema, round, baseModel: u64(base_model), seed: u64(seed) }, limits);
}

// --------------------------------------------------------------------------------------------------------------- vectors

function runVector(file, c) {
  const run = byOp[c.op ? `${file}/${c.op}` : file];
  if (c.result === 'valid') run(c);
  else refusal(() => run(c), c.code, numberOf(c));
}

/** The number of the check that refuses an invalid case, if its id contains it; undefined for a case with two defects. */
function numberOf(c) {
  if (c.op === 'partial_mean') return 'A-07';
  if (c.id.startsWith('tallies')) return c.spec[0];
  const name = /^\w*invalid\/([cfsp])(\d\d)/.exec(c.id);
  return name && !c.id.includes('-and-') ? `${name[1].toUpperCase()}-${name[2]}` : undefined;
}

/** Adds tallies to an aggregate, and compares the sums with those of a vector, if it has any. */
function sameSums(schema, options, tallies, { seed, mean, partial }) {
  const aggregate = new fedmrn.Aggregate(schema, options);
  for (const tally of tallies) aggregate.addTally(fedmrn.Tally.fromBytes(tally, schema, { seed: u64(seed) }));
  if (mean) same([aggregate.mean().map(hex), hex(aggregate.toBytes())], [mean, partial]);
}

const byOp = {
  'philox/block'(c) {
    const [c0, c1, c2, c3, k0, k1] = [...c.counter, ...c.key].map(BigInt);
    const found = fedmrn.words(k0 | k1 << 32n, c2 | c3 << 32n, 4, (c0 | c1 << 32n) * 4n);
    same(Array.from(found, word), c.output);
  },
  'philox/words'(c) {
    same(Array.from(fedmrn.words(BigInt(c.seed), BigInt(c.stream), c.count, BigInt(c.start)), word), c.words);
  },
  'noise/noise'(c) {
    const [distribution, scale, seed, stream] = source(c);
    same([...fedmrn.draws(distribution, seed, stream, c.count, BigInt(c.start))], c.draws);
    same(hex(fedmrn.toBytes(fedmrn.noise(distribution, scale, seed, stream, c.count, BigInt(c.start)))), c.noise);
  },
  'noise/draw'(c) {
    same([...fedmrn.drawsOf(DISTRIBUTION[c.distribution], Uint32Array.from(c.words, Number))], c.draws);
  },
  'bits/pack'(c) {
    const bits = Array.from(c.bits, Number);
    same(hex(fedmrn.packMask(bits)), c.mask);
    same([...fedmrn.unpackMask(unhex(c.mask), bits.length)], bits);
  },
  'bits/unpack'(c) {
    fedmrn.unpackMask(unhex(c.mask), c.count);
  },
  'bits/decode'(c) {
    same(hex(fedmrn.toBytes(fedmrn.decodeMask(KIND[c.kind], ...source(c), unhex(c.mask), c.count))), c.update);
  },
  'bits/sample'(c) {
    const noise = fedmrn.noise(...source(c), c.count);
    same(hex(fedmrn.toBytes(noise)), c.noise);
    if (c.private_seed) same([...fedmrn.testRandom(BigInt(c.private_seed), BigInt(c.stream), c.count)], c.r);
    same(hex(fedmrn.sampleMask(KIND[c.kind], fedmrn.toFloats(unhex(c.update)), noise, c.r)), c.mask);
  },
  schema(c) {
    const schema = schemaOf(c.schema);
    same([hex(schema.bytes), hex(schema.digest)], [c.bytes, c.digest]);
    same(schema.tensors.map(({ name, shape }) => [name, shape]), c.schema.map(({ name, shape }) => [name, shape]));
  },
  frames(c) {
    const schema = schemaOf(c.schema);
    same(hex(schema.bytes), c.schema_bytes);
    const head = { seed: BigInt(c.seed), baseModel: BigInt(c.base_model), round: c.round };
    const bytes = fedmrn.encodeFrame({ schema, ...head, embedSchema: c.embed_schema, entries: c.tensors.map(entryOf) });
    same(hex(bytes), c.frame);
    const frame = parse(unhex(c.frame), c.caller_has_schema ? schema : undefined, c.options);
    same([frame.seed, frame.baseModel, frame.round], [head.seed, head.baseModel, head.round]);
    same(fedmrn.decodeFrame(frame).map(hex), c.decoded);
    same(hex(fedmrn.encodeFrame({ schema, ...head, embedSchema: c.embed_schema, entries: frame.entries })), c.frame);
  },
  invalid(c) {
    parse(unhex(c.frame), c.schema ? schemaOf(c.schema) : undefined, c.options);
  },
  'aggregate/mean'(c) {
    const aggregate = new fedmrn.Aggregate(schemaOf(c.schema), { baseModel: u64(c.base_model), round: c.round });
    c.frames.forEach((frame, i) => aggregate.add(unhex(frame), c.weights[i]));
    same(hex(aggregate.toBytes()), c.partial);
    same(aggregate.mean().map(hex), c.mean);
    same(hex(fedmrn.Aggregate.fromBytes(unhex(c.partial), aggregate.schema).toBytes()), c.partial);
  },
  'aggregate/merge'(c) {
    const [first, ...others] = c.parts.map((part) => fedmrn.Aggregate.fromBytes(unhex(part), schemaOf(c.schema)));
    others.forEach((other) => first.merge(other));
    same(hex(first.toBytes()), c.merged);
    same(first.mean().map(hex), c.mean);
  },
  'aggregate/partial_mean'(c) {
    fedmrn.Aggregate.fromBytes(unhex(c.partial), schemaOf(c.schema)).mean();
  },
  partials_invalid(c) {
    fedmrn.Aggregate.fromBytes(unhex(c.partial), schemaOf(c.schema));
  },
  'tallies/tally'(c) {
    const schema = schemaOf(c.schema), options = { baseModel: BigInt(c.base_model), round: c.round };
    const tally = new fedmrn.Tally(schema, { weight: BigInt(c.weight), ...options });
    c.frames.forEach((frame) => tally.add(unhex(frame)));
    same(hex(tally.toBytes(CODING[c.coding ?? 'raw'])), c.tally);
    sameSums(schema, options, [unhex(c.tally)], c);
    if (!c.mean) return;
    const aggregate = new fedmrn.Aggregate(schema, options);
    c.frames.forEach((frame) => aggregate.add(unhex(frame), BigInt(c.weight)));
    same(hex(aggregate.toBytes()), c.partial);
  },
  'tallies/merge_tallies'(c) {
    const schema = schemaOf(c.schema);
    const [first, ...others] = c.tallies.map((tally) => fedmrn.Tally.fromBytes(unhex(tally), schema));
    others.forEach((other) => first.merge(other));
    same(hex(first.toBytes(CODING[c.coding ?? 'raw'])), c.tally);
  },
  'tallies/add_tallies'(c) {
    const options = { baseModel: u64(c.base_model), round: c.round };
    sameSums(schemaOf(c.schema), options, c.tallies.map(unhex), c);
  },
  tallies_invalid(c) {
    fedmrn.Tally.fromBytes(unhex(c.tally), schemaOf(c.schema), { seed: u64(c.seed) });
  },
};

// --------------------------------------------------------------------------------------- what the vectors do not cover

const SCHEMA = fedmrn.buildSchema([
  { name: 'w', role: ROLE.masked, dtype: DTYPE.float32, shape: [11] },
  { name: 'd', role: ROLE.dense, dtype: DTYPE.float64, shape: [2] },
]);

/** A frame of SCHEMA. */
function frameOf({ seed = 7n, round = 0, baseModel = 0n, type = DISTRIBUTION.uniform, scale = 0.5 } = {}) {
  const mask = { kind: KIND.signed, type, scale, payload: Uint8Array.of(0xA5, 0x03) };
  const dense = { kind: KIND.dense, payload: new Uint8Array(Float64Array.of(0.25, -1e300).buffer) };
  return fedmrn.encodeFrame({ schema: SCHEMA, seed, round, baseModel, entries: [mask, dense] });
}

function aggregateOf(...weights) {
  const aggregate = new fedmrn.Aggregate(SCHEMA);
  weights.forEach((weight, i) => aggregate.add(frameOf({ seed: i }), weight));
  return aggregate;
}

/** A frame of one tensor. */
function frameOfOne(tensor, entry, seed = entry.kind === KIND.grid ? undefined : 7n) {
  const schema = fedmrn.buildSchema([{ name: 't', dtype: DTYPE.float32, ...tensor }]);
  const bytes = fedmrn.encodeFrame({ schema, seed, entries: [entry] });
  return { schema, bytes, tensor: fedmrn.parseFrame(bytes, { schema }).entries[0] };
}

/** A frame with one mask of n elements that coding 1 makes shorter: a bit is set where the noise is small. */
function codedFrame(n, type, kind = KIND.binary) {
  const q = fedmrn.draws(type, 7n, 0n, n), bound = Math.abs(q.reduce((a, b) => Math.max(a, b))) / 8;
  const payload = fedmrn.packMask(q.map((x, i) => (type === DISTRIBUTION.bernoulli ? i % 11 === 0 : Math.abs(x) < bound)));
  const entry = { kind, type, scale: 0.5, coding: CODING.rans, payload };
  return { payload, ...frameOfOne({ role: ROLE.masked, shape: [n] }, entry) };
}

/** A frame of one mask with Bernoulli noise, whose elements are all in one bucket. */
function oneBucket(n, bitOf) {
  const payload = fedmrn.packMask(Array.from({ length: n }, (_, i) => bitOf(i)));
  const entry = { kind: KIND.binary, type: DISTRIBUTION.bernoulli, scale: 0.5, coding: CODING.rans, payload };
  return { payload, ...frameOfOne({ role: ROLE.masked, shape: [n] }, entry) };
}

/** A frame of one grid, which is masked if the dtype is float32. */
function gridFrame(z, { dtype = DTYPE.float32, role = ROLE.masked, scale = 0.5, coding = CODING.rans14 } = {}) {
  const entry = { kind: KIND.grid, scale, coding, payload: fedmrn.toBytes(Int32Array.from(z)) };
  const right = dtype === DTYPE.float32 ? role : ROLE.dense;
  return { payload: entry.payload, ...frameOfOne({ role: right, dtype, shape: [z.length] }, entry) };
}

/** The coded payload of integers; its last block has the last state and words. */
const gridPayload = (z) => gridFrame(z).bytes.slice(64, -4);

/** The bytes of a frame of one tensor, with another payload in coding 5. */
function withPayload(bytes, payload) {
  const copy = new Uint8Array(68 + payload.length), view = new DataView(copy.buffer);
  copy.set(bytes.subarray(0, 64));
  copy.set(payload, 64);
  view.setUint32(56, 0, true);
  view.setUint32(52, payload.length, true);
  view.setUint32(copy.length - 4, fedmrn.crc32(copy.subarray(0, -4)), true);
  return copy;
}

/** The 16-bit payload of f32 elements given by their bits. */
function narrowed(bits, coding) {
  const entry = { kind: KIND.dense, coding, payload: fedmrn.toBytes(bits) };
  const { bytes, tensor } = frameOfOne({ role: ROLE.dense, shape: [bits.length] }, entry);
  const view = new DataView(bytes.buffer, bytes.byteOffset + 60);
  return { halves: Array.from({ length: bits.length }, (_, i) => view.getUint16(2 * i, true)), tensor };
}

/** A tally of frames, by default of TALLIED. */
function tallyOf(frames, { schema = TALLIED, ...options } = {}) {
  const tally = new fedmrn.Tally(schema, { weight: 3, ...options });
  frames.forEach((frame) => tally.add(frame));
  return tally;
}

const TALLIED = fedmrn.buildSchema([
  { name: 'w', role: ROLE.masked, dtype: DTYPE.float32, shape: [11] },
  { name: 'd', role: ROLE.dense, dtype: DTYPE.float64, shape: [2] },
  { name: 'i', role: ROLE.dense, dtype: DTYPE.int64, shape: [1] },
]);

/** The mask of a frame of TALLIED, another one for each k. */
const talliedMask = (k) => Uint8Array.of(0xA5 ^ (k * 0x35), (k * 3) & 7);

/** A frame of TALLIED, all with one seed. */
function talliedFrame({ k = 0, kind = KIND.signed, type = DISTRIBUTION.uniform, scale = 0.5, ...head }) {
  const mask = { kind, type, scale, payload: talliedMask(k) };
  const floats = { kind: KIND.dense, payload: new Uint8Array(Float64Array.of(0.25 + k, k % 2 ? -1e300 : 1e-310).buffer) };
  const integer = { kind: KIND.dense, payload: new Uint8Array(BigInt64Array.of(-(2n ** 63n) + BigInt(k)).buffer) };
  return fedmrn.encodeFrame({ schema: TALLIED, seed: 7n, round: 4, baseModel: 5n, ...head, entries: [mask, floats, integer] });
}

/** The bytes with a right checksum, in place. */
function sealed(bytes) {
  new DataView(bytes.buffer).setUint32(bytes.length - 4, fedmrn.crc32(bytes.subarray(0, -4)), true);
  return bytes;
}

const own = {
  'start-beyond-2-53'() {
    for (const start of [2n ** 53n, 2n ** 60n, 2n ** 63n, 2n ** 64n - 2n ** 11n, 2n ** 64n]) {
      same([...fedmrn.words(7n, 3n, 9, Number(start))], [...fedmrn.words(7n, 3n, 9, start)]);
      for (const distribution of Object.values(DISTRIBUTION)) {
        const found = fedmrn.noise(distribution, 0.5, 7n, 3n, 9, Number(start));
        same([...found], [...fedmrn.noise(distribution, 0.5, 7n, 3n, 9, start)]);
      }
    }
  },
  'start-any-lane'() {
    for (const start of [2n ** 32n - 3n, 2n ** 34n - 5n, 2n ** 53n - 5n, 2n ** 64n - 70n, 2n ** 64n - 1n]) {
      const w = fedmrn.words(7n, 3n, 140, start);
      for (let k = 0; k < 140; k += 13) same(fedmrn.words(7n, 3n, 1, start + BigInt(k))[0], w[k]);
      for (const type of [DISTRIBUTION.uniform, DISTRIBUTION.gaussian]) {
        same([...fedmrn.draws(type, 7n, 3n, 140, start)], [...fedmrn.drawsOf(type, w)]);
      }
      const bits = fedmrn.drawsOf(DISTRIBUTION.bernoulli, fedmrn.words(7n, 3n, 6, start / 32n));
      const skip = Number(start % 32n);
      same([...fedmrn.draws(DISTRIBUTION.bernoulli, 7n, 3n, 140, start)], [...bits.subarray(skip, skip + 140)]);
    }
  },
  'chunks-join'() { // draws computed in chunks equal those computed at once
    const count = 20011, mask = new Uint8Array(Math.ceil(count / 8)).fill(255, 0, -1);
    for (const type of Object.values(DISTRIBUTION)) {
      const decoded = fedmrn.decodeMask(KIND.binary, type, 0.5, 7n, 3n, mask, count);
      const noise = fedmrn.noise(type, 0.5, 7n, 3n, 20008);
      same([...decoded], [...noise, 0, 0, 0]);
    }
  },
  'arguments-are-checked'() {
    const bad = [
      () => fedmrn.words(2n ** 64n, 0n, 1), () => fedmrn.words(-1, 0n, 1), () => fedmrn.words(0n, 2n ** 64n, 1),
      () => fedmrn.words(0n, 0n, 1, 2n ** 66n), () => fedmrn.words(0n, 0n, 1, 0.5), () => fedmrn.words(0n, 0n, -1),
      () => fedmrn.draws(4, 0n, 0n, 1), () => frameOf({ seed: 2n ** 64n }), () => frameOf({ round: 2 ** 32 }),
      () => new fedmrn.Aggregate(SCHEMA, { round: -1 }), () => fedmrn.decodeMask(0, 1, 0.5, 7n, 3n, new Uint8Array(1), 8),
    ];
    bad.forEach(rangeError);
    fedmrn.words(0n, 0n, 1, 2n ** 66n - 1n);
  },
  'a-scale-is-rounded-first'() {
    const [rounded] = fedmrn.noise(DISTRIBUTION.bernoulli, 0.1, 7n, 0n, 1);
    same(rounded, fedmrn.noise(DISTRIBUTION.bernoulli, Math.fround(0.1), 7n, 0n, 1)[0]);
  },
  'schemas-are-checked'() {
    const tensor = { name: 'w', role: ROLE.masked, dtype: DTYPE.float32, shape: [2] };
    const build = (...changes) => () => fedmrn.buildSchema(changes.map((change) => ({ ...tensor, ...change })));
    refusal(build({}, {}), 'schema_name', 'S-02');
    refusal(build({ name: '' }), 'schema_name', 'S-02');
    refusal(build({ name: 'x'.repeat(65536) }), 'schema_name', 'S-02');
    refusal(build({ name: '\uD800' }), 'schema_name', 'S-02');
    refusal(build({ role: undefined }), 'unknown_role', 'S-03');
    refusal(build({ dtype: 14 }), 'unknown_dtype', 'S-04');
    refusal(build({ dtype: DTYPE.float64 }), 'masked_dtype', 'S-05');
    refusal(build({ shape: [2 ** 24, 2 ** 24 + 1] }), 'schema_shape', 'S-06');
    refusal(build({ shape: new Array(288).fill(1) }), 'schema_shape', 'S-06');
    same(build({ shape: [0, 2 ** 48] })().tensors[0].n, 0);
  },
  'an-error-says-what-and-where'() {
    const bytes = frameOf();
    bytes[50] = 9;
    const error = refusal(() => fedmrn.parseFrame(bytes, { schema: SCHEMA }), 'unknown_coding', 'F-21');
    same([error.class, error.field, error.offset], ['unsupported', 'table entry 0, coding', 50]);
    same(error.message, 'unknown_coding [F-21]: table entry 0, coding, byte 50: expected 0, got 9');
    const cut = refusal(() => fedmrn.parseFrame(bytes.subarray(0, 51)), 'truncated', 'F-01');
    same(cut.message, 'truncated [F-01]: frame, byte 51: expected at least 52, got 51 bytes');
  },
  'an-offset-in-an-embedded-schema-is-one-of-the-frame'() {
    const entries = fedmrn.parseFrame(frameOf(), { schema: SCHEMA }).entries;
    const bytes = fedmrn.encodeFrame({ schema: SCHEMA, seed: 7n, embedSchema: true, entries });
    bytes[52 + 4 + 2 + 1] = 2; // the role of the first tensor
    same(refusal(() => fedmrn.parseFrame(bytes), 'unknown_role', 'S-03').offset, 59);
  },
  'a-frame-in-a-larger-buffer'() {
    const bytes = frameOf(), larger = new Uint8Array(bytes.length + 5);
    larger.set(bytes, 3);
    const frame = fedmrn.parseFrame(larger.subarray(3, -2), { schema: SCHEMA });
    const [, dense] = fedmrn.decodeFrame(frame);
    larger.fill(0);
    same([...new Float64Array(dense.buffer)], [0.25, -1e300]);
  },
  'the-weight-is-checked-before-the-frame'() {
    const aggregate = aggregateOf(3);
    refusal(() => aggregate.add(new Uint8Array(3), 0), 'aggregate', 'A-01');
    refusal(() => aggregate.add(new Uint8Array(3), 2n ** 70n), 'aggregate', 'A-01');
    refusal(() => aggregate.add(new Uint8Array(3), 0.5), 'aggregate', 'A-01');
    refusal(() => aggregate.add(new Uint8Array(3), 1), 'truncated', 'F-01');
    refusal(() => aggregate.add(frameOf({ scale: 0.25 }).fill(0, -4), 1), 'checksum', 'F-27');
    refusal(() => aggregate.add(frameOf({ scale: 0.25 }), 1), 'aggregate', 'A-02');
  },
  'a-refused-frame-or-merge-changes-nothing'() {
    const aggregate = aggregateOf(3, 5), before = hex(aggregate.toBytes());
    const other = new fedmrn.Aggregate(SCHEMA);
    other.add(frameOf({ type: DISTRIBUTION.bernoulli }), 1);
    refusal(() => aggregate.add(frameOf({ scale: 0.25 }), 1), 'aggregate', 'A-02');
    refusal(() => aggregate.add(frameOf(), 2 ** 39 - 8), 'aggregate', 'A-01');
    refusal(() => aggregate.merge(other), 'aggregate', 'A-06');
    refusal(() => aggregate.merge(new fedmrn.Aggregate(SCHEMA, { round: 4 })), 'aggregate', 'A-06');
    refusal(() => aggregate.merge(new fedmrn.Aggregate(fedmrn.buildSchema([]))), 'aggregate', 'A-06');
    same(hex(aggregate.toBytes()), before);
    aggregate.add(frameOf({ seed: 2 }), 2 ** 39 - 9); // the largest sum of weights
  },
  'a-sum-of-no-frames'() {
    const none = new fedmrn.Aggregate(SCHEMA);
    refusal(() => none.mean(), 'aggregate', 'A-05');
    refusal(() => none.toBytes(), 'aggregate', 'A-05');
    const some = aggregateOf(3, 5), before = hex(some.toBytes());
    some.merge(none);
    same(hex(some.toBytes()), before);
    none.merge(some);
    same(hex(none.toBytes()), before);
  },
  'parsed-frames-can-be-added'() {
    const whole = aggregateOf(3, 5), parsed = new fedmrn.Aggregate(SCHEMA);
    parsed.add(fedmrn.parseFrame(frameOf({ seed: 0 }), { schema: SCHEMA }), 3n);
    parsed.add(fedmrn.parseFrame(frameOf({ seed: 1 }), { schema: SCHEMA }), 5n);
    same(hex(parsed.toBytes()), hex(whole.toBytes()));
    const demanding = new fedmrn.Aggregate(SCHEMA, { round: 4 });
    refusal(() => demanding.add(fedmrn.parseFrame(frameOf({ round: 5 }), { schema: SCHEMA }), 1), 'round', 'F-12');
  },
  'the-bounds-of-sums'() { // [P-15]: the bound itself is allowed, one more is not
    const schema = fedmrn.buildSchema([{ name: 'w', role: ROLE.masked, dtype: DTYPE.float32, shape: [1] }]);
    const largest = { uniform: 2n ** 24n - 1n, gaussian: 13291661n, bernoulli: 1n };
    for (const [name, type] of Object.entries(DISTRIBUTION)) {
      const one = new fedmrn.Aggregate(schema), entries = [{ kind: KIND.binary, type, scale: 0.5, payload: Uint8Array.of(1) }];
      one.add(fedmrn.encodeFrame({ schema, seed: 7n, entries }), 1);
      for (const weight of [1n, 7n, 2n ** 24n - 1n, 2n ** 24n, 2n ** 24n + 1n, 2n ** 38n + 12345n, 2n ** 39n - 1n]) {
        const bytes = one.toBytes(), view = new DataView(bytes.buffer);
        view.setBigUint64(8, weight, true);
        const read = (sum) => {
          view.setBigInt64(64, sum, true);
          view.setUint32(72, fedmrn.crc32(bytes.subarray(0, 72)), true);
          return fedmrn.Aggregate.fromBytes(bytes, schema);
        };
        const most = weight * largest[name];
        for (const sum of [most, -most, most - 1n, 1n - most, 0n, -1n]) same(hex(read(sum).toBytes()), hex(bytes));
        for (const sum of [most + 1n, -most - 1n, 2n ** 63n - 1n, -(2n ** 63n)]) refusal(() => read(sum), 'sums', 'P-15');
        for (const sum of [most, -most]) { // the largest mean that noise can have
          const step = { uniform: 2 ** -25, gaussian: 2 ** -22, bernoulli: 0.5 }[name];
          const [mean] = fedmrn.toFloats(read(sum).mean()[0]);
          same(mean, Math.fround(Number(sum) / Number(weight) * step));
        }
      }
    }
  },
  'coded-blocks'() { // the vectors have one block each; these checksums are of frames that the reference also reads
    const right = {
      65536: [0x6D7DFC78, 0xA231BCEE, 0xE2FBDF32], 65537: [0xA289DABD, 0x4D93FC9D, 0x0858C49B],
      132075: [0x27368379, 0x325D3EF7, 0x64A94B6A],
    };
    for (const n of [65536, 65537, 2 * 65536 + 1003]) {
      for (const [k, type] of Object.values(DISTRIBUTION).entries()) {
        const { payload, bytes, tensor, schema } = codedFrame(n, type, n === 65537 ? KIND.signed : KIND.binary);
        same(fedmrn.crc32(bytes.subarray(0, -4)), right[n][k]);
        same([tensor.coding, bytes[5], bytes.length < payload.length], [CODING.rans, 1, true]);
        same(hex(tensor.payload), hex(payload));
        same(hex(fedmrn.encodeFrame({ schema, seed: 7n, entries: [tensor] })), hex(bytes));
      }
    }
  },
  'a-state-at-the-bound-writes-a-word'() { // P is 16 and each state's last 4 bits are set: 2^16, 2^20, 2^24, 2^28 = P * 2^24
    const { payload, bytes, tensor } = oneBucket(1600, (i) => i >= 1568 || (i % 22 === 0 && i < 1496));
    same([tensor.coding, bytes[64], hex(tensor.payload)], [CODING.rans, 16, hex(payload)]);
  },
  'a-coded-mask-as-long-as-the-raw-one-stays-raw'() {
    const codings = [7, 8, 9].map((k) => oneBucket(800, (i) => i % k === 0)); // coding 1 would take 98, 100 and 98 bytes
    same(codings.map(({ tensor, bytes }) => [tensor.coding, bytes.length]), [[1, 166], [0, 168], [1, 166]]);
  },
  'a-fault-in-any-block-is-found'() {
    const { bytes, schema } = codedFrame(2 * 65536 + 1003, DISTRIBUTION.gaussian), view = new DataView(bytes.buffer);
    const payload = 64, counts = [0, 1, 2].map((b) => view.getUint16(payload + 16 + 2 * b, true));
    const second = payload + 16 + 6 + 32 + 2 * counts[0], third = second + 32 + 2 * counts[1];
    const refused = (number, at, value) => {
      const copy = bytes.slice(), changed = new DataView(copy.buffer);
      changed.setUint16(at, value, true);
      changed.setUint32(copy.length - 4, fedmrn.crc32(copy.subarray(0, -4)), true);
      return refusal(() => fedmrn.parseFrame(copy, { schema }), 'coding', number);
    };
    refused('C-01', payload + 20, counts[2] + 1);
    same(refused('C-02', third + 4 * 5 + 2, 0).offset, third + 20);
    refused('C-03', second + 32, view.getUint16(second + 32, true) ^ 1);
    refused('C-03', third + 32 + 2 * counts[2] - 2, view.getUint16(third + 30 + 2 * counts[2], true) ^ 0x8000);
  },
  'a-coded-frame-sums-like-a-raw-one'() {
    const { payload, bytes, schema } = codedFrame(65537, DISTRIBUTION.uniform);
    const entries = [{ kind: KIND.binary, type: DISTRIBUTION.uniform, scale: 0.5, payload }];
    const [coded, raw] = [bytes, fedmrn.encodeFrame({ schema, seed: 7n, entries })].map((frame) => {
      const aggregate = new fedmrn.Aggregate(schema);
      aggregate.add(frame, 3);
      return hex(aggregate.toBytes());
    });
    same(coded, raw);
  },
  'every-half'() { // each value of 16 bits, the tie above it, and that tie's two neighbours, of either sign
    for (const [coding, infinity, quantum] of [[CODING.float16, 0x7C00, 2 ** -24], [CODING.bfloat16, 0x7F80, 2 ** -133]]) {
      const implicit = coding === CODING.float16 ? 2 ** 10 : 2 ** 7, bits = [], right = [];
      const valueOf = (half) => {
        const exponent = Math.floor(half / implicit), fraction = half % implicit;
        return (exponent ? fraction + implicit : fraction) * quantum * 2 ** Math.max(exponent - 1, 0);
      };
      const bitsOf = (x) => new Uint32Array(Float32Array.of(x).buffer)[0];
      for (let half = 0; half < infinity - 1; half++) {
        const tie = bitsOf(valueOf(half) / 2 + valueOf(half + 1) / 2);
        bits.push(bitsOf(valueOf(half)), tie - 1, tie, tie + 1);
        right.push(half, half, half + (half & 1), half + 1);
      }
      for (const sign of [0, 1]) {
        const { halves, tensor } = narrowed(Uint32Array.from(bits, (x) => x + sign * 2 ** 31), coding);
        same(halves, right.map((half) => half + sign * 2 ** 15));
        const widened = fedmrn.toFloats(tensor.payload), factor = sign ? -1 : 1;
        if (!right.every((half, i) => Object.is(widened[i], factor * valueOf(half)))) throw new Error('not widened exactly');
      }
    }
  },
  'a-value-that-rounds-to-an-infinity-is-refused'() {
    for (const [coding, first, half] of [[CODING.float16, 0x477FF000, 0x7BFF], [CODING.bfloat16, 0x7F7F8000, 0x7F7F]]) {
      same(narrowed(Uint32Array.of(first - 1, first - 1 + 2 ** 31), coding).halves, [half, half + 2 ** 15]);
      for (const bits of [first, first + 2 ** 31, 0x7F7FFFFF]) {
        const error = refusal(() => narrowed(Uint32Array.of(0, bits), coding), 'non_finite', 'E-02');
        same(error.field, 'entry 0, element 1');
      }
      for (const bits of [0x7F800000, 0xFF800000, 0x7FC00000, 0x7F800001]) {
        refusal(() => narrowed(Uint32Array.of(0, bits), coding), 'non_finite', 'F-29');
      }
    }
  },
  'a-coding-where-it-does-not-belong-is-refused'() {
    const mask = { kind: KIND.binary, type: DISTRIBUTION.uniform, scale: 0.5, payload: new Uint8Array(200) };
    const dense = { kind: KIND.dense, payload: new Uint8Array(16) };
    const masked = { role: ROLE.masked, shape: [1600] };
    for (const coding of [2, 3, 5, 128]) refusal(() => frameOfOne(masked, { ...mask, coding }), 'unknown_coding', 'F-21');
    for (const [dtype, codings] of [[DTYPE.float32, [1, 4]], [DTYPE.float64, [1, 2, 3]], [DTYPE.int32, [2, 3]]]) {
      const tensor = { role: ROLE.dense, dtype, shape: [dtype === DTYPE.float64 ? 2 : 4] };
      for (const coding of codings) refusal(() => frameOfOne(tensor, { ...dense, coding }), 'unknown_coding', 'F-21');
    }
    const coded = { ...mask, coding: CODING.rans };
    refusal(() => frameOfOne(masked, { ...coded, payload: new Uint8Array(199) }), 'payload_length', 'F-23');
    refusal(() => frameOfOne(masked, { ...coded, type: 4 }), 'unknown_distribution', 'F-20');
    const grid = { kind: KIND.grid, scale: 0.5, payload: new Uint8Array(6400) };
    for (const coding of [1, 2, 3, 4, 6, 128]) refusal(() => frameOfOne(masked, { ...grid, coding }), 'unknown_coding', 'F-21');
    refusal(() => frameOfOne({ role: ROLE.dense, dtype: DTYPE.int32, shape: [1600] }, grid), 'kind_mismatch', 'F-17');
    refusal(() => frameOfOne({ role: ROLE.dense, shape: [4] }, { ...dense, coding: 5 }), 'unknown_coding', 'F-21');
  },
  'an-empty-tensor-is-not-coded'() {
    for (const type of Object.values(DISTRIBUTION)) {
      for (const coding of [CODING.rans, CODING.rans12]) {
        const entry = { kind: KIND.binary, type, scale: 0.5, coding, payload: new Uint8Array(0) };
        same(frameOfOne({ role: ROLE.masked, shape: [0, 3] }, entry).tensor.coding, CODING.raw);
      }
    }
    same(gridFrame([]).tensor.coding, CODING.raw);
  },
  'grids-in-every-dtype'() { // the largest integers, the least and the largest step
    const bounds = { // spec 6.12
      float32: [2 ** 24 - 1, -126, 104], float64: [2 ** 24 - 1, -126, 104], float16: [2047, -24, 5], bfloat16: [255, -126, 120],
    };
    for (const [name, [most, ...exponents]] of Object.entries(bounds)) {
      const dtype = DTYPE[name], z = [0, 1, -1, most, -most, most - 1, 3];
      for (const exponent of exponents) {
        const { bytes, schema } = gridFrame(z, { dtype, scale: 2 ** exponent });
        const zeros = new Uint8Array(fedmrn.elementSize(dtype) * z.length);
        const [decoded] = fedmrn.decodeFrame(fedmrn.parseFrame(bytes, { schema }));
        const opposite = gridFrame(z.map((x) => -x), { dtype, scale: 2 ** exponent });
        const [negated] = fedmrn.decodeFrame(fedmrn.parseFrame(opposite.bytes, { schema }));
        same(hex(fedmrn.applyUpdate(dtype, decoded, negated)), hex(zeros)); // z - z is +0.0
        same(hex(fedmrn.applyUpdate(dtype, zeros, decoded)), hex(decoded));
        if (dtype === DTYPE.float32) same([...fedmrn.toFloats(decoded)], z.map((x) => x * 2 ** exponent));
        if (dtype === DTYPE.float64) same([...new Float64Array(decoded.buffer)], z.map((x) => x * 2 ** exponent));
      }
      const other = exponents.map((exponent, k) => 2 ** (exponent + [-1, 1][k]));
      for (const scale of [...other, -0.5, 0, 0.75, NaN, Infinity]) {
        refusal(() => gridFrame(z, { dtype, scale }), 'scale', 'F-24');
      }
      for (const x of [most + 1, -most - 1, -(2 ** 31)]) refusal(() => gridFrame([0, x], { dtype }), 'grid', 'F-32');
    }
    const half = gridFrame([1, -2047], { dtype: DTYPE.float16, scale: 2 ** -24 });
    same(hex(fedmrn.decodeTensor(fedmrn.parseFrame(half.bytes, { schema: half.schema }), 0)), '0100ff87');
    const brain = gridFrame([1, -255], { dtype: DTYPE.bfloat16, scale: 1 });
    same(hex(fedmrn.decodeTensor(fedmrn.parseFrame(brain.bytes, { schema: brain.schema }), 0)), '803f7fc3');
  },
  'a-grid-needs-no-seed'() {
    const { bytes, schema } = gridFrame([1, 2, 3]);
    const parsed = fedmrn.parseFrame(bytes, { schema });
    same([parsed.seed, parsed.minor], [0n, 3]);
    same(hex(fedmrn.encodeFrame({ schema, seed: 9n, entries: parsed.entries }).subarray(8, 10)), '0900');
  },
  'the-symbols-of-the-text'() { // spec 6.14
    for (const [z, symbol] of Object.entries({ 0: 0, 31: 61, '-3': 6, 32: 63, '-1000': 102 })) {
      same(gridPayload(new Array(40).fill(Number(z)))[0], symbol);
    }
    same(hex(gridPayload([0, 0, 0])), '0000000100'); // the frequency of the only symbol is 16384, so the state stays 2^16
    same(hex(gridPayload([1, 1, 1])), '0100c0000000000100'); // f(1) + 1 = 16385: 14 bits of 0, 1, then 1 and 13 bits of 0
    // all have symbol 63 and 3 plain bits: 62 bits of 1; of f(63), 14 bits of 0, at bit 76 a bit of 1, 1, and 13 bits of 0
    same(hex(gridPayload(Array.from({ length: 20 }, (_, i) => 32 + i % 8))).slice(0, 26), '3fffffffffffffff3f00300000');
  },
  'coded-grids-of-several-blocks'() {
    for (const n of [65536, 65537, 2 * 65536 + 1003]) {
      const w = fedmrn.words(7n, 0n, n); // of every magnitude, most of them small
      const z = Array.from(w, (x) => ((x & 0xFFFFFF) >> (x >>> 27)) * (x & 0x1000000 ? -1 : 1));
      const { payload, bytes, tensor, schema } = gridFrame(z);
      same([tensor.coding, bytes[5], bytes.length < payload.length], [CODING.rans14, 3, true]);
      same(hex(tensor.payload), hex(payload));
      same(hex(fedmrn.encodeFrame({ schema, entries: [tensor] })), hex(bytes));
    }
  },
  'a-coded-grid-as-long-as-the-raw-one-stays-raw'() { // two equal integers: 5 bytes and their frequency's 29 or more bits
    const found = [[0, 0], [1, 1], [2, 2], [1, 2], [1, 2, 1], [1, 2, 1, 2], [2 ** 24 - 1]].map((z) => gridFrame(z));
    const coded = found.map(({ tensor }) => tensor.coding === CODING.rans14);
    found.forEach(({ bytes, payload }, i) => same(bytes.length < 68 + payload.length, coded[i]));
    same([coded[0], coded[1], coded[6]], [true, false, false]);
  },
  'a-fault-in-a-coded-grid-is-found'() {
    const z = Array.from({ length: 2 * 65536 + 1003 }, (_, i) => i % 3 - 1);
    const { bytes, schema } = gridFrame(z), payload = bytes.slice(64, -4), view = new DataView(payload.buffer);
    const head = 8; // `last`, and f(1) and f(2), about 16384 / 3, of 25 bits each
    const second = head + 12 + 2 * view.getUint32(head, true), third = second + 4 + 2 * view.getUint32(head + 4, true);
    const refused = (number, change) => {
      return refusal(() => fedmrn.parseFrame(withPayload(bytes, change(payload.slice())), { schema }), 'coding', number);
    };
    const put = (at, ...values) => (copy) => { copy.set(values, at); return copy; };
    refused('C-10', put(0, 215));
    refused('C-10', put(1, 0, 0)); // more than 14 bits of 0
    refused('C-10', put(head - 1, payload[head - 1] | 0x80));
    refused('C-11', put(head + 3, 0xFF));
    refused('C-11', put(head + 4, 0xFF, 0xFF, 0xFF, 0xFF));
    refused('C-11', (copy) => copy.slice(0, -1));
    same(refused('C-12', put(third + 2, 0, 0)).offset, 64 + third);
    refused('C-13', (copy) => copy.slice(0, -2));
    refused('C-13', put(third - 1, payload[third - 1] ^ 0x80));
    refused('C-13', put(head, payload[head] - 1)); // a word of the first block would be the second's
  },
  'frequencies-must-be-those-of-the-integers'() { // [C-14]
    const { bytes, schema } = gridFrame([0, 0, 1]); // f(1) = 5461, f(0) = 10923; coded, it would have 9 bytes
    const raw = gridFrame([0, 0, 0]); // 5 bytes: f(0) = 16384
    same([bytes[50], raw.bytes[50]], [CODING.rans14, CODING.rans14]);
    const other = gridPayload([0, 1, 0]), same1 = gridPayload([0, 0, 1]);
    same(hex(fedmrn.parseFrame(withPayload(bytes, other), { schema }).entries[0].payload), '000000000100000000000000');
    same(hex(other.subarray(0, 5)), hex(same1.subarray(0, 5)));
    // the states of [0, 0, 0] with the frequencies of [0, 0, 1]: each step is x = 10923 * (x >> 14) + x mod 16384
    let x = 65536;
    for (let i = 0; i < 3; i++) x = Math.floor(x / 10923) * 16384 + x % 10923;
    const forged = same1.slice();
    new DataView(forged.buffer).setUint32(5, x, true);
    const error = refusal(() => fedmrn.parseFrame(withPayload(bytes, forged), { schema }), 'coding', 'C-14');
    same(error.got, '10923');
  },
  'a-coded-grid-sums-like-a-raw-one'() {
    const z = Array.from({ length: 3000 }, (_, i) => (i * i) % 97 - 48);
    for (const dtype of [DTYPE.float32, DTYPE.float64, DTYPE.float16, DTYPE.bfloat16]) {
      const [coded, raw] = [CODING.rans14, CODING.raw].map((coding) => {
        const { bytes, schema } = gridFrame(z, { dtype, coding }), aggregate = new fedmrn.Aggregate(schema);
        aggregate.add(bytes, 3);
        aggregate.add(fedmrn.parseFrame(bytes, { schema }), 2 ** 30);
        return [hex(aggregate.toBytes()), aggregate.mean().map(hex)];
      });
      same(coded, raw);
    }
  },
  'a-grid-is-no-noise-in-a-sum'() { // of a dense tensor, the way in which it is sent does not matter
    const { bytes, schema } = gridFrame([1, 2]), aggregate = new fedmrn.Aggregate(schema);
    const mask = { kind: KIND.binary, type: DISTRIBUTION.uniform, scale: 0.5, payload: Uint8Array.of(3) };
    aggregate.add(bytes, 1);
    refusal(() => aggregate.add(fedmrn.encodeFrame({ schema, seed: 7n, entries: [mask] }), 1), 'aggregate', 'A-02');
    refusal(() => aggregate.add(gridFrame([1, 2], { scale: 0.25 }).bytes, 1), 'aggregate', 'A-02');
    aggregate.add(gridFrame([3, 5], { coding: CODING.raw }).bytes, 1);
    same([...fedmrn.toFloats(aggregate.mean()[0])], [1, 1.75]);

    const dense = gridFrame([1, -2], { role: ROLE.dense }), sum = new fedmrn.Aggregate(dense.schema);
    const elements = { kind: KIND.dense, payload: fedmrn.toBytes(Float32Array.of(0.25, 3)) };
    sum.add(dense.bytes, 1);
    sum.add(fedmrn.encodeFrame({ schema: dense.schema, seed: 0n, entries: [elements] }), 3);
    sum.add(gridFrame([2, 2], { role: ROLE.dense, scale: 4 }).bytes, 4);
    same([...fedmrn.toFloats(sum.mean()[0])], [(0.5 + 0.75 + 32) / 8, (-1 + 9 + 32) / 8]);
    same(sum.toBytes()[5], 0);
  },
  'partial-sums-of-grids'() { // [P-03], [P-09], [P-11], [P-15], [P-16]
    const { bytes, schema } = gridFrame([2 ** 24 - 1, 0]), sum = new fedmrn.Aggregate(schema);
    sum.add(bytes, 5);
    const partial = sum.toBytes();
    same([partial[5], partial[56], hex(partial.subarray(60, 64))], [1, 4, '0000003f']);
    const read = (at, ...values) => {
      const copy = partial.slice();
      copy.set(values, at);
      new DataView(copy.buffer).setUint32(copy.length - 4, fedmrn.crc32(copy.subarray(0, -4)), true);
      return fedmrn.Aggregate.fromBytes(copy, schema);
    };
    same(hex(read(5, 1).toBytes()), hex(partial));
    refusal(() => read(5, 2), 'version', 'P-03');
    refusal(() => read(5, 0), 'unknown_distribution', 'P-09');
    refusal(() => read(56, 5), 'unknown_distribution', 'P-09');
    refusal(() => read(56, 1), 'minor', 'P-16');
    refusal(() => read(60, 1), 'scale', 'P-11');
    refusal(() => read(60, 0, 0, 0, 0x74), 'scale', 'P-11'); // 2^105
    refusal(() => read(64, 0xFC), 'sums', 'P-15');
    same(hex(read(64, 0xFA).toBytes()).slice(0, 20), hex(partial).slice(0, 20));
  },
  'a-tally-sums-like-its-frames'() {
    for (const kind of [KIND.binary, KIND.signed]) {
      for (const type of Object.values(DISTRIBUTION)) {
        for (const weight of [1, 600, 2 ** 24 + 1, 2 ** 35 + 12345]) {
          const frames = [0, 1, 2, 3, 4].map((k) => talliedFrame({ kind, type, k })), sum = new fedmrn.Aggregate(TALLIED);
          frames.forEach((frame) => sum.add(frame, weight));
          const tally = tallyOf(frames, { weight }), counted = new fedmrn.Aggregate(TALLIED);
          counted.addTally(tally);
          same([hex(counted.toBytes()), counted.mean().map(hex)], [hex(sum.toBytes()), sum.mean().map(hex)]);
          frames.forEach((frame) => sum.add(frame, weight - 1 || 1));
          counted.addTally(tallyOf(frames, { weight: BigInt(weight - 1 || 1) }));
          same(hex(counted.toBytes()), hex(sum.toBytes()));
        }
      }
    }
  },
  'the-bytes-of-a-tally'() {
    const tally = tallyOf([talliedFrame({ k: 1 }), talliedFrame({ k: 2 })], { weight: 3, round: 4, baseModel: 5n });
    const bytes = tally.toBytes(), view = new DataView(bytes.buffer);
    same([hex(bytes.subarray(0, 8)), view.getBigUint64(8, true), view.getBigUint64(16, true)], ['464d525401000000', 7n, 5n]);
    same([view.getUint32(24, true), view.getUint32(28, true), hex(bytes.subarray(32, 48))], [4, 3, hex(TALLIED.digest)]);
    same([view.getBigUint64(48, true), view.getUint32(56, true)], [3n, 2]);
    same(hex(bytes.subarray(60, 76)), '02010000' + '0000003f' + '0300000000000000'); // 11 counts of 2 bits
    const bits = [1, 2].map((k) => fedmrn.unpackMask(talliedMask(k), 11));
    const counts = [...bits[0]].map((bit, i) => bit + bits[1][i]);
    same(hex(bytes.subarray(76, 79)), hex(fedmrn.packMask(counts.flatMap((c) => [c & 1, c >> 1]))));
    const read = fedmrn.Tally.fromBytes(bytes, TALLIED);
    same([[...read.counts(0)], read.counts(1), read.counts(3)], [counts, undefined, undefined]);
    read.counts(0).fill(9); // a copy
    same([hex(read.toBytes()), new fedmrn.Tally(TALLIED, { weight: 1 }).counts(0)], [hex(bytes), undefined]);
  },
  'a-tally-takes-equal-frames-only'() {
    const tally = tallyOf([talliedFrame({})], { weight: 3 }), before = hex(tally.toBytes());
    const refused = (frame, code, number) => {
      refusal(() => tally.add(frame), code, number);
      same(hex(tally.toBytes()), before);
    };
    refused(talliedFrame({ seed: 8n }), 'aggregate', 'A-08');
    refused(talliedFrame({ scale: 0.25 }), 'aggregate', 'A-08');
    refused(talliedFrame({ type: DISTRIBUTION.gaussian }), 'aggregate', 'A-08');
    refused(talliedFrame({ kind: KIND.binary }), 'aggregate', 'A-08');
    refused(talliedFrame({ round: 5 }), 'aggregate', 'A-08');
    refused(talliedFrame({ baseModel: 6n }), 'aggregate', 'A-08');
    refused(talliedFrame({ seed: 8n }).fill(0, -4), 'checksum', 'F-27');
    const grid = { kind: KIND.grid, scale: 0.5, payload: new Uint8Array(44) };
    const entries = fedmrn.parseFrame(talliedFrame({}), { schema: TALLIED }).entries.with(0, grid);
    const gridFrame = fedmrn.encodeFrame({ schema: TALLIED, seed: 7n, round: 4, baseModel: 5n, entries });
    refused(gridFrame, 'aggregate', 'A-08');
    refusal(() => new fedmrn.Tally(TALLIED, { weight: 3 }).add(gridFrame), 'aggregate', 'A-08');
    const expecting = new fedmrn.Tally(TALLIED, { weight: 3, round: 5 });
    refusal(() => expecting.add(talliedFrame({})), 'round', 'F-12');
    refusal(() => expecting.add(fedmrn.parseFrame(talliedFrame({}), { schema: TALLIED })), 'round', 'F-12');
    same(expecting.frames, 0);
    for (const weight of [0, -1, 0.5, NaN, 0n, 10n ** 400n]) {
      refusal(() => new fedmrn.Tally(TALLIED, { weight }), 'aggregate', 'A-08');
    }
    refusal(() => new fedmrn.Tally(TALLIED, { weight: 2 ** 39 }).add(new Uint8Array(3)), 'aggregate', 'A-08');
    const heavy = tallyOf([talliedFrame({})], { weight: 2 ** 38 });
    refusal(() => heavy.add(new Uint8Array(3)), 'aggregate', 'A-08');
    refusal(() => tallyOf([talliedFrame({})], { weight: 2 ** 38 - 1 }).add(new Uint8Array(3)), 'truncated', 'F-01');
  },
  'merges-of-tallies'() {
    const frames = [0, 1, 2, 3].map((k) => talliedFrame({ k })), whole = tallyOf(frames), first = tallyOf(frames.slice(0, 1));
    first.merge(fedmrn.Tally.fromBytes(tallyOf(frames.slice(1)).toBytes(CODING.rans14), TALLIED));
    same(hex(first.toBytes()), hex(whole.toBytes()));
    const none = new fedmrn.Tally(TALLIED, { weight: 3 });
    refusal(() => none.toBytes(), 'aggregate', 'A-05');
    first.merge(none);
    none.merge(whole);
    same([hex(first.toBytes()), hex(none.toBytes())], [hex(whole.toBytes()), hex(whole.toBytes())]);
    const others = [{ seed: 8n }, { scale: 0.25 }, { type: DISTRIBUTION.gaussian }, { kind: KIND.binary }];
    for (const change of others) refusal(() => first.merge(tallyOf([talliedFrame(change)])), 'aggregate', 'A-09');
    for (const change of [{ weight: 4 }, { round: 4 }, { baseModel: 5n }]) {
      refusal(() => first.merge(tallyOf([talliedFrame({})], change)), 'aggregate', 'A-09');
    }
    refusal(() => first.merge(new fedmrn.Tally(fedmrn.buildSchema([]), { weight: 3 })), 'aggregate', 'A-09');
    same(hex(first.toBytes()), hex(whole.toBytes()));
  },
  'a-sum-takes-tallies-that-fit'() {
    const tally = tallyOf([talliedFrame({}), talliedFrame({ k: 1 })]), sum = new fedmrn.Aggregate(TALLIED);
    sum.addTally(new fedmrn.Tally(TALLIED, { weight: 3 }));
    sum.add(talliedFrame({ seed: 8n, kind: KIND.binary }), 2 ** 39 - 7);
    const before = hex(sum.toBytes());
    refusal(() => sum.addTally(tallyOf([talliedFrame({}), talliedFrame({})], { weight: 4 })), 'aggregate', 'A-10');
    for (const change of [{ scale: 0.25 }, { type: DISTRIBUTION.gaussian }]) {
      refusal(() => sum.addTally(tallyOf([talliedFrame(change)], { weight: 1 })), 'aggregate', 'A-10');
    }
    same(hex(sum.toBytes()), before);
    sum.addTally(tally); // the largest sum of weights
    for (const change of [{ round: 4 }, { baseModel: 5n }]) {
      const expecting = new fedmrn.Aggregate(TALLIED, change);
      refusal(() => expecting.addTally(tally), 'aggregate', 'A-10');
      refusal(() => new fedmrn.Aggregate(TALLIED).addTally(tallyOf([talliedFrame({})], change)), 'aggregate', 'A-10');
      expecting.addTally(tallyOf([talliedFrame({})], change));
    }
    refusal(() => new fedmrn.Aggregate(fedmrn.buildSchema([])).addTally(tally), 'aggregate', 'A-10');
  },
  'the-most-frames-of-a-tally'() { // 2^24 - 1, by doubling
    const frames = [0, 1, 2].map((k) => talliedFrame({ k }));
    const read = (tally) => fedmrn.Tally.fromBytes(tally.toBytes(), TALLIED);
    const one = tallyOf(frames.slice(0, 1), { weight: 1 }), most = tallyOf(frames.slice(1, 2), { weight: 1 });
    for (let n = 1; n < 2 ** 23; n *= 2) {
      one.merge(read(one));
      most.merge(one);
    }
    same([most.frames, one.frames], [2 ** 24 - 1, 2 ** 23]);
    const before = hex(most.toBytes());
    refusal(() => one.merge(read(one)), 'aggregate', 'A-09');
    refusal(() => most.add(frames[2]), 'aggregate', 'A-08');
    refusal(() => most.merge(tallyOf(frames.slice(2), { weight: 1 })), 'aggregate', 'A-09');
    same(hex(most.toBytes()), before);
    for (const coding of [CODING.raw, CODING.rans14]) same(hex(read(most).toBytes(coding)), hex(most.toBytes(coding)));
    const sum = new fedmrn.Aggregate(TALLIED), counted = new fedmrn.Aggregate(TALLIED);
    sum.add(frames[0], 2 ** 24 - 2);
    sum.add(frames[1], 1);
    counted.addTally(read(most));
    same(counted.mean().map(hex), sum.mean().map(hex));
    same(hex(counted.toBytes().subarray(56)).slice(0, -8), hex(sum.toBytes().subarray(56)).slice(0, -8));
  },
  'coded-tallies-of-several-blocks'() {
    const n = 2 * 65536 + 1003;
    const schema = fedmrn.buildSchema([{ name: 'w', role: ROLE.masked, dtype: DTYPE.float32, shape: [n] }]);
    for (const frames of [2, 3]) { // n div 2 is below or at the middle
      const tally = new fedmrn.Tally(schema, { weight: 5 });
      for (let k = 0; k < frames; k++) {
        const payload = fedmrn.packMask(Array.from({ length: n }, (_, i) => i % (11 + k) === 0));
        const entry = { kind: KIND.binary, type: DISTRIBUTION.bernoulli, scale: 0.5, coding: CODING.rans12, payload };
        tally.add(fedmrn.encodeFrame({ schema, seed: 7n, entries: [entry] }));
      }
      const raw = tally.toBytes(), coded = tally.toBytes(CODING.rans14);
      same([raw[62], coded[62], coded.length < raw.length / 2], [0, 5, true]);
      for (const bytes of [raw, coded]) {
        const read = fedmrn.Tally.fromBytes(bytes, schema, { seed: 7n });
        same([fedmrn.crc32(read.toBytes()), fedmrn.crc32(read.toBytes(CODING.rans14))], [raw, coded].map(fedmrn.crc32));
      }
      const damaged = coded.slice();
      damaged[damaged.length - 6] ^= 0x40;
      refusal(() => fedmrn.Tally.fromBytes(sealed(damaged), schema), 'coding', 'C-13');
    }
  },
  'a-coded-tally-as-long-as-the-raw-one-stays-raw'() { // [E-05], [T-15]: two frames, one of which has each bit
    const halves = (n, set = n) => {
      const schema = fedmrn.buildSchema([{ name: 'w', role: ROLE.masked, dtype: DTYPE.float32, shape: [n] }]);
      const frames = [0, 1].map((k) => {
        const payload = fedmrn.packMask(Array.from({ length: n }, (_, i) => i < set && i % 2 === k));
        const entry = { kind: KIND.binary, type: DISTRIBUTION.bernoulli, scale: 0.5, payload };
        return fedmrn.encodeFrame({ schema, seed: 7n, entries: [entry] });
      });
      return { schema, bytes: tallyOf(frames, { schema }).toBytes(CODING.rans14) };
    };
    const coded = [19, 20, 21, 24].map((n) => halves(n)); // z is 0 everywhere: 5 bytes in coding 5; raw 5, 5, 6, 6
    same(coded.map(({ bytes }) => [bytes[62], bytes.length - 80]), [[0, 5], [0, 5], [5, 5], [5, 5]]);
    const longer = [28, 30, 32].map((set) => halves(32, set).bytes); // 30: 8 bytes in coding 5, and raw 8 too
    same(longer.map((bytes) => [bytes[62], bytes.length - 80]), [[0, 8], [0, 8], [5, 5]]);
    const forged = (k, coding, length) => {
      const { schema, bytes } = coded[k], copy = new Uint8Array(80 + length);
      copy.set(bytes.subarray(0, 76));
      copy.set(coded[2].bytes.subarray(76, 81).subarray(0, length), 76);
      copy.set([coding], 62);
      copy.set([length], 68);
      return () => fedmrn.Tally.fromBytes(sealed(copy), schema);
    };
    forged(2, CODING.rans14, 5)();
    for (const [k, length] of [[1, 5], [2, 4], [2, 6], [3, 0]]) {
      refusal(forged(k, CODING.rans14, length), 'payload_length', 'T-15');
    }
    forged(1, CODING.raw, 5)();
    for (const length of [4, 6]) refusal(forged(1, CODING.raw, length), 'payload_length', 'T-15');
  },
  'many-tallies-are-summed-exactly'() { // the same terms again and again, which are below 2^48 each
    const weight = 2 ** 24 - 1, frames = [0, 1].map((k) => talliedFrame({ k }));
    const tally = tallyOf(frames, { weight }), counted = new fedmrn.Aggregate(TALLIED), sum = new fedmrn.Aggregate(TALLIED);
    for (let i = 0; i < 200; i++) counted.addTally(tally);
    frames.forEach((frame) => sum.add(frame, 200 * weight));
    same(hex(counted.toBytes().subarray(56, -4)), hex(sum.toBytes().subarray(56, -4)));
  },
  'bad-tallies'() { // the first fault of several
    const bytes = tallyOf([talliedFrame({ k: 1 }), talliedFrame({ k: 2 })]).toBytes();
    const read = (data, options) => fedmrn.Tally.fromBytes(data, TALLIED, options);
    const changed = (changes) => {
      const copy = bytes.slice();
      for (const [at, value] of changes) copy[at] = value;
      return sealed(copy);
    };
    const places = [ // in the order of the checks: number, code, byte, value
      ['T-02', 'magic', 3, 0x53], ['T-03', 'version', 5, 1], ['T-04', 'reserved', 6, 1], ['T-05', 'frames', 59, 1],
      ['T-06', 'weight', 55, 1], ['T-07', 'schema_mismatch', 32, TALLIED.digest[0] ^ 1], ['T-08', 'tensor_count', 28, 2],
      ['T-10', 'unknown_kind', 60, 3], ['T-11', 'unknown_distribution', 61, 4], ['T-12', 'unknown_coding', 62, 1],
      ['T-13', 'reserved', 63, 1], ['T-14', 'scale', 67, 0x80], ['T-15', 'payload_length', 75, 1], ['T-16', 'rows', 83, 88],
    ];
    places.forEach(([number, code], i) => {
      const error = refusal(() => read(changed(places.slice(i).map(([, , at, value]) => [at, value]))), code, number);
      const fields = { 'T-02': 0, 'T-03': 4, 'T-05': 56, 'T-06': 48, 'T-14': 64, 'T-15': 68 };
      same(error.offset, fields[number] ?? places[i][2]);
    });
    refusal(() => read(changed([[4, 2]])), 'version', 'T-03');
    refusal(() => read(changed([[56, 0]])), 'frames', 'T-05');
    refusal(() => read(changed([[48, 0]])), 'weight', 'T-06');
    refusal(() => read(changed([[60, 0]])), 'unknown_kind', 'T-10');
    refusal(() => read(bytes, { seed: 8n }), 'seed', 'T-09');
    read(bytes, { seed: 7 });
    for (const length of [0, 63]) refusal(() => read(bytes.subarray(0, length)), 'truncated', 'T-01');
    for (let length = 64; length < bytes.length; length++) refusal(() => read(bytes.subarray(0, length)), 'truncated', 'T-01');
    const longer = new Uint8Array(bytes.length + 1);
    longer.set(bytes);
    refusal(() => read(longer), 'trailing', 'T-17');
    refusal(() => read(bytes.slice().fill(bytes.at(-1) ^ 1, -1)), 'checksum', 'T-18');
    same(refusal(() => read(changed([[78, 0x80]])), 'padding', 'T-19').offset, 78);
    same(refusal(() => read(changed([[76, 3]])), 'sums', 'T-20').offset, 76); // c(0) = 3 of 2
    refusal(() => read(changed([[78, 0xC0], [76, 3]])), 'padding', 'T-19');
    const weight = (2n ** 39n - 1n) / 3n; // of 3 frames: at the bound, and beyond it and beyond 2^64
    for (const [w, right] of [[weight, true], [weight + 1n, false], [2n ** 64n - 1n, false], [2n ** 63n, false]]) {
      const copy = changed([[56, 3]]);
      new DataView(copy.buffer).setBigUint64(48, w, true);
      if (right) read(sealed(copy));
      else refusal(() => read(sealed(copy)), 'weight', 'T-06');
    }
  },
  'counts-out-of-their-range'() { // [T-20] in coding 5: n is 3, so z is -1 .. 2
    const schema = fedmrn.buildSchema([{ name: 'w', role: ROLE.masked, dtype: DTYPE.float32, shape: [600] }]);
    const read = (z) => {
      const payload = gridPayload(Array.from({ length: 600 }, (_, i) => (i === 77 ? z : 0)));
      const head = new Uint8Array(80 + payload.length), view = new DataView(head.buffer);
      head.set(fedmrn.toBytes(Uint32Array.of(0x54524D46, 1)));
      head.set(schema.digest, 32);
      const fields = [[28, 1], [48, 1], [56, 3], [60, 0x00050101], [64, 0x3F000000], [68, payload.length]];
      for (const [at, x] of fields) view.setUint32(at, x, true);
      head.set(payload, 76);
      return fedmrn.Tally.fromBytes(sealed(head), schema);
    };
    for (const z of [-1, 0, 1, 2]) same(read(z).toBytes(CODING.rans14)[62], 5);
    for (const z of [-2, 3, 2 ** 24 - 1, 1 - 2 ** 24]) {
      same(refusal(() => read(z), 'sums', 'T-20').field, 'tensor 0, element 77');
    }
  },
  'limbs-of-a-tally'() { // [T-20]: at most n (2^24 - 1), and no row of zeros
    const schema = fedmrn.buildSchema([{ name: 'd', role: ROLE.dense, dtype: DTYPE.int32, shape: [1] }]);
    const entry = { kind: KIND.dense, payload: Uint8Array.of(1, 0, 0, 0) };
    const bytes = tallyOf([0, 1, 2].map(() => fedmrn.encodeFrame({ schema, seed: 7n, entries: [entry] })), { schema }).toBytes();
    const read = (limb) => {
      new DataView(bytes.buffer).setBigInt64(68, limb, true);
      return fedmrn.Tally.fromBytes(sealed(bytes), schema);
    };
    const most = 3n * (2n ** 24n - 1n);
    for (const limb of [most, -most, 1n, -1n]) same(hex(read(limb).toBytes()), hex(bytes));
    for (const limb of [most + 1n, -most - 1n, 0n, 2n ** 63n - 1n]) refusal(() => read(limb), 'sums', 'T-20');
    const sum = new fedmrn.Aggregate(schema);
    sum.addTally(read(most));
    same(hex(sum.toBytes().subarray(64, 72)), hex(new Uint8Array(BigInt64Array.of(3n * most).buffer)));
  },
  'new-values-of-a-model'() { // spec 1.6
    const apply = (name, base, update) => hex(fedmrn.applyUpdate(DTYPE[name], unhex(base), unhex(update)));
    same(apply('uint8', 'ff01', '02ff'), '0100');
    same(apply('int16', 'ff7f', '0100'), '0080');
    same(apply('uint64', 'ffffffffffffffff', '0200000000000000'), '0100000000000000');
    same(apply('bool', '00010001', '00000101'), '00010100');
    same(apply('float16', 'ff7b', '004c'), '007c'); // 65504 + 16 is beyond the largest: a tie, to even
    same(apply('float16', 'ff7b', 'ff4b'), 'ff7b');
    same(apply('float16', '0100', '0100'), '0200'); // subnormal
    same(apply('bfloat16', '803f', '803b'), '803f'); // 1 + 2^-8: a tie, to even
    same(apply('bfloat16', '813f', '803b'), '823f');
    same(apply('float16', '0080', '0080'), '0080'); // -0.0
    same(apply('float16', '007c', '00fc'), '007e'); // a NaN
    same(apply('bfloat16', '807f', '80ff'), 'c07f');
    rangeError(() => fedmrn.applyUpdate(DTYPE.float32, new Uint8Array(4), new Uint8Array(8)));
    rangeError(() => fedmrn.applyUpdate(DTYPE.float32, new Uint8Array(3), new Uint8Array(3)));
    rangeError(() => fedmrn.applyUpdate(14, new Uint8Array(4), new Uint8Array(4)));
  },
  'the-id-of-a-model'() { // spec 1.7; tests/decoders/test_following.py compares it with another SHA-256
    const w = Float32Array.from({ length: 11 }, (_, i) => i), d = Float64Array.of(0.5, 1);
    const id = (...tensors) => fedmrn.modelId(SCHEMA, ...tensors);
    const head = '01007701010b00000000000000'; // without the role
    const bytes = unhex(`${head}${hex(fedmrn.toBytes(w))}01006402010200000000000000${hex(new Uint8Array(d.buffer))}`);
    const right = new DataView(fedmrn.sha256(bytes).buffer).getBigUint64(0, true);
    same(id([w, new Uint8Array(d.buffer)]), right);
    same(id([w, new Uint8Array(d.buffer)], [DTYPE.float32, DTYPE.int64]) === right, false);
    rangeError(() => id([w, w]));
    rangeError(() => id([w, new Uint8Array(d.buffer)], [DTYPE.float32, 14]));
  },
};
