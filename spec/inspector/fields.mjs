// The fields of a frame, a schema, a partial sum or a tally in their order; of damaged bytes, as far as they can be found.

import { CODING, DEFAULT_LIMITS, parseSchema } from '../decoders/js/fedmrn.mjs';
import { codedFields } from './payloads.mjs';
import { Pen, walk } from './pen.mjs';
import { LABELS, bitLength, printable } from './values.mjs';

/**
 * @typedef {object} Field bytes begin to end - 1
 * @property {number} begin
 * @property {number} end
 * @property {string} name
 * @property {string} of what it belongs to, or ''
 * @property {string} section of FORMAT.md
 * @property {string} form how it is read: a key of LABELS or DTYPE, or number, text, bits, hex; N integers of B bits: packed B N
 * @property {string} part header, schema, table, payload, checksum, rest, or further for fields that are not listed
 * @property {number} [tensor]
 *
 * @typedef {object} Layout
 * @property {Field[]} fields
 * @property {object[]} entries what the table, the sums or the tally say of each tensor, as far as they were read
 * @property {import('../decoders/js/fedmrn.mjs').Schema | undefined} schema the embedded one, or else the given one
 */

const HEADER = 48, SUM_HEADER = 56, TALLY_HEADER = 60, CHECKSUM = 4; // bytes, spec 6.2, 8.5, 8.6, 6.6

/** @returns {Layout} */
export function layoutOf(what, bytes, given) {
  return { schema: schemaLayout, frame: frameLayout, sum: sumLayout, tally: tallyLayout }[what](bytes, given);
}

function schemaLayout(bytes) {
  const pen = new Pen(bytes, 0, bytes.length);
  walk(() => schemaFields(pen));
  return finished(pen, '5.1', [], schemaIn(bytes));
}

function schemaIn(bytes) {
  try {
    return parseSchema(bytes);
  } catch {
    return undefined;
  }
}

function schemaFields(pen) { // spec 5.1, 5.2
  const count = pen.number(4, 'count', '5.1', 'schema');
  for (let i = 0; i < count; i++) {
    const put = (size, name, form, of) => pen.put(size, name, '5.2', 'schema', form, of ?? `of tensor ${i}`, i);
    const length = pen.number(2, 'name_length', '5.2', 'schema', 'number', `of tensor ${i}`, i);
    const raw = put(length, 'name', 'text'), of = `of “${printable(new TextDecoder().decode(raw))}”`;
    pen.rename(2, of);
    put(1, 'role', 'role', of);
    put(1, 'dtype', 'dtype', of);
    const rank = pen.number(1, 'rank', '5.2', 'schema', 'number', of, i);
    for (let k = 0; k < rank; k++) put(8, `dimension ${k}`, 'number', of);
  }
}

function headerFields(pen, third, section) {
  const put = (size, name, form) => pen.number(size, name, section, 'header', form);
  put(4, 'magic', 'text');
  put(1, 'major');
  put(1, 'minor');
  const flags = put(2, 'flags');
  put(8, third);
  put(8, 'base_model');
  put(4, 'round');
  const count = put(4, 'tensor_count');
  put(16, 'schema_digest', 'hex');
  return { flags, count };
}

function frameLayout(bytes, given) {
  const pen = new Pen(bytes, 0, bytes.length - (bytes.length >= HEADER + CHECKSUM ? CHECKSUM : 0));
  const entries = [];
  const found = { schema: given };
  walk(() => {
    const { flags, count } = headerFields(pen, 'seed', '6.2');
    if (flags & 1) found.schema = embedded(pen);
    const tensors = Math.min(found.schema ? found.schema.tensors.length : count, DEFAULT_LIMITS.tensors);
    for (let i = 0; i < tensors; i++) {
      entries.push(entryFields(pen, found.schema?.tensors[i], i));
    }
    entries.forEach((entry, i) => payloadFields(pen, entry, i));
  });
  return finished(pen, '6.1', entries, found.schema);
}

function embedded(pen) { // spec 6.3
  const length = pen.number(4, 'length', '6.3', 'schema', 'number', 'of the schema');
  const begin = pen.at, end = Math.min(begin + length, pen.end);
  const inner = new Pen(pen.bytes, begin, end, pen.fields);
  walk(() => schemaFields(inner));
  pen.at = inner.at;
  if (pen.at < end) pen.put(end - pen.at, 'bytes that belong to no field', '5.1', 'rest', 'hex');
  if (end < begin + length) pen.stop();
  return schemaIn(pen.bytes.subarray(begin, end));
}

const nameOf = (tensor, i) => (tensor ? `of “${printable(tensor.name)}”` : `of tensor ${i}`);

function entryFields(pen, tensor, i) { // spec 6.4
  const of = nameOf(tensor, i), begin = pen.at;
  const number = (size, name, form) => pen.number(size, name, '6.4', 'table', form, of, i);
  const kind = number(1, 'kind', 'kind');
  if (kind > 3) pen.stop();
  const type = number(1, 'type', kind === 1 || kind === 2 ? 'distribution' : 'dtype');
  const coding = number(1, 'coding', 'coding');
  number(1, 'reserved');
  const length = number(8, 'length');
  const scale = kind ? pen.float(pen.put(4, kind === 3 ? 'step' : 'scale', '6.4', 'table', 'float32', of, i)) : undefined;
  return { tensor, of, kind, type, coding, length, scale, begin, end: pen.at };
}

