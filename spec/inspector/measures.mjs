// What is measured of a tensor: a histogram of its values, and the density and entropy of its mask or integers.

import { DISTRIBUTION, DTYPE, KIND, decodeTensor, draws, elementSize, toFloats } from '../decoders/js/fedmrn.mjs';
import { bitLength, reader } from './values.mjs';

const HALF = 64; // bins on each side of zero
const PICTURE = 65536; // elements of a picture, at most
const FIRST = 64; // values that are listed
const CHUNK = 65536; // elements; a multiple of 8, so that it begins with a byte of the mask

/** A histogram whose bins grow with the values: their width is a power of two. Zeros are counted apart. */
export class Histogram {
  constructor() {
    this.bins = new Float64Array(2 * HALF); // bin b holds the values from (b - HALF) · width on
    this.width = 0;
    this.zeros = 0;
    this.others = 0; // values that are not finite
    this.count = 0;
    this.least = Infinity;
    this.most = -Infinity;
  }

  add(x) {
    this.count++;
    if (x < this.least) this.least = x;
    if (x > this.most) this.most = x;
    if (x === 0) this.zeros++;
    else if (!Number.isFinite(x)) this.others++;
    else this.#place(x);
  }

  #place(x) {
    if (!this.width) this.width = 2 ** Math.max(Math.floor(Math.log2(Math.abs(x))) - 5, -1074);
    while (Math.abs(x) >= HALF * this.width) this.#widen();
    this.bins[HALF + Math.floor(x / this.width)]++;
  }

  /** Doubles the width: two bins become one. */
  #widen() {
    const wider = new Float64Array(2 * HALF);
    this.bins.forEach((count, b) => { wider[HALF + Math.floor((b - HALF) / 2)] += count; });
    this.bins = wider;
    this.width *= 2;
  }

  /** Adds another histogram; its bins are as wide as this one's, or a power of two narrower or wider. */
  merge(other) {
    this.count += other.count;
    this.zeros += other.zeros;
    this.others += other.others;
    this.least = Math.min(this.least, other.least);
    this.most = Math.max(this.most, other.most);
    if (!other.width) return;
    if (!this.width) this.width = other.width;
    while (this.width < other.width) this.#widen();
    const ratio = other.width / this.width;
    other.bins.forEach((count, b) => { this.bins[HALF + Math.floor((b - HALF) * ratio)] += count; });
  }

  /** The data alone, without the empty bins at both ends. */
  get data() {
    const { width, zeros, others, count, least, most } = this;
    const used = this.bins.findIndex((n) => n > 0), last = this.bins.findLastIndex((n) => n > 0);
    const bins = used < 0 ? [] : Array.from(this.bins.subarray(used, last + 1));
    return { bins, from: (used - HALF) * width, width, zeros, others, count, least, most };
  }
}

/** Bits an element of a bit that is set with probability p. */
const binaryEntropy = (p) => (p > 0 && p < 1 ? -p * Math.log2(p) - (1 - p) * Math.log2(1 - p) : 0);

/** The set bits, and the entropy an element, alone and given the buckets of the noise (6.8), of a packed mask. */
export function measureMask({ type, payload }, seed, stream, n) {
  const ones = new Float64Array(16), totals = new Float64Array(16), shift = type === DISTRIBUTION.gaussian ? 19 : 20;
  for (let begin = 0; begin < n; begin += CHUNK) {
    const q = draws(type, seed, stream, Math.min(CHUNK, n - begin), begin);
    for (let i = 0; i < q.length; i++) {
      const bucket = Math.min(Math.abs(q[i]) >> shift, 15);
      totals[bucket]++;
      ones[bucket] += (payload[(begin + i) >> 3] >> (i & 7)) & 1;
    }
  }
  const set = ones.reduce((sum, x) => sum + x, 0);
  const given = totals.reduce((sum, total, b) => sum + (total ? total * binaryEntropy(ones[b] / total) : 0), 0);
  return { set, density: set / n, entropy: binaryEntropy(set / n), entropyGivenNoise: given / n };
}

