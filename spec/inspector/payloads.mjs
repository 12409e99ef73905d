// The fields of entropy-coded payloads. spec 6.8, 6.11, 6.14

import { CODING, DISTRIBUTION } from '../decoders/js/fedmrn.mjs';
import { MOST_FIELDS, Pen, walk } from './pen.mjs';

const BLOCK = 65536; // elements

/** A pen that has walked the payload of an entry, if its coding has fields and they fit its length; else undefined. */
export function codedFields(pen, entry, i) {
  const blocks = Math.ceil(entry.tensor.n / BLOCK), end = pen.at + entry.length;
  if (!(entry.coding in CODINGS) || blocks === 0 || 2 * blocks > MOST_FIELDS - pen.fields.length) return undefined;
  const inner = new Pen(pen.bytes, pen.at, end);
  const put = (size, name, section, form = 'number') => inner.put(size, name, section, 'payload', form, entry.of, i);
  const done = walk(() => CODINGS[entry.coding]({ inner, put, blocks, type: entry.type }));
  return done && inner.at === end ? inner : undefined;
}

const CODINGS = {
  [CODING.rans]({ inner, put, blocks }) {
    put(16, 'P', '6.8', 'uint8');
    blockFields(inner, put, counts(put(2 * blocks, 'counts', '6.8', 'uint16'), 2), ['states', 32, '6.8', 'uint32']);
  },
  [CODING.rans12]({ inner, put, blocks, type }) {
    put(1, 'k(0)', '6.11');
    if (type !== DISTRIBUTION.bernoulli) put(bytesOfDifferences(inner), 'bits of k', '6.11', 'bits');
    blockFields(inner, put, withLast(inner, counts(put(2 * blocks - 2, 'counts', '6.11', 'uint16'), 2)), ['state', 4, '6.10']);
  },
  [CODING.rans14]({ inner, put, blocks }) {
    const [last] = put(1, 'last', '6.14');
    put(bytesOfFrequencies(inner, last), 'bits of f', '6.14', 'bits');
    blockFields(inner, put, withLast(inner, counts(put(4 * blocks - 4, 'counts', '6.14', 'uint32'), 4)), ['state', 4, '6.13']);
  },
};

function counts(bytes, size) {
  const count = (at) => bytes.subarray(at, at + size).reduceRight((sum, byte) => sum * 256 + byte, 0);
  return Array.from({ length: bytes.length / size }, (_, b) => count(b * size));
}

/** The counts with that of the last block, which has the words that are left. */
function withLast({ at, end }, first) {
  const words = (end - at) / 2 - 2 * (first.length + 1);
  return [...first, words - first.reduce((sum, count) => sum + count, 0)];
}

function blockFields(inner, put, all, [name, size, section, form]) {
  if (all.some((count) => count < 0 || !Number.isInteger(count))) inner.stop();
  all.forEach((count, b) => {
    const label = all.length > 1 ? ` of block ${b}` : '';
    put(size, name + label, section, form);
    put(2 * count, `words${label}`, section, 'uint16');
  });
}

/** Reads bits from a position on, least significant first; the walk stops where they end. */
class Bits {
  constructor(inner) {
    this.inner = inner;
    this.used = 0;
  }

  next() {
    const at = this.inner.at + (this.used >> 3);
    if (at >= this.inner.end) this.inner.stop();
    return (this.inner.bytes[at] >> (this.used++ & 7)) & 1;
  }

  zeros() {
    let count = 0;
    while (!this.next()) count++;
    return count;
  }

  get bytes() {
    return Math.ceil(this.used / 8);
  }
}

function bytesOfDifferences(inner) { // spec 6.11
  const bits = new Bits(inner);
  for (let c = 1; c < 16; c++) {
    bits.next();
    bits.zeros();
  }
  return bits.bytes;
}

function bytesOfFrequencies(inner, last) { // spec 6.14
  const bits = new Bits(inner);
  for (let s = 1; s <= last; s++) {
    const k = bits.zeros();
    bits.used += k;
  }
  return bits.bytes;
}
