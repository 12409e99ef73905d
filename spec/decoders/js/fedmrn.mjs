// The fedmrn format, version 1.4: words, noise, masks, grids, schemas, frames, sums, tallies. One ES module for Node 20 and
// browsers that imports nothing. It was written from FORMAT.md alone; the comments cite its sections and numbers. README.md
// explains the use of this module and its number types.

/**
 * @typedef {'malformed' | 'unsupported' | 'refused'} ErrorClass
 *
 * @typedef {object} TensorSpec what a schema says of one tensor, spec 5.2
 * @property {string} name
 * @property {number} role a code of ROLE
 * @property {number} dtype a code of DTYPE
 * @property {number[]} shape
 *
 * @typedef {TensorSpec & { n: number }} Tensor with the number of elements
 *
 * @typedef {object} Schema
 * @property {Uint8Array} bytes spec 5.1
 * @property {Uint8Array} digest 16 bytes, spec 5.4
 * @property {Tensor[]} tensors
 *
 * @typedef {object} Entry one tensor of a frame, spec 6.4
 * @property {number} kind a code of KIND
 * @property {number} [type] mask: a code of DISTRIBUTION; else of DTYPE, taken from the schema when a frame is encoded
 * @property {number} [scale] mask: the f32 scale; grid: the step
 * @property {number} [coding] a code of CODING, raw if absent: that of the frame, or the one chosen for encoding
 * @property {Uint8Array} payload that of coding 0: the packed mask, the elements (codings 2 and 3 round them), or the
 *   integers of a grid, i32 each
 *
 * @typedef {object} Frame
 * @property {number} minor
 * @property {number} flags
 * @property {bigint} seed
 * @property {bigint} baseModel
 * @property {number} round
 * @property {number} tensorCount
 * @property {Uint8Array} schemaDigest
 * @property {Schema} schema the caller's, or else the embedded one
 * @property {Entry[]} entries in schema order; raw payloads are views of the bytes that were parsed
 *
 * @typedef {object} Demands the expected values of a reader; one that is absent or null is not checked
 * @property {Schema | null} [schema]
 * @property {number | null} [round]
 * @property {bigint | number | null} [baseModel]
 * @property {bigint | number | null} [seed]
 *
 * @typedef {object} Limits spec 9.2
 * @property {number} tensors
 * @property {number} schemaBytes
 * @property {number} elements
 */

// ----------------------------------------------------------------------------------------------------------------- codes

/** spec 5.2 */
export const ROLE = Object.freeze({ dense: 0, masked: 1 });

/** spec 4.2, 6.4 */
export const KIND = Object.freeze({ dense: 0, binary: 1, signed: 2, grid: 3 });

/** spec 3.1 */
export const DISTRIBUTION = Object.freeze({ uniform: 1, gaussian: 2, bernoulli: 3 });

/** spec 5.3 */
export const DTYPE = Object.freeze({
  float32: 1, float64: 2, float16: 3, bfloat16: 4, int8: 5, int16: 6, int32: 7, int64: 8,
  uint8: 9, uint16: 10, uint32: 11, uint64: 12, bool: 13,
});

/** spec 6.4 */
export const CODING = Object.freeze({ raw: 0, rans: 1, float16: 2, bfloat16: 3, rans12: 4, rans14: 5 });

/** The first minor version that has the coding, and that has kind 3; the latest one. spec 6.2 */
const MINOR = [0, 1, 1, 1, 2, 3], GRID_MINOR = 3, LATEST_MINOR = 3;

// ---------------------------------------------------------------------------------------------------------------- errors

const CODES = { // spec 7.3, 8.1, 8.5, 8.6
  'F-01': 'truncated', 'F-02': 'magic', 'F-03': 'version', 'F-04': 'reserved', 'F-05': 'limit',
  'F-06': 'truncated', 'F-07': 'limit', 'F-08': 'truncated',
  'S-01': 'schema_length', 'S-02': 'schema_name', 'S-03': 'unknown_role', 'S-04': 'unknown_dtype', 'S-05': 'masked_dtype',
  'S-06': 'schema_shape', 'S-09': 'limit', 'S-07': 'limit', 'S-08': 'schema_digest',
  'F-09': 'no_schema', 'F-10': 'schema_mismatch', 'F-11': 'tensor_count', 'F-12': 'round', 'F-13': 'base_model', 'F-14': 'seed',
  'F-15': 'truncated', 'F-16': 'unknown_kind', 'F-17': 'kind_mismatch', 'F-18': 'unknown_dtype', 'F-19': 'dtype_mismatch',
  'F-20': 'unknown_distribution', 'F-21': 'unknown_coding', 'F-22': 'reserved', 'F-23': 'payload_length', 'F-24': 'scale',
  'F-25': 'truncated', 'F-26': 'trailing', 'F-27': 'checksum', 'F-28': 'padding', 'F-29': 'non_finite', 'F-30': 'bool',
  'F-31': 'minor', 'C-01': 'coding', 'C-02': 'coding', 'C-03': 'coding', 'C-04': 'coding',
  'C-05': 'coding', 'C-06': 'coding', 'C-07': 'coding', 'C-08': 'coding', 'C-09': 'coding',
  'C-10': 'coding', 'C-11': 'coding', 'C-12': 'coding', 'C-13': 'coding', 'C-14': 'coding', 'F-32': 'grid',
  'E-02': 'non_finite', 'N-03': 'scale',
  'A-01': 'aggregate', 'A-02': 'aggregate', 'A-05': 'aggregate', 'A-06': 'aggregate', 'A-07': 'sums',
  'P-01': 'truncated', 'P-02': 'magic', 'P-03': 'version', 'P-04': 'reserved', 'P-05': 'weight', 'P-06': 'frames',
  'P-07': 'schema_mismatch', 'P-08': 'tensor_count', 'P-09': 'unknown_distribution', 'P-10': 'reserved', 'P-11': 'scale',
  'P-12': 'rows', 'P-13': 'trailing', 'P-14': 'checksum', 'P-15': 'sums', 'P-16': 'minor',
  'A-08': 'aggregate', 'A-09': 'aggregate', 'A-10': 'aggregate',
  'T-01': 'truncated', 'T-02': 'magic', 'T-03': 'version', 'T-04': 'reserved', 'T-05': 'frames', 'T-06': 'weight',
  'T-07': 'schema_mismatch', 'T-08': 'tensor_count', 'T-09': 'seed', 'T-10': 'unknown_kind', 'T-11': 'unknown_distribution',
  'T-12': 'unknown_coding', 'T-13': 'reserved', 'T-14': 'scale', 'T-15': 'payload_length', 'T-16': 'rows', 'T-17': 'trailing',
  'T-18': 'checksum', 'T-19': 'padding', 'T-20': 'sums',
};
const UNSUPPORTED = [
  'F-03', 'S-03', 'S-04', 'F-16', 'F-18', 'F-20', 'F-21', 'P-03', 'P-09', 'T-03', 'T-10', 'T-11', 'T-12',
];
const REFUSED = [
  'F-05', 'F-07', 'S-09', 'S-07', 'F-09', 'F-10', 'F-12', 'F-13', 'F-14', 'P-07', 'A-01', 'A-02', 'A-05', 'A-06',
  'A-08', 'A-09', 'A-10', 'T-07', 'T-09',
];

/** @returns {ErrorClass} spec 7.1 */
function classOf(number) {
  if (UNSUPPORTED.includes(number)) return 'unsupported';
  return REFUSED.includes(number) ? 'refused' : 'malformed';
}

/** A refusal that the format defines. A wrong argument, such as a seed of 2^64, is a RangeError or TypeError instead. */
export class FedmrnError extends Error {
  /**
   * @param {string} number
   * @param {string} field
   * @param {number | undefined} offset
   * @param {unknown} got
   * @param {unknown} expected
   */
  constructor(number, field, offset, got, expected) {
    const place = offset === undefined ? field : `${field}, byte ${offset}`;
    super(`${CODES[number]} [${number}]: ${place}: expected ${expected}, got ${got}`);
    this.name = 'FedmrnError';
    /** The format's error code. */
    this.code = CODES[number];
    /** The number of the check that failed. */
    this.number = number;
    this.class = classOf(number);
    this.field = field;
    /** In bytes from the start of the frame, schema, partial sum or tally; undefined where the fault has no position. */
    this.offset = offset;
    this.expected = String(expected);
    this.got = String(got);
  }
}

/** @returns {never} */
function fail(number, field, offset, got, expected) {
  throw new FedmrnError(number, field, offset, got, expected);
}

// ----------------------------------------------------------------------------------------------------------------- bytes

/** The same bytes as a plain Uint8Array: a Node Buffer has methods of the same names that behave differently. */
function plain(bytes) {
  if (!ArrayBuffer.isView(bytes)) throw new TypeError('bytes must be a Uint8Array');
  return new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** A new array for the elements of a payload; a schema of the sender's may ask for more than there can be. */
function allocated(type, length, label) {
  try {
    return new type(length);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    return fail('S-07', label, undefined, `${length} entries of an array`, 'as many as an array can have here');
  }
}

const viewOf = (bytes) => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

/** A u64 as a Number: exact below 2^53, and above that still at least 2^53. */
const getU64 = (view, at) => view.getUint32(at + 4, true) * 2 ** 32 + view.getUint32(at, true);

const sameBytes = (a, b) => a.length === b.length && a.every((x, i) => x === b[i]);

const hex = (bytes) => Array.from(bytes, (x) => x.toString(16).padStart(2, '0')).join(' ');
const hexWord = (x) => `0x${x.toString(16).padStart(8, '0')}`;

/** Converts an argument to a u64. A Number beyond 2^53 is refused, because it may have been rounded before. */
function u64(value, name) {
  if (typeof value !== 'bigint' && !Number.isSafeInteger(value)) {
    throw new TypeError(`${name} must be a BigInt or a safe integer, not ${value}`);
  }
  if (value < 0 || value >= 2n ** 64n) throw new RangeError(`${name} must be 0 .. 2^64 - 1, not ${value}`);
  return BigInt(value);
}

function u32(value, name) {
  if (Number.isInteger(value) && value >= 0 && value < 2 ** 32) return value;
  throw new RangeError(`${name} must be 0 .. 2^32 - 1, not ${value}`);
}

const LITTLE_ENDIAN_HOST = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1;

/** Converts 4-byte elements between the host's byte order and little-endian, in place. spec 1.2 */
function reorder(bytes) {
  if (!LITTLE_ENDIAN_HOST) for (let i = 0; i < bytes.length; i += 4) bytes.subarray(i, i + 4).reverse();
  return bytes;
}

/**
 * The elements as little-endian bytes, on every host.
 * @param {Float32Array | Uint32Array | Int32Array} array
 * @returns {Uint8Array} a copy
 */
export function toBytes(array) {
  return reorder(new Uint8Array(array.buffer, array.byteOffset, array.byteLength).slice());
}

/**
 * The f32 in the bytes, on every host.
 * @param {Uint8Array} bytes little-endian
 * @returns {Float32Array} a copy
 */
export function toFloats(bytes) {
  return new Float32Array(reorder(plain(bytes).slice()).buffer);
}

/** Reads the parts of bytes[at, end) one after the other; a part that is truncated fails the check `number`. */
class Parts {
  constructor(at, end, number, base = 0) {
    this.at = at;
    this.end = end;
    this.number = number;
    this.base = base;
  }
  take(size, field) {
    if (size > this.end - this.at) {
      fail(this.number, field, this.base + this.at, `${this.end - this.at} bytes before the end`, `${size} bytes`);
    }
    const at = this.at;
    this.at += size;
    return at;
  }
}

// ------------------------------------------------------------------------------------------------------ CRC-32 and SHA-256

const CRC_TABLE = Int32Array.from({ length: 256 }, (_, byte) => {
  let c = byte;
  for (let k = 0; k < 8; k++) c = c & 1 ? (c >>> 1) ^ 0xEDB88320 : c >>> 1;
  return c;
});

/**
 * spec 6.6
 * @param {Uint8Array} bytes
 * @returns {number} a u32
 */
export function crc32(bytes) {
  let c = -1;
  for (let i = 0; i < bytes.length; i++) c = (c >>> 8) ^ CRC_TABLE[(c ^ bytes[i]) & 255];
  return ~c >>> 0;
}

const PRIMES = [];
for (let p = 2; PRIMES.length < 64; p++) if (PRIMES.every((q) => p % q)) PRIMES.push(p);
/** The first 32 bits of the fractional part of the square (k = 2) or cube (k = 3) root of p, found in integers. */
function rootBits(p, k) {
  const target = BigInt(p) << BigInt(32 * k);
  let root = 0n;
  for (let bit = 1n << 40n; bit; bit >>= 1n) if ((root + bit) ** BigInt(k) <= target) root += bit;
  return Number(BigInt.asIntN(32, root));
}
const SHA_K = Int32Array.from(PRIMES, (p) => rootBits(p, 3));
const SHA_START = Int32Array.from(PRIMES.slice(0, 8), (p) => rootBits(p, 2));

/** SHA-256 of bytes that are given piece by piece. */
class Sha256 {
  constructor() {
    this.state = SHA_START.slice();
    this.block = new Uint8Array(64);
    this.length = 0; // of the bytes so far; the last length mod 64 of them are in the block
  }

  add(bytes) {
    const view = viewOf(this.block), w = new Int32Array(64);
    for (let at = 0; at < bytes.length;) {
      const used = this.length % 64, part = bytes.subarray(at, at + 64 - used);
      this.block.set(part, used);
      at += part.length;
      this.length += part.length;
      if (this.length % 64) continue;
      for (let t = 0; t < 16; t++) w[t] = view.getInt32(4 * t);
      shaBlock(this.state, w);
    }
  }

  digest() {
    const padding = new Uint8Array(9 + (119 - this.length % 64) % 64);
    padding[0] = 0x80;
    viewOf(padding).setBigUint64(padding.length - 8, BigInt(this.length) * 8n);
    this.add(padding);
    const digest = new Uint8Array(32);
    this.state.forEach((word, i) => viewOf(digest).setInt32(4 * i, word));
    return digest;
  }
}

/**
 * SHA-256. Browsers offer it only to secure pages, and only asynchronously.
 * @param {Uint8Array} bytes
 * @returns {Uint8Array} 32 bytes
 */
export function sha256(bytes) {
  const sha = new Sha256();
  sha.add(bytes);
  return sha.digest();
}

const rotate = (x, n) => (x >>> n) | (x << (32 - n));

function shaBlock(state, w) {
  for (let t = 16; t < 64; t++) {
    const s0 = rotate(w[t - 15], 7) ^ rotate(w[t - 15], 18) ^ (w[t - 15] >>> 3);
    const s1 = rotate(w[t - 2], 17) ^ rotate(w[t - 2], 19) ^ (w[t - 2] >>> 10);
    w[t] = w[t - 16] + s0 + w[t - 7] + s1;
  }
  let a = state[0], b = state[1], c = state[2], d = state[3], e = state[4], f = state[5], g = state[6], h = state[7];
  for (let t = 0; t < 64; t++) {
    const t1 = (h + (rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25)) + ((e & f) ^ (~e & g)) + SHA_K[t] + w[t]) | 0;
    const t2 = ((rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22)) + ((a & b) ^ (a & c) ^ (b & c))) | 0;
    h = g; g = f; f = e; e = (d + t1) | 0;
    d = c; c = b; b = a; a = (t1 + t2) | 0;
  }
  state[0] += a; state[1] += b; state[2] += c; state[3] += d;
  state[4] += e; state[5] += f; state[6] += g; state[7] += h;
}

// ---------------------------------------------------------------------------------------------------------- random words

/** The upper half of the 64-bit product of two u32, computed from halves of 16 bits. */
function mulHigh(a, b) {
  const a0 = a & 0xFFFF, a1 = a >>> 16, b0 = b & 0xFFFF, b1 = b >>> 16;
  const t = (Math.imul(a1, b0) + (Math.imul(a0, b0) >>> 16)) | 0;
  const u = (Math.imul(a0, b1) + (t & 0xFFFF)) | 0;
  return (Math.imul(a1, b1) + (t >>> 16) + (u >>> 16)) | 0;
}

const low32 = (x) => Number(x & 0xFFFFFFFFn) | 0;
const high32 = (x) => Number(x >> 32n & 0xFFFFFFFFn) | 0;

/** Philox4x32-10 for one (seed, stream). spec 2 */
class Philox {
  constructor(seed, stream) {
    const key = u64(seed, 'seed');
    this.c2 = low32(u64(stream, 'stream'));
    this.c3 = high32(u64(stream, 'stream'));
    this.keys = new Int32Array(20);
    for (let r = 0; r < 10; r++) {
      this.keys[2 * r] = low32(key) + Math.imul(r, 0x9E3779B9);
      this.keys[2 * r + 1] = high32(key) + Math.imul(r, 0xBB67AE85);
    }
  }

  /** Fills `out` (a multiple of 4 words) with the blocks that start at block `first`, a BigInt. spec 2.2, 2.3 */
  fill(first, out) {
    const { keys, c2: stream0, c3: stream1 } = this;
    let block0 = low32(first), block1 = high32(first);
    for (let at = 0; at < out.length; at += 4) {
      let c0 = block0, c1 = block1, c2 = stream0, c3 = stream1;
      for (let r = 0; r < 20; r += 2) {
        const high0 = mulHigh(0xD2511F53, c0), low0 = Math.imul(0xD2511F53, c0);
        const high1 = mulHigh(0xCD9E8D57, c2), low1 = Math.imul(0xCD9E8D57, c2);
        c0 = high1 ^ c1 ^ keys[r];
        c1 = low1;
        c2 = high0 ^ c3 ^ keys[r + 1];
        c3 = low0;
      }
      out[at] = c0;
      out[at + 1] = c1;
      out[at + 2] = c2;
      out[at + 3] = c3;
      block0 = (block0 + 1) | 0;
      if (block0 === 0) block1 = (block1 + 1) | 0;
    }
  }
}

/** The position `start` as a BigInt; refused if the `count` elements from there on have no words. spec 2.1 */
function positions(start, count, perWord) {
  if (!Number.isSafeInteger(count) || count < 0) throw new RangeError(`count must be a non-negative integer, not ${count}`);
  const first = BigInt(start); // a RangeError for a fraction
  const end = 2n ** 66n * BigInt(perWord);
  if (first >= 0n && first + BigInt(count) <= end) return first;
  throw new RangeError(`positions must be 0 .. ${end - 1n}, not ${count} from ${start} on`);
}