/** The share of integers that are not 0, and their entropy an element. */
export function measureIntegers(z) {
  const sorted = z.slice().sort();
  let entropy = 0, zeros = 0;
  for (let i = 0, end; i < sorted.length; i = end) {
    for (end = i + 1; end < sorted.length && sorted[end] === sorted[i];) end++;
    const share = (end - i) / sorted.length;
    if (sorted[i] === 0) zeros = end - i;
    entropy -= share * Math.log2(share);
  }
  return { set: z.length - zeros, density: (z.length - zeros) / z.length, entropy: Math.max(entropy, 0) };
}

/** A histogram of decoded elements, and the first of them as numbers. */
function measureValues(bytes, dtype) {
  const histogram = new Histogram(), n = bytes.length / elementSize(dtype), at = reader(bytes, dtype);
  const float = dtype === DTYPE.float32 ? toFloats(bytes) : undefined;
  for (let i = 0; i < n; i++) histogram.add(float ? float[i] : Number(at(i)));
  const first = Array.from({ length: Math.min(n, FIRST) }, (_, i) => at(i));
  return { histogram, first };
}

const integersOf = (payload, most = Infinity) => {
  const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
  const z = new Int32Array(Math.min(payload.length / 4, most));
  for (let i = 0; i < z.length; i++) z[i] = view.getInt32(4 * i, true);
  return z;
};

/** All that is shown of one tensor of a frame whose checks have passed. */
export function measureTensor(frame, i) {
  const { n, dtype } = frame.schema.tensors[i], entry = frame.entries[i];
  const measured = measureValues(decodeTensor(frame, i), dtype);
  if (n === 0) return measured;
  if (entry.kind === KIND.dense) {
    const set = n - measured.histogram.zeros;
    return { ...measured, set, density: set / n };
  }
  if (entry.kind === KIND.grid) {
    const picture = { integers: integersOf(entry.payload, PICTURE) };
    return { ...measured, ...measureIntegers(integersOf(entry.payload)), picture };
  }
  const picture = { bits: entry.payload.slice(0, PICTURE / 8), n: Math.min(n, PICTURE) };
  return { ...measured, ...measureMask(entry, frame.seed, i, n), picture };
}

/** A histogram of counts of 0 to `most`, of which zeros are drawn as well; bins are a power of two wide, and at most 128. */
export function countHistogram(counts, most) {
  const shift = Math.max(bitLength(most) - 7, 0), bins = Array((most >> shift) + 1).fill(0);
  let least = Infinity, largest = -Infinity;
  for (const c of counts) {
    bins[c >> shift]++;
    if (c < least) least = c;
    if (c > largest) largest = c;
  }
  return { bins, from: 0, width: 2 ** shift, others: 0, count: counts.length, least, most: largest };
}

/** The share of set bits among all bits that were counted, and the entropy of the counts an element. */
export function measureCounts(counts, frames) {
  const set = counts.reduce((sum, c) => sum + c, 0);
  return { density: set / (counts.length * frames), entropy: measureIntegers(counts).entropy };
}

/** All that is shown of one tensor of a tally: its mean, and the counts of a masked tensor. */
export function measureTally(tally, mean, i) {
  const tensor = tally.schema.tensors[i], counts = tally.counts(i), { frames } = tally;
  const measured = measureMean(mean, tensor);
  if (!counts || tensor.n === 0) return measured;
  const counted = { histogram: countHistogram(counts, frames), first: [...counts.subarray(0, FIRST)] };
  const picture = { counts: counts.slice(0, PICTURE), frames };
  return { ...measured, ...measureCounts(counts, frames), picture, counted };
}

/** All that is shown of one tensor of a partial sum: its mean. */
export function measureMean(bytes, { dtype, n }) {
  const measured = measureValues(bytes, dtype), set = n - measured.histogram.zeros;
  return n ? { ...measured, set, density: set / n } : measured;
}
