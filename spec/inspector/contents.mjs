// What bytes are, and schemas in any of their forms.

import { DTYPE, FedmrnError, ROLE, buildSchema, parseSchema } from '../decoders/js/fedmrn.mjs';

const startsWith = (bytes, text) => Array.from(text).every((c, i) => bytes[i] === c.charCodeAt(0));

const MAGICS = { FMRN: 'frame', FMRS: 'sum', FMRT: 'tally' };
const magicOf = (bytes) => Object.keys(MAGICS).find((magic) => startsWith(bytes, magic));

/** Whether bytes begin as a frame, a partial sum or a tally does. */
export const hasMagic = (bytes) => magicOf(bytes) !== undefined;

/** What bytes look like: frame, sum, tally, schema, or json for a schema in JSON. What is nothing else is read as a frame. */
export function whatIs(bytes) {
  const magic = magicOf(bytes);
  if (magic) return MAGICS[magic];
  try {
    parseSchema(bytes);
    return 'schema';
  } catch {
    return /^\s*[[{]/.test(new TextDecoder().decode(bytes.subarray(0, 64))) ? 'json' : 'frame';
  }
}

/** What was given as a schema is none; `message` says what is wrong. */
export class NoSchema extends Error {}

/** The bytes of a schema that was given as such bytes, as JSON, or in a frame that embeds it. */
export function schemaBytes(bytes) {
  const what = whatIs(bytes);
  if (what === 'schema') return bytes;
  if (what === 'json') return fromJson(new TextDecoder().decode(bytes));
  if (what === 'frame' && startsWith(bytes, 'FMRN') && bytes.length > 52 && bytes[6] & 1) {
    const length = new DataView(bytes.buffer, bytes.byteOffset).getUint32(48, true);
    const inside = bytes.subarray(52, 52 + length);
    if (inside.length === length && whatIs(inside) === 'schema') return inside;
  }
  throw new NoSchema('expected the bytes of a schema, its JSON, or a frame that embeds one, got something else');
}

/** The bytes of a schema in the JSON that `fedmrn schema` prints: a list of name, shape, masked and dtype. */
function fromJson(text) {
  try {
    return buildSchema(JSON.parse(text).map(tensorOf)).bytes;
  } catch (error) {
    if (error instanceof FedmrnError) throw new NoSchema(error.message);
    throw new NoSchema(`expected JSON of a list of tensors with name, shape, masked and dtype, got: ${error.message}`);
  }
}

function tensorOf({ name, shape, masked = false, dtype = 'float32' }, i) {
  if (typeof name !== 'string' || !Array.isArray(shape)) throw new TypeError(`tensor ${i} has no name or no shape`);
  if (!Object.hasOwn(DTYPE, dtype)) throw new TypeError(`tensor ${i} has the dtype ${JSON.stringify(dtype)}`);
  return { name, shape, role: masked ? ROLE.masked : ROLE.dense, dtype: DTYPE[dtype] };
}