/**
 * Words by position. spec 2.1
 * @param {bigint | number} seed
 * @param {bigint | number} stream
 * @param {number} count
 * @param {bigint | number} [start] the first position; a Number is taken as exactly its integer value, also beyond 2^53
 * @returns {Uint32Array}
 */
export function words(seed, stream, count, start = 0n) {
  const first = positions(start, count, 1);
  const lane = Number(first % 4n);
  const out = new Uint32Array(Math.ceil((lane + count) / 4) * 4);
  new Philox(seed, stream).fill(first / 4n, out);
  return out.subarray(lane, lane + count);
}

// ----------------------------------------------------------------------------------------------------------------- noise

function uniformDraws(w, q) { // spec 3.2
  for (let i = 0; i < q.length; i++) q[i] = 2 * (w[i] >>> 8) - 0xFFFFFF;
}

function gaussianDraws(w, q) { // spec 3.4
  const table = quantiles();
  for (let i = 0; i < q.length; i++) {
    const x = (w[i] << 1) | 1;
    const zeros = Math.clz32(x); // 31 - j
    const m = x << zeros;
    const k = 64 * (31 - zeros) + ((m >>> 25) & 63);
    const f = (m >>> 9) & 0xFFFF;
    const g = table[k] - ((Math.imul(table[k] - table[k + 1], f) + 0x8000) >>> 16);
    const draw = g > 1 ? g : 1;
    q[i] = w[i] >>> 31 ? -draw : draw;
  }
}

function bernoulliDraws(w, q) { // spec 3.3
  for (let i = 0; i < q.length; i++) q[i] = ((w[i >>> 5] >>> (i & 31)) & 1) * 2 - 1;
}

const LARGEST_FLOAT32 = (2 - 2 ** -23) * 2 ** 127;
const DISTRIBUTIONS = { // spec 3.1, 3.5, [P-15]
  1: { perWord: 1, unit: 2 ** -24, draw: uniformDraws, largest: () => 2 ** 24 - 1, least: 2 ** -102, most: LARGEST_FLOAT32 },
  2: { perWord: 1, unit: 2 ** -21, draw: gaussianDraws, largest: () => quantiles()[0], least: 2 ** -105, most: 2 ** 125 },
  3: { perWord: 32, unit: 1, draw: bernoulliDraws, largest: () => 1, least: 2 ** -126, most: LARGEST_FLOAT32 },
};

function distributionOf(code) {
  if (!(code in DISTRIBUTIONS)) throw new RangeError(`no distribution has the code ${code}`);
  return DISTRIBUTIONS[code];
}

/** The check [N-03]; `number` is the number that it has where it is made, such as F-24. */
function checkScale(number, field, offset, distribution, scale) {
  const { least, most } = distributionOf(distribution);
  if (!(scale >= least && scale <= most)) fail(number, field, offset, scale, `${least} .. ${most}`); // a NaN fails
}

/** The code that kind 3 has among the distributions of a sum, [A-02]; its draws are the integers of the grid. */
const GRID_SUM = 4;
const SUMMED = { ...DISTRIBUTIONS, [GRID_SUM]: { unit: 1, largest: () => 2 ** 24 - 1 } };

const stepOf = (distribution, scale) => scale * SUMMED[distribution].unit; // spec 3.1, 6.12, exact

const CHUNK = 8192; // elements drawn at a time: a multiple of 128, the elements of one Bernoulli block

/**
 * The draws of elements first, a multiple of 128, to first + n - 1, as chunks: the offset from first, and the draws.
 * @returns {Generator<[number, Int32Array]>}
 */
function* drawChunks(distribution, seed, stream, n, first = 0n) {
  const { perWord, draw } = DISTRIBUTIONS[distribution];
  const philox = new Philox(seed, stream);
  const w = new Uint32Array(CHUNK / perWord);
  const q = new Int32Array(CHUNK);
  for (let at = 0; at < n; at += CHUNK) {
    const part = q.subarray(0, Math.min(CHUNK, n - at));
    const block = (first + BigInt(at)) / BigInt(4 * perWord);
    philox.fill(block, w.subarray(0, Math.ceil(part.length / perWord / 4) * 4));
    draw(w, part);
    yield [at, part];
  }
}

/**
 * All draws q that the given words determine. spec 3.2 to 3.4
 * @param {number} distribution a code of DISTRIBUTION
 * @param {Uint32Array} w
 * @returns {Int32Array}
 */
export function drawsOf(distribution, w) {
  const { perWord, draw } = distributionOf(distribution);
  const q = new Int32Array(w.length * perWord);
  draw(w, q);
  return q;
}

/**
 * The draws q of elements start to start + count - 1. spec 3.1
 * @param {number} distribution a code of DISTRIBUTION
 * @param {bigint | number} seed
 * @param {bigint | number} stream
 * @param {number} count
 * @param {bigint | number} [start] as for words
 * @returns {Int32Array}
 */
export function draws(distribution, seed, stream, count, start = 0n) {
  const first = positions(start, count, distributionOf(distribution).perWord);
  const skip = Number(first % 128n);
  const out = new Int32Array(skip + count);
  for (const [at, q] of drawChunks(distribution, seed, stream, skip + count, first - BigInt(skip))) out.set(q, at);
  return out.subarray(skip);
}

/**
 * The noise of elements start to start + count - 1. spec 3.1
 * @param {number} distribution a code of DISTRIBUTION
 * @param {number} scale rounded to f32
 * @param {bigint | number} seed
 * @param {bigint | number} stream
 * @param {number} count
 * @param {bigint | number} [start] as for words
 * @returns {Float32Array}
 */
export function noise(distribution, scale, seed, stream, count, start = 0n) {
  const a = Math.fround(scale);
  checkScale('N-03', 'scale', undefined, distribution, a);
  const step = stepOf(distribution, a);
  return Float32Array.from(draws(distribution, seed, stream, count, start), (q) => q * step); // exact in f64: rounded once
}

// ----------------------------------------------------------------------------------------------------------------- masks

/**
 * spec 4.1
 * @param {ArrayLike<number | boolean>} bits
 * @returns {Uint8Array}
 */
export function packMask(bits) {
  const bytes = new Uint8Array(Math.ceil(bits.length / 8));
  for (let i = 0; i < bits.length; i++) if (bits[i]) bytes[Math.floor(i / 8)] |= 1 << (i & 7);
  return bytes;
}

/**
 * spec 4.1
 * @param {Uint8Array} bytes
 * @param {number} count
 * @returns {Uint8Array} one 0 or 1 an element
 */
export function unpackMask(bytes, count) {
  checkMask(bytes, count);
  return Uint8Array.from({ length: count }, (_, i) => (bytes[Math.floor(i / 8)] >>> (i & 7)) & 1);
}

/** Checks a mask that does not come from a parsed frame: its length, [F-23], and its padding. */
function checkMask(bytes, count) {
  const size = Math.ceil(count / 8);
  if (bytes.length !== size) fail('F-23', 'mask', 0, `${bytes.length} bytes`, `${size} bytes for ${count} elements`);
  checkPadding('F-28', bytes, count, 'mask', 0);
}

/** Checks [F-28] or [T-19], of the number given: n bits are used. [M-01] */
function checkPadding(number, bytes, n, field, offset) {
  const last = bytes.length - 1, used = n % 8;
  if (used === 0 || bytes[last] >>> used === 0) return;
  fail(number, `${field}, last byte`, offset + last, hex([bytes[last]]), `0 from bit ${used} on`);
}

/** Replaces the draws q(i) by q(i)·m(i), with the packed bits of the same elements. spec 4.2, 8.2 */
function applyMask(q, bits, kind) {
  const [factor, shift] = kind === KIND.binary ? [1, 0] : [2, 1];
  for (let i = 0; i < q.length; i++) q[i] = Math.imul(q[i], ((bits[i >>> 3] >>> (i & 7)) & 1) * factor - shift);
}

/**
 * The chunks of q(i)·m(i) of a masked tensor of n elements.
 * @returns {Generator<[number, Int32Array]>}
 */
function* maskedChunks({ kind, type, payload }, seed, stream, n) {
  for (const [at, q] of drawChunks(type, seed, stream, n)) {
    applyMask(q, payload.subarray(at / 8), kind);
    yield [at, q];
  }
}

function decodeEntry(entry, seed, stream, n) {
  const step = stepOf(entry.type, entry.scale);
  const out = new Float32Array(n);
  for (const [at, q] of maskedChunks(entry, seed, stream, n)) {
    for (let i = 0; i < q.length; i++) out[at + i] = q[i] * step; // an integer 0 gives +0.0, [M-02]
  }
  return out;
}

/**
 * The update of one masked tensor, from its mask without a frame. spec 4.2
 * @param {number} kind KIND.binary or KIND.signed
 * @param {number} distribution a code of DISTRIBUTION
 * @param {number} scale rounded to f32
 * @param {bigint | number} seed
 * @param {bigint | number} stream
 * @param {Uint8Array} mask packed
 * @param {number} count
 * @returns {Float32Array}
 */
export function decodeMask(kind, distribution, scale, seed, stream, mask, count) {
  maskKind(kind);
  const entry = { kind, type: distribution, scale: Math.fround(scale), payload: plain(mask) };
  checkScale('N-03', 'scale', undefined, distribution, entry.scale);
  checkMask(entry.payload, count);
  return decodeEntry(entry, seed, stream, count);
}

function maskKind(kind) {
  if (kind !== KIND.binary && kind !== KIND.signed) throw new RangeError(`no mask has the kind ${kind}`);
}

/**
 * The packed bits for an update, its noise, and private random integers. spec 4.3
 * @param {number} kind KIND.binary or KIND.signed
 * @param {Float32Array} update
 * @param {Float32Array} noise
 * @param {ArrayLike<number>} r integers, 0 <= r < 2^24
 * @returns {Uint8Array}
 */
export function sampleMask(kind, update, noise, r) {
  maskKind(kind);
  if (noise.length !== update.length || r.length !== update.length) throw new RangeError('update, noise, r differ in length');
  const f32 = Math.fround; // f32(an f64 operation on f32 numbers) is the f32 operation
  const bytes = new Uint8Array(Math.ceil(update.length / 8));
  for (let i = 0; i < update.length; i++) {
    if (!(Number.isInteger(r[i]) && r[i] >= 0 && r[i] < 2 ** 24)) throw new RangeError(`r(${i}): expected an integer of 24 bits, got ${r[i]}`);
    if (!Number.isFinite(update[i])) fail('E-02', `update, element ${i}`, undefined, update[i], 'a finite number');
    const p = f32(update[i] / noise[i]);
    const t = kind === KIND.binary ? f32(p * 2 ** 24) : f32(f32(p + 1) * 2 ** 23);
    if (r[i] < t) bytes[Math.floor(i / 8)] |= 1 << (i & 7);
  }
  return bytes;
}

/**
 * r(i) for repeatable tests only; otherwise r comes from the client's private randomness, [M-03]. spec 4.3
 * @param {bigint | number} seed not the frame's
 * @param {bigint | number} stream
 * @param {number} count
 * @returns {Uint32Array}
 */
export const testRandom = (seed, stream, count) => words(seed, stream, count).map((word) => word >>> 8);

// ---------------------------------------------------------------------------------------------------------------- schema

const float = (size, precision, limbs) => ({ size, precision, limbs, isFloat: true });
const integer = (size, signed, limbs) => ({ size, signed, limbs, isFloat: false });

const DTYPES = { // spec 5.3, 8.4, 8.5
  1: float(4, 24, 12), 2: float(8, 53, 88), 3: float(2, 11, 2), 4: float(2, 8, 11),
  5: integer(1, true, 1), 6: integer(2, true, 1), 7: integer(4, true, 2), 8: integer(8, true, 3),
  9: integer(1, false, 1), 10: integer(2, false, 1), 11: integer(4, false, 2), 12: integer(8, false, 3),
  13: { ...integer(1, false, 1), isBool: true },
};

/**
 * The bytes of an element. spec 5.3
 * @param {number} dtype a code of DTYPE
 * @returns {number}
 */
export function elementSize(dtype) {
  if (!(dtype in DTYPES)) throw new RangeError(`no dtype has the code ${dtype}`);
  return DTYPES[dtype].size;
}

const DTYPE_CODES = '1 .. 13', DISTRIBUTION_CODES = '1, 2 or 3';
const MOST_ELEMENTS = 2 ** 48;

/**
 * Reads a schema. Checks [S-01] to [S-06].
 * @param {Uint8Array} bytes
 * @returns {Schema}
 */
export function parseSchema(bytes) { // spec 5.1
  return readSchema(plain(bytes), 0);
}

/** The schema in bytes that begin at the offset `base` of a frame. */
function readSchema(shared, base, most = Infinity) {
  const bytes = shared.slice(); // a copy, so that later changes of the caller's bytes have no effect
  const view = viewOf(bytes);
  const parts = new Parts(0, bytes.length, 'S-01', base);
  const count = view.getUint32(parts.take(4, 'schema, count'), true);
  const tensors = [];
  const names = { short: new Set(), digests: new Set() };
  while (tensors.length < count) {
    if (tensors.length >= most) fail('S-09', 'schema, count', base, count, `at most ${most}`);
    tensors.push(readTensor(view, parts, names, `schema, tensor ${tensors.length}`));
  }
  const left = parts.end - parts.at;
  if (left) fail('S-01', 'schema', base + parts.at, `${left} bytes after its last tensor`, 'none');
  return { bytes, digest: sha256(bytes).subarray(0, 16), tensors }; // spec 5.4
}

function readTensor(view, parts, names, label) { // spec 5.2, 7.3
  const name = readName(view, parts, names, label);
  const byteOf = (field) => view.getUint8(parts.take(1, `${label}, ${field}`));
  const refuse = (number, field, size, found, required) => {
    fail(number, `${label}, ${field}`, parts.base + parts.at - size, found, required);
  };
  const role = byteOf('role');
  if (role > 1) refuse('S-03', 'role', 1, role, '0 or 1');
  const dtype = byteOf('dtype');
  if (!(dtype in DTYPES)) refuse('S-04', 'dtype', 1, dtype, DTYPE_CODES);
  if (role === ROLE.masked && dtype !== DTYPE.float32) refuse('S-05', 'dtype', 1, dtype, '1, for a masked tensor');
  const rank = byteOf('rank');
  if (rank > 32) refuse('S-06', 'rank', 1, rank, 'at most 32');
  const at = parts.take(8 * rank, `${label}, shape`);
  const shape = Array.from({ length: rank }, (_, d) => getU64(view, at + 8 * d));
  const product = shape.reduce((p, d) => p * (d || 1), 1);
  if (product > MOST_ELEMENTS) refuse('S-06', 'shape', 8 * rank, `a product of ${product}`, `at most ${MOST_ELEMENTS}`);
  return { name, role, dtype, shape, n: shape.includes(0) ? 0 : product }; // spec 1.5
}

const UTF8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

const LONG_NAME = 2 ** 13; // bytes; an engine may hash longer texts by their length alone

function readName(view, parts, names, label) {
  const length = view.getUint16(parts.take(2, `${label}, name_length`), true);
  if (length === 0) fail('S-02', `${label}, name_length`, parts.base + parts.at - 2, 0, '1 .. 65535');
  const at = parts.take(length, `${label}, name`);
  const raw = new Uint8Array(view.buffer, view.byteOffset + at, length);
  let name;
  try {
    name = UTF8.decode(raw);
  } catch {
    fail('S-02', `${label}, name`, parts.base + at, 'other bytes', 'valid UTF-8');
  }
  const [known, key] = length > LONG_NAME ? [names.digests, hex(sha256(raw))] : [names.short, name];
  if (known.has(key)) fail('S-02', `${label}, name`, parts.base + at, 'the name of an earlier tensor', 'another');
  known.add(key);
  return name;
}

/**
 * Makes a schema. It refuses what the format does not allow, with the errors of parseSchema.
 * @param {TensorSpec[]} tensors
 * @returns {Schema}
 */
export function buildSchema(tensors) { // spec 5.1
  const out = [];
  const put = (value, size) => { for (let k = 0; k < size; k++) out.push(Number(BigInt(value) >> BigInt(8 * k) & 255n)); };
  put(tensors.length, 4);
  tensors.forEach(({ name, role, dtype, shape }, i) => {
    const label = `schema, tensor ${i}`;
    const utf8 = new TextEncoder().encode(name);
    if (utf8.length > 65535) fail('S-02', `${label}, name`, undefined, `${utf8.length} bytes`, 'at most 65535');
    if (UTF8.decode(utf8) !== name) fail('S-02', `${label}, name`, undefined, 'half of a surrogate pair', 'Unicode text');
    if (role !== ROLE.dense && role !== ROLE.masked) fail('S-03', `${label}, role`, undefined, role, '0 or 1');
    if (!(dtype in DTYPES)) fail('S-04', `${label}, dtype`, undefined, dtype, DTYPE_CODES);
    if (shape.length > 32) fail('S-06', `${label}, rank`, undefined, shape.length, 'at most 32');
    put(utf8.length, 2);
    for (const byte of utf8) out.push(byte);
    out.push(role, dtype, shape.length);
    for (const d of shape) put(u64(d, `${label}, a dimension`), 8);
  });
  return parseSchema(Uint8Array.from(out));
}

// ----------------------------------------------------------------------------------------------------------------- frame

const magicOf = (text) => Uint8Array.from(text, (char) => char.charCodeAt(0));
const MAGIC = magicOf('FMRN'), SUM_MAGIC = magicOf('FMRS'), TALLY_MAGIC = magicOf('FMRT');

function checkSize(number, field, bytes, size) {
  if (bytes.length < size) fail(number, field, bytes.length, `${bytes.length} bytes`, `at least ${size}`);
}

function checkMagic(number, bytes, magic) {
  const found = bytes.subarray(0, 4);
  if (!sameBytes(found, magic)) fail(number, 'magic', 0, hex(found), hex(magic));
}

function checkVersion(number, [, , , , major, minor], latest) {
  if (major === 1 && minor <= latest) return;
  fail(number, 'version', 4, `${major}.${minor}`, latest ? `1.0 .. 1.${latest}` : '1.0');
}

function checkDigest(number, found, offset, schema) {
  if (!sameBytes(found, schema.digest)) fail(number, 'schema_digest', offset, hex(found), hex(schema.digest));
}

function checkCount(number, found, schema) {
  if (found !== schema.tensors.length) fail(number, 'tensor_count', 28, found, schema.tensors.length);
}

function checkChecksum(number, bytes, view) { // spec 6.6
  const at = bytes.length - 4;
  const found = view.getUint32(at, true), right = crc32(bytes.subarray(0, at));
  if (found !== right) fail(number, 'checksum', at, hexWord(found), hexWord(right));
}