function payloadFields(pen, entry, i) { // spec 6.5
  const { of, length } = entry, whole = pen.at + length <= pen.end;
  const inner = whole && entry.tensor && codedFields(pen, entry, i);
  if (inner) pen.take(inner);
  else pen.put(length, 'payload', entry.coding ? '6.8 to 6.14' : '6.5', 'payload', formOf(entry), of, i);
}

/** How a payload that is not entropy-coded is read. */
function formOf({ kind, type, coding }) {
  if (coding === 2 || coding === 3) return coding === 2 ? 'float16' : 'bfloat16';
  if (coding) return 'hex';
  if (kind === 0) return LABELS.dtype[type] ?? 'hex';
  return kind === 3 ? 'int32' : 'bits';
}

function sumLayout(bytes, given) { // spec 8.5
  const pen = new Pen(bytes, 0, bytes.length - (bytes.length >= SUM_HEADER + CHECKSUM ? CHECKSUM : 0));
  const entries = [];
  walk(() => {
    headerFields(pen, 'weight', '8.5');
    pen.put(8, 'frames', '8.5', 'header', 'number');
    given?.tensors.forEach((tensor, i) => sumFields(pen, tensor, i, entries));
  });
  return finished(pen, '8.5', entries, given);
}

function sumFields(pen, tensor, i, entries) {
  const of = nameOf(tensor, i), begin = pen.at;
  const number = (size, name, form) => pen.number(size, name, '8.5', 'table', form, of, i);
  if (tensor.role === 1) {
    const distribution = number(1, 'distribution', 'distribution');
    number(3, 'reserved', 'hex');
    const scale = pen.float(pen.put(4, 'scale', '8.5', 'table', 'float32', of, i));
    entries.push({ tensor, distribution, scale, length: 8 * tensor.n, begin });
    pen.put(8 * tensor.n, 'sums', '8.2', 'payload', 'int64', of, i);
    return;
  }
  rowFields(pen, tensor, i, entries, '8.5');
}

/** The rows of a dense tensor, in a partial sum or a tally. */
function rowFields(pen, tensor, i, entries, section) {
  const of = nameOf(tensor, i), begin = pen.at;
  const number = (size, name) => pen.number(size, name, section, 'table', 'number', of, i);
  const rows = number(4, 'rows');
  entries.push({ tensor, rows, length: rows * (4 + 8 * tensor.n), begin });
  for (let k = 0; k < rows; k++) {
    number(4, 'limb');
    pen.put(8 * tensor.n, 'limbs', '8.4', 'payload', 'int64', of, i);
  }
}

function tallyLayout(bytes, given) { // spec 8.6
  const pen = new Pen(bytes, 0, bytes.length - (bytes.length >= TALLY_HEADER + CHECKSUM ? CHECKSUM : 0));
  const entries = [];
  walk(() => {
    headerFields(pen, 'seed', '8.6');
    pen.put(8, 'weight', '8.6', 'header', 'number');
    const frames = pen.number(4, 'frames', '8.6', 'header', 'number');
    given?.tensors.forEach((tensor, i) => {
      if (tensor.role === 1) countFields(pen, tensor, i, entries, frames);
      else rowFields(pen, tensor, i, entries, '8.6');
    });
  });
  return finished(pen, '8.6', entries, given);
}

function countFields(pen, tensor, i, entries, frames) {
  const of = nameOf(tensor, i), begin = pen.at;
  const number = (size, name, form) => pen.number(size, name, '8.6', 'table', form, of, i);
  const kind = number(1, 'kind', 'kind'), type = number(1, 'distribution', 'distribution');
  const coding = number(1, 'coding', 'coding');
  number(1, 'reserved');
  const scale = pen.float(pen.put(4, 'scale', '8.6', 'table', 'float32', of, i));
  const length = number(8, 'length'), entry = { tensor, of, kind, type, coding, scale, length, begin };
  entries.push(entry);
  const inner = pen.at + length <= pen.end && coding === CODING.rans14 && codedFields(pen, entry, i);
  const form = coding ? 'hex' : `packed ${bitLength(frames)} ${tensor.n}`;
  if (inner) pen.take(inner);
  else pen.put(length, 'counts', coding ? '6.14' : '8.6', 'payload', form, of, i);
}

/** Adds the bytes that were not read, and the checksum. */
function finished(pen, section, entries, schema) {
  if (pen.at < pen.end) pen.add(pen.end, 'bytes that belong to no field', section);
  if (pen.end < pen.bytes.length) {
    pen.end = pen.bytes.length;
    pen.add(pen.end, 'checksum', section === '6.1' ? '6.6' : section, 'checksum');
  }
  return { fields: pen.fields, entries, schema };
}
