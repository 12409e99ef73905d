// All that the page shows of some bytes, in parts, as data that can be sent from a worker to a page.

import { Aggregate, DTYPE, FedmrnError, Tally, crc32, parseFrame, parseSchema } from '../decoders/js/fedmrn.mjs';
import { NoSchema, schemaBytes, whatIs } from './contents.mjs';
import { layoutOf } from './fields.mjs';
import { Histogram, measureMean, measureTally, measureTensor } from './measures.mjs';

/** The most elements that this page decodes. */
export const MOST_ELEMENTS = 2 ** 25;

/** The most tensors of which pictures and values are kept. */
export const MOST_SHOWN = 60;

/**
 * Reads bytes and passes parts to `send`: first { what, bytes }, then { layout }, { verdict }, { tensor, i } for each tensor,
 * { total }, and { done }. Where the reader's schema is none, { schemaRefused } says so, and it is not used; where JSON is
 * no schema, { refused }.
 * @param {object} request
 * @param {Uint8Array} request.bytes
 * @param {'' | 'frame' | 'sum' | 'tally' | 'schema'} request.as what they are; '': what they look like
 * @param {Uint8Array | undefined} request.given the reader's schema in any form
 * @param {(part: object) => void} send
 */
export function report({ bytes, as, given }, send) {
  const seen = as || whatIs(bytes);
  const read = seen === 'json' ? accepted(bytes, (refused) => send({ refused })) : bytes;
  if (read) {
    const what = seen === 'json' ? 'schema' : seen;
    send({ what, bytes: read, json: seen === 'json' });
    reportBytes(what, read, what !== 'schema' && given && accepted(given, (schemaRefused) => send({ schemaRefused })), send);
  }
  send({ done: true });
}

/** The bytes of a schema in any form; if it is none, `refuse` is told why. */
function accepted(bytes, refuse) {
  try {
    return schemaBytes(bytes);
  } catch (error) {
    if (!(error instanceof NoSchema)) throw error;
    refuse(error.message);
    return undefined;
  }
}

function reportBytes(what, bytes, given, send) {
  const caller = given ? parseSchema(given) : undefined;
  const layout = layoutOf(what, bytes, caller);
  send({ layout: sendable(layout), checksum: checksum(bytes, LEAST[what]) });
  const verdict = check(what, bytes, caller);
  send({ verdict: verdict.shown });
  if (verdict.measure) measureAll(verdict, send);
}

const sendable = ({ fields, entries, schema }) => ({ fields, entries, tensors: schema?.tensors });

const LEAST = { frame: 52, sum: 60, tally: 64 }; // bytes with a checksum

function checksum(bytes, least) {
  if (least === undefined || bytes.length < least) return undefined;
  const at = bytes.length - 4, view = new DataView(bytes.buffer, bytes.byteOffset);
  return { found: view.getUint32(at, true), right: crc32(bytes.subarray(0, at)) };
}

/** The outcome of the checks: { passed }, { error }, { missing } or { stopped }; and how to measure what has passed. */
function check(what, bytes, caller) {
  const elements = (caller?.tensors ?? []).reduce((sum, { n }) => sum + n, 0);
  if (elements > MOST_ELEMENTS) return { shown: { stopped: { elements, most: MOST_ELEMENTS } } };
  try {
    if (what === 'frame') return checkedFrame(bytes, caller);
    if (what === 'schema') parseSchema(bytes);
    else if (caller) return what === 'tally' ? checkedTally(bytes, caller) : checkedSum(bytes, caller);
    else return { shown: { missing: true } };
    return { shown: { passed: true } };
  } catch (error) {
    if (!(error instanceof FedmrnError)) throw error;
    return { shown: error.number === 'F-09' ? { missing: true } : { error: plainly(error) } };
  }
}

function checkedFrame(bytes, schema) {
  const frame = parseFrame(bytes, { schema }, { elements: MOST_ELEMENTS });
  return { shown: { passed: true }, tensors: frame.schema.tensors, measure: (i) => measureTensor(frame, i) };
}

function checkedSum(bytes, schema) {
  return withMean(Aggregate.fromBytes(bytes, schema), (mean, i) => measureMean(mean, schema.tensors[i]));
}

function checkedTally(bytes, schema) {
  const tally = Tally.fromBytes(bytes, schema), { baseModel, round } = tally;
  const sum = new Aggregate(schema, { baseModel, round });
  sum.addTally(tally);
  return withMean(sum, (mean, i) => measureTally(tally, mean, i));
}

/** What was checked, with `measure` of the mean of each tensor. */
function withMean(sum, measure) {
  try {
    const mean = sum.mean();
    return { shown: { passed: true }, tensors: sum.schema.tensors, measure: (i) => measure(mean[i], i) };
  } catch (error) {
    if (error instanceof FedmrnError) return { shown: { passed: true, mean: plainly(error) } };
    throw error;
  }
}

function plainly({ number, code, class: kind, field, offset, expected, got }) {
  return { number, code, class: kind, field, offset, expected, got };
}

const isFloat = (dtype) => dtype <= DTYPE.bfloat16; // the four float dtypes have the codes 1 to 4

function measureAll({ tensors, measure }, send) {
  const total = new Histogram();
  tensors.forEach(({ n }, i) => {
    const { histogram, first, picture, counted, ...measured } = measure(i);
    if (isFloat(tensors[i].dtype)) total.merge(histogram);
    const detail = i < MOST_SHOWN ? { histogram: histogram.data, first, picture, counted } : {};
    send({ i, tensor: { n, ...measured, ...detail } });
  });
  send({ total: total.data });
}