/** The default limits of a reader: those of the reference implementation. spec 9.2 */
export const DEFAULT_LIMITS = Object.freeze({ tensors: 65536, schemaBytes: 2 ** 24, elements: 2 ** 34 });

/** The caller's limits, or the default where there is none; a number that compares with nothing is no limit. */
function checkedLimits(limits) {
  const out = {};
  for (const [name, usual] of Object.entries(DEFAULT_LIMITS)) {
    out[name] = limits[name] ?? usual;
    if (!(typeof out[name] === 'number' && out[name] >= 0)) throw new RangeError(`limit ${name}: expected a number of 0 or more, got ${out[name]}`);
  }
  return out;
}

/**
 * Reads a frame, with every check of section 7 in its order.
 * @param {Uint8Array} input
 * @param {Demands} [demands]
 * @param {Partial<Limits>} [limits]
 * @returns {Frame}
 */
export function parseFrame(input, demands = {}, limits = {}) {
  const bytes = plain(input);
  const view = viewOf(bytes);
  const within = checkedLimits(limits);
  const header = readHeader(bytes, view, within);
  const parts = new Parts(48, bytes.length - 4, 'F-15');
  const embedded = header.flags & 1 ? readEmbedded(bytes, view, parts, header, within) : undefined;
  const schema = agree(header, embedded, demands);
  const table = schema.tensors.map((tensor, i) => readEntry(view, parts, tensor, i, header.minor));
  checkWhole(bytes, view, parts, table, header.minor);
  const entries = table.map(({ length, ...entry }, i) => {
    const at = parts.take(length, 'payload');
    const stored = bytes.subarray(at, at + length);
    return { ...entry, payload: readPayload({ ...entry, payload: stored }, schema.tensors[i], i, at, header.seed) };
  });
  return { ...header, schema, entries };
}

function readHeader(bytes, view, limits) { // spec 6.2
  checkSize('F-01', 'frame', bytes, 52);
  checkMagic('F-02', bytes, MAGIC);
  checkVersion('F-03', bytes, LATEST_MINOR);
  const flags = view.getUint16(6, true);
  if (flags > 1) fail('F-04', 'flags', 6, `0x${flags.toString(16)}`, 'bits 1 to 15 to be 0');
  const tensorCount = view.getUint32(28, true);
  if (tensorCount > limits.tensors) fail('F-05', 'tensor_count', 28, tensorCount, `at most ${limits.tensors}`);
  return {
    minor: bytes[5], flags, tensorCount, seed: view.getBigUint64(8, true), baseModel: view.getBigUint64(16, true),
    round: view.getUint32(24, true), schemaDigest: bytes.slice(32, 48),
  };
}

function readEmbedded(bytes, view, parts, header, limits) { // spec 6.3
  parts.number = 'F-06';
  const length = view.getUint32(parts.take(4, "the embedded schema's length"), true);
  if (length > limits.schemaBytes) fail('F-07', "the embedded schema's length", 48, length, `at most ${limits.schemaBytes}`);
  parts.number = 'F-08';
  const at = parts.take(length, 'the embedded schema');
  parts.number = 'F-15';
  const schema = readSchema(bytes.subarray(at, at + length), at, limits.tensors);
  const elements = schema.tensors.reduce((sum, { n }) => sum + BigInt(n), 0n);
  if (elements > limits.elements) fail('S-07', 'the embedded schema', at, `${elements} elements`, `at most ${limits.elements}`);
  if (!sameBytes(schema.digest, header.schemaDigest)) {
    fail('S-08', 'schema_digest', 32, hex(header.schemaDigest), `${hex(schema.digest)}, the embedded schema's`);
  }
  return schema;
}

/** spec 7.3, "agreement with the caller" */
function agree(header, embedded, demands) {
  const schema = demands.schema ?? embedded;
  if (!schema) fail('F-09', 'schema', undefined, 'none, neither in the frame nor given by the caller', 'one');
  checkDigest('F-10', header.schemaDigest, 32, schema);
  checkCount('F-11', header.tensorCount, schema);
  checkExpected('F-12', 'round', 24, header.round, demands.round);
  checkExpected('F-13', 'base_model', 16, header.baseModel, demands.baseModel);
  checkExpected('F-14', 'seed', 8, header.seed, demands.seed);
  return schema;
}

function checkExpected(number, field, offset, found, given) {
  if (given == null) return;
  const expected = u64(given, field);
  if (BigInt(found) !== expected) fail(number, field, offset, found, expected);
}

function readEntry(view, parts, tensor, i, minor) { // spec 6.4
  const label = `table entry ${i}`;
  const at = parts.take(12, label);
  const [kind, type, coding, reserved] = [0, 1, 2, 3].map((k) => view.getUint8(at + k));
  const mask = isMask(kind), grid = kind === KIND.grid && minor >= GRID_MINOR;
  const scale = mask || grid ? view.getFloat32(parts.take(4, `${label}, scale`), true) : undefined;
  if (kind !== KIND.dense && !mask && !grid) {
    fail('F-16', `${label}, kind`, at, kind, minor >= GRID_MINOR ? '0, 1, 2 or 3' : '0, 1 or 2');
  }
  const fitting = kindsOf(tensor).filter((code) => code !== KIND.grid || minor >= GRID_MINOR);
  if (!fitting.includes(kind)) {
    fail('F-17', `${label}, kind`, at, kind, `${fitting.join(' or ')}, for a ${tensor.role ? 'masked' : 'dense'} tensor`);
  }
  if (!mask) {
    if (!(type in DTYPES) || (grid && !DTYPES[type].isFloat)) {
      fail('F-18', `${label}, type`, at + 1, type, grid ? '1 .. 4' : DTYPE_CODES);
    }
    if (type !== tensor.dtype) fail('F-19', `${label}, type`, at + 1, type, `${tensor.dtype}, the schema's dtype`);
  } else if (!(type in DISTRIBUTIONS)) fail('F-20', `${label}, type`, at + 1, type, DISTRIBUTION_CODES);
  checkCoding(`${label}, coding`, at + 2, coding, minor, kind, tensor);
  if (reserved !== 0) fail('F-22', `${label}, reserved`, at + 3, reserved, 0);
  const length = getU64(view, at + 4), [least, most] = lengthsOf(coding, kind, tensor);
  if (length < least || length > most) {
    const required = least === most ? least : `${least} .. ${most}`;
    fail('F-23', `${label}, length`, at + 4, view.getBigUint64(at + 4, true), required);
  }
  if (mask) checkScale('F-24', `${label}, scale`, at + 12, type, scale);
  if (grid) checkStep('F-24', `${label}, step`, at + 12, type, scale);
  return { kind, type, coding, scale, length };
}

const isMask = (kind) => kind === KIND.binary || kind === KIND.signed;

/** The kinds in which a tensor of the schema is sent. spec 6.4 */
function kindsOf({ role, dtype }) {
  if (role === ROLE.masked) return [KIND.binary, KIND.signed, KIND.grid];
  return DTYPES[dtype].isFloat ? [KIND.dense, KIND.grid] : [KIND.dense];
}

function checkCoding(field, offset, coding, minor, kind, { dtype }) {
  const ofDense = dtype === DTYPE.float32 ? [2, 3] : [];
  const later = kind === KIND.grid ? [5] : isMask(kind) ? [1, 4] : ofDense;
  const allowed = [0, ...later].filter((code) => MINOR[code] <= minor);
  if (!allowed.includes(coding)) fail('F-21', field, offset, coding, allowed.join(' or '));
}

/** The least and the largest length of a payload; the ranges of codings 1, 4 and 5 may be empty. */
function lengthsOf(coding, kind, { dtype, n }) {
  const raw = isMask(kind) ? Math.ceil(n / 8) : n * (kind === KIND.grid ? 4 : DTYPES[storedDtype(coding, dtype)].size);
  return isCoder(coding) ? [leastCoded(coding, n), raw - 1] : [raw, raw];
}

/** The dtype of a dense payload's elements. spec 6.9 */
function storedDtype(coding, dtype) {
  if (coding === CODING.float16) return DTYPE.float16;
  return coding === CODING.bfloat16 ? DTYPE.bfloat16 : dtype;
}

/** spec 7.3, "the frame as a whole" */
function checkWhole(bytes, view, parts, table, minor) {
  const needed = minorOf(table);
  if (minor !== needed) fail('F-31', 'minor', 5, minor, `${needed}, the first that has the kinds and codings`);
  const size = parts.at + table.reduce((sum, { length }) => sum + length, 0) + 4;
  checkSize('F-25', 'frame', bytes, size);
  if (bytes.length > size) fail('F-26', 'frame', size, `${bytes.length} bytes`, size);
  checkChecksum('F-27', bytes, view);
}

const minorOf = (entries) => entries.reduce((minor, { kind, coding }) => {
  return Math.max(minor, kind === KIND.grid ? GRID_MINOR : MINOR[coding]);
}, 0);

/** Checks the payload of one tensor and returns that of coding 0. spec 6.5 */
function readPayload(entry, { dtype, n }, i, at, seed) {
  const { kind, coding, payload } = entry, label = `payload ${i}`;
  if (kind === KIND.grid) return readGrid(entry, n, label, at);
  if (isCoder(coding)) return readCoded(entry, seed, i, n, label, at);
  if (kind !== KIND.dense) {
    checkPadding('F-28', payload, n, label, at);
    return payload;
  }
  checkElements(payload, DTYPES[storedDtype(coding, dtype)], label, at);
  return coding === CODING.raw ? payload : widen(payload, coding);
}

function checkElements(payload, dtype, label, at) {
  const { size, isFloat, isBool } = dtype;
  const refuse = (number, bad, required) => {
    const element = payload.subarray(bad * size, (bad + 1) * size);
    fail(number, `${label}, element ${bad}`, at + bad * size, hex(element), required);
  };
  const infinite = isFloat ? findNonFinite(payload, dtype) : -1;
  if (infinite >= 0) refuse('F-29', infinite, 'a finite number');
  const other = isBool ? payload.findIndex((x) => x > 1) : -1;
  if (other >= 0) refuse('F-30', other, '00 or 01');
}

/** The first element with an exponent of all ones, or -1. The upper 16 bits of an element hold the whole exponent. */
function findNonFinite(payload, { size, precision }) {
  const view = viewOf(payload);
  const exponent = 0x7FFF & -(1 << (precision - 1 - 8 * (size - 2)));
  for (let at = size - 2; at < payload.length; at += size) {
    if ((view.getUint16(at, true) & exponent) === exponent) return (at + 2) / size - 1;
  }
  return -1;
}

/**
 * Makes a frame. It refuses what parseFrame would refuse, with the same errors. spec 6, [E-01] to [E-04]
 * @param {object} update
 * @param {Schema} update.schema
 * @param {bigint | number} [update.seed] 0 if it is absent, which a frame with a mask does not allow
 * @param {bigint | number} [update.baseModel] 0: not given
 * @param {number} [update.round] 0: not given
 * @param {boolean} [update.embedSchema]
 * @param {Entry[]} update.entries one a tensor, in schema order; scales are rounded to f32
 * @returns {Uint8Array}
 */
export function encodeFrame(update) {
  const { schema, entries } = update;
  const seed = update.seed ?? (entries.some(({ kind }) => isMask(kind)) ? undefined : 0n); // spec 6.12
  if (entries.length !== schema.tensors.length) fail('F-11', 'entries', undefined, entries.length, schema.tensors.length);
  const raw = writeFrame({ ...update, seed }, entries.map((entry) => ({ ...entry, coding: CODING.raw })));
  const checked = parseFrame(raw, { schema }, { tensors: Infinity, schemaBytes: Infinity, elements: Infinity });
  if (entries.every(({ coding = CODING.raw }) => coding === CODING.raw)) return raw;
  return writeFrame({ ...update, seed }, checked.entries.map((entry, i) => {
    const { coding = CODING.raw } = entries[i], tensor = schema.tensors[i];
    checkCoding(`entry ${i}, coding`, undefined, coding, LATEST_MINOR, entry.kind, tensor);
    if (coding === CODING.rans14) return writeGrid(entry);
    if (isCoder(coding)) return writeCoded(coding, entry, seed, i, tensor.n);
    return coding === CODING.raw ? entry : { ...entry, coding, payload: narrow(entry.payload, coding, `entry ${i}`) };
  }));
}

/** The bytes of a frame; the entries hold the payloads as they are to be written. */
function writeFrame({ schema, seed, baseModel = 0n, round = 0, embedSchema = false }, entries) {
  const embedded = embedSchema ? 4 + schema.bytes.length : 0;
  const entrySize = (kind) => (kind === KIND.dense ? 12 : 16);
  const size = entries.reduce((sum, { kind, payload }) => sum + entrySize(kind) + payload.length, 52 + embedded);
  const bytes = new Uint8Array(size);
  const view = viewOf(bytes);
  putHeader(bytes, MAGIC, schema);
  bytes[5] = minorOf(entries); // [E-01]
  bytes[6] = embedSchema ? 1 : 0;
  view.setBigUint64(8, u64(seed, 'seed'), true);
  view.setBigUint64(16, u64(baseModel, 'baseModel'), true);
  view.setUint32(24, u32(round, 'round'), true);
  if (embedSchema) {
    view.setUint32(48, schema.bytes.length, true);
    bytes.set(schema.bytes, 52);
  }
  let at = 48 + embedded;
  entries.forEach(({ kind, type, coding, scale, payload }, i) => {
    bytes[at] = kind;
    bytes[at + 1] = isMask(kind) ? type : schema.tensors[i].dtype;
    bytes[at + 2] = coding;
    view.setBigUint64(at + 4, BigInt(payload.length), true);
    if (kind !== KIND.dense) view.setFloat32(at + 12, scale, true);
    at += entrySize(kind);
  });
  for (const { payload } of entries) {
    bytes.set(payload, at);
    at += payload.length;
  }
  view.setUint32(at, crc32(bytes.subarray(0, at)), true);
  return bytes;
}

/** Writes the header fields that frames, partial sums and tallies have at the same offsets. */
function putHeader(bytes, magic, schema) {
  bytes.set(magic);
  bytes[4] = 1;
  viewOf(bytes).setUint32(28, schema.tensors.length, true);
  bytes.set(schema.digest, 32);
}

/**
 * The decoded update of one tensor, as the little-endian bytes of its elements, f32 if it is masked. spec 4.2, 6.5, 6.12
 * @param {Frame} frame from parseFrame
 * @param {number} index in schema order
 * @returns {Uint8Array} with a separate buffer, so that a typed array can be a view of it
 */
export function decodeTensor(frame, index) {
  const entry = frame.entries[index];
  if (entry.kind === KIND.dense) return entry.payload.slice();
  if (entry.kind === KIND.grid) return gridValues(entry);
  const update = decodeEntry(entry, frame.seed, index, frame.schema.tensors[index].n);
  return reorder(new Uint8Array(update.buffer));
}

/**
 * The decoded update of every tensor, in schema order, as decodeTensor gives them.
 * @param {Frame} frame from parseFrame
 * @returns {Uint8Array[]}
 */
export const decodeFrame = (frame) => frame.entries.map((_, index) => decodeTensor(frame, index));

// ---------------------------------------------------------------------------------------------- codings 1 and 4 of masks

const BLOCK = 65536; // elements
const LEAST_STATE = 2 ** 16; // the least value of a block's states; the encoder's initial value
const BUCKETS = 16;
const SHIFT = { 1: 20, 2: 19, 3: 20 }; // by distribution

const isCoder = (coding) => coding === CODING.rans || coding === CODING.rans12 || coding === CODING.rans14;
const blocksOf = (n) => Math.ceil(n / BLOCK);

/** The least length of an entropy-coded payload. spec 6.4 */
function leastCoded(coding, n) {
  if (n === 0) return Infinity; // an empty tensor is not coded
  if (coding === CODING.rans) return BUCKETS + 34 * blocksOf(n);
  return coding === CODING.rans12 ? 6 * blocksOf(n) - 1 : 8 * blocksOf(n) - 3;
}

/** The buckets c(i) of the elements of block b. spec 6.8 */
function bucketsOf(type, seed, stream, n, b) {
  const q = draws(type, seed, stream, Math.min(BLOCK, n - b * BLOCK), b * BLOCK);
  const buckets = new Uint8Array(q.length);
  for (let i = 0; i < q.length; i++) buckets[i] = Math.min(Math.abs(q[i]) >>> SHIFT[type], BUCKETS - 1);
  return buckets;
}

/** Counts the elements of each bucket, and the set bits among them. */
class Histogram {
  constructor() {
    this.ones = new Float64Array(BUCKETS); // a count in f64 cannot wrap around
    this.totals = new Float64Array(BUCKETS);
  }

  add(buckets, bits) {
    for (let i = 0; i < buckets.length; i++) {
      this.totals[buckets[i]] += 1;
      this.ones[buckets[i]] += (bits[i >>> 3] >>> (i & 7)) & 1;
    }
  }
}

/** v(0) to v(78). spec 6.11 */
const FREQUENCIES = Array.from({ length: 40 }, (_, k) => (k < 3 ? k + 1 : (4 + ((k + 1) % 4)) << (((k + 1) >> 2) - 1)));
for (let k = 38; k >= 0; k--) FREQUENCIES.push(4096 - FREQUENCIES[k]);

/**
 * What is particular to coding 1. A model has `chances`, the probabilities of a set bit in units of 2^-bits; `head`, the
 * bytes before the numbers of words; and in coding 4 `indices`. A block has `lanes` states. spec 6.8
 */
const EIGHT_BITS = {
  bits: 8,
  lanes: 8,
  numbers: { counts: 'C-01', states: 'C-02', end: 'C-03', model: 'C-04' },
  counted: (blocks) => blocks,
  countSize: 2,
  mostWords: 65535,

  fit(type, { ones, totals }) { // P(c)
    const chance = (set, total) => Math.min(Math.max(Math.floor((512 * set + total) / (2 * total)), 1), 255);
    const chances = Array.from(ones, (set, c) => (totals[c] === 0 ? 128 : chance(set, totals[c])));
    return { chances, head: Uint8Array.from(chances) };
  },

  read: (type, payload) => ({ chances: Array.from(payload.subarray(0, BUCKETS)), head: payload.subarray(0, BUCKETS) }),
};

