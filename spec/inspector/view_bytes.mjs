// The bytes, coloured by field, and the list of fields.

import { el, table } from './dom.mjs';
import { counted, grouped, hex, meaning } from './values.mjs';

const FIRST = 4096; // bytes that are shown from the beginning
const AROUND = 512; // and around a fault behind them
const ROWS = 300; // of the list of fields
const ROW = 16;

const PARTS = {
  header: 'header', schema: 'schema', table: 'table', payload: 'payloads', checksum: 'checksum', rest: 'bytes of no field',
  further: 'fields that are not listed',
};

/** The index of the field at fault: the one at the error's offset, else the first of the tensor's payload; -1 if none. */
export function faultAt(error, fields) {
  if (!error) return -1;
  const at = fields.findIndex(({ begin, end }) => begin <= error.offset && error.offset < end);
  if (at >= 0 && error.offset !== undefined) return at;
  const tensor = /^(?:payload|tensor) (\d+)/.exec(error.field)?.[1];
  if (error.offset === undefined && tensor !== undefined) {
    return fields.findIndex((field) => field.part === 'payload' && field.tensor === Number(tensor));
  }
  return error.offset === undefined ? -1 : fields.length - 1;
}

const nameOf = ({ name, of }) => (of ? `${name} ${of}` : name);
const placeOf = ({ begin, end }) => (end - begin === 1 ? `byte ${begin}` : `bytes ${begin} to ${end - 1}`);

/** How many bytes each part has, as one bar with a legend. */
export function partsView(size, fields) {
  const sizes = Object.keys(PARTS).map((part) => {
    return [part, fields.reduce((sum, field) => sum + (field.part === part ? field.end - field.begin : 0), 0)];
  }).filter(([, bytes]) => bytes);
  const bar = el('div', { class: 'parts', 'aria-hidden': 'true' });
  for (const [part, bytes] of sizes) {
    const piece = bar.appendChild(el('span', { class: `p-${part}` }));
    piece.style.width = `${(100 * bytes) / size}%`;
  }
  const legend = sizes.map(([part, bytes]) => {
    const share = `${((100 * bytes) / size).toFixed(1)} %`;
    return el('li', {}, el('span', { class: `key p-${part}` }), `${PARTS[part]}: ${counted(bytes, 'byte')}, ${share}`);
  });
  return [bar, el('ul', { class: 'legend' }, ...legend)];
}

/** The ranges of bytes that are shown. */
function windows(size, fault) {
  const first = [0, Math.min(size, FIRST)];
  if (!fault || fault.begin < FIRST - ROW) return [first];
  const begin = Math.max(Math.floor((fault.begin - AROUND / 2) / ROW) * ROW, FIRST);
  return [first, [begin, Math.min(begin + AROUND, size)]];
}

/** The bytes in rows of 16, each field in the colour of its part, in two shades by turns. */
export function bytesView(bytes, fields, fault) {
  const detail = el('p', { class: 'detail', 'aria-live': 'polite' }, 'Point at bytes, or select them, to see their field.');
  const tell = ({ target }) => {
    const field = fields[target.dataset?.field];
    if (field) detail.textContent = `${placeOf(field)}: ${nameOf(field)}: ${meaning(field, bytes)} (section ${field.section})`;
  };
  const parts = windows(bytes.length, fields[fault]).map(([begin, end]) => {
    const block = el('div', { class: 'bytes' }, ...rowsOf(bytes, fields, fault, begin, end));
    block.addEventListener('pointerover', tell);
    block.addEventListener('click', tell);
    return el('div', {}, el('p', { class: 'note' }, extent(begin, end, bytes.length)), block);
  });
  return [detail, ...parts];
}

function extent(begin, end, size) {
  if (begin === 0 && end === size) return `All ${counted(size, 'byte')}.`;
  if (begin === 0) return `The first ${grouped(end)} of ${counted(size, 'byte')}.`;
  return `Bytes ${grouped(begin)} to ${grouped(end - 1)} of ${counted(size, 'byte')}, where the check fails.`;
}

function rowsOf(bytes, fields, fault, begin, end) {
  const rows = [];
  let f = fields.findIndex((field) => field.end > begin);
  for (let at = begin; at < end; at += ROW) {
    const halves = [at, at + ROW / 2].filter((from) => from < end).map((from) => {
      const half = el('span', { class: 'half' }), until = Math.min(from + ROW / 2, end);
      for (let k = from; k < until; k = Math.min(fields[f].end, until)) {
        while (fields[f].end <= k) f++;
        half.append(run(bytes, fields[f], f, k, Math.min(fields[f].end, until), f === fault));
      }
      return half;
    });
    rows.push(el('div', { class: 'row' }, el('span', { class: 'at' }, at.toString(16).padStart(8, '0')), ...halves));
  }
  return rows;
}

function run(bytes, field, f, from, until, bad) {
  const mark = `p-${field.part} shade-${f % 2}${bad ? ' bad' : ''}`;
  return el('span', { class: mark, 'data-field': f, title: nameOf(field) }, hex(bytes.subarray(from, until)));
}

/** The first fields, and those around a fault, with values. */
export function fieldsView(bytes, fields, fault) {
  const near = (i) => i < ROWS || (fault >= 0 && Math.abs(i - fault) <= 20);
  const rows = fields.map((field, i) => [field, i]).filter(([, i]) => near(i)).map(([field, i]) => {
    const key = el('span', { class: `key p-${field.part} shade-${i % 2}` });
    const words = nameOf(field) + (i === fault ? ' (the check fails here)' : '');
    const name = el('td', { class: i === fault ? 'name bad' : 'name' }, key, words);
    const place = field.end - field.begin === 1 ? String(field.begin) : `${field.begin}–${field.end - 1}`;
    return [place, name, el('td', { class: 'value' }, meaning(field, bytes)), field.section];
  });
  const all = counted(fields.length, 'field'), around = fault >= ROWS ? ', and those around the fault' : '';
  const note = rows.length < fields.length ? `${grouped(rows.length)} of ${all}: the first ${ROWS}${around}.` : `All ${all}.`;
  return [el('p', { class: 'note' }, note), table('Fields', ['bytes', 'field', 'value', 'section'], rows)];
}
