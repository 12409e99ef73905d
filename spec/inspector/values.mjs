// The values of fields and elements as text and as numbers.

import { CODING, DISTRIBUTION, DTYPE, KIND, ROLE, elementSize } from '../decoders/js/fedmrn.mjs';

const swapped = (codes) => Object.fromEntries(Object.entries(codes).map(([label, code]) => [code, label]));

/** What the numbers of some fields stand for. In a partial sum, 4 is the distribution of a grid. spec 8.5 */
export const LABELS = {
  kind: swapped(KIND), role: swapped(ROLE), dtype: swapped(DTYPE), coding: swapped(CODING),
  distribution: { ...swapped(DISTRIBUTION), 4: 'grid' },
};

const HIDDEN = /[\p{C}\p{Zl}\p{Zp}]|[^\P{Z} ]/gu; // control and format characters, and spaces other than the ordinary one
const MOST_CHARACTERS = 120;

/** Any text on one line of at most 120 characters: what cannot be seen, or changes the direction of writing, is escaped. */
export function printable(text) {
  const characters = Array.from(text.slice(0, 2 * MOST_CHARACTERS + 2)), whole = text.length <= 2 * MOST_CHARACTERS;
  const short = characters.slice(0, MOST_CHARACTERS).join('');
  const end = whole && characters.length <= MOST_CHARACTERS ? '' : '…';
  return short.replace(HIDDEN, (c) => `\\u{${c.codePointAt(0).toString(16)}}`) + end;
}

export const hex = (bytes, gap = ' ') => Array.from(bytes, (x) => x.toString(16).padStart(2, '0')).join(gap);
export const grouped = (n) => n.toLocaleString('en-US');
export const counted = (n, word) => `${grouped(n)} ${word}${n === 1 ? '' : 's'}`;

/** A number in at most six significant digits. */
export function short(x) {
  if (Number.isInteger(x) && Math.abs(x) < 1e6) return String(x);
  return String(Number(x.toPrecision(6)));
}

/** A float32 in the fewest digits that give it back. */
export function float32(x) {
  for (let digits = 1; digits < 9; digits++) {
    const text = Number(x.toPrecision(digits));
    if (Math.fround(text) === x) return String(text);
  }
  return String(Number(x.toPrecision(9)));
}

const viewOf = (bytes) => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

function half(bits) { // IEEE 754 binary16
  const sign = bits >> 15 ? -1 : 1, exponent = (bits >> 10) & 31, fraction = bits & 1023;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return exponent ? sign * 2 ** (exponent - 25) * (1024 + fraction) : sign * 2 ** -24 * fraction;
}

const SHARED = new DataView(new ArrayBuffer(4));

function upperHalf(bits) { // bfloat16, spec 5.3
  SHARED.setUint32(0, bits * 65536);
  return SHARED.getFloat32(0);
}

const READERS = { // by dtype: the value at an offset, as a Number or BigInt
  1: (view, at) => view.getFloat32(at, true), 2: (view, at) => view.getFloat64(at, true),
  3: (view, at) => half(view.getUint16(at, true)), 4: (view, at) => upperHalf(view.getUint16(at, true)),
  5: (view, at) => view.getInt8(at), 6: (view, at) => view.getInt16(at, true),
  7: (view, at) => view.getInt32(at, true), 8: (view, at) => view.getBigInt64(at, true),
  9: (view, at) => view.getUint8(at), 10: (view, at) => view.getUint16(at, true),
  11: (view, at) => view.getUint32(at, true), 12: (view, at) => view.getBigUint64(at, true),
  13: (view, at) => view.getUint8(at),
};

/** The function (index) -> value of little-endian elements of a dtype. */
export function reader(bytes, dtype) {
  const view = viewOf(bytes), size = elementSize(dtype), read = READERS[dtype];
  return (i) => read(view, i * size);
}

/** The complete elements among these bytes, as text. */
export function elementsText(bytes, dtype) {
  const at = reader(bytes, dtype), show = dtype === DTYPE.float32 ? float32 : String;
  return Array.from({ length: Math.floor(bytes.length / elementSize(dtype)) }, (_, i) => show(at(i))).join(' ');
}

function unsigned(bytes) {
  return bytes.reduceRight((sum, byte) => sum * 256n + BigInt(byte), 0n);
}

const NOT_GIVEN = ['base_model', 'round']; // 0 means that the writer gives no value

function number({ name, section }, bytes) {
  const value = unsigned(bytes), text = value < 2n ** 53n ? String(value) : `0x${value.toString(16)}`;
  if (name === 'flags' && section === '6.2') {
    return `0x${value.toString(16).padStart(4, '0')}: ${value & 1n ? 'a' : 'no'} schema in the frame`;
  }
  if (name === 'length') return `${text} bytes`;
  return NOT_GIVEN.includes(name) && value === 0n ? `${text}: not given` : text;
}

/** The number of binary digits of a u32, bits(n) of the format. */
export const bitLength = (n) => 32 - Math.clz32(n);

/** The complete integers among these bytes, of `n` that have a number of bits each, the least significant first. */
function packedText(bytes, bits, n) {
  const bit = (k) => (bytes[k >> 3] >> (k & 7)) & 1;
  const at = (i) => Array.from({ length: bits }, (_, k) => bit(i * bits + k) * 2 ** k).reduce((sum, x) => sum + x, 0);
  return Array.from({ length: bits ? Math.min(Math.floor((8 * bytes.length) / bits), n) : 0 }, (_, i) => at(i)).join(' ');
}

/** The bits of a byte, the least significant first. */
const bitsOf = (byte) => Array.from({ length: 8 }, (_, k) => (byte >> k) & 1).join('');

const LOSSY = new TextDecoder();

/** The value of a field and what it means; of a long field, that of its first 16 bytes. */
export function meaning(field, bytes) {
  const { form, begin, end } = field;
  const all = bytes.subarray(begin, end), some = all.subarray(0, 16), more = all.length > 16 ? ' …' : '';
  if (form in LABELS) return `${unsigned(all)}: ${LABELS[form][Number(unsigned(all))] ?? 'unknown'}`;
  if (form === 'number') return number(field, some);
  if (form === 'text') return `“${printable(LOSSY.decode(all.subarray(0, 1000)))}”`;
  if (form === 'bits') return Array.from(some, bitsOf).join(' ') + more;
  if (form.startsWith('packed ')) return packedText(some, ...form.split(' ').slice(1).map(Number)) + more;
  return (form in DTYPE ? elementsText(some, DTYPE[form]) : hex(some)) + more;
}