/** What is particular to coding 4. spec 6.10, 6.11 */
const TWELVE_BITS = {
  bits: 12,
  lanes: 1,
  numbers: { counts: 'C-06', states: 'C-07', end: 'C-08', model: 'C-09' },
  counted: (blocks) => blocks - 1,
  countSize: 2,
  mostWords: 65535,

  fit(type, { ones, totals }) { // k(c)
    const indices = [];
    for (let c = 0; c < classesOf(type); c++) {
      let k = totals[c] === 0 ? indices[c - 1] ?? 39 : 0;
      if (totals[c] > 0) while (k < 78 && 8192 * ones[c] >= (FREQUENCIES[k] + FREQUENCIES[k + 1]) * totals[c]) k++;
      indices.push(k);
    }
    return { chances: indices.map((k) => FREQUENCIES[k]), head: putIndices(indices) };
  },

  read(type, payload, blocks, label, base) {
    const { indices, size } = takeIndices(type, payload.subarray(0, payload.length - (6 * blocks - 2)), label, base);
    return { chances: indices.map((k) => FREQUENCIES[k]), head: payload.subarray(0, size) };
  },
};

const MODELS = { [CODING.rans]: EIGHT_BITS, [CODING.rans12]: TWELVE_BITS };

/** The number of buckets in coding 4. */
const classesOf = (type) => (type === DISTRIBUTION.bernoulli ? 1 : BUCKETS);

/** k(0) as a byte, and the differences of the others in bits. spec 6.11 */
function putIndices(indices) {
  const bits = indices.slice(1).flatMap((k, c) => {
    const d = k - indices[c];
    return [d < 0 ? 1 : 0, ...Array(d < 0 ? -d - 1 : d).fill(0), 1];
  });
  const head = new Uint8Array(1 + Math.ceil(bits.length / 8));
  head[0] = indices[0];
  bits.forEach((bit, at) => { head[1 + (at >> 3)] |= bit << (at & 7); });
  return head;
}

/** The inverse of putIndices, and the number of bytes read. Checks [C-05]. */
function takeIndices(type, bytes, label, base) {
  const refuse = (at, found, required) => fail('C-05', `${label}, k`, base + (at >> 3), found, required);
  const indices = [bytes[0]];
  if (bytes[0] > 78) refuse(0, bytes[0], 'at most 78');
  let at = 8;
  const bit = () => {
    if (at >= 8 * bytes.length) refuse(at, `the end of the bits of k(${indices.length})`, 'more bits');
    at += 1;
    return (bytes[(at - 1) >>> 3] >>> ((at - 1) & 7)) & 1;
  };
  while (indices.length < classesOf(type)) {
    const less = bit(), before = indices[indices.length - 1];
    let zeros = 0;
    while (bit() === 0) zeros += 1;
    const k = less ? before - zeros - 1 : before + zeros;
    if (k < 0 || k > 78) refuse(at - 1, k, '0 to 78');
    indices.push(k);
  }
  for (let rest = at; rest % 8 !== 0; rest++) if ((bytes[rest >>> 3] >>> (rest & 7)) & 1) refuse(rest, 'padding of 1', '0');
  return { indices, size: Math.ceil(at / 8) };
}

/** The packed mask of a payload that begins at the offset `base`. Checks [C-01] to [C-04], or [C-05] to [C-09]. */
function readCoded({ type, coding, payload }, seed, stream, n, label, base) {
  const kind = MODELS[coding], view = viewOf(payload), blocks = blocksOf(n);
  const { chances, head } = kind.read(type, payload, blocks, label, base);
  const places = placeBlocks(kind, view, head.length, blocks, label, base);
  places.forEach(({ at }, b) => checkStates(kind, view, at, `${label}, block ${b}`, base));
  const mask = allocated(Uint8Array, Math.ceil(n / 8), label);
  const histogram = new Histogram();
  places.forEach((place, b) => {
    const buckets = bucketsOf(type, seed, stream, n, b), bits = mask.subarray(b * BLOCK / 8);
    decodeBlock(kind, view, place, chances, buckets, bits, `${label}, block ${b}`, base);
    histogram.add(buckets, bits);
  });
  kind.fit(type, histogram).chances.forEach((right, c) => {
    if (chances[c] === right) return;
    const field = `${label}, the probability of bucket ${c}`;
    fail(kind.numbers.model, field, base + (coding === CODING.rans ? c : 0), chances[c], `${right}, that of the decoded bits`);
  });
  return mask;
}

/** Where each block begins and ends; in codings 4 and 5, the last one has the rest of the words. */
function placeBlocks(kind, view, counts, blocks, label, base) {
  const { lanes, countSize, mostWords } = kind;
  const places = [], counted = kind.counted(blocks);
  let at = counts + countSize * counted;
  for (let b = 0; b < blocks; b++) {
    const rest = view.byteLength - at - 4 * lanes;
    const end = at + 4 * lanes + (b < counted ? 2 * getUint(view, counts + countSize * b, countSize) : rest);
    places.push({ at, end });
    at = end;
    if (b === counted && (rest < 0 || rest % 2 !== 0 || rest / 2 > mostWords)) {
      const required = `0 to ${mostWords} whole words`;
      fail(kind.numbers.counts, `${label}, the last block`, base + counts, `${rest} bytes of words`, required);
    }
  }
  if (at === view.byteLength) return places;
  return fail(kind.numbers.counts, `${label}, counts`, base + counts, `${at} bytes in all`, `${view.byteLength} bytes`);
}

function checkStates({ lanes, numbers }, view, at, label, base) {
  for (let k = 0; k < lanes; k++) {
    const state = view.getUint32(at + 4 * k, true);
    if (state < LEAST_STATE) fail(numbers.states, `${label}, state ${k}`, base + at + 4 * k, state, `at least ${LEAST_STATE}`);
  }
}

/** Sets the bits of one block and makes the check [C-03] or [C-08]. Every number stays below 2^32. */
function decodeBlock({ bits: width, lanes, numbers }, view, { at, end }, chances, buckets, bits, label, base) {
  const states = Uint32Array.from({ length: lanes }, (_, k) => view.getUint32(at + 4 * k, true));
  const whole = 2 ** width;
  let next = at + 4 * lanes;
  for (let i = 0; i < buckets.length; i++) {
    const lane = i & (lanes - 1), p = chances[buckets[i]], s = states[lane] & (whole - 1), rest = states[lane] >>> width;
    let x = (whole - p) * rest + s - p;
    if (s < p) {
      x = p * rest + s;
      bits[i >>> 3] |= 1 << (i & 7);
    }
    if (x < LEAST_STATE) {
      if (next === end) fail(numbers.end, label, base + end, `no word left for element ${i}`, 'one');
      x = x * 2 ** 16 + view.getUint16(next, true);
      next += 2;
    }
    states[lane] = x;
  }
  if (next !== end) fail(numbers.end, label, base + next, `${(end - next) / 2} words left`, 'none');
  const other = states.findIndex((x) => x !== LEAST_STATE);
  if (other >= 0) fail(numbers.end, `${label}, state ${other}`, undefined, `${states[other]} at the end`, LEAST_STATE);
}

/** The entry to write for a packed mask if a coding is chosen: raw unless the coding is shorter. [E-03] */
function writeCoded(coding, entry, seed, stream, n) {
  const { type, payload: mask } = entry, kind = MODELS[coding];
  if (leastCoded(coding, n) >= mask.length) return entry;
  const parts = Array.from({ length: blocksOf(n) }, (_, b) => {
    return { buckets: bucketsOf(type, seed, stream, n, b), bits: mask.subarray(b * BLOCK / 8) };
  });
  const histogram = new Histogram();
  for (const { buckets, bits } of parts) histogram.add(buckets, bits);
  const { chances, head } = kind.fit(type, histogram);
  const blocks = parts.map(({ buckets, bits }) => encodeBlock(kind, chances, buckets, bits));
  return shorter(entry, coding, kind, head, blocks);
}

/** The entry with the coded payload, if that is shorter than its own. [E-03], [E-04], [E-05] */
function shorter(entry, coding, kind, head, blocks) {
  const { lanes, countSize } = kind, counted = kind.counted(blocks.length);
  const size = blocks.reduce((sum, block) => sum + block.length, head.length + countSize * counted);
  if (size >= entry.payload.length) return entry;
  const payload = new Uint8Array(size), view = viewOf(payload);
  payload.set(head);
  let at = head.length + countSize * counted;
  blocks.forEach((block, b) => {
    if (b < counted) putUint(view, head.length + countSize * b, countSize, (block.length - 4 * lanes) / 2);
    payload.set(block, at);
    at += block.length;
  });
  return { ...entry, coding, payload };
}

/** The states and words of one block. Every number stays below 2^32. */
function encodeBlock({ bits: width, lanes }, chances, buckets, bits) {
  const bytes = new Uint8Array(4 * lanes + 2 * buckets.length), view = viewOf(bytes); // at most one word each element
  const states = new Uint32Array(lanes).fill(LEAST_STATE), whole = 2 ** width;
  let first = bytes.length; // the words fill the bytes from the end
  for (let i = buckets.length - 1; i >= 0; i--) {
    const lane = i & (lanes - 1), p = chances[buckets[i]], bit = (bits[i >>> 3] >>> (i & 7)) & 1, f = bit ? p : whole - p;
    let x = states[lane];
    if (x >= f * 2 ** (32 - width)) {
      first -= 2;
      view.setUint16(first, x & 0xFFFF, true);
      x >>>= 16;
    }
    states[lane] = Math.floor(x / f) * whole + x % f + (bit ? 0 : p);
  }
  const block = bytes.subarray(first - 4 * lanes);
  states.forEach((x, k) => viewOf(block).setUint32(4 * k, x, true));
  return block;
}

// ----------------------------------------------------------------------------------------------------- grids and coding 5

const SYMBOLS = 215; // spec 6.14
const WHOLE = 16384; // the sum of the frequencies, spec 6.13

const GRIDS = { // by dtype: the largest magnitude of an integer, the exponents of the steps; spec 6.12
  1: { largest: 2 ** 24 - 1, least: -126, most: 104 },
  2: { largest: 2 ** 24 - 1, least: -126, most: 104 },
  3: { largest: 2 ** 11 - 1, least: -24, most: 5 },
  4: { largest: 2 ** 8 - 1, least: -126, most: 120 },
};

function checkStep(number, field, offset, dtype, step) {
  const { least, most } = GRIDS[dtype];
  F32.setFloat32(0, step);
  const isPower = (F32.getUint32(0) & 0x7FFFFF) === 0;
  if (isPower && step >= 2 ** least && step <= 2 ** most) return;
  fail(number, field, offset, step, `a power of two, 2^${least} .. 2^${most}`);
}

/** The integers of a raw grid, i32 each. */
const integersOf = (payload) => new Int32Array(reorder(payload.slice()).buffer);

/** The raw payload of a grid. Checks [F-32] and, if it is coded, [C-10] to [C-14]. */
function readGrid({ type, coding, payload }, n, label, at) {
  const z = coding === CODING.raw ? integersOf(payload) : decodeGrid(payload, n, label, at);
  const { largest } = GRIDS[type], bad = z.findIndex((x) => x > largest || x < -largest);
  const offset = coding === CODING.raw ? at + 4 * bad : undefined;
  if (bad >= 0) fail('F-32', `${label}, element ${bad}`, offset, z[bad], `at most ${largest} in magnitude`);
  return coding === CODING.raw ? payload : toBytes(z);
}

/** The values of a grid as little-endian bytes. spec 6.12 */
function gridValues({ type, scale, payload }) {
  const { size } = DTYPES[type], z = integersOf(payload);
  const bytes = new Uint8Array(size * z.length), view = viewOf(bytes);
  for (let i = 0; i < z.length; i++) putFloat(view, size * i, type, z[i] * scale); // exact
  return bytes;
}

/** An integer of magnitude m without its sign, in steps that grow with it, and its number of plain bits. spec 6.14 */
const plainBits = (m) => Math.max(29 - Math.clz32(m), 0); // d = e - 2
const sizeOf = (m, d) => (m < 32 ? m : 32 + 4 * (d - 3) + ((m >>> d) & 3));
const symbolOf = (z) => {
  const m = Math.abs(z), size = sizeOf(m, plainBits(m));
  return z > 0 ? 2 * size - 1 : 2 * size;
};

/** By symbol: the integer whose plain bits are 0, and the number of plain bits. */
const INTEGERS = Int32Array.from({ length: SYMBOLS }, (_, symbol) => {
  const size = (symbol + 1) >> 1, m = size < 32 ? size : (4 + size % 4) << ((size >> 2) - 5);
  return symbol & 1 ? m : -m;
});
const PLAIN = Uint8Array.from(INTEGERS, (z) => (Math.abs(z) < 32 ? 0 : plainBits(Math.abs(z))));

/** f(s) for the counts of the symbols of n integers. spec 6.14 */
function fitFrequencies(counts, n) {
  const frequencies = Array.from(counts, (c) => (c === 0 ? 0 : Math.max(1, Math.floor(WHOLE * c / n))));
  const most = counts.indexOf(counts.reduce((a, b) => Math.max(a, b)));
  frequencies[most] += WHOLE - frequencies.reduce((a, b) => a + b);
  return frequencies;
}

/** The start of each symbol, and the end of the last one. */
function startsOf(frequencies) {
  const starts = new Uint16Array(SYMBOLS + 1);
  frequencies.forEach((f, s) => { starts[s + 1] = starts[s] + f; });
  return starts;
}

function countSymbols(z) {
  const counts = new Float64Array(SYMBOLS);
  for (let i = 0; i < z.length; i++) counts[symbolOf(z[i])] += 1;
  return counts;
}

/** `last` as a byte, and f(1) to f(last) in bits. spec 6.14 */
function putFrequencies(frequencies) {
  const last = frequencies.findLastIndex((f) => f > 0);
  const bits = frequencies.slice(1, last + 1).flatMap((f) => {
    const v = f + 1, k = 31 - Math.clz32(v);
    return [...Array(k).fill(0), 1, ...Array.from({ length: k }, (_, bit) => (v >> bit) & 1)];
  });
  const head = new Uint8Array(1 + Math.ceil(bits.length / 8));
  head[0] = last;
  bits.forEach((bit, at) => { head[1 + (at >> 3)] |= bit << (at & 7); });
  return head;
}

/** The inverse of putFrequencies, and the number of bytes read. Checks [C-10]. */
function takeFrequencies(bytes, label, base) {
  const refuse = (at, found, required) => fail('C-10', `${label}, frequencies`, base + (at >> 3), found, required);
  const [last] = bytes, frequencies = new Array(SYMBOLS).fill(0);
  if (last >= SYMBOLS) refuse(0, `the last symbol ${last}`, `at most ${SYMBOLS - 1}`);
  let at = 8, sum = 0;
  const bit = (s) => {
    if (at >= 8 * bytes.length) refuse(at, `the end of the bits of f(${s})`, 'more bits');
    at += 1;
    return (bytes[(at - 1) >>> 3] >>> ((at - 1) & 7)) & 1;
  };
  for (let s = 1; s <= last; s++) {
    let k = 0, v = 1;
    while (bit(s) === 0) k += 1;
    if (k > 14) refuse(at - 1, `${k} bits of 0 before f(${s})`, 'at most 14');
    v <<= k;
    for (let j = 0; j < k; j++) v |= bit(s) << j;
    frequencies[s] = v - 1;
    sum += v - 1;
    if (sum > WHOLE) refuse(at - 1, `a sum of ${sum}`, `at most ${WHOLE}`);
  }
  if (last > 0 && frequencies[last] === 0) refuse(at - 1, `f(${last}) = 0`, 'another last frequency');
  for (let rest = at; rest % 8 !== 0; rest++) if ((bytes[rest >>> 3] >>> (rest & 7)) & 1) refuse(rest, 'padding of 1', '0');
  frequencies[0] = WHOLE - sum;
  return { frequencies, size: Math.ceil(at / 8) };
}

/** What placeBlocks, checkStates and shorter need to know of coding 5. spec 6.13, 6.14 */
const FOURTEEN_BITS = {
  lanes: 1,
  numbers: { counts: 'C-11', states: 'C-12', end: 'C-13', model: 'C-14' },
  counted: (blocks) => blocks - 1,
  countSize: 4,
  mostWords: Infinity,
};

/** The integers of a payload in coding 5 that begins at the offset `base`. Checks [C-10] to [C-14]. */
function decodeGrid(payload, n, label, base) {
  const kind = FOURTEEN_BITS, view = viewOf(payload), blocks = blocksOf(n);
  const { frequencies, size } = takeFrequencies(payload.subarray(0, payload.length - (8 * blocks - 4)), label, base);
  const places = placeBlocks(kind, view, size, blocks, label, base);
  places.forEach(({ at }, b) => checkStates(kind, view, at, `${label}, block ${b}`, base));
  const z = allocated(Int32Array, n, label), starts = startsOf(frequencies), symbols = new Uint8Array(WHOLE);
  frequencies.forEach((_, s) => symbols.fill(s, starts[s], starts[s + 1]));
  places.forEach((place, b) => {
    decodeGridBlock(view, place, symbols, starts, z.subarray(b * BLOCK, (b + 1) * BLOCK), `${label}, block ${b}`, base);
  });
  fitFrequencies(countSymbols(z), n).forEach((right, s) => {
    if (frequencies[s] === right) return;
    fail(kind.numbers.model, `${label}, the frequency of symbol ${s}`, base, frequencies[s], `${right}, that of the integers`);
  });
  return z;
}

/** Decodes one block into z and makes the check [C-13]. Every number stays below 2^32. spec 6.13, 6.14 */
function decodeGridBlock(view, { at, end }, symbols, starts, z, label, base) {
  const number = FOURTEEN_BITS.numbers.end;
  let x = view.getUint32(at, true), next = at + 4, i = 0;
  const refill = () => {
    if (next === end) fail(number, label, base + end, `no word left for element ${i}`, 'one');
    x = x * 2 ** 16 + view.getUint16(next, true);
    next += 2;
  };
  const plain = (bits) => {
    const r = x & ((1 << bits) - 1);
    x >>>= bits;
    if (x < LEAST_STATE) refill();
    return r;
  };
  for (; i < z.length; i++) {
    const y = x & (WHOLE - 1), symbol = symbols[y], start = starts[symbol], bits = PLAIN[symbol];
    x = (starts[symbol + 1] - start) * (x >>> 14) + y - start;
    if (x < LEAST_STATE) refill();
    let r = 0;
    if (bits > 0) r = plain(Math.min(bits, 16));
    if (bits > 16) r += plain(bits - 16) << 16;
    z[i] = INTEGERS[symbol] + (symbol & 1 ? r : -r);
  }
  if (next !== end) fail(number, label, base + next, `${(end - next) / 2} words left`, 'none');
  if (x !== LEAST_STATE) fail(number, `${label}, state`, undefined, `${x} at the end`, LEAST_STATE);
}

/** The entry to write for a raw grid if coding 5 is chosen: raw unless the coding is shorter. [E-04] */
const writeGrid = (entry) => codeIntegers(entry, integersOf(entry.payload));

/** The entry with its integers z in coding 5, if that is shorter than its payload. */
function codeIntegers(entry, z) {
  if (leastCoded(CODING.rans14, z.length) >= entry.payload.length) return entry;
  const frequencies = fitFrequencies(countSymbols(z), z.length), starts = startsOf(frequencies);
  const blocks = Array.from({ length: blocksOf(z.length) }, (_, b) => {
    return encodeGridBlock(z.subarray(b * BLOCK, (b + 1) * BLOCK), frequencies, starts);
  });
  return shorter(entry, CODING.rans14, FOURTEEN_BITS, putFrequencies(frequencies), blocks);
}

/** The state and words of one block. Every number stays below 2^32. spec 6.13, 6.14 */
function encodeGridBlock(z, frequencies, starts) {
  const bytes = new Uint8Array(4 + 6 * z.length), view = viewOf(bytes); // at most three words each element
  let x = LEAST_STATE, first = bytes.length; // the words fill the bytes from the end
  const spill = () => {
    first -= 2;
    view.setUint16(first, x & 0xFFFF, true);
    x >>>= 16;
  };
  const plain = (r, bits) => {
    if (x >= 2 ** (32 - bits)) spill();
    x = x * 2 ** bits + r;
  };
  for (let i = z.length - 1; i >= 0; i--) {
    const symbol = symbolOf(z[i]), bits = PLAIN[symbol], r = Math.abs(z[i]) & ((1 << bits) - 1), f = frequencies[symbol];
    if (bits > 16) plain(r >>> 16, bits - 16); // those that are decoded last
    if (bits > 0) plain(r & 0xFFFF, Math.min(bits, 16));
    if (x >= f * 2 ** 18) spill();
    x = Math.floor(x / f) * WHOLE + x % f + starts[symbol];
  }
  view.setUint32(first - 4, x, true);
  return bytes.subarray(first - 4);
}

// ---------------------------------------------------------------------------------------------- codings 2 and 3 of float32

/** The bits of a non-negative f32, rounded to float16, to nearest, ties to even. spec 6.9 */
function toFloat16(bits) {
  if (bits >= 0x38800000) return roundOff(bits - 0x38000000, 13); // 2^-14 or more: normal, the exponent biased by 15
  F32.setUint32(0, bits);
  return F32.getFloat32(0) * 2 ** 24 + 2 ** 52 - 2 ** 52; // in units of 2^-24: the sum is rounded to an integer
}

/** x / 2^k, rounded to nearest, ties to even, for x + 2^k < 2^32. */
const roundOff = (x, k) => (x + (2 ** (k - 1) - 1) + ((x >>> k) & 1)) >>> k;

/** The f32 of a non-negative float16. */
function fromFloat16(bits) {
  const exponent = bits >>> 10, fraction = bits & 0x3FF;
  if (exponent === 31) return fraction ? NaN : Infinity;
  return exponent ? (fraction + 0x400) * 2 ** (exponent - 25) : fraction * 2 ** -24;
}

function fromBfloat16(bits) {
  F32.setUint32(0, bits * 2 ** 16);
  return F32.getFloat32(0);
}

const F32 = new DataView(new ArrayBuffer(4));
const HALVES = { // by coding; without the sign, which the 16 bits keep; spec 6.9
  2: { narrow: toFloat16, widen: fromFloat16, infinity: 0x7C00 },
  3: { narrow: (bits) => roundOff(bits, 16), widen: fromBfloat16, infinity: 0x7F80 },
};

/** The f32 elements, each rounded to 16 bits. */
function narrow(payload, coding, label) {
  const { narrow: round, infinity } = HALVES[coding], view = viewOf(payload);
  const out = new Uint8Array(payload.length / 2), outView = viewOf(out);
  for (let at = 0; at < payload.length; at += 4) {
    const bits = view.getUint32(at, true), magnitude = round(bits & 0x7FFFFFFF);
    if (magnitude >= infinity) {
      const field = `${label}, element ${at / 4}`;
      fail('E-02', field, undefined, view.getFloat32(at, true), 'a number that rounds to a finite one');
    }
    outView.setUint16(at / 2, (bits >>> 31) * 0x8000 + magnitude, true);
  }
  return out;
}

/** The elements of 16 bits as f32, exactly. */
function widen(payload, coding) {
  const view = viewOf(payload), out = new Uint8Array(2 * payload.length), outView = viewOf(out);
  for (let at = 0; at < payload.length; at += 2) {
    const bits = view.getUint16(at, true), magnitude = HALVES[coding].widen(bits & 0x7FFF);
    outView.setFloat32(2 * at, bits >>> 15 ? -magnitude : magnitude, true);
  }
  return out;
}

// ----------------------------------------------------------------------------------------------------------- exact sums

const BASE = 2 ** 24;
const MOST_WEIGHT = 2 ** 39 - 1; // [A-01]

/**
 * n signed 64-bit sums of weight·digit, |digit| < 2^24, without BigInt: sum i is high[i]·2^24 + low[i], two f64 that hold
 * integers. low stays exact because it is carried into high before its terms can reach 2^53.
 */
class Sums {
  constructor(n) {
    this.high = new Float64Array(n);
    this.low = new Float64Array(n);
    this.pending = 0; // bounds |low| by pending·2^24
  }

  /** Makes sure that one more term of this weight can be added exactly to every element. */
  reserve(weight) {
    this.pending += weight % BASE;
    if (this.pending >= 2 ** 28) {
      this.settle();
      this.pending += weight % BASE;
    }
  }

  settle() {
    const { high, low } = this;
    for (let i = 0; i < low.length; i++) {
      const carry = Math.floor(low[i] / BASE);
      high[i] += carry;
      low[i] -= carry * BASE;
    }
    this.pending = 1;
  }

  /** Adds weight·digits to the sums from `at` on. */
  addAll(at, digits, weight) {
    const { high, low } = this;
    const weightLow = weight % BASE, weightHigh = Math.floor(weight / BASE);
    for (let i = 0; i < digits.length; i++) low[at + i] += digits[i] * weightLow;
    if (weightHigh) for (let i = 0; i < digits.length; i++) high[at + i] += digits[i] * weightHigh;
  }

  add(i, digit, weight) {
    this.low[i] += digit * (weight % BASE);
    if (weight >= BASE) this.high[i] += digit * Math.floor(weight / BASE);
  }

  /** Adds weight·value for an integer |value| < 2^48, where weight·|value| < 2^63. */
  addWide(i, value, weight) {
    const above = Math.trunc(value / BASE);
    this.add(i, value - above * BASE, weight);
    this.high[i] += above * weight;
  }

  merge(other) {
    this.settle();
    other.settle();
    for (let i = 0; i < this.low.length; i++) {
      this.low[i] += other.low[i];
      this.high[i] += other.high[i];
    }
    this.settle();
  }

  /** f64(S), rounded once: the addition below is the only rounding. */
  toFloat(i) {
    return this.high[i] * BASE + this.low[i];
  }

  toBigInt(i) {
    return BigInt(this.high[i]) * BigInt(BASE) + BigInt(this.low[i]);
  }

  isZero() {
    this.settle();
    return this.low.every((x) => x === 0) && this.high.every((x) => x === 0);
  }

  write(view, at) { // as i64
    this.settle();
    for (let i = 0; i < this.low.length; i++, at += 8) {
      view.setInt32(at + 4, Math.floor(this.high[i] / 256), true);
      view.setUint32(at, (this.high[i] % 256) * BASE + this.low[i], true); // mod 2^32
    }
  }

  /** Reads n i64 and makes the check [P-15] or [T-20] of their magnitude: at most weight·largest. */
  static read(number, view, at, n, weight, largest, field) {
    const sums = new Sums(n);
    // The bounds as high·2^24 + low, 0 <= low < 2^24. In this form, sums are compared first by high, then by low.
    const lower = (weight % BASE) * largest;
    const topHigh = Math.floor(weight / BASE) * largest + Math.floor(lower / BASE), topLow = lower % BASE;
    const endHigh = topLow ? -topHigh - 1 : -topHigh, endLow = topLow ? BASE - topLow : 0;
    for (let i = 0; i < n; i++, at += 8) {
      const bits = view.getUint32(at, true);
      const low = bits & 0xFFFFFF, high = view.getInt32(at + 4, true) * 256 + (bits >>> 24);
      if (high > topHigh || (high === topHigh && low > topLow) || high < endHigh || (high === endHigh && low < endLow)) {
        const most = BigInt(weight) * BigInt(largest);
        fail(number, `${field}, element ${i}`, at, view.getBigInt64(at, true), `at most ${most} in magnitude`);
      }
      sums.low[i] = low;
      sums.high[i] = high;
    }
    sums.pending = 1;
    return sums;
  }
}

/** The sum of one masked tensor. spec 8.2 */
class MaskedSum {
  constructor(n, distribution, scale, sums = new Sums(n)) {
    this.n = n;
    this.distribution = distribution;
    this.scale = scale;
    this.sums = sums;
  }

  add(frame, index, weight) {
    const entry = frame.entries[index];
    this.sums.reserve(weight);
    if (entry.kind === KIND.grid) this.sums.addAll(0, integersOf(entry.payload), weight);
    else for (const [at, q] of maskedChunks(entry, frame.seed, index, this.n)) this.sums.addAll(at, q, weight);
  }

  /** The check [A-02] of one tensor; `number` is the number that it has where it is made. */
  checkNoise(number, index, distribution, scale) {
    if (this.distribution === distribution && this.scale === scale) return;
    const said = (code, a) => `distribution ${code} of scale ${a}`;
    fail(number, `noise of tensor ${index}`, undefined, said(distribution, scale), said(this.distribution, this.scale));
  }

  merge(other) {
    this.sums.merge(other.sums);
  }

  /** spec 8.6, [A-10] */
  addTally(counted, seed, index, frames, weight) {
    const { kind, type, counts } = counted, [factor, shift] = kind === KIND.binary ? [1, 0] : [2, frames];
    this.sums.reserve(weight);
    for (const [at, q] of drawChunks(type, seed, index, this.n)) {
      for (let i = 0; i < q.length; i++) this.sums.addWide(at + i, q[i] * (counts[at + i] * factor - shift), weight);
    }
  }

  /** Finite: by [P-15] and [N-03] no sum is beyond what frames can add up to. */
  mean(total) {
    const step = stepOf(this.distribution, this.scale);
    const out = new Float32Array(this.n);
    for (let i = 0; i < this.n; i++) out[i] = this.sums.toFloat(i) / total * step;
    return reorder(new Uint8Array(out.buffer));
  }

  toBytes() { // spec 8.5
    const bytes = new Uint8Array(8 + 8 * this.n);
    const view = viewOf(bytes);
    bytes[0] = this.distribution;
    view.setFloat32(4, this.scale, true);
    this.sums.write(view, 8);
    return bytes;
  }
}

/** The sum of one dense tensor: limbs in base 2^24, in rows by index; an absent row is all 0. spec 8.4 */
class DenseSum {
  constructor(n, dtype) {
    this.n = n;
    this.dtype = DTYPES[dtype];
    this.rows = [];
  }

  add(frame, index, weight) {
    const { kind, payload } = frame.entries[index];
    const view = viewOf(kind === KIND.grid ? decodeTensor(frame, index) : payload);
    this.rows.forEach((row) => row.reserve(weight));
    const addElement = this.dtype.isFloat ? this.addFloat : this.addInteger;
    for (let i = 0; i < this.n; i++) addElement.call(this, view, i, weight);
  }

  addFloat(view, i, weight) {
    const { size, precision } = this.dtype;
    const at = i * size, hidden = 2 ** (precision - 1);
    const lower = size === 8 ? view.getUint32(at, true) : 0; // the 32 lower bits of a float64
    const upper = size === 8 ? view.getUint32(at + 4, true) : getUint(view, at, size);
    const upperHidden = size === 8 ? 2 ** 20 : hidden, sign = size === 2 ? 2 ** 15 : 2 ** 31;
    const exponent = Math.floor((upper % sign) / upperHidden);
    const fraction = (upper % upperHidden) * (size === 8 ? 2 ** 32 : 1) + lower;
    const magnitude = exponent ? fraction + hidden : fraction;
    this.addMagnitude(i, magnitude, Math.max(exponent, 1) - 1, upper >= sign ? -1 : 1, weight);
  }

  addInteger(view, i, weight) {
    const { size, signed } = this.dtype;
    if (size === 8) return this.addInteger64(view, i, weight);
    const x = getUint(view, i * size, size);
    const value = signed && x >= 2 ** (8 * size - 1) ? x - 2 ** (8 * size) : x;
    this.addMagnitude(i, Math.abs(value), 0, Math.sign(value), weight);
  }

  addInteger64(view, i, weight) { // in two halves, whose digits of limb 1 are below 2^24 together
    const x = this.dtype.signed ? view.getBigInt64(8 * i, true) : view.getBigUint64(8 * i, true);
    const magnitude = x < 0n ? -x : x, sign = x < 0n ? -1 : 1;
    this.addMagnitude(i, Number(magnitude & 0xFFFFFFFFn), 0, sign, weight);
    this.addMagnitude(i, Number(magnitude >> 32n), 32, sign, weight);
  }

  /** Adds sign·weight·M for M = magnitude·2^shift, digit by digit. Exact: magnitude has at most 53 bits. */
  addMagnitude(i, magnitude, shift, sign, weight) {
    let limb = Math.floor(shift / 24);
    for (let rest = magnitude * 2 ** (shift % 24); rest > 0; limb++) {
      const above = Math.floor(rest / BASE);
      const digit = rest - above * BASE;
      if (digit) this.row(limb, weight).add(i, sign * digit, weight);
      rest = above;
    }
  }

  row(limb, weight) {
    if (!this.rows[limb]) {
      this.rows[limb] = new Sums(this.n);
      this.rows[limb].reserve(weight);
    }
    return this.rows[limb];
  }

  merge(other) {
    other.rows.forEach((row, limb) => this.row(limb, 0).merge(row));
  }

  /** Adds the limbs of a tally, each below 2^48, times the weight. spec 8.6, [A-10] */
  addTally(limbs, seed, index, frames, weight) {
    this.rows.forEach((row) => row.reserve(weight));
    limbs.rows.forEach((row, limb) => {
      const sums = this.row(limb, weight);
      row.settle();
      for (let i = 0; i < this.n; i++) sums.addWide(i, row.toFloat(i), weight);
    });
  }

  mean(total, index) { // spec 8.3
    const bytes = new Uint8Array(this.n * this.dtype.size);
    const view = viewOf(bytes);
    const round = this.dtype.isFloat ? floatMean : integerMean;
    for (let i = 0; i < this.n; i++) {
      const bits = round(this.total(i), BigInt(total), this.dtype);
      if (bits === undefined) {
        fail('A-07', `mean of tensor ${index}, element ${i}`, undefined, 'one beyond its dtype', 'a finite one of its dtype');
      }
      for (let k = 0, rest = bits; k < this.dtype.size; k += 2, rest >>= 16n) {
        if (this.dtype.size === 1) bytes[i] = Number(rest);
        else view.setUint16(i * this.dtype.size + k, Number(rest & 0xFFFFn), true);
      }
    }
    return bytes;
  }

  /** The sum of element i in quanta. spec 8.4 */
  total(i) {
    let sum = 0n;
    this.rows.forEach((row, limb) => { sum += row.toBigInt(i) << BigInt(24 * limb); });
    return sum;
  }

  toBytes() { // spec 8.5
    const present = [...this.rows.keys()].filter((limb) => this.rows[limb] && !this.rows[limb].isZero());
    const bytes = new Uint8Array(4 + present.length * (4 + 8 * this.n));
    const view = viewOf(bytes);
    view.setUint32(0, present.length, true);
    present.forEach((limb, k) => {
      const at = 4 + k * (4 + 8 * this.n);
      view.setUint32(at, limb, true);
      this.rows[limb].write(view, at + 4);
    });
    return bytes;
  }
}

function getUint(view, at, size) {
  if (size === 4) return view.getUint32(at, true);
  return size === 2 ? view.getUint16(at, true) : view.getUint8(at);
}

/** Stores an integer modulo 2^(8·size). */
function putUint(view, at, size, value) {
  if (size === 4) view.setUint32(at, value, true);
  else if (size === 2) view.setUint16(at, value, true);
  else view.setUint8(at, value);
}

const bitLength = (x) => (x === 0n ? 0 : x.toString(16).length * 4 - Math.clz32(parseInt(x.toString(16)[0], 16)) + 28);

/**
 * a / b for a >= 0, b > 0, rounded to nearest, ties to even.
 * @param {bigint} a
 * @param {bigint} b
 * @returns {bigint}
 */
function divideRounded(a, b) {
  const quotient = a / b, twice = 2n * (a % b);
  return twice > b || (twice === b && quotient & 1n) ? quotient + 1n : quotient;
}

/**
 * The bits of the float nearest to sum / total quanta; undefined if that is an infinity. spec 8.3
 * @param {bigint} sum
 * @param {bigint} total
 */
function floatMean(sum, total, { size, precision }) {
  const magnitude = sum < 0n ? -sum : sum;
  const shift = Math.max(0, bitLength(magnitude / total) - precision); // exponent field - 1 of a normal number
  const significand = divideRounded(magnitude, total << BigInt(shift));
  const bits = (BigInt(shift) << BigInt(precision - 1)) + significand; // the hidden bit, or a carry, raises the exponent
  const signBit = 1n << BigInt(8 * size - 1);
  if (bits >= signBit - (1n << BigInt(precision - 1))) return undefined;
  return sum < 0n && bits ? bits | signBit : bits; // a zero is +0.0
}

/**
 * The two's complement bits of the integer nearest to sum / total; undefined if the dtype has none. spec 8.3
 * @param {bigint} sum
 * @param {bigint} total
 */
function integerMean(sum, total, { size, signed, isBool }) {
  const mean = sum < 0n ? -divideRounded(-sum, total) : divideRounded(sum, total);
  const width = isBool ? 1 : 8 * size;
  if ((signed ? BigInt.asIntN(width, mean) : BigInt.asUintN(width, mean)) !== mean) return undefined;
  return BigInt.asUintN(8 * size, mean);
}

// ----------------------------------------------------------------------------------------------------------- aggregation

/** The exact weighted sum of frames of one schema. A refusal leaves the sum unchanged, [A-05]. spec 8 */
export class Aggregate {
  /** @type {any[]} a MaskedSum or DenseSum a tensor; undefined for a masked one until the first frame states its noise */
  #sums;

  /**
   * @param {Schema} schema
   * @param {object} [options]
   * @param {bigint | number} [options.baseModel] the expected value of every frame; 0 accepts any
   * @param {number} [options.round] the same
   * @param {Partial<Limits>} [options.limits]
   */
  constructor(schema, { baseModel = 0n, round = 0, limits = {} } = {}) {
    this.schema = schema;
    this.baseModel = u64(baseModel, 'baseModel');
    this.round = u32(round, 'round');
    this.limits = limits;
    this.weight = 0;
    this.frames = 0;
    this.#sums = schema.tensors.map(({ role, dtype, n }) => (role === ROLE.dense ? new DenseSum(n, dtype) : undefined));
  }

  /**
   * Checks [A-01], the frame, [A-02], in this order, and adds the frame. spec 8.1
   * @param {Uint8Array | Frame} frame bytes, or from parseFrame
   * @param {number | bigint} weight
   */
  add(frame, weight) {
    const heavier = this.#weightWith(weight, 'A-01');
    const parsed = ArrayBuffer.isView(frame) ? parseFrame(frame, this.#demands(), this.limits) : frame;
    if (parsed === frame) agree(parsed, parsed.schema, this.#demands());
    const sums = parsed.entries.map(({ kind, type, scale }, i) => {
      if (this.#sums[i] instanceof DenseSum) return this.#sums[i];
      const distribution = kind === KIND.grid ? GRID_SUM : type;
      this.#sums[i]?.checkNoise('A-02', i, distribution, scale);
      return this.#sums[i] ?? new MaskedSum(this.schema.tensors[i].n, distribution, scale);
    });
    sums.forEach((sum, i) => sum.add(parsed, i, Number(weight)));
    this.#sums = sums;
    this.weight = heavier;
    this.frames += 1;
  }

  /** @returns {Demands} spec 8.5: 0 accepts any value */
  #demands() {
    return { schema: this.schema, baseModel: this.baseModel || null, round: this.round || null };
  }

  /** The sum of weights including one more weight; it must satisfy [A-01]. */
  #weightWith(weight, number) {
    const more = typeof weight === 'bigint' ? Number(weight) : weight; // too large for a Number is too large here
    if (!Number.isInteger(more) || more < 1) fail(number, 'weight', undefined, String(weight), 'a positive integer');
    const total = this.weight + more;
    if (total > MOST_WEIGHT) fail(number, 'weight', undefined, `${this.weight} + ${weight}`, `a sum of at most ${MOST_WEIGHT}`);
    return total;
  }

  /**
   * Adds the sums of another aggregate. Checks [A-06].
   * @param {Aggregate} other stays as it is
   */
  merge(other) { // spec 8.5
    const { schema, baseModel, round } = this;
    if (!sameBytes(schema.digest, other.schema.digest)) {
      fail('A-06', 'schema_digest', undefined, hex(other.schema.digest), hex(schema.digest));
    }
    if (other.baseModel !== baseModel) fail('A-06', 'base_model', undefined, other.baseModel, baseModel);
    if (other.round !== round) fail('A-06', 'round', undefined, other.round, round);
    if (other.frames === 0) return;
    const sums = other.#sums.map((theirs, i) => {
      if (theirs instanceof DenseSum) return this.#sums[i];
      this.#sums[i]?.checkNoise('A-06', i, theirs.distribution, theirs.scale);
      return this.#sums[i] ?? new MaskedSum(theirs.n, theirs.distribution, theirs.scale);
    });
    const weight = this.#weightWith(other.weight, 'A-06');
    sums.forEach((sum, i) => sum.merge(other.#sums[i]));
    this.#sums = sums;
    this.weight = weight;
    this.frames += other.frames;
  }

  /**
   * Adds the frames of a tally, each with its weight. Checks [A-10]; a tally of no frames changes nothing.
   * @param {Tally} tally stays as it is; from Tally.fromBytes, if it comes as bytes
   */
  addTally(tally) { // spec 8.6
    const { schema, baseModel, round } = this;
    const { frames, seed, weight } = tally, parts = partsOf(tally);
    if (!sameBytes(schema.digest, tally.schema.digest)) {
      fail('A-10', 'schema_digest', undefined, hex(tally.schema.digest), hex(schema.digest));
    }
    if (tally.baseModel !== baseModel) fail('A-10', 'base_model', undefined, tally.baseModel, baseModel);
    if (tally.round !== round) fail('A-10', 'round', undefined, tally.round, round);
    if (frames === 0) return;
    const sums = parts.map(({ type, scale }, i) => {
      if (this.#sums[i] instanceof DenseSum) return this.#sums[i];
      this.#sums[i]?.checkNoise('A-10', i, type, scale);
      return this.#sums[i] ?? new MaskedSum(schema.tensors[i].n, type, scale);
    });
    const heavier = this.#weightWith(frames * weight, 'A-10');
    sums.forEach((sum, i) => sum.addTally(parts[i], seed, i, frames, weight));
    this.#sums = sums;
    this.weight = heavier;
    this.frames += frames;
  }

  /**
   * The mean of every tensor, as decodeTensor gives an update. Checks [A-05], [A-07].
   * @returns {Uint8Array[]}
   */
  mean() { // spec 8.2, 8.3
    this.#checkFrames();
    return this.#sums.map((sum, i) => sum.mean(this.weight, i));
  }

  #checkFrames() {
    if (this.frames === 0) fail('A-05', 'frames', undefined, 'none', 'at least one');
  }

  /**
   * The partial sum. Checks [A-05].
   * @returns {Uint8Array}
   */
  toBytes() { // spec 8.5
    this.#checkFrames();
    const tensors = this.#sums.map((sum) => sum.toBytes());
    const bytes = new Uint8Array(tensors.reduce((size, part) => size + part.length, 60));
    const view = viewOf(bytes);
    putHeader(bytes, SUM_MAGIC, this.schema);
    bytes[5] = this.#sums.some(({ distribution }) => distribution === GRID_SUM) ? 1 : 0;
    view.setBigUint64(8, BigInt(this.weight), true);
    view.setBigUint64(16, this.baseModel, true);
    view.setUint32(24, this.round, true);
    view.setBigUint64(48, BigInt(this.frames), true);
    let at = 56;
    for (const part of tensors) {
      bytes.set(part, at);
      at += part.length;
    }
    view.setUint32(at, crc32(bytes.subarray(0, at)), true);
    return bytes;
  }

  /**
   * Reads a partial sum of frames of the caller's schema. Checks [P-01] to [P-16].
   * @param {Uint8Array} input
   * @param {Schema} schema
   * @param {object} [options]
   * @param {Partial<Limits>} [options.limits] for frames that are added later
   * @returns {Aggregate}
   */
  static fromBytes(input, schema, { limits = {} } = {}) {
    const bytes = plain(input);
    const view = viewOf(bytes);
    const { weight, frames, baseModel, round } = readSumHeader(bytes, view, schema);
    const parts = new Parts(56, bytes.length - 4, 'P-01');
    const places = schema.tensors.map((tensor, i) => {
      if (tensor.role === ROLE.dense) return placeDense('P-12', view, parts, tensor, i);
      return placeMasked(view, parts, tensor, i, bytes[5]);
    });
    const minor = places.some(({ distribution }) => distribution === GRID_SUM) ? 1 : 0;
    if (bytes[5] !== minor) fail('P-16', 'minor', 5, bytes[5], `${minor}, the one for the distributions`);
    const left = parts.end - parts.at;
    if (left) fail('P-13', 'partial sum', parts.at, `${left} bytes between the last tensor and the checksum`, 'none');
    checkChecksum('P-14', bytes, view);
    const aggregate = new Aggregate(schema, { baseModel, round, limits });
    aggregate.#sums = places.map((place, i) => readSum(view, place, schema.tensors[i], i, weight));
    aggregate.weight = weight;
    aggregate.frames = frames;
    return aggregate;
  }
}

function readSumHeader(bytes, view, schema) {
  checkSize('P-01', 'partial sum', bytes, 60);
  checkMagic('P-02', bytes, SUM_MAGIC);
  checkVersion('P-03', bytes, 1);
  const flags = view.getUint16(6, true);
  if (flags !== 0) fail('P-04', 'flags', 6, `0x${flags.toString(16)}`, 0);
  const weight = getU64(view, 8), frames = getU64(view, 48);
  if (weight < 1 || weight > MOST_WEIGHT) fail('P-05', 'weight', 8, view.getBigUint64(8, true), `1 .. ${MOST_WEIGHT}`);
  if (frames < 1 || frames > weight) fail('P-06', 'frames', 48, view.getBigUint64(48, true), `1 .. ${weight}, the weight`);
  checkDigest('P-07', bytes.subarray(32, 48), 32, schema);
  checkCount('P-08', view.getUint32(28, true), schema);
  return { weight, frames, baseModel: view.getBigUint64(16, true), round: view.getUint32(24, true) };
}

function placeMasked(view, parts, { n }, i, minor) {
  const label = `tensor ${i}`;
  const at = parts.take(8, label);
  const distribution = view.getUint8(at), scale = view.getFloat32(at + 4, true);
  const grid = distribution === GRID_SUM && minor >= 1;
  if (!grid && !(distribution in DISTRIBUTIONS)) {
    fail('P-09', `${label}, distribution`, at, distribution, minor ? '1, 2, 3 or 4' : DISTRIBUTION_CODES);
  }
  const reserved = [1, 2, 3].map((k) => view.getUint8(at + k));
  if (reserved.some((x) => x)) fail('P-10', `${label}, reserved`, at + 1, hex(reserved), hex([0, 0, 0]));
  if (grid) checkStep('P-11', `${label}, step`, at + 4, DTYPE.float32, scale);
  else checkScale('P-11', `${label}, scale`, at + 4, distribution, scale);
  return { distribution, scale, at: parts.take(8 * n, `${label}, sums`) };
}

/** The rows of a dense tensor. Checks [P-12] or [T-16], of the number given. */
function placeDense(number, view, parts, { n, dtype }, i) {
  const label = `tensor ${i}`, { limbs } = DTYPES[dtype];
  const rows = view.getUint32(parts.take(4, `${label}, rows`), true);
  const places = [];
  for (let k = 0, last = -1; k < rows; k++) {
    const at = parts.take(4, `${label}, row ${k}, limb`);
    const limb = view.getUint32(at, true);
    if (limb <= last || limb >= limbs) fail(number, `${label}, row ${k}, limb`, at, limb, `above ${last} and below ${limbs}`);
    places.push({ limb, at: parts.take(8 * n, `${label}, row ${k}`) });
    last = limb;
  }
  return places;
}

function readSum(view, place, { role, n, dtype }, i, weight) {
  const label = `tensor ${i}`;
  if (role === ROLE.masked) {
    const { distribution, scale, at } = place;
    const sums = Sums.read('P-15', view, at, n, weight, SUMMED[distribution].largest(), `${label}, sums`);
    return new MaskedSum(n, distribution, scale, sums);
  }
  return readRows('P-15', view, place, n, dtype, label, weight);
}

/** The limbs of a dense tensor. Checks [P-15] or [T-20], of the number given. */
function readRows(number, view, place, n, dtype, label, weight) {
  const sum = new DenseSum(n, dtype);
  place.forEach(({ limb, at }, k) => {
    sum.rows[limb] = Sums.read(number, view, at, n, weight, BASE - 1, `${label}, row ${k}`);
    if (sum.rows[limb].isZero()) fail(number, `${label}, row ${k}`, at, 'only limbs of 0', 'another limb');
  });
  return sum;
}

// --------------------------------------------------------------------------------------------------------------- tallies

const MOST_FRAMES = 2 ** 24 - 1; // of a tally, spec 8.6

/** The number of binary digits of a positive u32. */
const digitsOf = (x) => 32 - Math.clz32(x);

/** The counts of one masked tensor: what an entry says of it, without a payload. spec 8.6 */
class Counts {
  constructor(n, { kind, type, scale }) {
    this.kind = kind;
    this.type = type;
    this.scale = scale;
    this.counts = new Uint32Array(n);
  }

  /** Adds the bits of an entry of the same kind and noise. */
  add(frame, index) {
    const { counts } = this, { payload } = frame.entries[index];
    for (let i = 0; i < counts.length; i++) counts[i] += (payload[Math.floor(i / 8)] >>> (i & 7)) & 1;
  }

  /** Checks [A-08] or [A-09] of one tensor, of the number given. */
  checkMask(number, index, { kind, type, scale }) {
    if (this.kind === kind && this.type === type && this.scale === scale) return;
    const said = (of) => `kind ${of.kind}, distribution ${of.type} of scale ${of.scale}`;
    fail(number, `mask of tensor ${index}`, undefined, said({ kind, type, scale }), said(this));
  }

  merge(other) {
    for (let i = 0; i < this.counts.length; i++) this.counts[i] += other.counts[i];
  }

  toBytes(frames, coding) { // [E-05]
    const raw = { coding: CODING.raw, payload: packCounts(this.counts, digitsOf(frames)) };
    const centred = () => Int32Array.from(this.counts, (c) => c - Math.floor(frames / 2));
    const { coding: chosen, payload } = coding === CODING.rans14 ? codeIntegers(raw, centred()) : raw;
    const bytes = new Uint8Array(16 + payload.length), view = viewOf(bytes);
    bytes.set([this.kind, this.type, chosen]);
    view.setFloat32(4, this.scale, true);
    view.setBigUint64(8, BigInt(payload.length), true);
    bytes.set(payload, 16);
    return bytes;
  }
}

/** Each count in `width` bits, at most 24. spec 8.6 */
function packCounts(counts, width) {
  const bytes = new Uint8Array(Math.ceil(counts.length * width / 8));
  for (let i = 0, at = 0, held = 0, have = 0; i < counts.length; i++) { // held has at most 7 + 24 bits
    held |= counts[i] << have;
    for (have += width; have >= 8; have -= 8, held >>>= 8) bytes[at++] = held;
    if (i === counts.length - 1 && have) bytes[at] = held;
  }
  return bytes;
}

/** The inverse of packCounts. */
function unpackCounts(bytes, n, width) {
  const counts = new Uint32Array(n);
  for (let i = 0, at = 0, held = 0, have = 0; i < n; i++) {
    for (; have < width; have += 8) held |= bytes[at++] << have;
    counts[i] = held & (2 ** width - 1);
    held >>>= width;
    have -= width;
  }
  return counts;
}

/** For Aggregate: a Counts or DenseSum a tensor. */
let partsOf;

/** The sum of frames of one seed: for each element, how many of them have its bit set. A refusal changes nothing. spec 8.6 */
export class Tally {
  static {
    partsOf = (tally) => tally.#parts;
  }

  /** @type {any[]} a Counts or DenseSum a tensor; undefined for a masked one until the first frame states kind and noise */
  #parts;

  /** @type {{ baseModel: bigint, round: number } | undefined} those of the frames that were added here */
  #common;

  /**
   * @param {Schema} schema
   * @param {object} options
   * @param {number | bigint} options.weight that of each frame; a check of [A-08]
   * @param {bigint | number} [options.baseModel] the expected value of every frame; 0: none
   * @param {number} [options.round] the same
   * @param {Partial<Limits>} [options.limits]
   */
  constructor(schema, { weight, baseModel = 0n, round = 0, limits = {} }) {
    this.schema = schema;
    this.weight = typeof weight === 'bigint' ? Number(weight) : weight; // too large for a Number is too large here
    if (!Number.isInteger(this.weight) || this.weight < 1) {
      fail('A-08', 'weight', undefined, String(weight), 'a positive integer');
    }
    this.baseModel = u64(baseModel, 'baseModel');
    this.round = u32(round, 'round');
    this.limits = limits;
    /** @type {bigint | undefined} that of every frame */
    this.seed = undefined;
    this.frames = 0;
    this.#parts = schema.tensors.map(({ role, dtype, n }) => (role === ROLE.dense ? new DenseSum(n, dtype) : undefined));
  }

  /**
   * Adds a frame. Checks [A-08] and the frame.
   * @param {Uint8Array | Frame} frame bytes, or from parseFrame
   */
  add(frame) {
    const frames = this.#framesWith(1, 'A-08');
    const demands = { schema: this.schema, baseModel: this.baseModel || null, round: this.round || null };
    const parsed = ArrayBuffer.isView(frame) ? parseFrame(frame, demands, this.limits) : frame;
    if (parsed === frame) agree(parsed, parsed.schema, demands);
    const { seed = parsed.seed } = this, { baseModel, round } = this.#common ?? parsed;
    if (parsed.seed !== seed) fail('A-08', 'seed', undefined, parsed.seed, seed);
    if (parsed.baseModel !== baseModel) fail('A-08', 'base_model', undefined, parsed.baseModel, baseModel);
    if (parsed.round !== round) fail('A-08', 'round', undefined, parsed.round, round);
    const parts = parsed.entries.map((entry, i) => {
      if (this.#parts[i] instanceof DenseSum) return this.#parts[i];
      if (!isMask(entry.kind)) fail('A-08', `kind of tensor ${i}`, undefined, entry.kind, '1 or 2');
      this.#parts[i]?.checkMask('A-08', i, entry);
      return this.#parts[i] ?? new Counts(this.schema.tensors[i].n, entry);
    });
    parts.forEach((part, i) => part.add(parsed, i, 1));
    this.#common = { baseModel, round };
    this.#parts = parts;
    this.seed = seed;
    this.frames = frames;
  }

  /** The number of frames including more of them. */
  #framesWith(more, number) {
    const frames = this.frames + more;
    if (frames > MOST_FRAMES) fail(number, 'frames', undefined, `${this.frames} + ${more}`, `at most ${MOST_FRAMES}`);
    if (frames * this.weight > MOST_WEIGHT) {
      fail(number, 'weight', undefined, `${frames} times ${this.weight}`, `at most ${MOST_WEIGHT}`);
    }
    return frames;
  }

  /**
   * Adds the frames of another tally. Checks [A-09].
   * @param {Tally} other stays as it is
   */
  merge(other) {
    const { schema, seed, weight, baseModel, round } = this;
    const equal = (field, found, right) => {
      if (found !== right) fail('A-09', field, undefined, found, right);
    };
    equal('schema_digest', hex(other.schema.digest), hex(schema.digest));
    equal('weight', other.weight, weight);
    equal('base_model', other.baseModel, baseModel);
    equal('round', other.round, round);
    if (other.frames === 0) return;
    equal('seed', other.seed, seed ?? other.seed);
    const parts = other.#parts.map((theirs, i) => {
      if (theirs instanceof DenseSum) return this.#parts[i];
      this.#parts[i]?.checkMask('A-09', i, theirs);
      return this.#parts[i] ?? new Counts(schema.tensors[i].n, theirs);
    });
    const frames = this.#framesWith(other.frames, 'A-09');
    parts.forEach((part, i) => part.merge(other.#parts[i]));
    this.#parts = parts;
    this.#common ??= other.#common;
    this.seed = other.seed;
    this.frames = frames;
  }

  /**
   * The counts of a masked tensor: for each element, the number of frames whose bit is set.
   * @param {number} index that of the tensor
   * @returns {Uint32Array | undefined} a copy; undefined for a dense tensor, and for a tally of no frames
   */
  counts(index) {
    const part = this.#parts[index];
    return part instanceof Counts ? part.counts.slice() : undefined;
  }

  /**
   * The bytes of the tally. Checks that it has frames, [A-05].
   * @param {number} [coding] CODING.raw, or CODING.rans14 for each masked tensor that it makes shorter, [E-05]
   * @returns {Uint8Array}
   */
  toBytes(coding = CODING.raw) {
    if (coding !== CODING.raw && coding !== CODING.rans14) throw new RangeError(`no tally has the coding ${coding}`);
    if (this.frames === 0) fail('A-05', 'frames', undefined, 'none', 'at least one');
    const parts = this.#parts.map((part) => (part instanceof Counts ? part.toBytes(this.frames, coding) : part.toBytes()));
    const bytes = new Uint8Array(parts.reduce((size, part) => size + part.length, 64)), view = viewOf(bytes);
    putHeader(bytes, TALLY_MAGIC, this.schema);
    view.setBigUint64(8, this.seed, true);
    view.setBigUint64(16, this.baseModel, true);
    view.setUint32(24, this.round, true);
    view.setBigUint64(48, BigInt(this.weight), true);
    view.setUint32(56, this.frames, true);
    let at = 60;
    for (const part of parts) {
      bytes.set(part, at);
      at += part.length;
    }
    view.setUint32(at, crc32(bytes.subarray(0, at)), true);
    return bytes;
  }

  /**
   * Reads a tally of frames of the caller's schema. Checks [T-01] to [T-20].
   * @param {Uint8Array} input
   * @param {Schema} schema
   * @param {object} [options]
   * @param {bigint | number | null} [options.seed] the expected seed
   * @param {Partial<Limits>} [options.limits] for frames that are added later
   * @returns {Tally}
   */
  static fromBytes(input, schema, { seed = null, limits = {} } = {}) {
    const bytes = plain(input), view = viewOf(bytes);
    const header = readTallyHeader(bytes, view, schema, seed);
    const parts = new Parts(60, bytes.length - 4, 'T-01');
    const places = schema.tensors.map((tensor, i) => {
      if (tensor.role === ROLE.dense) return placeDense('T-16', view, parts, tensor, i);
      return placeCounts(view, parts, tensor, i, header.frames);
    });
    const left = parts.end - parts.at;
    if (left) fail('T-17', 'tally', parts.at, `${left} bytes between the last tensor and the checksum`, 'none');
    checkChecksum('T-18', bytes, view);
    const tally = new Tally(schema, { ...header, limits });
    tally.#parts = places.map((place, i) => readPart(bytes, view, place, schema.tensors[i], i, header.frames));
    tally.seed = header.seed;
    tally.frames = header.frames;
    return tally;
  }
}

/** Checks [T-01] to [T-09]. */
function readTallyHeader(bytes, view, schema, expected) {
  checkSize('T-01', 'tally', bytes, 64);
  checkMagic('T-02', bytes, TALLY_MAGIC);
  checkVersion('T-03', bytes, 0);
  const flags = view.getUint16(6, true);
  if (flags !== 0) fail('T-04', 'flags', 6, `0x${flags.toString(16)}`, 0);
  const weight = getU64(view, 48), frames = view.getUint32(56, true), seed = view.getBigUint64(8, true);
  if (frames < 1 || frames > MOST_FRAMES) fail('T-05', 'frames', 56, frames, `1 .. ${MOST_FRAMES}`);
  if (weight === 0 || weight * frames > MOST_WEIGHT) {
    const required = `1 or more, and at most ${MOST_WEIGHT} times ${frames}, the frames`;
    fail('T-06', 'weight', 48, view.getBigUint64(48, true), required);
  }
  checkDigest('T-07', bytes.subarray(32, 48), 32, schema);
  checkCount('T-08', view.getUint32(28, true), schema);
  checkExpected('T-09', 'seed', 8, seed, expected);
  return { weight, frames, seed, baseModel: view.getBigUint64(16, true), round: view.getUint32(24, true) };
}

/** A masked tensor without its counts. Checks [T-10] to [T-15]. */
function placeCounts(view, parts, { n }, i, frames) {
  const label = `tensor ${i}`, at = parts.take(16, label);
  const [kind, type, coding, reserved] = [0, 1, 2, 3].map((k) => view.getUint8(at + k)), scale = view.getFloat32(at + 4, true);
  if (!isMask(kind)) fail('T-10', `${label}, kind`, at, kind, '1 or 2');
  if (!(type in DISTRIBUTIONS)) fail('T-11', `${label}, distribution`, at + 1, type, DISTRIBUTION_CODES);
  if (coding !== CODING.raw && coding !== CODING.rans14) fail('T-12', `${label}, coding`, at + 2, coding, '0 or 5');
  if (reserved !== 0) fail('T-13', `${label}, reserved`, at + 3, reserved, 0);
  checkScale('T-14', `${label}, scale`, at + 4, type, scale);
  const raw = Math.ceil(n * digitsOf(frames) / 8), length = getU64(view, at + 8);
  const [least, most] = coding === CODING.raw ? [raw, raw] : [leastCoded(coding, n), raw - 1];
  if (length < least || length > most) {
    const required = least === most ? least : `${least} .. ${most}`;
    fail('T-15', `${label}, length`, at + 8, view.getBigUint64(at + 8, true), required);
  }
  return { kind, type, coding, scale, at: parts.take(length, `${label}, payload`), length };
}

/** The counts or limbs of one tensor. Checks [T-19], [C-10] to [C-14], [T-20]. */
function readPart(bytes, view, place, { role, n, dtype }, i, frames) {
  const label = `tensor ${i}`;
  if (role === ROLE.dense) return readRows('T-20', view, place, n, dtype, label, frames);
  const { coding, at, length } = place, payload = bytes.subarray(at, at + length), width = digitsOf(frames);
  if (coding === CODING.raw) checkPadding('T-19', payload, n * width, label, at);
  const z = coding === CODING.raw ? unpackCounts(payload, n, width)
    : decodeGrid(payload, n, label, at).map((x) => x + Math.floor(frames / 2));
  const bad = z.findIndex((c) => c < 0 || c > frames);
  if (bad >= 0) {
    const offset = coding === CODING.raw ? at + Math.floor(bad * width / 8) : undefined;
    fail('T-20', `${label}, element ${bad}`, offset, z[bad], `0 .. ${frames}`);
  }
  const counted = new Counts(n, place);
  counted.counts.set(z);
  return counted;
}

// ---------------------------------------------------------------------------------------------------------------- models

const HALF_DTYPES = { [DTYPE.float16]: HALVES[CODING.float16], [DTYPE.bfloat16]: HALVES[CODING.bfloat16] };

/** An element of a float dtype. */
function getFloat(view, at, dtype) {
  if (dtype === DTYPE.float32) return view.getFloat32(at, true);
  if (dtype === DTYPE.float64) return view.getFloat64(at, true);
  const bits = view.getUint16(at, true), magnitude = HALF_DTYPES[dtype].widen(bits & 0x7FFF);
  return bits >>> 15 ? -magnitude : magnitude;
}

/** Stores a number in a float dtype; for 16 bits, it is rounded to f32 first. */
function putFloat(view, at, dtype, value) {
  if (dtype === DTYPE.float32) view.setFloat32(at, value, true);
  else if (dtype === DTYPE.float64) view.setFloat64(at, value, true);
  else {
    const { narrow: round, infinity } = HALF_DTYPES[dtype];
    F32.setFloat32(0, value);
    const bits = F32.getUint32(0), magnitude = Math.min(round(bits & 0x7FFFFFFF), infinity);
    const quiet = infinity + (infinity & -infinity) / 2; // a NaN: the highest bit of the fraction is set
    view.setUint16(at, Number.isNaN(value) ? quiet : (bits >>> 31) * 0x8000 + magnitude, true);
  }
}

/** The elements of one tensor as bytes: whole elements of the dtype. */
function elementsOf(array, dtype, name) {
  const bytes = plain(array), size = elementSize(dtype);
  if (bytes.length % size) throw new RangeError(`${name} must be whole elements of ${size} bytes, not ${bytes.length} bytes`);
  return bytes;
}

/**
 * The new values of one tensor of a model: base + update, rounded once or modulo 2^bits, as the dtype says. spec 1.6
 * @param {number} dtype a code of DTYPE, that of both
 * @param {ArrayBufferView} base the little-endian bytes of the elements that the client holds
 * @param {ArrayBufferView} update the same for the decoded update, as decodeTensor gives it
 * @returns {Uint8Array} the same for the new values, with a separate buffer
 */
export function applyUpdate(dtype, base, update) {
  const bytes = elementsOf(base, dtype, 'base').slice(), more = elementsOf(update, dtype, 'update');
  if (bytes.length !== more.length) throw new RangeError(`base has ${bytes.length} bytes, update ${more.length}`);
  const { size, isFloat, isBool } = DTYPES[dtype], view = viewOf(bytes), moreView = viewOf(more);
  for (let at = 0; at < bytes.length; at += size) {
    if (isFloat) putFloat(view, at, dtype, getFloat(view, at, dtype) + getFloat(moreView, at, dtype));
    else if (isBool) bytes[at] ^= more[at];
    else if (size === 8) view.setBigUint64(at, view.getBigUint64(at, true) + moreView.getBigUint64(at, true), true);
    else putUint(view, at, size, getUint(view, at, size) + getUint(moreView, at, size));
  }
  return bytes;
}

/**
 * The id of a model that has the schema's tensors. spec 1.7
 * @param {Schema} schema
 * @param {ArrayBufferView[]} tensors the little-endian bytes of the elements, one array a tensor
 * @param {number[]} [dtypes] those of the model, if they are not the schema's
 * @returns {bigint} never 0
 */
export function modelId(schema, tensors, dtypes = schema.tensors.map(({ dtype }) => dtype)) {
  const sha = new Sha256();
  schema.tensors.forEach(({ name, shape, n }, i) => {
    const utf8 = new TextEncoder().encode(name), bytes = elementsOf(tensors[i], dtypes[i], name);
    const size = n * DTYPES[dtypes[i]].size;
    if (bytes.length !== size) throw new RangeError(`${name} must have ${size} bytes, not ${bytes.length}`);
    const head = new Uint8Array(4 + utf8.length + 8 * shape.length), view = viewOf(head);
    view.setUint16(0, utf8.length, true);
    head.set(utf8, 2);
    head.set([dtypes[i], shape.length], 2 + utf8.length);
    shape.forEach((d, k) => view.setBigUint64(4 + utf8.length + 8 * k, BigInt(d), true));
    sha.add(head);
    sha.add(bytes);
  });
  return viewOf(sha.digest()).getBigUint64(0, true) || 1n;
}

// -------------------------------------------------------------------------------------------------------- Gaussian table

let gaussian;

/**
 * T of spec 3.4.
 * @returns {Int32Array} 2049 elements, a copy
 */
export const gaussianTable = () => quantiles().slice();

/** T, decoded when first needed. */
function quantiles() {
  if (!gaussian) {
    const view = viewOf(Uint8Array.from(atob(GAUSSIAN_BASE64), (char) => char.charCodeAt(0)));
    gaussian = Int32Array.from({ length: 2049 }, (_, k) => view.getInt32(4 * k, true));
  }
  return gaussian;
}

// tables/gaussian.bin, SHA-256 dd66b5cfd76836da9b554bd89e3ccd03b8e70a5a015b51e5d4ca9a2b4963deb9
const GAUSSIAN_BASE64 = `
jdDKAPm8ygCwqcoAr5bKAPWDygB/ccoATF/KAFlNygClO8oALirKAPMYygDxB8oAJ/fJAJXmyQA41skAD8bJABm2yQBUpskAwJbJAFuHyQAkeMkAG2nJAD1a
yQCKS8kAAT3JAKEuyQBpIMkAWRLJAG8EyQCr9sgAC+nIAJDbyAA3zsgAAsHIAO6zyAD7psgAKZrIAHeNyADkgMgAcHTIABpoyADhW8gAxU/IAMZDyADjN8gA
GizIAG0gyADbFMgAYgnIAAP+xwC88scAj+fHAHncxwB70ccAlcbHAMa7xwANsccAa6bHAN6bxwBnkccABYfHALh8xwB/cscAW2jHAEtexwBkSscAyTbHAHgj
xwBvEMcAq/3GACrrxgDr2MYA7MbGACu1xgCmo8YAXJLGAEuBxgBycMYAz1/GAGJPxgAnP8YAIC/GAEkfxgCiD8YAKgDGAODwxQDD4cUA0dLFAArExQBstcUA
96bFAKuYxQCFisUAhXzFAKtuxQD2YMUAZFPFAPVFxQCpOMUAfyvFAHYexQCNEcUAwwTFABn4xACO68QAIN/EANDSxACdxsQAhrrEAIuuxACrosQA5pbEADyL
xACrf8QANHTEANZoxACQXcQAY1LEAE1HxABPPMQAaDHEAJcmxADcG8QAOBHEAKgGxAAu/MMAyfHDAHnnwwA83cMA/8jDAA+1wwBpocMADI7DAPZ6wwAlaMMA
llXDAEdDwwA4McMAZx/DANANwwB1/MIAUevCAGXawgCvycIALbnCAN+owgDCmMIA1ojCABp5wgCMacIALFrCAPhKwgDvO8IAES3CAFwewgDQD8IAawHCAC3z
wQAW5cEAI9fBAFXJwQCru8EAI67BAL6gwQB7k8EAWIbBAFZ5wQBzbMEAsF/BAAtTwQCDRsEAGjrBAM0twQCcIcEAhxXBAI0JwQCv/cAA6vHAAD/mwACu2sAA
Ns/AANbDwACPuMAAX63AAEeiwABFl8AAWozAAIaBwADHdsAAHmzAAIphwAAKV8AAoEzAAAc4wAC9I8AAvg/AAAr8vwCd6L8AdtW/AJPCvwDyr78AkZ2/AG6L
vwCIeb8A3We/AGtWvwAyRb8AMDS/AGMjvwDKEr8AYwK/AC/yvgAq4r4AVdK+AK7CvgA1s74A56O+AMWUvgDMhb4A/Xa+AFZovgDXWb4Af0u+AEw9vgA+L74A
VSG+AI8TvgDsBb4AbPi9AAzrvQDO3b0AsNC9ALHDvQDStr0AEKq9AG2dvQDnkL0AfoS9ADF4vQAAbL0A6l+9AO9TvQAOSL0ARzy9AJkwvQAEJb0AiBm9ACUO
vQDYAr0ApPe8AIbsvAB/4bwAjta8ALPLvADtwLwAPba8AKKrvACplrwA/4G8AKNtvACSWbwAy0W8AEoyvAAOH7wAFQy8AF35uwDl5rsAq9S7AKzCuwDpsLsA
Xp+7AAuOuwDvfLsAB2y7AFNbuwDSSrsAgTq7AGEquwBwGrsArQq7ABb7ugCs67oAbNy6AFfNugBqvroApq+6AAmhugCTkroAQoS6ABZ2ugAOaLoAKlq6AGlM
ugDKProATDG6AO8jugCyFroAlQm6AJb8uQC277kA9OK5AE/WuQDHybkAW725AAuxuQDWpLkAvJi5ALyMuQDWgLkACnW5AFZpuQC7XbkAOVK5AM5GuQB6O7kA
PjC5ABgluQAIGrkADw+5ACsEuQBc+bgA/eO4AO/OuAAwurgAvqW4AJaRuAC2fbgAHGq4AMdWuAC0Q7gA4TC4AE4euAD3C7gA3fm3APzntwBU1rcA5MS3AKmz
twCjorcA0ZG3ADCBtwDBcLcAgWC3AHBQtwCNQLcA1jC3AEshtwDrEbcAtQK3AKjztgDC5LYABNa2AGzHtgD6uLYAraq2AISctgB+jrYAm4C2ANtytgA7ZbYA
vFe2AF5KtgAfPbYA/i+2AP0itgAZFrYAUgm2AKj8tQAa8LUAqOO1AFLXtQAWy7UA9L61AO2ytQD/prUAKpu1AG2PtQDJg7UAPHi1AMdstQBqYbUAIla1APJK
tQDXP7UA0jS1AAcftQCPCbUAZ/S0AI7ftAAAy7QAu7a0AL6itAAHj7QAk3u0AGFotABvVbQAvEK0AEUwtAAKHrQACAy0AD/6swCs6LMAT9ezACfGswAxtbMA
bqSzANuTswB4g7MAQ3OzADxjswBhU7MAskOzAC40swDTJLMAoRWzAJcGswC097IA+OiyAGHasgDvy7IAob2yAHavsgBuobIAiJOyAMOFsgAfeLIAnGqyADhd
sgDyT7IAy0KyAMI1sgDXKLIACByyAFUPsgC+ArIAQ/axAOLpsQCc3bEAcNGxAF3FsQBjubEAgq2xALqhsQAJlrEAcIqxAO1+sQCCc7EALWixAO5csQCxRrEA
yTCxADIbsQDrBbEA8fCwAELcsADcx7AAvLOwAOKfsABLjLAA9XiwAN5lsAAGU7AAakCwAAkusADhG7AA8QmwADj4rwC15q8AZdWvAEjErwBds68AoqKvABeS
rwC7ga8Ai3GvAIlhrwCxUa8ABEKvAIEyrwAmI68A9BOvAOgErwAD9q4AQ+euAKjYrgAyyq4A3ruuAK2trgCfn64AsZGuAOWDrgA4dq4Aq2iuAD1brgDuTa4A
vUCuAKgzrgCxJq4A1hmuABcNrgBzAK4A6vOtAHznrQAo260A7c6tAMvCrQDDtq0A0qqtAPqerQA5k60Aj4etAP17rQCBcK0AylmtAGpDrQBeLa0AohetADUC
rQAV7awAP9isALHDrABpr6wAZpusAKaHrAAmdKwA5mCsAONNrAAdO6wAkSisAD4WrAAiBKwAPvKrAI7gqwASz6sAyb2rALKsqwDLm6sAE4urAIp6qwAuaqsA
/lmrAPpJqwAgOqsAcCqrAOgaqwCIC6sAUPyqAD7tqgBR3qoAic+qAOXAqgBlsqoAB6SqAMuVqgCxh6oAuHmqAN9rqgAlXqoAi1CqAA9DqgCxNaoAcCiqAE0b
qgBGDqoAWgGqAIv0qQDW56kAPNupALzOqQBWwqkACbapANSpqQC5nakAtZGpAMmFqQD1eakAN26pAABXqQAgQKkAlimpAF4TqQB3/agA3eeoAJDSqACMvagA
0aioAFuUqAApgKgAOWyoAIpYqAAaRagA5zGoAPAeqAAzDKgAsPmnAGPnpwBN1acAbcOnAL+xpwBFoKcA/I6nAON9pwD5bKcAPlynALBLpwBPO6cAGSunAA0b
pwArC6cAcfumAODrpgB13KYAMc2mABO+pgAZr6YARKCmAJKRpgADg6YAlnSmAEpmpgAfWKYAFUqmACs8pgBfLqYAsyCmACQTpgCzBaYAX/ilACfrpQAM3qUA
DNGlACfEpQBdt6UAraqlABeepQCbkaUAN4WlAOx4pQC6bKUAn2ClAJxUpQDaPKUAciWlAGEOpQCl96QAO+GkACDLpABUtaQA0p+kAJqKpACpdaQA/mCkAJdM
pABxOKQAjCSkAOUQpAB8/aMATuqjAFrXowCfxKMAHLKjAM+fowC3jaMA0nujACBqowCfWKMAT0ejAC42owA7JaMAdhSjAN0DowBv86IALOOiABLTogAiw6IA
WbOiALejogA8lKIA54SiALZ1ogCqZqIAwleiAPxIogBYOqIA1yuiAHYdogA2D6IAFQGiABTzoQAy5aEAbdehAMfJoQA+vKEA0a6hAIGhoQBMlKEAM4ehADR6
oQBQbaEAhmChANZToQA+R6EAwDqhAFouoQAMIqEAtgmhALzxoAAb2qAA0cKgANqroAA2laAA4H6gANhooAAaU6AApj2gAHkooACQE6AA7P6fAInqnwBm1p8A
gsKfANuunwBvm58APoifAEV1nwCEYp8A+E+fAKI9nwB/K58AjxmfANAHnwBC9p4A4+SeALPTngCvwp4A2bGeAC2hngCtkJ4AVoCeAChwngAiYJ4AQ1CeAItA
ngD5MJ4AjCGeAEMSngAeA54AHPSdAD3lnQB/1p0A48edAGe5nQALq50Az5ydALKOnQCzgJ0A0XKdAA5lnQBnV50A3EmdAG48nQAbL50A4yGdAMUUnQDCB50A
2fqcAAnunABR4ZwAs9ScAL67nAAno5wA64qcAAhznAB7W5wAQUScAFgtnAC/FpwAcgCcAHDqmwC31JsARb+bABeqmwAtlZsAhYCbAB1smwDzV5sABkSbAFUw
mwDeHJsAnwmbAJj2mgDH45oAK9GaAMO+mgCNrJoAiZqaALaImgASd5oAnGWaAFRUmgA5Q5oASTKaAIQhmgDpEJoAdwCaAC3wmQAL4JkAD9CZADrAmQCKsJkA
/qCZAJaRmQBSgpkAMHOZADBkmQBSVZkAlEaZAPc3mQB5KZkAGxuZANsMmQC5/pgAtfCYAM7imAAE1ZgAVceYAMO5mABMrJgA756YAK2RmACFhJgAdneYAIFq
mADhUJgAoDeYAL0emAA1BpgABe6XACvWlwCjvpcAbaeXAIWQlwDqeZcAmmOXAJJNlwDRN5cAViKXAB0NlwAm+JYAb+OWAPfOlgC7upYAu6aWAPaSlgBpf5YA
FGyWAPVYlgALRpYAVTOWANEglgCADpYAX/yVAG7qlQCs2JUAF8eVAK+1lQBzpJUAYZOVAHqClQC9cZUAJ2GVALpQlQBzQJUAUzCVAFkglQCDEJUA0QCVAEPx
lADY4ZQAj9KUAGfDlABhtJQAe6WUALaWlAAPiJQAiHmUAB5rlADTXJQApU6UAJRAlACgMpQAxySUAAoXlABoCZQA4PuTAHPukwAg4ZMAxcaTAM2skwA1k5MA
+nmTABphkwCRSJMAXjCTAH4YkwDuAJMAremSALnSkgAQvJIAr6WSAJSPkgC/eZIALmSSAN5OkgDOOZIA/SSSAGkQkgAQ/JEA8ueRAA3UkQBgwJEA6ayRAKiZ
kQCbhpEAwHORABhhkQChTpEAWTyRAEEqkQBWGJEAmQaRAAf1kACh45AAZtKQAFTBkABqsJAAqZ+QAA+PkACcfpAATm6QACZekAAiTpAAQj6QAIUukADrHpAA
cg+QABsAkADl8I8Az+GPANnSjwACxI8ASrWPALCmjwAzmI8A1ImPAJF7jwBrbY8AYV+PAHJRjwCdQ48A5DWPAL8ajwD//44AouWOAKXLjgAEso4AvpiOAM9/
jgA2Z44A8E6OAPs2jgBUH44A+geOAOvwjQAk2o0ApcONAGqtjQB0l40Av4GNAEpsjQAVV40AHEKNAGAtjQDfGI0AlgSNAIbwjACs3IwACcmMAJm1jABdoowA
VI+MAHt8jADTaYwAWleMAA9FjADyMowAASGMADwPjACi/YsAMeyLAOraiwDLyYsA1LiLAASoiwBal4sA1oaLAHZ2iwA6ZosAI1aLAC5GiwBbNosAqiaLABoX
iwCrB4sAXPiKAC3pigAd2ooAK8uKAFe8igChrYoAB5+KAIuQigArgooA5nOKAL1ligC6SYoAIC6KAOwSigAa+IkAp92JAJHDiQDWqYkAcpCJAGR3iQCpXokA
P0aJACQuiQBWFokA0/6IAJjniACm0IgA+LmIAI+jiABnjYgAgXeIANlhiABwTIgAQzeIAFAiiACYDYgAGPmHAM/khwC80IcA3ryHADSphwC8lYcAdoKHAGFv
hwB8XIcAxUmHADw3hwDgJIcAsRKHAKwAhwDS7oYAId2GAJnLhgA6uoYAAamGAPCXhgAEh4YAPnaGAJxlhgAeVYYAxESGAIw0hgB3JIYAgxSGALAEhgD+9IUA
bOWFAPnVhQClxoUAb7eFAFiohQBemYUAgYqFAMF7hQAdbYUAJ1CFAJ0zhQB8F4UAv/uEAGbghABsxYQAz6qEAI2QhACjdoQADl2EAM1DhADeKoQAPRKEAOr5
gwDj4YMAJMqDAK6ygwB9m4MAkYSDAOhtgwB/V4MAV0GDAGwrgwC/FYMATQCDABXrggAW1oIAT8GCAL6sggBjmIIAPISCAElwggCHXIIA90iCAJc1ggBmIoIA
ZA+CAI/8gQDn6YEAa9eBABnFgQDysoEA9KCBAB6PgQBxfYEA6muBAIpagQBQSYEAOziBAEsngQB/FoEA1QWBAE/1gADq5IAAqNSAAIbEgACEtIAAo6SAAOGU
gAA+hYAAuXWAAFNmgAAKV4AA3UeAANspgABHDIAAIO9/AGHSfwAHtn8AEZp/AHt+fwBCY38AZEh/AN8tfwCwE38A1fl+AEzgfgASx34AJ65+AIeVfgAyfX4A
JWV+AF5NfgDcNX4Anh5+AKIHfgDl8H0AaNp9ACjEfQAlrn0AXJh9AM2CfQB2bX0AVlh9AG1DfQC4Ln0ANxp9AOoFfQDO8XwA4918ACfKfACbtnwAPaN8AAyQ
fAAIfXwAL2p8AIFXfAD9RHwAojJ8AHAgfABlDnwAgvx7AMXqewAu2XsAvMd7AG62ewBEpXsAPpR7AFqDewCYcnsA+GF7AHlRewAbQXsA3DB7AL0gewC9EHsA
3AB7ABnxegDq0XoAL7N6AOOUegAEd3oAjVl6AH48egDRH3oAhQN6AJjneQAGzHkAzrB5AOyVeQBfe3kAJWF5ADtHeQCgLXkAUhR5AE77eACT4ngAIMp4APOx
eAAKmngAY4J4AP5qeADYU3gA8Dx4AEYmeADXD3gAovl3AKfjdwDkzXcAV7h3AACjdwDejXcA8Hh3ADRkdwCqT3cAUTt3ACcndwAtE3cAYP92AMDrdgBN2HYA
BcV2AOixdgD1nnYALIx2AIp5dgARZ3YAv1R2AJNCdgCNMHYArB52APAMdgBY+3UA4+l1AJHYdQBhx3UAU7Z1AGaldQCalHUA7oN1AGFzdQD0YnUAdUJ1AG4i
dQDaAnUAtuN0AADFdAC0pnQAz4h0AE5rdAAvTnQAbzF0AAwVdAAD+XMAUd1zAPbBcwDupnMAOIxzANFxcwC4V3MA6z1zAGgkcwAtC3MAOfJyAIrZcgAfwXIA
9qhyAA2RcgBkeXIA+WFyAMpKcgDXM3IAHh1yAJ4GcgBW8HEARNpxAGjEcQDBrnEATZlxAAyEcQD9bnEAHlpxAG9FcQDvMHEAnBxxAHgIcQB/9HAAsuBwABDN
cACYuXAASqZwACSTcAAmgHAAUG1wAKBacAAWSHAAsTVwAHEjcABWEXAAXv9vAIntbwDX228ARspvANe4bwCJp28AW5ZvAF90bwDfUm8A1zFvAEQRbwAj8W4A
cNFuACiybgBIk24AznRuALdWbgABOW4AqBtuAKv+bQAH4m0AusVtAMKpbQAcjm0AyHJtAMJXbQAJPW0AnCJtAHkIbQCd7mwACNVsALe7bACqomwA34lsAFRx
bAAJWWwA+0BsACopbACUEWwAOfprABbjawArzGsAd7VrAPmeawCviGsAmXJrALZcawAER2sAhDFrADMcawASB2sAH/JqAFndagDAyGoAUrRqABCgagD5i2oA
C3hqAEVkagCpUGoAMz1qAOUpagC9FmoAuwNqAN7waQAm3mkAkctpACC5aQDSpmkAppRpAJyCaQDrXmkAuztpAAkZaQDQ9mgADtVoAL+zaADhkmgAb3JoAGdS
aADGMmgAihNoAK/0ZwA01mcAF7hnAFSaZwDpfGcA1V9nABZDZwCpJmcAjApnAL7uZgA902YAB7hmABudZgB2gmYAGGhmAP5NZgAoNGYAlBpmAEEBZgAs6GUA
Vs9lAL22ZQBfnmUAO4ZlAFFuZQCeVmUAIz9lAN4nZQDOEGUA8vlkAEnjZADSzGQAjbZkAHegZACSimQA23RkAFFfZAD1SWQAxjRkAMIfZADoCmQAOfZjALPh
YwBWzWMAIbljABSlYwAtkWMAbX1jANJpYwBdVmMAC0NjAN4vYwDUHGMAKPdiAAPSYgBirWIAQIliAJplYgBtQmIAtR9iAG79YQCX22EALLphACqZYQCPeGEA
WFhhAII4YQALGWEA8flgADLbYADLvGAAu55gAP6AYACVY2AAe0ZgALEpYAA0DWAAAfFfABnVXwB5uV8AH55fAAuDXwA6aF8ArE1fAF8zXwBRGV8Agv9eAPDl
XgCazF4Af7NeAJ6aXgD1gV4AhGleAEpRXgBFOV4AdSFeANkJXgBv8l0AN9tdADDEXQBarV0As5ZdADqAXQDvaV0A0VNdAN89XQAZKF0AfRJdAAz9XADE51wA
pdJcAK29XADeqFwANZRcALN/XABWa1wAH1dcAB0vXACqB1wAwOBbAF26WwB7lFsAGW9bADFKWwDCJVsAxwFbAD7eWgAju1oAdZhaAC92WgBQVFoA1TJaALwR
WgAC8VkApdBZAKOwWQD6kFkAp3FZAKlSWQD+M1kApBVZAJr3WADd2VgAbLxYAEafWABoglgA0WVYAIFJWAB1LVgArBFYACX2VwDe2lcA179XAA2lVwCBilcA
MHBXABpWVwA9PFcAmSJXACwJVwD271YA9tZWACq+VgCRpVYALI1WAPh0VgD1XFYAI0VWAIAtVgALFlYAxf5VAKznVQC/0FUA/rlVAGijVQD8jFUAunZVAKFg
VQCwSlUA5zRVAEYfVQB29FQAPMpUAJSgVAB5d1QA6E5UAN0mVABT/1MASdhTALmxUwCii1MAAGZTAM9AUwAOHFMAufdSAM7TUgBKsFIAK41SAG5qUgARSFIA
EiZSAG8EUgAl41EAM8JRAJehUQBPgVEAWWFRALRBUQBdIlEAUwNRAJXkUAAgxlAA9KdQAA+KUABwbFAAFU9QAP0xUAAnFVAAkfhPADvcTwAiwE8AR6RPAKeI
TwBDbU8AF1JPACU3TwBqHE8A5gFPAJjnTgB/zU4AmrNOAOiZTgBogE4AGmdOAPxNTgAONU4AUBxOAMADTgBd600AJ9NNAB67TQBAo00AjYtNAAR0TQClXE0A
YS5NALwATQCx00wAPadMAFt7TAAHUEwAPSVMAPr6SwA60UsA+adLADR/SwDoVksAEy9LALEHSwC/4EoAO7pKACKUSgBxbkoAJ0lKAEAkSgC7/0kAlttJAM23
SQBglEkATXFJAJBOSQApLEkAFgpJAFXoSADlxkgAw6VIAO6ESABlZEgAJkRIADAkSACBBEgAGOVHAPTFRwATp0cAdYhHABdqRwD5S0cAGi5HAHgQRwAT80YA
6dVGAPq4RgBEnEYAxn9GAIBjRgBwR0YAlitGAPEPRgB/9EUAQdlFADW+RQBao0UAsIhFADduRQDsU0UA0DlFAOEfRQAgBkUAi+xEAOO5RADmh0QAjlZEANYl
RAC69UMANsZDAEWXQwDkaEMADztDAMMNQwD74EIAtLRCAOyIQgCgXUIAyzJCAGwIQgB/3kEAArVBAPKLQQBOY0EAETtBADsTQQDJ60AAuMRAAAeeQAC0d0AA
vFFAAB4sQADXBkAA5+E/AEu9PwACmT8ACnU/AGJRPwAHLj8A+Qo/ADboPgC8xT4Ai6M+AKGBPgD8Xz4AnD4+AH8dPgCk/D0ACdw9AK+7PQCTmz0AtXs9ABNc
PQCtPD0AgR09AI/+PADV3zwAU8E8AAijPADzhDwAE2c8AGhJPADvKzwAqg48AJbxOwC01DsAArg7AICbOwAIYzsARis7ADb0OgDSvToAFog6AP1SOgCDHjoA
o+o5AFq3OQCjhDkAe1I5AN8gOQDK7zgAOr84ACuPOACbXzgAhTA4AOkBOADB0zcADaY3AMl4NwD0SzcAiR83AIjzNgDuxzYAuZw2AOZxNgB0RzYAYR02AKvz
NQBPyjUATKE1AKF4NQBMUDUASig1AJsANQA92TQALrI0AG2LNAD4ZDQAzz40AO8YNABY8zMACM4zAP2oMwA4hDMAtl8zAHc7MwB4FzMAuvMyADvQMgD6rDIA
94kyAC9nMgCiRDIAUCIyADcAMgBW3jEArbwxADubMQD+eTEA91gxACQ4MQCEFzEA3NYwAPmWMADVVzAAaxkwALfbLwCyni8AWGIvAKUmLwCV6y4AI7EuAEt3
LgAJPi4AWgUuADnNLQCllS0AmF4tABEoLQAL8iwAhLwsAHqHLADoUiwAzR4sACfrKwDxtysAK4UrANFSKwDhICsAWu8qADm+KgB8jSoAIV0qACUtKgCI/SkA
R84pAGGfKQDTcCkAnEIpALsUKQAu5ygA87koAAiNKABtYCgAIDQoACAIKABq3CcA/7AnANyFJwABWycAazAnABsGJwAO3CYARbImALyIJgB1XyYAbDYmAKIN
JgAW5SUAxrwlALKUJQDYbCUAOEUlANEdJQCi9iQAqs8kAFuCJADgNSQAMeojAEqfIwAjVSMAuAsjAATDIgACeyIArTMiAADtIQD3piEAjWEhAMAcIQCK2CAA
6JQgANdRIABSDyAAV80fAOKLHwDwSh8AfgofAIjKHgANix4ACUweAHoNHgBdzx0Ar5EdAG9UHQCZFx0AK9scACSfHACBYxwAQCgcAF/tGwDcshsAtHgbAOc+
GwBzBRsAVcwaAIyTGgAWWxoA8SIaAB3rGQCXsxkAXnwZAHFFGQDNDhkActgYAF+iGACSbBgACTcYAMQBGADBzBcA/5cXAHxjFwA5LxcAM/sWAGnHFgDbkxYA
h2AWAG0tFgCL+hUA4McVAGyVFQAiMRUAp80UAPRqFAABCRQAyKcTAERHEwBu5xIAQIgSALUpEgDIyxEAc24RALEREQB+tRAA1VkQALH+DwAOpA8A6EkPADvw
DgADlw4AOz4OAOHlDQDvjQ0AZDYNADzfDAByiAwABDIMAO/bCwAvhgsAwjALAKTbCgDThgoASzIKAAveCQAOigkAUzYJANfiCACXjwgAkTwIAMPpBwAplwcA
wkQHAIryBgCBoAYAo04GAO78BQBgqwUA91kFALAIBQCKtwQAg2YEAJcVBADFxAMADHQDAGgjAwDZ0gIAW4ICAO0xAgCN4QEAOZEBAO5AAQCs8AAAb6AAADdQ
AAAAAAAA
`;
